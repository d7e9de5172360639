"""Likely errors in real catalogs of which a share of the messages is swapped.

    pip install '.[quickstart]'
    python benchmarks/review.py --model labse-nano --languages hi ta fr

For each language, the messages of the installed catalogs (Django, Django REST
framework, Sphinx) become one catalog without repeated pairs. 5 % of them get the
translation of a near neighbor: in a random order that a seed fixes, a message is
swapped with the most similar message, by the model's cosine of the two English
messages, that has other texts and is not swapped yet. AUROC is the probability that a
swapped message ranks before one that is not; "precision" is the share of swapped
messages among as many of the first as there are swapped messages. Catalogs have errors
of their own, which count as right here. The time is that of embedding and judging,
without loading the model, as passed and as used by the processor's cores.

The shipped models have seen Django's messages in training; `--packages rest_framework
sphinx` leaves them out.

`--pool` makes one catalog of all languages, for its time: each message then stands
there in several languages, which do not count as others.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from labse_tf.encoders import open_encoder
from labse_tf.mining import unit_rows
from labse_tf.review import find_suspects
from labse_tf.text import SkipReport, clean_interface_text, read_pairs

PACKAGES = ("django", "rest_framework", "sphinx")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a Markdown table, one row per language."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="labse-nano")
    parser.add_argument("--languages", nargs="+", default=["hi", "ta", "ur", "fr"])
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pool", action="store_true")
    parser.add_argument("--packages", nargs="+", default=PACKAGES)
    options = parser.parse_args(arguments)
    encode = open_encoder(options.model)
    encode(["A first text compiles the model."] * 300)
    print(
        "| language | messages | cosine | margin | **probability** | precision "
        "| seconds | CPU s |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    every = []
    catalogs = {
        language: catalog(language, options.packages) for language in options.languages
    }
    if options.pool:
        catalogs = {"pool": [pair for pairs in catalogs.values() for pair in pairs]}
    for language, pairs in catalogs.items():
        clocks = time.perf_counter(), time.process_time()
        plain = [
            clean_interface_text(t) or t
            for side in zip(*pairs, strict=True)
            for t in side
        ]
        vectors = np.asarray(encode(plain))
        spent = [time.perf_counter() - clocks[0], time.process_time() - clocks[1]]
        count = len(pairs)
        x, y = vectors[:count], vectors[count:]
        order, wrong = swapped(pairs, x, options.share, options.seed)
        targets = [pairs[i][1] for i in order]
        clocks = time.perf_counter(), time.process_time()
        found = find_suspects([p[0] for p in pairs], targets, x, y[order])
        spent[0] += time.perf_counter() - clocks[0]
        spent[1] += time.process_time() - clocks[1]
        scores = [-found.cosines, -found.margins, found.probabilities]
        areas = [auroc(score, wrong) for score in scores]
        first = np.argsort(-found.probabilities, kind="stable")[: wrong.sum()]
        every.append([*areas, wrong[first].mean()])
        numbers = " | ".join(f"{value:.3f}" for value in every[-1])
        print(
            f"| {language} | {count:,} | {numbers} | {spent[0]:.1f} | {spent[1]:.1f} |",
            flush=True,
        )
    means = " | ".join(f"{statistics.mean(c):.3f}" for c in zip(*every, strict=True))
    print(f"| mean of {len(every)} | | {means} | | |")


def catalog(language: str, packages: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the different pairs of a language in the installed catalogs."""
    found: dict[tuple[str, str], None] = {}
    for package in packages:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise SystemExit(f"{package}: pip install '.[quickstart]'")
        root = Path(spec.origin).parent
        for path in sorted(root.rglob(f"locale/{language}/LC_MESSAGES/*.po")):
            for pair in read_pairs(path, on_error="skip", skipped=SkipReport()):
                found[pair.source, pair.target] = None
    if not found:
        raise SystemExit(f"no catalogs of {language}")
    return list(found)


def swapped(
    pairs: Sequence[tuple[str, str]], vectors: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns whose translation each message gets, and which are swapped."""
    vectors = unit_rows(vectors).astype(np.float32)
    order, wrong = np.arange(len(pairs)), np.zeros(len(pairs), dtype=bool)
    for i in np.random.default_rng(seed).permutation(len(pairs)).tolist():
        if wrong.sum() + 2 > share * len(pairs):
            break
        if wrong[i]:
            continue
        for j in np.argsort(-(vectors @ vectors[i]), kind="stable")[:50].tolist():
            differs = all(a != b for a, b in zip(pairs[i], pairs[j], strict=True))
            if differs and not wrong[j]:
                order[[i, j]] = order[[j, i]]
                wrong[[i, j]] = True
                break
    return order, wrong


def auroc(scores: np.ndarray, wrong: np.ndarray) -> float:
    """Returns the area under the ROC curve; equal scores count half."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    bad = int(wrong.sum())
    good = len(scores) - bad
    return float((ranks[wrong].sum() - bad * (bad + 1) / 2) / (bad * good))


if __name__ == "__main__":
    main()
