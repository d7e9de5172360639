"""Batches of distillation: text and the teacher's vectors -> `tf.data.Dataset`.

Shapes: B pairs of a batch, d = dimension of the student.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from labse_tf.data import ParallelCorpus, SamplingPlan
from labse_tf.data.batches import finish, lengths_to_sort
from labse_tf.data.sampling import RowBatches
from labse_tf.distillation.teacher import Targets

if TYPE_CHECKING:
    import tensorflow as tf

Preprocessor = Callable[[Any], dict[str, Any]]


def distillation_batches(
    pairs: ParallelCorpus,
    targets: Targets,
    preprocessor: Preprocessor,
    plan: SamplingPlan,
    *,
    source_share: float | None = None,
) -> tf.data.Dataset:
    """Create batches of features and teacher vectors for a `Distiller`.

    Batch k has the pairs that `labse_tf.data.sentence_pairs` gives for the same plan.

    Args:
        pairs: Pairs of translations.
        targets: Their teacher vectors, from `make_targets`.
        preprocessor: See `labse_tf.data.sentence_pairs`.
        plan: Which pairs are in which batch. `plan.batch_size` must be even with
            `source_share`.
        source_share: If given, one side of each pair is used: the source with this
            probability, else the target. The first half of these texts becomes the
            `source` of the batch, the second half its `target`, b = B / 2, and `paired`
            is 0. `None` uses both sides of all pairs, b = B.

    Returns:
        A `tf.data.Dataset` of `(x, y)`; x is `{"source": features, "target": features}`
        of int32 `(b, T)`; y is `{"source": vectors, "target": vectors}`, float32
        `(b, d)`, and `paired`, float32 `(b,)`.

    Raises:
        ValueError: If the plan does not fit the corpus.
    """
    import tensorflow as tf

    batches = RowBatches(plan, pairs, lengths_to_sort(plan, pairs, preprocessor))
    dimension = targets.take(np.zeros(1, np.int64))[0].shape[1]
    rows = plan.batch_size if source_share is None else plan.batch_size // 2

    def generate() -> Iterator[tuple[Any, ...]]:
        for step, chosen in enumerate(batches, plan.start_step):
            texts, vectors = pairs.take(chosen), targets.take(chosen)
            if source_share is not None:
                random = np.random.default_rng([plan.seed, step, len(chosen)])
                of_source = random.random(len(chosen)) < source_share
                texts = _halves(np.where(of_source, *texts))
                vectors = _halves(np.where(of_source[:, None], *vectors))
            yield (*texts, *vectors)

    text = tf.TensorSpec((rows,), tf.string)
    vector = tf.TensorSpec((rows, dimension), tf.float32)
    dataset = tf.data.Dataset.from_generator(
        generate, output_signature=(text, text, vector, vector)
    )

    def features(
        source: tf.Tensor, target: tf.Tensor, of_source: tf.Tensor, of_target: tf.Tensor
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        both = {"source": preprocessor(source), "target": preprocessor(target)}
        # Ragged operations may have lost the static batch dimension.
        both = tf.nest.map_structure(
            lambda x: tf.ensure_shape(x, text.shape.concatenate(x.shape[1:])), both
        )
        paired = tf.fill([rows], 1.0 if source_share is None else 0.0)
        return both, {"source": of_source, "target": of_target, "paired": paired}

    return finish(dataset, features, cardinality=batches.count, prefetch=None)


def _halves(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]
