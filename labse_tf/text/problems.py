"""Problems: bad input is an error with its file and line, or left out and counted."""

from __future__ import annotations

import dataclasses
import os
import threading
from pathlib import Path
from typing import Any, Literal, NamedTuple

OnError = Literal["raise", "skip"]
PathLike = str | os.PathLike[str]
# line, English, translation, the language that the file names or ""
Row = tuple[int, str, str, str]


class SentencePair(NamedTuple):
    """An English sentence and its translation."""

    source: str
    target: str
    language: str


class DataError(ValueError):
    """Something in a file that cannot be read, with its `path` and `line`.

    Line 1 stands for the file as a whole; in an MO file it is the message's number, in
    TFRecord files and data sets of TFDS the record's.
    """

    def __init__(self, path: PathLike, line: int, expected: str, received: str) -> None:
        """Keeps the four parts, which also makes it travel between processes."""
        super().__init__(path, line, expected, received)
        self.path, self.line, self.expected = Path(path), line, expected

    def __str__(self) -> str:
        """`path:line: expected ... Received: ...`."""
        path, line, expected, received = self.args
        return f"{path}:{line}: expected {expected}. Received: {received}"


class SkipReport:
    """What `on_error="skip"` left out: `print` it, or look into `entries`.

    Many threads may share one. A line counts once for a reason, however often its file
    is read: counting the words and then the unknown ones reads every file twice.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self._lock = threading.Lock()
        # (path, what was expected) -> times, first line, and one bit for each line:
        # a file may be bad from its first line to its millionth
        self._found: dict[tuple[str, str], tuple[int, int, bytearray]] = {}

    def add(self, error: DataError) -> None:
        """Counts one problem, if it is not known yet."""
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
        """(path, what was expected) -> (times, first line), sorted; a copy."""
        with self._lock:
            return {key: self._found[key][:2] for key in sorted(self._found)}

    @property
    def total(self) -> int:
        """Number of problems in all files."""
        return sum(times for times, _ in self.entries.values())

    def __bool__(self) -> bool:
        """Whether anything was skipped."""
        return bool(self.entries)

    def __str__(self) -> str:
        """One line a file and reason."""
        return "\n".join(
            f"{path}:{line}: skipped {times}, the first here: expected {expected}"
            for (path, expected), (times, line) in self.entries.items()
        )

    def __getstate__(self) -> dict[str, Any]:
        """A copy without the lock, which cannot travel between processes."""
        with self._lock:
            found = {key: (*v[:2], bytearray(v[2])) for key, v in self._found.items()}
        return {"_found": found}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Gives the copy a lock of its own."""
        self.__dict__.update(state)
        self._lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class InputFile:
    """A file that is read, and what becomes of its problems.

    Attributes:
        path: where it is.
        language: the tag that the caller gave, if any.
        on_error: `"raise"` or `"skip"`.
        report: what counts the problems that are skipped.
    """

    path: Path
    language: str | None
    on_error: OnError
    report: SkipReport

    def problem(self, line: int, expected: str, received: str) -> None:
        """Raises a `DataError`, or counts it."""
        error = DataError(self.path, line, expected, received)
        if self.on_error == "raise":
            raise error
        self.report.add(error)

    def beside(self, path: Path) -> InputFile:
        """Another file that is read along with this one."""
        return dataclasses.replace(self, path=path)


def shorten(text: object) -> str:
    """What was received, in quotes, at most 80 characters."""
    shown = repr(text)
    return shown if len(shown) <= 80 else shown[:77] + "..."
