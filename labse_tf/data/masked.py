"""Masked rows: corpora -> packed rows of batch k -> `tf.data.Dataset` for MLM and TLM.

Shapes: N sentences or pairs of a corpus, n sequences drawn for a block, W batches of a
block, R rows of a batch, T places of a row, P predictions of a row.
"""

from __future__ import annotations

import dataclasses
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.batches import finish
from labse_tf.data.corpus import Corpus, MonolingualCorpus, ParallelCorpus
from labse_tf.data.sampling import BatchPlan, Draws, EndlessOrder, in_turns
from labse_tf.progress import Progress, progress_bar

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.preprocessing import MaskedLMPreprocessor

# ours: rows planned together. With 1,000 rows, incomplete last rows and the varying
# number of tokens per block waste 0.5 % more places. 16,000 rows gain less than 0.1 %
# and delay the first batch.
BLOCK_ROWS = 8192
# ours: the number of sequences per block is the least that fit into this many trial
# blocks, reduced by this margin. Sequences that do not fit into a block wait for the
# language's next epoch.
PROBES = 4
MARGIN = 0.005
# Numbers of the MLM and TLM streams; they are part of the random seeds.
_SENTENCES, _PAIRS = 0, 1
# Corpus -> (preprocessor, number of tokens of each sequence).
_COUNTED: weakref.WeakKeyDictionary[Corpus, tuple[object, NDArray[np.integer]]] = (
    weakref.WeakKeyDictionary()
)


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedPlan(BatchPlan):
    """Plan of `masked_rows`: which rows are in which batch.

    Args:
        batch_size: R, number of rows in the global batch.
        steps: See `SamplingPlan`; required.
        start_step: See `SamplingPlan`.
        seed: See `SamplingPlan`.
        smoothing: See `mixture`; shares are shares of the sequences of each stream.
        cap: See `SamplingPlan`.
        tlm_share: Share of the rows that hold pairs, 0 to 1. ours: the paper does not
            state it.

    Raises:
        ValueError: If an argument is out of range.
    """

    steps: int = dataclasses.field()
    tlm_share: float = 0.5

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        if not 0 <= self.tlm_share <= 1:
            raise ValueError(
                f"`tlm_share` must be from 0 to 1. Received: {self.tlm_share}"
            )

    def pair_rows(self, pairs: object | None, sentences: object | None) -> int:
        """Return the number of rows of a batch that hold pairs, 0 to `batch_size`.

        Raises:
            ValueError: If both texts are `None`, or one of them would get no row.
        """
        if pairs is None and sentences is None:
            raise ValueError(
                "`pairs` or `sentences` must be a corpus. Received: None for both"
            )
        if pairs is None or sentences is None:
            return 0 if pairs is None else self.batch_size
        rows = round(self.batch_size * self.tlm_share)
        if 0 < self.tlm_share < 1 and not 0 < rows < self.batch_size:
            raise ValueError(
                "`batch_size` must give pairs and sentences at least one row each at a "
                f"`tlm_share` of {self.tlm_share}. Received: {self.batch_size}"
            )
        return rows


def masked_rows(
    pairs: ParallelCorpus | None,
    sentences: MonolingualCorpus | None,
    preprocessor: MaskedLMPreprocessor,
    plan: MaskedPlan,
    *,
    prefetch: int | None = None,
    progress: Progress = None,
) -> tf.data.Dataset:
    """Create batches of masked rows: MLM over sentences and TLM over pairs.

    Batch k depends only on the text, the plan and k. See `sentence_pairs` for resuming,
    several epochs, replicas and workers.

    The first `round(batch_size * tlm_share)` rows of every batch are TLM, the other
    rows MLM. If the preprocessor packs, a row holds several sequences of any languages,
    otherwise one. No row is empty. Each language's sequences are drawn without
    replacement until all are used, then in a new order. A corpus may be as small as one
    sentence.

    Packing is planned from token counts, for some 8,000 rows or one pass over the text
    at a time, with a fixed number of sequences that was found to fit. If the drawn
    sequences are longer than usual, those that do not fit are left out until the
    language's next epoch. Measured with lengths like those of natural sentences: with
    some thousand sentences or more, 97 to 99 % of the places hold tokens and at most
    0.03 % of the sequences are left out; with 300 sentences, 94 % and 0.05 %.

    Args:
        pairs: Text for TLM; `None` to give all rows to MLM.
        sentences: Text for MLM; `None` to give all rows to TLM.
        preprocessor: Preprocessor that makes the rows; its `sequence_length` is T.
        plan: Which rows are in which batch.
        prefetch: Number of batches to prefetch; `None` lets tf.data choose.
        progress: See `labse_tf.progress`; counts the sequences whose tokens are
            counted, which only packing requires.

    Returns:
        A `tf.data.Dataset` of the preprocessor's features, int32 `(R, T)` and `(R, P)`
        and float32 `(R, P)`, all static, with a known cardinality.

    Raises:
        ValueError: If an argument is out of range, there is no text, or pairs or
            sentences would get no row.
    """
    import tensorflow as tf

    remaining = plan.remaining(plan.steps)
    streams = _streams(plan, pairs, sentences, preprocessor, progress)

    def items() -> Iterator[tuple[Any, ...]]:
        planned = [stream.batches(plan.start_step) for stream in streams]
        steps = itertools.islice(itertools.count(plan.start_step), remaining)
        for step, *parts in zip(steps, *planned, strict=False):
            yield (
                step,
                *(
                    (*stream.corpus.take(sequences), rows)
                    for stream, (sequences, rows) in zip(streams, parts, strict=True)
                ),
            )

    signature, features = _features(streams, preprocessor, plan.seed)
    dataset = tf.data.Dataset.from_generator(items, output_signature=signature)
    return finish(dataset, features, cardinality=remaining, prefetch=prefetch)


def _streams(
    plan: MaskedPlan,
    pairs: ParallelCorpus | None,
    sentences: MonolingualCorpus | None,
    preprocessor: MaskedLMPreprocessor,
    progress: Progress,
) -> list[_Stream]:
    """Return the streams that have rows, pairs first."""
    pair_rows = plan.pair_rows(pairs, sentences)
    chosen: list[tuple[int, int, Corpus]] = []
    if pairs is not None and pair_rows:
        chosen.append((_PAIRS, pair_rows, pairs))
    if sentences is not None and pair_rows < plan.batch_size:
        chosen.append((_SENTENCES, plan.batch_size - pair_rows, sentences))
    shares = [plan.shares(corpus.counts) for _, _, corpus in chosen]
    lengths: list[NDArray[np.integer] | None] = [None] * len(chosen)
    if preprocessor.packed:
        total = sum(len(corpus) for _, _, corpus in chosen)
        with progress_bar(
            "Counting tokens", total, "sequences", show=progress
        ) as advance:
            lengths = [
                _token_counts(corpus, preprocessor, advance) for _, _, corpus in chosen
            ]
    return [
        _Stream(
            corpus,
            share,
            counts,
            number=number,
            num_rows=rows,
            sequence_length=preprocessor.sequence_length,
            seed=plan.seed,
        )
        for (number, rows, corpus), share, counts in zip(
            chosen, shares, lengths, strict=True
        )
    ]


def _features(
    streams: Sequence[_Stream], preprocessor: MaskedLMPreprocessor, seed: int
) -> tuple[Any, Callable[..., dict[str, Any]]]:
    """Return the signature of the dataset's items, and the function to a batch."""
    import tensorflow as tf

    strings, numbers = (tf.TensorSpec((None,), t) for t in (tf.string, tf.int64))
    signature = [
        (*(strings for _ in stream.corpus.sides), numbers) for stream in streams
    ]

    def features(step: tf.Tensor, *items: tuple[tf.Tensor, ...]) -> dict[str, Any]:
        parts = [
            preprocessor(
                tuple(sides),
                (seed, 2 * step + stream.number),
                rows=rows if preprocessor.packed else None,
                num_rows=stream.num_rows,
            )
            for stream, (*sides, rows) in zip(streams, items, strict=True)
        ]
        return {
            name: tf.concat([part[name] for part in parts], axis=0) for name in parts[0]
        }

    return (tf.TensorSpec((), tf.int64), *signature), features


def _token_counts(
    corpus: Corpus, preprocessor: MaskedLMPreprocessor, advance: Callable[[int], None]
) -> NDArray[np.integer]:
    """Return the number of places that each sequence takes, int16 or int32 `(N,)`.

    Cached per corpus, because each stage of a run creates its own dataset.
    """
    counted = _COUNTED.get(corpus)
    if counted is not None and counted[0] is preprocessor:
        return counted[1]
    import tensorflow as tf

    @tf.function(
        input_signature=[tf.TensorSpec((None,), tf.string)] * len(corpus.sides),
        autograph=False,
    )
    def count(*sides: tf.Tensor) -> tf.Tensor:
        return preprocessor.count_tokens(sides)

    traced = count.get_concrete_function()  # otherwise each thread traces its own
    small = preprocessor.sequence_length <= np.iinfo(np.int16).max
    dtype: type[np.integer] = np.int16 if small else np.int32
    result = np.zeros(len(corpus), dtype)

    def count_block(rows: range) -> tf.Tensor:
        return traced(*map(tf.constant, corpus.take(np.asarray(rows))))

    blocks = [range(len(corpus))[i : i + 4096] for i in range(0, len(corpus), 4096)]
    pool = ThreadPoolExecutor()  # TensorFlow tokenizes on one core per call
    try:
        for rows, counts in zip(blocks, pool.map(count_block, blocks), strict=True):
            result[rows.start : rows.stop] = counts
            advance(len(rows))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupt does not wait for the rest
    _COUNTED[corpus] = preprocessor, result
    return result


# === Plan: the sequences of batch k and their rows ===


class _Stream:
    """Text of one kind and its rows in every batch.

    Batches are planned in blocks of W. Block b depends on `[seed, number, b]` and on
    the position of each language before it, which `Draws` computes directly because
    every block draws the same number of sequences.
    """

    def __init__(
        self,
        corpus: Corpus,
        shares: Sequence[float],
        lengths: NDArray[np.integer] | None,
        *,
        number: int,
        num_rows: int,
        sequence_length: int,
        seed: int,
    ) -> None:
        self.corpus, self.number, self.num_rows = corpus, number, num_rows
        self._lengths, self._length = lengths, sequence_length
        self._shares = shares
        self._seed = seed
        # The orders of the streams differ even if their text is the same.
        self._order_seed = 2 * seed + number
        # A block is no longer than a pass over the text. Otherwise a sentence could be
        # repeated long before all others are used.
        one_pass = len(corpus)
        if lengths is not None:
            one_pass = int(lengths.sum(dtype=np.int64)) // sequence_length
        self._window = max(1, min(BLOCK_ROWS, one_pass) // num_rows)
        self._block_rows = self._window * num_rows
        self._block_size = self._block_rows
        if lengths is not None:
            self._block_size = self._fitting(lengths)

    def batches(
        self, start: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Iterate over (sequences, rows) of batch `start`, `start` + 1, ..."""
        first_block, skip = divmod(start, self._window)
        for drawn, random in self._draw(self._block_size, first_block):
            places = self._rows(drawn)
            if self._lengths is not None:
                # Rows that were started late are emptier, so rows are dealt to the
                # batches at random. Sequences without a row stay behind the last row.
                dealt = random.permutation(self._block_rows)
                dealt = np.append(dealt, self._block_rows)
                places = dealt[np.minimum(places, self._block_rows)]
            order = np.argsort(places, kind="stable")
            bounds = np.arange(self._window + 1) * self.num_rows
            ends = np.searchsorted(places[order], bounds)
            for step in range(skip, self._window):
                part = order[ends[step] : ends[step + 1]]
                yield drawn[part], places[part] - bounds[step]
            skip = 0

    def _draw(
        self, size: int, first: int
    ) -> Iterator[tuple[NDArray[np.int64], np.random.Generator]]:
        """Iterate over (sequences, generator) of block `first`, `first` + 1, ..."""
        orders = [
            EndlessOrder(self.corpus, code, self._order_seed)
            for code in self.corpus.languages
        ]
        draws = Draws(self._shares, size, self._order_seed)
        for block, (counts, drawn) in enumerate(draws.blocks(orders, first), first):
            random = np.random.default_rng([self._seed, self.number, block])
            yield in_turns(drawn, counts, random), random

    def _rows(self, drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each sequence, `(n,)`; beyond the block if all are full."""
        if self._lengths is None:
            return np.arange(len(drawn))
        from labse_tf.preprocessing import plan_rows

        rows = plan_rows(self._lengths[drawn], self._length).astype(np.int64)
        begun = int(rows.max()) + 1
        missing = self._block_rows - begun
        if missing > 0:
            # Move one sequence each from fuller rows to the empty rows.
            alone = np.zeros(len(rows), bool)
            alone[np.unique(rows, return_index=True)[1]] = True
            spare = np.flatnonzero(~alone)[-missing:]
            rows[spare] = begun + np.arange(missing)
        return rows

    def _fitting(self, lengths: NDArray[np.integer]) -> int:
        """Return the number of sequences per block such that nearly always all fit."""
        from labse_tf.preprocessing import plan_rows

        spans = self.corpus.bounds.values()
        means = [lengths[first:end].mean() for first, end in spans]
        mean = np.dot(np.diff(np.cumsum(self._shares), prepend=0), means)
        size = self._block_rows
        found: list[int] = []
        while len(found) < PROBES:
            size = int(1.2 * max(size, self._block_rows * self._length / mean))
            found = []
            for drawn, _ in itertools.islice(self._draw(size, 0), PROBES):
                rows = plan_rows(lengths[drawn], self._length)
                beyond = rows >= self._block_rows
                if not beyond.any():
                    break  # all fit: try again with more sequences
                found.append(int(beyond.argmax()))
        # At least one sequence per row, so that no row is empty.
        return max(self._block_rows, int((1 - MARGIN) * min(found)))
