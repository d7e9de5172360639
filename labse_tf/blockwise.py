"""Loops over blocks of rows, for matrices that would not fit as a whole.

Everything here is `keras.ops` and runs on TensorFlow and JAX; TensorFlow is imported
where its memory needs a hand.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import Any

import keras
from keras import ops


def over_blocks(
    step: Callable[..., tuple[Any, ...]],
    state: tuple[Any, ...],
    size: Any,
    block_size: int | None,
) -> tuple[Any, ...]:
    """Runs `state = step(start, fresh, *state)` over blocks of rows, strictly in turn.

    All blocks have as many rows, since XLA and JAX know no others. So where
    `block_size` does not divide `size`, the last block begins early, with rows that
    the block before has had; `fresh` tells.

    Args:
        step: Takes the block's first row, an int32 scalar, and float32 `(rows,)`, 0
            for a row that an earlier block has had and 1 for all others. Returns
            tensors of the shapes of the state.
        state: Tensors.
        size: Rows in all; an int32 scalar where it is not static.
        block_size: Rows of a block; `None`: one block, without a loop.

    Returns:
        The last state.
    """
    if block_size is None:
        return step(0, ops.ones((size,), dtype="float32"), *state)
    static = isinstance(size, int)
    rows = min(block_size, size) if static else ops.minimum(block_size, size)

    def body(begin: Any, *state: Any) -> tuple[Any, ...]:
        start = ops.minimum(begin, size - rows)
        fresh = ops.cast(start + ops.arange(rows, dtype="int32") >= begin, "float32")
        return (begin + rows, *step(start, fresh, *state))

    loop: Callable[..., tuple[Any, ...]] = ops.while_loop
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # The blocks hardly depend on each other: TensorFlow would compute several at
        # once, and hold them all.
        loop = functools.partial(tf.while_loop, parallel_iterations=1)
    begin = ops.cast(0, "int32")
    _, *last = loop(lambda begin, *_: begin < size, body, (begin, *state))
    return tuple(last)


def cut_rows(matrix: Any, start: Any, rows: Any) -> Any:
    """Takes `rows` rows of a matrix, from `start` on: `(rows, D)`."""
    return ops.slice(matrix, (start, 0), (rows, matrix.shape[1]))


def empty_rows(shape: tuple[Any, ...]) -> Any:
    """Makes a float32 tensor to be filled by `write_rows`."""
    if uncompiled_tensorflow():
        import tensorflow as tf

        # Zeros would be folded into a constant, which the graph holds for ever and
        # which the first write would have to copy.
        return tf.raw_ops.Empty(shape=shape, dtype=tf.float32, init=False)
    return ops.zeros(shape, dtype="float32")


def write_rows(buffer: Any, start: Any, rows: Any) -> Any:
    """Puts rows into the buffer from `start` on; in place inside a graph."""
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
    """Tells whether TensorFlow's own kernels will run this; else XLA will, or JAX.

    XLA would hold all chunks of an unrolled loop at once and knows how to write in
    place; TensorFlow the other way round. Both ways run on both, so that a graph
    that XLA gets to see later only takes more memory.
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
