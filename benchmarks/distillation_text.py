r"""Chooses the pairs from which the shipped models are distilled.

    python benchmarks/distillation_text.py CORPUS OUTPUT

CORPUS is a directory of `en-XX.tsv.gz`; OUTPUT gets files of the same names. The
teacher's work is the vectors of the English sentences, so sentences are chosen that
have many translations:

- the 150,000 English sentences of three and more words with the most translations;
- 55,000 longer ones, of 15 to 70 words, at most 15,000 of them from Sanskrit;
- 20,000 joined texts of two or three sentences, in all languages that have all of them;

and of these at most `--english` at random. Of the languages in MORE each has at most
12,000 pairs. With `--short`, for a later part of the training, instead:

- the English sentences of 3 to 14 words with at least 4 translations;
- 30,000 longer ones, of 15 to 70 words, with at least 2, and 8,000 from Sanskrit;
- 10,000 joined texts.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import random
from pathlib import Path

LANGUAGES = """hi bn mr ta te ml gu kn pa ur or as ne si sa mai
fr de es pt it nl af id vi tr fa ru zh ar fi bg eu""".split()
MORE = """ja ko th pl uk cs el he hu sv ro da no sw tl ms et ka kk jv
kok sd brx mni sat ks doi""".split()
MOST_OF_MORE = 12_000
UNSPACED = ("zh", "ja", "th")


def main() -> None:
    """Reads all pairs, chooses, and writes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--english", type=int, default=129_024, metavar="N")
    parser.add_argument("--short", action="store_true", help="mostly short text")
    options = parser.parse_args()
    random_ = random.Random(0)
    count: collections.Counter[str] = collections.Counter()
    pairs = {}
    for code in (*LANGUAGES, *MORE):
        pairs[code] = read(options.corpus / f"en-{code}.tsv.gz")
        count.update(pairs[code].keys())
    by_count = [text for text, _ in sorted(count.items(), key=lambda x: (-x[1], x[0]))]
    if options.short:
        chosen = {a for a, times in count.items() if times >= 4 and words(a) <= 14}
        few, rest = 8_000, [a for a in by_count if count[a] >= 2]
    else:
        chosen = set(by_count[:150_000])
        few, rest = 15_000, by_count[150_000:]
    rest = sorted(text for text in rest if 15 <= words(text) <= 70)
    sanskrit = [text for text in rest if text in pairs["sa"]]
    others = [text for text in rest if text not in pairs["sa"]]
    random_.shuffle(sanskrit)
    random_.shuffle(others)
    chosen |= {*sanskrit[:few], *others[: 30_000 if options.short else 40_000]}
    joinable = [text for text in by_count[:100_000] if words(text) >= 5]
    joined = [
        tuple(random_.sample(joinable, random_.choice((2, 2, 3))))
        for _ in range(10_000 if options.short else 20_000)
    ]
    selected = {}
    for code, rows in pairs.items():
        several = [
            (
                " ".join(parts),
                ("" if code in UNSPACED else " ").join(map(rows.get, parts)),
            )
            for parts in joined
            if all(part in rows for part in parts)
        ]
        if len(several) > 6000:
            several = random_.sample(several, 6000)
        selected[code] = [(a, b) for a, b in rows.items() if a in chosen] + several
        random_.shuffle(selected[code])
    english = sorted({a for rows in selected.values() for a, _ in rows})
    random_.shuffle(english)
    kept = set(english[: options.english])
    options.output.mkdir(parents=True, exist_ok=True)
    for code, rows in selected.items():
        rows = [f"{a}\t{b}\n" for a, b in rows if a in kept]
        rows = rows[:MOST_OF_MORE] if code in MORE else rows
        with gzip.open(options.output / f"en-{code}.tsv.gz", "wt") as file:
            file.writelines(rows)
        print(f"{code} {len(rows):,}")


def words(text: str) -> int:
    """Number of words."""
    return len(text.split())


def read(path: Path) -> dict[str, str]:
    """English sentence of three and more words -> its first translation."""
    rows: dict[str, str] = {}
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            source, target = line.rstrip("\n").split("\t")[:2]
            if words(source) >= 3:
                rows.setdefault(source, target)
    return rows


if __name__ == "__main__":
    main()
