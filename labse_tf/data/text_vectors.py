"""Vectors of texts on disk: the vector of each distinct text, computed once.

    texts -TextVectors.add-> vectors on disk -TextVectors.of-> CorpusVectors -take->
    vectors of the rows of a batch

The store is a directory of three files:

    vectors.json    the model, its prefix and D
    keys.bin        one 64-bit hash of a text per row, uint64, little-endian
    vectors.bin     one vector per row, float16 `(D,)`, little-endian

Rows are only appended, so a killed computation resumes after the last complete row, and
more texts can be added later. No TensorFlow.

Shapes: M rows of the store, D = dimension, N items of a corpus.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labse_tf.data.corpus import Corpus
from labse_tf.data.hashing import hash_bytes
from labse_tf.files import directory_of, write_text
from labse_tf.mining import unit_rows
from labse_tf.progress import Progress, progress_bar

Encode = Callable[[list[str]], Any]

_NOTE, _KEYS, _VECTORS = "vectors.json", "keys.bin", "vectors.bin"
_KEY, _NUMBER = np.dtype("<u8"), np.dtype("<f2")
_BLOCK = 2048  # ours: texts between two appends; the encoder sorts them by length


@dataclass(frozen=True)
class CorpusVectors:
    """The vector of each side of each item of a corpus.

    Attributes:
        vectors: Vectors `(M, D)`; may be float16 and memory-mapped.
        rows: One int64 array `(N,)` of rows of `vectors` per side; -1 for a text
            without a vector.
    """

    vectors: NDArray[Any]
    rows: tuple[NDArray[np.int64], ...]

    @property
    def dimension(self) -> int:
        """D."""
        return self.vectors.shape[1]

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], ...]:
        """Return the unit vectors of items, float32 `(n, D)` per side."""
        return tuple(
            unit_rows(self.vectors[side[rows]]).astype(np.float32) for side in self.rows
        )


class TextVectors:
    """Vectors of an encoder by text, on disk.

    Args:
        directory: Directory of the store. It is created if it does not exist.
        model: Identifier of the encoder, such as `labse_tf.encoders.fingerprint`
            returns. `None` accepts the existing store of any encoder.
        prefix: Text before each text for the encoder, such as `"query: "`. `None`
            accepts any.

    Attributes:
        directory: Directory of the store.
        model: Identifier of the encoder.
        prefix: Prefix.
        dimension: D; 0 for an empty store.

    Raises:
        ValueError: If the store has another encoder or prefix, is damaged, or does not
            exist and `model` is `None`.

    Example:
        >>> import tempfile
        >>> from labse_tf.data import TextVectors
        >>> def encode(texts):
        ...     return [[len(text), 1.0] for text in texts]
        >>> store = TextVectors(tempfile.mkdtemp(), "lengths")
        >>> store.add(["a", "bc", "a"], encode, progress=False)
        2
        >>> store.vectors[store.rows(["bc", "a"])].tolist()
        [[2.0, 1.0], [1.0, 1.0]]
    """

    def __init__(
        self,
        directory: str | Path,
        model: str | None = None,
        prefix: str | None = None,
    ) -> None:
        """Open the store."""
        self.directory = directory_of(directory)
        note = self.directory / _NOTE
        if note.exists():
            known = _read_note(note)
            for name, given in (("model", model), ("prefix", prefix)):
                if given is not None and given != known[name]:
                    raise ValueError(
                        f"{self.directory}: expected vectors with {name} "
                        f"{given!r}; use another directory. Received: {known[name]!r}"
                    )
            self.model, self.prefix = known["model"], known["prefix"]
            self.dimension = known["dimension"]
        elif model is None:
            raise ValueError(
                f"{self.directory}: expected vectors of texts. Received: no {_NOTE}"
            )
        else:
            self.model, self.prefix, self.dimension = model, prefix or "", 0
        self._load()

    def __len__(self) -> int:
        """Return M."""
        return len(self._keys)

    @property
    def vectors(self) -> NDArray[np.float16]:
        """All vectors, float16 `(M, D)`, memory-mapped."""
        if not len(self):
            return np.zeros((0, self.dimension), _NUMBER)
        shape = len(self), self.dimension
        return np.memmap(self.directory / _VECTORS, _NUMBER, "r", shape=shape)

    def _load(self) -> None:
        """Read the keys of the complete rows."""
        keys, vectors = self.directory / _KEYS, self.directory / _VECTORS
        count = 0
        if self.dimension and keys.exists() and vectors.exists():
            row = self.dimension * _NUMBER.itemsize
            count = min(
                keys.stat().st_size // _KEY.itemsize, vectors.stat().st_size // row
            )
        self._keys = np.zeros(0, _KEY)
        if count:
            self._keys = np.fromfile(keys, _KEY, count)
        self._order = np.argsort(self._keys, kind="stable")

    def find(self, texts: Iterable[str | bytes]) -> NDArray[np.int64]:
        """Return the row of each text, or -1 if the store does not have it, `(n,)`."""
        return self._find(_keys_of(texts))

    def _find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        if not len(self):
            return np.full(len(keys), -1, np.int64)
        sorted_keys = self._keys[self._order]
        places = np.minimum(np.searchsorted(sorted_keys, keys), len(self) - 1)
        return np.where(sorted_keys[places] == keys, self._order[places], -1)

    def rows(self, texts: Iterable[str | bytes]) -> NDArray[np.int64]:
        """Return the row of each text, int64 `(n,)`.

        Raises:
            ValueError: If the store does not have a text.
        """
        texts = list(texts)
        found = self.find(texts)
        if (found < 0).any():
            text = texts[int(np.argmin(found))]
            text = text.decode() if isinstance(text, bytes) else text
            raise ValueError(
                f"{self.directory}: expected the vector of each text. Received: none "
                f"for {(found < 0).sum():,} of {len(texts):,}, such as {text[:60]!r}"
            )
        return found

    def of(
        self,
        corpus: Corpus,
        *,
        used: NDArray[np.int64] | None = None,
        side: str = "own",
    ) -> CorpusVectors:
        """Look up the vectors of a corpus.

        Args:
            corpus: Pairs, or single sentences, as text.
            used: Rows of the corpus whose vectors the store must have, `(n,)` (default:
                all).
            side: "own": each side has its own vectors. "source": both sides have those
                of the source.

        Raises:
            ValueError: If the store does not have a text.
        """
        rows = [self.find(_side(corpus, 0))]
        if len(corpus.sides) == 2:
            rows.append(rows[0] if side == "source" else self.find(_side(corpus, 1)))
        every = np.arange(len(corpus)) if used is None else used
        for number, found in enumerate(rows):
            missing = every[found[every] < 0]
            if len(missing):
                text = corpus.sides[number].take(missing[:1])[0].decode()
                raise ValueError(
                    f"{self.directory}: expected the vector of each text. Received: "
                    f"none for {len(missing):,}, such as {text[:60]!r}"
                )
        return CorpusVectors(self.vectors, tuple(rows))

    def add(
        self,
        texts: Iterable[str | bytes],
        encode: Encode,
        *,
        progress: Progress = None,
    ) -> int:
        """Compute the vectors of the texts that the store does not have.

        Args:
            texts: Texts without the prefix, in any order, with repetitions.
            encode: Callable from a list of strings to float `(n, D)`.
            progress: See `labse_tf.progress`. Counts texts.

        Returns:
            Number of new rows.

        Raises:
            ValueError: If `encode` returns a wrong shape or numbers that are not
                finite. Complete blocks are kept.
            OSError: If the files cannot be written.
        """
        new: dict[int, str | bytes] = {}
        texts = list(texts)
        keys = _keys_of(texts)
        for at in np.flatnonzero(self._find(keys) < 0).tolist():
            new.setdefault(int(keys[at]), texts[at])
        if not new:
            return 0
        with progress_bar("Embedding", len(new), "texts", show=progress) as advance:
            for block in _blocks(new, _BLOCK):
                strings = [
                    self.prefix + (text.decode() if isinstance(text, bytes) else text)
                    for text in block.values()
                ]
                self._append(np.fromiter(block, _KEY), encode(strings))
                advance(len(block))
        self._load()
        return len(new)

    def _append(self, keys: NDArray[np.uint64], vectors: ArrayLike) -> None:
        """Append rows."""
        found = np.asarray(vectors, np.float32)
        expected = len(keys), self.dimension or found.shape[-1]
        if found.shape != expected:
            raise ValueError(
                "`encode` must return one vector per text, "
                f"{expected}. Received: {found.shape}"
            )
        if not np.isfinite(found).all() or np.abs(found).max() > 6e4:
            raise ValueError(
                "`encode` must return finite numbers below 60,000. Received: "
                f"{np.abs(found).max()}"
            )
        if not self.dimension:
            self.dimension = found.shape[1]
            note = {
                "model": self.model,
                "prefix": self.prefix,
                "dimension": self.dimension,
            }
            self.directory.mkdir(parents=True, exist_ok=True)
            write_text(self.directory / _NOTE, json.dumps(note, indent=2) + "\n")
        count = len(self._keys)
        for name, rows in (
            (_VECTORS, np.ascontiguousarray(found, _NUMBER)),
            (_KEYS, np.ascontiguousarray(keys, _KEY)),
        ):
            # An interrupted append may have left incomplete rows.
            with (self.directory / name).open("ab") as file:
                file.truncate(count * rows[:1].nbytes)
                file.seek(0, os.SEEK_END)
                file.write(rows.tobytes())
        self._keys = np.concatenate([self._keys, keys])


def _read_note(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, UnicodeDecodeError, json.JSONDecodeError):
        note = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(note, dict) and {"model", "prefix", "dimension"} <= note.keys():
            return note
    raise ValueError(
        f"{path}: expected model, prefix and dimension of vectors. Received: "
        "another content"
    )


def _keys_of(texts: Iterable[str | bytes]) -> NDArray[np.uint64]:
    return np.fromiter(
        (hash_bytes(t.encode() if isinstance(t, str) else t) for t in texts), _KEY
    )


def _blocks(items: dict[int, Any], size: int) -> Iterator[dict[int, Any]]:
    keys = list(items)
    for start in range(0, len(keys), size):
        yield {key: items[key] for key in keys[start : start + size]}


def has_text_vectors(directory: str | Path) -> bool:
    """Return whether a directory is that of a `TextVectors`."""
    return (Path(directory) / _NOTE).is_file()


def texts_to_embed(corpus: Corpus, side: str = "own") -> list[bytes]:
    """Return the distinct texts that `TextVectors.of` looks up, shortest first."""
    texts = set(_side(corpus, 0))
    if len(corpus.sides) == 2 and side == "own":
        texts.update(_side(corpus, 1))
    # A prefix of the run then has the short texts of all languages, and blocks hold
    # texts of similar length, which saves padding.
    return sorted(texts, key=lambda text: (len(text), text))


def _side(corpus: Corpus, side: int) -> list[bytes]:
    """Return all texts of one side of a corpus, in the order of its rows."""
    return corpus.sides[side].take(np.arange(len(corpus))).tolist()
