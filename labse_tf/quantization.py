"""Quantization of weight matrices to int8 per channel, and to 4 bits in groups of 32.

In int8, a weight is an integer code from -127 to 127 times the scale of its channel. A
channel is a row of the token table, a column of the position table, or an output of a
kernel.

Measured with two trained encoders (labse-mini, and 6 BERT blocks of 384 dimensions with
mean pooling): the loss of cosine is 2 times as large with one scale per input of a
kernel, and 8 to 10 times with one scale per row of the position table, because a few
columns of this table have large values in all rows. Clipping the largest values and
scales of the least squared error lower the error of the weights by 1 % and the loss of
cosine by 6 % at most, and weights could not be restored exactly, so neither is done.

In 4 bits, 32 neighboring values have one float16 scale: `w = scale * (code - 8)`, with
codes from 0 to 15. Groups are along the hidden dimension of the token table and along
the inputs of a kernel. These are the numbers of GGML's type Q4_0, so weights that were
published in this type are stored without loss.

Shapes: V = rows of a table, D = hidden dimension, H = heads, K = width of a head, N =
channels of a matrix, I = values per channel.

References:
    `quantize_row_q4_0_ref` in
    https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c
"""

from __future__ import annotations

import numpy as np

# Number of values of a group, which share a scale in 4 bits.
GROUP = 32

# Number of values that are quantized at a time, to limit memory.
_BLOCK = 1 << 20
# The bytes of a group hold its first half in their low bits, as in Q4_0.
_HALF = GROUP // 2


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
    if not np.isfinite(array).all():
        raise ValueError(f"`array` must be finite. Received: NaN or infinity in {path}")
    codes, scales = quantize_rows(to_channels(path, array))
    codes = from_channels(path, codes, array.shape)
    return np.ascontiguousarray(codes), scales.reshape(scale_shape(path, array.shape))


def to_channels(path: str, array: np.ndarray) -> np.ndarray:
    """Return a weight as a matrix with one row per channel.

    Args:
        path: Path of the weight.
        array: A weight with channels, see `channel_axes`.

    Returns:
        `(N, I)`, without a copy if the layout of the array allows it.

    Raises:
        ValueError: If the weight has no channels.

    Example:
        >>> import numpy as np
        >>> from labse_tf.quantization import to_channels
        >>> to_channels("pooler/kernel", np.array([[1, 2], [3, 4]])).tolist()
        [[1, 3], [2, 4]]
    """
    order, channels = _channel_order(path, array.shape)
    return array.transpose(order).reshape(channels, -1)


def from_channels(path: str, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the weight of the given shape from the result of `to_channels`."""
    order, _ = _channel_order(path, shape)
    turned = rows.reshape([shape[axis] for axis in order])
    return turned.transpose(np.argsort(order))


def _channel_order(path: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return the axes of a weight, channels first, and the number of channels."""
    axes = channel_axes(path, shape)
    if axes is None:
        raise ValueError(
            "`path` must be the path of a kernel, or of the token or position table. "
            f"Received: {path!r} of shape {shape}"
        )
    order = axes + tuple(axis for axis in range(len(shape)) if axis not in axes)
    return order, int(np.prod([shape[axis] for axis in axes]))


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


def packed_shapes(
    path: str, shape: tuple[int, ...]
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Return the shapes of a weight's codes and scales in 4 bits.

    Args:
        path: Path of the weight.
        shape: Shape of the weight.

    Returns:
        `(N, I / 2)` and `(N, I / 32)`, for the matrix `(N, I)` of `to_channels`. `None`
        for the position table, for weights without channels, and if I is not a multiple
        of 32.

    Example:
        >>> from labse_tf.quantization import packed_shapes
        >>> packed_shapes("self_attention_layer/query/kernel", (384, 6, 64))
        ((384, 192), (384, 12))
    """
    axes = channel_axes(path, shape)
    if axes is None or path.endswith("position_embedding/embeddings"):
        return None
    channels = int(np.prod([shape[axis] for axis in axes]))
    inputs = int(np.prod([s for axis, s in enumerate(shape) if axis not in axes]))
    if inputs % GROUP:
        return None
    return (channels, inputs // 2), (channels, inputs // GROUP)


def quantize_groups(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantize each group of 32 values of each row to 4 bits.

    The scale of a group is the float16 number next to its value of the largest
    magnitude, divided by -8. If there is a scale with which all values of a group are
    restored exactly, that scale is taken. Restored values therefore do not change when
    they are quantized again.

    Args:
        table: float `(N, I)`. I must be a multiple of 32.

    Returns:
        uint8 codes `(N, I / 2)`, and float16 scales `(N, I / 32)`. Byte i of the 16
        bytes of a group holds the code of value i in its low bits, and the code of
        value i + 16 in its high bits.

    Raises:
        ValueError: If I is not a multiple of 32, or a value is not finite or exceeds
            524,032 (8 times the maximum of float16).

    Example:
        >>> import numpy as np
        >>> from labse_tf.quantization import dequantize_groups, quantize_groups
        >>> table = 0.5 * np.arange(-8.0, 8.0).repeat(2)[None]
        >>> codes, scales = quantize_groups(table)
        >>> codes.shape, scales.tolist()
        ((1, 16), [[0.5]])
        >>> bool((dequantize_groups(codes, scales) == table).all())
        True
    """
    table = np.asarray(table)
    rows, inputs = table.shape
    if inputs % GROUP:
        raise ValueError(
            f"`table` must have rows of a multiple of {GROUP} values. "
            f"Received: {inputs}"
        )
    codes = np.empty((rows, inputs // 2), np.uint8)
    scales = np.empty((rows, inputs // GROUP), np.float16)
    step = max(1, _BLOCK // max(1, inputs))
    for start in range(0, rows, step):
        block = slice(start, start + step)
        groups = np.asarray(table[block], dtype=np.float32).reshape(-1, GROUP)
        found, scale = _quantize_groups(groups)
        packed = found[:, :_HALF] | found[:, _HALF:] << 4
        codes[block] = packed.reshape(-1, inputs // 2)
        scales[block] = scale.reshape(-1, inputs // GROUP)
    return codes, scales


def _quantize_groups(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return codes from 0 to 15, uint8 `(n, 32)`, and float16 scales `(n,)`."""
    largest = np.take_along_axis(
        groups, np.abs(groups).argmax(axis=1, keepdims=True), axis=1
    )
    with np.errstate(over="ignore"):
        scales = (largest / -8 + 0).astype(np.float16)  # never -0
    # The argument of the maximum of values with NaN is that of NaN.
    if not np.isfinite(scales).all():
        raise ValueError(
            "`table` must be finite and not exceed 524,032, 8 times the maximum of "
            f"float16. Received: {largest[~np.isfinite(scales)][0]:g}"
        )
    codes, restored = _codes(groups, scales)
    rest = np.flatnonzero((restored != groups).any(axis=1))
    # Other scales can only be exact if the value of the largest magnitude is.
    for code in (7, -7, 6, -6, 5, -5, 4, -4, 3, -3, 2, -2, 1, -1):
        with np.errstate(over="ignore"):
            scale = (largest[rest] / code).astype(np.float16)
        possible = np.float32(scale[:, 0]) * code == largest[rest, 0]
        some, scale = rest[possible], scale[possible]
        found, restored_by_code = _codes(groups[some], scale)
        exact = (restored_by_code == groups[some]).all(axis=1)
        codes[some[exact]], scales[some[exact]] = found[exact], scale[exact]
        rest = np.setdiff1d(rest, some[exact], assume_unique=True)
    # A group whose scale is a subnormal number may not have the code 0; it gets the
    # scale that is exact for its restored values.
    odd = rest[codes[rest].all(axis=1)]
    if odd.size:
        codes[odd], scales[odd, 0] = _quantize_groups(restored[odd])
    return codes, scales[:, 0]


def _codes(groups: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of groups `(n, 32)` with scales `(n, 1)`, and their values."""
    scales = scales.astype(np.float32)
    divisors = np.where(scales == 0, 1, scales)
    codes = np.clip(np.floor(groups / divisors + np.float32(8.5)), 0, 15)
    return codes.astype(np.uint8), (codes - 8) * scales


def dequantize_groups(codes: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Return the values of codes and scales of `quantize_groups`.

    Args:
        codes: uint8 `(N, I / 2)`.
        scales: float `(N, I / 32)`.

    Returns:
        float32 `(N, I)`. The product of a code and a scale is exact.
    """
    packed = np.asarray(codes).reshape(*scales.shape, _HALF)
    table = np.empty((*scales.shape, GROUP), np.float32)
    table[..., :_HALF] = packed & 15
    table[..., _HALF:] = packed >> 4
    table -= 8
    table *= np.asarray(scales, dtype=np.float32)[..., None]
    return table.reshape(len(scales), -1)
