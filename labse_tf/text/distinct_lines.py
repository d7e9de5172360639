"""Distinct lines: the sentences of a file without duplicates and blank lines."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from labse_tf.text.problems import (
    DataError,
    OnError,
    PathLike,
    SkipReport,
    check_unchanged,
)
from labse_tf.text.reading import Side, blocks_of, read_numbered


class DistinctLines:
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
        self.path = Path(path)
        self._side, self._on_error, self._skipped = side, on_error, skipped
        digests, lines = [], []
        for line, text in self._filled():
            digests.append(hashlib.blake2b(text.encode(), digest_size=16).digest())
            lines.append(line)
        if not digests:
            raise DataError(path, 1, "lines with text", "none")
        self.total = len(digests)
        # 16 bytes per text: even among a billion texts a collision is unlikely.
        keys = np.frombuffer(b"".join(digests), dtype="V16")
        # Indices of sentences, not of lines: one line may have several sentences.
        self._first = np.sort(np.unique(keys, return_index=True)[1])
        self.lines = np.asarray(lines, dtype=np.int64)[self._first]
        self._keys = keys[self._first]

    def __len__(self) -> int:
        """Return the number of distinct texts."""
        return len(self.lines)

    @property
    def digest(self) -> str:
        """Hash of the distinct texts in their order."""
        return hashlib.blake2b(self._keys.tobytes()).hexdigest()

    def select(self, kept: np.ndarray) -> DistinctLines:
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
        for place, (_, text) in enumerate(self._filled()):
            if next_place is None:
                return
            if place == next_place:
                yield place, text
                next_place = next(wanted, None)

    def _filled(self) -> Iterator[tuple[int, str]]:
        """Yield line and text of each sentence that is not blank."""
        for line, text in read_numbered(
            self.path, side=self._side, on_error=self._on_error, skipped=self._skipped
        ):
            yield line, text.strip()
