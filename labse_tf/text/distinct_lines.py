"""Distinct lines: the texts of a file, each once."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

_BLOCK = 8192


class DistinctLines:
    """The texts of a file, blank lines left out and each text once.

    Args:
        path: One sentence a line, UTF-8, plain or `.gz`.

    Attributes:
        path: The file.
        lines: Line number, from 1, of each text's first place, int64 `(n,)`.
        total: Lines of the file that are not blank.

    Raises:
        ValueError: If a line is not UTF-8 (the message has its number), or none has
            text.
        OSError: If the file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        digests, numbers = [], []
        for number, text in self._filled():
            digests.append(hashlib.blake2b(text.encode(), digest_size=16).digest())
            numbers.append(number)
        if not digests:
            raise ValueError(f"{path}: expected lines with text. Received: none")
        self.total = len(digests)
        # 16 bytes a text: among a billion texts two of the same are not to be expected.
        keys = np.frombuffer(b"".join(digests), dtype="V16")
        first = np.sort(np.unique(keys, return_index=True)[1])
        self.lines = np.asarray(numbers, dtype=np.int64)[first]
        self._digest = hashlib.blake2b(keys[first].tobytes()).hexdigest()

    def __len__(self) -> int:
        """How many different texts there are."""
        return len(self.lines)

    @property
    def digest(self) -> str:
        """Changes with the texts and their order."""
        return self._digest

    def blocks(self, start: int = 0) -> Iterator[list[str]]:
        """The texts, some thousands at a time.

        Args:
            start: The first one's number among the distinct.

        Yields:
            Texts without white space around them.
        """
        wanted = iter(self.lines[start:].tolist())
        line, block = next(wanted, None), []
        for number, text in self._filled():
            if number == line:
                block.append(text)
                line = next(wanted, None)
                if len(block) == _BLOCK:
                    yield block
                    block = []
        if block:
            yield block

    def texts(self, rows: np.ndarray) -> dict[int, str]:
        """The texts of some rows.

        Args:
            rows: Numbers among the distinct texts.

        Returns:
            Row -> text.
        """
        wanted = {int(self.lines[row]): int(row) for row in np.unique(rows)}
        found = {}
        for number, text in self._filled():
            if number in wanted:
                found[wanted[number]] = text
        return found

    def _filled(self) -> Iterator[tuple[int, str]]:
        """Numbers and texts of the lines that are not blank."""
        with open_text(self.path) as file:
            for number, line in enumerate(file, start=1):
                text = decode_line(self.path, number, line).strip()
                if text:
                    yield number, text


def open_text(path: str | Path) -> IO[bytes]:
    """Opens a plain or `.gz` file for reading its lines.

    Args:
        path: The file.

    Returns:
        An open binary file.

    Raises:
        OSError: If it cannot be read.
    """
    if str(path).endswith(".gz"):
        return gzip.open(path, "rb")  # type: ignore[return-value]
    return open(path, "rb")


def decode_line(path: str | Path, number: int, line: bytes) -> str:
    """Reads a line as UTF-8.

    Args:
        path: Its file, for the message.
        number: Its number, from 1.
        line: Its bytes.

    Returns:
        The text without its end of line.

    Raises:
        ValueError: If it is no UTF-8.
    """
    try:
        return line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}:{number}: expected UTF-8. Received: byte "
            f"0x{line[error.start]:02x} at column {error.start + 1}"
        ) from error
