"""The transformer block against KerasHub's: values, gradients, masks, dropout."""

from __future__ import annotations

import re

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from helpers.errors import raises
from labse_tf.models.transformer_block import TransformerBlock

B, T, D, H, F = 5, 9, 24, 4, 40


def blocks(**options):
    """KerasHub's block and ours with the same weights."""
    made = []
    for kind in (keras_hub.layers.TransformerEncoder, TransformerBlock):
        block = kind(
            F, H, activation="gelu", layer_norm_epsilon=1e-12, name="block", **options
        )
        block.build((None, None, D))
        made.append(block)
    rng = np.random.default_rng(1)
    # Large weights and biases: attention is sharp, and no term is lost for being 0.
    weights = [rng.normal(size=w.shape) for w in made[0].get_weights()]
    for block in made:
        block.set_weights(weights)
    return made


def inputs(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(B, T, D)).astype("float32")


def padding() -> np.ndarray:
    return (np.arange(T) < np.array([[9], [1], [4], [8], [2]])).astype("int32")


def packed() -> np.ndarray:
    """Bool (B, T, T): two sequences a row, cut at another place in each."""
    number = np.arange(T) >= np.array([[3], [1], [5], [7], [8]])
    return number[:, :, None] == number[:, None, :]


MASKS = {
    "none": {},
    "padding": {"padding_mask": padding()},
    "packed": {"attention_mask": packed()},
    "both": {"padding_mask": padding(), "attention_mask": packed()},
}


@pytest.mark.parametrize("name", MASKS)
def test_values_and_gradients_are_those_of_kerashub(name) -> None:
    mask = MASKS[name]
    # A place that is padding, or sees nothing, has no meaning.
    valid = np.ones((B, T), bool)
    if "padding_mask" in mask:
        valid = padding().astype(bool)
    results = []
    for block in blocks():
        x = tf.Variable(inputs())
        with tf.GradientTape() as tape:
            y = block(x, **mask)
            value = tf.reduce_sum(tf.where(valid[..., None], tf.sin(y), 0.0))
        sources = [x, *(v.value for v in block.trainable_variables)]
        results.append(
            [y.numpy()[valid], *map(np.asarray, tape.gradient(value, sources))]
        )
    theirs, ours = results
    assert len(ours) == 1 + 1 + 16
    for a, b in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(b, a, atol=2e-5 * max(1.0, np.abs(a).max()))


def test_hidden_tokens_change_nothing() -> None:
    """What a mask hides may be anything."""
    _, block = blocks()
    x, other = inputs(), inputs(7)
    valid = padding().astype(bool)
    mixed = np.where(valid[..., None], x, other)
    before, after = (np.asarray(block(v, padding_mask=padding())) for v in (x, mixed))
    np.testing.assert_array_equal(before[valid], after[valid])
    assert np.abs(np.asarray(block(x)) - before)[1, 0].max() > 0.1


def test_half_precision_is_no_worse_than_kerashub() -> None:
    exact = np.asarray(blocks()[0](inputs()))
    errors = [
        np.abs(np.asarray(block(inputs()), "float32") - exact).mean()
        for block in blocks(dtype="mixed_bfloat16")
    ]
    assert 0 < errors[1] < 1.2 * errors[0] < 0.1


def test_dropout_acts_in_training_alone_and_with_its_rate() -> None:
    keras.utils.set_random_seed(3)
    theirs, ours = blocks(dropout=0.3)
    x = np.repeat(inputs()[:1], 2000, axis=0)
    np.testing.assert_array_equal(ours(x[:4]), ours(x[:4], training=False))
    rows = np.asarray(ours(x, training=True))
    assert len(np.unique(rows[:, 0, 0])) > 1000
    # The same distribution: mean and spread of each place, over 2,000 drawings.
    expected = np.asarray(theirs(x, training=True))
    np.testing.assert_allclose(rows.mean(0), expected.mean(0), atol=0.2)
    np.testing.assert_allclose(rows.std(0), expected.std(0), atol=0.2)
    assert expected.std(0).mean() > 0.3


def test_variables_have_the_names_of_kerashub() -> None:
    theirs, ours = blocks(dropout=0.1)
    names = [
        [
            (re.sub(r"_generator_\d+", "_generator", v.path), v.shape)
            for v in b.variables
        ]
        for b in (theirs, ours)
    ]
    assert names[0] == names[1] and len(names[0]) == 16 + 3


def test_a_block_survives_its_config() -> None:
    _, block = blocks(dropout=0.1)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(block)
    )
    assert type(copy) is TransformerBlock
    assert copy.get_config() == block.get_config()
    with raises(ValueError, "num_heads=5"):
        TransformerBlock(F, 5).build((None, None, D))


def test_initial_weights_are_those_of_kerashub() -> None:
    initial = []
    for kind in (keras_hub.layers.TransformerEncoder, TransformerBlock):
        keras.utils.set_random_seed(4)
        initializer = keras.initializers.TruncatedNormal(stddev=0.02)
        block = kind(F, H, dropout=0.1, kernel_initializer=initializer)
        block.build((None, None, D))
        initial.append([np.asarray(variable) for variable in block.variables])
    for theirs, ours in zip(*initial, strict=True):
        np.testing.assert_array_equal(theirs, ours)
