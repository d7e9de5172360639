"""Batches: the rows of batch k -> `tf.data.Dataset` of features.

Shapes: N pairs of a corpus, B pairs of a batch.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.corpus import Files, ParallelCorpus, _Corpus, load_pairs
from labse_tf.data.sampling import (
    _check_numbers,
    _Neighbors,
    _plan,
    _plan_in_order,
    mixture,
)
from labse_tf.data.shards.tokens import TokenCorpus, check_tokenizer
from labse_tf.text import OnError

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.preprocessing import SentencePreprocessor


# === Dataset ===


def sentence_pairs(
    files_or_corpus: Files | ParallelCorpus | TokenCorpus,
    preprocessor: Callable[[Any], dict[str, Any]],
    *,
    batch_size: int,
    steps: int | None = None,
    start_step: int = 0,
    seed: int = 0,
    smoothing: float = 0.3,
    cap: int | None = None,
    batches: Literal["mixed", "one_language"] = "mixed",
    length_buckets: bool | Literal["tokens"] = True,
    vectors: NDArray[np.floating] | None = None,
    group_size: int = 64,
    shuffle: bool = True,
    drop_remainder: bool = True,
    languages: Iterable[str] | None = None,
    language: str | None = None,
    on_error: OnError = "raise",
    prefetch: int | None = None,
) -> tf.data.Dataset:
    """Batches of features for a `DualEncoder`.

    Batch k depends on the text, the seed, the options and k only. A resumed run passes
    `start_step` and gets what the uninterrupted run would have got, at once and bit for
    bit; the orders come from NumPy's generators, so keep its version while resuming.
    Iterating again starts at `start_step` again: for several epochs of other batches
    take `steps=-1` and Keras's `steps_per_epoch`.

    Each language's pairs are drawn without replacement until all had their turn, then
    in a new order. In batches of one language a pair occurs twice in a batch only where
    the language has fewer pairs than the batch; in mixed batches this is rare, not
    excluded, where a language is small. The loss masks duplicates.

    The pipeline is one for all replicas: Keras splits the global batch. Each of several
    workers makes the whole batch and keeps its rows.

    Args:
        files_or_corpus: paths as in `load_pairs`, or a corpus, also one of token ids
            from `open_prepared`, whose preprocessor must be a `SentencePreprocessor`
            with the tokenizer that it was prepared with.
        preprocessor: string tensor `(batch,)` -> dict of int32 `(batch, length)`, such
            as `SentencePreprocessor`; runs inside `tf.data`, in graph mode and without
            AutoGraph: make one with an `if` or a loop over tensors a `tf.function`.
        batch_size: pairs of the global batch.
        steps: number of the batch to stop before, counted from 0 and not from
            `start_step`; None for one pass's worth, the pairs (of a language: at most
            `cap`) divided by `batch_size`; -1 for no end.
        start_step: number of the first batch.
        seed: not negative.
        smoothing: see `mixture`; the share is one of pairs or, in batches of one
            language, of batches.
        cap: see `mixture`; all pairs of the language still have their turn.
        batches: `"mixed"`, languages mixed inside a batch, or `"one_language"`.
        length_buckets: put pairs of similar length together, to save padding. True
            goes by characters; `"tokens"` runs the preprocessor over the whole corpus
            first (some 70,000 pairs a second) and goes by its `padding_mask`. Measured
            on eleven Indian languages, batches of 512: 23 % of the places hold tokens
            without buckets, 53 % by characters, 81 % by tokens.
        vectors: `(N, D)` of unit length, one a pair in the corpus's order, by which
            pairs are alike; may be float16 and memory-mapped. A batch is then put
            together of groups of neighbours, drawn anew every epoch: hard negatives.
            With `length_buckets` neighbours are looked for among pairs of like
            length. What fills no group or batch is left out for an epoch. Needs
            batches of one language. See `neighbor_groups`.
        group_size: pairs of such a group; must divide `batch_size`.
        shuffle: False for file order, language by language, each pair once a pass;
            `smoothing`, `cap`, `length_buckets` and `vectors` then have no effect.
        drop_remainder: False keeps the last, smaller batches of a pass (with batches of
            one language, one each); needs `shuffle=False`, and the batch dimension is
            then not static.
        languages: only these.
        language: as in `load_pairs`.
        on_error: as in `load_pairs`.
        prefetch: batches made ahead; None lets tf.data choose.

    Returns:
        A `tf.data.Dataset` of `{"source": features, "target": features}`, with a known
        cardinality and a static batch dimension.

    Raises:
        DataError: as in `read_pairs`.
        ValueError: an argument is out of range, or a batch is larger than the corpus.
    """
    _check_kind(batches)
    if length_buckets not in (True, False, "tokens"):
        raise ValueError(
            '`length_buckets` must be True, False or "tokens". '
            f"Received: {length_buckets}"
        )
    _check_numbers(batch_size, start_step, seed)
    if shuffle and not drop_remainder:
        raise ValueError(
            "`drop_remainder=False` needs `shuffle=False`: shuffled batches have no "
            "end and are all full. Received: shuffle=True"
        )
    if isinstance(files_or_corpus, (ParallelCorpus, TokenCorpus)):
        if language is not None:
            raise ValueError(
                f"`language` must be None with a corpus. Received: {language}"
            )
        corpus: ParallelCorpus | TokenCorpus = files_or_corpus
        corpus = corpus if languages is None else corpus.select(languages)
    else:
        corpus = load_pairs(
            files_or_corpus, language=language, on_error=on_error, languages=languages
        )
    one_language = batches == "one_language"
    neighbors = None
    if vectors is not None:
        _check_neighbors(vectors, group_size, corpus, batch_size, one_language)
        neighbors = _Neighbors(vectors, group_size)
    largest = max(corpus.counts.values()) if one_language else len(corpus)
    if drop_remainder and batch_size > largest:
        raise ValueError(
            f"`batch_size` must be at most {largest}, the number of pairs"
            f"{' of the largest language' if one_language else ''}. "
            f"Received: {batch_size}"
        )
    plan: Callable[[], Iterator[NDArray[np.int64]]]
    if shuffle:
        probabilities = mixture(corpus.counts, smoothing=smoothing, cap=cap)
        one_pass = _one_pass(corpus.counts, cap, batch_size)
        shares = list(probabilities.values())
        lengths = corpus._lengths if length_buckets else None
        if length_buckets == "tokens" and isinstance(corpus, ParallelCorpus):
            lengths = _token_lengths(corpus, preprocessor)
        plan = functools.partial(
            _plan,
            *(corpus, shares, batch_size, seed, start_step),
            lengths=lengths,
            one_language=one_language,
            neighbors=neighbors,
        )
    else:
        spans = list(corpus._bounds.values()) if one_language else [(0, len(corpus))]
        one_pass, plan = _plan_in_order(spans, batch_size, start_step, drop_remainder)
    steps = one_pass if steps is None else steps
    remaining = _remaining(steps, start_step)
    static = batch_size if drop_remainder else None
    if isinstance(corpus, TokenCorpus):
        check_tokenizer(corpus.description, preprocessor)
        items = _both_token_sides(preprocessor, static)
    else:
        items = _both_sides(preprocessor, static)
    return _dataset(
        lambda: map(corpus._take, itertools.islice(plan(), remaining)),
        *items,
        cardinality=remaining,
        prefetch=prefetch,
    )


def _check_kind(batches: str) -> None:
    if batches not in ("mixed", "one_language"):
        raise ValueError(
            f'`batches` must be "mixed" or "one_language". Received: {batches}'
        )


def _one_pass(counts: Mapping[str, int], cap: int | None, batch_size: int) -> int:
    """Batches of one pass's worth of pairs, of a language at most `cap`."""
    return max(1, sum(min(n, cap or n) for n in counts.values()) // batch_size)


def _check_neighbors(
    vectors: NDArray[np.floating],
    group_size: int,
    corpus: _Corpus,
    batch_size: int,
    one_language: bool,
) -> None:
    if not one_language:
        raise ValueError(
            '`vectors` needs `batches="one_language"`: neighbours are looked for among '
            'the pairs of a language. Received: batches="mixed"'
        )
    if vectors.ndim != 2 or len(vectors) != len(corpus):
        raise ValueError(
            f"`vectors` must be a matrix with a row for each of the {len(corpus)} "
            f"pairs. Received: shape {vectors.shape}"
        )
    if group_size < 1 or batch_size % group_size:
        raise ValueError(
            f"`group_size` must divide `batch_size`, {batch_size}. "
            f"Received: {group_size}"
        )


def _remaining(steps: int, start_step: int) -> int | None:
    """Number of batches; None for no end."""
    if steps != -1 and steps < start_step:
        raise ValueError(
            "`steps` must be -1 or at least `start_step`: it is the number of the "
            f"batch to stop before. Received: steps={steps}, start_step={start_step}"
        )
    return None if steps == -1 else steps - start_step


def _token_lengths(
    corpus: ParallelCorpus, preprocessor: Callable[[Any], dict[str, Any]]
) -> NDArray[np.int32]:
    """Tokens of the longer side of each pair, (N,)."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)
    def count(strings: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(preprocessor(strings)["padding_mask"], axis=1)

    result = np.zeros(len(corpus), np.int32)
    for first in range(0, len(corpus), 4096):
        rows = np.arange(first, min(first + 4096, len(corpus)))
        for texts in corpus._take(rows):
            result[rows] = np.maximum(result[rows], count(tf.constant(texts)))
    return result


def _both_sides(
    preprocessor: Callable[[Any], dict[str, Any]], batch_size: int | None
) -> tuple[Any, Callable[..., dict[str, Any]]]:
    """What the items of a dataset of pairs are, and what makes features of one."""
    import tensorflow as tf

    strings = tf.TensorSpec((batch_size,), tf.string)

    def features(source: tf.Tensor, target: tf.Tensor) -> dict[str, Any]:
        both = {"source": preprocessor(source), "target": preprocessor(target)}
        # ragged operations inside may have forgotten the batch dimension
        return tf.nest.map_structure(
            lambda x: tf.ensure_shape(x, strings.shape.concatenate(x.shape[1:])), both
        )

    return (strings, strings), features


def _both_token_sides(
    preprocessor: Any, batch_size: int | None
) -> tuple[Any, Callable[..., dict[str, Any]]]:
    """The same for a dataset of token ids: those of each side, and their numbers."""
    import tensorflow as tf

    def features(*parts: tf.Tensor) -> dict[str, Any]:
        source, target = (
            tf.RaggedTensor.from_row_lengths(*parts[i : i + 2], validate=False)
            for i in (0, 2)
        )
        return token_features(preprocessor, source, target, batch_size)

    ids, lengths = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None,), tf.int64)
    return (ids, lengths, ids, lengths), features


def token_features(
    preprocessor: SentencePreprocessor,
    source: tf.RaggedTensor,
    target: tf.RaggedTensor,
    batch_size: int | None,
) -> dict[str, Any]:
    """Makes features of token ids.

    Args:
        preprocessor: adds [CLS] and [SEP], and pads.
        source: RaggedTensor int32 `(B, None)`.
        target: the same.
        batch_size: B, where it is known.

    Returns:
        `{"source": features, "target": features}`.
    """
    import tensorflow as tf

    both = {
        name: preprocessor.pack(preprocessor.frame(side))
        for name, side in (("source", source), ("target", target))
    }
    return tf.nest.map_structure(
        lambda x: tf.ensure_shape(x, (batch_size, *x.shape[1:])), both
    )


def _dataset(
    items: Callable[[], Iterator[Any]],
    signature: Any,
    features: Callable[..., dict[str, Any]],
    *,
    cardinality: int | None,
    prefetch: int | None,
) -> tf.data.Dataset:
    """What `features` makes of the items, in their order and for all replicas."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_generator(items, output_signature=signature)
    return finish(dataset, features, cardinality=cardinality, prefetch=prefetch)


def finish(
    dataset: tf.data.Dataset,
    features: Callable[..., dict[str, Any]],
    *,
    cardinality: int | None,
    prefetch: int | None,
) -> tf.data.Dataset:
    """Ends a dataset: features of its items, in their order and for all replicas.

    Args:
        dataset: of batches that are no features yet.
        features: makes a batch of features of one.
        cardinality: how many there are; None for no end.
        prefetch: batches made ahead; None lets tf.data choose.

    Returns:
        The dataset of features.
    """
    import tensorflow as tf

    infinite = tf.data.experimental.INFINITE_CARDINALITY
    dataset = dataset.apply(
        tf.data.experimental.assert_cardinality(
            infinite if cardinality is None else cardinality
        )
    )
    # AutoGraph warns where it cannot read a function's source, and there is nothing
    # for it to convert
    dataset = dataset.map(
        tf.autograph.experimental.do_not_convert(features),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    options = tf.data.Options()
    options.deterministic = True
    # Several workers each read all and keep their own rows of each batch. Without
    # sharding they would all keep the same rows, and nobody would train on the others.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    dataset = dataset.with_options(options)
    return dataset.prefetch(tf.data.AUTOTUNE if prefetch is None else prefetch)
