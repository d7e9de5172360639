"""Finds translations among the vectors of sentences.

`neighbors` finds the k nearest, exactly and in blocks; `approximate` finds nearly all of
them in much less time (FAISS); `margins` scores a candidate against its neighbourhood;
`bitext` puts them together into pairs of translations.

Shapes: N sources, M targets, D dimensions, k neighbours.

References:
    - Artetxe and Schwenk, "Margin-based Parallel Corpus Mining with Multilingual
      Sentence Embeddings", https://arxiv.org/abs/1811.01136
    - Feng et al., section 5.3 (BUCC), https://arxiv.org/abs/2007.01852
"""

from __future__ import annotations

from labse_tf.mining.neighbors import (
    check_finite,
    nearest_neighbors,
    unit_rows,
)

__all__ = [
    "check_finite",
    "nearest_neighbors",
    "unit_rows",
]
