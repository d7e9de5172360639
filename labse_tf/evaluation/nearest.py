"""Vectors of sentences, and which of them lie nearest to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from labse_tf.mining import check_finite, unit_rows

Encoder = Callable[[list[str]], Any]


class DistinctRows:
    """Encodes each distinct sentence once, over all calls."""

    def __init__(self, encode: Encoder) -> None:
        self._encode = encode
        self._vectors: dict[str, np.ndarray] = {}

    def __call__(self, sentences: Sequence[str], *, what: str) -> np.ndarray:
        """Gives a row a sentence, `(N, D)`; `what` names them in errors."""
        new = [s for s in dict.fromkeys(sentences) if s not in self._vectors]
        if new:
            vectors = as_vectors(self._encode(new), rows=len(new), what=what)
            known = next(iter(self._vectors.values()), vectors[0])
            if len(known) != vectors.shape[1]:
                raise ValueError(
                    "encode must give vectors of one length. Received: "
                    f"{len(known)}, and {vectors.shape[1]} for {what}"
                )
            self._vectors.update(zip(new, vectors, strict=True))
        return np.stack([self._vectors[sentence] for sentence in sentences])


def as_vectors(values: Any, *, rows: int | None, what: str) -> np.ndarray:
    """Checks a matrix of vectors and makes it `(N, D)` float32."""
    try:
        vectors = np.asarray(values)
        vectors = vectors.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the vectors of {what} must be a matrix of numbers. Received: "
            f"{type(values).__name__} ({error})"
        ) from error
    expected = "n" if rows is None else rows
    if vectors.ndim != 2 or (rows is not None and len(vectors) != rows):
        raise ValueError(
            f"the vectors of {what} must have the shape ({expected}, D). Received: "
            f"{vectors.shape}"
        )
    check_finite(vectors, f"the vectors of {what}")
    return vectors


def translation_accuracy(
    source_vectors: Any, target_vectors: Any, *, block_size: int = 1024
) -> tuple[float, float]:
    """Measures how often the nearest neighbour of a row is the same row.

    Row i of one matrix is the translation of row i of the other. Vectors are compared
    by cosine, exactly (every pair). Where several candidates are equally near, that
    with the lowest row counts as the neighbour, so of several copies of one sentence
    only the first can be right. Cosines are compared as float32; a vector of zeros has
    cosine 0 to all.

    Args:
        source_vectors: `(N, D)`, of any length.
        target_vectors: `(N, D)`.
        block_size: rows that are compared at a time; it bounds memory, and does not
            change the result.

    Returns:
        The share of source rows whose nearest target is their translation, and that
        of target rows whose nearest source is.

    Raises:
        ValueError: a matrix has no rows or is not finite, or the shapes differ.

    Example:
        >>> translation_accuracy([[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.1], [3.0, 1.0]])
        (1.0, 0.5)
    """
    source = as_vectors(source_vectors, rows=None, what="source_vectors")
    target = as_vectors(target_vectors, rows=None, what="target_vectors")
    if source.shape != target.shape or not source.size:
        raise ValueError(
            "source_vectors and target_vectors must have the same shape, with one row "
            f"at least. Received: {source.shape} and {target.shape}"
        )
    if block_size < 1:
        raise ValueError(f"block_size must be 1 or more. Received: {block_size}")
    rows = np.arange(len(source))
    nearest_target, nearest_source = _nearest(source, target, block_size)
    return (
        float(np.mean(nearest_target == rows)),
        float(np.mean(nearest_source == rows)),
    )


def _nearest(
    source: np.ndarray, target: np.ndarray, block_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest target of each source row, and the other way, by cosine."""
    best = [np.full(len(m), -np.inf, np.float32) for m in (source, target)]
    nearest = [np.zeros(len(m), np.int64) for m in (source, target)]
    for i in range(0, len(source), block_size):
        source_block = unit_rows(source[i : i + block_size])
        for j in range(0, len(target), block_size):
            target_block = unit_rows(target[j : j + block_size])
            # The last bits of a float32 product depend on its place in the block, and
            # would break ties at random. Rounded from float64 they do not.
            cosine = (source_block @ target_block.T).astype(np.float32)
            for side, axis, at, other in ((0, 1, i, j), (1, 0, j, i)):
                span = slice(at, at + cosine.shape[side])
                value, index = cosine.max(axis), cosine.argmax(axis) + other
                # `>`: of equals the one seen first, which has the lowest row, stays.
                nearer = value > best[side][span]
                best[side][span] = np.where(nearer, value, best[side][span])
                nearest[side][span] = np.where(nearer, index, nearest[side][span])
    return nearest[0], nearest[1]
