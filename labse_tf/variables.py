"""Variables: read, assign, copy and free large variables with little extra memory.

The token table and its two moments are most of the memory of a training step, so even
one copy of a table counts. On TensorFlow, reading a variable shares its memory, unless
the variable is in the mode "copy on read": gathering or writing single rows of a
variable turns this mode on, and then each later read of the variable copies it, also
the reads of all later training steps. The functions of this module turn it off again.

References:
    `EnsureSparseVariableAccess` in
    https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/kernels/training_op_helpers.h
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

# Last parts of the path of the token table, which has 82 % of LaBSE's parameters.
TOKEN_TABLE = "token_embedding/embeddings"

_BLOCK_BYTES = 1 << 24  # ours: 16 MB; larger blocks are not written to disk faster
_WITHOUT_VALUES: ContextVar[bool] = ContextVar("tables_without_values", default=False)


def block_bounds(shape: Sequence[int], dtype: Any) -> list[tuple[int, int]]:
    """Return the first row and the end of each block of an array.

    Args:
        shape: Shape of the array.
        dtype: Type of the array, as text or as a NumPy type.

    Returns:
        Blocks of at most 16 MB or one row. An array without rows is one block.

    Example:
        >>> from labse_tf.variables import block_bounds
        >>> block_bounds((3, 4_000_000), "float32")
        [(0, 1), (1, 2), (2, 3)]
    """
    size = np.dtype(dtype).itemsize * int(np.prod(shape))
    if not shape or size <= _BLOCK_BYTES:
        return [(0, shape[0] if shape else 1)]
    rows = max(1, _BLOCK_BYTES * shape[0] // size)
    return [(i, min(i + rows, shape[0])) for i in range(0, shape[0], rows)]


def read_blocks(variable: Any) -> Iterator[np.ndarray]:
    """Yield all rows of a variable in the blocks of `block_bounds`.

    Args:
        variable: Keras variable or array.
    """
    shape = tuple(variable.shape)
    # `dtype` of a Keras variable is text, that of an array is a NumPy type.
    bounds = block_bounds(shape, variable.dtype)
    if len(bounds) == 1:
        yield np.asarray(variable)
        return
    value = _shared(variable)
    for start, stop in bounds:
        yield np.asarray(value[start:stop])


def assign_blocks(variable: Any, blocks: Iterable[np.ndarray]) -> None:
    """Assign a variable from the blocks of `block_bounds`, one at a time.

    Args:
        variable: Keras variable.
        blocks: Arrays of the variable's type, in the order of their rows.
    """
    bounds = block_bounds(tuple(variable.shape), variable.dtype)
    parts = _parts_on_cpu(variable)
    if len(bounds) == 1 or not parts:
        arrays = list(blocks)
        variable.assign(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))
        return
    import tensorflow as tf

    for (start, stop), block in zip(bounds, blocks, strict=True):
        for part in parts:
            tf.raw_ops.ResourceScatterUpdate(
                resource=part.handle,
                indices=tf.range(start, stop),
                updates=tf.convert_to_tensor(block, part.dtype),
            )
    for part in parts:
        tf.raw_ops.DisableCopyOnRead(resource=part.handle)


def copy_value(source: Any, target: Any) -> None:
    """Assign the value of one Keras variable to another of the same shape.

    On TensorFlow the two share their memory until one of them changes.
    """
    if _parts(source):
        target.assign(_shared(source))
    else:
        # On JAX, a step cannot donate a buffer that two variables share.
        target.assign(np.array(np.asarray(source), copy=True))


def release(variables: Iterable[Any]) -> None:
    """Free the memory of TensorFlow variables on a CPU that are not used any more.

    TensorFlow keeps the graph of a training step, and thereby its variables, until the
    process ends. On other backends nothing is done.

    Args:
        variables: Keras variables. They cannot be read afterwards.
    """
    for variable in variables:
        parts = _parts_on_cpu(variable)
        if parts:
            import tensorflow as tf

            for part in parts:
                tf.raw_ops.AssignVariableOp(
                    resource=part.handle, value=tf.zeros((0,), part.dtype)
                )


@contextmanager
def tables_without_values() -> Iterator[None]:
    """Create token tables, and their moments, without initial values in the block.

    All of them must be assigned afterwards. This saves the time of the random values,
    and memory if the values are copied from another model.
    """
    token = _WITHOUT_VALUES.set(True)
    try:
        yield
    finally:
        _WITHOUT_VALUES.reset(token)


def has_no_value() -> bool:
    """Return whether a token table is to be created without initial values."""
    return _WITHOUT_VALUES.get()


def no_value(shape: Sequence[int], dtype: Any = None) -> Any:
    """Return a tensor with arbitrary values, as an initializer of a variable."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return keras.ops.empty(shape, dtype=dtype)
    import tensorflow as tf

    return tf.raw_ops.Empty(shape=shape, dtype=tf.as_dtype(dtype or "float32"))


def _parts(variable: Any) -> list[Any]:
    """Return the TensorFlow variables behind a Keras variable, one per replica."""
    value = getattr(variable, "value", variable)
    parts = getattr(value, "values", (value,))
    return [part for part in parts if hasattr(part, "handle")]


def _parts_on_cpu(variable: Any) -> list[Any]:
    """Return the parts of a variable if all of them are on a CPU."""
    parts = _parts(variable)
    return parts if all("CPU" in part.device for part in parts) else []


def _shared(variable: Any) -> Any:
    """Return the value of a variable as a tensor that shares its memory."""
    parts = _parts(variable)
    if not parts:
        return getattr(variable, "value", variable)
    import tensorflow as tf

    tf.raw_ops.DisableCopyOnRead(resource=parts[0].handle)
    return parts[0].read_value()
