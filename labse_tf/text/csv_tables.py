"""Comma-separated values -> rows of fields; with a header -> rows of pairs."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labse_tf.text.jsonl import entry_rows, entry_texts, names_pairs
from labse_tf.text.problems import InputFile, PathLike, Row, SkipReport, shorten
from labse_tf.text.streams import text_lines


def read_csv(
    path: PathLike, columns: int | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Read the rows of a CSV file; a quoted field may contain commas and line ends.

    Args:
        path: The file, plain or compressed, in UTF-8.
        columns: Number of fields that each row must have. If None, rows may have any
            number of fields and a quote need not be closed.

    Yields:
        The number of the line on which a row begins, and its fields.

    Raises:
        DataError: If the file cannot be read (see `read_lines`), a row has another
            number of fields, or a quote is not closed or is followed by text.
    """
    file = InputFile(Path(path), None, "raise", SkipReport())
    for line, fields in _records(file, strict=columns is not None):
        if columns is not None and len(fields) != columns:
            expected = f"{columns} comma-separated fields"
            received = f"{len(fields)}, {shorten(','.join(fields))}"
            file.problem(line, expected, received)
        yield line, fields


def csv_rows(file: InputFile) -> Iterator[Row]:
    """Yield pairs; the header has the keys of `labse_tf.text.jsonl.json_rows`."""
    return entry_rows(file, _entries(file))


def csv_texts(file: InputFile) -> Iterator[Row]:
    """Yield single sentences; see `labse_tf.text.jsonl.json_texts`."""
    return entry_texts(file, _entries(file))


def has_pair_header(path: Path) -> bool:
    """Return whether the first row of a file names the columns of pairs."""
    file = InputFile(path, None, "skip", SkipReport())
    _, fields = next(_records(file, strict=True), (1, []))
    return names_pairs(_names(fields), None)


def _entries(file: InputFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield numbered rows as dicts."""
    names: list[str] = []
    for line, fields in _records(file, strict=True):
        if not any(field.strip() for field in fields):
            continue
        if not names:
            names = _names(fields)
            if not ("text" in names or names_pairs(names, file.language)):
                expected = "a header with source,target or languages such as en,hi"
                file.problem(line, expected, shorten(",".join(fields)))
                return
        elif len(fields) != len(names):
            expected = f"{len(names)} comma-separated fields, as in the header"
            received = f"{len(fields)}, {shorten(','.join(fields))}"
            file.problem(line, expected, received)
        else:
            yield line, dict(zip(names, fields, strict=True))


def _names(header: list[str]) -> list[str]:
    return [name.strip().lower() for name in header]


def _records(file: InputFile, *, strict: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows with the numbers of the lines on which they begin."""
    lines = text_lines(file, keep_returns=True)
    # A line feed may be inside quotes.
    reader = csv.reader(((text or "") + "\n" for _, text in lines), strict=strict)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            file.problem(line, "a row of CSV", str(error))
            continue
        if fields is None:
            return
        yield line, fields
