"""Pre-training: masked language models over one and two languages, and stacking.

Shapes: R = rows of a batch, T = length in tokens, P = predictions a row, D = hidden
dimension.
"""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np

from labse_tf.models import LaBSEBackbone

_LAYER = re.compile(r"transformer_layer_(\d+)(?=/)")


def stack(backbone: LaBSEBackbone, num_layers: int) -> LaBSEBackbone:
    """Makes a deeper backbone out of a trained one.

    From L > 0 layers, block i becomes a copy of block `i mod L` and everything else
    is copied, as in progressive stacking.

    From 0 layers (ours, not the paper's) the function stays what it was: the new
    blocks' output projections are zero, so that each block normalises what is
    normalised already; the embedding norm's scale and shift move to the last block's
    norm, where they come last again. Exact but for dropout.

    Args:
        backbone: Trained, with L layers.
        num_layers: Of the new one; a multiple of L.

    Returns:
        A new backbone; the old one is untouched.

    Raises:
        ValueError: If L does not divide `num_layers`.

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
    config = backbone.get_config()
    config.pop("name")
    config["num_layers"] = num_layers
    new = LaBSEBackbone.from_config(config)
    old_weights = {weight.path: weight for weight in backbone.weights}
    for weight in new.weights:
        source = _origin(weight.path, layers)
        if source in old_weights:
            weight.assign(old_weights[source])
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
    """Carries an optimiser's state over to the stacked model's optimiser.

    The step count goes along, so that a learning-rate schedule runs on; each weight
    gets the moments of the weight it was copied from. Weights that came from nowhere
    (blocks grown from zero layers) keep theirs at zero.

    Args:
        old_optimizer: Built for `old_variables`.
        old_variables: Trainable variables before stacking.
        new_optimizer: Of the same class, built for `new_variables`; changed.
        new_variables: Trainable variables after stacking.
        num_layers: Layers before stacking, L.

    Raises:
        ValueError: If the optimisers differ in class.
    """
    if type(old_optimizer) is not type(new_optimizer):
        raise ValueError(
            "Both optimisers must be of one class. Received: "
            f"{type(old_optimizer).__name__} and {type(new_optimizer).__name__}"
        )
    new_optimizer.iterations.assign(old_optimizer.iterations)
    known = _slots(old_optimizer, old_variables)
    for (path, slot), variable in _slots(new_optimizer, new_variables).items():
        source = known.get((_origin(path, num_layers), slot))
        if source is not None:
            variable.assign(source)


def _origin(path: str, layers: int) -> str:
    """The path of the weight that a weight of a stacked model is copied from."""
    if not layers:
        return path
    return _LAYER.sub(lambda m: f"transformer_layer_{int(m[1]) % layers}", path)


def _slots(
    optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]
) -> dict[tuple[str, str], Any]:
    """An optimiser's slot variables by the path of their weight and their kind."""
    found = {}
    # Keras names a slot after its weight, with the slashes replaced. Longest first:
    # one weight's path may begin like another's.
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
    """Makes new blocks on a backbone without blocks hand on what they are given."""
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
