"""Sampling: which rows of a corpus are in batch k. No TensorFlow.

    BatchPlan -mixture-> shares of the languages
    language -EndlessOrder-> its rows, epoch after epoch
    shares, orders -Draws-> rows of block b
    SamplingPlan, corpus -RowBatches-> rows of batch k

A batch is a function of the corpus, the plan and its index k. NumPy's generators are
seeded by block and by epoch, so batch k does not require the batches before it.

Shapes: N pairs or sentences of a corpus, L languages, B pairs of a batch, W batches of
a block, G pairs of a group.
"""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.corpus import Corpus
from labse_tf.data.hashing import mix_bits
from labse_tf.data.mixture import check_mixture, mixture
from labse_tf.data.neighbors import neighbor_groups

# ours: batches planned together: enough to sort by length, few enough to vary
WINDOW = 64

# ours: pairs next to each other in length are dealt to this many batches, so that a
# pair that was drawn twice in a block does not appear twice in a batch
DEAL = 4

# ours: number of bands of similar length in which neighbors are searched. Measured on
# Hindi and French, groups of 64 in batches of 512, lengths in tokens:
#     bands     places with tokens    mean cosine to the 16 nearest in the batch
#      1        23 and 35 %           0.43 and 0.31
#      4        56 and 75 %           0.37 and 0.27
#      8        74 and 87 %           0.35 and 0.25
#     16        87 and 92 %           0.31 and 0.23
#     random batches                  0.24 and 0.21
LENGTH_BANDS = 8


# === Plans ===


@dataclasses.dataclass(frozen=True, eq=False)
class BatchPlan:
    """Base class of plans: options that all plans share, see `SamplingPlan`."""

    batch_size: int
    _: dataclasses.KW_ONLY
    steps: int | None = None
    start_step: int = 0
    seed: int = 0
    smoothing: float = 0.3
    cap: int | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        if self.batch_size < 1:
            raise ValueError(
                f"`batch_size` must be positive. Received: {self.batch_size}"
            )
        for name in ("start_step", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"`{name}` must not be negative. Received: {getattr(self, name)}"
                )
        if self.steps is not None:
            self.remaining(self.steps)
        check_mixture(self.smoothing, self.cap)

    def shares(self, counts: Mapping[str, int]) -> list[float]:
        """Return the probability of each language, sorted by language."""
        found = mixture(counts, smoothing=self.smoothing, cap=self.cap)
        return list(found.values())

    def one_pass(self, counts: Mapping[str, int]) -> int:
        """Return the number of batches of one pass over at most `cap` pairs each."""
        pairs = sum(min(count, self.cap or count) for count in counts.values())
        return max(1, pairs // self.batch_size)

    def remaining(self, one_pass: int) -> int | None:
        """Return the number of batches from `start_step` on, `None` if infinite.

        Args:
            one_pass: Index of the batch to stop before if `steps` is `None`.

        Raises:
            ValueError: If the end is before the start.
        """
        steps = one_pass if self.steps is None else self.steps
        if steps != -1 and steps < self.start_step:
            raise ValueError(
                "`steps` must be -1 or at least `start_step`: it is the index of the "
                f"batch to stop before. Received: steps={steps}, "
                f"start_step={self.start_step}"
            )
        return None if steps == -1 else steps - self.start_step


@dataclasses.dataclass(frozen=True, eq=False)
class SamplingPlan(BatchPlan):
    """Plan of `sentence_pairs` and `stream_pairs`: which pairs are in which batch.

    Args:
        batch_size: B, number of pairs in the global batch.
        steps: Index of the batch to stop before, counted from 0 and not from
            `start_step`. `None` for one pass: the number of pairs (at most `cap` per
            language) divided by `batch_size`. -1 for infinitely many.
        start_step: Index of the first batch.
        seed: Seed of all random choices, not negative.
        smoothing: See `mixture`; shares are shares of the pairs or, in batches of one
            language, of the batches.
        cap: See `mixture`. All pairs of the language are still used.
        batches: `"mixed"`, languages mixed in a batch, or `"one_language"`.
        length_buckets: Whether to group pairs of similar length, which saves padding.
            `True` compares characters; `"tokens"` runs the preprocessor over the whole
            corpus first (some 70,000 pairs per second) and compares its `padding_mask`.
            Prepared pairs are always compared by tokens. Measured on eleven Indian
            languages, batches of 512: 23 % of the places hold tokens without buckets,
            53 % by characters, 81 % by tokens.
        vectors: `(N, D)` of unit length, one row per pair in the corpus's order; may be
            float16 and memory-mapped. Batches then consist of groups of neighbors
            (hard negatives), which are drawn again every epoch. With `length_buckets`
            neighbors have similar lengths. Pairs that fill no group or batch are left
            out for an epoch. Requires batches of one language. See `neighbor_groups`.
        group_size: G, number of pairs per group of neighbors; must divide `batch_size`.
        shuffle: `False` for file order, language by language, each pair once per pass;
            `smoothing`, `cap`, `length_buckets` and `vectors` then have no effect.
        drop_remainder: `False` keeps the smaller last batch of a pass (with batches of
            one language, of each language). Requires `shuffle=False`; the batch
            dimension is then not static.

    Raises:
        ValueError: If an argument is out of range or arguments contradict each other.

    Example:
        >>> from labse_tf.data import SamplingPlan
        >>> SamplingPlan(512, seed=1, batches="one_language").one_pass({"hi": 2048})
        4
    """

    batches: Literal["mixed", "one_language"] = "mixed"
    length_buckets: bool | Literal["tokens"] = True
    vectors: NDArray[np.floating] | None = dataclasses.field(default=None, repr=False)
    group_size: int = 64
    shuffle: bool = True
    drop_remainder: bool = True

    def __post_init__(self) -> None:
        """Check each argument and the combinations."""
        super().__post_init__()
        if self.batches not in ("mixed", "one_language"):
            raise ValueError(
                f'`batches` must be "mixed" or "one_language". Received: {self.batches}'
            )
        if self.length_buckets not in (True, False, "tokens"):
            raise ValueError(
                '`length_buckets` must be True, False or "tokens". '
                f"Received: {self.length_buckets}"
            )
        if self.shuffle and not self.drop_remainder:
            raise ValueError(
                "`drop_remainder=False` requires `shuffle=False`: shuffled batches "
                "are infinite and all full. Received: shuffle=True"
            )
        if self.vectors is None:
            return
        if not self.one_language:
            raise ValueError(
                '`vectors` requires `batches="one_language"`: neighbors are searched '
                "among the pairs of one language. "
                f'Received: batches="{self.batches}"'
            )
        if self.group_size < 1 or self.batch_size % self.group_size:
            raise ValueError(
                f"`group_size` must divide `batch_size`, {self.batch_size}. "
                f"Received: {self.group_size}"
            )

    @property
    def one_language(self) -> bool:
        """Whether each batch holds pairs of one language only."""
        return self.batches == "one_language"

    def window(self, pairs: int) -> int:
        """Return W, the number of batches that are planned together.

        Args:
            pairs: Number of pairs of the corpus.

        Returns:
            `WINDOW`. For mixed batches at most the number of full batches of the
            corpus, so that pairs rarely appear twice in a batch, and a multiple of
            `DEAL` if larger than `DEAL`.
        """
        if self.one_language:
            return WINDOW
        window = max(1, min(WINDOW, pairs // self.batch_size))
        return window - (window % DEAL if window > DEAL else 0)

    def check_corpus(self, corpus: Corpus) -> None:
        """Check that the plan fits a corpus.

        Raises:
            ValueError: If a batch is larger than the corpus, or the number of vectors
                differs from the number of pairs.
        """
        vectors = self.vectors
        if vectors is not None and (vectors.ndim != 2 or len(vectors) != len(corpus)):
            raise ValueError(
                "`vectors` must be a matrix with one row for each of the "
                f"{len(corpus)} pairs. Received: shape {vectors.shape}"
            )
        largest = max(corpus.counts.values()) if self.one_language else len(corpus)
        if self.drop_remainder and self.batch_size > largest:
            raise ValueError(
                f"`batch_size` must be at most {largest}, the number of pairs"
                f"{' of the largest language' if self.one_language else ''}. "
                f"Received: {self.batch_size}"
            )


def given_plan(plan: SamplingPlan | None, batch_size: int | None) -> SamplingPlan:
    """Return the given plan, or a plan with the given batch size and all defaults.

    Raises:
        ValueError: If both are given, or neither.
    """
    if plan is not None and batch_size is None:
        return plan
    if plan is None and batch_size is not None:
        return SamplingPlan(batch_size)
    raise ValueError(
        "Give either `plan` or `batch_size` (for a plan with all defaults). "
        f"Received: plan={plan!r}, batch_size={batch_size!r}"
    )


# === The rows of batch k ===


class RowBatches:
    """Rows of each batch of pairs. Iterating again starts from the first batch.

    Args:
        plan: The plan.
        corpus: The pairs.
        lengths: Length of each pair, `(N,)`; `None` not to sort by length.

    Attributes:
        count: Number of batches from `plan.start_step` on; `None` if infinite.

    Raises:
        ValueError: If the plan does not fit the corpus.
    """

    def __init__(
        self,
        plan: SamplingPlan,
        corpus: Corpus,
        lengths: NDArray[np.int32] | None = None,
    ) -> None:
        """Count the batches."""
        plan.check_corpus(corpus)
        self._plan, self._corpus, self._lengths = plan, corpus, lengths
        if plan.shuffle:
            self.count = plan.remaining(plan.one_pass(corpus.counts))
        else:
            self.count = plan.remaining(len(_in_order(plan, corpus)))

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        """Iterate over the rows of each batch, int64 `(B,)`."""
        plan, corpus = self._plan, self._corpus
        if plan.shuffle:
            batches = _shuffled(plan, corpus, self._lengths)
        else:
            spans = _in_order(plan, corpus)
            numbers = itertools.count(plan.start_step)
            batches = (np.arange(*spans[step % len(spans)]) for step in numbers)
        return itertools.islice(batches, self.count)


def _in_order(plan: SamplingPlan, corpus: Corpus) -> list[tuple[int, int]]:
    """Return (first row, last row + 1) of each batch of a pass in file order."""
    spans = list(corpus.bounds.values()) if plan.one_language else [(0, len(corpus))]
    return [
        (row, min(row + plan.batch_size, end))
        for first, end in spans
        for row in range(first, end, plan.batch_size)
        if not plan.drop_remainder or row + plan.batch_size <= end
    ]


def _shuffled(
    plan: SamplingPlan, corpus: Corpus, lengths: NDArray[np.int32] | None
) -> Iterator[NDArray[np.int64]]:
    """Iterate over the rows of batch `start_step`, `start_step` + 1, ... without end.

    Batches are planned in blocks of W. Block b depends on `[seed, b]` and on the
    position of each language before it.
    """
    window = plan.window(len(corpus))
    by_batch = plan if plan.one_language else None
    orders = [
        EndlessOrder(corpus, code, plan.seed, by_batch, lengths)
        for code in corpus.languages
    ]
    size = window if plan.one_language else window * plan.batch_size
    first, skip = divmod(plan.start_step, window)
    draws = Draws(plan.shares(corpus.counts), size, plan.seed)
    for block, (counts, drawn) in enumerate(draws.blocks(orders, first), first):
        random = np.random.default_rng([plan.seed, block])
        if lengths is not None and not plan.one_language:
            batches = _of_like_length(drawn, lengths[drawn], plan, window, random)
        else:
            batches = in_turns(drawn, counts, random).reshape(window, plan.batch_size)
        yield from batches[skip:]
        skip = 0


def _of_like_length(
    drawn: NDArray[np.int64],
    lengths: NDArray[np.int32],
    plan: SamplingPlan,
    window: int,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the rows of a block as batches of similar length, `(W, B)`.

    The batches are in random order, and so are rows of equal length. Two copies of a
    row are next to each other, so that they are dealt to different batches.
    """
    salt = random.integers(2**63, dtype=np.uint64)
    ties = mix_bits(drawn.astype(np.uint64) + salt) >> np.uint64(32)
    keys = (lengths.astype(np.uint64) << np.uint64(32)) | ties
    drawn = drawn[np.argsort(keys, kind="stable")]
    dealt = drawn.reshape(-1, plan.batch_size, min(DEAL, window))
    by_batch = dealt.transpose(0, 2, 1).reshape(window, plan.batch_size)
    return random.permutation(by_batch)


class Draws:
    """Number of draws of each language in each block, by systematic sampling.

    In every block a language gets its share rounded down or up, correct on average, so
    that even rare languages are drawn regularly. Block b does not require the blocks
    before it.

    Args:
        shares: Probability of each language, `(L,)`.
        size: Number of draws per block.
        seed: Seed, not negative.
    """

    def __init__(self, shares: Sequence[float], size: int, seed: int) -> None:
        """Sum up the shares."""
        self._edges, self._size = np.cumsum(shares) * size, size
        self._seed = seed

    def of(self, blocks: range) -> NDArray[np.int64]:
        """Return the draws of each language, summed over blocks, int64 `(L,)`."""
        golden = 0.6180339887498949  # spreads any number of offsets evenly
        offset = np.random.default_rng(self._seed).random()
        until = np.zeros(len(self._edges), np.int64)
        for first in range(blocks.start, blocks.stop, 1024):  # limits temporary arrays
            numbers = np.arange(first, min(first + 1024, blocks.stop))[:, None]
            ends = self._edges + (offset + numbers * golden) % 1
            ends = np.floor(ends).astype(np.int64)
            ends[:, -1] = self._size
            until += np.minimum(ends, self._size).sum(axis=0)
        return np.diff(until, prepend=0)

    def blocks(
        self, orders: Sequence[EndlessOrder], first: int
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Draw block `first`, `first` + 1, ... without end; one order per language.

        Yields:
            Number of draws of each language, int64 `(L,)`, and the units drawn, sorted
            by language, `(size,)` or `(size, B)`.
        """
        used = self.of(range(first))
        for block in itertools.count(first):
            counts = self.of(range(block, block + 1))
            takes = zip(orders, used.tolist(), counts.tolist(), strict=True)
            parts = [part for order, at, n in takes for part in order.take(at, n)]
            used += counts
            yield counts, np.concatenate(parts)


def in_turns(
    drawn: NDArray[np.int64], counts: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.int64]:
    """Interleave languages at random; the order inside each language is kept.

    Args:
        drawn: Units drawn, sorted by language, `(n, ...)`.
        counts: Number of units of each language, int64 `(L,)`.
        random: Generator of the interleaving.
    """
    turns = random.permutation(np.repeat(np.arange(len(counts)), counts))
    mixed = np.empty_like(drawn)
    mixed[np.argsort(turns, kind="stable")] = drawn
    return mixed


class EndlessOrder:
    """Rows of a language, epoch after epoch, each time all of them in a new order.

    Args:
        corpus: Corpus of any kind.
        language: One of its languages.
        seed: Seed, not negative.
        plan: Plan of batches of one language, to order batches; `None` to order rows.
        lengths: Length of each item of the corpus, `(N,)`, to form batches of similar
            length; `None` to ignore length.
    """

    def __init__(
        self,
        corpus: Corpus,
        language: str,
        seed: int,
        plan: SamplingPlan | None = None,
        lengths: NDArray[np.int32] | None = None,
    ) -> None:
        """Start before the first epoch."""
        self._first, end = corpus.bounds[language]
        self._size, self._plan = end - self._first, plan
        self._lengths = None if lengths is None else lengths[self._first : end]
        self._seed = seed, zlib.crc32(language.encode())
        self._epoch, self._units = -1, np.empty(0, np.int64)
        self._bands = 1  # of length, in which neighbors are searched
        if plan is not None and lengths is not None:
            bands = self._size // (4 * plan.batch_size)
            self._bands = min(LENGTH_BANDS, max(1, bands))
        self._per_epoch = self._units_of_epoch()

    def take(self, position: int, count: int) -> Iterator[NDArray[np.int64]]:
        """Yield `count` units after the first `position` units of all epochs.

        The units come in one or more parts: rows `(n,)`, or batches `(n, B)`.
        """
        while count > 0:
            epoch, start = divmod(position, self._per_epoch)
            if epoch != self._epoch:
                self._epoch, self._units = epoch, self._first + self._order(epoch)
            part = self._units[start : start + count]
            yield part
            position, count = position + len(part), count - len(part)

    def _units_of_epoch(self) -> int:
        """Return the number of rows or batches of an epoch.

        Each band leaves out the rows that fill no group, and the groups that fill no
        batch are left out.
        """
        plan = self._plan
        if plan is None:
            return self._size
        if plan.vectors is None or self._size < plan.batch_size:
            return max(1, self._size // plan.batch_size)
        small, larger = divmod(self._size, self._bands)
        groups = (self._bands - larger) * (small // plan.group_size)
        groups += larger * ((small + 1) // plan.group_size)
        return groups // (plan.batch_size // plan.group_size)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Return the units of an epoch, with rows counted from the language's first."""
        random = np.random.default_rng([*self._seed, epoch])
        rows, plan = random.permutation(self._size), self._plan
        if plan is None:
            return rows
        if len(rows) < plan.batch_size:
            return np.resize(rows, (1, plan.batch_size))
        if plan.vectors is not None:
            return self._alike(plan, plan.vectors, random)
        rows = rows[: len(rows) - len(rows) % plan.batch_size]
        if self._lengths is not None:
            # Sort runs of W batches, so that batches differ from epoch to epoch.
            run = np.arange(len(rows)) // (WINDOW * plan.batch_size)
            rows = rows[np.lexsort((self._lengths[rows], run))]
        batches = rows.reshape(-1, plan.batch_size)
        parts = [batches[i : i + WINDOW] for i in range(0, len(batches), WINDOW)]
        return np.concatenate([random.permutation(part) for part in parts])

    def _alike(
        self,
        plan: SamplingPlan,
        vectors: NDArray[np.floating],
        random: np.random.Generator,
    ) -> NDArray[np.int64]:
        """Return batches of groups of near neighbors, of similar length per batch."""
        vectors = vectors[self._first : self._first + self._size]
        lengths, size = self._lengths, plan.group_size
        bands = [np.arange(self._size)]
        if lengths is not None:
            order = np.lexsort((random.random(self._size), lengths))
            bands = [np.sort(band) for band in np.array_split(order, self._bands)]
        groups = np.concatenate(
            [band[neighbor_groups(vectors[band], size, random)] for band in bands]
        )
        random.shuffle(groups)
        groups = groups[: len(groups) - len(groups) % (plan.batch_size // size)]
        if lengths is not None:
            groups = groups[np.argsort(lengths[groups].mean(axis=1), kind="stable")]
        return random.permutation(groups.reshape(-1, plan.batch_size))
