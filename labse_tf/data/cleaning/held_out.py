"""Held-out sets: sentences of test sets that must not be in the training text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.cleaning.characters import count_characters, letter_keys
from labse_tf.data.cleaning.report import DUPLICATES, RULES
from labse_tf.pipes import is_stream
from labse_tf.text import FORMATS, read_csv, read_lines, read_numbered, stem_and_kind

_BLOCK = 1 << 14
_NO_TEXT = {".md", ".json", ".gold", ""}


class HeldOut:
    """Sentences of a test set, as keys that ignore case, digits and punctuation.

    In text, TSV and CSV files every column of every line is a sentence (so BUCC's
    `ID<TAB>text` works). Other pair formats are read as `read_numbered` reads them.
    Memory holds 8 bytes per sentence.

    Args:
        name: Name of the set in the report.
        path: File, plain or compressed, or a directory. In a directory all files are
            read except `.md`, `.json`, `.gold` and files without a suffix.
        min_letters: Sentences with fewer letters are ignored; they can occur in any
            corpus. The default of 12 ignores "Thank you.".

    Attributes:
        name: Name of the set in the report.
        keys: Sorted unique keys, uint64.

    Raises:
        ValueError: If the name is the name of a rule, or there are no sentences.
        DataError: If a file cannot be read.
    """

    def __init__(self, name: str, path: str | Path, *, min_letters: int = 12) -> None:
        """Read the set."""
        if not name or name in RULES or name in DUPLICATES:
            raise ValueError(
                "`name` must not be empty or the name of a rule. "
                f"Received: {name!r} for {path}"
            )
        self.name = name
        texts, keys = _texts(Path(path)), [np.empty(0, np.uint64)]
        while block := list(itertools.islice(texts, _BLOCK)):
            counts = count_characters(block, ["en"] * len(block))
            long = np.minimum(counts.characters, 3 * counts.words) >= min_letters
            keys.append(letter_keys(block)[long])
        self.keys: NDArray[np.uint64] = np.unique(np.concatenate(keys))
        if not len(self.keys):
            raise ValueError(
                f"{path}: expected sentences of {min_letters} letters or more. "
                "Received: no such sentences"
            )

    @classmethod
    def parse(cls, text: str) -> HeldOut:
        """Read a set given on the command line.

        Args:
            text: `"PATH"` or `"NAME=PATH"`.

        Returns:
            The set. Without a name it is named after the file or directory, or, for a
            stream such as `/dev/fd/63`, by its path.
        """
        name, mark, path = text.partition("=")
        if not mark or "/" in name:
            name, path = Path(text).resolve().name, text
            if is_stream(text):
                name = text
        return cls(name, path)

    def __len__(self) -> int:
        """Number of distinct sentences."""
        return len(self.keys)

    def holds(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which keys of `letter_keys` are in the set, bool `(n,)`."""
        places = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return self.keys[places] == keys


def _texts(path: Path) -> Iterator[str]:
    """Iterate over the sentences of a file or directory."""
    if path.is_dir():
        for inside in sorted(path.rglob("*")):
            if inside.is_file() and stem_and_kind(inside)[1] not in _NO_TEXT:
                yield from _texts(inside)
        return
    kind = stem_and_kind(path)[1]
    if kind == ".csv":
        for _, fields in read_csv(path):
            yield from fields
    elif kind in FORMATS and kind != ".tsv":
        yield from (text for _, text in read_numbered(path))
    else:
        for _, line in read_lines(path):
            yield from line.split("\t")
