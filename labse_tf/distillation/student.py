"""Distiller: a dual encoder whose vectors learn from those of a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from labse_tf.distillation.losses import DistillationLoss
from labse_tf.distillation.states import (
    TeacherStates,
    states_loss,
    vectors_and_states,
)
from labse_tf.distribute import replica_count
from labse_tf.duplicates import pair_fingerprints
from labse_tf.models import DualEncoder
from labse_tf.models.gradient_caching import SIDES


@keras.saving.register_keras_serializable(package="labse_tf")
class Distiller(DualEncoder):
    """Dual encoder that is trained to return a teacher's vectors.

    `fit` takes `(x, y)`: x as for `DualEncoder`, and y a dict of float32 `(B, d)`
    teacher vectors `source` and `target`, such as those from `distillation_batches`,
    with the optional float `paired` `(B,)`, 0 where source and target are no
    translations of each other. `paired` must be equal in all rows of a batch.

    `compile` takes a `DistillationLoss`. The default metric is `teacher_cosine`, the
    mean cosine of the student's and the teacher's vectors. For the other arguments and
    methods see `DualEncoder`.

    `learn_states` adds a loss of the states of all tokens after each block.
    """

    _states: TeacherStates | None = None
    _states_weight = 0.0

    def learn_states(self, states: TeacherStates, weight: float) -> None:
        """Add a loss to that of `compile`: the distance to the teacher's states.

        The loss is `weight` times the mean of `states_loss` over both sides. Call this
        before the first step. The teacher is not a part of this model: neither
        checkpoints nor `weights` contain it.

        Args:
            states: The teacher's states.
            weight: Weight of the loss, above 0.

        Raises:
            ValueError: If the weight is not positive, or the batch is encoded in
                chunks or groups, where a text has no states of its batch.
        """
        if not weight > 0:
            raise ValueError(f"`weight` must be positive. Received: {weight}")
        if self.chunk_size is not None or self.length_groups > 1:
            raise ValueError(
                "`chunk_size` must be None and `length_groups` 1 if states are "
                f"learned. Received: chunk_size={self.chunk_size}, "
                f"length_groups={self.length_groups}"
            )
        self._states, self._states_weight = states, float(weight)

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """Encode both sides; with `learn_states`, return the states too.

        These are `source_states` and `target_states`, a list of `(B, T, D)`.
        """
        if self._states is None:
            return super().call(inputs, training=training)
        result = {}
        for side in SIDES:
            found = vectors_and_states(self.encoder, inputs[side], training)
            result[side], result[f"{side}_states"] = found
        return result

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adamw",
        loss: keras.losses.Loss | None = None,
        *,
        metrics: Sequence[keras.metrics.Metric] | None = None,
        **kwargs: Any,
    ) -> None:
        """Set optimizer, loss and metrics; see `DualEncoder.compile`.

        Raises:
            ValueError: If `loss` is not a `DistillationLoss`.
        """
        if not isinstance(loss, DistillationLoss):
            raise ValueError(f"`loss` must be a DistillationLoss. Received: {loss}")
        metrics = [TeacherCosine()] if metrics is None else metrics
        super().compile(optimizer, loss, metrics=metrics, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the loss of a batch."""
        if self.pair_loss is None:
            raise ValueError("Call `compile` with a `loss` first. Received: loss=None")
        paired = y.get("paired")
        loss = self.pair_loss(
            y_pred["source"],
            y_pred["target"],
            y["source"],
            y["target"],
            **pair_fingerprints(x),
            paired=1.0 if paired is None else ops.mean(paired),
        )
        if self._states is not None:
            loss = loss + self._states_weight * _states_share(self._states, x, y_pred)
        if training:
            self.note_loss(loss)
        return loss

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Add a batch to the metrics and return the values of all metrics."""
        for metric in self.pair_metrics:
            metric.update_state(
                ops.concatenate([y_pred["source"], y_pred["target"]]),
                ops.concatenate([y["source"], y["target"]]),
            )
        return self.get_metrics_result()


@keras.saving.register_keras_serializable(package="labse_tf")
class TeacherCosine(keras.metrics.Mean):
    """Mean cosine of the student's and the teacher's vectors.

    Args:
        name: Name of the metric.
    """

    def __init__(self, name: str = "teacher_cosine", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)

    def update_state(self, student: Any, teacher: Any) -> None:
        """Add unit vectors, float `(n, d)` each."""
        super().update_state(ops.sum(student * teacher, axis=1))


def _states_share(states: TeacherStates, x: Any, y_pred: Any) -> Any:
    """Return this replica's share of the mean loss of states over both sides."""
    total = 0.0
    for side in SIDES:
        losses = states_loss(
            y_pred[f"{side}_states"],
            states(x[side]),
            x[side]["padding_mask"],
            states.variances,
        )
        total = total + ops.mean(losses) / replica_count()
    return total / 2
