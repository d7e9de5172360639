"""Storage: the types that a SavedModel's weights have, and the encoder that reads them.

    float32            as the model has them, trainable as in the model
    bfloat16, float16  every weight at half the size, cast to float32 where it is used;
                       none is trainable
    int8               the token table as int8 with a float32 scale a row, frozen; all
                       other weights float32, trainable as in the model

Half-precision weights are frozen because training them fails without a word: a step of
fine-tuning changes a weight by about a ten-thousandth of its value, and the next number
that bfloat16 has is one part in 128 to 256 away (float16: 1,024 to 2,048), so the step
is rounded to nothing. Who wants to fine-tune a small file takes `int8`.

Shapes: B = batch, T = length in tokens, D = hidden dimension, V = vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from labse_tf.layers import l2_normalize
from labse_tf.models import LaBSE
from labse_tf.presets import quantize_rows

if TYPE_CHECKING:
    import tensorflow as tf

STORAGES = ("float32", "bfloat16", "float16", "int8")


class StoredEncoder:
    """A model's encoder over weights of a storage type.

    The token table is never made float32 as a whole: rows are gathered as they are
    stored, and only these are cast and scaled.

    Args:
        model: Its layers do the computing; its weights stay as they are.
        storage: One of `STORAGES`.

    Attributes:
        variables: All weights as `tf.Variable`s of the type they are stored in.
        trainable_variables: Those that get gradients.
        random_states: Of the dropout layers; no weights, yet the training trace reads
            and moves them.

    Raises:
        ValueError: If a weight is beyond what float16 can hold, or the token table is
            not finite where it must become int8.
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
        """Encodes features.

        Args:
            features: int32 `(B, T)`: `token_ids`, `segment_ids`, `padding_mask`.
            training: Whether dropout is on.

        Returns:
            Dict of float32: `default` `(B, D)` of length 1; `pooled_output` `(B, D)`,
            the same before it is divided by its length; `sequence_output`
            `(B, T, D)`; `encoder_outputs`, a list of `(B, T, D)`, one a block.
        """
        import tensorflow as tf

        if not self._stored:
            return self._encode(features, training)
        # Layers read a weight from the scope where it maps one, and leave new states
        # of random generators in it.
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
        """Calls the model's backbone and pooling with the stored token table."""
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
        """Takes weights as the model has them."""
        self.variables += [weight.value for weight in weights]
        self.trainable_variables += [w.value for w in weights if w.trainable]

    def _int8_table(self, table: Any) -> Callable[[tf.Tensor], tf.Tensor]:
        """Makes the table's two variables; returns the function of token ids."""
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
        """Makes all weights' variables; returns the table's function of token ids."""
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
    """A model's weights, and its other variables: the states of random generators."""
    weights = list(model.weights)
    known = {id(weight) for weight in weights}
    return weights, [v for v in model.variables if id(v) not in known]


def _half(weight: Any, storage: str) -> tf.Tensor:
    """A weight in two bytes a number, unless that makes an infinity of one."""
    import tensorflow as tf

    array = np.asarray(weight)
    half = tf.cast(array, storage)
    if np.isfinite(array).all() and not np.isfinite(np.float32(half.numpy())).all():
        raise ValueError(
            f"`storage` must be one whose numbers reach as far as the weights do; "
            f"float16 ends at 65,504. Received: {np.abs(array).max():g} in "
            f"{weight.path} and storage={storage!r}"
        )
    return half
