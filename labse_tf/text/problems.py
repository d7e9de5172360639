"""Problems: invalid input is an error with path and line, or skipped and counted."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path
from typing import Any, Literal, NamedTuple

OnError = Literal["raise", "skip"]
PathLike = str | os.PathLike[str]


class Row(NamedTuple):
    """A pair or a sentence of a file.

    Attributes:
        line: Line number, see `DataError`.
        source: English text, or `""`.
        target: Translation, or `""`.
        language: Language of the translation in the file, or `""`.
        score: Score in the file, or `None`.
    """

    line: int
    source: str
    target: str
    language: str
    score: float | None = None


class SentencePair(NamedTuple):
    """An English sentence and its translation."""

    source: str
    target: str
    language: str


class DataError(ValueError):
    """Invalid content of a file, with `path`, `line` and what was `expected`.

    Line 1 stands for the file as a whole. In MO files `line` is the number of the
    message, in TFRecord files and TFDS data sets the number of the record.
    """

    def __init__(self, path: PathLike, line: int, expected: str, received: str) -> None:
        """Keep the four parts as `args`, which makes the error picklable."""
        super().__init__(path, line, expected, received)
        self.path, self.line, self.expected = Path(path), line, expected

    def __str__(self) -> str:
        """Return `path:line: expected ... Received: ...`."""
        path, line, expected, received = self.args
        return f"{path}:{line}: expected {expected}. Received: {received}"


class DataWarning(UserWarning):
    """Content of a file that can be read but is probably wrong."""


class SkipReport:
    """Problems skipped with `on_error="skip"`, to print or to read from `entries`.

    Thread-safe. Each line counts once per reason, even if its file is read again.
    """

    def __init__(self) -> None:
        """Create an empty report."""
        self._lock = threading.Lock()
        # (path, what was expected) -> count, first line, and one bit per line,
        # because every line of a large file may be invalid.
        self._found: dict[tuple[str, str], tuple[int, int, bytearray]] = {}

    def add(self, error: DataError) -> None:
        """Count a problem that is not counted yet."""
        key = (str(error.path), error.expected)
        place, bit = divmod(error.line, 8)
        with self._lock:
            times, first, bits = self._found.get(key, (0, error.line, bytearray()))
            bits.extend(bytes(max(0, place + 1 - len(bits))))
            if not bits[place] >> bit & 1:
                bits[place] |= 1 << bit
                self._found[key] = times + 1, min(first, error.line), bits

    @property
    def entries(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Copy of (path, what was expected) -> (count, first line), sorted."""
        with self._lock:
            return {key: self._found[key][:2] for key in sorted(self._found)}

    @property
    def total(self) -> int:
        """Number of problems in all files."""
        return sum(times for times, _ in self.entries.values())

    def __bool__(self) -> bool:
        """Return whether anything was skipped."""
        return bool(self.entries)

    def __str__(self) -> str:
        """Return one line per file and reason."""
        return "\n".join(
            f"{path}:{line}: skipped {times}, first on this line: expected {expected}"
            for (path, expected), (times, line) in self.entries.items()
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the lock, which cannot be pickled."""
        with self._lock:
            found = {key: (*v[:2], bytearray(v[2])) for key, v in self._found.items()}
        return {"_found": found}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state with a new lock."""
        self.__dict__.update(state)
        self._lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class InputFile:
    """A file to read, and the treatment of its problems."""

    path: Path
    language: str | None  # given by the caller
    on_error: OnError
    report: SkipReport

    def problem(self, line: int, expected: str, received: str) -> None:
        """Raise a `DataError`, or count it."""
        error = DataError(self.path, line, expected, received)
        if self.on_error == "raise":
            raise error
        self.report.add(error)

    def beside(self, path: Path) -> InputFile:
        """Return another file with the same options."""
        return dataclasses.replace(self, path=path)


def check_unchanged(path: PathLike, expected: int, received: int) -> None:
    """Raise `ValueError` if a file was read again with another number of items."""
    if received != expected:
        raise ValueError(
            f"{path}: expected {expected:,} sentences or pairs, as in the first pass; "
            f"a file must not change while it is read. Received: {received:,}"
        )


def shorten(text: object) -> str:
    """Return the `repr` of a value, cut to 80 characters."""
    shown = repr(text)
    return shown if len(shown) <= 80 else shown[:77] + "..."
