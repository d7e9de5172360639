"""The softmax over a vocabulary whose logits would not fit into memory.

Shapes: P = predictions, D = hidden dimension, V = vocabulary. Everything here is
`keras.ops` and runs on TensorFlow and JAX.
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
    """Softmax cross-entropy over a vocabulary whose logits would not fit.

    The logits are `hidden @ table.T + bias`. They exist for `chunk_size` entries at
    a time: the forward pass keeps each row's running maximum, sum and best entry,
    the backward pass computes the chunks again. Value and gradients are those of
    the full softmax. Of the table's size there is one buffer, its gradient, dense
    and written chunk by chunk.

    The products are of the type of `hidden`, so bfloat16 states give logits rounded
    to bfloat16; sums over the vocabulary and gradients of the table are float32.

    Args:
        hidden: float `(P, D)`.
        table: float32 `(V, D)`; V must be static. A tensor or a variable.
        bias: float32 `(V,)`.
        labels: int `(P,)`, 0 to V - 1.
        chunk_size: Entries of the vocabulary at a time. V need be no multiple.

    Returns:
        The loss, float32 `(P,)`, not a number where the label is no entry; and the
        entry with the largest logit (the first of equals), int32 `(P,)`.

    Raises:
        ValueError: If the shapes do not fit together, V is not static or
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
        # A tape that sees what happens here would keep all chunks for itself.
        hidden, table, bias = map(ops.stop_gradient, (hidden, table, bias))
        loss, predicted, log_sum = outside_eager(
            _cross_entropy_forward,
            hidden,
            table,
            bias,
            labels,
            chunk_size,
            key=tuple(table.shape),
        )

        def gradient(*upstream: Any) -> tuple[Any, ...]:
            # TensorFlow gives one argument an output, JAX one with all outputs.
            outer = keras.tree.flatten(upstream)[0]
            gradients = outside_eager(
                _cross_entropy_backward,
                hidden,
                table,
                bias,
                labels,
                log_sum,
                outer,
                chunk_size,
                key=tuple(table.shape),
            )
            return (*gradients, None)

        return (loss, predicted), gradient

    return cross_entropy(hidden, table, bias, labels)


def vocabulary_logits(hidden: Any, table: Any, bias: Any) -> Any:
    """Computes the logits of some entries of the vocabulary.

    Args:
        hidden: Float `(P, D)`, in whose type the product is computed.
        table: Float `(rows, D)`, the entries.
        bias: Float32 `(rows,)`.

    Returns:
        Float32 `(P, rows)`.
    """
    table = ops.cast(ops.convert_to_tensor(table), hidden.dtype)
    logits = ops.cast(ops.matmul(hidden, ops.transpose(table)), "float32")
    return logits + ops.convert_to_tensor(bias)


def _cross_entropy_forward(
    hidden: Any, table: Any, bias: Any, labels: Any, chunk_size: int
) -> tuple[Any, Any, Any]:
    """Loss, best entry and log of the softmax's denominator, each `(P,)`."""
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
    log_sum, own, best = over_blocks(step, state, size, chunk_size)
    log_sum = log_sum.value()
    known = ops.logical_and(labels >= 0, labels < size)
    return ops.where(known, log_sum - own, float("nan")), best, log_sum


def _cross_entropy_backward(
    hidden: Any,
    table: Any,
    bias: Any,
    labels: Any,
    log_sum: Any,
    outer: Any,
    chunk_size: int,
) -> tuple[Any, Any, Any]:
    """Gradients of `hidden`, `table` and `bias`, given that of the loss `(P,)`."""
    size, dim = table.shape

    def step(
        start: Any, rows: int, to_hidden: Any, to_table: Any, to_bias: Any
    ) -> tuple[Any, ...]:
        table_rows, bias_rows = (cut_rows(x, start, rows) for x in (table, bias))
        logits = vocabulary_logits(hidden, table_rows, bias_rows)
        shares = ops.exp(logits - log_sum[:, None])
        # A label of another chunk is a row of zeros.
        shares = shares - ops.one_hot(labels - start, rows, dtype="float32")
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
    """Whether a tensor is of NumPy's float type, which nothing here is meant for."""
    return keras.backend.standardize_dtype(x.dtype) == "float64"


def _check_cross_entropy(
    hidden: Any, table: Any, bias: Any, labels: Any, chunk_size: int
) -> None:
    """Refuses shapes that do not fit together."""
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
            "Expected hidden (P, D), table (V, D) with V and D static, bias (V,) and "
            f"labels (P,). Received: shapes {shapes}"
        )
