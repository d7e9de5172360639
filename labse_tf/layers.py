"""Layers: packed attention, sentence pooling, a masked-LM head with chunked logits.

All layers use `keras.ops` and run on TensorFlow and JAX.

Shapes: B = batch, T = length in tokens, D = hidden dimension, V = vocabulary,
R = packed rows, P = predictions per row.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from labse_tf.cpu_kernels import gelu, has_norm_kernel, norm_kernel
from labse_tf.precision import compute_policy
from labse_tf.settings import check_integer
from labse_tf.vocabulary_softmax import chunked_softmax_cross_entropy, vocabulary_logits

# The poolings of a `LaBSE`, and those that only other encoders have.
POOLINGS = ("pooler", "cls", "mean", "weighted_mean")
_FURTHER_POOLINGS = ("max", "last")


@keras.saving.register_keras_serializable(package="labse_tf")
class LayerNormalization(keras.layers.LayerNormalization):
    """Layer normalization over the last axis, with the CPU kernel inside `cpu_kernels`.

    See `labse_tf.cpu_kernels.cpu_kernels`.
    """

    def call(self, inputs: Any) -> Any:
        """Normalize over the last axis."""
        if has_norm_kernel(inputs):
            return norm_kernel(self, inputs)
        return super().call(inputs)


@keras.saving.register_keras_serializable(package="labse_tf")
class PackedAttentionMask(keras.layers.Layer):
    """Mask that lets a token attend only to its own sequence in a packed row.

    Without `sequence_ids`, each row is one sequence. The mask is then `None`, and the
    padding mask, which is smaller by a factor of T, is sufficient.

    Call arguments:
        padding_mask: Int `(B, T)`, 1 for a token and 0 for padding.
        sequence_ids: Int `(B, T)` or `None`; tokens of one sequence have the same id.

    Returns:
        Bool `(B, T, T)`, true where the query of a row may attend to the key of a
        column; or `None`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # A backbone without blocks never calls this layer, and Keras would warn that it
        # is not built.
        self.built = True

    def call(self, padding_mask: Any, sequence_ids: Any | None = None) -> Any | None:
        """Return the mask; see the class."""
        if sequence_ids is None:
            return None
        same = ops.equal(
            ops.expand_dims(sequence_ids, 2), ops.expand_dims(sequence_ids, 1)
        )  # (B, T, T)
        real = ops.cast(ops.expand_dims(padding_mask, 1), "bool")  # (B, 1, T)
        return ops.logical_and(same, real)

    def compute_output_spec(
        self, padding_mask: Any, sequence_ids: Any | None = None
    ) -> keras.KerasTensor:
        """Return the shape of the mask, which the symbolic graph always contains."""
        batch, length = padding_mask.shape
        return keras.KerasTensor((batch, length, length), dtype="bool")


@keras.saving.register_keras_serializable(package="labse_tf")
class SentencePooling(keras.layers.Layer):
    """Pooling of the encoder's outputs into one unit vector per sentence.

    Args:
        pooling: One of six poolings.
            `"pooler"`: dense + tanh on [CLS], as in the released LaBSE weights.
            `"cls"`: [CLS] of the last layer, as described in the paper (section 2).
            `"mean"`: mean over all tokens except padding. It includes [CLS] and [SEP],
            so that an empty text also has a vector.
            `"weighted_mean"` (ours): mean with a learned weight `exp(w)` per vocabulary
            entry, initially 1. Layer normalization gives all token vectors the same
            length, so a model without attention needs these weights to make frequent
            words such as "the" count less.
            `"max"`: maximum over all tokens except padding, for each component.
            `"last"`: last token that is not padding, for decoders.
        vocabulary_size: V, for `"weighted_mean"` only.
        **kwargs: `name` and other arguments of `keras.layers.Layer`.

    Call arguments:
        sequence_output: Float `(B, T, D)`.
        pooled_output: Float `(B, D)`, for `"pooler"` only.
        padding_mask: Int `(B, T)`.
        token_ids: Int `(B, T)`, for `"weighted_mean"` only.

    Returns:
        float32 `(B, D)`, unit length, for any compute type.

    Raises:
        ValueError: If `pooling` is unknown, or `vocabulary_size` is not a positive
            integer for `"weighted_mean"`.

    References:
        Feng et al., 2022, section 2 (https://arxiv.org/abs/2007.01852).
    """

    def __init__(
        self,
        pooling: str = "pooler",
        *,
        vocabulary_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        known = (*POOLINGS, *_FURTHER_POOLINGS)
        if pooling not in known:
            raise ValueError(
                f"`pooling` must be one of {known}. Received: pooling={pooling!r}"
            )
        weighted = pooling == "weighted_mean"
        if weighted:
            check_integer("vocabulary_size", vocabulary_size, smallest=1)
        self.pooling = pooling
        self.vocabulary_size = vocabulary_size if weighted else None
        if self.vocabulary_size is not None:
            # The gradient of an embedding has only the rows that are in the batch.
            self.token_weights = keras.layers.Embedding(
                self.vocabulary_size,
                1,
                embeddings_initializer="zeros",
                dtype="float32",
                name="token_weights",
            )
            self.token_weights.build((None,))

    def call(
        self,
        sequence_output: Any,
        pooled_output: Any,
        padding_mask: Any,
        token_ids: Any | None = None,
    ) -> Any:
        """Pool and normalize; see the class."""
        # The sum has the same direction as the mean.
        vectors, _ = self.pool(sequence_output, pooled_output, padding_mask, token_ids)
        return l2_normalize(vectors)

    def pool(
        self,
        sequence_output: Any,
        pooled_output: Any,
        padding_mask: Any,
        token_ids: Any | None = None,
    ) -> tuple[Any, Any | None]:
        """Pool without normalization; see the class for the arguments.

        Returns:
            float32 `(B, D)`, for the means the weighted sum of the tokens; and its
            weights, float32 `(B, T, 1)`, or `None` for the other poolings.
        """
        if self.pooling == "pooler":
            return ops.cast(pooled_output, "float32"), None
        if self.pooling == "cls":
            return ops.cast(sequence_output[:, 0, :], "float32"), None
        states = ops.cast(sequence_output, "float32")
        if self.pooling == "max":
            real = ops.cast(padding_mask, "bool")[:, :, None]
            return ops.max(ops.where(real, states, -math.inf), axis=1), None
        if self.pooling == "last":
            padding_mask = _last_only(padding_mask)
        weights = ops.cast(padding_mask, "float32")[:, :, None]  # (B, T, 1)
        if self.pooling == "weighted_mean":
            weights = weights * ops.exp(self.token_weights(token_ids))
        return ops.sum(states * weights, axis=1), weights

    def compute_output_spec(
        self,
        sequence_output: Any,
        pooled_output: Any,
        padding_mask: Any,
        token_ids: Any | None = None,
    ) -> keras.KerasTensor:
        """Return the shape and type of the vectors, float32 `(B, D)`."""
        shape = sequence_output.shape[:1] + sequence_output.shape[2:]
        if self.pooling == "pooler":
            shape = pooled_output.shape
        return keras.KerasTensor(shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "pooling": self.pooling,
            "vocabulary_size": self.vocabulary_size,
        }


def _last_only(padding_mask: Any) -> Any:
    """Return the mask of the last token of each row, bool `(B, T)`."""
    mask = ops.cast(padding_mask, "int32")
    numbers = mask * ops.arange(1, ops.shape(mask)[1] + 1, dtype="int32")
    last = ops.max(numbers, axis=1, keepdims=True)
    return ops.logical_and(numbers == last, numbers > 0)


def l2_normalize(vectors: Any) -> Any:
    """Scale rows to length 1, `(..., D)` -> `(..., D)`.

    A row of zeros stays zero, and its gradient is finite.

    Example:
        >>> import numpy as np
        >>> from labse_tf.layers import l2_normalize
        >>> vectors = np.array([[3.0, 4.0]], dtype="float32")
        >>> [round(float(x), 4) for x in l2_normalize(vectors)[0]]
        [0.6, 0.8]
    """
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(squares, 1e-24))


@keras.saving.register_keras_serializable(package="labse_tf")
def gelu_approximate(x: Any) -> Any:
    """Return the tanh approximation of GELU, as in the official BERT code.

    Values differ from the exact GELU, `activation="gelu"`, by up to 5e-4.
    """
    return keras.activations.gelu(x, approximate=True)


def get_activation(name: str) -> Callable[[Any], Any]:
    """Return an activation function by name.

    Args:
        name: `"gelu"` for the exact GELU, `"gelu_approximate"` for the tanh
            approximation of the official BERT code, or a name known to Keras.

    Raises:
        ValueError: If the name is unknown.
    """
    if name == "gelu_approximate":
        return gelu_approximate
    if not isinstance(name, str):
        raise ValueError(
            f"`name` must be the name of an activation. Received: {name!r}"
        )
    return gelu if name == "gelu" else keras.activations.get(name)


@keras.saving.register_keras_serializable(package="labse_tf")
class MaskedLMHead(keras.layers.Layer):
    """BERT's masked-language-model head, with the logits in chunks.

    The hidden state of each masked position passes through a dense layer with
    activation and through layer normalization. The logits are its products with the
    token table, plus a bias. The table is tied: it gets gradients both as input
    embedding and here. `chunked_softmax_cross_entropy` never holds all logits.

    The table is an argument of the call, so that the head does not depend on a
    backbone: progressive stacking uses one head in all stages.

    Args:
        vocabulary_size: V, rows of the token table.
        hidden_dim: D.
        activation: Activation of the dense layer; usually that of the backbone.
        layer_norm_epsilon: Epsilon of the layer normalization.
        initializer_range: Standard deviation of the truncated normal initializer.
        chunk_size: Number of vocabulary entries at a time. Besides the table and its
            gradient, memory is a few times R x P x `chunk_size` x 4 bytes.
        dtype: Compute type; variables, sums and loss are always float32.
        **kwargs: `name`, `trainable`.

    Call arguments:
        sequence_output: Float `(R, T, D)`.
        mask_positions: Int `(R, P)`, position of each prediction in its row.
        mask_ids: Int `(R, P)`, token to predict; 0 to V - 1 even where
            `mask_weights` is 0.
        table: Float `(V, D)`, such as `backbone.token_embedding.embeddings`.
        mask_weights: Float `(R, P)`, 1 for a prediction and 0 for padding; `None`
            for 1 everywhere.

    Returns:
        Dict of float32 `(R, P)`: `loss`, the cross-entropy, and `correct`, 1 where
        the masked token has the largest logit; both multiplied by `mask_weights`.

    Raises:
        ValueError: If a size is not a positive integer, or if the table in a call is
            not `(V, D)`.

    Example:
        >>> import numpy as np
        >>> from labse_tf.layers import MaskedLMHead
        >>> head = MaskedLMHead(vocabulary_size=50, hidden_dim=4)
        >>> states, table = np.ones((1, 8, 4)), np.zeros((50, 4))
        >>> outputs = head(states, np.array([[1, 5]]), np.array([[7, 9]]), table)
        >>> [round(float(x), 3) for x in outputs["loss"][0]]  # log(50)
        [3.912, 3.912]

    References:
        Devlin et al., 2019 (https://arxiv.org/abs/1810.04805), `get_masked_lm_output`
        of https://github.com/google-research/bert; Press and Wolf, 2017
        (https://arxiv.org/abs/1608.05859).
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_dim: int,
        *,
        activation: str = "gelu",
        layer_norm_epsilon: float = 1e-12,
        initializer_range: float = 0.02,
        chunk_size: int = 8192,
        dtype: str | keras.DTypePolicy | None = None,
        **kwargs: Any,
    ) -> None:
        # Autocasting would copy the whole table to the compute type.
        super().__init__(dtype=compute_policy(dtype), autocast=False, **kwargs)
        for name, size in {
            "vocabulary_size": vocabulary_size,
            "hidden_dim": hidden_dim,
            "chunk_size": chunk_size,
        }.items():
            check_integer(name, size, smallest=1)
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim
        self.activation = activation
        self.layer_norm_epsilon = layer_norm_epsilon
        self.initializer_range = initializer_range
        self.chunk_size = chunk_size
        self.transform_dense = keras.layers.Dense(
            hidden_dim,
            activation=get_activation(activation),
            kernel_initializer=keras.initializers.TruncatedNormal(
                stddev=initializer_range
            ),
            dtype=self.dtype_policy,
            name="transform_dense",
        )
        self.transform_layer_norm = keras.layers.LayerNormalization(
            epsilon=layer_norm_epsilon,
            dtype=self.dtype_policy,
            name="transform_layer_norm",
        )
        self.build()

    def build(self) -> None:
        """Create the weights; the constructor calls this."""
        if self.built:
            return
        shape = (None, self.hidden_dim)
        self.transform_dense.build(shape)
        self.transform_layer_norm.build(shape)
        # The optimizer excludes weights named `bias` from weight decay.
        self.output_bias = self.add_weight(
            name="bias",
            shape=(self.vocabulary_size,),
            initializer="zeros",
            dtype="float32",
            autocast=False,
        )

    def call(
        self,
        sequence_output: Any,
        mask_positions: Any,
        mask_ids: Any,
        table: Any,
        mask_weights: Any | None = None,
    ) -> dict[str, Any]:
        """Predict the masked tokens; see the class."""
        self._check_table(table)
        shape = ops.shape(mask_ids)
        labels = ops.reshape(ops.cast(mask_ids, "int32"), (-1,))
        loss, predicted = chunked_softmax_cross_entropy(
            self.transform(sequence_output, mask_positions),
            table,
            self.output_bias,
            labels,
            chunk_size=self.chunk_size,
        )
        outputs = {
            "loss": loss,
            "correct": ops.cast(ops.equal(predicted, labels), "float32"),
        }
        outputs = {name: ops.reshape(x, shape) for name, x in outputs.items()}
        if mask_weights is not None:
            weights = ops.cast(mask_weights, "float32")
            outputs = {name: x * weights for name, x in outputs.items()}
        return outputs

    def transform(self, sequence_output: Any, mask_positions: Any) -> Any:
        """Return the transformed hidden states of the masked positions, `(R * P, D)`.

        The logits are their products with the table, plus the bias.
        """
        rows, length = ops.shape(sequence_output)[:2]
        first = ops.expand_dims(ops.arange(rows, dtype="int32") * length, 1)
        index = ops.reshape(ops.cast(mask_positions, "int32") + first, (-1,))
        states = ops.reshape(sequence_output, (-1, self.hidden_dim))  # (R * T, D)
        states = ops.take(states, index, axis=0)  # (R * P, D)
        return self.transform_layer_norm(self.transform_dense(states))

    def logits(self, sequence_output: Any, mask_positions: Any, table: Any) -> Any:
        """Return all logits, float32 `(R, P, V)`, to inspect a few predictions.

        See the class for the arguments.

        Raises:
            ValueError: If the table is not `(V, D)`.
        """
        self._check_table(table)
        hidden = self.transform(
            ops.convert_to_tensor(sequence_output),
            ops.convert_to_tensor(mask_positions),
        )
        scores = vocabulary_logits(hidden, table, self.output_bias)
        shape = (*ops.shape(mask_positions), self.vocabulary_size)
        return ops.reshape(scores, shape)

    def compute_output_spec(
        self,
        sequence_output: Any,
        mask_positions: Any,
        mask_ids: Any,
        table: Any,
        mask_weights: Any | None = None,
    ) -> dict[str, keras.KerasTensor]:
        """Return the shape and type of `loss` and `correct`, float32 `(R, P)`."""
        return {
            name: keras.KerasTensor(mask_ids.shape, dtype="float32")
            for name in ("loss", "correct")
        }

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "hidden_dim": self.hidden_dim,
            "activation": self.activation,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "initializer_range": self.initializer_range,
            "chunk_size": self.chunk_size,
        }

    def _check_table(self, table: Any) -> None:
        """Raise an error unless the table is `(V, D)`."""
        if tuple(table.shape) != (self.vocabulary_size, self.hidden_dim):
            raise ValueError(
                "`table` must be the token table, (vocabulary_size, hidden_dim) = "
                f"({self.vocabulary_size}, {self.hidden_dim}). "
                f"Received: table.shape={tuple(table.shape)}"
            )
