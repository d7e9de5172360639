"""Measures an encoder as the paper does: translations must be nearest neighbours.

`encode`, everywhere in this folder, is any callable from a list of strings to an
`(n, D)` matrix: a model's method, a SavedModel, another library's model. Nothing
here needs TensorFlow.

`languages` is the one table of language codes of the package; `nearest` compares
vectors; `ranking` measures any pairs, `laser` the Tatoeba files with the groups of
languages over which the paper averages; `plots` draws.

Shapes: N rows of the first matrix, M rows of the second, D dimensions.

References:
    - Feng et al., "Language-agnostic BERT Sentence Embedding",
      https://arxiv.org/abs/2007.01852
    - Artetxe and Schwenk, "Massively Multilingual Sentence Embeddings for Zero-Shot
      Cross-Lingual Transfer and Beyond" (LASER), https://arxiv.org/abs/1812.10464
"""

from __future__ import annotations

from labse_tf.evaluation.languages import (
    INDIAN_LANGUAGES,
    LANGUAGES,
    Language,
    language_code,
    language_name,
)
from labse_tf.evaluation.laser import (
    TATOEBA_GROUPS,
    TATOEBA_PUBLISHED,
    GroupMean,
    TatoebaResult,
    tatoeba,
)
from labse_tf.evaluation.nearest import Encoder, translation_accuracy
from labse_tf.evaluation.plots import plot_similarity
from labse_tf.evaluation.ranking import RetrievalResult, retrieval

__all__ = [
    "INDIAN_LANGUAGES",
    "LANGUAGES",
    "TATOEBA_GROUPS",
    "TATOEBA_PUBLISHED",
    "Encoder",
    "GroupMean",
    "Language",
    "RetrievalResult",
    "TatoebaResult",
    "language_code",
    "language_name",
    "plot_similarity",
    "retrieval",
    "tatoeba",
    "translation_accuracy",
]
