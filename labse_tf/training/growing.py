"""Deeper models from shallower ones, with the optimizer's state."""

from __future__ import annotations

import contextlib
import re
from typing import Any, TypeVar

import keras
import numpy as np

from labse_tf.models import DualEncoder, LaBSE, LaBSEBackbone
from labse_tf.models.backbone import check_plain_weights
from labse_tf.models.masked_lm import MaskedLM
from labse_tf.variables import copy_value, tables_without_values

_LAYER = re.compile(r"transformer_layer_(\d+)(?=/)")


Growing = TypeVar("Growing", bound=keras.Model)


def grow(model: Growing, num_layers: int) -> Growing:
    """Create a deeper model from a compiled one, with the optimizer's state.

    The backbone is stacked (see `stack`). Everything else is kept: the masked-LM head,
    the token weights of the pooling, the loss, the moments and the step count.

    Args:
        model: Compiled `MaskedLM`, or `DualEncoder` around a `LaBSE`, with a built
            optimizer.
        num_layers: Number of layers of the new model; a multiple of the old number.

    Returns:
        A compiled model with the same optimizer settings, in the same strategy.

    Raises:
        ValueError: If `model` is of another kind, or `num_layers` is not a multiple.

    Example:
        >>> import labse_tf
        >>> from labse_tf.pretraining import grow
        >>> bag = labse_tf.LaBSEBackbone(9, 0, 2, 8, 16)
        >>> encoder = labse_tf.LaBSE(bag, None, "mean")
        >>> dual = labse_tf.DualEncoder(encoder)
        >>> dual.compile(loss=labse_tf.losses.AdditiveMarginSoftmax())
        >>> dual.optimizer.build(dual.trainable_variables)
        >>> grow(dual, 2).encoder.backbone.num_layers
        2
    """
    old_backbone = backbone_of(model)
    settings: dict[str, Any] = {"jit_compile": model.jit_compile}
    with _scope(model):
        backbone = stack(old_backbone, num_layers)
        new: Any
        if isinstance(model, MaskedLM):
            new = MaskedLM(backbone, model.head)
        else:
            old: LaBSE = model.encoder
            encoder = LaBSE(backbone, old.preprocessor, pooling=old.pooling)
            _copy_weights(
                old.sentence_pooling.weights, encoder.sentence_pooling.weights
            )
            new = DualEncoder(
                encoder, model.chunk_size, length_groups=model.length_groups
            )
            settings["loss"] = model.pair_loss
            settings["metrics"] = [
                type(metric).from_config(metric.get_config())
                for metric in model.pair_metrics
            ]
        optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
        new.compile(optimizer, **settings)
        # `stack_moments` assigns the moments of the token table, which every model has.
        with tables_without_values():
            optimizer.build(new.trainable_variables)
        stack_moments(
            model.optimizer,
            model.trainable_variables,
            optimizer,
            new.trainable_variables,
            old_backbone.num_layers,
        )
    return new


def backbone_of(model: keras.Model) -> LaBSEBackbone:
    """Return the backbone of a `MaskedLM`, or of a `DualEncoder` around a `LaBSE`.

    Raises:
        ValueError: If `model` is of another kind.
    """
    if isinstance(model, MaskedLM):
        return model.backbone
    if isinstance(model, DualEncoder) and isinstance(model.encoder, LaBSE):
        return model.encoder.backbone
    raise ValueError(
        "Expected a MaskedLM, or a DualEncoder around a LaBSE. "
        f"Received: {type(model).__name__}"
    )


def _scope(model: keras.Model) -> Any:
    """Return the scope of the strategy that a model was created in."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    return model.distribute_strategy.scope()


def _copy_weights(sources: list[keras.Variable], targets: list[keras.Variable]) -> None:
    """Copy the weights of a layer to another layer of the same kind."""
    for source, target in zip(sources, targets, strict=True):
        copy_value(source, target)


def stack(backbone: LaBSEBackbone, num_layers: int) -> LaBSEBackbone:
    """Create a deeper backbone from a trained one.

    From L > 0 layers (progressive stacking), block i is a copy of block `i mod L`, and
    all other weights are copied.

    From 0 layers (ours, not the paper's) the new backbone computes the same function,
    except for dropout. The output projections of the new blocks are zero, so that each
    block only normalizes its input again. Scale and shift of the embedding norm move
    to the norm of the last block.

    Args:
        backbone: Trained backbone with L layers.
        num_layers: Number of layers of the new backbone; a multiple of L.

    Returns:
        A new backbone; the old backbone is not changed.

    Raises:
        ValueError: If L does not divide `num_layers`, or the backbone has LoRA or
            quantized weights.

    References:
        Feng et al., 2022, section 4.1 (https://arxiv.org/abs/2007.01852); Gong et
        al., 2019 (https://proceedings.mlr.press/v97/gong19a.html).
    """
    layers = backbone.num_layers
    if num_layers < layers or (layers and num_layers % layers):
        raise ValueError(
            f"`num_layers` must be a multiple of the backbone's {layers} layers. "
            f"Received: num_layers={num_layers}"
        )
    check_plain_weights(backbone)
    config = backbone.get_config()
    config.pop("name")
    config["num_layers"] = num_layers
    with tables_without_values():
        new = LaBSEBackbone.from_config(config)
    old_weights = {weight.path: weight for weight in backbone.weights}
    for weight in new.weights:
        source = _origin(weight.path, layers)
        if source in old_weights:
            copy_value(old_weights[source], weight)
    if not layers and num_layers:
        _keep_function(new)
    return new


def stack_moments(
    old_optimizer: keras.optimizers.Optimizer,
    old_variables: list[keras.Variable],
    new_optimizer: keras.optimizers.Optimizer,
    new_variables: list[keras.Variable],
    num_layers: int,
) -> None:
    """Copy an optimizer's state to the optimizer of the stacked model.

    The step count is copied as well, so that a learning-rate schedule continues. Each
    weight gets the moments of the weight it was copied from. The moments of weights
    that were not copied (blocks grown from zero layers) stay zero.

    Args:
        old_optimizer: Optimizer built for `old_variables`.
        old_variables: Trainable variables before stacking.
        new_optimizer: Optimizer of the same class, built for `new_variables`. It is
            updated in place.
        new_variables: Trainable variables after stacking.
        num_layers: L, the number of layers before stacking.

    Raises:
        ValueError: If the optimizers differ in class.
    """
    if type(old_optimizer) is not type(new_optimizer):
        raise ValueError(
            "Expected two optimizers of the same class. Received: "
            f"{type(old_optimizer).__name__} and {type(new_optimizer).__name__}"
        )
    new_optimizer.iterations.assign(old_optimizer.iterations)
    if isinstance(old_optimizer, keras.optimizers.LossScaleOptimizer):
        for name in ("step_counter", "dynamic_scale"):
            getattr(new_optimizer, name).assign(getattr(old_optimizer, name))
    known = _slots(old_optimizer, old_variables)
    for (path, slot), variable in _slots(new_optimizer, new_variables).items():
        source = known.get((_origin(path, num_layers), slot))
        if source is not None:
            copy_value(source, variable)


def _origin(path: str, layers: int) -> str:
    """Return the path of the weight that a weight of a stacked model is copied from."""
    if not layers:
        return path
    return _LAYER.sub(lambda m: f"transformer_layer_{int(m[1]) % layers}", path)


def _slots(
    optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]
) -> dict[tuple[str, str], Any]:
    """Return an optimizer's slot variables by path of the weight and kind of slot."""
    found = {}
    # Keras names a slot after its weight, with the slashes replaced. The longest name
    # is tried first, since one path may be a prefix of another.
    prefixes = sorted(
        ((v.path.replace("/", "_") + "_", v.path) for v in variables),
        key=lambda pair: -len(pair[0]),
    )
    for slot in optimizer.variables:
        name = slot.path.split("/", 1)[-1]
        for prefix, path in prefixes:
            if name.startswith(prefix):
                found[path, name[len(prefix) :]] = slot
                break
    return found


def _keep_function(backbone: LaBSEBackbone) -> None:
    """Make blocks that were added to an empty backbone compute the identity."""
    weights = {weight.path: weight for weight in backbone.weights}
    for path, weight in weights.items():
        if _LAYER.match(path) and re.search(
            r"/(attention_output|feedforward_output_dense)/(kernel|bias)$", path
        ):
            weight.assign(np.zeros(weight.shape, dtype=np.float32))
    last = f"transformer_layer_{backbone.num_layers - 1}/feedforward_layer_norm"
    for name, neutral in (("gamma", 1.0), ("beta", 0.0)):
        embedding = weights[f"embeddings_layer_norm/{name}"]
        weights[f"{last}/{name}"].assign(embedding)
        embedding.assign(np.full(embedding.shape, neutral, dtype=np.float32))
