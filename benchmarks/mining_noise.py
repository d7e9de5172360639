"""Precision of mined pairs among noise: digits, fragments and other languages.

    python benchmarks/mining_noise.py ../shared/data/mining --pairs hi-en fr-en

Each side of a set in BUCC's layout gets 30 % more lines, a third of each kind: numbers
and dates; one to three words of a sentence; sentences of two other sets' languages. No
noise line has a translation in the gold file. Pairs are mined as `labse-tf mine` does
(ratio, max, one to one), without and with its remedies: lines with few letters or in
another script are skipped, and small neighborhood means are raised.

The tables show, at some shares of the list and at some recalls, the precision (share of
pairs in the gold file) and the share of pairs with a noise line, and the best F.
Vectors are kept in `--cache`.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from labse_tf import mining
from labse_tf.data.cleaning import unlikely_lines
from labse_tf.encoders import open_encoder
from labse_tf.evaluation import bucc_files

LANGUAGES = ("ru", "zh", "ta", "bn", "fr", "hi")
SHARES = (0.01, 0.05, 0.2)
RECALLS = (0.5, 0.7, 0.8, 0.9)
FLOOR = 0.05  # the default of `labse-tf mine`


class Side(NamedTuple):
    """Texts with their noise behind them, their vectors, the number without noise."""

    texts: list[str]
    vectors: np.ndarray
    clean: int


def digits(rng: random.Random) -> str:
    """Return a number, a date, a time or the like."""
    number = rng.randrange(10 ** rng.randint(1, 7))
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1900, 2030)
    forms = (
        str(number),
        f"{number:,}",
        f"{number / 100:.2f} %",
        f"({number})",
        f"{day:02d}.{month:02d}.{year}",
        f"{rng.randint(0, 23)}:{rng.randint(0, 59):02d}",
        f"{number} - {rng.randrange(1000)}",
        f"+{rng.randint(1, 99)} {rng.randrange(1000)} {rng.randrange(10**6)}",
    )
    return rng.choice(forms)


def fragment(rng: random.Random, texts: list[str]) -> str:
    """Return one to three words of a sentence."""
    words = rng.choice(texts).split()
    size = rng.randint(1, min(3, len(words)))
    start = rng.randint(0, len(words) - size)
    return " ".join(words[start : start + size])


def noise(
    texts: list[str], others: list[list[str]], count: int, seed: int
) -> list[str]:
    """Return `count` distinct lines, none of which is in `texts`."""
    rng = random.Random(seed)
    makers: tuple[Callable[[], str], ...] = (
        lambda: digits(rng),
        lambda: fragment(rng, texts),
        lambda: rng.choice(rng.choice(others)),
    )
    known, lines = set(texts), []
    for i in range(count):
        while (line := makers[i % 3]()) in known or not line.strip():
            pass
        known.add(line)
        lines.append(line)
    return lines


def read_sides(
    folder: Path, pair: str, share: float
) -> tuple[list[tuple[list[str], int]], np.ndarray]:
    """Return (texts with noise, number without noise) of both sides, and the gold."""
    files = bucc_files.find_bucc_files(folder)

    def read(name: str) -> bucc_files.BuccSentences:
        return bucc_files.read_bucc(folder, name, "training", files[name])

    data = read(pair)
    codes = [c for c in LANGUAGES if f"{c}-en" != pair and f"{c}-en" in files][:2]
    foreign = [read(f"{code}-en").sources for code in codes]
    sides = []
    for number, texts in enumerate((data.sources, data.targets)):
        # Each side has other sentences of the foreign languages.
        others = [lines[number::2] for lines in foreign]
        more = noise(texts, others, int(share * len(texts)), seed=number)
        sides.append((texts + more, len(texts)))
    return sides, data.gold


def vectors_of(texts: list[str], model: str, cache: Path) -> np.ndarray:
    """Encode texts, or read their vectors from the cache."""
    key = hashlib.sha256("\n".join([model, *texts]).encode()).hexdigest()[:16]
    path = cache / f"{key}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path, open_encoder(model)(texts))
    return np.load(path)


def row(
    label: str, sides: list[Side], gold: np.ndarray, *, remedies: bool, clean: bool
) -> str:
    """Mine once, and return a row of the table."""
    chosen = []
    for side in sides:
        size = side.clean if clean else len(side.texts)
        kept = np.arange(size)
        if remedies:
            lines = side.texts[:size]
            unlikely = unlikely_lines(lambda lines=lines: [lines])
            kept = np.flatnonzero(~(unlikely.few_letters | unlikely.other_script))
        chosen.append(kept)
    found = mining.mine_pairs(
        *(side.vectors[kept] for side, kept in zip(sides, chosen, strict=True)),
        mean_floor=FLOOR if remedies else 0.0,
        progress=False,
    )
    sources, targets = chosen[0][found.sources], chosen[1][found.targets]
    width = len(sides[1].texts)
    right = np.isin(sources * width + targets, gold[:, 0] * width + gold[:, 1])
    noisy = (sources >= sides[0].clean) | (targets >= sides[1].clean)
    counts = np.arange(1, len(right) + 1)
    precision, recall = right.cumsum() / counts, right.cumsum() / len(gold)
    wrong = noisy.cumsum() / counts
    best = (2 * right.cumsum() / (counts + len(gold))).max()
    cells = [f"{best:.2%}"]
    for share in SHARES:
        place = max(1, int(share * len(right))) - 1
        cells.append(f"{precision[place]:.1%} / {wrong[place]:.1%}")
    for level in RECALLS:
        place = int(np.searchsorted(recall, level))
        reached = place < len(recall)
        cells.append(
            f"{precision[place]:.1%} / {wrong[place]:.1%}" if reached else "not reached"
        )
    return f"| {label} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print one table for each pair."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="sets in BUCC's layout")
    parser.add_argument("--pairs", nargs="+", default=["hi-en", "fr-en"])
    parser.add_argument("--model", default="labse-mini")
    parser.add_argument("--share", type=float, default=0.3, help="noise lines per line")
    parser.add_argument("--cache", type=Path, default=Path("mining_noise"))
    options = parser.parse_args()
    heads = [f"top {share:.0%}" for share in SHARES]
    heads += [f"recall {level}" for level in RECALLS]
    for pair in options.pairs:
        texts, gold = read_sides(options.folder, pair, options.share)
        sides = [
            Side(lines, vectors_of(lines, options.model, options.cache), clean)
            for lines, clean in texts
        ]
        print(f"| {pair} | best F | " + " | ".join(heads) + " |")
        print("|---|" + "---:|" * (1 + len(heads)), flush=True)
        for clean in (True, False):
            for remedies in (False, True):
                label = "clean" if clean else f"{options.share:.0%} noise"
                label += ", with remedies" if remedies else ", as in the paper"
                print(
                    row(label, sides, gold, remedies=remedies, clean=clean), flush=True
                )
        print()


if __name__ == "__main__":
    main()
