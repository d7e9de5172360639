"""Neighbors: groups of pairs with similar vectors. No TensorFlow.

Shapes: n vectors of D numbers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def neighbor_groups(
    vectors: NDArray[np.floating], group_size: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Group near neighbors, differently at each call.

    One row in G, drawn at random, is an anchor. Each row is assigned to its nearest
    anchor. The rows, sorted by anchor, are cut into groups of G, so a group holds the
    rows of one anchor or of a few similar anchors. The last rows, too few for a group,
    are left out.

    Args:
        vectors: Array of shape `(n, D)`, unit length; may be float16 and memory-mapped.
        group_size: G.
        random: Generator of all random choices.

    Returns:
        int64 array of row indices, shape `(n // G, G)`, without duplicates.

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
    # Similar anchors follow each other, so that a group with rows of two anchors holds
    # similar rows.
    few = anchors[random.permutation(len(anchors))[: math.isqrt(len(anchors))]]
    turns = random.permutation(len(anchors))
    turns = np.argsort(np.lexsort((turns, _nearest(anchors, few))))
    nearest = turns[_nearest(vectors, anchors)]
    order = np.lexsort((random.random(count), nearest))
    return order[: count - count % group_size].reshape(-1, group_size)


def _nearest(
    vectors: NDArray[np.floating], anchors: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Return the index of each row's nearest anchor, `(n,)`."""
    nearest = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), 4096):
        block = np.asarray(vectors[start : start + 4096], np.float32)
        nearest[start : start + len(block)] = np.argmax(block @ anchors.T, axis=1)
    return nearest
