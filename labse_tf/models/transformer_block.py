"""A transformer block: KerasHub's, computed in fewer and larger matrix products.

Shapes: B rows, T tokens, D width, H heads, K = D / H.
"""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
from keras import ops

from labse_tf.cpu_kernels import add_and_normalize, dropout

# What is added to a score that must not count; float32 holds it, and two of them.
_HIDDEN = -1e9


@keras.saving.register_keras_serializable(package="labse_tf")
class TransformerBlock(keras_hub.layers.TransformerEncoder):
    """A post-norm transformer block with KerasHub's variables and faster arithmetic.

    Queries, keys and values come of one product of the tokens as a matrix `(B * T, D)`,
    which processors do better than a contraction each of three dimensions; the softmax
    is float32 whatever the compute type is.

    Args:
        *args: As `keras_hub.layers.TransformerEncoder` takes them.
        **kwargs: The same.

    Call arguments:
        inputs: `(B, T, D)`.
        padding_mask: Int or bool `(B, T)`: the tokens that are there.
        attention_mask: Bool `(B, T, T)`: what each token may attend to.
        training: Whether dropout is on.

    Returns:
        `(B, T, D)`.

    Raises:
        ValueError: If `normalize_first` is set.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.normalize_first:
            raise ValueError(
                "`normalize_first` must be False: BERT's blocks normalise last. "
                f"Received: normalize_first={self.normalize_first}"
            )

    def call(
        self,
        inputs: Any,
        padding_mask: Any = None,
        attention_mask: Any = None,
        training: bool | None = None,
    ) -> Any:
        """See the class."""
        width = inputs.shape[-1]
        rows = ops.reshape(inputs, (-1, width))  # (B * T, D)
        x = self._attend(inputs, rows, _bias(padding_mask, attention_mask), training)
        x = add_and_normalize(
            x,
            rows,
            self._self_attention_dropout,
            self._self_attention_layer_norm,
            training,
        )
        y = self._feedforward_intermediate_dense(x)
        y = self._feedforward_output_dense(y)
        x = add_and_normalize(
            y, x, self._feedforward_dropout, self._feedforward_layer_norm, training
        )
        return ops.reshape(x, ops.shape(inputs))

    def _attend(self, inputs: Any, rows: Any, bias: Any, training: bool | None) -> Any:
        """Self-attention: `(B * T, D)`."""
        attention = self._self_attention_layer
        batch, length, width = ops.shape(inputs)
        heads, depth = self.num_heads, width // self.num_heads

        def project(dense: keras.layers.EinsumDense) -> Any:
            kernel = ops.cast(ops.reshape(dense.kernel, (width, width)), rows.dtype)
            bias = ops.cast(ops.reshape(dense.bias, (width,)), rows.dtype)
            x = ops.matmul(rows, kernel) + bias
            x = ops.reshape(x, (batch, length, heads, depth))
            return ops.transpose(x, (0, 2, 1, 3))  # (B, H, T, K)

        query = project(attention.query_dense)
        key = project(attention.key_dense)
        value = project(attention.value_dense)
        # Product, scale and bias, in this order, are one kernel of TensorFlow's.
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * depth**-0.5
        if bias is not None:
            scores = scores + ops.cast(bias, rows.dtype)  # (B, H, T, T)
        scores = ops.cast(scores, "float32")
        weights = ops.cast(ops.softmax(scores), rows.dtype)
        if self.dropout:
            weights = dropout(attention._dropout_layer, weights, training)
        x = ops.matmul(weights, value)  # (B, H, T, K)
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, width))
        output = attention.output_dense
        kernel = ops.cast(ops.reshape(output.kernel, (width, width)), rows.dtype)
        return ops.matmul(x, kernel) + ops.cast(output.bias, rows.dtype)


def _bias(padding_mask: Any, attention_mask: Any) -> Any:
    """What is added to the scores, `(B, 1, 1 or T, T)`; `None` for nothing."""
    allowed = None
    if padding_mask is not None:
        allowed = ops.cast(padding_mask, "bool")[:, None, None, :]
    if attention_mask is not None:
        seen = ops.cast(attention_mask, "bool")[:, None]
        allowed = seen if allowed is None else ops.logical_and(allowed, seen)
    return None if allowed is None else ops.where(allowed, 0.0, _HIDDEN)
