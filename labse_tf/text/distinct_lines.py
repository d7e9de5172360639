"""Distinct texts: sentences without duplicates, as from the lines of a file."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from labse_tf.text.problems import (
    DataError,
    OnError,
    PathLike,
    SkipReport,
    check_unchanged,
)
from labse_tf.text.reading import Side, blocks_of, read_numbered

_Texts = TypeVar("_Texts", bound="DistinctTexts")


class DistinctTexts:
    """Texts without duplicates, which are read again when they are needed.

    Args:
        read: Function that returns an iterator of (line number, text without white
            space around it), the same in each call.
        path: Path of the texts, for messages.
        keep_rows: Whether to keep `rows`.

    Attributes:
        path: Path of the texts.
        lines: Line number of the first occurrence of each text, int64 `(n,)`.
        total: Number of texts, duplicates included.
        rows: Index of each text among the distinct texts, int64 `(total,)`, or empty.

    Raises:
        DataError: If there is no text.

    Example:
        >>> from labse_tf.text import DistinctTexts
        >>> texts = DistinctTexts(lambda: enumerate("abca"), "letters", keep_rows=True)
        >>> len(texts), texts.rows.tolist(), list(texts.blocks())
        (3, [0, 1, 2, 0], [['a', 'b', 'c']])
    """

    def __init__(
        self,
        read: Callable[[], Iterator[tuple[int, str]]],
        path: PathLike,
        *,
        keep_rows: bool = False,
    ) -> None:
        self.path = Path(path)
        self._read = read
        digests, lines = [], []
        for line, text in read():
            digests.append(hashlib.blake2b(text.encode(), digest_size=16).digest())
            lines.append(line)
        if not digests:
            raise DataError(path, 1, "lines with text", "none")
        self.total = len(digests)
        # 16 bytes per text: even among a billion texts a collision is unlikely.
        keys = np.frombuffer(b"".join(digests), dtype="V16")
        # Indices of sentences, not of lines: one line may have several sentences.
        places = np.empty(0, dtype=np.int64)
        if keep_rows:
            _, first, places = np.unique(keys, return_index=True, return_inverse=True)
        else:
            _, first = np.unique(keys, return_index=True)
        order = np.argsort(first)
        self._first = first[order]
        self.rows = np.argsort(order)[places]
        self.lines = np.asarray(lines, dtype=np.int64)[self._first]
        self._keys = keys[self._first]

    def __len__(self) -> int:
        """Return the number of distinct texts."""
        return len(self.lines)

    @property
    def digest(self) -> str:
        """Hash of the distinct texts in their order."""
        return hashlib.blake2b(self._keys.tobytes()).hexdigest()

    def select(self: _Texts, kept: np.ndarray) -> _Texts:
        """Return only the texts at which a bool array `(n,)` is true."""
        chosen = copy.copy(self)
        chosen.lines, chosen._first = self.lines[kept], self._first[kept]
        chosen._keys = self._keys[kept]
        return chosen

    def blocks(self, start: int = 0) -> Iterator[list[str]]:
        """Yield lists of some thousands of stripped texts, from index `start` on."""
        return blocks_of(text for _, text in self._texts(self._first[start:]))

    def texts(self, rows: np.ndarray) -> dict[int, str]:
        """Return row -> text for some rows, which are indices of distinct texts."""
        chosen = np.unique(rows)
        places = dict(zip(self._first[chosen].tolist(), chosen.tolist(), strict=True))
        found = {place: text for place, text in self._texts(self._first[chosen])}
        check_unchanged(self.path, len(chosen), len(found))
        return {places[place]: text for place, text in found.items()}

    def _texts(self, places: np.ndarray) -> Iterator[tuple[int, str]]:
        """Yield the sentences at `places`, which ascend, as (place, text)."""
        wanted = iter(places.tolist())
        next_place = next(wanted, None)
        for place, (_, text) in enumerate(self._read()):
            if next_place is None:
                return
            if place == next_place:
                yield place, text
                next_place = next(wanted, None)


class DistinctLines(DistinctTexts):
    """Sentences of a file without duplicates and blank lines.

    Args:
        path: Text with one sentence per line, or a pair file. See `read_numbered`.
        side: Sides of the pairs to read; a text file has only one side.
        on_error: `"raise"`, or `"skip"` to skip content that cannot be read.
        skipped: Report that counts the skipped problems.

    Attributes:
        path: The file.
        lines: Line number (from 1) of the first occurrence of each text, int64 `(n,)`.
        total: Number of sentences in the file, duplicates included.

    Raises:
        DataError: If the file has no text, or content that cannot be read.
    """

    def __init__(
        self,
        path: PathLike,
        *,
        side: Side = "both",
        on_error: OnError = "raise",
        skipped: SkipReport | None = None,
    ) -> None:
        self._side, self._on_error, self._skipped = side, on_error, skipped
        super().__init__(self._filled, path)

    def _filled(self) -> Iterator[tuple[int, str]]:
        """Yield line and text of each sentence that is not blank."""
        for line, text in read_numbered(
            self.path, side=self._side, on_error=self._on_error, skipped=self._skipped
        ):
            yield line, text.strip()
