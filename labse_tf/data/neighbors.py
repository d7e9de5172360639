"""Neighbors: pairs into groups that are alike, by their vectors. No TensorFlow.

Shapes: n vectors of D numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def neighbor_groups(
    vectors: NDArray[np.floating],
    group_size: int,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Puts pairs into groups of near neighbours, another way at each call.

    One row in G, drawn at random, is an anchor; each row goes to the nearest anchor.
    The rows, anchor by anchor, are cut into groups of G, so a group holds the rows of
    one anchor, or of a few that are alike. What does not fill a group is left out
    this time.

    Args:
        vectors: `(n, D)`, unit length; float16 and memory-mapped will do.
        group_size: G.
        random: Decides everything.

    Returns:
        Row numbers int64 `(n // G, G)`, no number twice.

    Raises:
        ValueError: If there are fewer than G rows.

    Example:
        >>> import numpy as np
        >>> from labse_tf.data import neighbor_groups
        >>> vectors = np.repeat(np.eye(2), 3, axis=0)[[0, 3, 1, 4, 2, 5]]
        >>> groups = neighbor_groups(vectors, 3, np.random.default_rng(1))
        >>> sorted(sorted(group) for group in groups.tolist())
        [[0, 2, 4], [1, 3, 5]]
    """
    count = len(vectors)
    if not 1 <= group_size <= count:
        raise ValueError(
            f"`group_size` must be from 1 to the number of rows, {count}. "
            f"Received: {group_size}"
        )
    chosen = random.choice(count, count // group_size, replace=False)
    anchors = np.asarray(vectors[np.sort(chosen)], np.float32)
    # Where one anchor's rows end in a group, those of an anchor like it begin.
    few = anchors[random.permutation(len(anchors))[: math.isqrt(len(anchors))]]
    turns = random.permutation(len(anchors))
    turns = np.argsort(np.lexsort((turns, _nearest(anchors, few))))
    nearest = turns[_nearest(vectors, anchors)]
    order = np.lexsort((random.random(count), nearest))
    return order[: count - count % group_size].reshape(-1, group_size)


def _nearest(
    vectors: NDArray[np.floating], anchors: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Number of each row's nearest anchor, `(n,)`."""
    nearest = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), 4096):
        block = np.asarray(vectors[start : start + 4096], np.float32)
        nearest[start : start + len(block)] = np.argmax(block @ anchors.T, axis=1)
    return nearest


def principal_axes(
    vectors: NDArray[np.floating], dimensions: int
) -> NDArray[np.float32]:
    """Finds the directions in which vectors differ most, to store them shorter.

    Args:
        vectors: A sample, `(n, D)`.
        dimensions: d, at most D.

    Returns:
        Orthonormal columns `(D, d)`: `vectors @ axes` keeps as much of the inner
        products as d numbers can.
    """
    sample = np.asarray(vectors, np.float64)
    _, axes = np.linalg.eigh(sample.T @ sample)  # by ascending share
    return np.ascontiguousarray(axes[:, ::-1][:, :dimensions], np.float32)
