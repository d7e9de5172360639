"""How often a sentence's nearest neighbour in the global batch is its translation.

Shapes: b = local batch, G = global batch, D = dimension.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from labse_tf.distribute import all_gather_rows, global_row_ids
from labse_tf.layers import same_sentences


@keras.saving.register_keras_serializable(package="labse_tf")
class TranslationRankingAccuracy(keras.metrics.Mean):
    """Share of sentences whose nearest candidate is their own translation.

    Both directions count; candidates are the other side's sentences of the global
    batch, so the value depends on the batch size and not on the number of replicas.

    Args:
        name: Name in logs.
        dtype: Of the running mean.

    Example:
        >>> import numpy as np
        >>> from labse_tf.metrics import TranslationRankingAccuracy
        >>> accuracy = TranslationRankingAccuracy()
        >>> source = np.eye(2, dtype="float32")
        >>> # Source 1 wants target 2, source 2 wants target 1: no hit. Both targets
        >>> # want source 1: right for the first alone. One hit of four.
        >>> target = np.array([[0.8, 0.6], [1.0, 0.0]], dtype="float32")
        >>> accuracy.update_state(source, target)
        >>> float(accuracy.result())
        0.25
    """

    def __init__(
        self, name: str = "ranking_accuracy", dtype: str | None = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)

    def update_state(
        self,
        source: Any,
        target: Any,
        sample_weight: None = None,
        *,
        source_ids: Any | None = None,
        target_ids: Any | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            source: float `(b, D)`, unit vectors.
            target: float `(b, D)`, unit vectors; row i translates `source` row i.
            sample_weight: Must be `None`; every pair counts once.
            source_ids: int32 `(b, 2)` fingerprints: copies of a sentence are no
                wrong answers. `None`: every other row is one.
            target_ids: The same for the targets.

        Raises:
            ValueError: If `sample_weight` is given.
        """
        if sample_weight is not None:
            raise ValueError(
                "`sample_weight` is not supported. "
                f"Received: sample_weight={sample_weight}"
            )
        labels = global_row_ids(source)
        copies = None
        if source_ids is not None and target_ids is not None:
            ids = ops.concatenate([source_ids, target_ids], axis=1)
            copies = same_sentences(ids, all_gather_rows(ids))
        hits = [
            _nearest_is(labels, queries, all_gather_rows(candidates), copies)
            for queries, candidates in ((source, target), (target, source))
        ]
        super().update_state(ops.concatenate(hits))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"name": self.name, "dtype": self.dtype}


def _nearest_is(labels: Any, queries: Any, candidates: Any, copies: Any | None) -> Any:
    """1.0 where a query's nearest candidate has the query's label: `(b,)`."""
    cosines = ops.matmul(queries, ops.transpose(candidates))  # (b, G)
    if copies is not None:
        columns = ops.arange(ops.shape(candidates)[0], dtype="int32")
        other = ops.not_equal(labels[:, None], columns[None, :])
        cosines = ops.where(ops.logical_and(copies, other), -2.0, cosines)
    nearest = ops.cast(ops.argmax(cosines, axis=1), "int32")
    return ops.cast(ops.equal(nearest, labels), "float32")
