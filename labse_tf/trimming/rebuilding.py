"""Rebuilding: a new model from the weights of an old one and a changed shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.models.backbone import merged_weights
from labse_tf.preprocessing import SentencePreprocessor

TOKEN_WEIGHTS = "token_weights/embeddings"  # of the pooling "weighted_mean"


def rebuild(
    model: LaBSE,
    changes: Mapping[str, Any],
    preprocessor: SentencePreprocessor | None,
    value: Callable[[str, Mapping[str, Any]], Any],
) -> LaBSE:
    """Create a model of another shape from the weights of a model.

    Args:
        model: The old model.
        changes: Arguments of the new `LaBSEBackbone` that differ from the old ones.
        preprocessor: Preprocessor of the new model.
        value: Function of the path of a new weight and of the old weights by path to
            the value of the new weight.

    Returns:
        The new model.

    Raises:
        ValueError: If the model has quantized weights. LoRA weights are merged.
    """
    old = merged_weights(model)
    config = {**model.backbone.plain_config(), **changes}
    config["dtype"] = model.backbone.dtype_policy
    new = LaBSE(
        LaBSEBackbone(**config), preprocessor, pooling=model.pooling, name=model.name
    )
    for weight in new.weights:
        weight.assign(value(weight.path, old))
    return new
