"""Choice of pairs by score: the best of all, or a threshold from marked pairs.

References:
    - Feng et al., section 3.1 (the threshold of the scoring model at which 80 % of the
      kept pairs are good), https://arxiv.org/abs/2007.01852
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labse_tf.mining.neighbors import check_finite


def quality_threshold(scores: Any, good: Any, share: float = 0.8) -> float:
    """Return the lowest threshold at which enough of the kept pairs are good.

    Args:
        scores: Scores of the marked pairs, `(p,)`.
        good: bool `(p,)`, whether each pair is a good translation.
        share: Required share of good pairs among those with the threshold's score or a
            higher one, in (0, 1]. The paper uses 0.8.

    Returns:
        One of the scores. Pairs with the same score are kept together.

    Raises:
        ValueError: If there are no pairs, the arguments differ in length or are not
            finite, `share` is out of range, or no threshold reaches it; the message
            then has the largest share that a threshold reaches.

    Example:
        >>> from labse_tf.mining import quality_threshold
        >>> quality_threshold([0.9, 0.8, 0.5, 0.4], [True, True, False, False], 0.6)
        0.5
    """
    values, marks = checked_marks(scores, good)
    if not 0 < share <= 1:
        raise ValueError(f"`share` must be in (0, 1]. Received: {share}")
    order = np.argsort(-values, kind="stable")
    values, marks = values[order], marks[order]
    # Pairs with the same score are kept together, so cuts are after the last of each.
    last = np.append(values[1:] != values[:-1], True)
    shares = (np.cumsum(marks) / np.arange(1, len(marks) + 1))[last]
    reached = np.flatnonzero(shares >= share)
    if not len(reached):
        raise ValueError(
            f"no threshold keeps pairs of which {share:.0%} are good: mark more pairs "
            f"or lower the share. Received: at most {shares.max():.1%} of "
            f"{len(marks)} marked pairs"
        )
    return float(values[last][reached[-1]])


def best_rows(scores: Any, count: int) -> np.ndarray:
    """Return which rows have the highest scores; of equal scores the lower row.

    Args:
        scores: `(p,)`.
        count: Number of rows; all if there are fewer.

    Returns:
        bool `(p,)`.

    Raises:
        ValueError: If `count` is negative.

    Example:
        >>> from labse_tf.mining import best_rows
        >>> best_rows([0.5, 0.9, 0.5, 0.1], 2).tolist()
        [True, True, False, False]
    """
    if count < 0:
        raise ValueError(f"`count` must not be negative. Received: {count}")
    values = np.asarray(scores)
    kept = np.zeros(len(values), dtype=bool)
    kept[np.argsort(-values, kind="stable")[:count]] = True
    return kept


def checked_marks(scores: Any, good: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the arguments as float64 and bool `(p,)`.

    Raises:
        ValueError: If there are no pairs, the arguments differ in length or are not
            finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    marks = np.asarray(good, dtype=bool)
    if values.ndim != 1 or values.shape != marks.shape or not values.size:
        raise ValueError(
            "`scores` and `good` must have the same length with at least one pair. "
            f"Received: {values.shape} and {marks.shape}"
        )
    check_finite(values[:, None], "`scores`")
    return values, marks
