"""Time, memory and recall of finding neighbours both ways, beside the peers.

    pip install '.[mining]' && pip install sentence-transformers
    python benchmarks/mining.py --size 200000 --dim 256

Sources are random vectors. The first half of the targets are their translations (the
source, in another order, plus noise), the second half are random; so half of the
sources have one neighbour that is planted, and recall is the share of those for which
the translation is the nearest, both ways. Each way of searching runs in a process of
its own, one after another, `--repeat` times in turns; "memory" is the highest resident
memory, less what the process had with the vectors loaded. The same k neighbours, both
ways, with every way.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WAYS = ("exact", "faiss", "faiss-flat", "semantic_search")


def main(arguments: list[str] | None = None) -> None:
    """Runs all ways in turns and prints a Markdown table."""
    options = parse(arguments)
    if options.worker:
        print(json.dumps(measure(options.worker, Path(options.folder), options.k)))
        return
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder), options.size, options.dim, options.noise)
        results: dict[str, list[dict[str, Any]]] = {way: [] for way in options.ways}
        for _ in range(options.repeat):
            for way in options.ways:
                results[way].append(run(way, folder, options.k))
                print(f"{way}: {results[way][-1]}", file=sys.stderr, flush=True)
    print(
        f"{options.size:,} x {options.size:,}, D = {options.dim}, k = {options.k}, "
        f"noise {options.noise}, median of {options.repeat}",
        end="\n\n",
    )
    print("| way | time, s | of ours | memory, MB | recall of planted |")
    print("|---|---:|---:|---:|---:|")
    ours = statistics.median(r["seconds"] for r in results[options.ways[0]])
    for way, rows in results.items():
        seconds = statistics.median(row["seconds"] for row in rows)
        memory = statistics.median(row["memory"] for row in rows)
        recall = statistics.median(row["recall"] for row in rows)
        note = next((f" ({row['note']})" for row in rows if row.get("note")), "")
        print(
            f"| {way}{note} | {seconds:,.1f} | {seconds / ours:.2f} "
            f"| {memory:,.0f} | {recall:.4f} |"
        )


def plant(folder: Path, size: int, dim: int, noise: float) -> None:
    """Writes sources, targets and the translations' rows."""
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(size, dim)).astype(np.float32)
    order = rng.permutation(size)
    half = size // 2
    targets = rng.normal(size=(size, dim)).astype(np.float32)
    targets[:half] = sources[order[:half]] + noise * targets[:half]
    for name, vectors in (("sources", sources), ("targets", targets)):
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(folder / f"{name}.npy", vectors)
    np.save(folder / "planted.npy", order[:half])


def measure(way: str, folder: Path, k: int) -> dict[str, Any]:
    """One search in this process."""
    sources, targets = (np.load(folder / f"{n}.npy") for n in ("sources", "targets"))
    search = prepared(way)
    before = resident("VmRSS")
    start = time.perf_counter()
    forward, backward, note = search(sources, targets, k)
    seconds = time.perf_counter() - start
    planted = np.load(folder / "planted.npy")
    rows = np.arange(len(planted))
    found = np.mean(backward[: len(planted)] == planted)
    found_back = np.mean(forward[planted] == rows)
    return {
        "seconds": round(seconds, 2),
        "memory": round((resident("VmHWM") - before) / 1e6, 1),
        "recall": round(float(found + found_back) / 2, 5),
        "note": note,
    }


def prepared(way: str) -> Any:
    """A function from vectors to the nearest rows both ways; imports are not timed."""
    if way in ("exact", "faiss"):
        from labse_tf.mining import approximate, neighbors_both_ways

        notes: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: notes.append(record.getMessage())
        logger = logging.getLogger("labse_tf.mining")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)

        def ours(sources: Any, targets: Any, k: int) -> Any:
            if way == "exact":
                both = neighbors_both_ways(sources, targets, k)
            else:
                both = approximate.neighbors_both_ways(sources, targets, k)
            note = notes[0].partition(", ")[2] if notes else None
            return both.forward_rows[:, 0], both.backward_rows[:, 0], note

        return ours
    if way == "faiss-flat":
        import faiss

        def flat(sources: Any, targets: Any, k: int) -> Any:
            nearest = []
            for queries, candidates in ((sources, targets), (targets, sources)):
                index = faiss.IndexFlatIP(candidates.shape[1])
                index.add(candidates)
                nearest.append(index.search(queries, k)[1][:, 0])
            return (*nearest, None)

        return flat
    from sentence_transformers.util import semantic_search

    def semantic(sources: Any, targets: Any, k: int) -> Any:
        nearest = []
        for queries, candidates in ((sources, targets), (targets, sources)):
            hits = semantic_search(queries, candidates, top_k=k)
            nearest.append(np.array([hit[0]["corpus_id"] for hit in hits]))
        return (*nearest, None)

    return semantic


def resident(field: str) -> float:
    """A line of this process's memory, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024.0 * int(line.split()[1])
    raise RuntimeError(f"no {field} in /proc/self/status")


def run(way: str, folder: str, k: int) -> dict[str, Any]:
    """Measures in a new process."""
    command = [sys.executable, __file__, "--worker", way, "--folder", folder]
    output = subprocess.run(
        [*command, "--k", str(k)], check=True, capture_output=True, text=True
    )
    return json.loads(output.stdout.splitlines()[-1])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument(
        "--noise", type=float, default=1.0, help="length of the noise, of the source's"
    )
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
