"""What KerasHub lacks: packed attention, pooling, a masked-LM head without logits.

Shapes: B = batch, T = length in tokens, D = hidden dimension, V = vocabulary,
R = packed rows, P = predictions. Everything here is `keras.ops` and runs on
TensorFlow and JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from labse_tf.cpu_kernels import gelu, has_norm_kernel, norm_kernel
from labse_tf.precision import compute_policy
from labse_tf.vocabulary_softmax import (
    chunked_softmax_cross_entropy,
    vocabulary_logits,
)

POOLINGS = ("pooler", "cls", "mean", "weighted_mean")


@keras.saving.register_keras_serializable(package="labse_tf")
class LayerNormalization(keras.layers.LayerNormalization):
    """Keras's over the last axis, as `labse_tf.cpu_kernels.cpu_kernels` says."""

    def call(self, inputs: Any) -> Any:
        """See the class."""
        if has_norm_kernel(inputs):
            return norm_kernel(self, inputs)
        return super().call(inputs)


@keras.saving.register_keras_serializable(package="labse_tf")
class PackedAttentionMask(keras.layers.Layer):
    """Lets a token attend only to tokens of its own sequence in a packed row.

    Without `sequence_ids` (rows that hold one sequence) the answer is `None` and
    the padding mask alone decides, which is cheaper by a factor of T.

    Call arguments:
        padding_mask: int `(B, T)`, 1 for a token and 0 for padding.
        sequence_ids: int `(B, T)` or `None`; equal numbers belong together.

    Returns:
        Bool `(B, T, T)`, true where the row's query may see the column's key, or
        `None`.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # It has no weights; where nothing calls it (a backbone without blocks), Keras
        # would warn of a layer left unbuilt.
        self.built = True

    def call(self, padding_mask: Any, sequence_ids: Any | None = None) -> Any | None:
        """See the class."""
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
        """The mask's shape; the symbolic graph always has the packed case."""
        batch, length = padding_mask.shape
        return keras.KerasTensor((batch, length, length), dtype="bool")


@keras.saving.register_keras_serializable(package="labse_tf")
class SentencePooling(keras.layers.Layer):
    """One unit vector a sentence from the encoder's outputs.

    Args:
        pooling: `"pooler"`: BERT's dense + tanh on [CLS], as in the released
            LaBSE weights; `"cls"`: [CLS] of the last layer, as the paper's text
            says (section 2); `"mean"`: the mean over all tokens that are no padding,
            [CLS] and [SEP] among them, so that an empty text has a vector too;
            `"weighted_mean"` (ours): the mean with a learned weight `exp(w)` a token
            of the vocabulary, at first 1. A layer normalisation makes all tokens
            equally long, and these weights are what then lets "the" count for less:
            a bag of tokens needs them, and deeper stages keep them.
        vocabulary_size: V, for `"weighted_mean"` only.
        **kwargs: `name` and other arguments of `keras.layers.Layer`.

    Call arguments:
        sequence_output: float `(B, T, D)`.
        pooled_output: float `(B, D)`.
        padding_mask: int `(B, T)`.
        token_ids: int `(B, T)`, for `"weighted_mean"` only.

    Returns:
        float32 `(B, D)` of length 1, whatever the compute type.

    Raises:
        ValueError: If `pooling` is none of the four, or the weighted mean lacks
            `vocabulary_size`.

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
        if pooling not in POOLINGS:
            raise ValueError(
                f"`pooling` must be one of {POOLINGS}. Received: pooling={pooling!r}"
            )
        weighted = pooling == "weighted_mean"
        if weighted and not vocabulary_size:
            raise ValueError(
                '`vocabulary_size` is needed for pooling="weighted_mean". '
                f"Received: vocabulary_size={vocabulary_size}"
            )
        self.pooling = pooling
        self.vocabulary_size = vocabulary_size if weighted else None
        if self.vocabulary_size is not None:
            # An embedding, so that its gradient has the rows of the batch alone.
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
        """See the class."""
        # The sum has the direction of the mean.
        vectors, _ = self.pool(sequence_output, pooled_output, padding_mask, token_ids)
        return l2_normalize(vectors)

    def pool(
        self,
        sequence_output: Any,
        pooled_output: Any,
        padding_mask: Any,
        token_ids: Any | None = None,
    ) -> tuple[Any, Any | None]:
        """Pools without normalisation.

        Args:
            sequence_output: As in the call.
            pooled_output: As in the call.
            padding_mask: As in the call.
            token_ids: As in the call.

        Returns:
            The vector or, for the means, the weighted sum, float32 `(B, D)`; and the
            weights `(B, T, 1)` of that sum, float32, or `None`.
        """
        if self.pooling == "pooler":
            return ops.cast(pooled_output, "float32"), None
        if self.pooling == "cls":
            return ops.cast(sequence_output[:, 0, :], "float32"), None
        states = ops.cast(sequence_output, "float32")
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
        """Float32 `(B, D)`."""
        return keras.KerasTensor(pooled_output.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "pooling": self.pooling,
            "vocabulary_size": self.vocabulary_size,
        }


def l2_normalize(vectors: Any) -> Any:
    """Scales rows to length 1.

    Args:
        vectors: float `(..., D)`.

    Returns:
        The same shape. A row of zeros stays zeros and its gradient is finite.

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
    """GELU by tanh, as the official BERT code computes it.

    It differs from the exact one, which `activation="gelu"` means, by up to
    5e-4 a unit.
    """
    return keras.activations.gelu(x, approximate=True)


def get_activation(name: str) -> Callable[[Any], Any]:
    """An activation by name: those of Keras, and GELU by tanh too.

    Args:
        name: `"gelu"` is the exact one, `"gelu_approximate"` that of the official
            BERT code.

    Returns:
        A function of a tensor.

    Raises:
        ValueError: If there is no such activation.
    """
    if name == "gelu_approximate":
        return gelu_approximate
    if not isinstance(name, str):
        raise ValueError(f"`name` must be an activation's name. Received: {name!r}")
    return gelu if name == "gelu" else keras.activations.get(name)


@keras.saving.register_keras_serializable(package="labse_tf")
class MaskedLMHead(keras.layers.Layer):
    """BERT's masked-language-model head, without the logits.

    The hidden state of each masked position goes through a dense layer with
    activation and a layer normalisation; the token table (tied: its gradient comes
    from both ends of the model) and a bias of the head's own make the logits, which
    `chunked_softmax_cross_entropy` never holds all at once.

    The table comes with each call, not with the constructor. So the head belongs to
    no backbone: progressive stacking hands it from stage to stage as it is.

    Args:
        vocabulary_size: V, the rows of the token table.
        hidden_dim: D.
        activation: Of the dense layer; the backbone's.
        layer_norm_epsilon: Of the layer normalisation; the backbone's.
        initializer_range: Standard deviation of the truncated normal initialiser.
        chunk_size: Entries of the vocabulary at a time; memory beside the table
            and its gradient is a few times predictions x `chunk_size` x 4 bytes.
        dtype: Compute type; variables, sums and loss are float32 always.
        **kwargs: `name`, `trainable`.

    Call arguments:
        sequence_output: float `(R, T, D)`.
        mask_positions: int `(R, P)`, where in its row each prediction stands.
        mask_ids: int `(R, P)`, the token to predict, 0 to V - 1 also where
            `mask_weights` is 0.
        table: float `(V, D)`, such as `backbone.token_embedding.embeddings`.
        mask_weights: float `(R, P)`, 1 for a prediction and 0 for padding, or
            `None` for 1 everywhere.

    Returns:
        Dict of float32 `(R, P)`: `loss`, the cross-entropy, and `correct`, 1 where
        the masked token has the largest logit; both times `mask_weights`.

    Raises:
        ValueError: If a size is not positive, or in a call if the table is not
            `(V, D)`.

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
        # Casting by Keras would copy the whole table to the compute type.
        super().__init__(dtype=compute_policy(dtype), autocast=False, **kwargs)
        for name, size in {
            "vocabulary_size": vocabulary_size,
            "hidden_dim": hidden_dim,
            "chunk_size": chunk_size,
        }.items():
            if size < 1:
                raise ValueError(f"`{name}` must be positive. Received: {name}={size}")
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
        """Makes the weights; no call is needed for it."""
        if self.built:
            return
        shape = (None, self.hidden_dim)
        self.transform_dense.build(shape)
        self.transform_layer_norm.build(shape)
        # `bias` is the name by which the optimiser leaves it undecayed.
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
        """See the class."""
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
        """What the table is multiplied with.

        Args:
            sequence_output: float `(R, T, D)`.
            mask_positions: int `(R, P)`.

        Returns:
            `(R * P, D)` of the compute type.
        """
        rows, length = ops.shape(sequence_output)[:2]
        first = ops.expand_dims(ops.arange(rows, dtype="int32") * length, 1)
        index = ops.reshape(ops.cast(mask_positions, "int32") + first, (-1,))
        states = ops.reshape(sequence_output, (-1, self.hidden_dim))  # (R * T, D)
        states = ops.take(states, index, axis=0)  # (R * P, D)
        return self.transform_layer_norm(self.transform_dense(states))

    def logits(self, sequence_output: Any, mask_positions: Any, table: Any) -> Any:
        """All logits, to look at the predictions of a few positions.

        Args:
            sequence_output: float `(R, T, D)`.
            mask_positions: int `(R, P)`.
            table: float `(V, D)`.

        Returns:
            float32 `(R, P, V)`.

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
        """Float32 `(R, P)` for loss and correctness."""
        return {
            name: keras.KerasTensor(mask_ids.shape, dtype="float32")
            for name in ("loss", "correct")
        }

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
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
        """Refuses the table of another vocabulary or another width."""
        if tuple(table.shape) != (self.vocabulary_size, self.hidden_dim):
            raise ValueError(
                "`table` must be the token table, (vocabulary_size, hidden_dim) = "
                f"({self.vocabulary_size}, {self.hidden_dim}). "
                f"Received: table.shape={tuple(table.shape)}"
            )
