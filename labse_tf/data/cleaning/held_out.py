"""Held-out sets: the sentences that must not be among the training text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.cleaning.characters import count_characters, letter_keys
from labse_tf.data.cleaning.report import DUPLICATES, RULES
from labse_tf.text import FORMATS, read_csv, read_lines, read_numbered, stem_and_kind

_BLOCK = 1 << 14
_NO_TEXT = {".md", ".json", ".gold", ""}


class HeldOut:
    """The sentences of a test set, as keys that ignore case, digits and punctuation.

    Every column of every line is a sentence: one text per line, TSV, CSV, BUCC's
    `ID<TAB>text`. Other formats of pairs have the sentences that `read_sentences`
    gives. 8 bytes of each are kept.

    Args:
        name: what a report calls it.
        path: a file, plain or compressed, or a directory, in which all files are read
            but `.md`, `.json`, `.gold` and those without a suffix.
        min_letters: a text with fewer letters could be anybody's: 12 leave the key of
            "Thank you." alone.

    Attributes:
        name: see above.
        keys: sorted, each once.

    Raises:
        ValueError: the name is a rule's, or there are no sentences.
        DataError: a file cannot be read.
    """

    def __init__(self, name: str, path: str | Path, *, min_letters: int = 12) -> None:
        """Reads the set."""
        if not name or name in RULES or name in DUPLICATES:
            raise ValueError(
                "`name` must be one of its own, not a rule's. "
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
                "Received: none"
            )

    @classmethod
    def parse(cls, text: str) -> HeldOut:
        """Reads a set as the command line names it.

        Args:
            text: `"PATH"` or `"NAME=PATH"`.

        Returns:
            The set; without a name it has that of the file or folder.
        """
        name, mark, path = text.partition("=")
        if not mark or "/" in name:
            name, path = Path(text).resolve().name, text
        return cls(name, path)

    def __len__(self) -> int:
        """Different sentences."""
        return len(self.keys)

    def holds(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Tells which texts are of the set.

        Args:
            keys: of `letter_keys`, `(n,)`.

        Returns:
            `(n,)`.
        """
        places = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        return self.keys[places] == keys


def _texts(path: Path) -> Iterator[str]:
    """The sentences of a file or folder."""
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
