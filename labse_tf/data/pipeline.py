"""Pipeline: corpus -> the rows of batch k -> `tf.data.Dataset` of features.

Shapes: N pairs or sentences of a corpus, B pairs of a batch, W batches of a block.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.corpus import Files, ParallelCorpus, _Corpus, _mix, load_pairs
from labse_tf.data.neighbors import neighbor_groups
from labse_tf.data.readers import OnError
from labse_tf.data.shards.tokens import TokenCorpus, check_tokenizer

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.preprocessing import SentencePreprocessor

# ours: batches planned together; long enough to sort by length, short enough to vary
WINDOW = 64
# ours: neighbours in length are dealt to this many batches, so that a pair drawn twice
# in a block does not meet itself
DEAL = 4
# ours: neighbours are looked for among pairs of like length. Measured on Hindi and
# French, groups of 64 in batches of 512, by tokens: with one band 23 and 35 % of the
# places hold tokens, with 4 bands 56 and 75, with 8 bands 74 and 87, with 16 bands 87
# and 92; the mean cosine to the 16 nearest in the batch is 0.43 and 0.31, 0.37 and
# 0.27, 0.35 and 0.25, 0.31 and 0.23 (batches at random: 0.24 and 0.21)
LENGTH_BANDS = 8


# === Mixture ===


def mixture(
    counts: Mapping[str, int], *, smoothing: float = 0.3, cap: int | None = None
) -> dict[str, float]:
    """Share of each language in the batches.

    p(language) = min(pairs, cap) ** smoothing / sum of the same over all languages.

    Args:
        counts: language -> number of pairs or sentences.
        smoothing: 1 keeps the proportions of the text, 0 gives all languages the same.
        cap: pairs or sentences of a language beyond this number do not raise its share.

    Returns:
        Language -> probability, sorted by language.

    Example:
        >>> mixture({"hi": 400, "or": 100}, smoothing=0.5)
        {'hi': 0.6666666666666666, 'or': 0.3333333333333333}

    References:
        arXiv 2007.01852: exponent 0.3, there for the text of the vocabulary.
    """
    if not counts or min(counts.values()) < 1:
        raise ValueError(
            "`counts` must give every language at least one pair. "
            f"Received: {dict(counts)}"
        )
    if not 0 <= smoothing <= 1:
        raise ValueError(f"`smoothing` must lie in 0 to 1. Received: {smoothing}")
    if cap is not None and cap < 1:
        raise ValueError(f"`cap` must be positive. Received: {cap}")
    codes = sorted(counts)
    capped = np.array([min(counts[code], cap or counts[code]) for code in codes])
    weights = capped.astype(np.float64) ** smoothing
    return dict(zip(codes, (weights / weights.sum()).tolist(), strict=True))


class Share(NamedTuple):
    """What a language gets, in `balance`.

    Attributes:
        language: its code.
        pairs: how many there are.
        before: its share of all pairs.
        after: its share of the batches.
        passes: how often each of its pairs is drawn in the time in question.
    """

    language: str
    pairs: int
    before: float
    after: float
    passes: float


def balance(
    counts: Mapping[str, int],
    *,
    smoothing: float = 0.3,
    cap: int | None = None,
    draws: int | None = None,
) -> list[Share]:
    """Tells what each language gets, before and after `mixture`.

    Args:
        counts: language -> number of pairs or sentences.
        smoothing: as in `mixture`.
        cap: as in `mixture`.
        draws: pairs drawn in all, steps times batch size; None for as many as there
            are.

    Returns:
        A `Share` a language, those with most pairs first.

    Example:
        >>> for share in balance({"hi": 400, "or": 100}, smoothing=0.5):
        ...     print(share.language, share.before, round(share.after, 3))
        hi 0.8 0.667
        or 0.2 0.333
    """
    shares = mixture(counts, smoothing=smoothing, cap=cap)
    total = sum(counts.values())
    draws = total if draws is None else draws
    return [
        Share(code, n, n / total, shares[code], draws * shares[code] / n)
        for code, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


# === Plan: the rows of batch k ===


def _plan(
    corpus: _Corpus,
    probabilities: Sequence[float],
    batch_size: int,
    seed: int,
    start: int,
    *,
    lengths: NDArray[np.int32] | None,
    one_language: bool,
    neighbors: _Neighbors | None = None,
) -> Iterator[NDArray[np.int64]]:
    """Rows of batch `start`, `start` + 1, ... without end.

    Block by block of W batches; block b is made from `[seed, b]` and from where each
    language stands before it, which `_drawn` knows without making the blocks.
    """
    window = WINDOW if one_language else mixed_window(len(corpus), batch_size)
    block_size = window if one_language else window * batch_size  # of batches or rows
    streams = [
        _Endless(
            *(corpus, code, batch_size if one_language else None, seed),
            *(lengths, neighbors),
        )
        for code in corpus.languages
    ]
    edges = np.cumsum(probabilities) * block_size
    first_block, skip = divmod(start, window)
    used = _drawn(edges, seed, range(first_block))
    for block in itertools.count(first_block):
        counts = _drawn(edges, seed, range(block, block + 1))
        takes = zip(streams, used.tolist(), counts.tolist(), strict=True)
        drawn = np.concatenate([part for s, at, n in takes for part in s.take(at, n)])
        used += counts
        random = np.random.default_rng([seed, block])
        if lengths is not None and not one_language:
            # equal lengths in random order, but a row drawn twice beside itself, so
            # that dealing puts the two into different batches
            salt = random.integers(2**63, dtype=np.uint64)
            ties = _mix(drawn.astype(np.uint64) + salt) >> np.uint64(32)
            keys = (lengths[drawn].astype(np.uint64) << np.uint64(32)) | ties
            drawn = drawn[np.argsort(keys, kind="stable")]
            dealt = drawn.reshape(-1, batch_size, min(DEAL, window))
            by_batch = dealt.transpose(0, 2, 1).reshape(window, batch_size)
            batches = random.permutation(by_batch)
        else:
            # the languages take turns at random, each in its own order
            turns = random.permutation(np.repeat(np.arange(len(counts)), counts))
            batches = np.empty_like(drawn)
            batches[np.argsort(turns, kind="stable")] = drawn
        yield from batches.reshape(window, batch_size)[skip:]
        skip = 0


def mixed_window(pairs: int, batch_size: int) -> int:
    """Batches of a block of mixed batches.

    No more than the corpus fills, or a small one would meet itself.

    Args:
        pairs: of the corpus.
        batch_size: pairs of a batch.

    Returns:
        Up to `WINDOW`, above `DEAL` a multiple of it.
    """
    window = max(1, min(WINDOW, pairs // batch_size))
    return window - (window % DEAL if window > DEAL else 0)


def _drawn(edges: NDArray[np.float64], seed: int, blocks: range) -> NDArray[np.int64]:
    """Draws of each language in some blocks together, by systematic sampling.

    In every block a language gets its share rounded down or up, with the right mean,
    so that even the rarest comes at its time.
    """
    golden = 0.6180339887498949  # spreads the offsets evenly, whatever their number
    offset = np.random.default_rng(seed).random()
    size = round(edges[-1])
    until = np.zeros(len(edges), np.int64)
    for first in range(blocks.start, blocks.stop, 1024):  # bounds the temporary arrays
        numbers = np.arange(first, min(first + 1024, blocks.stop))[:, None]
        ends = np.floor(edges + (offset + numbers * golden) % 1).astype(np.int64)
        ends[:, -1] = size
        until += np.minimum(ends, size).sum(axis=0)
    return np.diff(until, prepend=0)


class _Neighbors(NamedTuple):
    """What makes batches of pairs that are alike: vectors (N, D), pairs of a group."""

    vectors: NDArray[np.floating]
    group_size: int


class _Endless:
    """A language's rows, epoch after epoch, each time all of them in a new order.

    With `batch_size` in batches, (batches of an epoch, B), else single, (N,).
    """

    def __init__(
        self,
        corpus: _Corpus,
        language: str,
        batch_size: int | None,
        seed: int,
        lengths: NDArray[np.int32] | None,
        neighbors: _Neighbors | None = None,
    ) -> None:
        self._batch_size, self._lengths = batch_size, lengths
        self._neighbors = neighbors
        self._first = corpus._bounds[language][0]
        self._size = corpus.counts[language]
        self._seed = seed, zlib.crc32(language.encode())
        self._epoch, self._units = -1, np.empty(0, np.int64)

    def take(self, position: int, count: int) -> Iterator[NDArray[np.int64]]:
        """Units `position` to `position` + `count`, in one or more parts."""
        while count > 0:
            epoch, start = divmod(
                position, max(1, self._size // (self._batch_size or 1))
            )
            if epoch != self._epoch:
                self._epoch, self._units = epoch, self._order(epoch)
            part = self._units[start : start + count]
            yield part
            position, count = position + len(part), count - len(part)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        random = np.random.default_rng([*self._seed, epoch])
        rows = self._first + random.permutation(self._size)
        batch_size = self._batch_size
        if batch_size is None:
            return rows
        if len(rows) < batch_size:
            return np.resize(rows, (1, batch_size))
        if self._neighbors is not None:
            return self._alike(self._neighbors, batch_size, random)
        rows = rows[: len(rows) - len(rows) % batch_size]
        if self._lengths is not None:
            # a run of W batches at a time: batches differ from epoch to epoch
            run = np.arange(len(rows)) // (WINDOW * batch_size)
            rows = rows[np.lexsort((self._lengths[rows], run))]
        batches = rows.reshape(-1, batch_size)
        parts = [batches[i : i + WINDOW] for i in range(0, len(batches), WINDOW)]
        return np.concatenate([random.permutation(part) for part in parts])

    def _alike(
        self, neighbors: _Neighbors, batch_size: int, random: np.random.Generator
    ) -> NDArray[np.int64]:
        """Batches of groups of near neighbours, all of a batch of like length."""
        span = slice(self._first, self._first + self._size)
        vectors, size = neighbors.vectors[span], neighbors.group_size
        if self._lengths is None:
            lengths, bands = None, [np.arange(self._size)]
        else:
            lengths = self._lengths[span]
            order = np.lexsort((random.random(self._size), lengths))
            count = min(LENGTH_BANDS, max(1, self._size // (4 * batch_size)))
            bands = [np.sort(band) for band in np.array_split(order, count)]
        groups = np.concatenate(
            [band[neighbor_groups(vectors[band], size, random)] for band in bands]
        )
        random.shuffle(groups)
        groups = groups[: len(groups) - len(groups) % (batch_size // size)]
        if lengths is not None:
            groups = groups[np.argsort(lengths[groups].mean(axis=1), kind="stable")]
        return self._first + random.permutation(groups.reshape(-1, batch_size))


def _plan_in_order(
    spans: Sequence[tuple[int, int]], batch_size: int, start: int, drop_remainder: bool
) -> tuple[int, Callable[[], Iterator[NDArray[np.int64]]]]:
    """Number of batches of a pass, and the rows of batch `start`, `start` + 1, ..."""
    batches = [
        (row, min(row + batch_size, end))
        for first, end in spans
        for row in range(first, end, batch_size)
        if not drop_remainder or row + batch_size <= end
    ]

    def plan() -> Iterator[NDArray[np.int64]]:
        for step in itertools.count(start):
            yield np.arange(*batches[step % len(batches)])

    return len(batches), plan


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


def _check_numbers(batch_size: int, start_step: int, seed: int) -> None:
    if batch_size < 1 or start_step < 0 or seed < 0:
        raise ValueError(
            "`batch_size` must be positive, `start_step` and `seed` not negative. "
            f"Received: {batch_size}, {start_step}, {seed}"
        )


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
