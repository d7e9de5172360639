"""Metric: share of sentences whose nearest neighbor in the batch is their translation.

Shapes: b = local batch (one replica's rows), D = dimension, K = block of candidates.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from labse_tf.blockwise import cut_rows, over_blocks
from labse_tf.distribute import all_gather_rows, global_row_ids
from labse_tf.duplicates import joined_ids, pair_masks


@keras.saving.register_keras_serializable(package="labse_tf")
class TranslationRankingAccuracy(keras.metrics.Mean):
    """Share of sentences whose nearest candidate is their own translation.

    Both directions count. Candidates are the sentences of the other side in the global
    batch. The value therefore depends on the batch size, but not on the number of
    replicas.

    Args:
        name: Name in logs.
        dtype: Type of the running mean.
        block_size: K, number of candidates at a time. Memory is then linear in the
            batch. `None` uses all candidates at once.

    Raises:
        ValueError: If `block_size` is not positive.

    Example:
        >>> import numpy as np
        >>> from labse_tf.metrics import TranslationRankingAccuracy
        >>> accuracy = TranslationRankingAccuracy()
        >>> source = np.eye(2, dtype="float32")
        >>> # The nearest target of source 1 is target 2, that of source 2 is target 1:
        >>> # no hits. The nearest source of both targets is source 1: one hit in four.
        >>> target = np.array([[0.8, 0.6], [1.0, 0.0]], dtype="float32")
        >>> accuracy.update_state(source, target)
        >>> float(accuracy.result())
        0.25
    """

    def __init__(
        self,
        name: str = "ranking_accuracy",
        dtype: str | None = None,
        *,
        block_size: int | None = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        if block_size is not None and block_size < 1:
            raise ValueError(
                f"`block_size` must be positive. Received: block_size={block_size}"
            )
        self.block_size = block_size

    def update_state(
        self,
        source: Any,
        target: Any,
        sample_weight: None = None,
        *,
        source_ids: Any | None = None,
        target_ids: Any | None = None,
    ) -> None:
        """Add a batch to the running mean.

        Args:
            source: Float `(b, D)`, unit vectors.
            target: Float `(b, D)`, unit vectors; row i is the translation of source
                row i.
            sample_weight: Must be `None`; every pair counts once.
            source_ids: int32 `(b, 2)` fingerprints. Pairs that share a sentence are
                then not candidates for each other.
            target_ids: The same for the targets. Requires `source_ids`, and vice versa.

        Raises:
            ValueError: If `sample_weight` or only one of the ids is given.
        """
        if sample_weight is not None:
            raise ValueError(
                f"`sample_weight` must be None. Received: sample_weight={sample_weight}"
            )
        source, target = (
            ops.convert_to_tensor(x, dtype="float32") for x in (source, target)
        )
        ids = joined_ids(source_ids, target_ids)  # (b, 4)
        all_ids = None if ids is None else all_gather_rows(ids)
        hits = [
            self._hits(queries, all_gather_rows(candidates), ids, all_ids)
            for queries, candidates in ((source, target), (target, source))
        ]
        super().update_state(ops.concatenate(hits))

    def _hits(
        self, queries: Any, candidates: Any, ids: Any | None, all_ids: Any | None
    ) -> Any:
        """Return 1.0 where the nearest candidate of a query is its own pair: `(b,)`."""
        labels = global_row_ids(queries)

        def step(start: Any, rows: Any, top: Any, nearest: Any) -> tuple[Any, ...]:
            columns = start + ops.arange(rows, dtype="int32")
            block_ids = None if ids is None else cut_rows(all_ids, start, rows)
            _, copies = pair_masks(labels, columns, ids, block_ids)
            block = cut_rows(candidates, start, rows)
            cosines = ops.matmul(queries, ops.transpose(block))  # (b, K)
            if copies is not None:
                cosines = ops.where(copies, -2.0, cosines)
            highest = ops.max(cosines, axis=1)
            place = start + ops.cast(ops.argmax(cosines, axis=1), "int32")
            nearest = ops.where(highest > top, place, nearest)
            return ops.maximum(top, highest), nearest

        lowest = ops.full_like(queries[:, 0], -3.0)
        state = (lowest, ops.full_like(labels, -1))
        size = ops.shape(candidates)[0]
        _, nearest = over_blocks(step, state, size, self.block_size)
        return ops.cast(ops.equal(nearest, labels), "float32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"name": self.name, "dtype": self.dtype, "block_size": self.block_size}
