"""One loop over blocks of rows, for matrices that would not fit into memory as a whole.

`over_blocks` is the loop, `LogSumExp` a softmax's denominator that is accumulated in
it. Both are `keras.ops` and run on TensorFlow and JAX; TensorFlow is imported only for
control over its memory.
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
    """Runs `state = step(start, rows, *state)` over blocks of rows, strictly in turn.

    All blocks have `block_size` rows but the last one, which has what is left. The
    shapes inside a loop are therefore static, as XLA and JAX require.

    Args:
        step: Called with the first row of the block, an int32 scalar, and the number
            of its rows. Returns tensors with the shapes of the state.
        state: Tensors, or named tuples of tensors.
        size: Number of rows; an int32 scalar where it is not static.
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
        # XLA compiles the loop also where all rows fit into one block. The last block
        # is never in the loop: its rows may be fewer.
        rows = ops.clip(size, 1, block_size)
        full = ops.maximum(size - 1, 0) // rows * rows
    if not static or full:
        loop: Callable[..., tuple[Any, ...]] = ops.while_loop
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # The blocks hardly depend on each other: TensorFlow would compute several
            # at once, and hold all of them in memory.
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
    """Inside, TensorFlow computes nothing before the state is there."""
    if keras.backend.backend() != "tensorflow":
        return nullcontext()
    import tensorflow as tf

    return tf.control_dependencies(keras.tree.flatten(state))


class LogSumExp(NamedTuple):
    """The log-sum-exp of each row of a matrix of which only blocks of columns exist.

    Attributes:
        top: Largest number of each row so far, float32 `(n,)`.
        total: Sum of the exponentials of the numbers less `top`, float32 `(n,)`.

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
        """Returns the start, for as many rows as the tensor `like` has: `(n,)`."""
        zeros = ops.zeros_like(like, dtype="float32")
        return cls(ops.full_like(zeros, -3.0e38), zeros)

    def add(self, logits: Any) -> LogSumExp:
        """Returns the sum that includes a block of columns, float32 `(n, rows)`."""
        top = ops.maximum(self.top, ops.max(logits, axis=1))
        # The largest exponent is 0, whatever the logits.
        part = ops.sum(ops.exp(logits - top[:, None]), axis=1)
        return LogSumExp(top, self.total * ops.exp(self.top - top) + part)

    def shares(self, logits: Any) -> Any:
        """Returns the softmax of a block of columns, float32 `(n, rows)`."""
        # More exact than less the log-sum-exp, whose last bits large logits displace.
        return ops.exp(logits - self.top[:, None]) * (1 / self.total)[:, None]

    def value(self) -> Any:
        """Returns the log-sum-exp, float32 `(n,)`."""
        return self.top + ops.log(self.total)


def cut_rows(tensor: Any, start: Any, rows: Any) -> Any:
    """Returns the `rows` rows of a tensor from `start` on."""
    rest = tuple(tensor.shape[1:])
    return ops.slice(tensor, (start, *(0 for _ in rest)), (rows, *rest))


def empty_rows(shape: tuple[Any, ...]) -> Any:
    """Returns a float32 tensor to be filled by `write_rows`."""
    if uncompiled_tensorflow():
        import tensorflow as tf

        # Zeros would be folded into a constant, which the graph holds for ever and
        # which the first write would have to copy.
        return tf.raw_ops.Empty(shape=shape, dtype=tf.float32, init=False)
    return ops.zeros(shape, dtype="float32")


def write_rows(buffer: Any, start: Any, rows: Any) -> Any:
    """Writes rows into a buffer from `start` on; in place inside a graph."""
    if uncompiled_tensorflow():
        import tensorflow as tf

        # On the CPU the kernels behind `tf.tensor_scatter_nd_update` and
        # `ops.slice_update` copy the whole buffer at each write; this one does not.
        return tf.raw_ops.TensorStridedSliceUpdate(
            input=buffer,
            begin=[start],
            end=[start + ops.shape(rows)[0]],
            strides=[1],
            value=rows,
        )
    return ops.slice_update(buffer, (start,) + (0,) * (len(rows.shape) - 1), rows)


def uncompiled_tensorflow() -> bool:
    """Tells whether TensorFlow's own kernels run this, and not XLA or JAX.

    Code for either also runs on the other, so that a graph that is compiled by XLA
    after it was traced only takes more memory.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    # No public name tells that a graph is traced for `jit_compile=True` or a TPU.
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    return not control_flow_util.GraphOrParentsInXlaContext(graph)


def outside_eager(
    function: Callable[..., Any], *args: Any, key: Hashable = None
) -> Any:
    """Calls a function, as a graph where TensorFlow runs eagerly.

    Eagerly, each write would copy the buffer, which the caller still holds.

    Args:
        function: Of a module, so that its graphs are found again.
        *args: Tensors, tuples of tensors, numbers, `None`.
        key: Calls of different keys have different graphs. One graph for all would
            forget the static shapes that are not the same in all.

    Returns:
        What the function returns.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.executing_eagerly():
            return _graph_of(function, key)(*args)
    return function(*args)


@functools.lru_cache(maxsize=32)
def _graph_of(function: Callable[..., Any], key: Hashable) -> Callable[..., Any]:
    """The function, to be traced for the calls of one key."""
    import tensorflow as tf

    return tf.function(function, autograph=False, reduce_retracing=True)
