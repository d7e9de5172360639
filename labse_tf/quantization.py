"""Symmetric int8 quantization of weight matrices with one scale per channel.

A weight is an integer code from -127 to 127 times the scale of its channel. A channel
is a row of the token table, a column of the position table, or an output of a kernel.

Measured with two trained encoders (labse-mini, and 6 BERT blocks of 384 dimensions with
mean pooling): the loss of cosine is 2 times as large with one scale per input of a
kernel, and 8 to 10 times with one scale per row of the position table, because a few
columns of this table have large values in all rows. Clipping the largest values and
scales of the least squared error lower the error of the weights by 1 % and the loss of
cosine by 6 % at most, and weights could not be restored exactly, so neither is done.

Shapes: V = rows of a table, D = hidden dimension, H = heads, K = width of a head.
"""

from __future__ import annotations

import numpy as np

# Number of values that are quantized at a time, to limit memory.
_BLOCK = 1 << 20


def channel_axes(path: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the axes of a weight that number its channels.

    Args:
        path: Path of the weight, such as `pooler/kernel`.
        shape: Shape of the weight.

    Returns:
        Axis 0 for the token table `(V, D)`, axis 1 for the position table. For a
        kernel, the axes of its outputs: kernels are `(inputs, outputs)`, `(D, H, K)`
        or, for the output of attention, `(H, K, D)`. `None` for other weights, which
        are small: biases, normalizations, segment table, token weights `(V, 1)`.

    Example:
        >>> from labse_tf.quantization import channel_axes
        >>> channel_axes("token_embedding/embeddings", (64000, 384))
        (0,)
        >>> channel_axes("self_attention_layer/query/kernel", (384, 6, 64))
        (1, 2)
    """
    layer, name = ["", *path.split("/")][-2:]
    if len(shape) < 2:
        return None
    if name == "kernel":
        inputs = len(shape) - 1 if layer == "attention_output" else 1
        return tuple(range(inputs, len(shape)))
    tables = {"token_embedding": (0,), "position_embedding": (1,)}
    return tables.get(layer) if name == "embeddings" else None


def scale_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape of a weight's scales, which broadcasts to that of the weight.

    Args:
        path: Path of the weight.
        shape: Shape of the weight.

    Returns:
        The shape, with 1 for each axis whose elements share a scale. `None` if
        `channel_axes` is `None`.
    """
    axes = channel_axes(path, shape)
    if axes is None:
        return None
    return tuple(size if axis in axes else 1 for axis, size in enumerate(shape))


def quantize(path: str, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantize a weight to int8 with one scale per channel.

    Args:
        path: Path of the weight.
        array: float weight. `channel_axes(path, array.shape)` must not be `None`.

    Returns:
        int8 codes of the shape of the weight, and float32 scales of the shape
        `scale_shape(path, array.shape)`. See `quantize_rows`.

    Raises:
        ValueError: If the weight is not finite or has no channels.

    Example:
        >>> import numpy as np
        >>> from labse_tf.quantization import quantize
        >>> kernel = np.array([[127.0, 4.0], [-64.0, 127.0 * 4.0]])
        >>> codes, scales = quantize("pooler/kernel", kernel)
        >>> codes.tolist(), scales.tolist()
        ([[127, 1], [-64, 127]], [[1.0, 4.0]])
    """
    array = np.asarray(array)
    axes = channel_axes(path, array.shape)
    if axes is None:
        raise ValueError(
            "`path` must be the path of a kernel, or of the token or position table. "
            f"Received: {path!r} of shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"`array` must be finite. Received: NaN or infinity in {path}")
    order = axes + tuple(axis for axis in range(array.ndim) if axis not in axes)
    turned = array.transpose(order)
    channels = int(np.prod(turned.shape[: len(axes)]))
    codes, scales = quantize_rows(turned.reshape(channels, -1))
    codes = codes.reshape(turned.shape).transpose(np.argsort(order))
    scales = scales.reshape(scale_shape(path, array.shape))
    return np.ascontiguousarray(codes), scales


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantize each row to int8 with one scale.

    The largest absolute value of a row becomes 127. The product of codes and scales has
    the same codes and scales, so weights do not change when they are loaded and saved
    again.

    Args:
        table: float `(V, D)`.

    Returns:
        int8 `(V, D)` from -127 to 127, and float32 scales `(V, 1)`. Their product
        differs from the table by at most 1/254 of the row's largest absolute value.

    Raises:
        ValueError: If the table is not finite.

    Example:
        >>> import numpy as np
        >>> from labse_tf.quantization import quantize_rows
        >>> codes, scale = quantize_rows(np.array([[1.0, -0.5, 0.25]]))
        >>> codes.tolist(), scale.shape
        ([[127, -64, 32]], (1, 1))
    """
    table = np.asarray(table, dtype=np.float32)
    if not np.isfinite(table).all():
        raise ValueError("`table` must be finite. Received: NaN or infinity")
    codes = np.empty(table.shape, np.int8)
    scales = np.empty((len(table), 1), np.float32)
    step = max(1, _BLOCK // max(1, table.shape[1]))
    for start in range(0, len(table), step):
        rows = slice(start, start + step)
        largest = np.abs(table[rows]).max(axis=1, keepdims=True, initial=0)
        # For all float32 numbers m and s = m / 127, 127 * s / 127 is s again, although
        # both operations round.
        scales[rows] = largest / np.float32(127)
        divisors = np.where(scales[rows] == 0, 1, scales[rows])
        # The quotients of subnormal numbers can exceed 127.
        codes[rows] = np.clip(np.rint(table[rows] / divisors), -127, 127)
    return codes, scales
