"""Distinct lines: the sentences of a file, each once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from labse_tf.text.problems import DataError, OnError, PathLike, SkipReport
from labse_tf.text.reading import Side, blocks_of, read_numbered


class DistinctLines:
    """The sentences of a file, blank lines left out and each text once.

    Args:
        path: Text, one sentence per line, or a pair file, as in `read_numbered`.
        side: Which sentences of a pair; a text file has one side only.
        on_error: `"raise"`, or `"skip"` to leave out what cannot be read.
        skipped: Where `"skip"` counts what it left out.

    Attributes:
        path: The file.
        lines: Line number, from 1, of each text's first place, int64 `(n,)`.
        total: Sentences of the file, duplicates included.

    Raises:
        DataError: If something cannot be read, or the file has no text.
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
        # places in the file, where one line may have several sentences
        self._first = np.sort(np.unique(keys, return_index=True)[1])
        self.lines = np.asarray(lines, dtype=np.int64)[self._first]
        self._digest = hashlib.blake2b(keys[self._first].tobytes()).hexdigest()

    def __len__(self) -> int:
        """Number of different texts."""
        return len(self.lines)

    @property
    def digest(self) -> str:
        """Changes with the texts and their order."""
        return self._digest

    def blocks(self, start: int = 0) -> Iterator[list[str]]:
        """Reads the texts, some thousands at a time.

        Args:
            start: The first text's number among the distinct texts.

        Yields:
            Texts without white space around them.
        """
        return blocks_of(text for _, text in self._texts(self._first[start:]))

    def texts(self, rows: np.ndarray) -> dict[int, str]:
        """Reads the texts of some rows.

        Args:
            rows: Numbers among the distinct texts.

        Returns:
            Row -> text.
        """
        chosen = np.unique(rows)
        places = dict(zip(self._first[chosen].tolist(), chosen.tolist(), strict=True))
        return {places[place]: text for place, text in self._texts(self._first[chosen])}

    def _texts(self, places: np.ndarray) -> Iterator[tuple[int, str]]:
        """Places in the file, ascending, and their texts."""
        wanted = iter(places.tolist())
        next_place = next(wanted, None)
        for place, (_, text) in enumerate(self._filled()):
            if next_place is None:
                return
            if place == next_place:
                yield place, text
                next_place = next(wanted, None)

    def _filled(self) -> Iterator[tuple[int, str]]:
        """Lines and texts of the sentences that are not blank."""
        for line, text in read_numbered(
            self.path, side=self._side, on_error=self._on_error, skipped=self._skipped
        ):
            yield line, text.strip()
