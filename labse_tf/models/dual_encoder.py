"""The dual encoder: one sentence encoder, two sides, a loss over the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from labse_tf.layers import sentence_fingerprints
from labse_tf.metrics import TranslationRankingAccuracy


@keras.saving.register_keras_serializable(package="labse_tf")
class DualEncoder(keras.Model):
    """Trains a sentence encoder on translation pairs: one encoder, two sides.

    `fit` takes `{"source": features, "target": features}`, as
    `labse_tf.data.sentence_pairs` gives them; the loss ranks each pair against the
    global batch. Sentences that occur twice in a batch are found by hashing their
    token ids, so that the loss does not take copies for negatives.

    Args:
        encoder: A `LaBSE` model, or any Keras model from features to unit vectors.
        length_groups: Each side is encoded in that many groups of sentences of like
            length, each cut to its own longest. Vectors and gradients are those of
            one group; where a batch has long and short sentences, little time goes
            into padding. TensorFlow without XLA only, where shapes may vary.
        **kwargs: `name`, `trainable`.

    Raises:
        ValueError: If `length_groups` is not positive, or more than 1 on another
            backend than TensorFlow.

    Call arguments:
        inputs: Dict with `source` and `target`, each a feature dict of int32
            `(B, T)`; the two T may differ.

    Returns:
        Dict with `source` and `target`, float32 `(B, D)` each.

    References:
        Feng et al., 2022, section 2.1 (https://arxiv.org/abs/2007.01852).
    """

    def __init__(
        self, encoder: keras.Model, *, length_groups: int = 1, **kwargs: Any
    ) -> None:
        if length_groups < 1:
            raise ValueError(
                f"`length_groups` must be positive. Received: {length_groups}"
            )
        if length_groups > 1 and keras.backend.backend() != "tensorflow":
            raise ValueError(
                "`length_groups` above 1 needs shapes that vary, so the TensorFlow "
                f"backend. Received: length_groups={length_groups} on "
                f"{keras.backend.backend()}"
            )
        super().__init__(**kwargs)
        self.encoder = encoder
        self.length_groups = length_groups
        self.pair_loss: keras.losses.Loss | None = None
        self.pair_metrics: list[keras.metrics.Metric] = []
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """See the class."""

        def encode(features: dict[str, Any]) -> Any:
            return self.encoder(features, training=training)

        return {
            side: encode(inputs[side])
            if self.length_groups == 1
            else _encode_by_length(encode, inputs[side], self.length_groups)
            for side in ("source", "target")
        }

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
                batch where left out.
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
        self.pair_metrics = (
            [TranslationRankingAccuracy()] if metrics is None else list(metrics)
        )

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
        return self.pair_loss(y_pred["source"], y_pred["target"], **_pair_ids(x))

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Adds a batch to the metrics and returns all their values."""
        for metric in self.pair_metrics:
            metric.update_state(y_pred["source"], y_pred["target"], **_pair_ids(x))
        return self.get_metrics_result()

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "encoder": keras.saving.serialize_keras_object(self.encoder),
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


def resolve_jit_compile(jit_compile: bool | str) -> bool | str:
    """Gives what `"auto"` means here.

    Args:
        jit_compile: As `compile` takes it.

    Returns:
        `False` for `"auto"` on TensorFlow, where XLA is slower on the CPU and fails
        with collectives outside a TPU (which compiles always); else the argument.
    """
    if jit_compile == "auto" and keras.backend.backend() == "tensorflow":
        return False
    return jit_compile


def _pair_ids(inputs: dict[str, Any]) -> dict[str, Any]:
    """Fingerprints of both sides under the names that loss and metrics take."""
    return {
        f"{side}_ids": sentence_fingerprints(
            inputs[side]["token_ids"], inputs[side]["padding_mask"]
        )
        for side in ("source", "target")
    }


def _encode_by_length(
    encode: Callable[[dict[str, Any]], Any], features: dict[str, Any], groups: int
) -> Any:
    """Encodes `(B, T)` in groups of like length, each cut to its own: `(B, D)`."""
    import tensorflow as tf

    mask = tf.cast(features["padding_mask"], tf.int32)
    count, length = tf.unstack(tf.shape(mask))
    # The place behind the last token, wherever the mask has zeros before it.
    lengths = tf.reduce_max(mask * tf.range(1, length + 1), axis=1)  # (B,)
    order = tf.argsort(lengths, stable=True)
    vectors = []
    for group in range(groups):
        start, stop = count * group // groups, count * (group + 1) // groups
        # A group without sentences, where groups are more than those, encodes one for
        # nothing: not all kernels take an empty batch.
        first = tf.minimum(start, count - 1)
        rows = order[first : tf.maximum(stop, first + 1)]
        longest = tf.reduce_max(tf.gather(lengths, rows))
        encoded = encode(
            {k: tf.gather(x[:, :longest], rows) for k, x in features.items()}
        )
        vectors.append(encoded[: stop - start])
    return tf.gather(tf.concat(vectors, axis=0), tf.argsort(order))
