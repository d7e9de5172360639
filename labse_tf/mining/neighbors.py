"""The k nearest neighbours by cosine: every pair compared, in blocks.

A block of cosines comes from one product of float32 matrices. It only says which pairs
can be among the best; their cosines are computed again, in float64 and pair by pair,
so that neither the size of a block nor a row's place in it changes a result, and equal
vectors have equal cosines.

Shapes: N queries or sources, M candidates or targets, D dimensions, k neighbours.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labse_tf.files import atomic_file
from labse_tf.progress import Progress, progress_bar

_QUERY_BLOCK = 4096
_SAVE_SECONDS = 60.0
# Pairs whose cosines are computed at a time, pair by pair.
_EXACT_PAIRS = 1 << 15


class BothWays(NamedTuple):
    """The nearest neighbours of two sets of vectors in each other.

    Attributes:
        forward_cosines: Of each source's nearest targets, float32 `(N, min(k, M))`, to
            7 decimals, the largest first; of equals the lower row first.
        forward_rows: The rows of these targets, int64 of the same shape.
        backward_cosines: Of each target's nearest sources, `(M, min(k, N))`.
        backward_rows: The rows of these sources.
    """

    forward_cosines: np.ndarray
    forward_rows: np.ndarray
    backward_cosines: np.ndarray
    backward_rows: np.ndarray

    def swapped(self) -> BothWays:
        """The same with sources for targets.

        Returns:
            What a search from the targets to the sources gives.
        """
        return BothWays(*self[2:], *self[:2])


def nearest_neighbors(
    queries: Any, candidates: Any | Iterable[Any], k: int, *, block_size: int = 2048
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k candidates with the largest cosine to each query, exactly.

    Candidates may be a stream: then memory holds one of its blocks and the best k so
    far, whatever M is.

    Args:
        queries: `(N, D)`, of any length.
        candidates: `(M, D)`, or an iterable of such blocks, whose rows are counted
            through all blocks.
        k: How many; fewer come back where there are fewer candidates.
        block_size: Rows of `candidates` that are compared at a time, where it is one
            matrix; it bounds memory and does not change the result.

    Returns:
        Cosines float32 `(N, min(k, M))`, to 7 decimals, the largest first, and the
        candidates' rows int64 of the same shape. Of equal cosines the lower row comes
        first. A row of zeros has cosine 0 with all.

    Raises:
        ValueError: If `k` or `block_size` is not positive, a matrix has another width
            or is no matrix, or a row is not finite; the message names the row.

    Example:
        >>> import numpy as np
        >>> from labse_tf.mining import nearest_neighbors
        >>> cosines, rows = nearest_neighbors(np.eye(2), np.eye(3)[:, :2] + 0.1, k=2)
        >>> rows.tolist()
        [[0, 2], [1, 2]]
    """
    _check_positive(k=k, block_size=block_size)
    sources = _Rows(queries, "queries")
    blocks: Iterable[Any] = [candidates] if _is_matrix(candidates) else candidates
    best = _Best(len(sources), k)
    first = 0
    for block in blocks:
        targets = _Rows(block, "candidates", sources.dim, first)
        pairs = _Pairs(sources, targets)
        for start in range(0, len(targets), block_size):
            stop = min(start + block_size, len(targets))
            columns = targets.unit_block(start, stop)
            for row in range(0, len(sources), _QUERY_BLOCK):
                tile = sources.unit_block(row, row + _QUERY_BLOCK) @ columns.T
                best.offer(tile, 0, row, start, pairs, first, sources.slack)
        first += len(targets)
    return best.found(first)


def neighbors_both_ways(
    sources: Any,
    targets: Any,
    k: int,
    *,
    block_size: int = 2048,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> BothWays:
    """Finds the k nearest targets of each source and sources of each target, exactly.

    Every pair is compared once for both directions. Memory holds the neighbours found
    so far and one block of cosines, whatever N and M are, if the matrices are
    memory-mapped.

    Args:
        sources: `(N, D)`, of any length; also a memory-mapped array.
        targets: `(M, D)`, the same.
        k: How many; fewer come back where there are fewer candidates.
        block_size: Rows of each side that are compared at a time; it bounds memory
            and does not change the result.
        checkpoint: A file that keeps what has been found, written about once a minute
            and removed at the end: interrupted and called again with the same
            arguments, the search goes on from it.
        progress: See `labse_tf.progress`; counts sources.

    Returns:
        The neighbours and their cosines.

    Raises:
        ValueError: If `k` or `block_size` is not positive, the matrices differ in
            width or are none, a row is not finite (the message names it), or
            `checkpoint` belongs to another search.

    Example:
        >>> import numpy as np
        >>> from labse_tf.mining import neighbors_both_ways
        >>> both = neighbors_both_ways(np.eye(2), np.eye(3)[:, :2] + 0.1, k=1)
        >>> both.forward_rows.tolist(), both.backward_rows.tolist()
        ([[0], [1]], [[0], [1], [0]])
    """
    _check_positive(k=k, block_size=block_size)
    source = _Rows(sources, "sources")
    target = _Rows(targets, "targets", source.dim)
    forward, backward = _Best(len(source), k), _Best(len(target), k)
    state = _Checkpoint(checkpoint, [source, target], [forward, backward])
    start = state.load()
    tile = np.empty((block_size, block_size), dtype=np.float32)
    pairs = _Pairs(source, target)
    swapped = pairs.swapped()
    with progress_bar("Searching", len(source), "rows", show=progress) as advance:
        if start:
            advance(min(start, len(source)))
        while start < len(source):
            stop = min(start + block_size, len(source))
            rows = source.unit_block(start, stop)
            for column in range(0, len(target), block_size):
                end = min(column + block_size, len(target))
                cosines = np.matmul(
                    rows,
                    target.unit_block(column, end).T,
                    out=tile.reshape(-1)[: (stop - start) * (end - column)].reshape(
                        stop - start, end - column
                    ),
                )
                forward.offer(cosines, 0, start, column, pairs, 0, source.slack)
                backward.offer(cosines, 1, column, start, swapped, 0, source.slack)
            advance(stop - start)
            start = stop
            state.save(start)
    state.remove()
    return BothWays(*forward.found(len(target)), *backward.found(len(source)))


def neighbors_of_candidates(
    queries: Any, candidates: Any, near: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k nearest of some candidates of each query, exactly.

    Args:
        queries: `(N, D)`, of any length.
        candidates: `(M, D)`; also a memory-mapped array, of which only the rows that
            are named are read.
        near: Rows of the candidates to choose from, int64 `(N, c)`; one that is named
            twice counts once.
        k: How many, c at most.

    Returns:
        Cosines and rows as `nearest_neighbors` gives them, `(N, k)`; where fewer than k
        different rows were named, the rest is minus infinity and -1.

    Raises:
        ValueError: If the matrices differ in width, or a row is not finite.
    """
    rows, places = np.unique(near, return_inverse=True)
    sources = _Rows(queries, "queries")
    targets = _Rows(np.asarray(candidates[rows]), "candidates", sources.dim)
    places = np.sort(places.reshape(near.shape), axis=1)
    again = np.zeros(near.shape, dtype=bool)
    again[:, 1:] = places[:, 1:] == places[:, :-1]
    numbers = np.repeat(np.arange(len(near)), near.shape[1])
    cosines = _Pairs(sources, targets)(numbers, places.ravel()).reshape(near.shape)
    cosines[again] = -np.inf
    # Stable, and rows go up: of equals the lower row stays in front.
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    found = np.where(again, -1, rows[places])
    return (
        np.take_along_axis(cosines, order, axis=1),
        np.take_along_axis(found, order, axis=1),
    )


class _Rows:
    """A checked matrix whose rows are divided by their lengths when they are read."""

    def __init__(
        self, values: Any, what: str, dim: int | None = None, first: int = 0
    ) -> None:
        self._values = values if isinstance(values, np.ndarray) else np.asarray(values)
        shape = self._values.shape
        if len(shape) != 2 or (dim is not None and shape[1] != dim):
            raise ValueError(
                f"`{what}` must have the shape (rows, {dim or 'D'}). Received: {shape}"
            )
        self.dim = shape[1]
        lengths = np.empty(len(self), dtype=np.float64)
        for start in range(0, len(self), _QUERY_BLOCK):
            block = self.float64(slice(start, start + _QUERY_BLOCK))
            check_finite(block, f"`{what}`", first + start)
            lengths[start : start + len(block)] = _lengths(block)
        self.lengths = lengths
        # Where float32 holds all lengths and their inverses, it divides well enough.
        self._fast = self._values.dtype in (np.float16, np.float32) and bool(
            ((lengths > 1e-30) & (lengths < 1e30)).all()
        )

    def __len__(self) -> int:
        return len(self._values)

    @property
    def slack(self) -> float:
        """How far a float32 product of two unit rows can be from their cosine.

        The bound of rounding a sum of D products (Higham, Accuracy and Stability of
        Numerical Algorithms, section 3.1), of dividing the rows, and to 7 decimals.
        """
        return (self.dim + 8) * 2.0**-24 + 1e-7

    def float64(self, rows: Any) -> np.ndarray:
        """Any rows as they are, `(n, D)`."""
        return np.ascontiguousarray(self._values[rows], dtype=np.float64)

    def unit_block(self, start: int, stop: int) -> np.ndarray:
        """Consecutive rows as float32 `(n, D)`."""
        block, lengths = self._values[start:stop], self.lengths[start:stop, None]
        if self._fast:
            return block.astype(np.float32) * (1 / lengths).astype(np.float32)
        return (block / lengths).astype(np.float32)

    def digest(self) -> str:
        """Tells one matrix from another: its shape and a sum over all rows."""
        return f"{self._values.shape} {float(self.lengths.sum())!r}"


class _Pairs:
    """Cosines of single pairs of rows."""

    def __init__(self, sources: _Rows, targets: _Rows) -> None:
        self._sources, self._targets = sources, targets

    def swapped(self) -> _Pairs:
        """The same with sources for targets."""
        return _Pairs(self._targets, self._sources)

    def __call__(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """float32 `(p,)` of rows `(p,)` and columns `(p,)`."""
        cosines = np.empty(len(rows), dtype=np.float32)
        for start in range(0, len(rows), _EXACT_PAIRS):
            span = slice(start, start + _EXACT_PAIRS)
            products = np.einsum(
                "pd,pd->p",
                self._sources.float64(rows[span]),
                self._targets.float64(columns[span]),
            )
            products /= self._sources.lengths[rows[span]]
            products /= self._targets.lengths[columns[span]]
            cosines[span] = products.round(7)
        return cosines


class _Best:
    """The k nearest candidates of each query so far."""

    _NONE = np.iinfo(np.int64).max

    def __init__(self, count: int, k: int) -> None:
        self.cosines = np.full((count, k), -np.inf, dtype=np.float32)
        self.rows = np.full((count, k), self._NONE, dtype=np.int64)

    def offer(
        self,
        tile: np.ndarray,
        axis: int,
        first_query: int,
        first_column: int,
        exact: _Pairs,
        first_row: int,
        slack: float,
    ) -> None:
        """Takes what is near enough from a block of cosines.

        Args:
            tile: float32, queries along `axis` and columns along the other; each off
                by `slack` at most.
            axis: 0 or 1.
            first_query: The number of the tile's first query.
            first_column: The place of its first column among the candidates at hand.
            exact: Gives the cosine of a query and one of these candidates.
            first_row: The row of the first of these candidates among all.
            slack: See `tile`.
        """
        if not tile.size:
            return
        count = tile.shape[axis]
        limit = self.cosines[first_query : first_query + count, -1] - slack
        active = np.flatnonzero(tile.max(axis=1 - axis) >= limit)
        if not len(active):
            return
        if 4 * len(active) > count:
            # A comparison with all costs less than a copy of most.
            near, inactive = tile, np.ones(count, dtype=bool)
            inactive[active] = False
            limit[inactive] = np.inf
            active = np.arange(count)
        else:
            near, limit = tile.take(active, axis), limit[active]
        open_ends = np.flatnonzero(np.isneginf(limit))
        if len(open_ends):
            chosen = near if len(open_ends) == count else near.take(open_ends, axis)
            limit[open_ends] = self._bound(chosen, 1 - axis) - 2 * slack
        found = np.flatnonzero(near >= np.expand_dims(limit, 1 - axis))
        places = np.divmod(found, near.shape[1])
        queries = active[places[axis]] + first_query
        columns = places[1 - axis] + first_column
        self._merge(queries, columns + first_row, exact(queries, columns))

    def _bound(self, tile: np.ndarray, axis: int) -> np.ndarray:
        """What the k-th largest along an axis is not below, a number a query.

        The k-th of the largest of some groups: k groups have one as large.
        """
        k, count = self.cosines.shape[1], tile.shape[axis]
        groups = min(count, max(64, 8 * k))
        if groups < k:
            return np.full(tile.shape[1 - axis], -np.inf, dtype=tile.dtype)
        starts = np.arange(groups) * count // groups
        largest = np.maximum.reduceat(tile, starts, axis=axis)
        return np.partition(largest, groups - k, axis).take(groups - k, axis)

    def _merge(
        self, queries: np.ndarray, rows: np.ndarray, cosines: np.ndarray
    ) -> None:
        """Sorts new candidates among those of their queries and keeps the first k."""
        k = self.cosines.shape[1]
        changed, places = np.unique(queries, return_inverse=True)
        every = np.concatenate([self.cosines[changed].ravel(), cosines])
        every_rows = np.concatenate([self.rows[changed].ravel(), rows])
        group = np.concatenate([np.repeat(np.arange(len(changed)), k), places])
        order = np.lexsort((every_rows, -every, group))
        # Each query has k at least, unfilled places too, so its first k are there.
        starts = np.searchsorted(group[order], np.arange(len(changed)))
        kept = order[starts[:, None] + np.arange(k)]
        self.cosines[changed], self.rows[changed] = every[kept], every_rows[kept]

    def found(self, candidates: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and rows without the places that no candidate was there for."""
        k = min(candidates, self.cosines.shape[1])
        return self.cosines[:, :k], self.rows[:, :k]


class _Checkpoint:
    """Where a search has come to, on disk."""

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        sides: Sequence[_Rows],
        best: Sequence[_Best],
    ) -> None:
        self._path = None if path is None else Path(path)
        self._best = best
        k = best[0].cosines.shape[1]
        self._search = " / ".join([side.digest() for side in sides] + [f"k={k}"])
        self._saved = time.monotonic()

    def load(self) -> int:
        """How many sources are done; what was found for them is taken over."""
        if self._path is None or not self._path.exists():
            return 0
        try:
            with np.load(self._path) as arrays:
                search = str(arrays["search"])
                if search == self._search:
                    for number, best in enumerate(self._best):
                        best.cosines[:] = arrays[f"cosines{number}"]
                        best.rows[:] = arrays[f"rows{number}"]
                    return int(arrays["done"])
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(
                f"{self._path}: expected the checkpoint of a search; delete it to "
                f"begin anew. Received: {error}"
            ) from error
        raise ValueError(
            f"{self._path}: expected the checkpoint of this search ({self._search}); "
            f"delete it to begin anew. Received: that of another ({search})"
        )

    def save(self, done: int) -> None:
        """Writes, where the last time is long ago."""
        if self._path is None or time.monotonic() - self._saved < _SAVE_SECONDS:
            return
        arrays = {
            f"{name}{number}": getattr(best, name)
            for number, best in enumerate(self._best)
            for name in ("cosines", "rows")
        }
        with atomic_file(self._path) as temporary, temporary.open("wb") as file:
            np.savez(file, search=self._search, done=done, **arrays)
        self._saved = time.monotonic()

    def remove(self) -> None:
        """Takes the file away."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _is_matrix(values: Any) -> bool:
    """Whether it is one matrix, and no stream of them."""
    if isinstance(values, np.ndarray) or hasattr(values, "__array__"):
        return True
    rows = isinstance(values, Sequence) and len(values) > 0
    return rows and not hasattr(values[0], "ndim") and np.ndim(values) == 2


def _check_positive(**values: int) -> None:
    """Refuses what is not above 0, by name."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"`{name}` must be positive. Received: {name}={value}")


def check_finite(vectors: np.ndarray, what: str, first: int = 0) -> None:
    """Refuses a matrix with NaN or infinity in it.

    Args:
        vectors: `(rows, D)`.
        what: What they are, for the message.
        first: Number of the first row, where they are a block of many.

    Raises:
        ValueError: If a row is not finite; the message has the number of the first.
    """
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{what} must be finite. Received: NaN or infinity in {len(bad)} of "
            f"{len(vectors)} rows, the first is row {first + bad[0]}"
        )


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Divides rows by their lengths, in float64; rows of zeros stay.

    Args:
        vectors: `(rows, D)`.

    Returns:
        float64 `(rows, D)`.
    """
    vectors = vectors.astype(np.float64, copy=False)
    return vectors / _lengths(vectors)[:, None]


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """Lengths of rows, `(rows,)`; 1 for a row of zeros."""
    lengths = np.linalg.norm(vectors, axis=1)
    return np.where(lengths == 0, 1, lengths)
