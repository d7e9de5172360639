"""Nearest neighbors among sentence vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from labse_tf.mining import BothWays, check_finite, neighbors_both_ways
from labse_tf.text import shorten

Encoder = Callable[[list[str]], Any]


class DistinctRows:
    """Encoder that encodes each distinct sentence once over all calls."""

    def __init__(self, encode: Encoder) -> None:
        self._encode = encode
        # Storing each of millions of vectors as a separate array doubles the memory.
        self._rows: dict[str, int] = {}
        self._blocks: list[np.ndarray] = []
        self._ends: list[int] = []

    def __call__(self, sentences: Sequence[str], *, what: str) -> np.ndarray:
        """Return one row per sentence, `(N, D)`; errors name the sentences `what`."""
        new = [s for s in dict.fromkeys(sentences) if s not in self._rows]
        if new:
            vectors = encoded(self._encode, new, what=what, among=sentences)
            if self._blocks and self._blocks[0].shape[1] != vectors.shape[1]:
                raise ValueError(
                    "`encode` must return vectors of the same length for all texts. "
                    f"Received: {self._blocks[0].shape[1]}, and {vectors.shape[1]} for "
                    f"{what}"
                )
            first = len(self._rows)
            self._rows.update((s, first + i) for i, s in enumerate(new))
            self._blocks.append(vectors)
            self._ends.append(len(self._rows))
        wanted = np.array([self._rows[sentence] for sentence in sentences])
        blocks = np.searchsorted(self._ends, wanted, side="right")
        result = np.empty((len(wanted), self._blocks[0].shape[1]), dtype=np.float32)
        for block in np.unique(blocks):
            vectors = self._blocks[block]
            inside = blocks == block
            result[inside] = vectors[wanted[inside] - self._ends[block] + len(vectors)]
        return result


def encoded(
    encode: Encoder,
    sentences: list[str],
    *,
    what: str,
    among: Sequence[str] | None = None,
    first: int = 0,
) -> np.ndarray:
    """Encode sentences and check that the result is `(N, D)` float32 and finite.

    Errors name a row by its index in `among` (default: `sentences`) plus `first`.
    """
    vectors = as_matrix(encode(sentences), rows=len(sentences), what=what)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        text = sentences[bad[0]]
        row = first + list(sentences if among is None else among).index(text)
        raise ValueError(
            f"the vectors of {what} must be finite. Received: NaN or infinity in "
            f"{len(bad)} of {len(vectors)} rows, first in row {row}, "
            f"{shorten(text)}"
        )
    return vectors


def as_matrix(values: Any, *, rows: int | None, what: str) -> np.ndarray:
    """Convert values to `(N, D)` float32 and check the number of rows."""
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
    return vectors


def translation_accuracy(
    source_vectors: Any, target_vectors: Any, *, block_size: int = 1024
) -> tuple[float, float]:
    """Measure how often the nearest neighbor of a row is the same row.

    Row i of one matrix is the translation of row i of the other. Every pair of vectors
    is compared by cosine, to 7 decimals; a zero vector has cosine 0 with all. If
    several candidates are equally near, the one with the lowest row is the neighbor, so
    only the first of several copies of a sentence can be right. The search is
    `labse_tf.mining.neighbors_both_ways`.

    Args:
        source_vectors: `(N, D)`. Rows need not be unit vectors.
        target_vectors: `(N, D)`.
        block_size: Rows compared at a time; affects memory, not the result.

    Returns:
        Share of source rows whose nearest target is their translation, and share of
        target rows whose nearest source is their translation, 0 to 1.

    Raises:
        ValueError: If a matrix has no rows or is not finite, or the shapes differ.

    Example:
        >>> translation_accuracy([[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.1], [3.0, 1.0]])
        (1.0, 0.5)
    """
    source = as_matrix(source_vectors, rows=None, what="source_vectors")
    target = as_matrix(target_vectors, rows=None, what="target_vectors")
    check_finite(source, "the vectors of source_vectors")
    check_finite(target, "the vectors of target_vectors")
    if source.shape != target.shape or not source.size:
        raise ValueError(
            "`source_vectors` and `target_vectors` must have the same shape with at "
            f"least one row. Received: {source.shape} and {target.shape}"
        )
    if block_size < 1:
        raise ValueError(f"`block_size` must be at least 1. Received: {block_size}")
    both = neighbors_both_ways(source, target, 1, block_size=block_size, progress=False)
    return first_shares(both)


def first_shares(both: BothWays) -> tuple[float, float]:
    """Return the shares of sources and of targets with their own index as neighbor.

    Args:
        both: Neighbors of as many sources as targets.
    """
    rows = np.arange(len(both.forward_rows))
    return (
        float(np.mean(both.forward_rows[:, 0] == rows)),
        float(np.mean(both.backward_rows[:, 0] == rows)),
    )
