"""Schedules against NumPy, and what AdamW decays."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf

from labse_tf.models import LaBSEBackbone
from labse_tf.optimizers import WarmupLinearDecay, adamw


@pytest.mark.parametrize("warmup", [0, 1, 10])
def test_schedule_equals_numpy(warmup: int) -> None:
    settings = {"learning_rate": 2e-3, "warmup_steps": warmup, "train_steps": 50}
    schedule = WarmupLinearDecay(2e-3, 50, warmup_steps=warmup)
    for step in (0, 1, 5, 9, 10, 11, 30, 49, 50, 60):
        expected = reference.linear_schedule(step, **settings)
        assert float(schedule(step)) == pytest.approx(expected, abs=1e-9)


def test_schedule_round_trip_and_bad_arguments() -> None:
    schedule = WarmupLinearDecay(0.5, 20, warmup_steps=4)
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(schedule)
    )
    assert again.get_config() == schedule.get_config()
    for warmup, steps in ((20, 20), (-1, 20), (0, 0)):
        with pytest.raises(ValueError, match=r"`warmup_steps`.*Received: "):
            WarmupLinearDecay(0.5, steps, warmup_steps=warmup)


def test_only_matrices_and_tables_decay() -> None:
    backbone = LaBSEBackbone(20, 1, 2, 8, 16)
    for weight in backbone.trainable_weights:
        weight.assign(tf.ones_like(weight))
    optimizer = adamw(0.1, weight_decay=0.5)
    optimizer.build(backbone.trainable_weights)
    zeros = [tf.zeros_like(w) for w in backbone.trainable_weights]
    optimizer.apply_gradients(zip(zeros, backbone.trainable_weights, strict=True))
    for weight in backbone.trainable_weights:
        kept = weight.path.endswith(("bias", "gamma", "beta"))
        # Without a gradient AdamW only decays: 1 - 0.1 * 0.5.
        expected = 1.0 if kept else 0.95
        np.testing.assert_allclose(weight.numpy(), expected, rtol=1e-6)
    decayed = [w for w in backbone.trainable_weights if w.numpy().max() < 1]
    assert len(decayed) == 3 + 6 + 1  # tables, a block's kernels, the pooler's


def test_step_and_clipping_by_hand() -> None:
    variable = keras.Variable([3.0, 4.0])
    optimizer = adamw(0.01, clip_norm=1.0, epsilon=1e-6)
    optimizer.apply_gradients([(tf.constant([30.0, 40.0]), variable)])
    # Clipped to (0.6, 0.8); Adam's first step is lr * g / (|g| + epsilon).
    np.testing.assert_allclose(variable.numpy(), [2.99, 3.99], atol=1e-6)
    first_moment = [v.numpy() for v in optimizer.variables if "momentum" in v.path]
    np.testing.assert_allclose(first_moment[0], [0.06, 0.08], rtol=1e-5)
