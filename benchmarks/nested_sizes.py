"""Accuracy by the size of the vectors: the first 64, 128, 256, ... components.

    python benchmarks/nested_sizes.py labse-nano --data path/to/data
    python benchmarks/nested_sizes.py my-model --data path/to/data \
        --set tatoeba --languages hi ta fr --dims 32 96

`--data` is the folder that holds `tatoeba/` (LASER's files), `dev/tico19/` and
`dev/storybooks/` (pair files `en-XX.tsv.gz`). Each text is embedded once; its vector is
cut to each size and normalized again. The tables show the accuracy of the nearest
translation by language, mean of both directions, in percent, and the size of a vector
in float32.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
from zoo import read_pairs

from labse_tf import evaluation
from labse_tf.encoders import open_encoder
from labse_tf.evaluation.ranking import Pairs
from labse_tf.nested import cut_vectors

SETS = ("tico19", "tatoeba", "storybooks")


def read_set(folder: Path, name: str, languages: list[str]) -> Pairs:
    """Return English sentences and translations by language."""
    if name == "tatoeba":
        known = evaluation.tatoeba_pairs(folder / "tatoeba", languages)
    else:
        known = read_pairs(folder / "dev" / name, languages)
    return {code: known[code] for code in languages if code in known}


class KnownVectors:
    """Vectors of texts, each embedded once, at any size."""

    def __init__(self, encode: evaluation.Encoder, pairs: Pairs) -> None:
        sides = [side for both in pairs.values() for side in both]
        texts = sorted({text for side in sides for text in side})
        self._rows = {text: row for row, text in enumerate(texts)}
        self._vectors = np.asarray(encode(texts), np.float32)

    @property
    def width(self) -> int:
        """Dimension of the whole vectors."""
        return self._vectors.shape[1]

    def of_size(self, dim: int) -> evaluation.Encoder:
        """Return an encoder with vectors of `dim` components."""
        vectors = cut_vectors(self._vectors, dim)
        return lambda texts: vectors[[self._rows[text] for text in texts]]


def main() -> None:
    """Print one table for each model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--set", choices=SETS, default=SETS[0])
    parser.add_argument(
        "--languages", nargs="+", default=["hi", "bn", "ta", "fr", "ru", "zh"]
    )
    parser.add_argument("--dims", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--dtype", default="float32", help="compute type")
    options = parser.parse_args()
    pairs = read_set(options.data, options.set, options.languages)
    if not pairs:
        parser.error(f"no such languages in {options.set}: {options.languages}")
    for model in options.models:
        known = KnownVectors(open_encoder(model, options.dtype), pairs)
        sizes = sorted({d for d in options.dims if d < known.width} | {known.width})
        print(f"| {model} | bytes | " + " | ".join(pairs) + " | mean | of whole |")
        print("|---:|---:|" + "---:|" * (len(pairs) + 2))
        rows = {}
        for dim in sizes:
            result = evaluation.retrieval(known.of_size(dim), pairs, progress=False)
            rows[dim] = [result.accuracy[code] for code in pairs]
        whole = statistics.mean(rows[known.width])
        for dim, found in rows.items():
            mean = statistics.mean(found)
            cells = [f"{100 * value:.1f}" for value in (*found, mean, mean / whole)]
            print(f"| {dim} | {4 * dim:,} | " + " | ".join(cells) + " |")
        print(flush=True)


if __name__ == "__main__":
    main()
