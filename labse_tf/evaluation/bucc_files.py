"""The files of BUCC: two piles of sentences of a language and English, and the pairs.

A pair of languages has three files per split, plain or compressed, in a folder or in
its sub-folder `XX-en`:

    XX-en.training.XX      id<TAB>sentence
    XX-en.training.en      id<TAB>sentence
    XX-en.training.gold    id of XX<TAB>id of en

The splits are `training`, `sample` and `test`. The organizers gave no gold file of
`test`; other data in this form may have one.

References:
    - Zweigenbaum, Sharoff and Rapp, "Overview of the Third BUCC Shared Task",
      http://lrec-conf.org/workshops/lrec2018/W8/pdf/12_W8.pdf
    - https://comparable.limsi.fr/bucc2018/bucc2018-task.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from labse_tf.languages import CODE_PATTERN, language_code
from labse_tf.text import COMPRESSED, DataError, read_lines, shorten

SPLITS = ("training", "sample", "test")

_FOLDER = re.compile(rf"{CODE_PATTERN}-en")
_FILE = re.compile(
    rf"(?P<code>{CODE_PATTERN})-en\.(?P<split>{'|'.join(SPLITS)})"
    r"\.(?P<side>gold|en|(?P=code))"
    rf"{COMPRESSED}"
)

# split -> "source", "target" or "gold" -> file
PairFiles = Mapping[str, Mapping[str, Path]]


@dataclass(frozen=True)
class BuccSentences:
    """The two sides of a split, each text once, and which belong together.

    Attributes:
        pair: the language and English, such as `"hi-en"`.
        split: `"training"`, `"sample"` or `"test"`.
        sources: the different texts of the language, in the order of the file.
        targets: the different texts of English.
        gold: int64 `(g, 2)`: the different pairs of rows of `sources` and `targets`
            that the gold file makes translations of each other.
        lines: number of sentences in both files and of pairs in the gold file.
    """

    pair: str
    split: str
    sources: list[str]
    targets: list[str]
    gold: np.ndarray
    lines: tuple[int, int, int]


def pair_name(pair: str) -> str:
    """Writes a pair of a language and English with the table's code of the language.

    Args:
        pair: such as `"hi-en"`, `"hin-en"` or `"zh_TW-eng"`, with any code of a
            language that `language_code` takes.

    Returns:
        `"XX-en"`.

    Raises:
        ValueError: it is no such pair.

    Example:
        >>> from labse_tf.evaluation.bucc_files import pair_name
        >>> pair_name("hin-en"), pair_name("cmn-eng")
        ('hi-en', 'zh-en')
    """
    code, _, english = pair.rpartition("-") if isinstance(pair, str) else ("",) * 3
    try:
        codes = language_code(code), language_code(english)
    except ValueError:
        codes = ("", "")
    if codes[1] != "en" or codes[0] in ("", "en"):
        raise ValueError(
            f"pair must be a language and English, such as 'de-en'. Received: {pair!r}"
        )
    return f"{codes[0]}-en"


def find_bucc_files(folder: str | os.PathLike[str]) -> dict[str, PairFiles]:
    """Finds the files of all pairs in a folder and in its sub-folders `XX-en`.

    Args:
        folder: where the files are.

    Returns:
        Pair, with the code of our table -> split -> `"source"`, `"target"`, `"gold"`
        -> file, as far as they are there; the pairs by name.

    Raises:
        OSError: the folder cannot be read.
        ValueError: there are no such files, or two that are the same one.
    """
    folder = Path(folder)
    # os.listdir names the folder in the error where there is none.
    names = sorted(os.listdir(folder))
    inside = [
        folder / name
        for name in names
        if _FOLDER.fullmatch(name) and (folder / name).is_dir()
    ]
    paths = [folder / name for name in names]
    paths += [part / name for part in inside for name in sorted(os.listdir(part))]
    found: dict[str, dict[str, dict[str, Path]]] = {}
    for path in paths:
        match = _FILE.fullmatch(path.name)
        if match is None or language_code(match["code"]) == "en":
            continue
        pair = f"{language_code(match['code'])}-en"
        side = {"gold": "gold", "en": "target"}.get(match["side"], "source")
        sides = found.setdefault(pair, {}).setdefault(match["split"], {})
        if side in sides:
            raise ValueError(
                f"one file a side of {pair} {match['split']} is expected in {folder}. "
                f"Received: {sides[side].relative_to(folder)} and "
                f"{path.relative_to(folder)}"
            )
        sides[side] = path
    if not found:
        raise ValueError(
            "folder must have files named XX-en.training.XX, XX-en.training.en and "
            "XX-en.training.gold (or .sample., .test.), plain or compressed, in it or "
            f"in its folders XX-en. Received: {folder}"
        )
    return dict(sorted(found.items()))


def read_bucc(
    folder: str | os.PathLike[str], pair: str, split: str, files: PairFiles
) -> BuccSentences:
    """Reads the three files of a split.

    White space around a sentence is removed. Sentences of the same text on a side
    are one row.

    Args:
        folder: of the files, for messages.
        pair: as in `find_bucc_files`.
        split: the split to read.
        files: of this pair.

    Returns:
        The sentences and the gold pairs.

    Raises:
        ValueError: a file is missing.
        DataError: a file cannot be read, a line does not have the form, an id occurs
            twice, or a gold id is in neither file.
    """
    sides = files.get(split, {})
    ends = {"source": pair.removesuffix("-en"), "target": "en", "gold": "gold"}
    missing = [end for side, end in ends.items() if side not in sides]
    if missing:
        there = " ".join(path.name for path in sides.values())
        raise ValueError(
            f"{folder}: expected {pair}.{split}.{{{','.join(ends.values())}}}, plain "
            f"or compressed; there is no {' and no '.join(missing)}. Received: "
            f"{there or f'no file of {pair} {split}'}"
        )
    sources, source_rows = _read_sentences(sides["source"])
    targets, target_rows = _read_sentences(sides["target"])
    gold, gold_lines = _read_gold(
        sides["gold"],
        (sides["source"], source_rows),
        (sides["target"], target_rows),
    )
    lines = (len(source_rows), len(target_rows), gold_lines)
    return BuccSentences(pair, split, sources, targets, gold, lines)


def _read_sentences(path: Path) -> tuple[list[str], dict[str, int]]:
    """Different texts, and the row among them that belongs to each id."""
    rows: dict[str, int] = {}
    texts: dict[str, int] = {}
    for number, line in read_lines(path):
        name, tab, text = line.partition("\t")
        if not tab or not name:
            raise DataError(path, number, "id<TAB>sentence", shorten(line))
        if name in rows:
            # Ids are in the order of the lines.
            first = list(rows).index(name) + 1
            received = f"{shorten(name)}, which line {first} has"
            raise DataError(path, number, "an id that no other line has", received)
        rows[name] = texts.setdefault(text.strip(), len(texts))
    return list(texts), rows


def _read_gold(
    path: Path, *sides: tuple[Path, Mapping[str, int]]
) -> tuple[np.ndarray, int]:
    """Different pairs of rows, `(g, 2)`, and the number of lines."""
    pairs: dict[tuple[int, ...], None] = {}
    count = 0
    for number, line in read_lines(path):
        names = line.rstrip().split("\t")
        if len(names) != 2:
            expected = "two ids with a tab between them"
            raise DataError(path, number, expected, shorten(line))
        for name, (sentences, rows) in zip(names, sides, strict=True):
            if name not in rows:
                raise DataError(path, number, f"an id of {sentences}", shorten(name))
        pairs[tuple(rows[n] for n, (_, rows) in zip(names, sides, strict=True))] = None
        count += 1
    return np.array(list(pairs), dtype=np.int64), count
