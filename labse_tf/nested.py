"""Nested sizes (Matryoshka): the first components of a vector are a smaller vector.

Models that are trained with `train --dims` or `labse_tf.losses.MatryoshkaLoss` lose
little accuracy if their vectors are cut; other models lose more.

References:
    Kusupati et al., 2022, Matryoshka Representation Learning
    (https://arxiv.org/abs/2205.13147).
"""

from __future__ import annotations

from typing import Any

from labse_tf.settings import check_integer


def cut_vectors(vectors: Any, dim: int) -> Any:
    """Return the first components of vectors, normalized again.

    Args:
        vectors: Float `(..., D)`, an array of NumPy or a tensor.
        dim: d, from 1 to D.

    Returns:
        float32 `(..., d)`, unit vectors; an array if `vectors` is one, else a tensor. A
        zero vector stays zero.

    Raises:
        ValueError: If `dim` is not an integer from 1 to D.

    Example:
        >>> import numpy as np
        >>> from labse_tf.nested import cut_vectors
        >>> cut_vectors(np.array([[0.36, 0.48, 0.8]]), 2).round(4).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    import numpy as np

    check_dim(dim, vectors.shape[-1])
    if isinstance(vectors, np.ndarray):
        short = vectors[..., :dim].astype(np.float32)
        return short / np.maximum(np.linalg.norm(short, axis=-1, keepdims=True), 1e-12)
    from keras import ops

    short = ops.cast(vectors[..., :dim], "float32")
    return ops.normalize(short, axis=-1, epsilon=1e-12)


def check_dim(dim: int, width: int) -> None:
    """Check a size that vectors are to be cut to.

    Args:
        dim: The size.
        width: Dimension of the vectors.

    Raises:
        ValueError: If `dim` is not an integer from 1 to `width`.
    """
    check_integer("dim", dim, smallest=1)
    if dim > width:
        raise ValueError(
            f"`dim` must be at most the dimension of the vectors, {width}. "
            f"Received: dim={dim}"
        )
