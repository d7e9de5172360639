"""Shrinking: fewer blocks, another vocabulary and fewer positions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from labse_tf.models import LaBSE
from labse_tf.trimming.rebuilding import rebuild

_BLOCK = re.compile(r"(transformer_layer_)(\d+)(/.*)", re.DOTALL).fullmatch
_POSITIONS = "position_embedding/embeddings"


def keep_layers(model: LaBSE, layers: int | Sequence[int]) -> LaBSE:
    """Create a model with some of the blocks.

    Args:
        model: The model.
        layers: Numbers of the blocks to keep, from 0, in ascending order; or how many
            of the first blocks to keep.

    Returns:
        A new model, whose block i is block `layers[i]` of the old model. All other
        weights are copied.

    Raises:
        ValueError: If there is no such block, or the order is not ascending.
    """
    count = model.backbone.num_layers
    if isinstance(layers, (int, np.integer)):
        if not 0 <= layers <= count:
            raise ValueError(
                f"`layers` must be from 0 to {count}, the blocks of the model. "
                f"Received: {layers}"
            )
        layers = range(int(layers))
    kept = [int(layer) for layer in layers]
    if kept != sorted(set(kept)) or not set(kept) <= set(range(count)):
        raise ValueError(
            f"`layers` must be numbers from 0 to {count - 1} in ascending order. "
            f"Received: {kept}"
        )

    def value(path: str, weights: Mapping[str, Any]) -> Any:
        block = _BLOCK(path)
        if block is None:
            return weights[path]
        return weights[f"{block[1]}{kept[int(block[2])]}{block[3]}"]

    return rebuild(model, {"num_layers": len(kept)}, model.preprocessor, value)


def spread_blocks(many: int, few: int) -> list[int]:
    """Return the numbers of `few` of `many` blocks at equal distances, with the last.

    Example:
        >>> spread_blocks(12, 6)
        [1, 3, 5, 7, 9, 11]
    """
    return [(number + 1) * many // few - 1 for number in range(few)]


def keep_positions(model: LaBSE, max_sequence_length: int) -> LaBSE:
    """Create a model with only the first rows of the position table.

    Args:
        model: The model.
        max_sequence_length: Number of rows to keep, at least 3. The preprocessor's
            `sequence_length` is reduced to it if it is longer.

    Returns:
        A new model. Vectors of texts within both lengths are the same.

    Raises:
        ValueError: If the position table has fewer rows.
    """
    rows = model.backbone.max_sequence_length
    if not 3 <= max_sequence_length <= rows:
        raise ValueError(
            f"`max_sequence_length` must be from 3 to {rows}, the rows of the position "
            f"table. Received: {max_sequence_length}"
        )
    old = model.preprocessor
    new = old and old.copy(
        sequence_length=min(old.sequence_length, max_sequence_length)
    )

    def value(path: str, weights: Mapping[str, Any]) -> Any:
        if path == _POSITIONS:
            return np.asarray(weights[path])[:max_sequence_length]
        return weights[path]

    changes = {"max_sequence_length": max_sequence_length}
    return rebuild(model, changes, new, value)


def drop_prefix(model: LaBSE) -> LaBSE:
    """Create a model that puts no prefix before each text.

    Each token keeps the position vector that it had after the prefix, so that only the
    attention to the tokens of the prefix is lost.

    Args:
        model: A `LaBSE` with a preprocessor.

    Returns:
        A new model with as many rows less in the position table as the prefix has
        tokens; the model itself if it has no prefix.

    Raises:
        ValueError: If the model has no preprocessor.
    """
    old = model.text_preprocessor()
    if not old.prefix:
        return model
    count = len(old.tokenizer([old.prefix]).values)
    rows = model.backbone.max_sequence_length - count
    new = old.copy(prefix="", sequence_length=min(old.sequence_length, rows))

    def value(path: str, weights: Mapping[str, Any]) -> Any:
        if path == _POSITIONS:
            table = np.asarray(weights[path])
            return np.concatenate([table[:1], table[1 + count :]])
        return weights[path]

    return rebuild(model, {"max_sequence_length": rows}, new, value)
