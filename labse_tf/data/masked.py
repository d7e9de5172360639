"""Masked: corpora -> the packed rows of batch k -> `tf.data.Dataset` for MLM and TLM.

Shapes: N sentences or pairs of a corpus, n sequences drawn for a block, W batches of a
block, R rows of a batch, T places of a row, P predictions of a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.batches import _dataset, _remaining
from labse_tf.data.corpus import MonolingualCorpus, ParallelCorpus, _Corpus
from labse_tf.data.sampling import _check_numbers, _drawn, _Endless, mixture
from labse_tf.progress import Progress, progress_bar

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.preprocessing import MaskedLMPreprocessor

# ours: rows planned together. With 1,000 rows the last ones, which nothing comes to
# fill, and the scatter of a block's tokens cost half a per cent more; 16,000 gain less
# than 0.1 % and delay the first batch.
BLOCK_ROWS = 8192
# ours: how many sequences fit into a block is tried on so many blocks, and the least of
# them is lowered by so much. What exceeds a block waits for the language's next epoch.
PROBES = 4
MARGIN = 0.005
# The streams, and where their random numbers differ: MLM and TLM.
_SENTENCES, _PAIRS = 0, 1


def masked_rows(
    pairs: ParallelCorpus | None,
    sentences: MonolingualCorpus | None,
    preprocessor: MaskedLMPreprocessor,
    *,
    batch_size: int,
    steps: int,
    start_step: int = 0,
    seed: int = 0,
    smoothing: float = 0.3,
    cap: int | None = None,
    tlm_share: float = 0.5,
    prefetch: int | None = None,
    progress: Progress = None,
) -> tf.data.Dataset:
    """Batches of masked rows for a `MaskedLM`: MLM over sentences, TLM over pairs.

    Batch k depends on the text, the seed, the options and k only. A resumed run passes
    `start_step` and gets what the uninterrupted run would have got, at once and bit for
    bit; the orders come from NumPy's generators, so keep its version while resuming.
    Iterating again starts at `start_step` again: for several epochs of other batches
    take `steps=-1` and Keras's `steps_per_epoch`.

    The first `round(batch_size * tlm_share)` rows of every batch are TLM, the others
    MLM. A row holds several sequences, of any languages, where the preprocessor packs,
    else one; no row is empty. Each language's sequences are drawn without replacement
    until all had their turn, then in a new order; a corpus may be as small as one
    sentence.

    Packing is planned from token counts, some 8,000 rows or one pass over the text at a
    time, with a fixed number of sequences that was found to fit. Where the sequences
    drawn happen to be longer than usual, those that find no row are left out and have
    their next turn in the language's next epoch. Measured with lengths like those of
    natural sentences: from some thousand sentences on 97 to 99 % of the places hold
    tokens (94 % with 300), and at most 0.03 % of the sequences are left out (0.05 %).

    The pipeline is one for all replicas: Keras splits the global batch. Each of several
    workers makes the whole batch and keeps its rows.

    Args:
        pairs: text for TLM; None to give all rows to MLM.
        sentences: text for MLM; None to give all rows to TLM.
        preprocessor: makes the rows, packed or not; its `sequence_length` is T.
        batch_size: R, rows of the global batch.
        steps: number of the batch to stop before, counted from 0 and not from
            `start_step`; -1 for no end.
        start_step: number of the first batch.
        seed: not negative.
        smoothing: see `mixture`; the share is one of the stream's sequences.
        cap: see `mixture`; all sequences of the language still have their turn.
        tlm_share: share of the rows that hold pairs, 0 to 1; ours: the paper does not
            give it.
        prefetch: batches made ahead; None lets tf.data choose.
        progress: see `labse_tf.progress`; counts the sequences whose tokens are
            counted. Rows of one sequence need no counts.

    Returns:
        A `tf.data.Dataset` of what the preprocessor returns, int32 `(R, T)` and
        `(R, P)` and float32 `(R, P)`, all static, with a known cardinality.

    Raises:
        ValueError: an argument is out of range, there is no text, or one of the two
            texts would get no row.
    """
    _check_numbers(batch_size, start_step, seed)
    remaining = _remaining(steps, start_step)
    if not 0 <= tlm_share <= 1:
        raise ValueError(f"`tlm_share` must lie in 0 to 1. Received: {tlm_share}")
    if pairs is None and sentences is None:
        raise ValueError(
            "`pairs` or `sentences` must be a corpus. Received: None for both"
        )
    pair_rows = round(batch_size * tlm_share)
    if pairs is None or sentences is None:
        pair_rows = 0 if pairs is None else batch_size
    elif 0 < tlm_share < 1 and not 0 < pair_rows < batch_size:
        raise ValueError(
            "`batch_size` must have a row for pairs and one for sentences at a "
            f"`tlm_share` of {tlm_share}. Received: {batch_size}"
        )
    chosen: list[tuple[int, int, _Corpus]] = []
    if pairs is not None and pair_rows:
        chosen.append((_PAIRS, pair_rows, pairs))
    if sentences is not None and pair_rows < batch_size:
        chosen.append((_SENTENCES, batch_size - pair_rows, sentences))
    shares = [
        list(mixture(corpus.counts, smoothing=smoothing, cap=cap).values())
        for _, _, corpus in chosen
    ]
    lengths: list[NDArray[np.integer] | None] = [None] * len(chosen)
    if preprocessor.packed:
        total = sum(len(corpus) for _, _, corpus in chosen)
        with progress_bar(
            "Counting tokens", total, "sequences", show=progress
        ) as advance:
            lengths = [
                _token_counts(corpus, preprocessor, advance) for _, _, corpus in chosen
            ]
    streams = [
        _Stream(
            corpus,
            share,
            counts,
            number=number,
            num_rows=rows,
            sequence_length=preprocessor.sequence_length,
            seed=seed,
        )
        for (number, rows, corpus), share, counts in zip(
            chosen, shares, lengths, strict=True
        )
    ]

    def items() -> Iterator[tuple[Any, ...]]:
        plans = [stream.batches(start_step) for stream in streams]
        for step in itertools.islice(itertools.count(start_step), remaining):
            parts = []
            for stream, plan in zip(streams, plans, strict=True):
                sequences, rows = next(plan)
                parts.append((*stream.corpus._take(sequences), rows))
            yield step, *parts

    return _dataset(
        items,
        *_features(streams, preprocessor, seed),
        cardinality=remaining,
        prefetch=prefetch,
    )


def _features(
    streams: Sequence[_Stream], preprocessor: MaskedLMPreprocessor, seed: int
) -> tuple[Any, Callable[..., dict[str, Any]]]:
    """What the items of the dataset are, and what makes a batch of one."""
    import tensorflow as tf

    strings, numbers = (tf.TensorSpec((None,), t) for t in (tf.string, tf.int64))
    signature = [
        (*(strings for _ in stream.corpus._sides), numbers) for stream in streams
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
    corpus: _Corpus, preprocessor: MaskedLMPreprocessor, advance: Callable[[int], None]
) -> NDArray[np.integer]:
    """Places in a row that each sequence takes, int16 or int32 `(N,)`.

    Counted once a corpus: each stage of a run makes a dataset of its own.
    """
    if corpus._counted is not None and corpus._counted[0] is preprocessor:
        return corpus._counted[1]
    import tensorflow as tf

    @tf.function(
        input_signature=[tf.TensorSpec((None,), tf.string)] * len(corpus._sides),
        autograph=False,
    )
    def count(*sides: tf.Tensor) -> tf.Tensor:
        return preprocessor.count_tokens(sides)

    traced = count.get_concrete_function()  # or each thread traces one of its own
    small = preprocessor.sequence_length <= np.iinfo(np.int16).max
    dtype: type[np.integer] = np.int16 if small else np.int32
    result = np.zeros(len(corpus), dtype)

    def count_block(rows: range) -> tf.Tensor:
        return traced(*map(tf.constant, corpus._take(np.asarray(rows))))

    blocks = [range(len(corpus))[i : i + 4096] for i in range(0, len(corpus), 4096)]
    pool = ThreadPoolExecutor()  # TensorFlow tokenizes on one core a call
    try:
        for rows, counts in zip(blocks, pool.map(count_block, blocks), strict=True):
            result[rows.start : rows.stop] = counts
            advance(len(rows))
    finally:
        pool.shutdown(cancel_futures=True)  # who stops it need not wait for the rest
    corpus._counted = preprocessor, result
    return result


# === Plan: the sequences of batch k and their rows ===


class _Stream:
    """Text of one kind and the rows that it has in every batch.

    Block by block of W batches; block b is made from `[seed, number, b]` and from where
    each language stands before it, which `_drawn` knows without making the blocks
    because every block draws the same number of sequences.
    """

    def __init__(
        self,
        corpus: _Corpus,
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
        self._shares = np.cumsum(shares)
        self._seed = seed
        # another order for each stream, though the text may be the same
        self._order_seed = 2 * seed + number
        # a block is no longer than a pass over the text, or a sentence could come
        # again long before others have had their turn
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
        """Sequences and their rows in batch `start`, `start` + 1, ... without end."""
        first_block, skip = divmod(start, self._window)
        for drawn, random in self._draw(self._block_size, first_block):
            places = self._rows(drawn)
            if self._lengths is not None:
                # rows begun late are emptier, so the batches get them at random; what
                # found no row stays behind the last one
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
        """Block `first`, `first` + 1, ...: its sequences, (n,), and its generator."""
        edges, seed = self._shares * size, self._order_seed
        languages = [
            _Endless(self.corpus, code, None, seed, None)
            for code in self.corpus.languages
        ]
        used = _drawn(edges, seed, range(first))
        for block in itertools.count(first):
            counts = _drawn(edges, seed, range(block, block + 1))
            takes = zip(languages, used.tolist(), counts.tolist(), strict=True)
            parts = [part for s, at, n in takes for part in s.take(at, n)]
            used += counts
            # the languages take turns at random, each in its own order
            random = np.random.default_rng([self._seed, self.number, block])
            turns = random.permutation(np.repeat(np.arange(len(counts)), counts))
            drawn = np.empty(size, np.int64)
            drawn[np.argsort(turns, kind="stable")] = np.concatenate(parts)
            yield drawn, random

    def _rows(self, drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of each sequence, beyond the block where none has room; (n,)."""
        if self._lengths is None:
            return np.arange(len(drawn))
        from labse_tf.preprocessing import plan_rows

        rows = plan_rows(self._lengths[drawn], self._length).astype(np.int64)
        begun = int(rows.max()) + 1
        missing = self._block_rows - begun
        if missing > 0:
            # a row without a sequence is wasted; some row has one to spare
            alone = np.zeros(len(rows), bool)
            alone[np.unique(rows, return_index=True)[1]] = True
            spare = np.flatnonzero(~alone)[-missing:]
            rows[spare] = begun + np.arange(missing)
        return rows

    def _fitting(self, lengths: NDArray[np.integer]) -> int:
        """How many sequences to draw for a block, so that nearly always all fit."""
        from labse_tf.preprocessing import plan_rows

        spans = self.corpus._bounds.values()
        means = [lengths[first:end].mean() for first, end in spans]
        mean = np.dot(np.diff(self._shares, prepend=0), means)
        size = self._block_rows
        found: list[int] = []
        while len(found) < PROBES:
            size = int(1.2 * max(size, self._block_rows * self._length / mean))
            found = []
            for drawn, _ in itertools.islice(self._draw(size, 0), PROBES):
                rows = plan_rows(lengths[drawn], self._length)
                beyond = rows >= self._block_rows
                if not beyond.any():
                    break  # more would have fitted: again with more
                found.append(int(beyond.argmax()))
        # at least as many as rows, or one would be empty
        return max(self._block_rows, int((1 - MARGIN) * min(found)))
