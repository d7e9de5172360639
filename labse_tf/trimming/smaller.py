"""Smaller models: the same weights with the rows of some tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from labse_tf.models import LaBSE
from labse_tf.progress import Progress
from labse_tf.trimming.rebuilding import TOKEN_WEIGHTS, rebuild
from labse_tf.trimming.tokens import Texts, choose_tokens
from labse_tf.variables import TOKEN_TABLE


def trim(
    model: LaBSE,
    texts: Texts | None = None,
    *,
    languages: Iterable[str] | None = None,
    min_count: int = 1,
    max_tokens: int | None = None,
    keep_characters: bool = True,
    progress: Progress = None,
) -> LaBSE:
    """Create a model with only the tokens that some languages need.

    Calls `choose_tokens` with the other arguments, then `keep_tokens`. The model must
    have a preprocessor.

    Example:
        >>> from labse_tf.models import LaBSE, LaBSEBackbone
        >>> from labse_tf.preprocessing import SentencePreprocessor
        >>> from labse_tf.tokenizers import WordPieceTokenizer
        >>> tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sun", "lune"]
        >>> preprocessor = SentencePreprocessor(WordPieceTokenizer(tokens))
        >>> model = LaBSE(LaBSEBackbone(7, 1, 2, 8, 16), preprocessor)
        >>> small = trim(model, {"en": ["sun sun"]})
        >>> small.backbone.vocabulary_size
        6
        >>> bool(abs(small.encode("sun") - model.encode("sun")).max() < 1e-6)
        True
    """
    preprocessor = model.text_preprocessor()
    prefix = preprocessor.tokenizer([preprocessor.prefix]).values.numpy()
    kept = choose_tokens(
        preprocessor.tokenizer,
        texts,
        languages=languages,
        min_count=min_count,
        max_tokens=max_tokens,
        keep_characters=keep_characters,
        required=prefix.tolist(),
        progress=progress,
    )
    return keep_tokens(model, kept)


def keep_tokens(model: LaBSE, ids: Any) -> LaBSE:
    """Create a model with some of the tokens.

    Weights with one row per token (the token table, and the token weights of
    `pooling="weighted_mean"`) keep only the rows of these tokens; all other weights are
    copied. The peak memory is that of the given model plus twice the smaller model.

    Args:
        model: A `LaBSE` with a preprocessor.
        ids: Ids of the tokens to keep, `(n,)`, in ascending order, including the
            special tokens.

    Returns:
        A new model in which token `ids[i]` has the id i.

    Raises:
        ValueError: If the model has no preprocessor or the ids are invalid.
    """
    preprocessor = model.text_preprocessor()
    tokenizer = preprocessor.tokenizer
    size = tokenizer.vocabulary_size
    kept = np.asarray(ids)
    if (
        kept.ndim != 1
        or not np.issubdtype(kept.dtype, np.integer)
        or not kept.size
        or not (0 <= kept[0] and kept[-1] < size and (np.diff(kept) > 0).all())
    ):
        raise ValueError(
            f"`ids` must be integers from 0 to {size - 1} in ascending order. "
            f"Received: {ids!r:.80}"
        )
    missing = [t for t, i in tokenizer.special_token_ids.items() if i not in kept]
    if missing:
        raise ValueError(
            f"`ids` must include the ids of {', '.join(tokenizer.special_tokens)}. "
            f"Received: ids without {', '.join(missing)}"
        )
    smaller = preprocessor.copy(tokenizer=tokenizer.with_tokens(kept.tolist()))

    def value(path: str, weights: Mapping[str, Any]) -> Any:
        if path in (TOKEN_TABLE, TOKEN_WEIGHTS):
            # Gathering from the variable does not copy the whole table.
            return keras.ops.take(weights[path], kept, axis=0)
        return weights[path]

    return rebuild(model, {"vocabulary_size": len(kept)}, smaller, value)
