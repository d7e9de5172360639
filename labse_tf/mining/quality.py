"""The score from which on pairs are good, learned from a few that a person has marked.

References:
    - Feng et al., section 3.1 (the threshold of the scoring model at which 80 % of what
      is kept is good), https://arxiv.org/abs/2007.01852
"""

from __future__ import annotations

from typing import Any

import numpy as np

from labse_tf.mining.neighbors import check_finite


def quality_threshold(scores: Any, good: Any, share: float = 0.8) -> float:
    """Finds the lowest threshold at which enough of what it keeps is good.

    Args:
        scores: Of the marked pairs, `(p,)`.
        good: Whether each is a good translation, bool `(p,)`.
        share: How much of the pairs with the threshold's score or a higher one must be
            good, above 0 and at most 1; the paper takes 0.8.

    Returns:
        The lowest of the scores that does it. Pairs of one score are kept together.

    Raises:
        ValueError: If there is no pair, the arguments differ in length or are not
            finite, `share` is none, or no threshold reaches it; the message has the
            largest share that one reaches.

    Example:
        >>> from labse_tf.mining import quality_threshold
        >>> quality_threshold([0.9, 0.8, 0.5, 0.4], [True, True, False, False], 0.6)
        0.5
    """
    values = np.asarray(scores, dtype=np.float64)
    marks = np.asarray(good, dtype=bool)
    if values.ndim != 1 or values.shape != marks.shape or not values.size:
        raise ValueError(
            "`scores` and `good` must be of one length, with one pair at least. "
            f"Received: {values.shape} and {marks.shape}"
        )
    if not 0 < share <= 1:
        raise ValueError(f"`share` must be above 0, at most 1. Received: {share}")
    check_finite(values[:, None], "`scores`")
    order = np.argsort(-values, kind="stable")
    values, marks = values[order], marks[order]
    # A threshold keeps all of a score or none: up to the last of each.
    last = np.append(values[1:] != values[:-1], True)
    shares = (np.cumsum(marks) / np.arange(1, len(marks) + 1))[last]
    reached = np.flatnonzero(shares >= share)
    if not len(reached):
        raise ValueError(
            f"no threshold keeps pairs of which {share:.0%} are good: mark more pairs, "
            f"or ask for less. Received: at most {shares.max():.1%} of "
            f"{len(marks)} marked pairs"
        )
    return float(values[last][reached[-1]])
