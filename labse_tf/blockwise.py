"""Block-wise computation: loops over blocks of rows, for matrices larger than memory.

`over_blocks` is the loop; `LogSumExp` accumulates the denominator of a softmax in it.
Both use `keras.ops` and run on TensorFlow and JAX. TensorFlow is imported only to
control its memory use.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import keras
from keras import ops


def over_blocks(
    step: Callable[..., tuple[Any, ...]],
    state: tuple[Any, ...],
    size: Any,
    block_size: int | None,
) -> tuple[Any, ...]:
    """Run `state = step(start, rows, *state)` over blocks of rows, one after another.

    All blocks except the last have `block_size` rows. A smaller last block is outside
    the loop, so that shapes in the loop are static, as XLA and JAX require.

    Args:
        step: Function of the first row and the number of rows of a block and of the
            state. Returns the next state, with the same shapes.
        state: Tensors, or named tuples of tensors.
        size: Number of rows; an int32 scalar if it is not static.
        block_size: Rows per block; `None` for one block, without a loop.

    Returns:
        The last state.
    """
    if block_size is None:
        return step(0, size, *state)
    static = isinstance(size, int)
    if static:
        rows, full = block_size, size // block_size * block_size
    else:
        # XLA compiles the loop even if it never runs, so `rows` must not exceed `size`.
        # The last block is never in the loop, because it may be smaller.
        rows = ops.clip(size, 1, block_size)
        full = ops.maximum(size - 1, 0) // rows * rows
    if not static or full:
        loop: Callable[..., tuple[Any, ...]] = ops.while_loop
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # Blocks are almost independent of each other: TensorFlow would compute
            # several at a time and hold all of them in memory.
            loop = functools.partial(tf.while_loop, parallel_iterations=1)
        _, *last = loop(
            lambda start, *_: start < full,
            lambda start, *state: (start + rows, *step(start, rows, *state)),
            (ops.cast(0, "int32"), *state),
        )
        state = tuple(last)
    if static and full == size:
        return state
    with _after(state):
        return step(full, size - full, *state)


def _after(state: tuple[Any, ...]) -> AbstractContextManager[Any]:
    """Return a context in which TensorFlow waits for the state before it computes."""
    if keras.backend.backend() != "tensorflow":
        return nullcontext()
    import tensorflow as tf

    return tf.control_dependencies(keras.tree.flatten(state))


class LogSumExp(NamedTuple):
    """Log-sum-exp of each row of a matrix, accumulated over blocks of columns.

    Attributes:
        top: Maximum of each row so far, float32 `(n,)`.
        total: Sum of `exp(x - top)` over each row so far, float32 `(n,)`.

    Example:
        >>> import numpy as np
        >>> from labse_tf.blockwise import LogSumExp
        >>> running = LogSumExp.of_nothing(np.zeros(1, "float32"))
        >>> for block in np.log([[1.0, 2.0]]), np.log([[3.0]]):
        ...     running = running.add(block.astype("float32"))
        >>> round(float(np.exp(running.value())[0]), 4)
        6.0

    References:
        Milakov and Gimelshein, 2018 (https://arxiv.org/abs/1805.02867).
    """

    top: Any
    total: Any

    @classmethod
    def of_nothing(cls, like: Any) -> LogSumExp:
        """Return the initial value, for a tensor `like` of shape `(n,)`."""
        zeros = ops.zeros_like(like, dtype="float32")
        return cls(ops.full_like(zeros, -3.0e38), zeros)

    def add(self, logits: Any) -> LogSumExp:
        """Return the value that includes another block of columns `(n, rows)`."""
        top = ops.maximum(self.top, ops.max(logits, axis=1))
        # No exponent is above 0, so that nothing overflows.
        part = ops.sum(ops.exp(logits - top[:, None]), axis=1)
        return LogSumExp(top, self.total * ops.exp(self.top - top) + part)

    def shares(self, logits: Any) -> Any:
        """Return the softmax of a block of columns, float32 `(n, rows)`."""
        # More exact than `exp(logits - value)`, because `top + log(total)` rounds off
        # the last bits of the logarithm if `top` is large.
        return ops.exp(logits - self.top[:, None]) * (1 / self.total)[:, None]

    def value(self) -> Any:
        """Return the log-sum-exp, float32 `(n,)`."""
        return self.top + ops.log(self.total)


def cut_rows(tensor: Any, start: Any, rows: Any) -> Any:
    """Return `rows` rows of a tensor, beginning at row `start`."""
    rest = tuple(tensor.shape[1:])
    return ops.slice(tensor, (start, *(0 for _ in rest)), (rows, *rest))


def empty_rows(shape: tuple[Any, ...]) -> Any:
    """Return a float32 tensor to be filled by `write_rows`."""
    if uncompiled_tensorflow():
        import tensorflow as tf

        # TensorFlow would fold zeros into a constant, which stays in memory and which
        # the first write has to copy.
        return tf.raw_ops.Empty(shape=shape, dtype=tf.float32, init=False)
    return ops.zeros(shape, dtype="float32")


def write_rows(buffer: Any, start: Any, rows: Any) -> Any:
    """Write rows into a buffer, beginning at row `start`; in place inside a graph."""
    if uncompiled_tensorflow():
        import tensorflow as tf

        # On the CPU, the kernels of `tf.tensor_scatter_nd_update` and
        # `ops.slice_update` copy the whole buffer at each write; this kernel does not.
        return tf.raw_ops.TensorStridedSliceUpdate(
            input=buffer,
            begin=[start],
            end=[start + ops.shape(rows)[0]],
            strides=[1],
            value=rows,
        )
    return ops.slice_update(buffer, (start,) + (0,) * (len(rows.shape) - 1), rows)


def uncompiled_tensorflow() -> bool:
    """Return whether TensorFlow's own kernels run this code, not XLA or JAX.

    The answer only affects memory: a graph that was traced for TensorFlow's kernels
    and is then compiled by XLA gives the same result.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    # No public function detects a graph traced for `jit_compile=True` or a TPU.
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    return not control_flow_util.GraphOrParentsInXlaContext(graph)


def outside_eager(
    function: Callable[..., Any], *args: Any, key: Hashable = None
) -> Any:
    """Call a function, in a graph if TensorFlow runs eagerly.

    In eager mode each write would copy the buffer, because the caller still holds it.

    Args:
        function: Module-level function, so that its graphs are cached.
        *args: Tensors, tuples of tensors, numbers, `None`.
        key: Cache key of the graph. Calls with different static shapes need different
            keys, because a shared graph would make those shapes dynamic.

    Returns:
        The result of the function.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.executing_eagerly():
            return _graph_of(function, key)(*args)
    return function(*args)


@functools.lru_cache(maxsize=32)
def _graph_of(function: Callable[..., Any], key: Hashable) -> Callable[..., Any]:
    """Return the function as a graph for the calls with one key."""
    import tensorflow as tf

    return tf.function(function, autograph=False, reduce_retracing=True)
