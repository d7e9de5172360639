"""Exact k nearest neighbors by cosine, in blocks.

A block of cosines is one product of float32 matrices. It only determines which pairs
can be among the best. Their cosines are computed again in float64, pair by pair, so
that the result does not depend on block sizes or positions, and equal vectors have
equal cosines.

Shapes: N queries or sources, M candidates or targets, D dimensions, k neighbors.
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
# Number of pairs whose float64 cosines are computed at a time.
_EXACT_PAIRS = 1 << 15


class BothWays(NamedTuple):
    """The nearest neighbors of two sets of vectors in each other.

    Attributes:
        forward_cosines: Cosines of each source's nearest targets, to 7 decimals,
            descending, float32 `(N, min(k, M))`; of equal cosines the lower row comes
            first.
        forward_rows: Rows of these targets, int64 of the same shape.
        backward_cosines: Cosines of each target's nearest sources, `(M, min(k, N))`.
        backward_rows: Rows of these sources.
    """

    forward_cosines: np.ndarray
    forward_rows: np.ndarray
    backward_cosines: np.ndarray
    backward_rows: np.ndarray

    def swapped(self) -> BothWays:
        """Return the same neighbors with sources and targets exchanged."""
        return BothWays(*self[2:], *self[:2])


def nearest_neighbors(
    queries: Any, candidates: Any | Iterable[Any], k: int, *, block_size: int = 2048
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k candidates with the largest cosine to each query, exactly.

    Candidates may be a stream. Memory then holds one block of candidates and the best k
    neighbors so far, for any M.

    Args:
        queries: `(N, D)`. Rows need not be unit vectors.
        candidates: `(M, D)`, or an iterable of such blocks, whose rows are numbered
            consecutively.
        k: Number of neighbors; fewer if there are fewer candidates.
        block_size: Candidates compared at a time; affects memory, not the result.

    Returns:
        Cosines, float32 `(N, min(k, M))`, to 7 decimals, descending, and rows of the
        candidates, int64 of the same shape. Of equal cosines the lower row comes first.
        A zero row has cosine 0 with all.

    Raises:
        ValueError: If `k` or `block_size` is not positive, a matrix has an invalid
            shape, or a row is not finite; the message names the row.

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
    """Find the k nearest targets of each source, and vice versa, exactly.

    Every pair is compared once for both directions. If the matrices are memory-mapped,
    memory holds the neighbors so far and one block of cosines, for any N and M.

    Args:
        sources: `(N, D)`; may be memory-mapped. Rows need not be unit vectors.
        targets: `(M, D)`, see `sources`.
        k: Number of neighbors; fewer if there are fewer candidates.
        block_size: Rows per side compared at a time; affects memory, not the result.
        checkpoint: File for the state of the search, written about once a minute and
            removed at the end. If interrupted, call again with the same arguments to
            resume.
        progress: See `labse_tf.progress`. Counts sources.


    Raises:
        ValueError: If `k` or `block_size` is not positive, a matrix has an invalid
            shape, a row is not finite (the message names it), or `checkpoint` belongs
            to another search.

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
    """Find the k nearest of given candidates of each query, exactly.

    Args:
        queries: `(N, D)`. Rows need not be unit vectors.
        candidates: `(M, D)`. Of a memory-mapped array, only rows in `near` are read.
        near: Rows of the candidates of each query, int64 `(N, c)`. Repeated rows count
            once.
        k: Number of neighbors, at most c.

    Returns:
        Cosines and rows, `(N, k)`, see `nearest_neighbors`. If a query has fewer than k
        different rows, the remaining cosines are -inf and the rows -1.

    Raises:
        ValueError: If the matrices differ in width or a row is not finite.
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
    # The sort is stable and rows ascend, so of equal cosines the lower row comes first.
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    found = np.where(again, -1, rows[places])
    return (
        np.take_along_axis(cosines, order, axis=1),
        np.take_along_axis(found, order, axis=1),
    )


class _Rows:
    """A checked matrix whose rows are normalized when they are read."""

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
        # Division in float32 is safe if it can represent all lengths and inverses.
        self._fast = self._values.dtype in (np.float16, np.float32) and bool(
            ((lengths > 1e-30) & (lengths < 1e30)).all()
        )

    def __len__(self) -> int:
        return len(self._values)

    @property
    def slack(self) -> float:
        """Maximum error of a float32 product of two unit rows as their cosine.

        The sum of the bounds for rounding a sum of D products (Higham, Accuracy and
        Stability of Numerical Algorithms, section 3.1), for normalizing the rows, and
        for rounding to 7 decimals.
        """
        return (self.dim + 8) * 2.0**-24 + 1e-7

    def float64(self, rows: Any) -> np.ndarray:
        """Return any rows, not normalized, as float64 `(n, D)`."""
        return np.ascontiguousarray(self._values[rows], dtype=np.float64)

    def unit_block(self, start: int, stop: int) -> np.ndarray:
        """Return consecutive rows as unit vectors, float32 `(n, D)`."""
        block, lengths = self._values[start:stop], self.lengths[start:stop, None]
        if self._fast:
            return block.astype(np.float32) * (1 / lengths).astype(np.float32)
        return (block / lengths).astype(np.float32)

    def digest(self) -> str:
        """Return an identifier of the matrix: its shape and a sum over all rows."""
        return f"{self._values.shape} {float(self.lengths.sum())!r}"


class _Pairs:
    """Exact cosines of single pairs of rows."""

    def __init__(self, sources: _Rows, targets: _Rows) -> None:
        self._sources, self._targets = sources, targets

    def swapped(self) -> _Pairs:
        """Return the same with sources and targets exchanged."""
        return _Pairs(self._targets, self._sources)

    def __call__(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the cosines of rows `(p,)` and columns `(p,)`, float32 `(p,)`."""
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
        """Add the candidates of a block of cosines that are near enough.

        Args:
            tile: float32 cosines, queries along `axis` and columns along the other
                axis. The error of each is at most `slack`.
            axis: 0 or 1.
            first_query: Index of the tile's first query.
            first_column: Index of the tile's first column among the candidates of
                `exact`.
            exact: Function for the exact cosine of a query and a candidate.
            first_row: Row of the first candidate of `exact` among all candidates.
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
            # Comparing the whole tile is faster than copying most of it.
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
        """Return a lower bound of the k-th largest value along an axis, one per query.

        It is the k-th largest of the maxima of groups: k groups have a value that
        large.
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
        """Merge new candidates into those of their queries and keep the best k."""
        k = self.cosines.shape[1]
        changed, places = np.unique(queries, return_inverse=True)
        every = np.concatenate([self.cosines[changed].ravel(), cosines])
        every_rows = np.concatenate([self.rows[changed].ravel(), rows])
        group = np.concatenate([np.repeat(np.arange(len(changed)), k), places])
        order = np.lexsort((every_rows, -every, group))
        # Each query has at least k entries, including unfilled ones.
        starts = np.searchsorted(group[order], np.arange(len(changed)))
        kept = order[starts[:, None] + np.arange(k)]
        self.cosines[changed], self.rows[changed] = every[kept], every_rows[kept]

    def found(self, candidates: int) -> tuple[np.ndarray, np.ndarray]:
        """Return cosines and rows without unfilled entries."""
        k = min(candidates, self.cosines.shape[1])
        return self.cosines[:, :k], self.rows[:, :k]


class _Checkpoint:
    """State of a search on disk."""

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
        """Restore the neighbors so far and return the number of finished sources."""
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
                f"start again. Received: {error}"
            ) from error
        raise ValueError(
            f"{self._path}: expected the checkpoint of this search ({self._search}); "
            f"delete it to start again. Received: that of another search ({search})"
        )

    def save(self, done: int) -> None:
        """Write the state, unless the last write was less than a minute ago."""
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
        """Delete the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _is_matrix(values: Any) -> bool:
    """Return whether values are one matrix and not a stream of matrices."""
    if isinstance(values, np.ndarray) or hasattr(values, "__array__"):
        return True
    rows = isinstance(values, Sequence) and len(values) > 0
    return rows and not hasattr(values[0], "ndim") and np.ndim(values) == 2


def _check_positive(**values: int) -> None:
    """Raise an error for a value that is not positive."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"`{name}` must be positive. Received: {name}={value}")


def check_finite(vectors: np.ndarray, what: str, first: int = 0) -> None:
    """Raise an error for a matrix with NaN or infinity.

    Args:
        vectors: `(rows, D)`.
        what: Name of the vectors, for the message.
        first: Index of the first row, if the matrix is a block of many.

    Raises:
        ValueError: If a row is not finite. The message has the index of the first one.
    """
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{what} must be finite. Received: NaN or infinity in {len(bad)} of "
            f"{len(vectors)} rows, first in row {first + bad[0]}"
        )


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Divide rows by their lengths, in float64; zero rows stay zero.

    Args:
        vectors: `(rows, D)`.

    Returns:
        float64 `(rows, D)`.
    """
    vectors = vectors.astype(np.float64, copy=False)
    return vectors / _lengths(vectors)[:, None]


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """Return the lengths of rows, `(rows,)`; 1 for a zero row."""
    lengths = np.linalg.norm(vectors, axis=1)
    return np.where(lengths == 0, 1, lengths)
