"""Finds near neighbours among the vectors of sentences.

Shapes: m queries, n candidates, D dimensions, k neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def nearest_neighbors(
    queries: Any, candidates: Any | Iterable[Any], k: int, *, block_size: int = 8192
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k candidates with the largest cosine to each query, exactly.

    Candidates may be a stream: then memory holds one of its blocks and the best k so
    far, whatever n is.

    Args:
        queries: `(m, D)`, of any length.
        candidates: `(n, D)`, or an iterable of such blocks, whose rows are counted
            through all blocks.
        k: How many; fewer come back where there are fewer candidates.
        block_size: Rows of `candidates` that are compared at a time, where it is one
            matrix; it bounds memory and does not change the result.

    Returns:
        Cosines float32 `(m, min(k, n))`, to 7 decimals, the largest first, and the
        candidates' rows int64 of the same shape. Of equal cosines the lower row comes
        first.

    Raises:
        ValueError: If `k` or `block_size` is not positive, a matrix has another width
            or is no matrix, or a row is not finite; the message names the row.

    Example:
        >>> import numpy as np
        >>> from labse_tf.mining import nearest_neighbors
        >>> cosines, rows = nearest_neighbors(np.eye(2), np.eye(3)[:, :2] + 0.1, k=2)
        >>> rows.tolist()
        [[0, 2], [1, 2]]
    """
    for name, value in {"k": k, "block_size": block_size}.items():
        if value < 1:
            raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
    unit_queries = _checked_unit_rows(queries, None, 0, "queries")
    if isinstance(candidates, np.ndarray):
        blocks: Iterable[Any] = (
            candidates[start : start + block_size]
            for start in range(0, len(candidates), block_size)
        )
    else:
        blocks = candidates
    best = np.empty((len(unit_queries), 0), dtype=np.float32)
    rows = np.empty((len(unit_queries), 0), dtype=np.int64)
    first = 0
    for block in blocks:
        unit_block = _checked_unit_rows(
            block, unit_queries.shape[1], first, "candidates"
        )
        # The last bits of a product depend on its place in the block and would order
        # equal cosines at random: they are made equal here, at 1e-7.
        cosines = (unit_queries @ unit_block.T).round(7).astype(np.float32)
        numbers = np.arange(first, first + len(unit_block))
        first += len(unit_block)
        best, rows = _merge(best, rows, cosines, numbers, k)
    return best, rows


def _merge(
    best: np.ndarray,
    rows: np.ndarray,
    cosines: np.ndarray,
    numbers: np.ndarray,
    k: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The best k of those so far and those of a block, whose rows are higher."""
    if cosines.size and cosines.shape[1] > k:
        # All that can be among the first k: with the k-th largest cosine or a larger
        # one. Sorting a few is cheaper than sorting a block.
        limit = np.partition(cosines, -k, axis=1)[:, -k].min()
        chosen = np.flatnonzero((cosines >= limit).any(axis=0))
        cosines, numbers = cosines[:, chosen], numbers[chosen]
    every = np.concatenate([best, cosines], axis=1)
    every_rows = np.concatenate([rows, np.broadcast_to(numbers, cosines.shape)], axis=1)
    # Stable, and earlier blocks stand first: of equals the lower row stays in front.
    order = np.argsort(-every, axis=1, kind="stable")[:, :k]
    return (
        np.take_along_axis(every, order, axis=1),
        np.take_along_axis(every_rows, order, axis=1),
    )


def _checked_unit_rows(
    matrix: Any, width: int | None, first: int, what: str
) -> np.ndarray:
    """Checks a matrix and divides its rows by their lengths, in float64."""
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or (width is not None and values.shape[1] != width):
        raise ValueError(
            f"`{what}` must have the shape (rows, {width or 'D'}). "
            f"Received: {values.shape}"
        )
    check_finite(values, f"`{what}`", first)
    return unit_rows(values)


def check_finite(vectors: np.ndarray, what: str, first: int = 0) -> None:
    """Refuses a matrix with NaN or infinity in it.

    Args:
        vectors: `(rows, D)`.
        what: What they are, for the message.
        first: Number of the first row, where they are a block of many.

    Raises:
        ValueError: If a row is not finite; the message has the number of the first.
    """
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{what} must be finite. Received: NaN or infinity in {len(bad)} of "
            f"{len(vectors)} rows, the first is row {first + bad[0]}"
        )


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Divides rows by their lengths, in float64; rows of zeros stay.

    Args:
        vectors: `(rows, D)`.

    Returns:
        float64 `(rows, D)`.
    """
    vectors = vectors.astype(np.float64, copy=False)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length == 0, 1, length)
