"""Distiller: a dual encoder whose vectors learn from those of a teacher."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from labse_tf.distillation.losses import DistillationLoss
from labse_tf.duplicates import pair_fingerprints
from labse_tf.models import DualEncoder


@keras.saving.register_keras_serializable(package="labse_tf")
class Distiller(DualEncoder):
    """Dual encoder that is trained to return a teacher's vectors.

    `fit` takes `(x, y)`: x as for `DualEncoder`, and y a dict of float32 `(B, d)`
    teacher vectors `source` and `target`, such as those from `distillation_batches`,
    with the optional float `paired` `(B,)`, 0 where source and target are no
    translations of each other. `paired` must be equal in all rows of a batch.

    Args and methods: see `DualEncoder`. `compile` takes a `DistillationLoss`.
    """

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Return the loss of a batch."""
        if not isinstance(self.pair_loss, DistillationLoss):
            raise ValueError(
                "Call `compile` with a DistillationLoss first. "
                f"Received: loss={self.pair_loss}"
            )
        paired = y.get("paired")
        loss = self.pair_loss(
            y_pred["source"],
            y_pred["target"],
            y["source"],
            y["target"],
            **pair_fingerprints(x),
            paired=1.0 if paired is None else ops.mean(paired),
        )
        if training:
            self.note_loss(loss)
        return loss
