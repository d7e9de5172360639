"""Softmax over a vocabulary in chunks, for logits that do not fit into memory.

All functions use `keras.ops` and run on TensorFlow and JAX.

Shapes: P = predictions, D = hidden dimension, V = vocabulary.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from labse_tf.blockwise import (
    LogSumExp,
    cut_rows,
    empty_rows,
    outside_eager,
    over_blocks,
    write_rows,
)


def chunked_softmax_cross_entropy(
    hidden: Any, table: Any, bias: Any, labels: Any, *, chunk_size: int = 8192
) -> tuple[Any, Any]:
    """Return the cross-entropy and the predictions of a softmax over a vocabulary.

    The logits are `hidden @ table.T + bias`, computed for `chunk_size` entries at a
    time. The forward pass keeps the log-sum-exp and the best entry of each row. The
    backward pass computes the chunks again. Value and gradients equal those of the full
    softmax. The only buffer of the size of the table is its gradient, which is dense.

    Products have the type of `hidden`: bfloat16 states give logits rounded to bfloat16.
    Sums over the vocabulary and gradients of the table are float32.

    Args:
        hidden: Float `(P, D)`.
        table: float32 `(V, D)`, a tensor or a variable with static shape.
        bias: float32 `(V,)`.
        labels: Int `(P,)`, 0 to V - 1.
        chunk_size: Number of vocabulary entries at a time; need not divide V.

    Returns:
        The loss, float32 `(P,)`, NaN for a label out of range; and the entry with the
        largest logit (the first of equal entries), int32 `(P,)`.

    Raises:
        ValueError: If the shapes do not match, the shape of the table is not static, or
            `chunk_size` is not positive.

    Example:
        >>> import numpy as np
        >>> from labse_tf.vocabulary_softmax import chunked_softmax_cross_entropy
        >>> hidden, table = np.eye(2, 4), np.eye(3, 4)
        >>> loss, predicted = chunked_softmax_cross_entropy(
        ...     hidden, table, np.zeros(3), np.array([0, 2]), chunk_size=2
        ... )
        >>> [round(float(x), 3) for x in loss], [int(x) for x in predicted]
        ([0.551, 1.551], [0, 1])

    References:
        Milakov and Gimelshein, 2018, the running softmax
        (https://arxiv.org/abs/1805.02867); Wijmans et al., 2025, the loss without
        logits (https://arxiv.org/abs/2411.09009).
    """
    hidden = ops.convert_to_tensor(hidden)
    if not keras.backend.is_float_dtype(hidden.dtype) or _is_float64(hidden):
        hidden = ops.cast(hidden, "float32")
    table = ops.cast(ops.convert_to_tensor(table), "float32")
    bias = ops.cast(ops.convert_to_tensor(bias), "float32")
    labels = ops.cast(ops.convert_to_tensor(labels), "int32")
    _check_cross_entropy(hidden, table, bias, labels, chunk_size)

    @ops.custom_gradient
    def cross_entropy(hidden: Any, table: Any, bias: Any, labels: Any) -> Any:
        # A gradient tape would otherwise keep the intermediate results of all chunks.
        hidden, table, bias = map(ops.stop_gradient, (hidden, table, bias))
        loss, predicted, sums = outside_eager(
            _cross_entropy_forward,
            hidden,
            table,
            bias,
            labels,
            chunk_size,
            key=tuple(table.shape),
        )

        def gradient(*upstream: Any) -> tuple[Any, ...]:
            # TensorFlow passes one argument per output, JAX one tuple of all outputs.
            outer = keras.tree.flatten(upstream)[0]
            gradients = outside_eager(
                _cross_entropy_backward,
                hidden,
                table,
                bias,
                labels,
                sums,
                outer,
                chunk_size,
                key=tuple(table.shape),
            )
            return (*gradients, None)

        return (loss, predicted), gradient

    return cross_entropy(hidden, table, bias, labels)


def vocabulary_logits(hidden: Any, table: Any, bias: Any) -> Any:
    """Return the logits of some vocabulary entries, float32 `(P, rows)`.

    Args:
        hidden: Float `(P, D)`; the product is computed in this type.
        table: Float `(rows, D)`, the rows of the entries.
        bias: float32 `(rows,)`.
    """
    table = ops.cast(ops.convert_to_tensor(table), hidden.dtype)
    logits = ops.cast(ops.matmul(hidden, ops.transpose(table)), "float32")
    return logits + ops.convert_to_tensor(bias)


def _cross_entropy_forward(
    hidden: Any, table: Any, bias: Any, labels: Any, chunk_size: int
) -> tuple[Any, Any, LogSumExp]:
    """Return the loss, the best entry and the log-sum-exp, each `(P,)`."""
    size = table.shape[0]
    places = ops.arange(ops.shape(labels)[0], dtype="int32")

    def step(
        start: Any, rows: int, log_sum: LogSumExp, own: Any, best: Any
    ) -> tuple[Any, ...]:
        logits = vocabulary_logits(
            hidden, cut_rows(table, start, rows), cut_rows(bias, start, rows)
        )
        new = log_sum.add(logits)
        chunk_best = ops.cast(ops.argmax(logits, axis=1), "int32")
        best = ops.where(new.top > log_sum.top, chunk_best + start, best)
        column = labels - start
        here = ops.logical_and(column >= 0, column < rows)
        place = places * rows + ops.clip(column, 0, rows - 1)
        own = ops.where(here, ops.take(ops.reshape(logits, (-1,)), place), own)
        return new, own, best

    zeros = ops.zeros_like(labels, dtype="float32")
    state = (LogSumExp.of_nothing(labels), zeros, ops.zeros_like(labels))
    sums, own, best = over_blocks(step, state, size, chunk_size)
    known = ops.logical_and(labels >= 0, labels < size)
    return ops.where(known, sums.value() - own, float("nan")), best, sums


def _cross_entropy_backward(
    hidden: Any,
    table: Any,
    bias: Any,
    labels: Any,
    sums: LogSumExp,
    outer: Any,
    chunk_size: int,
) -> tuple[Any, Any, Any]:
    """Return the gradients of the inputs; `outer` is the gradient of the loss."""
    size, dim = table.shape

    def step(
        start: Any, rows: int, to_hidden: Any, to_table: Any, to_bias: Any
    ) -> tuple[Any, ...]:
        table_rows, bias_rows = (cut_rows(x, start, rows) for x in (table, bias))
        logits = vocabulary_logits(hidden, table_rows, bias_rows)
        # A label outside this chunk gives a row of zeros.
        shares = sums.shares(logits) - ops.one_hot(
            labels - start, rows, dtype="float32"
        )
        shares = shares * outer[:, None]  # (P, rows), gradient of the logits
        to_bias = write_rows(to_bias, start, ops.sum(shares, axis=0))
        shares = ops.cast(shares, hidden.dtype)
        part = ops.matmul(shares, ops.cast(table_rows, hidden.dtype))
        to_hidden = to_hidden + ops.cast(part, "float32")
        part = ops.matmul(ops.transpose(shares), hidden)
        to_table = write_rows(to_table, start, ops.cast(part, "float32"))
        return to_hidden, to_table, to_bias

    state = (
        ops.zeros_like(hidden, dtype="float32"),
        empty_rows((size, dim)),
        empty_rows((size,)),
    )
    to_hidden, to_table, to_bias = over_blocks(step, state, size, chunk_size)
    return ops.cast(to_hidden, hidden.dtype), to_table, to_bias


def _is_float64(x: Any) -> bool:
    """Return whether a tensor is float64, NumPy's default, which becomes float32."""
    return keras.backend.standardize_dtype(x.dtype) == "float64"


def _check_cross_entropy(
    hidden: Any, table: Any, bias: Any, labels: Any, chunk_size: int
) -> None:
    """Raise an error for shapes that do not match, or a wrong `chunk_size`."""
    if chunk_size < 1:
        raise ValueError(
            f"`chunk_size` must be positive. Received: chunk_size={chunk_size}"
        )
    shapes = {
        "hidden": tuple(hidden.shape),
        "table": tuple(table.shape),
        "bias": tuple(bias.shape),
        "labels": tuple(labels.shape),
    }
    fits = (
        [len(shape) for shape in shapes.values()] == [2, 2, 1, 1]
        and None not in shapes["table"]
        and shapes["table"][1] == shapes["hidden"][1]
        and shapes["table"][0] == shapes["bias"][0]
        and (
            None in (shapes["hidden"][0], shapes["labels"][0])
            or shapes["hidden"][0] == shapes["labels"][0]
        )
    )
    if not fits:
        raise ValueError(
            "Shapes do not match: expected `hidden` (P, D), `table` (V, D), static, "
            f"`bias` (V,) and `labels` (P,). Received: shapes {shapes}"
        )
