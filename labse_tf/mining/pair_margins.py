"""Margin scores of given pairs: vectors of distinct texts -> scores of their pairs.

The neighbors of a text are the distinct texts of the other side of the same file, so
that a frequent text counts once ("excluding duplicates" in the paper).

References:
    - Artetxe and Schwenk, section 3.1, https://arxiv.org/abs/1811.01136
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from labse_tf.mining.bitext import (
    check_options,
    find_neighbors,
    margin_scores,
    neighborhood_means,
)
from labse_tf.mining.neighbors import unit_rows
from labse_tf.progress import Progress

_BLOCK = 1 << 14  # ours: pairs whose vectors are in memory at a time


class PairMargins(NamedTuple):
    """Scores of given pairs.

    Attributes:
        cosines: Cosine of each pair, to 7 decimals, float32 `(p,)`.
        scores: Margin score of each pair, float32 `(p,)`.
    """

    cosines: np.ndarray
    scores: np.ndarray


def pair_margins(
    sources: Any,
    targets: Any,
    source_rows: Any,
    target_rows: Any,
    *,
    k: int = 4,
    margin: str = "ratio",
    index: str = "auto",
    recall: float = 0.99,
    mean_floor: float = 0.0,
    block_size: int = 2048,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> PairMargins:
    """Score given pairs by margin among the texts of both sides.

    Memory is linear in the number of texts and pairs, apart from one block of cosines.

    Args:
        sources: Vectors of the distinct sources, `(N, D)`; may be memory-mapped. Rows
            need not be unit vectors.
        targets: Vectors of the distinct targets, `(M, D)`, see `sources`.
        source_rows: Row of each pair's source, integers `(p,)`.
        target_rows: Row of each pair's target, integers `(p,)`.
        k: Number of neighbors whose mean cosine the margin uses.
        margin: `"ratio"`, `"distance"` or `"cosine"`, see `margin_scores`.
        index: See `mine_pairs`.
        recall: See `mine_pairs`.
        mean_floor: See `mine_from_neighbors`.
        block_size: See `mine_pairs`; affects memory, not the result.
        checkpoint: See `mine_pairs`.
        progress: See `labse_tf.progress`. Counts sources.

    Raises:
        ImportError: See `mine_pairs`.
        ValueError: If an argument or a matrix is invalid, see `neighbors_both_ways`, or
            the rows of the pairs are out of range or differ in number.

    Example:
        >>> import numpy as np
        >>> from labse_tf.mining import pair_margins
        >>> found = pair_margins(np.eye(3), np.eye(3), [0, 1], [0, 2], k=2)
        >>> found.scores.tolist()
        [2.0, 0.0]
    """
    check_options(k=k, margin=margin, index=index, recall=recall, mean_floor=mean_floor)
    rows = [
        _checked(source_rows, len(sources), "source_rows"),
        _checked(target_rows, len(targets), "target_rows"),
    ]
    if len(rows[0]) != len(rows[1]):
        raise ValueError(
            "`source_rows` and `target_rows` must have the same length. "
            f"Received: {len(rows[0])} and {len(rows[1])}"
        )
    cosines = np.empty(len(rows[0]), dtype=np.float32)
    for start in range(0, len(cosines), _BLOCK):
        span = slice(start, start + _BLOCK)
        left, right = (
            unit_rows(np.asarray(side[chosen[span]], dtype=np.float64))
            for side, chosen in zip((sources, targets), rows, strict=True)
        )
        cosines[span] = np.einsum("pd,pd->p", left, right).round(7)
    if margin == "cosine" or not len(cosines):
        return PairMargins(cosines, cosines)
    both = find_neighbors(
        sources,
        targets,
        k,
        index=index,
        recall=recall,
        block_size=block_size,
        checkpoint=checkpoint,
        progress=progress,
    )
    first, second = (
        means[chosen]
        for means, chosen in zip(
            neighborhood_means(both, mean_floor), rows, strict=True
        )
    )
    return PairMargins(cosines, margin_scores(cosines, first, second, margin))


def _checked(rows: Any, count: int, name: str) -> np.ndarray:
    """Return rows as int64 `(p,)`, checked to be within a matrix of `count` rows."""
    found = np.asarray(rows, dtype=np.int64)
    if found.ndim != 1 or (found.size and not 0 <= found.min() <= found.max() < count):
        received = f"{found.min()} to {found.max()}" if found.ndim == 1 else found.shape
        raise ValueError(f"`{name}` must be in [0, {count}). Received: {received}")
    return found
