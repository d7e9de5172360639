"""BUCC files: sentences of a language, sentences of English, and the gold pairs.

A language pair has three files per split, plain or compressed, in a folder or in its
sub-folder `XX-en`:

    XX-en.training.XX      id<TAB>sentence
    XX-en.training.en      id<TAB>sentence
    XX-en.training.gold    id of XX<TAB>id of en

The splits are `training`, `sample` and `test`. The organizers did not publish a gold
file of `test`; other data in this format may include one.

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
    """Distinct texts of both sides of a split, and the gold pairs.

    Attributes:
        pair: A language and English, such as `"hi-en"`.
        split: `"training"`, `"sample"` or `"test"`.
        sources: Distinct texts of the language, in the order of the file.
        targets: Distinct texts of English, in the order of the file.
        gold: int64 `(g, 2)`, distinct pairs of a row of `sources` and a row of
            `targets` that are translations of each other.
        lines: Number of lines of the source, target and gold files.
    """

    pair: str
    split: str
    sources: list[str]
    targets: list[str]
    gold: np.ndarray
    lines: tuple[int, int, int]


def pair_name(pair: str) -> str:
    """Return the canonical name of a language paired with English.

    Args:
        pair: Such as `"hi-en"`, `"hin-en"` or `"zh_TW-eng"`, with any code that
            `language_code` accepts.

    Returns:
        `"XX-en"`.

    Raises:
        ValueError: If `pair` is not a language and English.

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
            "`pair` must be a language and English, such as 'de-en'. "
            f"Received: {pair!r}"
        )
    return f"{codes[0]}-en"


def find_bucc_files(folder: str | os.PathLike[str]) -> dict[str, PairFiles]:
    """Find the files of all pairs in a folder and in its sub-folders `XX-en`.

    Args:
        folder: Folder of the files.

    Returns:
        Canonical pair -> split -> `"source"`, `"target"` or `"gold"` -> file, for the
        files that exist. Pairs are sorted by name.

    Raises:
        OSError: If the folder cannot be read.
        ValueError: If there are no such files, or if two files are the same side of one
            split.
    """
    folder = Path(folder)
    # If the folder does not exist, the error of os.listdir names it.
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
                f"{folder}: expected one file per side of {pair} {match['split']}. "
                f"Received: {sides[side].relative_to(folder)} and "
                f"{path.relative_to(folder)}"
            )
        sides[side] = path
    if not found:
        raise ValueError(
            "`folder` must have files XX-en.training.XX, XX-en.training.en and "
            "XX-en.training.gold (or .sample., .test.), plain or compressed, directly "
            f"or in its sub-folders XX-en. Received: {folder}"
        )
    return dict(sorted(found.items()))


def read_bucc(
    folder: str | os.PathLike[str], pair: str, split: str, files: PairFiles
) -> BuccSentences:
    """Read the three files of a split.

    Spaces around a sentence are removed. Sentences with the same text on one side share
    one row.

    Args:
        folder: Folder of the files, for messages.
        pair: See `find_bucc_files`.
        split: Split to read.
        files: Files of this pair, from `find_bucc_files`.


    Raises:
        ValueError: If a file is missing.
        DataError: If a file cannot be read, a line is invalid, an id occurs twice, or a
            gold id is not in the sentence file of its side.
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
        sides["gold"], (sides["source"], source_rows), (sides["target"], target_rows)
    )
    lines = (len(source_rows), len(target_rows), gold_lines)
    return BuccSentences(pair, split, sources, targets, gold, lines)


def _read_sentences(path: Path) -> tuple[list[str], dict[str, int]]:
    """Return the distinct texts, and the row of the text of each id."""
    rows: dict[str, int] = {}
    texts: dict[str, int] = {}
    for number, line in read_lines(path):
        name, tab, text = line.partition("\t")
        if not tab or not name:
            raise DataError(path, number, "id<TAB>sentence", shorten(line))
        if name in rows:
            # The ids are in the order of the lines.
            first = list(rows).index(name) + 1
            received = f"{shorten(name)}, also the id of line {first}"
            raise DataError(path, number, "a unique id", received)
        rows[name] = texts.setdefault(text.strip(), len(texts))
    return list(texts), rows


def _read_gold(
    path: Path, *sides: tuple[Path, Mapping[str, int]]
) -> tuple[np.ndarray, int]:
    """Return the distinct pairs of rows, int64 `(g, 2)`, and the number of lines."""
    pairs: dict[tuple[int, ...], None] = {}
    count = 0
    for number, line in read_lines(path):
        names = line.rstrip().split("\t")
        if len(names) != 2:
            expected = "two ids separated by a tab"
            raise DataError(path, number, expected, shorten(line))
        for name, (sentences, rows) in zip(names, sides, strict=True):
            if name not in rows:
                raise DataError(path, number, f"an id of {sentences}", shorten(name))
        pairs[tuple(rows[n] for n, (_, rows) in zip(names, sides, strict=True))] = None
        count += 1
    return np.array(list(pairs), dtype=np.int64), count
