r"""Measures document alignment on documents cut from parallel text.

    python benchmarks/document_alignment.py DATA --languages hi bn ta fr

DATA has `dev/tico19` and `dev/storybooks` with `en-XX.tsv.gz`. Their rows are in the
order of the texts they come from, so a document is a run of 5 to 8 rows, and its
neighbors are other parts of the same text: the hard case. On each side 10 % of the
sentences are deleted, 10 % merged with the next one and 10 % split, independently. The
documents of the other side are shuffled.

Printed for each language: the share of the documents that are paired with their
translation (recall@1): the nearest one by the vectors of the documents; in one-to-one
pairs by their cosine; and by the mean of that cosine and `bimax`.
"""

from __future__ import annotations

import argparse
import gzip
import random
import time
from pathlib import Path

import numpy as np

from labse_tf.alignment import (
    Documents,
    align_documents,
    bimax,
    document_vectors,
    shared_axes,
)
from labse_tf.encoders import Encoder, open_encoder


def main() -> None:
    """Measures all languages with one model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--languages", nargs="+", default=["hi", "bn", "ta", "fr"])
    parser.add_argument("--model", default="labse-mini")
    parser.add_argument("--documents", type=int, default=500, metavar="N")
    options = parser.parse_args()
    encode = open_encoder(options.model, "auto")
    print("| language | documents | vectors | nearest | cosine | bimax |")
    print("|---|---:|---|---:|---:|---:|")
    for language in options.languages:
        measure(options, language, encode)


def measure(options: argparse.Namespace, language: str, encode: Encoder) -> None:
    """Prints the rows of a language."""
    chance = random.Random(0)
    parts: list[list[list[str]]] = []
    for name in ("tico19", "storybooks"):
        path = options.data / "dev" / name / f"en-{language}.tsv.gz"
        if path.exists():
            parts += cut(read(path), chance)
    chance.shuffle(parts)
    parts = parts[: options.documents]
    order = chance.sample(range(len(parts)), len(parts))
    sides = [
        embedded([damaged([r[0] for r in part], chance) for part in parts], encode),
        embedded([damaged([r[1] for r in parts[i]], chance) for i in order], encode),
    ]
    there = np.argsort(order)  # the place of each document's translation
    for method in ("mean", "slots"):
        axes = shared_axes(*sides) if method == "slots" else None
        vectors = [document_vectors(side, axes=axes, method=method) for side in sides]
        nearest = (vectors[0] @ vectors[1].T).argmax(axis=1)
        cells = [f"{100 * (nearest == there).mean():.1f}"]
        for score in (None, bimax):
            started = time.perf_counter()
            found = align_documents(
                *sides, method=method, rescore=score, progress=False
            )
            right = (there[found.sources] == found.targets).sum() / len(parts)
            seconds = time.perf_counter() - started
            cells.append(f"{100 * right:.1f} ({seconds:.0f} s)")
        print(
            f"| {language} | {len(parts)} | {method} | {' | '.join(cells)} |",
            flush=True,
        )


def read(path: Path) -> list[list[str]]:
    """Returns the rows of a file of pairs."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.rstrip("\n").split("\t")[:2] for line in file]


def cut(rows: list[list[str]], chance: random.Random) -> list[list[list[str]]]:
    """Returns runs of 5 to 8 rows."""
    parts, at = [], 0
    while at + 5 <= len(rows):
        size = chance.randint(5, 8)
        parts.append(rows[at : at + size])
        at += size
    return parts


def damaged(texts: list[str], chance: random.Random) -> list[str]:
    """Returns the sentences of a document with some deleted, merged and split."""
    found: list[str] = []
    at = 0
    while at < len(texts):
        text, share = texts[at], chance.random()
        words = text.split()
        at += 1
        if share < 0.1:
            continue
        if share < 0.2 and at < len(texts):
            found.append(f"{text} {texts[at]}")
            at += 1
        elif share < 0.3 and len(words) > 5:
            half = len(words) // 2
            found += [" ".join(words[:half]), " ".join(words[half:])]
        else:
            found.append(text)
    return found or texts[:1]


def embedded(documents: list[list[str]], encode: Encoder) -> Documents:
    """Returns documents with the vectors of their sentences."""
    texts = [text for document in documents for text in document]
    distinct, rows = np.unique(texts, return_inverse=True)
    return Documents(
        encode(distinct.tolist()),
        [len(document) for document in documents],
        rows=rows,
        lengths=[len(text) for text in texts],
    )


if __name__ == "__main__":
    main()
