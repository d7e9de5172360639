"""Comma-separated values -> rows of fields."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from labse_tf.text.problems import DataError, InputFile, PathLike, SkipReport, shorten
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
    text = "\n".join(text or "" for _, text in text_lines(file, keep_returns=True))
    # newline="": the csv module must see the line ends inside quotes.
    reader = csv.reader(io.StringIO(text, newline=""), strict=columns is not None)
    line = 1
    try:
        for fields in reader:
            if columns is not None and len(fields) != columns:
                expected = f"{columns} comma-separated fields"
                received = f"{len(fields)}, {shorten(','.join(fields))}"
                raise DataError(path, line, expected, received)
            yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(path, line, "a row of CSV", str(error)) from None
