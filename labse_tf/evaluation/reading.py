"""What evaluation reads, plain or gzipped: lines, pairs, tables of CSV; own results.

Each is read whole, and what is wrong in it is named with file and line: a model may
encode for hours, and nobody wants to hear of line 7 then.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from pathlib import Path


def read_text(path: Path) -> str:
    """Reads a text file, plain or gzipped (by its content, not its name).

    Args:
        path: The file.

    Returns:
        Its text without a byte order mark, line ends as they are.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is empty, not UTF-8, or a damaged gzip file.
    """
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(
                f"{path}: expected an undamaged gzip file. Received: {error}"
            ) from error
    content = content.removeprefix(codecs.BOM_UTF8)
    if not content:
        raise ValueError(f"{path}: expected a line at least. Received: an empty file")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}:{line}: expected UTF-8. Received: byte "
            f"0x{content[error.start]:02x} ({error.reason})"
        ) from None


def read_lines(path: Path) -> list[str]:
    """Reads the lines of a text file that has at least one.

    Args:
        path: The file.

    Returns:
        The lines without their ends. Only a line feed, or carriage return and line
        feed, ends one: U+2028 and U+0085 may stand in a sentence.

    Raises:
        OSError: If it cannot be read.
        ValueError: As `read_text`.
    """
    text = read_text(path).removesuffix("\n")
    return [line.removesuffix("\r") for line in text.split("\n")]


def read_pairs(path: Path) -> tuple[list[str], list[str]]:
    """Reads English sentences and their translations, a tab between them.

    Args:
        path: A file with `English<TAB>translation` on each line; further columns and
            white space around a sentence do not count.

    Returns:
        The English sentences and the translations, as many.

    Raises:
        OSError: If it cannot be read.
        ValueError: If a line has no tab or an empty side, and as `read_text`.
    """
    english, translations = [], []
    for number, line in enumerate(read_lines(path), 1):
        sides = [side.strip() for side in line.split("\t")[:2]]
        if len(sides) < 2 or not all(sides):
            raise ValueError(
                f"{path}:{number}: expected English, a tab and its translation. "
                f"Received: {shorten(line)}"
            )
        english.append(sides[0])
        translations.append(sides[1])
    return english, translations


def read_csv(path: Path, columns: int) -> list[tuple[int, list[str]]]:
    """Reads the rows of a CSV file; a quoted field may hold commas and line ends.

    Args:
        path: The file.
        columns: How many fields each row must have.

    Returns:
        Of each row the line on which it begins and its fields.

    Raises:
        OSError: If it cannot be read.
        ValueError: If a row has another number of fields, a quote is not closed or
            followed by text, and as `read_text`.
    """
    # newline="": the reader itself decides which line ends are inside quotes.
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for fields in reader:
            if len(fields) != columns:
                raise ValueError(
                    f"{path}:{line}: expected {columns} fields with commas between "
                    f"them. Received: {len(fields)}, {shorten(','.join(fields))}"
                )
            rows.append((line, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path}:{line}: expected a row of CSV. Received: {error}"
        ) from None
    return rows


def shorten(text: str) -> str:
    """A line for an error message.

    Args:
        text: Any text.

    Returns:
        It in quotes, at most 80 characters.
    """
    shown = repr(text)
    return shown if len(shown) <= 80 else shown[:77] + "..."
