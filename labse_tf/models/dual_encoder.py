"""Dual encoder: one sentence encoder, two sides, a loss over the batch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras

from labse_tf.distribute import is_tpu, replica_count
from labse_tf.duplicates import pair_fingerprints
from labse_tf.metrics import TranslationRankingAccuracy
from labse_tf.models.gradient_caching import (
    SIDES,
    Chunks,
    chunk_gradients,
    encode_chunks,
    random_states,
)
from labse_tf.models.keras_hub_encoder import as_encoder
from labse_tf.models.padding import Encode, encode_by_length
from labse_tf.models.replicated_model import ReplicatedModel, resolve_jit_compile


@keras.saving.register_keras_serializable(package="labse_tf")
class DualEncoder(ReplicatedModel):
    """Model that trains one sentence encoder on both sides of translation pairs.

    `fit` takes dicts `{"source": features, "target": features}`, such as those from
    `labse_tf.data.sentence_pairs`. The loss ranks each pair against the global batch.
    With `(x, y)`, where x is such a dict and y is `{"source": vectors, "target":
    vectors}`, float32 `(B, g)`, the loss also gets y, a guide's vectors of the pairs.
    Copies of a sentence in a batch are found by hashes of their token ids, so that
    the loss does not use copies as negatives.

    Args:
        encoder: A `LaBSE` model, or any Keras model from features to unit vectors. A
            `TextEmbedder` or a backbone of KerasHub becomes a `KerasHubEncoder`, which
            trains its weights.
        chunk_size: Number of pairs encoded at a time (gradient caching). A training
            step encodes each pair twice and holds the activations of one chunk only.
            Loss and gradients equal those of the whole batch. `None` encodes the batch
            at once. TensorFlow only.
        length_groups: Number of groups of similar length in which each side is
            encoded, each group cut to its longest sentence. This saves padding and
            does not change vectors and gradients. With `chunk_size`, any number above
            1 sorts the sentences by length before they are cut into chunks.
            TensorFlow without XLA only, because shapes vary.
        **kwargs: `name`, `trainable`.

    Call arguments:
        inputs: Dict with `source` and `target`, each a feature dict of int32
            `(B, T)`; T may differ between the sides.

    Returns:
        Dict with `source` and `target`, float32 `(B, D)` each.

    Raises:
        ValueError: If `chunk_size` or `length_groups` is not positive, or is set on a
            backend other than TensorFlow, or `encoder` is something else.

    References:
        - Feng et al., 2022, section 2.1 (https://arxiv.org/abs/2007.01852)
        - Gao et al., 2021, on gradient caching (https://arxiv.org/abs/2101.06983)
    """

    def __init__(
        self,
        encoder: Any,
        chunk_size: int | None = None,
        *,
        length_groups: int = 1,
        **kwargs: Any,
    ) -> None:
        for name, value, usual in (
            ("chunk_size", chunk_size, None),
            ("length_groups", length_groups, 1),
        ):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be positive. Received: {value}")
            if value != usual and keras.backend.backend() != "tensorflow":
                raise ValueError(
                    f"`{name}` needs the TensorFlow backend. Received: {name}={value} "
                    f"on {keras.backend.backend()}"
                )
        super().__init__(**kwargs)
        self.encoder = as_encoder(encoder)
        self.chunk_size = chunk_size
        self.length_groups = length_groups
        self.pair_loss: keras.losses.Loss | None = None
        self.pair_metrics: list[keras.metrics.Metric] = []
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Encode both sides; see the class."""
        encode = self._encode(training)
        if self._is_chunked(inputs):
            return encode_chunks(encode, self._chunks(inputs), [])[0]
        if self.length_groups > 1:
            return {
                side: encode_by_length(encode, inputs[side], self.length_groups)
                for side in SIDES
            }
        return {side: encode(inputs[side]) for side in SIDES}

    def _encode(self, training: bool | None) -> Encode:
        return functools.partial(self.encoder, training=training)

    def _chunks(self, inputs: dict[str, Any]) -> Chunks:
        return Chunks(inputs, self.chunk_size or 1, self.length_groups > 1)

    def _is_chunked(self, inputs: dict[str, Any]) -> bool:
        """Return whether there are, or may be, several chunks."""
        if self.chunk_size is None:
            return False
        batch = inputs["source"]["padding_mask"].shape[0]
        return batch is None or batch > self.chunk_size

    def _has_xla(self) -> bool:
        """Return whether XLA compiles the step, which a TPU always does."""
        import tensorflow as tf

        return bool(self.jit_compile) or is_tpu(tf.distribute.get_strategy())

    def train_step(self, *arguments: Any) -> Any:
        """Run one optimizer step, with gradient caching if there are several chunks.

        Arguments and result depend on the backend: on TensorFlow, a batch and the logs.
        """
        if self.chunk_size is None:
            return super().train_step(*arguments)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(arguments[0])
        if not self._is_chunked(x):
            return super().train_step(*arguments)
        with self.training_kernels():
            return self._chunked_train_step(x, y, sample_weight)

    def _chunked_train_step(self, x: Any, y: Any, sample_weight: Any) -> Any:
        """Run one optimizer step with gradient caching."""
        import tensorflow as tf

        encode, chunks = self._encode(True), self._chunks(x)
        random = random_states(self.encoder)
        y_pred, states = encode_chunks(encode, chunks, random)
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            # The loss gathers the vectors of all replicas, once per step.
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        cached = tape.gradient(scaled, y_pred)
        weights = self.trainable_weights
        grads = chunk_gradients(
            encode, chunks, cached, weights, random, states, sparse=not self._has_xla()
        )
        self.optimizer.apply_gradients(zip(grads, weights, strict=True))
        (tracker,) = (metric for metric in self.metrics if metric.name == "loss")
        # As in Keras, log the global loss: the loss of a replica is only its share.
        tracker.update_state(loss * replica_count(), sample_weight=chunks.batch)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adamw",
        loss: keras.losses.Loss | None = None,
        *,
        metrics: Sequence[keras.metrics.Metric] | None = None,
        jit_compile: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        """Set optimizer, loss and metrics.

        Args:
            optimizer: A Keras optimizer or its name.
            loss: Loss such as `labse_tf.losses.AdditiveMarginSoftmax`, called as
                `loss(source, target, source_ids=, target_ids=)`, and with a guide's
                vectors also `source_guide=, target_guide=`.
            metrics: Metrics whose `update_state` takes the same arguments (default:
                the ranking accuracy over the global batch, with the `block_size` of
                the loss).
            jit_compile: Whether to compile with XLA; see
                `labse_tf.models.replicated_model.resolve_jit_compile`.
            **kwargs: Other arguments of `keras.Model.compile`.

        Raises:
            ValueError: If `loss` is missing, or `length_groups` is above 1 with XLA.
        """
        if loss is None:
            raise ValueError(
                "`loss` must be a loss such as "
                "labse_tf.losses.AdditiveMarginSoftmax(). Received: loss=None"
            )
        jit_compile = resolve_jit_compile(jit_compile)
        if jit_compile and self.length_groups > 1:
            raise ValueError(
                "`length_groups` must be 1 with XLA, which needs static shapes. "
                f"Received: jit_compile={jit_compile}, "
                f"length_groups={self.length_groups}"
            )
        super().compile(
            optimizer=optimizer, loss=None, jit_compile=jit_compile, **kwargs
        )
        self.pair_loss = loss
        if metrics is None:
            block_size = getattr(loss, "block_size", None)
            metrics = [TranslationRankingAccuracy(block_size=block_size)]
        self.pair_metrics = list(metrics)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the loss of a batch; duplicate sentences are not negatives."""
        if self.pair_loss is None:
            raise ValueError("Call `compile` with a `loss` first. Received: loss=None")
        guide = {} if y is None else {f"{side}_guide": y[side] for side in SIDES}
        loss = self.pair_loss(
            y_pred["source"], y_pred["target"], **pair_fingerprints(x), **guide
        )
        if training:
            self.note_loss(loss)
        return loss

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Add a batch to the metrics and return the values of all metrics."""
        for metric in self.pair_metrics:
            metric.update_state(
                y_pred["source"], y_pred["target"], **pair_fingerprints(x)
            )
        return self.get_metrics_result()

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "chunk_size": self.chunk_size,
            "length_groups": self.length_groups,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DualEncoder:
        """Create the model from the result of `get_config`."""
        config = dict(config)
        config["encoder"] = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(**config)

    def get_compile_config(self) -> dict[str, Any]:
        """Return the arguments of `compile`, for `keras.saving`."""
        serialize = keras.saving.serialize_keras_object
        return {
            "optimizer": serialize(self.optimizer),
            "loss": serialize(self.pair_loss),
            "metrics": [serialize(metric) for metric in self.pair_metrics],
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile with the result of `get_compile_config`."""
        deserialize = keras.saving.deserialize_keras_object
        self.compile(
            optimizer=deserialize(config["optimizer"]),
            loss=deserialize(config["loss"]),
            metrics=[deserialize(metric) for metric in config["metrics"]],
        )
        self.optimizer.build(self.trainable_variables)
