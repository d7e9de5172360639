"""The masked language model: a backbone, the head over its table, a loss."""

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
    """A backbone that learns to restore masked tokens: MLM, and TLM over pairs.

    `fit` takes the feature dicts of `MaskedLMPreprocessor`; a batch may hold rows of
    sentences and rows of pairs. The loss is the mean over the masked tokens of the
    global batch; loss and accuracy of both tasks are also logged apart. The softmax
    over the vocabulary is tied to the token table and computed in chunks.

    Args:
        backbone: A `LaBSEBackbone`; its pooler gets no gradient from this task.
        head: A `MaskedLMHead`, from an earlier stage; made anew where left out.
        chunk_size: Vocabulary entries at a time, of a new head.
        **kwargs: `name`, `trainable`.

    Call arguments:
        inputs: Dict of int32 `(R, T)` features, and `mask_positions`, `mask_ids`
            int32 `(R, P)`, `mask_weights` float32 `(R, P)`.

    Returns:
        Dict of float32 `(R, P)`: `loss` and `correct`, 0 where there is no
        prediction.

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
        """All but the pooler's, which no masked token depends on."""
        idle = {id(weight) for weight in self.backbone.pooler.weights}
        return [w for w in super().trainable_weights if id(w) not in idle]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The same; Keras asks for both names."""
        return self.trainable_weights

    def call(
        self, inputs: dict[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        """See the class."""
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
        """Sets the optimiser; the loss is the model's own.

        Args:
            optimizer: A Keras optimiser or its name.
            jit_compile: `"auto"` is off on TensorFlow (a TPU compiles always).
            **kwargs: Other arguments of `keras.Model.compile`.
        """
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
        """Mean over the global batch's masked tokens; this replica's share of it."""
        count = sum_over_replicas(ops.sum(ops.cast(x["mask_weights"], "float32")))
        loss = ops.sum(y_pred["loss"]) / ops.maximum(count, 1.0)
        if training:
            self.note_loss(loss)
        return loss

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Adds a batch to the metrics and returns all their values."""
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
        """Sets the head's bias to the logarithm of how often each token occurs.

        For a new model, before its first step. A softmax that knows nothing gives all
        tokens the same share, and to correct this is the first thing it learns: the
        rows of all rare tokens move the same way, which Adam, blind to how small their
        gradients are, makes into as long a way as any. So sentences begin to look
        alike. Here the bias has the answer beforehand (ours, not the paper's).

        Args:
            batches: Features as `fit` takes them; as many of the first ones are read
                as make 32 predictions an entry of the vocabulary, and 256 at most.
        """
        size = self.backbone.vocabulary_size
        counts = np.ones(size)  # What does not occur is rare, not impossible.
        for batch in itertools.islice(batches, 256):
            real = np.asarray(batch["mask_weights"]) > 0
            counts += np.bincount(np.asarray(batch["mask_ids"])[real], minlength=size)
            if counts.sum() > 33 * size:
                break
        self.head.output_bias.assign(np.log(counts / counts.sum()))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": serialize(self.backbone),
            "head": serialize(self.head),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MaskedLM:
        """Makes the model again from `get_config`."""
        config = dict(config)
        for name in ("backbone", "head"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)
