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
) -> tf.data.Dataset:
    """Create batches of features and teacher vectors for a `Distiller`.

    Batch k has the pairs that `labse_tf.data.sentence_pairs` gives for the same plan.

    Args:
        pairs: Pairs of translations.
        targets: Their teacher vectors, from `make_targets`.
        preprocessor: See `labse_tf.data.sentence_pairs`.
        plan: Which pairs are in which batch.

    Returns:
        A `tf.data.Dataset` of `({"source": features, "target": features}, {"source":
        vectors, "target": vectors})`, vectors float32 `(B, d)`.

    Raises:
        ValueError: If the plan does not fit the corpus.
    """
    import tensorflow as tf

    batches = RowBatches(plan, pairs, lengths_to_sort(plan, pairs, preprocessor))
    dimension = targets.take(np.zeros(1, np.int64))[0].shape[1]

    def rows() -> Iterator[tuple[Any, ...]]:
        for chosen in batches:
            yield (*pairs.take(chosen), *targets.take(chosen))

    text = tf.TensorSpec((plan.batch_size,), tf.string)
    vectors = tf.TensorSpec((plan.batch_size, dimension), tf.float32)
    dataset = tf.data.Dataset.from_generator(
        rows, output_signature=(text, text, vectors, vectors)
    )

    def features(
        source: tf.Tensor, target: tf.Tensor, of_source: tf.Tensor, of_target: tf.Tensor
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        both = {"source": preprocessor(source), "target": preprocessor(target)}
        # Ragged operations may have lost the static batch dimension.
        both = tf.nest.map_structure(
            lambda x: tf.ensure_shape(x, text.shape.concatenate(x.shape[1:])), both
        )
        return both, {"source": of_source, "target": of_target}

    return finish(dataset, features, cardinality=batches.count, prefetch=None)
