"""BERT's transformer block in few and large matrix products.

Weights have the names and shapes of KerasHub's `TransformerEncoder`, so that presets,
checkpoints and optimizer slots fit both.

Shapes: B = batch, T = length in tokens, N = B * T, D = hidden dimension, H = heads,
K = D / H.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Any

import keras
from keras import ops

from labse_tf.adapters import LoRA
from labse_tf.cpu_kernels import add_and_normalize, dropout
from labse_tf.layers import get_activation
from labse_tf.models.low_rank import LowRankDense, LowRankLayer

# Added to the score of a masked token; the sum of two of these is finite in float32.
_HIDDEN = -1e9

# Names of the sublayers with a kernel.
_PROJECTIONS = ("query", "key", "value", "attention_output")
_DENSES = ("feedforward_intermediate_dense", "feedforward_output_dense")


class _Projection(LowRankLayer):
    """Dense layer on `(N, D)` whose weights are stored by heads."""

    def __init__(
        self,
        kernel_shape: tuple[int, ...],
        bias_shape: tuple[int, ...],
        kernel_initializer: keras.initializers.Initializer,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_shape, self.bias_shape = kernel_shape, bias_shape
        self.kernel_initializer = kernel_initializer

    def build(self, inputs_shape: Any) -> None:
        """Create the weights."""
        self.kernel = self.add_weight(
            name="kernel", shape=self.kernel_shape, initializer=self.kernel_initializer
        )
        self.bias = self.add_weight(
            name="bias", shape=self.bias_shape, initializer="zeros"
        )

    def call(self, rows: Any) -> Any:
        """Project rows with one matrix product: `(N, D)`."""
        width = rows.shape[-1]
        kernel = ops.reshape(self.kernel, (width, width))
        x = ops.matmul(rows, kernel) + ops.reshape(self.bias, (width,))
        return x if self.lora_scale is None else x + self.low_rank_product(rows)


class _SelfAttention(keras.layers.Layer):
    """Multi-head self-attention whose softmax is float32 in every compute type."""

    def __init__(
        self,
        num_heads: int,
        dropout: float,
        kernel_initializer: keras.initializers.Initializer,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.rate = dropout
        self.kernel_initializer = kernel_initializer

    def build(self, inputs_shape: Any) -> None:
        """Create the four projections and the dropout layer."""
        width = inputs_shape[-1]
        heads = (self.num_heads, width // self.num_heads)

        def projection(name: str, kernel_shape: Any, bias_shape: Any) -> _Projection:
            layer = _Projection(
                kernel_shape,
                bias_shape,
                self.kernel_initializer.clone(),
                dtype=self.dtype_policy,
                name=name,
            )
            layer.build((None, width))
            return layer

        self.query = projection("query", (width, *heads), heads)
        self.key = projection("key", (width, *heads), heads)
        self.value = projection("value", (width, *heads), heads)
        self.dropout = keras.layers.Dropout(self.rate, dtype=self.dtype_policy)
        self.attention_output = projection(
            "attention_output", (*heads, width), (width,)
        )

    def call(self, inputs: Any, bias: Any = None, training: bool | None = None) -> Any:
        """Return the attention output `(N, D)`; `bias` is added to the scores."""
        batch, length, width = ops.shape(inputs)
        heads, depth = self.num_heads, width // self.num_heads
        rows = ops.reshape(inputs, (-1, width))  # (N, D)

        def split(rows: Any) -> Any:
            x = ops.reshape(rows, (batch, length, heads, depth))
            return ops.transpose(x, (0, 2, 1, 3))  # (B, H, T, K)

        query, key, value = (
            split(project(rows)) for project in (self.query, self.key, self.value)
        )
        # In this order, TensorFlow fuses product, scale and bias into one kernel.
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) * depth**-0.5
        if bias is not None:
            scores = scores + ops.cast(bias, rows.dtype)  # (B, H, T, T)
        weights = ops.softmax(ops.cast(scores, "float32"))
        weights = ops.cast(weights, rows.dtype)
        if self.rate:
            weights = dropout(self.dropout, weights, training)
        x = ops.matmul(weights, value)  # (B, H, T, K)
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, width))
        return self.attention_output(x)


@keras.saving.register_keras_serializable(package="labse_tf")
class TransformerBlock(keras.layers.Layer):
    """Transformer block with layer normalization after each half, as in BERT.

    Args:
        intermediate_dim: Width of the feed-forward layer.
        num_heads: H; must divide the width of the inputs.
        dropout: Rate after attention weights, attention and feed-forward layer.
        activation: Activation of the feed-forward layer, by name; see
            `labse_tf.layers.get_activation`.
        layer_norm_epsilon: Epsilon of both layer normalizations.
        kernel_initializer: Initializer of all kernels; biases start at zero.
        **kwargs: `name`, `trainable`, `dtype`.

    Call arguments:
        inputs: Float `(B, T, D)`.
        padding_mask: Int or bool `(B, T)`, true for tokens and false for padding.
        attention_mask: Bool `(B, T, T)`, true where the query of a row may attend to
            the key of a column.
        training: Whether dropout is active.

    Returns:
        Float `(B, T, D)` of the compute type.

    Raises:
        ValueError: If `num_heads` does not divide the width of the inputs.

    References:
        Vaswani et al., 2017 (https://arxiv.org/abs/1706.03762); Devlin et al., 2019
        (https://arxiv.org/abs/1810.04805).
    """

    def __init__(
        self,
        intermediate_dim: int,
        num_heads: int,
        *,
        dropout: float = 0.0,
        activation: str = "gelu",
        layer_norm_epsilon: float = 1e-12,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.intermediate_dim = intermediate_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.activation = activation
        self.layer_norm_epsilon = layer_norm_epsilon
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(self, inputs_shape: Any) -> None:
        """Create the sublayers and their weights."""
        width = inputs_shape[-1]
        if width % self.num_heads:
            raise ValueError(
                "`num_heads` must divide the width of the inputs. Received: "
                f"num_heads={self.num_heads}, width={width}"
            )
        policy = self.dtype_policy

        def norm(name: str) -> keras.layers.LayerNormalization:
            layer = keras.layers.LayerNormalization(
                epsilon=self.layer_norm_epsilon, dtype=policy, name=name
            )
            layer.build(inputs_shape)
            return layer

        def dense(name: str, inputs: int, units: int, **kwargs: Any) -> Any:
            initializer = self.kernel_initializer.clone()
            layer = LowRankDense(
                units, kernel_initializer=initializer, dtype=policy, name=name, **kwargs
            )
            layer.build((None, inputs))
            return layer

        def drop(name: str) -> keras.layers.Dropout:
            return keras.layers.Dropout(self.dropout, dtype=policy, name=name)

        self.self_attention_layer = _SelfAttention(
            self.num_heads,
            self.dropout,
            self.kernel_initializer.clone(),
            dtype=policy,
            name="self_attention_layer",
        )
        self.self_attention_layer.build(inputs_shape)
        self.self_attention_layer_norm = norm("self_attention_layer_norm")
        self.self_attention_dropout = drop("self_attention_dropout")
        self.feedforward_layer_norm = norm("feedforward_layer_norm")
        self.feedforward_intermediate_dense = dense(
            "feedforward_intermediate_dense",
            width,
            self.intermediate_dim,
            activation=get_activation(self.activation),
        )
        self.feedforward_output_dense = dense(
            "feedforward_output_dense", self.intermediate_dim, width
        )
        self.feedforward_dropout = drop("feedforward_dropout")

    def call(
        self,
        inputs: Any,
        padding_mask: Any = None,
        attention_mask: Any = None,
        training: bool | None = None,
    ) -> Any:
        """Apply the block; see the class."""
        rows = ops.reshape(inputs, (-1, inputs.shape[-1]))  # (N, D)
        x = self.self_attention_layer(
            inputs, _bias(padding_mask, attention_mask), training=training
        )
        x = add_and_normalize(
            x,
            rows,
            self.self_attention_dropout,
            self.self_attention_layer_norm,
            training,
        )
        y = self.feedforward_output_dense(self.feedforward_intermediate_dense(x))
        x = add_and_normalize(
            y, x, self.feedforward_dropout, self.feedforward_layer_norm, training
        )
        return ops.reshape(x, ops.shape(inputs))

    def enable_lora(self, lora: LoRA) -> None:
        """Add low-rank weights to the layers that `lora` names, which are frozen."""
        attention = self.self_attention_layer
        # So that the paths of the new weights begin like those of the kernels.
        with keras.name_scope(self.name):
            for scope, names in (
                (keras.name_scope(attention.name), _PROJECTIONS),
                (contextlib.nullcontext(), _DENSES),
            ):
                with scope:
                    for name in names:
                        if name in lora.target_layer_names:
                            self._layer(name).enable_lora(lora.rank, lora.alpha)

    def kernel_layers(self, names: Collection[str]) -> list[LowRankLayer]:
        """Return the layers of the given names, in the order of their computation."""
        return [self._layer(n) for n in _PROJECTIONS + _DENSES if n in names]

    def _layer(self, name: str) -> LowRankLayer:
        owner = self.self_attention_layer if name in _PROJECTIONS else self
        return getattr(owner, name)

    def compute_output_spec(
        self,
        inputs: Any,
        padding_mask: Any = None,
        attention_mask: Any = None,
        training: bool | None = None,
    ) -> keras.KerasTensor:
        """Return the shape of the inputs, in the compute type."""
        return keras.KerasTensor(inputs.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "intermediate_dim": self.intermediate_dim,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "activation": self.activation,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def _bias(padding_mask: Any, attention_mask: Any) -> Any:
    """Return the bias of the scores, `(B, 1, 1 or T, T)`, or `None` without masks."""
    allowed = None
    if padding_mask is not None:
        allowed = ops.cast(padding_mask, "bool")[:, None, None, :]
    if attention_mask is not None:
        seen = ops.cast(attention_mask, "bool")[:, None]
        allowed = seen if allowed is None else ops.logical_and(allowed, seen)
    return None if allowed is None else ops.where(allowed, 0.0, _HIDDEN)
