"""The dual encoder: one sentence encoder, two sides, a loss over the batch."""

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
from labse_tf.models.padding import Encode, encode_by_length
from labse_tf.models.replicated_model import ReplicatedModel, resolve_jit_compile


@keras.saving.register_keras_serializable(package="labse_tf")
class DualEncoder(ReplicatedModel):
    """Trains a sentence encoder on translation pairs: one encoder, two sides.

    `fit` takes `{"source": features, "target": features}`, as
    `labse_tf.data.sentence_pairs` gives them; the loss ranks each pair against the
    global batch. Sentences that occur twice in a batch are found by hashing their
    token ids, so that the loss does not take copies for negatives.

    Args:
        encoder: A `LaBSE` model, or any Keras model from features to unit vectors.
        chunk_size: Gradient caching: pairs that are encoded at a time, each twice. The
            loss and the gradients are those of the whole batch; memory holds the
            activations of one chunk, so that a small device can have thousands of
            negatives. `None` encodes the batch at once. TensorFlow only.
        length_groups: Each side is encoded in that many groups of sentences of like
            length, each cut to its own longest. Vectors and gradients are those of
            one group; where a batch has long and short sentences, little time goes
            into padding. With `chunk_size` any number above 1 puts sentences of like
            length into a chunk. TensorFlow without XLA only, where shapes may vary.
        **kwargs: `name`, `trainable`.

    Raises:
        ValueError: If `chunk_size` or `length_groups` is not positive, or on another
            backend than TensorFlow.

    Call arguments:
        inputs: Dict with `source` and `target`, each a feature dict of int32
            `(B, T)`; the two T may differ.

    Returns:
        Dict with `source` and `target`, float32 `(B, D)` each.

    References:
        - Feng et al., 2022, section 2.1 (https://arxiv.org/abs/2007.01852)
        - Gao et al., 2021, on gradient caching (https://arxiv.org/abs/2101.06983)
    """

    def __init__(
        self,
        encoder: keras.Model,
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
        self.encoder = encoder
        self.chunk_size = chunk_size
        self.length_groups = length_groups
        self.pair_loss: keras.losses.Loss | None = None
        self.pair_metrics: list[keras.metrics.Metric] = []
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """See the class."""
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
        """Whether there is, or may be, more than one chunk."""
        if self.chunk_size is None:
            return False
        batch = inputs["source"]["padding_mask"].shape[0]
        return batch is None or batch > self.chunk_size

    def _has_xla(self) -> bool:
        """Whether the step is compiled, as on a TPU it always is."""
        import tensorflow as tf

        return bool(self.jit_compile) or is_tpu(tf.distribute.get_strategy())

    def train_step(self, *arguments: Any) -> Any:
        """One step of the optimiser; by gradient caching where there are chunks.

        Args:
            *arguments: What the backend's trainer gives: TensorFlow's the batch alone.

        Returns:
            What it expects: with TensorFlow the logs.
        """
        if self.chunk_size is None:
            return super().train_step(*arguments)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(arguments[0])
        if not self._is_chunked(x):
            return super().train_step(*arguments)
        with self.training_kernels():
            return self._chunked_train_step(x, y, sample_weight)

    def _chunked_train_step(self, x: Any, y: Any, sample_weight: Any) -> Any:
        """Gradient caching."""
        import tensorflow as tf

        encode, chunks = self._encode(True), self._chunks(x)
        random = random_states(self.encoder)
        y_pred, states = encode_chunks(encode, chunks, random)
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            # Here replicas gather each other's vectors, once.
            loss = self.compute_loss(x, y, y_pred, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        cached = tape.gradient(scaled, y_pred)
        weights = self.trainable_weights
        grads = chunk_gradients(
            encode, chunks, cached, weights, random, states, sparse=not self._has_xla()
        )
        self.optimizer.apply_gradients(zip(grads, weights, strict=True))
        (tracker,) = (metric for metric in self.metrics if metric.name == "loss")
        # As Keras: a replica's loss is its share of the global one.
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
        """Sets optimiser and loss.

        Args:
            optimizer: A Keras optimiser or its name.
            loss: Called as `loss(source, target, source_ids=, target_ids=)`, such
                as `labse_tf.losses.AdditiveMarginSoftmax`.
            metrics: Called the same way; the ranking accuracy over the global
                batch where left out, in blocks where the loss has a `block_size`.
            jit_compile: `"auto"` leaves XLA to the backend, and off on TensorFlow,
                where it is slower on the CPU and fails with collectives outside
                a TPU (which compiles always).
            **kwargs: Other arguments of `keras.Model.compile`.

        Raises:
            ValueError: If there is no loss.
        """
        if loss is None:
            raise ValueError(
                "`loss` is needed, such as "
                "labse_tf.losses.AdditiveMarginSoftmax(). Received: loss=None"
            )
        jit_compile = resolve_jit_compile(jit_compile)
        if jit_compile and self.length_groups > 1:
            raise ValueError(
                "`length_groups` above 1 needs shapes that vary, which XLA has not. "
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
        """The loss of a batch, with duplicates marked."""
        if self.pair_loss is None:
            raise ValueError("Call `compile` with a `loss` first. Received: loss=None")
        loss = self.pair_loss(
            y_pred["source"], y_pred["target"], **pair_fingerprints(x)
        )
        if training:
            self.note_loss(loss)
        return loss

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Adds a batch to the metrics and returns all their values."""
        for metric in self.pair_metrics:
            metric.update_state(
                y_pred["source"], y_pred["target"], **pair_fingerprints(x)
            )
        return self.get_metrics_result()

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "chunk_size": self.chunk_size,
            "length_groups": self.length_groups,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DualEncoder:
        """Makes the model again from `get_config`."""
        config = dict(config)
        config["encoder"] = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(**config)

    def get_compile_config(self) -> dict[str, Any]:
        """What `compile` was given, for `keras.saving`."""
        serialize = keras.saving.serialize_keras_object
        return {
            "optimizer": serialize(self.optimizer),
            "loss": serialize(self.pair_loss),
            "metrics": [serialize(metric) for metric in self.pair_metrics],
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as `get_compile_config` says."""
        deserialize = keras.saving.deserialize_keras_object
        self.compile(
            optimizer=deserialize(config["optimizer"]),
            loss=deserialize(config["loss"]),
            metrics=[deserialize(metric) for metric in config["metrics"]],
        )
        self.optimizer.build(self.trainable_variables)
