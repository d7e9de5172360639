"""Sentence alignment: F1 on documents with known edits, time by length; the splitter.

    python benchmarks/alignment.py documents DATA --model labse-mini --work vectors
    python benchmarks/alignment.py growth
    python benchmarks/alignment.py splitter DATA

`documents` makes a document and its translation from files of pairs and scores the
alignment. Each pair is, at random with a fixed seed: merged with the next on one side
(10 %), cut in two on one side (10 %), left out of the source (10 %) or of the target
(10 %), or kept. No sentence moves. A cut is at the space nearest to the middle, after a
punctuation mark if there is one in the middle half. DATA has `dev/tico19` and
`dev/storybooks` with `en-XX.tsv.gz`, and `tatoeba` with `tatoeba.XXX-eng.XXX`.

`growth` aligns documents of random vectors with the same edits.

`splitter` joins sentences that end with a mark by tens, and scores the boundaries that
are found again; beside pysbd and sentence-splitter, if they are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from labse_tf.alignment import MAX_SENTENCES, align, embed_runs, score_alignment
from labse_tf.languages import LANGUAGES

Pairs = list[tuple[str, str]]
Beads = list[tuple[tuple[int, ...], tuple[int, ...]]]

_MARK = re.compile(r"[,;:.!?।॥，。、؛،-][)\]\"'’”»]*\s+")
_SHARE = 0.1  # of each kind of edit


def read_set(data: Path, name: str, language: str, limit: int) -> Pairs:
    """Read the first pairs of a set that have two sides."""
    from labse_tf.text import read_lines, read_pairs

    if name == "tatoeba":
        folder = data / "tatoeba"
        code = next(
            code
            for code in LANGUAGES[language].aliases
            if (folder / f"tatoeba.{code}-eng.eng").is_file()
        )
        stem = folder / f"tatoeba.{code}-eng"
        sides = [
            [text.strip() for _, text in read_lines(f"{stem}.{side}")]
            for side in ("eng", code)
        ]
        pairs = list(zip(*sides, strict=True))
    else:
        path = data / "dev" / name / f"en-{language}.tsv.gz"
        if not path.is_file():
            raise ValueError(f"{path}: expected a file of pairs. Received: no file")
        read = read_pairs(path, on_error="skip")
        pairs = [(pair.source, pair.target) for pair in read]
    return [(a, b) for a, b in pairs if a and b][:limit]


def cut(text: str) -> tuple[str, ...]:
    """Cut a text in two; texts of fewer than four words stay whole."""
    if len(text.split()) < 4:
        return (text,)
    middle = len(text) / 2
    marks = [match.end() - 1 for match in _MARK.finditer(text)]
    central = [place for place in marks if abs(place - middle) < middle / 2]
    spaces = [match.start() for match in re.finditer(r"\s+", text)]
    place = min(central or spaces, key=lambda p: abs(p - middle))
    return tuple(part for part in (text[:place].strip(), text[place:].strip()) if part)


def edit(count: int, merge: Callable, split: Callable, keep: Callable) -> Beads:
    """Make the edits: call a function for each bead, return the beads.

    Each function takes the index of a pair and, except `keep`, the side; `keep` takes
    the sides. They return the numbers of sentences that were added to both sides.
    """
    rng = np.random.default_rng(0)
    beads: Beads = []
    ends, k = [0, 0], 0
    while k < count:
        draw, side = rng.random() / _SHARE, int(rng.integers(2))
        if draw < 1 and k + 1 < count:
            added = merge(k, side)
            k += 1
        elif draw < 2:
            added = split(k, side)
        elif draw < 4:
            added = keep(k, (0,) if draw < 3 else (1,))
        else:
            added = keep(k, (0, 1))
        k += 1
        new = [end + more for end, more in zip(ends, added, strict=True)]
        runs = [tuple(range(a, b)) for a, b in zip(ends, new, strict=True)]
        beads.append((runs[0], runs[1]))
        ends = new
    return beads


def make_documents(pairs: Pairs) -> tuple[list[str], list[str], Beads]:
    """Return the source, the target and the correct beads."""
    sides: tuple[list[str], list[str]] = [], []

    def merge(k: int, side: int) -> tuple[int, int]:
        sides[side].append(f"{pairs[k][side]} {pairs[k + 1][side]}")
        sides[1 - side].extend((pairs[k][1 - side], pairs[k + 1][1 - side]))
        return (1, 2) if side == 0 else (2, 1)

    def split(k: int, side: int) -> tuple[int, int]:
        parts = cut(pairs[k][side])
        sides[side].extend(parts)
        sides[1 - side].append(pairs[k][1 - side])
        return (len(parts), 1) if side == 0 else (1, len(parts))

    def keep(k: int, kept: Sequence[int]) -> tuple[int, int]:
        for side in kept:
            sides[side].append(pairs[k][side])
        return int(0 in kept), int(1 in kept)

    return *sides, edit(len(pairs), merge, split, keep)


def measure_documents(options: argparse.Namespace) -> None:
    """Score the alignment of each set and language."""
    from labse_tf.encoders import fingerprint, open_encoder

    encode = open_encoder(options.model, options.dtype, options.sequence_length)
    model = fingerprint(options.model, options.dtype, options.sequence_length)
    longest = 1 if options.run_vectors == "sum" else MAX_SENTENCES - 1
    for language in options.languages:
        for name in options.sets:
            pairs = read_set(options.data, name, language, options.limit)
            source, target, beads = make_documents(pairs)
            folder = options.work / f"{options.model}-{name}-{language}-{longest}"
            runs: list[Any] = [
                embed_runs(
                    texts, encode, folder / f"{k}.npy", longest=longest, model=model
                )
                for k, texts in enumerate((source, target))
            ]
            if options.run_vectors == "sum":
                runs = [run.vectors(1, np.arange(run.count)) for run in runs]
            began = time.perf_counter()
            found = align(
                source, target, source_vectors=runs[0], target_vectors=runs[1]
            )
            seconds = time.perf_counter() - began
            both = [bead[:2] for bead in found.beads()]
            row = {
                "model": options.model,
                "runs": options.run_vectors,
                "set": name,
                "language": language,
                "sentences": [len(source), len(target)],
                "strict": [round(x, 4) for x in score_alignment(both, beads)],
                "lax": [round(x, 4) for x in score_alignment(both, beads, lax=True)],
                "seconds": round(seconds, 2),
            }
            print(json.dumps(row), flush=True)


_ENDS = ".!?…।॥。！？؟۔።"
_CLOSING = "\"'”’»)」"
_SPLIT = "en hi mr bn ta te ml ur ar fa am ru pl de fr es it pt nl el zh ja".split()


def sentences_of(data: Path, language: str) -> list[str]:
    """Return sentences that end with a mark: Tatoeba, and half of TICO-19."""
    side, code = (0, "hi") if language == "en" else (1, language)
    texts = [pair[side] for pair in read_set(data, "tatoeba", code, 1000)]
    if (data / "dev" / "tico19" / f"en-{code}.tsv.gz").is_file():
        texts += [pair[side] for pair in read_set(data, "tico19", code, 1500)]
    return [text for text in texts if text.rstrip(_CLOSING)[-1:] in set(_ENDS)]


def boundary_f1(texts: list[str], separator: str, split: Callable) -> float:
    """Return F1 of the boundaries inside paragraphs of ten sentences."""
    correct = found = expected = 0
    for start in range(0, len(texts), 10):
        paragraph = texts[start : start + 10]
        ends = []
        for parts in (paragraph, split(separator.join(paragraph))):
            # Splitters differ in the white space that they keep.
            lengths = [len("".join(part.split())) for part in parts]
            ends.append(set(np.cumsum(lengths).tolist()[:-1]))
        correct += len(ends[0] & ends[1])
        expected, found = expected + len(ends[0]), found + len(ends[1])
    return 2 * correct / (found + expected)


def measure_splitter(options: argparse.Namespace) -> None:
    """Score the splitters on each language that they have."""
    from labse_tf.text import split_sentences

    for language in options.languages:
        texts = sentences_of(options.data, language)
        splitters: dict[str, Callable] = {
            "split_sentences": partial(split_sentences, language=language)
        }
        with contextlib.suppress(ImportError, ValueError):
            import pysbd

            splitters["pysbd"] = pysbd.Segmenter(language, clean=False).segment
        # The second package raises an error of its own for unknown languages.
        with contextlib.suppress(Exception):
            from sentence_splitter import SentenceSplitter

            splitters["sentence-splitter"] = SentenceSplitter(language).split
        separator = "" if language in ("zh", "ja") else " "
        row: dict[str, Any] = {"language": language, "sentences": len(texts)}
        for name, split in splitters.items():
            row[name] = round(boundary_f1(texts, separator, split), 4)
        print(json.dumps(row), flush=True)


def random_documents(
    count: int, dim: int
) -> tuple[list[np.ndarray], list[np.ndarray], Beads]:
    """Return vectors and lengths of both sides, and the correct beads.

    A translation is the vector plus noise of the same length.
    """
    rng = np.random.default_rng(1)
    vectors: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    lengths: tuple[list[int], list[int]] = [], []
    meanings = rng.standard_normal((count + 1, dim), dtype=np.float32)
    characters = rng.integers(20, 200, count + 1)

    def add(side: int, vector: np.ndarray, length: int) -> None:
        noise = rng.standard_normal(dim, dtype=np.float32)
        vectors[side].append((vector + noise).astype(np.float16))
        lengths[side].append(int(length * rng.uniform(0.8, 1.25)))

    def merge(k: int, side: int) -> tuple[int, int]:
        both = characters[k : k + 2]
        add(
            side,
            (meanings[k : k + 2] * (both / both.sum())[:, None]).sum(0),
            both.sum(),
        )
        for place in (k, k + 1):
            add(1 - side, meanings[place], characters[place])
        return (1, 2) if side == 0 else (2, 1)

    def split(k: int, side: int) -> tuple[int, int]:
        half = rng.standard_normal(dim, dtype=np.float32)
        # The halves share the meaning, and differ from each other.
        for sign in (1, -1):
            add(side, meanings[k] + sign * half, characters[k] / 2)
        add(1 - side, meanings[k], characters[k])
        return (2, 1) if side == 0 else (1, 2)

    def keep(k: int, kept: Sequence[int]) -> tuple[int, int]:
        for side in kept:
            add(side, meanings[k], characters[k])
        return int(0 in kept), int(1 in kept)

    beads = edit(count, merge, split, keep)
    return [np.stack(v) for v in vectors], [np.array(x) for x in lengths], beads


def measure_one(count: int, dim: int) -> None:
    """Align documents of random vectors, in this process."""
    vectors, lengths, beads = random_documents(count, dim)
    texts = [["x" * length for length in side.tolist()] for side in lengths]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu = time.perf_counter(), time.process_time()
    found = align(*texts, source_vectors=vectors[0], target_vectors=vectors[1])
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    score = score_alignment([bead[:2] for bead in found.beads()], beads)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = {
        "sentences": [len(side) for side in texts],
        "dimension": dim,
        "seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mb": round(peak),
        "input_mb": round(before),
        "strict_f1": round(score.f1, 4),
    }
    print(json.dumps(row), flush=True)


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    documents = kinds.add_parser("documents", help="F1 on documents with known edits")
    documents.add_argument("data", type=Path, metavar="DATA")
    documents.add_argument("--model", default="labse-mini")
    documents.add_argument("--dtype", default="float32")
    documents.add_argument("--sequence-length", type=int)
    documents.add_argument("--languages", nargs="+", default=["hi", "bn", "ta", "fr"])
    documents.add_argument(
        "--sets", nargs="+", default=["tico19", "storybooks", "tatoeba"]
    )
    documents.add_argument("--limit", type=int, default=1000, help="pairs per set")
    documents.add_argument("--run-vectors", default="text", choices=("text", "sum"))
    documents.add_argument(
        "--work", type=Path, default=Path("alignment.work"), help="for the vectors"
    )
    splitter = kinds.add_parser("splitter", help="boundaries found again")
    splitter.add_argument("data", type=Path, metavar="DATA")
    splitter.add_argument("--languages", nargs="+", default=_SPLIT)
    growth = kinds.add_parser("growth", help="time by length, on random vectors")
    growth.add_argument("--sizes", nargs="+", type=int, default=[1000, 10_000, 100_000])
    growth.add_argument("--dim", type=int, default=384)
    growth.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind == "documents":
        measure_documents(options)
    elif options.kind == "splitter":
        measure_splitter(options)
    elif options.one is not None:
        measure_one(options.one, options.dim)
    else:
        for size in options.sizes:
            # Peak memory is that of a process.
            arguments = ["growth", "--one", str(size), "--dim", str(options.dim)]
            subprocess.run([sys.executable, __file__, *arguments], check=True)


if __name__ == "__main__":
    main()
