"""Gradient caching: training on batches whose activations do not fit into memory.

1. `encode_chunks` encodes the batch chunk by chunk and drops the activations.
2. The caller computes the loss of the whole batch and its gradient with respect to the
   vectors. In this step, the loss gathers the vectors of all replicas.
3. `chunk_gradients` encodes each chunk again, with the same dropout, and
   backpropagates its part of that gradient to the weights.

Memory holds the activations of one chunk. The cost is a second forward pass.

Shapes: B = pairs of a replica, C = pairs of a chunk, D = hidden dimension.

References:
    - Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited
      Setup", https://arxiv.org/abs/2101.06983
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from labse_tf.models.padding import Encode, token_lengths
from labse_tf.optimizers import sum_repeated_rows

SIDES = ("source", "target")


class Chunks:
    """The two sides of a batch, cut into chunks.

    Args:
        inputs: Dict with `source` and `target`, feature dicts of int32 `(B, T)`.
        size: C; the last chunk may be smaller.
        by_length: Whether to sort the sentences of each side by length first, and to
            cut each chunk to its longest sentence. T then varies between chunks.
    """

    def __init__(self, inputs: Mapping[str, Any], size: int, by_length: bool) -> None:
        import tensorflow as tf

        self._inputs, self._size, self._by_length = inputs, size, by_length
        mask = inputs["source"]["padding_mask"]
        self.static_batch = mask.shape[0]
        self.batch = self.static_batch or tf.shape(mask)[0]
        self._orders, self._lengths = {}, {}
        if by_length:
            self._lengths = {side: token_lengths(inputs[side]) for side in SIDES}
            self._orders = {
                side: tf.argsort(lengths, stable=True)
                for side, lengths in self._lengths.items()
            }

    @property
    def count(self) -> Any:
        """Number of chunks, an integer or an int32 scalar."""
        return -(-self.batch // self._size)

    def features(self, side: str, number: Any) -> dict[str, Any]:
        """Return the features of a chunk, `(C, T)`, given its index."""
        import tensorflow as tf

        features = self._inputs[side]
        if not self._by_length:
            return {name: self._cut(x, number) for name, x in features.items()}
        rows = self._cut(self._orders[side], number)
        longest = tf.reduce_max(tf.gather(self._lengths[side], rows))
        return {k: tf.gather(x[:, :longest], rows) for k, x in features.items()}

    def rows(self, side: str, matrix: Any, number: Any) -> Any:
        """Return the rows of a matrix `(B, D)` that belong to a chunk, `(C, D)`."""
        import tensorflow as tf

        if not self._by_length:
            return self._cut(matrix, number)
        return tf.gather(matrix, self._cut(self._orders[side], number))

    def joined(self, side: str, vectors: Any) -> Any:
        """Return the vectors of all chunks in the order of the batch, `(B, D)`."""
        import tensorflow as tf

        if self._by_length:
            vectors = tf.gather(vectors, tf.argsort(self._orders[side]))
        # With `tf.ensure_shape` instead, the shape would stay dynamic for XLA.
        return tf.reshape(vectors, (self.static_batch or -1, vectors.shape[1]))

    def _cut(self, values: Any, number: Any) -> Any:
        """Return a chunk of rows, of static size if that divides a static batch."""
        import tensorflow as tf

        start = number * self._size
        if self.static_batch is not None and self.static_batch % self._size == 0:
            # XLA needs static sizes, so -1 ("the rest") is used only for unknown sizes.
            rest = [-1 if size is None else size for size in values.shape[1:]]
            return tf.slice(values, [start] + [0] * len(rest), [self._size, *rest])
        return values[start : start + self._size]


def encode_chunks(
    encode: Encode, chunks: Chunks, random_states: list[Any]
) -> tuple[dict[str, Any], list[Any]]:
    """Encode a batch chunk by chunk.

    Args:
        encode: Function from features `(C, T)` to vectors `(C, D)`.
        chunks: The batch.
        random_states: Seed variables of the random layers; see `random_states`.

    Returns:
        Dict of float32 `(B, D)` per side; and one `tf.TensorArray` per random state,
        with its value before each chunk.
    """
    import tensorflow as tf

    def array(dtype: Any, shape: Any = None) -> Any:
        return tf.TensorArray(
            dtype, chunks.count, infer_shape=False, element_shape=shape
        )

    def step(number: Any, vectors: Any, states: Any) -> Any:
        states = [
            written.write(number, tf.identity(state.value))
            for written, state in zip(states, random_states, strict=True)
        ]
        encoded = [encode(chunks.features(side, number)) for side in SIDES]
        widths.append(encoded[0].shape[1])
        return (
            number + 1,
            [v.write(number, x) for v, x in zip(vectors, encoded, strict=True)],
            states,
        )

    widths: list[int] = []
    _, vectors, states = tf.while_loop(
        lambda number, *_: number < chunks.count,
        step,
        (
            tf.constant(0),
            [array(tf.float32) for _ in SIDES],
            [array(state.value.dtype, state.shape) for state in random_states],
        ),
        parallel_iterations=1,
    )
    joined = {}
    for side, written in zip(SIDES, vectors, strict=True):
        rows = tf.reshape(written.concat(), (chunks.static_batch or -1, widths[0]))
        joined[side] = chunks.joined(side, rows)
    return joined, states


def chunk_gradients(
    encode: Encode,
    chunks: Chunks,
    cached: Mapping[str, Any],
    variables: list[Any],
    random_states: list[Any],
    states: list[Any],
    *,
    sparse: bool = True,
) -> list[Any]:
    """Backpropagate the gradient of the vectors of a batch to the weights.

    Args:
        encode: See `encode_chunks`.
        chunks: The batch.
        cached: Gradient with respect to the vectors, `(B, D)` per side.
        variables: Variables to compute the gradients of.
        random_states: See `encode_chunks`.
        states: Random states before each chunk, from `encode_chunks`.
        sparse: Whether sparse gradients stay sparse. XLA needs `False`, because the
            number of rows of a sparse gradient is not static.

    Returns:
        One gradient per variable: a tensor, `tf.IndexedSlices` with distinct indices,
        or `None` if the vectors do not depend on the variable.
    """
    import tensorflow as tf

    def of_chunk(number: Any) -> list[Any]:
        for state, written in zip(random_states, states, strict=True):
            state.assign(written.read(number))
        with tf.GradientTape() as tape:
            vectors = [encode(chunks.features(side, number)) for side in SIDES]
        grads = tape.gradient(
            vectors,
            [variable.value for variable in variables],
            [chunks.rows(side, cached[side], number) for side in SIDES],
        )
        if sparse:
            return [sum_repeated_rows(gradient) for gradient in grads]
        return [None if g is None else tf.convert_to_tensor(g) for g in grads]

    # The first chunk shows which gradients exist and which of them are sparse.
    total = of_chunk(_number_after(0, cached))
    there = [place for place, gradient in enumerate(total) if gradient is not None]

    def step(number: Any, sums: Any) -> Any:
        grads = of_chunk(number)
        return number + 1, [
            _added(gradient, grads[place])
            for gradient, place in zip(sums, there, strict=True)
        ]

    sums = [total[place] for place in there]
    _, sums = tf.while_loop(
        lambda number, *_: number < chunks.count,
        step,
        (_number_after(1, sums), sums),
        shape_invariants=(tf.TensorShape([]), [_invariant(x) for x in sums]),
        parallel_iterations=1,
    )
    for place, gradient in zip(there, sums, strict=True):
        total[place] = gradient
    return total


def random_states(model: keras.Model) -> list[Any]:
    """Return the seed variables of the random layers of a Keras model.

    These are all distinct variables of the model that are not weights.
    """
    weights = {id(weight) for weight in model.weights}
    return [v for v in model.variables if id(v) not in weights]


def _number_after(number: int, values: Any) -> Any:
    """Return the index of a chunk, available only after `values` are computed.

    Otherwise a graph could start the chunk early and hold the activations of two
    chunks in memory.
    """
    import tensorflow as tf

    with tf.control_dependencies(tf.nest.flatten(values, expand_composites=True)):
        return tf.identity(tf.constant(number))


def _added(total: Any, more: Any) -> Any:
    """Return the sum of two gradients, both dense or both sparse."""
    import tensorflow as tf

    if not isinstance(total, tf.IndexedSlices):
        return total + more
    return sum_repeated_rows(
        tf.IndexedSlices(
            tf.concat([total.values, more.values], axis=0),
            tf.concat([total.indices, more.indices], axis=0),
            total.dense_shape,
        )
    )


def _invariant(gradient: Any) -> Any:
    """Return the loop invariant of a sum; a sparse sum may gain rows."""
    import tensorflow as tf

    if not isinstance(gradient, tf.IndexedSlices):
        return gradient.shape
    return tf.IndexedSlicesSpec(
        (None, *gradient.values.shape[1:]),
        gradient.values.dtype,
        gradient.indices.dtype,
        dense_shape_dtype=None
        if gradient.dense_shape is None
        else gradient.dense_shape.dtype,
        indices_shape=(None,),
    )
