"""Sampling: which rows of a corpus are in batch k: mixture, endless order, neighbors.

Shapes: N pairs or sentences of a corpus, B pairs of a batch, W batches of a block.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.corpus import _Corpus, _mix

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


def _check_numbers(batch_size: int, start_step: int, seed: int) -> None:
    if batch_size < 1 or start_step < 0 or seed < 0:
        raise ValueError(
            "`batch_size` must be positive, `start_step` and `seed` not negative. "
            f"Received: {batch_size}, {start_step}, {seed}"
        )


def neighbor_groups(
    vectors: NDArray[np.floating],
    group_size: int,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Puts pairs into groups of near neighbours, another way at each call.

    One row in G, drawn at random, is an anchor; each row goes to the nearest anchor.
    The rows, anchor by anchor, are cut into groups of G, so a group holds the rows of
    one anchor, or of a few that are alike. What does not fill a group is left out
    this time.

    Args:
        vectors: `(n, D)`, unit length; float16 and memory-mapped will do.
        group_size: G.
        random: Decides everything.

    Returns:
        Row numbers int64 `(n // G, G)`, no number twice.

    Raises:
        ValueError: If there are fewer than G rows.

    Example:
        >>> import numpy as np
        >>> from labse_tf.data import neighbor_groups
        >>> vectors = np.repeat(np.eye(2), 3, axis=0)[[0, 3, 1, 4, 2, 5]]
        >>> groups = neighbor_groups(vectors, 3, np.random.default_rng(1))
        >>> sorted(sorted(group) for group in groups.tolist())
        [[0, 2, 4], [1, 3, 5]]
    """
    count = len(vectors)
    if not 1 <= group_size <= count:
        raise ValueError(
            f"`group_size` must be from 1 to the number of rows, {count}. "
            f"Received: {group_size}"
        )
    chosen = random.choice(count, count // group_size, replace=False)
    anchors = np.asarray(vectors[np.sort(chosen)], np.float32)
    # Where one anchor's rows end in a group, those of an anchor like it begin.
    few = anchors[random.permutation(len(anchors))[: math.isqrt(len(anchors))]]
    turns = random.permutation(len(anchors))
    turns = np.argsort(np.lexsort((turns, _nearest(anchors, few))))
    nearest = turns[_nearest(vectors, anchors)]
    order = np.lexsort((random.random(count), nearest))
    return order[: count - count % group_size].reshape(-1, group_size)


def _nearest(
    vectors: NDArray[np.floating], anchors: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Number of each row's nearest anchor, `(n,)`."""
    nearest = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), 4096):
        block = np.asarray(vectors[start : start + 4096], np.float32)
        nearest[start : start + len(block)] = np.argmax(block @ anchors.T, axis=1)
    return nearest


def principal_axes(
    vectors: NDArray[np.floating], dimensions: int
) -> NDArray[np.float32]:
    """Finds the directions in which vectors differ most, to store them shorter.

    Args:
        vectors: A sample, `(n, D)`.
        dimensions: d, at most D.

    Returns:
        Orthonormal columns `(D, d)`: `vectors @ axes` keeps as much of the inner
        products as d numbers can.
    """
    sample = np.asarray(vectors, np.float64)
    _, axes = np.linalg.eigh(sample.T @ sample)  # by ascending share
    return np.ascontiguousarray(axes[:, ::-1][:, :dimensions], np.float32)
