"""Stacking: which weight comes from where, moments, growth from zero layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.optimizers import adamw
from labse_tf.pretraining import stack, stack_moments

SIZE = {"num_heads": 2, "hidden_dim": 16, "intermediate_dim": 32}


def backbone(num_layers: int, seed: int = 0, **changes: object) -> LaBSEBackbone:
    """Every weight random and different, biases and norms too."""
    model = LaBSEBackbone(40, num_layers, **SIZE, **changes)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(rng.normal(0.5, 0.5, size=weight.shape))
    return model


def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    mask = np.arange(9) < np.array([[9], [5], [2]])
    return {
        "token_ids": (rng.integers(1, 40, (3, 9)) * mask).astype(np.int32),
        "segment_ids": np.zeros((3, 9), np.int32),
        "padding_mask": mask.astype(np.int32),
    }


@pytest.mark.parametrize(("layers", "target"), [(1, 3), (3, 6), (2, 6), (3, 3)])
def test_blocks_are_copied_in_turn_and_the_rest_as_it_is(layers, target) -> None:
    old = backbone(layers)
    before = {w.path: w.numpy() for w in old.weights}
    new = stack(old, target)
    assert new.num_layers == target
    assert new is not old
    seen = set()
    for weight in new.weights:
        path = weight.path
        if path.startswith("transformer_layer_"):
            index, rest = path.removeprefix("transformer_layer_").split("/", 1)
            seen.add(int(index))
            path = f"transformer_layer_{int(index) % layers}/{rest}"
        np.testing.assert_array_equal(weight.numpy(), before[path], err_msg=path)
    assert seen == set(range(target))
    # The old one is untouched, and shares nothing with the new one.
    new.weights[0].assign(new.weights[0] * 0)
    for weight in old.weights:
        np.testing.assert_array_equal(weight.numpy(), before[weight.path])


def test_blocks_of_a_deep_model_with_two_digits() -> None:
    old = backbone(11)
    new = {w.path: w.numpy() for w in stack(old, 22).weights}
    name = "feedforward_output_dense/kernel"
    for target, source in ((10, 10), (11, 0), (12, 1), (21, 10)):
        np.testing.assert_array_equal(
            new[f"transformer_layer_{target}/{name}"],
            {w.path: w.numpy() for w in old.weights}[
                f"transformer_layer_{source}/{name}"
            ],
        )


@pytest.mark.parametrize(("layers", "target"), [(2, 3), (4, 2), (3, 0)])
def test_depths_that_do_not_fit_are_refused(layers, target) -> None:
    with pytest.raises(ValueError, match=rf"{layers} layers. Received: .*={target}"):
        stack(backbone(layers), target)


@pytest.mark.parametrize("target", [1, 2, 4])
def test_growing_from_zero_layers_keeps_the_function(target) -> None:
    """With any scale and shift of the embedding norm, not only 1 and 0."""
    old = backbone(0)
    new = stack(old, target)
    one, two = (m(batch()) for m in (old, new))
    real = batch()["padding_mask"].astype(bool)
    np.testing.assert_allclose(
        two["sequence_output"].numpy()[real],
        one["sequence_output"].numpy()[real],
        atol=1e-5,
    )
    np.testing.assert_allclose(two["pooled_output"], one["pooled_output"], atol=1e-5)
    sentence = [LaBSE(m, pooling="mean")(batch()).numpy() for m in (old, new)]
    np.testing.assert_allclose(*sentence, atol=1e-5)


def test_grown_blocks_learn() -> None:
    """Zero projections get gradients, and in the next step the rest does too."""
    new = stack(backbone(0, dropout=0.0), 2)
    optimizer = keras.optimizers.SGD(0.1)
    target = tf.random.normal((3, 9, 16))
    before = [w.numpy() for w in new.trainable_weights]
    for _ in range(2):
        with tf.GradientTape() as tape:
            output = new(batch())["sequence_output"]
            loss = tf.reduce_mean(tf.square(output - target))
        optimizer.apply(
            tape.gradient(loss, new.trainable_weights), new.trainable_weights
        )
    still = [
        w.path
        for w, b in zip(new.trainable_weights, before, strict=True)
        if np.array_equal(w.numpy(), b)
    ]
    # A key's bias adds the same to all scores of a query: the softmax ignores it.
    assert all("key/bias" in p or p.startswith("pooler") for p in still), still


def test_dtype_and_settings_go_along() -> None:
    old = backbone(1, activation="gelu_approximate", dropout=0.3, dtype="bfloat16")
    new = stack(old, 2)
    assert new.compute_dtype == "bfloat16"
    assert (new.activation, new.dropout) == ("gelu_approximate", 0.3)


def test_moments_follow_their_weights() -> None:
    old, layers = backbone(2), 2
    new = stack(old, 4)
    optimizers = []
    for model in (old, new):
        optimizer = adamw(0.01, weight_decay=0.1)
        optimizer.build(model.trainable_variables)
        optimizers.append(optimizer)
    rng = np.random.default_rng(0)
    optimizers[0].iterations.assign(17)
    slots = {}
    for variable in optimizers[0].variables[2:]:
        variable.assign(rng.normal(size=variable.shape))
        slots[variable.path.split("/")[1]] = variable.numpy()
    stack_moments(
        optimizers[0],
        old.trainable_variables,
        optimizers[1],
        new.trainable_variables,
        layers,
    )
    assert int(optimizers[1].iterations) == 17
    for variable in optimizers[1].variables[2:]:
        path = variable.path.split("/")[1]  # without the optimiser's own name
        for target, source in ((2, 0), (3, 1)):
            path = path.replace(
                f"transformer_layer_{target}_", f"transformer_layer_{source}_"
            )
        np.testing.assert_array_equal(variable.numpy(), slots[path], err_msg=path)


def test_moments_of_grown_blocks_start_at_zero() -> None:
    old = backbone(0)
    new = stack(old, 2)
    first, second = (adamw(0.01) for _ in range(2))
    for optimizer, model in ((first, old), (second, new)):
        optimizer.build(model.trainable_variables)
    for variable in first.variables[2:]:
        variable.assign(np.ones(variable.shape))
    stack_moments(first, old.trainable_variables, second, new.trainable_variables, 0)
    for variable in second.variables[2:]:
        expected = 0.0 if "transformer_layer" in variable.path else 1.0
        np.testing.assert_array_equal(variable.numpy(), expected)
    with pytest.raises(ValueError, match=r"one class. Received: Adam and SGD"):
        stack_moments(first, [], keras.optimizers.SGD(), [], 0)
