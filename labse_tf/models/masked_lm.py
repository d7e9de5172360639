"""Masked language model: a backbone with a head over its token table, and the loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from labse_tf.distribute import sum_over_replicas
from labse_tf.layers import MaskedLMHead
from labse_tf.models.backbone import LaBSEBackbone
from labse_tf.models.replicated_model import ReplicatedModel, resolve_jit_compile


@keras.saving.register_keras_serializable(package="labse_tf")
class MaskedLM(ReplicatedModel):
    """Model that predicts masked tokens in sentences (MLM) and pairs (TLM).

    `fit` takes the feature dicts of `MaskedLMPreprocessor`; a batch may mix rows of
    sentences and rows of pairs. The loss is the mean over the masked tokens of the
    global batch. Loss and accuracy of MLM and TLM are also logged separately. The
    softmax is tied to the token table and computed in chunks of the vocabulary.

    Shapes: R = packed rows, T = length in tokens, P = predictions per row.

    Args:
        backbone: A `LaBSEBackbone`. Its pooler gets no gradient from this task.
        head: A `MaskedLMHead` from an earlier stage (default: a new head).
        chunk_size: Number of vocabulary entries at a time, for a new head.
        **kwargs: `name`, `trainable`.

    Call arguments:
        inputs: Dict of int32 `(R, T)` features; `mask_positions` and `mask_ids`,
            int32 `(R, P)`; and `mask_weights`, float32 `(R, P)`.

    Returns:
        Dict of float32 `(R, P)`: `loss` and `correct`; 0 where `mask_weights` is 0.

    References:
        Devlin et al., 2019 (https://arxiv.org/abs/1810.04805); Conneau and Lample,
        2019 (https://arxiv.org/abs/1901.07291); Feng et al., 2022, section 3.1
        (https://arxiv.org/abs/2007.01852).
    """

    def __init__(
        self,
        backbone: LaBSEBackbone,
        head: MaskedLMHead | None = None,
        *,
        chunk_size: int = 8192,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backbone = backbone
        self.head = head or MaskedLMHead(
            backbone.vocabulary_size,
            backbone.hidden_dim,
            activation=backbone.activation,
            layer_norm_epsilon=backbone.layer_norm_epsilon,
            initializer_range=backbone.initializer_range,
            chunk_size=chunk_size,
            dtype=backbone.dtype_policy,
            name="masked_lm_head",
        )
        self.task_metrics = {
            f"{task}_{what}": keras.metrics.Mean(name=f"{task}_{what}")
            for task in ("mlm", "tlm")
            for what in ("loss", "accuracy")
        }
        self.built = True

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """Trainable weights except those of the pooler, which get no gradient."""
        idle = {id(weight) for weight in self.backbone.pooler.weights}
        return [w for w in super().trainable_weights if id(w) not in idle]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """Same as `trainable_weights`; Keras uses both names."""
        return self.trainable_weights

    def call(
        self, inputs: dict[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        """Predict the masked tokens; see the class."""
        states = self.backbone(inputs, training=training)["sequence_output"]
        return self.head(
            states,
            inputs["mask_positions"],
            inputs["mask_ids"],
            self.backbone.token_embedding.embeddings,
            inputs["mask_weights"],
        )

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adamw",
        *,
        jit_compile: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        """Set the optimizer; see `DualEncoder.compile`. The loss is built in."""
        super().compile(
            optimizer=optimizer,
            loss=None,
            jit_compile=resolve_jit_compile(jit_compile),
            **kwargs,
        )

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return this replica's share of the mean over the global batch's masks."""
        count = sum_over_replicas(ops.sum(ops.cast(x["mask_weights"], "float32")))
        loss = ops.sum(y_pred["loss"]) / ops.maximum(count, 1.0)
        if training:
            self.note_loss(loss)
        return loss

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Add a batch to the metrics and return the values of all metrics."""
        # Only pairs have a second segment.
        pairs = ops.cast(ops.any(x["segment_ids"] > 0, axis=1), "float32")[:, None]
        weights = ops.cast(x["mask_weights"], "float32")  # (R, P)
        for task, rows in (("mlm", 1.0 - pairs), ("tlm", pairs)):
            for what, key in (("loss", "loss"), ("accuracy", "correct")):
                self.task_metrics[f"{task}_{what}"].update_state(
                    y_pred[key], sample_weight=weights * rows
                )
        return self.get_metrics_result()

    def start_from_frequencies(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Set the bias of the head to the log frequencies of the masked tokens.

        For a new model, before its first step (ours, not in the paper). Without this,
        training first learns that most tokens are rare: it moves the rows of all rare
        tokens in the same direction. Their gradients are small, but Adam rescales them
        to full steps, and the vectors of all sentences become similar.

        Args:
            batches: Features for `fit`. Reading stops after 256 batches, or after 32
                predictions per vocabulary entry.
        """
        size = self.backbone.vocabulary_size
        counts = np.ones(size)  # Unseen tokens are rare, not impossible.
        for batch in itertools.islice(batches, 256):
            real = np.asarray(batch["mask_weights"]) > 0
            counts += np.bincount(np.asarray(batch["mask_ids"])[real], minlength=size)
            if counts.sum() > 33 * size:
                break
        self.head.output_bias.assign(np.log(counts / counts.sum()))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": serialize(self.backbone),
            "head": serialize(self.head),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MaskedLM:
        """Create the model from the result of `get_config`."""
        config = dict(config)
        for name in ("backbone", "head"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)
