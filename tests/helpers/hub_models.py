"""Small models of KerasHub with tokenizers whose vocabularies are made here."""

from __future__ import annotations

from typing import Any

import keras_hub
import numpy as np
import pytest

from helpers.models import TOKENS, WORDS
from labse_tf.tokenizers.sentencepiece_model import Piece, PieceType, build_model

SIZES = {
    "num_layers": 2,
    "num_heads": 4,
    "hidden_dim": 16,
    "intermediate_dim": 32,
    "max_sequence_length": 20,
}
LENGTH = 12

# The arguments of backbones that take others than `SIZES`, besides the vocabulary.
_DECODER = {
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "hidden_dim": 16,
    "intermediate_dim": 32,
}
_SIZES = {
    "AlbertBackbone": {**SIZES, "embedding_dim": 8},
    "DebertaV3Backbone": {**SIZES, "bucket_size": 8},
    "ElectraBackbone": {**SIZES, "embedding_dim": 8},
    "Gemma3Backbone": {**_DECODER, "image_size": 0},
    "Qwen3Backbone": _DECODER,
}

needs_embedders = pytest.mark.skipif(
    not hasattr(keras_hub.models, "BertTextEmbedder"),
    reason="KerasHub before 0.30 has no text embedders",
)

# As in XLM-RoBERTa's file: the ids of the tokenizer are these plus one.
PIECES = [
    Piece("<unk>", 0.0, PieceType.UNKNOWN),
    Piece("<s>", 0.0, PieceType.CONTROL),
    Piece("</s>", 0.0, PieceType.CONTROL),
    *(Piece(f"▁{word}", -3.1 - 0.37 * i) for i, word in enumerate(WORDS)),
    *(Piece(c, -9.3 - 0.113 * i**1.1) for i, c in enumerate("▁abdefghiklmnorstuwyन")),
]


def bert_tokenizer(**settings: Any) -> Any:
    return keras_hub.models.BertTokenizer(TOKENS, **settings)


def xlm_roberta_tokenizer() -> Any:
    return keras_hub.models.XLMRobertaTokenizer(proto=build_model(PIECES))


def roberta_tokenizer() -> Any:
    """Byte pairs: each word of `WORDS` after a space is one token."""
    merges, tokens = [], ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokens += [*"abcdefghijklmnopqrstuvwxyz", "Ġ"]
    for word in WORDS:
        for end in range(1, len(word) + 1):
            first = "Ġ" + word[: end - 1]
            merges.append(f"{first} {word[end - 1]}")
            tokens.append(first + word[end - 1])
    merges = list(dict.fromkeys(merges))
    vocabulary = {token: row for row, token in enumerate(dict.fromkeys(tokens))}
    return keras_hub.models.RobertaTokenizer(
        vocabulary=vocabulary, merges=merges, add_prefix_space=True
    )


def backbone(kind: str, tokenizer: Any, rows: int = 0, **changes: Any) -> Any:
    """A backbone of `keras_hub.models` with weights far from their initial values."""
    sizes = {**_SIZES.get(kind, SIZES), **changes}
    table = "vocab_size" if kind == "ElectraBackbone" else "vocabulary_size"
    sizes[table] = rows or tokenizer.vocabulary_size()
    made = getattr(keras_hub.models, kind)(**sizes)
    rng = np.random.default_rng(7)
    made.set_weights(
        [w + rng.normal(0, 0.2, w.shape).astype(w.dtype) for w in made.get_weights()]
    )
    return made


def embedder(
    kind: str, tokenizer: Any, sizes: dict[str, Any] | None = None, **settings: Any
) -> Any:
    """An embedder such as `XLMRobertaTextEmbedder`, of KerasHub 0.30 and later."""
    preprocessor = getattr(keras_hub.models, f"{kind}TextEmbedderPreprocessor")
    return getattr(keras_hub.models, f"{kind}TextEmbedder")(
        backbone(f"{kind}Backbone", tokenizer, **(sizes or {})),
        preprocessor(tokenizer, sequence_length=LENGTH),
        **settings,
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def states(backbone, features) -> np.ndarray:
    """The states of the tokens, `(B, T, D)`, as the backbone itself returns them."""
    inputs = {name: np.asarray(features[name]) for name in backbone.input}
    outputs = backbone(inputs, training=False)
    if isinstance(outputs, dict):
        outputs = outputs["sequence_output"]
    return np.asarray(outputs)


def pooled(hidden: np.ndarray, mask: np.ndarray, pooling: str) -> np.ndarray:
    """Unit vectors, pooled with NumPy."""
    rows = []
    for state, real in zip(hidden, np.asarray(mask, bool), strict=True):
        tokens = state[real].astype(np.float64)
        rows.append(
            {
                "mean": tokens.mean(axis=0),
                "cls": state[0],
                "max": tokens.max(axis=0),
                "last": tokens[-1],
            }[pooling]
        )
    return unit(np.stack(rows))
