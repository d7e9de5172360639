"""Pairs for review: a file of any pair format -> pairs with lines, scores and marks.

Tables may have further columns: a score in the first or the last column, or the mark of
a person in the last.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from labse_tf.languages import is_language_code
from labse_tf.text import (
    FORMATS,
    SCORES,
    DataError,
    OnError,
    PathLike,
    SkipReport,
    column_languages,
    format_of,
    read_csv,
    read_lines,
    read_scored_pairs,
    shorten,
    split_language,
    stem_and_kind,
)

MARKS = {"good": "good", "bad": "bad", "1": "good", "0": "bad"}
"""Words of a column of marks."""

_SAMPLE = 1000  # ours: lines of a table that show its columns
_SOURCES, _TARGETS = ("source", "src"), ("target", "tgt")


class ReviewPair(NamedTuple):
    """A pair to review.

    Attributes:
        row: Index among the pairs of the file.
        line: Line number in the file, see `labse_tf.text.DataError`.
        source: Text of the first side, English except in tables.
        target: Text of the second side.
        languages: Canonical codes of both, or `""` if unknown.
        score: Score of the pair, or `None`.
        mark: `"good"`, `"bad"` or `""`.
    """

    row: int
    line: int
    source: str
    target: str
    languages: tuple[str, str] = ("", "")
    score: float | None = None
    mark: str = ""


class _Columns(NamedTuple):
    """Indices of the columns of a table, negative from the end."""

    source: int = -2
    target: int = -1
    score: int | None = None
    mark: int | None = None
    languages: tuple[str, str] | None = None
    header: bool = False


def read_review_pairs(
    path: PathLike, *, on_error: OnError = "raise", skipped: SkipReport | None = None
) -> Iterator[ReviewPair]:
    """Read the pairs of a file in any pair format, or in CSV.

    In a table (`.tsv`, `.csv` and other endings) the texts are the last two columns. A
    column of numbers before or behind them is the score, and a last column of `good`
    and `bad` the mark. A CSV file may have a header with `source` and `target`, or
    language codes, and `score`. The scores of JSON Lines, Parquet and TMX are those of
    `labse_tf.text.read_scored_pairs`.

    Args:
        path: Path of the file, or `XX=PATH`, see `labse_tf.text.read_pairs`.
        on_error: See `labse_tf.text.read_pairs`.
        skipped: See `labse_tf.text.read_pairs`.

    Raises:
        DataError: See `labse_tf.text.read_pairs`; if a score is not a number.
    """
    kind = stem_and_kind(path)[1]
    report = SkipReport() if skipped is None else skipped
    if kind == ".csv" or format_of(path) in (None, FORMATS[".tsv"]):
        return _table_pairs(path, kind == ".csv", on_error, report)
    return _other_pairs(path, on_error, report)


def _other_pairs(
    path: PathLike, on_error: OnError, skipped: SkipReport
) -> Iterator[ReviewPair]:
    """Yield the pairs of a format with languages."""
    scored = read_scored_pairs(path, language="und", on_error=on_error, skipped=skipped)
    for row, (line, pair, score) in enumerate(scored):
        code = "" if pair.language == "und" else pair.language
        yield ReviewPair(row, line, pair.source, pair.target, ("en", code), score)


def _table_pairs(
    path: PathLike, csv: bool, on_error: OnError, skipped: SkipReport
) -> Iterator[ReviewPair]:
    """Yield the pairs of a table."""
    place = split_language(path)[1]

    def rows() -> Iterator[tuple[int, list[str]]]:
        if csv:
            lines: Iterable[tuple[int, list[str]]] = read_csv(place)
        else:
            numbered = read_lines(place, on_error=on_error, skipped=skipped)
            lines = ((line, text.split("\t")) for line, text in numbered)
        return (row for row in lines if any(field.strip() for field in row[1]))

    sample = [fields for _, fields in itertools.islice(rows(), _SAMPLE)]
    columns = _columns(sample, csv)
    least = 2 + (columns.score is not None) + (columns.mark is not None)
    languages = columns.languages
    if languages is None:
        texts = [
            (fields[columns.source], fields[columns.target])
            for fields in sample
            if len(fields) >= least
        ]
        languages = column_languages(path, texts)
    row = 0
    for line, fields in itertools.islice(rows(), int(columns.header), None):
        try:
            found = _pair(place, row, line, fields, columns, least, languages)
        except DataError as error:
            if on_error == "raise":
                raise
            skipped.add(error)
            continue
        row += 1
        yield found


def _pair(
    path: Path,
    row: int,
    line: int,
    fields: list[str],
    columns: _Columns,
    least: int,
    languages: tuple[str, str],
) -> ReviewPair:
    """Return the pair of a row of a table.

    Raises:
        DataError: If a column is missing or invalid.
    """
    if len(fields) < least:
        expected = f"{least} columns, as in the first lines"
        raise DataError(path, line, expected, shorten("\t".join(fields)))
    source, target = fields[columns.source].strip(), fields[columns.target].strip()
    if not (source and target):
        raise DataError(path, line, "two texts", shorten("\t".join(fields)))
    score, mark = None, ""
    if columns.score is not None:
        score = _number(fields[columns.score])
        if score is None:
            expected = "a score, which is a finite number, as in the first lines"
            raise DataError(path, line, expected, shorten(fields[columns.score]))
    if columns.mark is not None:
        word = fields[columns.mark].strip().lower()
        if word not in MARKS:
            expected = f"a mark ({', '.join(MARKS)}), as in the first lines"
            raise DataError(path, line, expected, shorten(word))
        mark = MARKS[word]
    return ReviewPair(row, line, source, target, languages, score, mark)


def _columns(sample: list[list[str]], csv: bool) -> _Columns:
    """Return the columns of a table from its first rows."""
    if csv and sample and (named := _named(sample[0])):
        return named
    if not sample or min(map(len, sample)) < 3:
        return _Columns()
    first, last = (
        all(_number(fields[index]) is not None for fields in sample)
        for index in (0, -1)
    )
    marks = [fields[-1].strip().lower() for fields in sample]
    # A column of 1 and 0 alone may as well be a score.
    if {"good", "bad"} & set(marks) and set(marks) <= set(MARKS):
        scored = first and min(map(len, sample)) > 3
        return _Columns(-3, -2, 0 if scored else None, -1)
    if first:
        return _Columns(score=0)
    return _Columns(-3, -2, -1) if last else _Columns()


def _named(header: list[str]) -> _Columns | None:
    """Return the columns that a header names, or `None` if it is not a header."""
    names = [name.strip() for name in header]
    lower = [name.lower() for name in names]
    score = next((lower.index(name) for name in SCORES if name in lower), None)
    mark = lower.index("mark") if "mark" in lower else None
    for source, target in zip(_SOURCES, _TARGETS, strict=True):
        if source in lower and target in lower:
            places = lower.index(source), lower.index(target)
            return _Columns(*places, score, mark, None, True)
    codes = [n for n, name in enumerate(names) if is_language_code(name, known=True)]
    if len(codes) > 2:  # An identifier, not Indonesian.
        codes = [n for n in codes if lower[n] != "id"]
    if len(codes) != 2:
        return None
    first, second = (n for n in sorted(codes, key=lambda n: lower[n] != "en"))
    return _Columns(first, second, score, mark, (names[first], names[second]), True)


def _number(text: str) -> float | None:
    """Return a finite number, or `None` for other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
