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
import dataclasses
import statistics
from pathlib import Path

from zoo import once, read_pairs

from labse_tf import evaluation
from labse_tf.encoders import open_encoder
from labse_tf.evaluation.ranking import Pairs

SETS = ("tico19", "tatoeba", "storybooks")


def read_set(folder: Path, name: str, languages: list[str]) -> Pairs:
    """Return English sentences and translations by language."""
    if name == "tatoeba":
        known = evaluation.tatoeba_pairs(folder / "tatoeba", languages)
    else:
        known = read_pairs(folder / "dev" / name, languages)
    return {code: known[code] for code in languages if code in known}


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
        encoder = open_encoder(model, options.dtype)
        width = encoder.dimension
        known = dataclasses.replace(encoder, encode=once(encoder), model=None)
        sizes = sorted({d for d in options.dims if d < width} | {width})
        print(f"| {model} | bytes | " + " | ".join(pairs) + " | mean | of whole |")
        print("|---:|---:|" + "---:|" * (len(pairs) + 2))
        rows = {}
        for dim in sizes:
            result = evaluation.retrieval(known.cut(dim), pairs, progress=False)
            rows[dim] = [result.accuracy[code] for code in pairs]
        whole = statistics.mean(rows[width])
        for dim, found in rows.items():
            mean = statistics.mean(found)
            cells = [f"{100 * value:.1f}" for value in (*found, mean, mean / whole)]
            print(f"| {dim} | {4 * dim:,} | " + " | ".join(cells) + " |")
        print(flush=True)


if __name__ == "__main__":
    main()
