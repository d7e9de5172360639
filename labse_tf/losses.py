"""The additive-margin bidirectional softmax over the global batch.

Shapes: b = local batch (one replica's rows), G = global batch, D = dimension.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from labse_tf.distribute import all_gather_rows, global_row_ids, replica_count
from labse_tf.layers import same_sentences

# A logit that leaves nothing of its column after the softmax, and is finite.
_MASKED = -1e9


@keras.saving.register_keras_serializable(package="labse_tf")
class AdditiveMarginSoftmax(keras.losses.Loss):
    r"""Ranks each sentence's translation above all others of the global batch.

    With cosine similarities $\phi$ of unit vectors, margin $m$ and scale $s$:

    $$L_{st} = -\frac{1}{G} \sum_i \log \frac{e^{s (\phi(x_i, y_i) - m)}}
    {e^{s (\phi(x_i, y_i) - m)} + \sum_{n \ne i} e^{s \phi(x_i, y_n)}}$$

    and the loss is $L_{st} + L_{ts}$: summed, not halved. Other pairs whose source
    or whose target is the same sentence are no negatives in either direction.

    Args:
        margin: Subtracted from the positive's cosine, 0.3 in the paper.
        scale: Multiplies the cosines. The paper gives none; the official YAML has
            100. Ours: 20, which small batches and small models learn best with.
        bidirectional: Adds target -> source to source -> target.
        cross_replica: Negatives from all replicas; `False` takes this replica's
            own only, as the official code does, and is there to compare.
        mask_duplicates: Uses `source_ids` and `target_ids` where they are given.
        name: Name of the loss.

    Call arguments:
        source: float `(b, D)`, unit vectors.
        target: float `(b, D)`, unit vectors; row i translates row i of `source`.
        sample_weight: Must be `None`.
        source_ids: int32 `(b, 2)` fingerprints, equal for equal sentences; see
            `labse_tf.layers.sentence_fingerprints`.
        target_ids: The same for the targets; both or none.

    Returns:
        float32 scalar: this replica's share, so that the sum over the replicas is
        the mean over the global batch, which is what `tf.distribute` expects.

    Raises:
        ValueError: If the two matrices differ in shape, only one of the id
            matrices is given, or with several replicas a batch is not static.

    Example:
        >>> import numpy as np
        >>> from labse_tf.losses import AdditiveMarginSoftmax
        >>> vectors = np.eye(2, dtype="float32")
        >>> loss = AdditiveMarginSoftmax(margin=0.5, scale=2.0)
        >>> # Each direction: log(e ** (2 * (1 - 0.5)) + e ** 0) - 1 = 0.3133
        >>> round(float(loss(vectors, vectors)), 4)
        0.6265

    References:
        Feng et al., 2022, sections 2.1 and 2.2, equations 1 to 3
        (https://arxiv.org/abs/2007.01852); Yang et al., 2019
        (https://arxiv.org/abs/1902.08564).
    """

    def __init__(
        self,
        margin: float = 0.3,
        scale: float = 20.0,
        *,
        bidirectional: bool = True,
        cross_replica: bool = True,
        mask_duplicates: bool = True,
        name: str = "additive_margin_softmax",
    ) -> None:
        super().__init__(name=name, reduction="sum_over_batch_size")
        if not scale > 0:
            raise ValueError(f"`scale` must be positive. Received: scale={scale}")
        self.margin = float(margin)
        self.scale = float(scale)
        self.bidirectional = bidirectional
        self.cross_replica = cross_replica
        self.mask_duplicates = mask_duplicates

    def __call__(
        self,
        source: Any,
        target: Any,
        sample_weight: None = None,
        *,
        source_ids: Any | None = None,
        target_ids: Any | None = None,
    ) -> Any:
        """See the class."""
        if sample_weight is not None:
            raise ValueError(
                "`sample_weight` has no meaning for a loss whose rows are each "
                f"other's negatives. Received: sample_weight={sample_weight}"
            )
        values = self.call(source, target, source_ids=source_ids, target_ids=target_ids)
        return ops.mean(values) / replica_count()

    def call(
        self,
        source: Any,
        target: Any,
        *,
        source_ids: Any | None = None,
        target_ids: Any | None = None,
    ) -> Any:
        """The loss of each local pair, both directions summed: `(b,)`."""
        source = ops.convert_to_tensor(source, dtype="float32")
        target = ops.convert_to_tensor(target, dtype="float32")
        if len(source.shape) != 2 or tuple(source.shape) != tuple(target.shape):
            raise ValueError(
                "`source` and `target` must be matrices of the same shape (b, D). "
                f"Received: source.shape={tuple(source.shape)}, "
                f"target.shape={tuple(target.shape)}"
            )
        if (source_ids is None) != (target_ids is None):
            raise ValueError(
                "`source_ids` and `target_ids` go together: give both or none. "
                f"Received: source_ids={source_ids}, target_ids={target_ids}"
            )
        dim = source.shape[1]
        # One collective for both sides instead of two.
        both = self._gather(ops.concatenate([source, target], axis=1))  # (G, 2D)
        all_sources, all_targets = both[:, :dim], both[:, dim:]  # (G, D)
        positive = self._positive(source, all_sources)  # (b, G)
        ignored = None
        if self.mask_duplicates and source_ids is not None:
            ignored = self._duplicates(source_ids, target_ids, positive)
        values = self._rank(source, all_targets, positive, ignored)
        if self.bidirectional:
            values = values + self._rank(target, all_sources, positive, ignored)
        return values

    def _gather(self, rows: Any) -> Any:
        """All replicas' rows, or this one's."""
        return all_gather_rows(rows) if self.cross_replica else rows

    def _positive(self, local_rows: Any, all_rows: Any) -> Any:
        """Bool `(b, G)`: true where the column is the row's own pair."""
        if self.cross_replica:
            labels = global_row_ids(local_rows)
        else:
            labels = ops.arange(ops.shape(local_rows)[0], dtype="int32")
        columns = ops.arange(ops.shape(all_rows)[0], dtype="int32")
        return ops.equal(labels[:, None], columns[None, :])

    def _duplicates(self, source_ids: Any, target_ids: Any, positive: Any) -> Any:
        """Bool `(b, G)`: another pair with the same source or the same target."""
        local = ops.concatenate([source_ids, target_ids], axis=1)  # (b, 4)
        shared = same_sentences(local, self._gather(local))
        return ops.logical_and(shared, ops.logical_not(positive))

    def _rank(
        self, queries: Any, candidates: Any, positive: Any, ignored: Any | None
    ) -> Any:
        """Cross-entropy of one direction, a row a query: `(b,)`."""
        cosines = ops.matmul(queries, ops.transpose(candidates))  # (b, G)
        own = ops.cast(positive, cosines.dtype)
        logits = self.scale * (cosines - self.margin * own)
        correct = ops.sum(logits * own, axis=1)
        if ignored is not None:
            logits = ops.where(ignored, _MASKED, logits)
        return ops.logsumexp(logits, axis=1) - correct

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "name": self.name,
            "margin": self.margin,
            "scale": self.scale,
            "bidirectional": self.bidirectional,
            "cross_replica": self.cross_replica,
            "mask_duplicates": self.mask_duplicates,
        }
