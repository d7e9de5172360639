"""Storage types of a SavedModel's weights, and the encoder that reads them.

    float32            as in the model, trainable as in the model
    bfloat16, float16  all weights at half the size, cast to float32 when used; not
                       trainable
    int8               matrices as int8 with float32 scales (see
                       `labse_tf.quantization`), not trainable; biases, normalizations,
                       segment table and token weights float32, trainable as in the
                       model

Half-precision weights are not trainable because training would fail silently. A
fine-tuning step changes a weight by about 1/10,000 of its value, but the next bfloat16
number is 1/128 to 1/256 away (float16: 1/1,024 to 1/2,048), so the step is rounded to
zero. To fine-tune all weights, use `float32`.

Smaller matrices are cast to float32 in each call, so a SavedModel has no state besides
its variables, and any loader can read it. The token table is never cast as a whole.

Shapes: B = batch, T = length in tokens, D = hidden dimension, V = vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from labse_tf.layers import l2_normalize
from labse_tf.models import KerasHubEncoder, SentenceEncoder
from labse_tf.quantization import channel_axes, quantize

if TYPE_CHECKING:
    import tensorflow as tf

STORAGES = ("float32", "bfloat16", "float16", "int8")

# Returns a weight as float32: its rows of the given indices, or all of it for `None`.
_Read = Callable[["tf.Tensor | None"], "tf.Tensor"]


class StoredEncoder:
    """The encoder of a model with weights in a storage type.

    Args:
        model: The model whose layers are called. Its weights do not change.
        storage: One of `STORAGES`; `"float32"` for a `KerasHubEncoder`, whose token
            table cannot be read by rows.
        dim: Number of components of `default`, from the first; `None` for all.

    Attributes:
        variables: All weights as `tf.Variable`s in their storage type.
        trainable_variables: The trainable weights.
        random_states: States of the dropout layers' random generators. They are not
            weights, but the training trace reads and updates them.

    Raises:
        ValueError: If a weight is too large for float16, a matrix is not finite and
            `storage` is `"int8"`, or the model does not support `storage`.
    """

    def __init__(
        self, model: SentenceEncoder, storage: str = "float32", dim: int | None = None
    ) -> None:
        check_storage(model, storage)
        self._model, self._dim = model, dim
        weights, states = _distinct(model)
        self._states = states
        # The weights in smaller types except the token table.
        self._stored: list[tuple[Any, _Read]] = []
        self._tokens: Callable[[tf.Tensor], tf.Tensor] = model.backbone.token_embedding
        self.variables: list[tf.Variable] = []
        self.trainable_variables: list[tf.Variable] = []
        self.random_states = [state.value for state in states]
        table = model.backbone.token_embedding.embeddings
        for weight in weights:
            read = self._add(weight, storage)
            if read is not None and weight is table:
                self._tokens = self._lookup(read)
            elif read is not None:
                self._stored.append((weight, read))

    def __call__(
        self, features: dict[str, tf.Tensor], training: bool
    ) -> dict[str, Any]:
        """Encode features.

        Args:
            features: int32 `(B, T)`: `token_ids`, `segment_ids`, `padding_mask`.
            training: Whether dropout is on.

        Returns:
            Dict of float32 tensors: `default` `(B, D)`, or `(B, dim)`, unit length;
            `pooled_output` `(B, D)`, before L2 normalization; `sequence_output`
            `(B, T, D)`; of a `LaBSE` model `encoder_outputs`, a list of `(B, T, D)`,
            one per block.
        """
        if not self._stored:
            return self._encode(features, training)
        # Layers read the mapped weights from the scope and store new states of random
        # generators in it.
        scope = keras.StatelessScope(
            state_mapping=[(weight, read(None)) for weight, read in self._stored]
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
        if isinstance(self._model, KerasHubEncoder):
            outputs = self._model.backbone_outputs(features, training)
        else:
            outputs = self._model.backbone.call_with_embeddings(
                self._tokens(ids),
                segment_ids=features["segment_ids"],
                padding_mask=mask,
                training=training,
            )
        outputs = tf.nest.map_structure(lambda y: tf.cast(y, tf.float32), outputs)
        vectors, weights = self._model.sentence_pooling.pool(
            outputs["sequence_output"], outputs.get("pooled_output"), mask, ids
        )
        pooled = vectors
        if weights is not None:
            pooled = tf.math.divide_no_nan(vectors, tf.reduce_sum(weights, axis=1))
        unit = l2_normalize(vectors[:, : self._dim])
        return {**outputs, "pooled_output": pooled, "default": unit}

    def _add(self, weight: Any, storage: str) -> _Read | None:
        """Create the variables of a weight; return `None` if it is kept as it is."""
        import tensorflow as tf

        axes = channel_axes(weight.path, tuple(weight.shape))
        if storage == "int8" and axes is not None:
            codes, scales = quantize(weight.path, np.asarray(weight))
            stored = tf.Variable(codes, trainable=False, name=weight.path)
            scale = tf.Variable(scales, trainable=False, name=f"{weight.path}_scale")
            self.variables += [stored, scale]

            def read(ids: tf.Tensor | None) -> tf.Tensor:
                return tf.cast(_rows(stored, ids), tf.float32) * _rows(scale, ids)

            return read
        if storage in ("float32", "int8"):
            self.variables.append(weight.value)
            if weight.trainable:
                self.trainable_variables.append(weight.value)
            return None
        half = tf.Variable(_half(weight, storage), trainable=False, name=weight.path)
        self.variables.append(half)
        return lambda ids: tf.cast(_rows(half, ids), tf.float32)

    def _lookup(self, read: _Read) -> Callable[[tf.Tensor], tf.Tensor]:
        """Return the function that looks up tokens in the stored table."""
        import tensorflow as tf

        dtype = self._model.backbone.token_embedding.compute_dtype
        return lambda ids: tf.cast(read(ids), dtype)


def check_storage(model: SentenceEncoder, storage: str) -> None:
    """Raise an error for a storage type that a model does not support."""
    if isinstance(model, KerasHubEncoder) and storage != "float32":
        raise ValueError(
            "`storage` must be float32 for a KerasHubEncoder; models of BERT's form "
            "support others after `labse_tf.checkpoints.from_keras_hub`. "
            f"Received: storage={storage!r}"
        )


def _rows(variable: tf.Variable, ids: tf.Tensor | None) -> tf.Tensor:
    """Return a variable's rows of the given indices; all of it for `None`."""
    import tensorflow as tf

    return tf.convert_to_tensor(variable) if ids is None else tf.gather(variable, ids)


def _distinct(model: SentenceEncoder) -> tuple[list[Any], list[Any]]:
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
