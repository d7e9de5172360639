"""Targets: the vectors that a student should return, from those of its teacher.

Shapes: M rows of the store, N items of a corpus, D = dimension, d = dimension of the
student.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labse_tf.data import Corpus, TextVectors
from labse_tf.mining.projection import principal_axes

_SAMPLE = 1 << 16  # ours: vectors from which mean and axes are computed


@dataclass(frozen=True)
class Targets:
    """The vector that a student should return for each side of each item of a corpus.

    Attributes:
        vectors: Vectors of the store, `(M, D)`, memory-mapped.
        rows: One int64 array `(N,)` of rows of `vectors` per side.
        center: Mean of the teacher's unit vectors, float32 `(D,)`; zeros if they are
            not centered.
        axes: Orthonormal columns, float32 `(D, d)`, if the student is narrower than the
            teacher, else `None`.
    """

    vectors: NDArray[np.float16]
    rows: tuple[NDArray[np.int64], ...]
    center: NDArray[np.float32]
    axes: NDArray[np.float32] | None

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], ...]:
        """Return the unit target vectors of items, float32 `(n, d)` per side."""
        return tuple(self.project(self.vectors[side[rows]]) for side in self.rows)

    def project(self, vectors: ArrayLike) -> NDArray[np.float32]:
        """Convert teacher vectors `(n, D)` to unit target vectors, float32 `(n, d)`."""
        result = unit_vectors(np.asarray(vectors, np.float32)) - self.center
        return unit_vectors(result if self.axes is None else result @ self.axes)


def make_targets(
    store: TextVectors,
    corpus: Corpus,
    dimension: int,
    *,
    used: NDArray[np.int64] | None = None,
    center: bool = True,
    side: str = "own",
) -> Targets:
    """Look up the target vectors of a corpus.

    Args:
        store: The teacher's vectors.
        corpus: Pairs, or single sentences, as text.
        dimension: d, at most D. If it is less, the vectors are projected to the d
            directions in which they vary most.
        used: Rows of the corpus whose vectors the store must have, `(n,)` (default:
            all).
        center: Whether to subtract the mean vector before normalization. The vectors of
            some teachers (E5) all lie in a narrow cone; without this their cosines
            hardly differ.
        side: "own": the target of each side is the teacher's vector of that side.
            "source": the target of both sides is that of the source (Reimers and
            Gurevych, 2020, https://arxiv.org/abs/2004.09813).

    Raises:
        ValueError: If the store does not have a text, or `dimension` exceeds D.
    """
    if dimension > store.dimension:
        raise ValueError(
            "the student must not be wider than the teacher's vectors, "
            f"{store.dimension}. Received: {dimension}"
        )
    known = store.of(corpus, used=used, side=side)
    every = np.arange(len(corpus)) if used is None else used
    rows = np.unique(np.concatenate([found[every] for found in known.rows]))
    sample = np.random.default_rng(0).permutation(rows)[:_SAMPLE]
    vectors = unit_vectors(np.asarray(store.vectors[np.sort(sample)], np.float32))
    mean = vectors.mean(axis=0) if center else np.zeros(store.dimension, np.float32)
    axes = None
    if dimension < store.dimension:
        axes = principal_axes(unit_vectors(vectors - mean), dimension)
    return Targets(known.vectors, known.rows, mean.astype(np.float32), axes)


def unit_vectors(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return rows of unit length; a zero row stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-12)
