"""Losses of distillation: a student's vectors against those of its teacher.

Shapes: b = local batch (one replica's rows), G = global batch, d = dimension.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from labse_tf.distribute import all_gather_rows, global_row_ids, replica_count
from labse_tf.duplicates import same_sentences
from labse_tf.losses import AdditiveMarginSoftmax

# A finite logit whose softmax is 0.
_MASKED = -1e9


@keras.saving.register_keras_serializable(package="labse_tf")
class DistillationLoss(keras.losses.Loss):
    r"""Weighted sum of the losses of distillation, over both sides of the pairs.

    With the student's unit vectors $x_i, y_i$ of source and target, the teacher's
    $u_i, v_i$, cosines $\phi$ and temperatures $t$ and $T$:

    - feature: $\frac{1}{2G} \sum_i |x_i - u_i|^2 + |y_i - v_i|^2$
    - logit: cross-entropy of $\mathrm{softmax}_j\, \phi(x_i, y_j) / T$ to
      $\mathrm{softmax}_j\, \phi(u_i, v_j) / T$, less its minimum (a
      Kullback-Leibler divergence), mean of both directions
    - contrastive: cross-entropy of $\mathrm{softmax}_j\, \phi(x_i, u_j) / t$ to
      the text's own teacher vector, mean of both sides
    - margin: `labse_tf.losses.AdditiveMarginSoftmax` of the student's vectors

    Negatives come from all replicas. Other copies of a text are not negatives.

    Args:
        feature: Weight of the squared distance to the teacher's vector.
        logit: Weight of the divergence from the teacher's similarities.
        contrastive: Weight of the ranking of the own teacher vector.
        margin: Weight of the ranking of translations. Only pairs can be ranked: the
            other terms also work with unrelated texts on both sides.
        temperature: t.
        logit_temperature: T.
        pair_loss: Loss of the term `margin` (default: `AdditiveMarginSoftmax()`).
        name: Name of the loss.

    Call arguments:
        source: Float `(b, d)`, the student's unit vectors of the sources.
        target: Float `(b, d)`, those of the targets.
        teacher_source: Float `(b, d)`, unit vectors that `source` should equal.
        teacher_target: Float `(b, d)`, unit vectors that `target` should equal.
        source_ids: int32 `(b, 2)` fingerprints; see `AdditiveMarginSoftmax`.
        target_ids: The same for the targets.
        paired: Float scalar, 1 if the rows are pairs, 0 if both sides are unrelated
            texts; factor of the margin loss.

    Returns:
        float32 scalar, this replica's share; see `AdditiveMarginSoftmax`.

    Raises:
        ValueError: If a weight is negative, all are 0, or a temperature is not
            positive.

    Example:
        >>> import numpy as np
        >>> from labse_tf.distillation import DistillationLoss
        >>> student = np.eye(2, dtype="float32")
        >>> teacher = student[::-1]
        >>> loss = DistillationLoss(feature=1.0, margin=0.0)
        >>> float(loss(student, student, teacher, student))
        1.0

    References:
        Reimers and Gurevych, 2020 (https://arxiv.org/abs/2004.09813), feature; Mao and
        Nakagawa, 2023 (https://arxiv.org/abs/2302.08387), feature and logit.
    """

    def __init__(
        self,
        *,
        feature: float = 5.0,
        logit: float = 0.0,
        contrastive: float = 0.0,
        margin: float = 0.5,
        temperature: float = 0.07,
        logit_temperature: float = 0.05,
        pair_loss: AdditiveMarginSoftmax | None = None,
        name: str = "distillation",
    ) -> None:
        super().__init__(name=name, reduction="sum_over_batch_size")
        weights = {
            "feature": feature,
            "logit": logit,
            "contrastive": contrastive,
            "margin": margin,
        }
        for key, value in weights.items():
            if not value >= 0:
                raise ValueError(f"`{key}` must be 0 or more. Received: {value}")
        if not any(weights.values()):
            raise ValueError(
                "`feature`, `logit`, `contrastive` or `margin` must be positive. "
                f"Received: {weights}"
            )
        for key, value in (
            ("temperature", temperature),
            ("logit_temperature", logit_temperature),
        ):
            if not value > 0:
                raise ValueError(f"`{key}` must be positive. Received: {value}")
        self.weights = {key: float(value) for key, value in weights.items()}
        self.temperature = float(temperature)
        self.logit_temperature = float(logit_temperature)
        self.pair_loss = AdditiveMarginSoftmax() if pair_loss is None else pair_loss

    def __call__(
        self,
        source: Any,
        target: Any,
        teacher_source: Any,
        teacher_target: Any,
        *,
        source_ids: Any | None = None,
        target_ids: Any | None = None,
        paired: Any = 1.0,
    ) -> Any:
        """Return this replica's share of the loss; see the class."""
        vectors = (source, target, teacher_source, teacher_target)
        terms = self.terms(*vectors, source_ids=source_ids, target_ids=target_ids)
        if "margin" in terms:
            terms["margin"] = terms["margin"] * paired
        return sum(self.weights[name] * value for name, value in terms.items())

    def terms(
        self,
        source: Any,
        target: Any,
        teacher_source: Any,
        teacher_target: Any,
        *,
        source_ids: Any | None = None,
        target_ids: Any | None = None,
    ) -> dict[str, Any]:
        """Return the value of each term with a positive weight, without the weight."""
        x, y, u, v = (
            ops.convert_to_tensor(vectors, dtype="float32")
            for vectors in (source, target, teacher_source, teacher_target)
        )
        shapes = [tuple(vectors.shape) for vectors in (x, y, u, v)]
        if any(len(s) != 2 or s[1] != shapes[0][1] for s in shapes) or any(
            rows not in (None, shapes[0][0]) for rows, _ in shapes
        ):
            raise ValueError(
                "`source`, `target` and their teacher vectors must be matrices of the "
                f"same shape (b, d). Received: {shapes}"
            )
        # A replica's part of `fit`'s second argument has lost its static size.
        u, v = (ops.reshape(vectors, shapes[0]) for vectors in (u, v))
        ids = {"source_ids": source_ids, "target_ids": target_ids}
        terms = {}
        if self.weights["feature"]:
            distances = ops.sum(ops.square(x - u) + ops.square(y - v), axis=1)
            terms["feature"] = _share(distances / 2)
        if self.weights["logit"]:
            terms["logit"] = _share(self._logit(x, y, u, v))
        if self.weights["contrastive"]:
            terms["contrastive"] = _share(self._contrastive(x, y, u, v, **ids))
        if self.weights["margin"]:
            terms["margin"] = self.pair_loss(x, y, **ids)
        return terms

    def _logit(self, x: Any, y: Any, u: Any, v: Any) -> Any:
        """Return the divergence of each pair, `(b,)`."""
        size = x.shape[1]
        every = all_gather_rows(ops.concatenate([x, y, u, v], axis=1))
        xs, ys, us, vs = (every[:, i * size : (i + 1) * size] for i in range(4))
        total = 0.0
        for queries, candidates, known, others in ((x, ys, u, vs), (y, xs, v, us)):
            wanted = ops.log_softmax(_cosines(known, others) / self.logit_temperature)
            found = ops.log_softmax(
                _cosines(queries, candidates) / self.logit_temperature
            )
            total = total + ops.sum(ops.exp(wanted) * (wanted - found), axis=1)
        return total / 2

    def _contrastive(
        self,
        x: Any,
        y: Any,
        u: Any,
        v: Any,
        source_ids: Any | None,
        target_ids: Any | None,
    ) -> Any:
        """Return the cross-entropy of each pair, `(b,)`."""
        size = x.shape[1]
        every = all_gather_rows(ops.concatenate([u, v], axis=1))
        rows = ops.arange(ops.shape(every)[0], dtype="int32")
        own = ops.equal(global_row_ids(x)[:, None], rows[None, :])
        ignored = None
        if source_ids is not None:
            ids = ops.concatenate([source_ids, target_ids], axis=1)
            copies = same_sentences(ids, all_gather_rows(ids))
            ignored = ops.logical_and(copies, ops.logical_not(own))
        total = 0.0
        for queries, candidates in ((x, every[:, :size]), (y, every[:, size:])):
            logits = _cosines(queries, candidates) / self.temperature
            if ignored is not None:
                logits = ops.where(ignored, _MASKED, logits)
            correct = ops.sum(logits * ops.cast(own, logits.dtype), axis=1)
            total = total + ops.logsumexp(logits, axis=1) - correct
        return total / 2

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            **self.weights,
            "temperature": self.temperature,
            "logit_temperature": self.logit_temperature,
            "pair_loss": keras.saving.serialize_keras_object(self.pair_loss),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DistillationLoss:
        """Create the loss from the result of `get_config`."""
        pair_loss = keras.saving.deserialize_keras_object(config["pair_loss"])
        return cls(**{**config, "pair_loss": pair_loss})


def _cosines(queries: Any, candidates: Any) -> Any:
    return ops.matmul(queries, ops.transpose(candidates))


def _share(values: Any) -> Any:
    """Return this replica's share of the mean over the global batch."""
    return ops.mean(values) / replica_count()
