"""Shorter vectors: projection to the directions in which they vary most. No TensorFlow.

Shapes: n vectors of D numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def principal_axes(
    vectors: NDArray[np.floating], dimensions: int
) -> NDArray[np.float32]:
    """Return the directions in which vectors vary most, to store shorter vectors.

    Args:
        vectors: Sample of vectors, `(n, D)`.
        dimensions: d, at most D.

    Returns:
        float32 array `(D, d)` with orthonormal columns. `vectors @ axes` preserves
        inner products as well as d dimensions can.
    """
    sample = np.asarray(vectors, np.float64)
    _, axes = np.linalg.eigh(sample.T @ sample)  # by ascending eigenvalue
    return np.ascontiguousarray(axes[:, ::-1][:, :dimensions], np.float32)
