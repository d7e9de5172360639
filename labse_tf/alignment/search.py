"""Dynamic programme: costs of beads inside a band -> the cheapest monotone path.

A node (i, j) is a pair of prefixes: i sentences of the source and j of the target are
aligned. A bead (x, y) leads from node (i - x, j - y) to node (i, j). The nodes of a
band are, for each i, the j from `first[i]` to `last[i]`.

Shapes: N, M = sentences of source and target, K = kinds of beads, B = rows of a block,
W = width of the band in a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

# ours: cells of a block of costs, times K: some megabytes.
_BLOCK_CELLS = 1 << 12
_BLOCK_ROWS = 64

CostsOfBlock = Callable[[int, int, np.ndarray], np.ndarray]
"""Costs of beads that end at rows `start` to `stop`: function of (start, stop,
columns `(B, W)`) -> float `(B, K, W)`, infinite where a bead is not possible."""


class Band(NamedTuple):
    """Nodes to search.

    Attributes:
        first: int64 `(N + 1,)`, the first j of each i, ascending.
        last: int64 `(N + 1,)`, the last j of each i, ascending.
    """

    first: np.ndarray
    last: np.ndarray


def full_band(sources: int, targets: int) -> Band:
    """Return the band of all nodes."""
    return Band(
        np.zeros(sources + 1, np.int64), np.full(sources + 1, targets, np.int64)
    )


def band_around(path: np.ndarray, sources: int, targets: int, width: int) -> Band:
    """Return the nodes near a path.

    Args:
        path: int64 `(p, 2)`, nodes from (0, 0) to (N, M), ascending.
        sources: N.
        targets: M.
        width: Nodes that the band extends beyond the path, in rows and in columns.

    Returns:
        A band with (0, 0), (N, M) and a monotone way between them.
    """
    first = np.full(sources + 1, targets, np.int64)
    last = np.zeros(sources + 1, np.int64)
    # A bead covers all nodes between its ends.
    rows = np.diff(path[:, 0]) + 1
    places = np.repeat(np.arange(len(rows)), rows)
    offsets = np.arange(len(places)) - np.repeat(np.cumsum(rows) - rows, rows)
    covered = path[places, 0] + offsets
    np.minimum.at(first, covered, path[places, 1])
    np.maximum.at(last, covered, path[places + 1, 1])
    rows_around = np.arange(sources + 1)
    first = first[np.maximum(rows_around - width, 0)] - width
    last = last[np.minimum(rows_around + width, sources)] + width
    return Band(np.maximum(first, 0), np.minimum(last, targets))


def best_path(
    costs: CostsOfBlock,
    kinds: Sequence[tuple[int, int]],
    source_deletions: np.ndarray,
    target_deletions: np.ndarray,
    band: Band,
    advance: Callable[[int], None] = lambda count: None,
) -> np.ndarray:
    """Find the cheapest path through a band.

    Time and memory grow with the number of nodes in the band. Each row is computed with
    array operations over its width and all kinds of beads. A run of deleted targets,
    whose costs depend on the same row, is a running minimum of cost minus the sum of
    deletions so far.

    Args:
        costs: Costs of the beads of `kinds`; see `CostsOfBlock`.
        kinds: K pairs (x, y), both positive: numbers of sentences on each side.
        source_deletions: float `(N,)`, cost of leaving out each source sentence.
        target_deletions: float `(M,)`, cost of leaving out each target sentence.
        band: Nodes to search.
        advance: Called with the number of finished rows.

    Returns:
        int64 `(p, 2)`, nodes from (0, 0) to (N, M). Deletions are steps of (1, 0) and
        (0, 1). Of paths with the same cost, the earlier kind wins.
    """
    targets = len(target_deletions)
    steps = np.array([*kinds, (1, 0), (0, 1)], np.int64)
    # Total costs of the last rows; infinite outside the band, and left of column 0.
    margin = int(steps[:, 1].max())
    depth = int(steps[:, 0].max()) + 1
    stride = targets + 1 + margin
    ring = np.full(depth * stride, np.inf)
    skipped = np.concatenate([[0.0], np.cumsum(target_deletions, dtype=np.float64)])
    widths = band.last - band.first + 1
    ends = np.cumsum(widths)
    kept = np.int8 if len(steps) <= np.iinfo(np.int8).max else np.int16
    taken = np.zeros(int(ends[-1]), kept)
    down = len(kinds) + 1
    columns = np.arange(int(widths.max()))

    # Row 0 has deleted targets only.
    ring[margin : margin + widths[0]] = skipped[: widths[0]]
    taken[: widths[0]] = down
    for start, stop in _blocks(band):
        block = costs(start, stop, _columns(band, start, stop))
        for row in range(start, stop):
            low, width = int(band.first[row]), int(widths[row])
            place = row % depth * stride
            if row >= depth:
                old = place + margin + int(band.first[row - depth])
                ring[old : old + int(widths[row - depth])] = np.inf
            came = (row - steps[:-1, 0]) % depth * stride + low + margin - steps[:-1, 1]
            total = ring[came[:, None] + columns[:width]]  # (K + 1, W)
            total[:-1] += block[row - start, :, :width]
            total[-1] += source_deletions[row - 1]
            kind = total.argmin(axis=0)
            best = total[kind, columns[:width]]
            base = skipped[low : low + width]
            # A better node to the left, plus the deletions on the way.
            found = np.minimum.accumulate(best - base) + base
            is_down = found < best - 1e-9
            kind[is_down] = down
            ring[place + margin + low : place + margin + low + width] = np.where(
                is_down, found, best
            )
            taken[ends[row] - width : ends[row]] = kind
        advance(stop - start)
    return _traced(taken, steps, ends, widths, band)


def _blocks(band: Band) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of rows from 1, so that costs of a block fit into memory."""
    first, last = band.first.tolist(), band.last.tolist()
    start, rows = 1, len(first)
    while start < rows:
        stop = start + 1
        while (
            stop < rows
            and stop - start < _BLOCK_ROWS
            and (stop + 1 - start) * (last[stop] - first[start] + 1) <= 2 * _BLOCK_CELLS
        ):
            stop += 1
        yield start, stop
        start = stop


def _columns(band: Band, start: int, stop: int) -> np.ndarray:
    """Return the columns of some rows, `(B, W)`; beyond the band the last column."""
    first, last = band.first[start:stop, None], band.last[start:stop, None]
    return np.minimum(first + np.arange(int((last - first).max()) + 1), last)


def _traced(
    taken: np.ndarray,
    steps: np.ndarray,
    ends: np.ndarray,
    widths: np.ndarray,
    band: Band,
) -> np.ndarray:
    """Follow the steps back from the last node; return the nodes in order."""
    starts, moves = (ends - widths - band.first).tolist(), steps.tolist()
    i, j = len(widths) - 1, int(band.last[-1])
    nodes = [(i, j)]
    while i or j:
        x, y = moves[taken[starts[i] + j]]
        i, j = i - x, j - y
        nodes.append((i, j))
    return np.array(nodes[::-1], np.int64)
