"""Small models of KerasHub with tokenizers whose vocabularies are made here."""

from __future__ import annotations

from typing import Any

import keras_hub
import numpy as np

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
    made = getattr(keras_hub.models, kind)(
        vocabulary_size=rows or tokenizer.vocabulary_size(), **{**SIZES, **changes}
    )
    rng = np.random.default_rng(7)
    made.set_weights(
        [w + rng.normal(0, 0.2, w.shape).astype(w.dtype) for w in made.get_weights()]
    )
    return made


def embedder(kind: str, tokenizer: Any, **settings: Any) -> Any:
    """An embedder such as `XLMRobertaTextEmbedder`, of KerasHub 0.30 and later."""
    preprocessor = getattr(keras_hub.models, f"{kind}TextEmbedderPreprocessor")
    return getattr(keras_hub.models, f"{kind}TextEmbedder")(
        backbone(f"{kind}Backbone", tokenizer),
        preprocessor(tokenizer, sequence_length=LENGTH),
        **settings,
    )
