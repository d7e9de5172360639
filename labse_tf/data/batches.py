"""Batches: pairs and a plan -> `tf.data.Dataset` of features.

Shapes: N pairs of a corpus, B pairs of a batch, T places of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.corpus import ParallelCorpus
from labse_tf.data.loading import Files, load_pairs
from labse_tf.data.sampling import RowBatches, SamplingPlan, given_plan
from labse_tf.data.shards.tokens import TokenCorpus, check_tokenizer, token_features
from labse_tf.data.text_vectors import CorpusVectors
from labse_tf.text import OnError

if TYPE_CHECKING:
    import tensorflow as tf

Preprocessor = Callable[[Any], dict[str, Any]]


def sentence_pairs(
    files_or_corpus: Files | ParallelCorpus | TokenCorpus,
    preprocessor: Preprocessor,
    plan: SamplingPlan | None = None,
    *,
    batch_size: int | None = None,
    languages: Iterable[str] | None = None,
    language: str | None = None,
    on_error: OnError = "raise",
    prefetch: int | None = None,
    guide: CorpusVectors | None = None,
) -> tf.data.Dataset:
    """Create batches of features for a `DualEncoder`.

    Batch k depends only on the text, the plan and k. To resume, pass a plan with
    `start_step`: the dataset starts at once with exactly the batch of the uninterrupted
    run. The orders come from NumPy's generators, so resume with the same NumPy version.
    A second iteration starts at `start_step` again; for several epochs with different
    batches use `steps=-1` and Keras's `steps_per_epoch`.

    Each language's pairs are drawn without replacement until all are used, then in a
    new order. In batches of one language a pair occurs twice in a batch only if the
    language has fewer pairs than the batch. In mixed batches this is rare, but possible
    for a small language. The loss masks duplicates.

    All replicas share one pipeline: Keras splits the global batch. Each of several
    workers makes the whole batch and keeps its rows.

    Args:
        files_or_corpus: Paths (see `load_pairs`) or a corpus. A corpus of token ids
            from `open_prepared` requires a `SentencePreprocessor` with the tokenizer
            that prepared it.
        preprocessor: Function from a string tensor `(B,)` to a dict of int32 `(B, T)`,
            such as `SentencePreprocessor`. It runs in graph mode without AutoGraph:
            decorate a function with an `if` or a loop over tensors as `tf.function`.
        plan: Which pairs are in which batch.
        batch_size: Number of pairs in the global batch, for a plan with all defaults.
        languages: Languages to keep; `None` for all.
        language: See `load_pairs`.
        on_error: See `load_pairs`.
        prefetch: Number of batches to prefetch; `None` lets tf.data choose.
        guide: Vectors of a corpus of text by a guide, from `TextVectors.of`, which are
            added to the batches.

    Returns:
        A `tf.data.Dataset` of `{"source": features, "target": features}`, with a known
        cardinality and a static batch dimension. With a guide, of such a dict and
        `{"source": vectors, "target": vectors}`, unit vectors, float32 `(B, g)`.

    Raises:
        DataError: See `read_pairs`.
        ValueError: If an argument is out of range, a batch is larger than the corpus,
            or a guide is given with token ids or for another number of pairs.
    """
    import tensorflow as tf

    plan = given_plan(plan, batch_size)
    corpus = _corpus(files_or_corpus, languages, language, on_error)
    batches = RowBatches(plan, corpus, lengths_to_sort(plan, corpus, preprocessor))
    static = plan.batch_size if plan.drop_remainder else None
    if isinstance(corpus, TokenCorpus):
        check_tokenizer(corpus.description, preprocessor)
        signature, features = _of_tokens(preprocessor, static)
    else:
        signature, features = _of_text(preprocessor, static)
    if guide is not None:
        _check_guide(guide, corpus)
        vectors = tf.TensorSpec((static, guide.dimension), tf.float32)
        signature = (*signature, vectors, vectors)

    def take(rows: NDArray[np.int64]) -> tuple[Any, ...]:
        return (*corpus.take(rows), *(() if guide is None else guide.take(rows)))

    def complete(source: Any, target: Any, *known: tf.Tensor) -> Any:
        both = features(source, target)
        return (both, {"source": known[0], "target": known[1]}) if known else both

    dataset = tf.data.Dataset.from_generator(
        lambda: map(take, batches), output_signature=signature
    )
    return finish(dataset, complete, cardinality=batches.count, prefetch=prefetch)


def _corpus(
    files_or_corpus: Files | ParallelCorpus | TokenCorpus,
    languages: Iterable[str] | None,
    language: str | None,
    on_error: OnError,
) -> ParallelCorpus | TokenCorpus:
    """Return the given corpus, or load it from files."""
    if not isinstance(files_or_corpus, (ParallelCorpus, TokenCorpus)):
        return load_pairs(
            files_or_corpus, language=language, on_error=on_error, languages=languages
        )
    if language is not None:
        raise ValueError(f"`language` must be None with a corpus. Received: {language}")
    return files_or_corpus if languages is None else files_or_corpus.select(languages)


def lengths_to_sort(
    plan: SamplingPlan,
    corpus: ParallelCorpus | TokenCorpus,
    preprocessor: Preprocessor,
) -> NDArray[np.int32] | None:
    """Return the lengths by which a plan forms batches, `(N,)`; `None` without."""
    if not plan.shuffle or not plan.length_buckets:
        return None
    if plan.length_buckets == "tokens":
        return _token_lengths(corpus, preprocessor)
    return corpus.lengths


def rows_in_batches(
    plan: SamplingPlan,
    corpus: ParallelCorpus | TokenCorpus,
    preprocessor: Preprocessor,
) -> NDArray[np.int64]:
    """Return the rows of a corpus that the batches of a finite plan use, `(n,)`.

    They are in ascending order. For the arguments see `sentence_pairs`.
    """
    used = np.zeros(len(corpus), bool)
    lengths = lengths_to_sort(plan, corpus, preprocessor)
    for rows in RowBatches(plan, corpus, lengths):
        used[rows] = True
    return np.flatnonzero(used)


def _token_lengths(
    corpus: ParallelCorpus | TokenCorpus, preprocessor: Preprocessor
) -> NDArray[np.int32]:
    """Return the tokens of the longer side of each pair, `(N,)`."""
    if isinstance(corpus, TokenCorpus):
        return corpus.lengths
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)
    def count(strings: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(preprocessor(strings)["padding_mask"], axis=1)

    result = np.zeros(len(corpus), np.int32)
    for first in range(0, len(corpus), 4096):
        rows = np.arange(first, min(first + 4096, len(corpus)))
        for texts in corpus.take(rows):
            result[rows] = np.maximum(result[rows], count(tf.constant(texts)))
    return result


def _check_guide(guide: CorpusVectors, corpus: ParallelCorpus | TokenCorpus) -> None:
    """Raise an error if a guide's vectors are not those of a corpus of text."""
    if isinstance(corpus, TokenCorpus):
        raise ValueError(
            "`guide` requires pairs as text, not prepared pairs. Received: TokenCorpus"
        )
    counts = [len(side) for side in guide.rows]
    if counts != [len(corpus)] * 2:
        raise ValueError(
            f"`guide` must have two sides of {len(corpus)} rows each, the number of "
            f"pairs. Received: {counts}"
        )


def _of_text(
    preprocessor: Preprocessor, batch_size: int | None
) -> tuple[Any, Callable[..., dict[str, Any]]]:
    """Return the signature of a batch of text, and the function to its features."""
    import tensorflow as tf

    strings = tf.TensorSpec((batch_size,), tf.string)

    def features(source: tf.Tensor, target: tf.Tensor) -> dict[str, Any]:
        both = {"source": preprocessor(source), "target": preprocessor(target)}
        # Ragged operations may have lost the static batch dimension.
        return tf.nest.map_structure(
            lambda x: tf.ensure_shape(x, strings.shape.concatenate(x.shape[1:])), both
        )

    return (strings, strings), features


def _of_tokens(
    preprocessor: Any, batch_size: int | None
) -> tuple[Any, Callable[..., dict[str, Any]]]:
    """Return the signature of a batch of token ids, and the function to features."""
    import tensorflow as tf

    def features(*sides: tuple[tf.Tensor, tf.Tensor]) -> dict[str, Any]:
        source, target = (
            tf.RaggedTensor.from_row_lengths(*side, validate=False) for side in sides
        )
        return token_features(preprocessor, source, target, batch_size)

    side = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None,), tf.int64)
    return (side, side), features


def finish(
    dataset: tf.data.Dataset,
    features: Callable[..., Any],
    *,
    cardinality: int | None,
    prefetch: int | None,
) -> tf.data.Dataset:
    """Map batches to features in order, and set the options for all replicas.

    Args:
        dataset: Batches of text or token ids.
        features: Function from the components of a batch to its features.
        cardinality: Number of batches; `None` if infinite.
        prefetch: See `sentence_pairs`.
    """
    import tensorflow as tf

    infinite = tf.data.experimental.INFINITE_CARDINALITY
    dataset = dataset.apply(
        tf.data.experimental.assert_cardinality(
            infinite if cardinality is None else cardinality
        )
    )
    # Nothing needs conversion, and AutoGraph warns if it cannot read a function's
    # source.
    dataset = dataset.map(
        tf.autograph.experimental.do_not_convert(features),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    options = tf.data.Options()
    options.deterministic = True
    # Each worker reads all batches and keeps its own rows of each. Without sharding all
    # workers would keep the same rows, and the other rows would not be trained on.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    dataset = dataset.with_options(options)
    return dataset.prefetch(tf.data.AUTOTUNE if prefetch is None else prefetch)
