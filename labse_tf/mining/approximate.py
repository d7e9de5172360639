"""Nearly all of the nearest neighbours, in much less time, with FAISS.

The vectors of one side are sorted into lists around centroids, and a query is compared
with those of the lists nearest to it. How many lists is what recall and time depend on:
it is found on a sample whose neighbours are searched exactly. The cosines that come
back are exact; what can be missing is a neighbour.

References:
    - Douze et al., "The Faiss library", https://arxiv.org/abs/2401.08281; how to choose
      an index: https://github.com/facebookresearch/faiss/wiki
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from labse_tf.mining.neighbors import (
    BothWays,
    check_finite,
    nearest_neighbors,
    neighbors_of_candidates,
    unit_rows,
)
from labse_tf.progress import Progress, progress_bar

_LOG = logging.getLogger(__name__)

_BLOCK = 1 << 14
_SMALLEST_LISTS = 20_000  # below this a comparison with all is as fast
_MEMORY = 4 << 30  # bytes of vectors in an index; above, they are stored in fewer
_SAMPLE = 1_000
# Where an index rounds vectors, so many times more are looked at exactly.
_CANDIDATES = 4


def neighbors_both_ways(
    sources: Any,
    targets: Any,
    k: int,
    *,
    recall: float = 0.99,
    progress: Progress = None,
) -> BothWays:
    """Finds nearly all of the k nearest targets of each source, and the other way.

    Args:
        sources: `(N, D)`, of any length; also a memory-mapped array.
        targets: `(M, D)`, the same.
        k: How many; fewer come back where there are fewer candidates.
        recall: Share of the neighbours that must be found, on a sample.
        progress: See `labse_tf.progress`; counts sources, then targets.

    Returns:
        As `labse_tf.mining.neighbors_both_ways`: cosines are exact.

    Raises:
        ImportError: If FAISS is not installed (the extra `mining`).
        ValueError: As `labse_tf.mining.neighbors_both_ways`.
    """
    options: dict[str, Any] = {"recall": recall, "progress": progress}
    forward = approximate_neighbors(sources, targets, k, **options)
    backward = approximate_neighbors(targets, sources, k, **options)
    return BothWays(*forward, *backward)


def approximate_neighbors(
    queries: Any,
    candidates: Any,
    k: int,
    *,
    recall: float = 0.99,
    progress: Progress = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds nearly all of the k candidates with the largest cosine to each query.

    Args:
        queries: `(N, D)`, of any length; also a memory-mapped array.
        candidates: `(M, D)`, the same.
        k: How many.
        recall: Share of the neighbours that must be found, on a sample of 1,000.
        progress: See `labse_tf.progress`; counts queries.

    Returns:
        Cosines and rows as `labse_tf.mining.nearest_neighbors` gives them.

    Raises:
        ImportError: If FAISS is not installed (the extra `mining`).
        ValueError: As `labse_tf.mining.nearest_neighbors`.
    """
    for name, vectors in {"queries": queries, "candidates": candidates}.items():
        _check(name, vectors, np.shape(queries)[-1:])
    index, kind = _filled_index(candidates)
    k = min(k, len(candidates))
    search = _Search(index, queries, candidates, k, exact="Flat" in kind)
    note = f"{len(candidates):,} vectors, {kind}"
    if "IVF" in kind and len(queries):
        lists, found = search.tune(recall)
        note += f", {lists:,} lists a query, recall {found:.4f} on a sample"
        if found < recall:
            note += f" (asked for: {recall})"
    _LOG.info("%s", note)
    cosines = np.empty((len(queries), k), dtype=np.float32)
    rows = np.empty((len(queries), k), dtype=np.int64)
    with progress_bar("Searching", len(queries), "rows", show=progress) as advance:
        for start in range(0, len(queries), _BLOCK):
            chosen = np.arange(start, min(start + _BLOCK, len(queries)))
            cosines[chosen], rows[chosen] = search(chosen)
            advance(len(chosen))
    return cosines, rows


def index_kind(count: int, dim: int) -> str:
    """Chooses an index by size, in the words of FAISS's `index_factory`.

    Args:
        count: Vectors in the index.
        dim: Their length.

    Returns:
        `"Flat"`, which compares all, below 20,000 vectors; then lists, 4 sqrt(count) of
        them, of vectors as they are up to 4 GB, in 8 bits a number up to 16 GB, and
        beyond in half a bit to four bits a number (product quantisation).

    Example:
        >>> from labse_tf.mining.approximate import index_kind
        >>> index_kind(1_000_000, 256)
        'IVF4000,Flat'
    """
    if count < _SMALLEST_LISTS:
        return "Flat"
    lists = int(4 * count**0.5)
    coarse = f"IVF{lists}_HNSW32" if lists > 16_384 else f"IVF{lists}"
    if 4 * count * dim <= _MEMORY:
        return f"{coarse},Flat"
    if count * dim <= _MEMORY:
        return f"{coarse},SQ8"
    parts = next(m for m in (128, 64, 32, 16, 8, 4, 2, 1) if dim % m == 0 and m <= dim)
    return f"OPQ{parts},{coarse},PQ{parts}"


def _filled_index(candidates: Any) -> tuple[Any, str]:
    """An index that has learned from the candidates and holds them."""
    import faiss

    count, dim = np.shape(candidates)
    kind = index_kind(count, dim)
    index = faiss.index_factory(dim, kind, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        lists = faiss.extract_index_ivf(index).nlist
        # FAISS asks for 39 vectors a list; more change little.
        size = min(count, 64 * lists)
        rows = np.random.default_rng(0).choice(count, size, replace=False)
        index.train(_float32(candidates, np.sort(rows)))
    for start in range(0, count, _BLOCK):
        index.add(_float32(candidates, slice(start, start + _BLOCK)))
    return index, kind


class _Search:
    """Searches some of the queries; what comes back is compared exactly."""

    def __init__(
        self, index: Any, queries: Any, candidates: Any, k: int, *, exact: bool
    ) -> None:
        self._index, self._queries, self._candidates = index, queries, candidates
        self._k = k
        self._count = k if exact else min(_CANDIDATES * k, len(candidates))

    def __call__(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        queries = np.asarray(self._queries[chosen])
        if not self._k:
            return np.empty((len(chosen), 0)), np.empty((len(chosen), 0))
        _, near = self._index.search(_float32(self._queries, chosen), self._count)
        # Where the lists that were looked at hold too few, all are.
        few = np.flatnonzero((near < 0).any(axis=1))
        near[few] = near[few].clip(0)
        cosines, rows = neighbors_of_candidates(
            queries, self._candidates, near, self._k
        )
        if len(few):
            cosines[few], rows[few] = self.exactly(queries[few])
        return cosines, rows

    def exactly(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The neighbours by comparison with every candidate."""
        return nearest_neighbors(queries, self._candidates, self._k)

    def tune(self, recall: float) -> tuple[int, float]:
        """Looks into as few lists as give the recall; returns both."""
        import faiss

        lists = faiss.extract_index_ivf(self._index)
        size = min(_SAMPLE, len(self._queries))
        chosen = np.random.default_rng(0).choice(
            len(self._queries), size, replace=False
        )
        chosen.sort()
        wanted = self.exactly(np.asarray(self._queries[chosen]))[0][:, -1:]
        lists.nprobe = 1
        while True:
            # A neighbour as near as the k-th is one of the k nearest.
            found = float((self(chosen)[0] >= wanted).mean())
            if found >= recall or lists.nprobe == lists.nlist:
                return lists.nprobe, found
            more = max(lists.nprobe + 1, lists.nprobe * 3 // 2)
            lists.nprobe = min(more, lists.nlist)


def _check(name: str, vectors: Any, width: tuple[int, ...]) -> None:
    """Refuses what is no finite matrix of the width."""
    shape = np.shape(vectors)
    if len(shape) != 2 or shape[1:] != width:
        raise ValueError(
            f"`{name}` must have the shape (rows, {(*width, 'D')[0]}). "
            f"Received: {shape}"
        )
    for start in range(0, len(vectors), _BLOCK):
        check_finite(np.asarray(vectors[start : start + _BLOCK]), f"`{name}`", start)


def _float32(vectors: Any, rows: Any) -> np.ndarray:
    """Rows as unit vectors for FAISS, `(n, D)`."""
    return np.ascontiguousarray(unit_rows(np.asarray(vectors[rows])), np.float32)
