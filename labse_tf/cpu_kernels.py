"""CPU kernels: fast steps between the matrix products, for TensorFlow on a CPU."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, Literal

import keras
from keras import ops

# ours: for narrower rows, the gain does not pay for XLA's compilation, which happens
# once per number of rows.
NARROWEST = 192

_MODE: ContextVar[str | None] = ContextVar("cpu_kernels", default=None)


@contextmanager
def cpu_kernels(mode: Literal["inference", "training"]) -> Iterator[None]:
    """Trace layers with the kernels of this module while the context is active.

    This has no effect if TensorFlow has devices other than CPUs.

    Args:
        mode: Use of the traced graph. Gradients are correct in both modes.
    """
    token = _MODE.set(mode if _on_cpu() else None)
    try:
        yield
    finally:
        _MODE.reset(token)


def gelu(x: Any) -> Any:
    """Return the exact GELU: `x` times the normal distribution function of `x`.

    The result has the shape and type of `x`.

    References:
        Hendrycks and Gimpel, 2016 (https://arxiv.org/abs/1606.08415)
    """
    if not _compiles(x):
        return keras.activations.gelu(x, approximate=False)
    return _compiled().gelu(x)


def dropout(layer: keras.layers.Dropout, x: Any, training: bool | None) -> Any:
    """Apply dropout with the rate and the seeds of a Keras layer, to any shape."""
    if not (training and layer.rate and _MODE.get() == "training"):
        return layer(x, training=training)
    import tensorflow as tf

    kept = tf.cast(_kept(layer, x), x.dtype)
    return x * (kept * tf.cast(1 / (1 - layer.rate), x.dtype))


def normalize(layer: keras.layers.LayerNormalization, x: Any) -> Any:
    """Apply a layer normalization over the last axis, `(..., D)` -> `(..., D)`."""
    if has_norm_kernel(x):
        return norm_kernel(layer, x)
    return layer(x)


def add_and_normalize(
    x: Any,
    skipped: Any,
    dropping: keras.layers.Dropout,
    norm: keras.layers.LayerNormalization,
    training: bool | None,
) -> Any:
    """Apply dropout, the residual connection and layer normalization.

    Args:
        x: Float `(N, D)`, output of the sublayer.
        skipped: Float `(N, D)`, input of the sublayer.
        dropping: Dropout layer for `x`.
        norm: Layer normalization for the sum.
        training: Whether dropout is active.

    Returns:
        Float `(N, D)`.
    """
    if not (training and dropping.rate and _compiles(x)):
        return normalize(norm, dropping(x, training=training) + skipped)
    import tensorflow as tf

    gamma, beta = (tf.cast(v, tf.float32) for v in (norm.gamma, norm.beta))
    constants = tf.constant([1 / (1 - dropping.rate), norm.epsilon], tf.float32)
    return _compiled().residual(x, skipped, _kept(dropping, x), gamma, beta, constants)


def has_norm_kernel(x: Any) -> bool:
    """Return whether to use `norm_kernel` for a tensor."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return _MODE.get() == "inference" and dtype in ("float32", "bfloat16")


def norm_kernel(layer: keras.layers.LayerNormalization, x: Any) -> Any:
    """Apply layer normalization in the form that TensorFlow's remapper recognizes.

    The remapper replaces it with one oneDNN kernel if the number of rows is not static.
    The result is correct in any case.

    References:
        `FindMklLayerNorm` in
        https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/grappler/optimizers/remapper.cc
    """
    import tensorflow as tf

    # Batch normalization in training mode normalizes channels, which are rows here.
    rows = tf.reshape(x, [1, -1, x.shape[-1], 1])
    # Not from the shape of `rows`, which the fused kernel does not need.
    count = tf.reduce_prod(tf.shape(x)[:-1], keepdims=True)
    empty = tf.constant([], tf.float32)
    normal = tf.raw_ops.FusedBatchNormV3(
        x=rows,
        scale=tf.fill(count, 1.0),
        offset=tf.fill(count, 0.0),
        mean=empty,
        variance=empty,
        epsilon=layer.epsilon,
        data_format="NCHW",
        is_training=True,
    )[0]
    normal = tf.reshape(normal, tf.shape(x))
    return normal * tf.cast(layer.gamma, x.dtype) + tf.cast(layer.beta, x.dtype)


def _on_cpu() -> bool:
    """Return whether the backend is TensorFlow and has no devices other than CPUs."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    devices = {device.device_type for device in tf.config.list_logical_devices()}
    return devices == {"CPU"}


def _compiles(x: Any) -> bool:
    """Return whether XLA compiles the steps on this tensor."""
    return _MODE.get() == "training" and (x.shape[-1] or NARROWEST) >= NARROWEST


def _kept(layer: keras.layers.Dropout, x: Any) -> Any:
    """Return the elements that dropout keeps, bool of the shape of `x`."""
    import tensorflow as tf

    seed = ops.cast(layer.seed_generator.next(), "int32")
    size = tf.size(x)
    words = tf.random.stateless_uniform(
        [(size + 1) // 2], seed, minval=None, maxval=None, dtype=tf.uint32
    )
    bits = tf.reshape(tf.bitcast(words, tf.uint16), [-1])[:size]
    dropped = tf.constant(round(layer.rate * 2**16), tf.uint16)
    return tf.reshape(bits >= dropped, tf.shape(x))


@functools.cache
def _compiled() -> SimpleNamespace:
    """Return the functions that XLA compiles, once per shape in a process."""
    import tensorflow as tf

    compiled = functools.partial(
        tf.function, jit_compile=True, autograph=False, reduce_retracing=True
    )

    def cdf(z: Any) -> Any:
        return 0.5 + 0.5 * tf.math.erf(z * 0.5**0.5)

    @compiled
    def gelu_forward(x: Any) -> Any:
        z = tf.cast(x, tf.float32)
        return tf.cast(z * cdf(z), x.dtype)

    @compiled
    def gelu_backward(x: Any, upstream: Any) -> Any:
        z = tf.cast(x, tf.float32)
        density = tf.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        slope = tf.cast(upstream, tf.float32) * (cdf(z) + z * density)
        return tf.cast(slope, x.dtype)

    @tf.custom_gradient
    def gelu(x: Any) -> Any:
        return gelu_forward(x), lambda upstream: gelu_backward(x, upstream)

    def normal(x: Any, skipped: Any, kept: Any, constants: Any) -> tuple[Any, Any]:
        z = tf.where(kept, tf.cast(x, tf.float32) * constants[0], 0.0)
        z = z + tf.cast(skipped, tf.float32)
        z = z - tf.reduce_mean(z, axis=-1, keepdims=True)
        variance = tf.reduce_mean(z * z, axis=-1, keepdims=True)
        inverse = tf.math.rsqrt(variance + constants[1])
        return z * inverse, inverse

    @compiled
    def residual_forward(
        x: Any, skipped: Any, kept: Any, gamma: Any, beta: Any, constants: Any
    ) -> Any:
        z, _ = normal(x, skipped, kept, constants)
        return tf.cast(z * gamma + beta, x.dtype)

    @compiled
    def residual_backward(
        x: Any, skipped: Any, kept: Any, gamma: Any, constants: Any, upstream: Any
    ) -> Any:
        z, inverse = normal(x, skipped, kept, constants)
        upstream = tf.cast(upstream, tf.float32)
        of_z = upstream * gamma
        means = [tf.reduce_mean(y, -1, keepdims=True) for y in (of_z, of_z * z)]
        of_sum = inverse * (of_z - means[0] - z * means[1])
        of_x = tf.where(kept, of_sum * constants[0], 0.0)
        return (
            tf.cast(of_x, x.dtype),
            tf.cast(of_sum, x.dtype),
            tf.reduce_sum(upstream * z, axis=0),
            tf.reduce_sum(upstream, axis=0),
        )

    @tf.custom_gradient
    def residual(
        x: Any, skipped: Any, kept: Any, gamma: Any, beta: Any, constants: Any
    ) -> Any:
        def backward(upstream: Any) -> Any:
            of_x, of_skipped, of_gamma, of_beta = residual_backward(
                x, skipped, kept, gamma, constants, upstream
            )
            return of_x, of_skipped, None, of_gamma, of_beta, None

        return residual_forward(x, skipped, kept, gamma, beta, constants), backward

    return SimpleNamespace(gelu=gelu, residual=residual)
