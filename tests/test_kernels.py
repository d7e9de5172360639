"""The CPU's kernels against Keras's layers: values, gradients, masks, places."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from labse_tf import cpu_kernels as kernels
from labse_tf.cpu_kernels import cpu_kernels
from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.models import DualEncoder, LaBSE, LaBSEBackbone

N, D = 6, kernels.NARROWEST


def rows(seed: int, *shape: int) -> tf.Tensor:
    shape = shape or (N, D)
    # Not around 0, and with some that GELU leaves next to nothing of.
    x = np.random.default_rng(seed).normal(0.5, 2.0, shape)
    return tf.constant(x.astype(np.float32))


def with_gradients(function, *inputs):
    """What a function gives, and its gradients for an upstream one, in a graph."""

    @tf.function(autograph=False)
    def run(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = function(*inputs)
        return y, tape.gradient(y, inputs, tf.cast(rows(9, *y.shape), y.dtype))

    y, gradients = run(*inputs)
    return [x.numpy().astype(np.float64) for x in (y, *gradients)]


def norm(dtype: str = "float32") -> keras.layers.LayerNormalization:
    layer = keras.layers.LayerNormalization(epsilon=1e-2, dtype=dtype)
    layer.build((None, D))
    rng = np.random.default_rng(3)
    layer.set_weights([rng.normal(1, 0.3, D), rng.normal(0, 0.3, D)])
    return layer


def test_the_compiled_gelu_is_that_of_keras() -> None:
    x = rows(0)
    expected = with_gradients(kernels.gelu, x)
    with cpu_kernels("training"):
        received = with_gradients(kernels.gelu, x)
    for a, b in zip(expected, received, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6, rtol=1e-5)
    assert with_gradients(keras.activations.gelu, x)[0] == pytest.approx(expected[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(N, D), (2, 3, D)])
def test_the_fused_norm_is_that_of_keras(dtype, shape) -> None:
    layer, x = norm(), rows(1, *shape)
    expected = with_gradients(layer, x)

    def normal(x):
        return tf.cast(kernels.normalize(layer, tf.cast(x, dtype)), tf.float32)

    with cpu_kernels("inference"):
        received = with_gradients(normal, x)
    atol = 5e-6 if dtype == "float32" else 0.06
    for a, b in zip(expected, received, strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=atol)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_fused_norm_is_one_kernel(dtype) -> None:
    """TensorFlow's graph optimiser knows it; else it is right, but for nothing."""
    weights, inputs = [w.numpy() for w in norm().weights], rows(1).numpy()
    graph = tf.Graph()
    with graph.as_default(), cpu_kernels("inference"):
        x = tf.compat.v1.placeholder(dtype, (None, D))
        gamma, beta = (tf.constant(weight) for weight in weights)
        layer = SimpleNamespace(gamma=gamma, beta=beta, epsilon=1e-2)
        y = tf.identity(kernels.norm_kernel(layer, tf.nn.relu(x)))
    options = tf.compat.v1.RunOptions(output_partition_graphs=True)
    said = tf.compat.v1.RunMetadata()
    with tf.compat.v1.Session(graph=graph) as session:
        session.run(y, {x: inputs}, options=options, run_metadata=said)
    found = {node.op for part in said.partition_graphs for node in part.node}
    if not any("Mkl" in op for op in found):
        pytest.skip("TensorFlow has no oneDNN here")
    assert "_MklLayerNorm" in found
    assert not any("BatchNorm" in op for op in found)


def residual(seed: int, rate: float = 0.25):
    """Half a block's end, a function of its two inputs and the layers' weights."""
    dropping, layer = keras.layers.Dropout(rate, seed=seed), norm()

    def end(x, skipped, gamma, beta):
        state = [(layer.gamma, gamma), (layer.beta, beta)]
        with keras.StatelessScope(state_mapping=state):
            return kernels.add_and_normalize(x, skipped, dropping, layer, True)

    return end, layer, dropping


def test_the_end_of_half_a_block_is_that_of_keras() -> None:
    x, skipped = rows(1), rows(2)
    end, layer, dropping = residual(5)
    gamma, beta = (tf.constant(w.numpy()) for w in layer.weights)
    seed = dropping.seed_generator.state.numpy()
    with cpu_kernels("training"):
        received = with_gradients(end, x, skipped, gamma, beta)
        dropping.seed_generator.state.assign(seed)
        # Dropout alone draws the same mask, so that the rest can be Keras's.
        kept = kernels.dropout(dropping, tf.ones((N, D)), True).numpy()
    assert set(np.unique(kept)) == {0.0, np.float32(1 / 0.75)}

    def expected_end(x, skipped, gamma, beta):
        z = x * kept + skipped
        mean, variance = tf.nn.moments(z, [-1], keepdims=True)
        return (z - mean) * tf.math.rsqrt(variance + 1e-2) * gamma + beta

    expected = with_gradients(expected_end, x, skipped, gamma, beta)
    for a, b in zip(expected, received, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4)


def test_masks_have_the_rate_and_are_drawn_anew() -> None:
    layer = keras.layers.Dropout(0.1, seed=1)
    x = tf.ones((999, 301), tf.bfloat16)  # An odd number of numbers.
    with cpu_kernels("training"):
        first, second = (
            kernels.dropout(layer, x, True).numpy().astype(float) for _ in range(2)
        )
        assert kernels.dropout(layer, x, False).numpy().min() == 1
    assert np.mean(first == 0) == pytest.approx(0.1, abs=0.003)
    assert np.mean((first == 0) & (second == 0)) == pytest.approx(0.01, abs=0.001)
    assert first.max() == pytest.approx(1 / 0.9, rel=0.005)
    # No pattern along rows or columns.
    for axis in (0, 1):
        shares = np.mean(first == 0, axis=axis)
        assert shares.std() == pytest.approx(
            np.sqrt(0.09 / first.shape[axis]), rel=0.25
        )


def test_narrow_rows_and_other_places_are_keras() -> None:
    narrow, wide = rows(0, N, D - 1), rows(0)

    def operations(x) -> set[str]:
        graph = tf.function(kernels.gelu, autograph=False).get_concrete_function(x)
        return {op.type for op in graph.graph.get_operations()}

    call = "PartitionedCall"
    assert call not in operations(wide)
    with cpu_kernels("training"):
        assert call in operations(wide)
        assert call not in operations(narrow)
    with cpu_kernels("inference"):
        assert call not in operations(wide)


def dual(chunk_size: int | None = None) -> tuple[DualEncoder, dict]:
    """A dual encoder as wide as the kernels need, and a batch."""
    keras.utils.set_random_seed(7)
    backbone = LaBSEBackbone(50, 2, 4, D, 2 * D, dropout=0.0)
    model = DualEncoder(LaBSE(backbone, pooling="mean"), chunk_size)
    model.compile(keras.optimizers.SGD(0.1), AdditiveMarginSoftmax())
    rng = np.random.default_rng(0)
    ids = rng.integers(5, 50, (2, 8, 7)).astype(np.int32)
    mask = (np.arange(7) < rng.integers(2, 8, (2, 8, 1))).astype(np.int32)
    sides = [
        {"token_ids": a * m, "segment_ids": 0 * a, "padding_mask": m}
        for a, m in zip(ids, mask, strict=True)
    ]
    return model, dict(zip(("source", "target"), sides, strict=True))


@pytest.mark.parametrize("chunk_size", [None, pytest.param(3, marks=pytest.mark.slow)])
def test_a_step_with_kernels_is_a_step_without(chunk_size, monkeypatch) -> None:
    def after(on_cpu: bool) -> list[np.ndarray]:
        monkeypatch.setattr(kernels, "_on_cpu", lambda: on_cpu)
        model, batch = dual(chunk_size)
        for _ in range(2):
            model.train_on_batch(batch)
        return [np.asarray(weight) for weight in model.weights]

    start = [np.asarray(weight) for weight in dual()[0].weights]
    without, received = after(False), after(True)
    moved = max(np.abs(a - b).max() for a, b in zip(start, without, strict=True))
    assert moved > 0.01
    for a, b in zip(without, received, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
