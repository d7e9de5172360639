"""Bag of tokens: a student without blocks whose table holds the teacher's vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.text_vectors import Encode
from labse_tf.distillation.teacher import unit_vectors
from labse_tf.mining.projection import principal_axes
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.progress import Progress, progress_bar
from labse_tf.tokenizers import WordPieceTokenizer

_BLOCK = 2048  # ours: texts per call of the teacher
_HEADS = 4  # of the blocks that the model may grow later


def make_bag(
    encode: Encode,
    tokenizer: WordPieceTokenizer,
    dimension: int,
    *,
    prefix: str = "",
    sequence_length: int = 64,
    progress: Progress = None,
) -> LaBSE:
    """Create a bag of tokens with the teacher's vector of each token's text.

    The vectors are centered and projected to the directions in which they vary most.
    The rows of special tokens are zero. Pooling is a weighted mean with equal weights.

    Args:
        encode: The teacher: a callable from a list of strings to `(n, D)`.
        tokenizer: Tokenizer of the student.
        dimension: d, at most D, a multiple of 4.
        prefix: Text before each token for the teacher.
        sequence_length: Maximum number of tokens per text.
        progress: See `labse_tf.progress`. Counts tokens.

    Returns:
        A model with no blocks.

    Raises:
        ValueError: If `dimension` exceeds D or is not a multiple of 4.

    References:
        Tulkens and van Dongen, 2024, Model2Vec (https://github.com/MinishLab/model2vec).
    """
    if dimension < 1 or dimension % _HEADS:
        raise ValueError(
            f"`dimension` must be a positive multiple of {_HEADS}. "
            f"Received: {dimension}"
        )
    vocabulary = tokenizer.vocabulary
    special = set(tokenizer.special_token_ids.values())
    rows = [
        row
        for row, token in enumerate(vocabulary)
        if row not in special and not token.startswith("[unused")
    ]
    table = np.zeros((len(vocabulary), dimension), np.float32)
    texts = [prefix + vocabulary[row].removeprefix("##") for row in rows]
    table[rows] = _projected(_encoded(texts, encode, progress), dimension)
    backbone = LaBSEBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=0,
        num_heads=_HEADS,
        hidden_dim=dimension,
        intermediate_dim=4 * dimension,
        dropout=0.0,
        max_sequence_length=sequence_length,
    )
    preprocessor = SentencePreprocessor(tokenizer, sequence_length)
    model = LaBSE(backbone, preprocessor, pooling="weighted_mean")
    for weight in model.weights:
        if weight.path.endswith("token_embedding/embeddings"):
            weight.assign(table)
        elif weight.path.endswith("embeddings"):  # positions, segments, weights
            weight.assign(np.zeros(weight.shape, np.float32))
    return model


def _encoded(texts: list[str], encode: Encode, progress: Progress) -> NDArray:
    """Return the teacher's vectors, float32 `(n, D)`."""
    parts = []
    with progress_bar("Tokens", len(texts), "tokens", show=progress) as advance:
        for start in range(0, len(texts), _BLOCK):
            block = texts[start : start + _BLOCK]
            parts.append(np.asarray(encode(block), np.float32))
            advance(len(block))
    return np.concatenate(parts)


def _projected(vectors: NDArray, dimension: int) -> NDArray[np.float32]:
    """Return centered vectors on their principal axes, float32 `(n, d)`."""
    if dimension > vectors.shape[1]:
        raise ValueError(
            f"`dimension` must be at most {vectors.shape[1]}, the teacher's. "
            f"Received: {dimension}"
        )
    unit = unit_vectors(vectors)
    unit = unit_vectors(unit - unit.mean(axis=0))
    return unit @ principal_axes(unit, dimension)
