"""Storage types of a SavedModel's weights, and the encoder that reads them.

    float32            as in the model, trainable as in the model
    bfloat16, float16  all weights at half the size, cast to float32 when used; not
                       trainable
    int8               the token table as int8 with one float32 scale per row, not
                       trainable; other weights float32, trainable as in the model

Half-precision weights are not trainable because training would fail silently. A
fine-tuning step changes a weight by about 1/10,000 of its value, but the next bfloat16
number is 1/128 to 1/256 away (float16: 1/1,024 to 1/2,048), so the step is rounded to
zero. To fine-tune a small file, use `int8`.

Shapes: B = batch, T = length in tokens, D = hidden dimension, V = vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from labse_tf.layers import l2_normalize
from labse_tf.models import LaBSE
from labse_tf.quantization import quantize_rows

if TYPE_CHECKING:
    import tensorflow as tf

STORAGES = ("float32", "bfloat16", "float16", "int8")


class StoredEncoder:
    """The encoder of a model with weights in a storage type.

    The token table is never cast to float32 as a whole. Only the gathered rows are cast
    and scaled.

    Args:
        model: The model whose layers are called. Its weights do not change.
        storage: One of `STORAGES`.

    Attributes:
        variables: All weights as `tf.Variable`s in their storage type.
        trainable_variables: The trainable weights.
        random_states: States of the dropout layers' random generators. They are not
            weights, but the training trace reads and updates them.

    Raises:
        ValueError: If a weight is too large for float16, or the token table is not
            finite and `storage` is `"int8"`.
    """

    def __init__(self, model: LaBSE, storage: str = "float32") -> None:
        self._model = model
        weights, states = _distinct(model)
        table = model.backbone.token_embedding.embeddings
        self._states = states
        self._stored: dict[int, tuple[Any, tf.Variable]] = {}
        self._tokens: Callable[[tf.Tensor], tf.Tensor]
        self.variables: list[tf.Variable] = []
        self.trainable_variables: list[tf.Variable] = []
        self.random_states = [state.value for state in states]
        if storage == "float32":
            self._tokens = model.backbone.token_embedding
            self._keep(weights)
        elif storage == "int8":
            self._tokens = self._int8_table(table)
            self._keep([weight for weight in weights if weight is not table])
        else:
            self._tokens = self._half_table(weights, table, storage)

    def __call__(
        self, features: dict[str, tf.Tensor], training: bool
    ) -> dict[str, Any]:
        """Encode features.

        Args:
            features: int32 `(B, T)`: `token_ids`, `segment_ids`, `padding_mask`.
            training: Whether dropout is on.

        Returns:
            Dict of float32 tensors: `default` `(B, D)`, unit length; `pooled_output`
            `(B, D)`, before L2 normalization; `sequence_output` `(B, T, D)`;
            `encoder_outputs`, a list of `(B, T, D)`, one per block.
        """
        import tensorflow as tf

        if not self._stored:
            return self._encode(features, training)
        # Layers read the mapped weights from the scope and store new states of random
        # generators in it.
        scope = keras.StatelessScope(
            state_mapping=[
                (weight, tf.cast(stored, tf.float32))
                for weight, stored in self._stored.values()
            ]
        )
        with scope:
            outputs = self._encode(features, training)
        for state in self._states:
            moved = scope.get_current_value(state)
            if moved is not None:
                state.value.assign(moved)
        return outputs

    def _encode(self, features: dict[str, tf.Tensor], training: bool) -> dict[str, Any]:
        """Call the backbone and the pooling with the stored token table."""
        import tensorflow as tf

        ids, mask = features["token_ids"], features["padding_mask"]
        outputs = self._model.backbone.call_with_embeddings(
            self._tokens(ids),
            segment_ids=features["segment_ids"],
            padding_mask=mask,
            training=training,
        )
        outputs = tf.nest.map_structure(lambda y: tf.cast(y, tf.float32), outputs)
        vectors, weights = self._model.sentence_pooling.pool(
            outputs["sequence_output"], outputs["pooled_output"], mask, ids
        )
        pooled = vectors
        if weights is not None:
            pooled = tf.math.divide_no_nan(vectors, tf.reduce_sum(weights, axis=1))
        return {**outputs, "pooled_output": pooled, "default": l2_normalize(vectors)}

    def _keep(self, weights: list[Any]) -> None:
        """Add weights of the model unchanged."""
        self.variables += [weight.value for weight in weights]
        self.trainable_variables += [w.value for w in weights if w.trainable]

    def _int8_table(self, table: Any) -> Callable[[tf.Tensor], tf.Tensor]:
        """Create the two variables of the token table; return its lookup function."""
        import tensorflow as tf

        codes, scale = quantize_rows(np.asarray(table))
        name = table.path
        stored = tf.Variable(codes, trainable=False, name=name)  # (V, D)
        scales = tf.Variable(scale, trainable=False, name=f"{name}_scale")  # (V, 1)
        self.variables += [stored, scales]
        dtype = self._model.backbone.token_embedding.compute_dtype

        def lookup(ids: tf.Tensor) -> tf.Tensor:
            rows = tf.cast(tf.gather(stored, ids), tf.float32) * tf.gather(scales, ids)
            return tf.cast(rows, dtype)

        return lookup

    def _half_table(
        self, weights: list[Any], table: Any, storage: str
    ) -> Callable[[tf.Tensor], tf.Tensor]:
        """Create the variables of all weights; return the token lookup function."""
        import tensorflow as tf

        for weight in weights:
            variable = tf.Variable(
                _half(weight, storage), trainable=False, name=weight.path
            )
            self.variables.append(variable)
            self._stored[id(weight)] = (weight, variable)
        _, stored = self._stored.pop(id(table))
        dtype = self._model.backbone.token_embedding.compute_dtype
        return lambda ids: tf.cast(tf.cast(tf.gather(stored, ids), tf.float32), dtype)


def _distinct(model: LaBSE) -> tuple[list[Any], list[Any]]:
    """Return the weights of a model and its other variables, the random states."""
    weights = list(model.weights)
    known = {id(weight) for weight in weights}
    return weights, [v for v in model.variables if id(v) not in known]


def _half(weight: Any, storage: str) -> tf.Tensor:
    """Cast a weight to a half-precision type; raise an error if it overflows."""
    import tensorflow as tf

    array = np.asarray(weight)
    half = tf.cast(array, storage)
    if np.isfinite(array).all() and not np.isfinite(np.float32(half.numpy())).all():
        raise ValueError(
            "`storage` must be a type with the range of the weights; the maximum of "
            f"float16 is 65,504. Received: {np.abs(array).max():g} in "
            f"{weight.path} and storage={storage!r}"
        )
    return half
