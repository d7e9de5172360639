"""Approximate nearest neighbors with FAISS: nearly all neighbors, much faster.

The candidates are clustered into lists around centroids, and a query is only compared
with the lists nearest to it. The number of lists determines recall and time. It is
tuned on a sample whose neighbors are searched exactly. Returned cosines are exact; only
neighbors can be missed.

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
_SMALLEST_LISTS = 20_000  # below this, an exhaustive search is as fast
_MEMORY = 4 << 30  # bytes of vectors in an index; above, vectors are compressed
_SAMPLE = 1_000
# If an index rounds vectors, this many times k candidates are compared exactly.
_CANDIDATES = 4


def neighbors_both_ways(
    sources: Any,
    targets: Any,
    k: int,
    *,
    recall: float = 0.99,
    progress: Progress = None,
) -> BothWays:
    """Find nearly all of the k nearest targets of each source, and vice versa.

    Args:
        sources: `(N, D)`; may be memory-mapped. Rows need not be unit vectors.
        targets: `(M, D)`, see `sources`.
        k: Number of neighbors; fewer if there are fewer candidates.
        recall: Share of the neighbors that must be found on a sample.
        progress: See `labse_tf.progress`. Counts sources, then targets.

    Returns:
        See `labse_tf.mining.neighbors_both_ways`. The cosines are exact.

    Raises:
        ImportError: If FAISS (the extra `mining`) is not installed.
        ValueError: See `approximate_neighbors`.
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
    """Find nearly all of the k candidates with the largest cosine to each query.

    Args:
        queries: `(N, D)`; may be memory-mapped. Rows need not be unit vectors.
        candidates: `(M, D)`, see `queries`.
        k: See `neighbors_both_ways`.
        recall: Share of the neighbors that must be found on a sample of 1,000 queries.
        progress: See `labse_tf.progress`. Counts queries.

    Returns:
        Cosines and rows, see `labse_tf.mining.nearest_neighbors`.

    Raises:
        ImportError: If FAISS (the extra `mining`) is not installed.
        ValueError: If an argument is out of range, a matrix has an invalid shape or a
            row is not finite.
    """
    if k < 1:
        raise ValueError(f"`k` must be positive. Received: {k}")
    if not 0 < recall <= 1:
        raise ValueError(f"`recall` must be in (0, 1]. Received: {recall}")
    for name, vectors in {"queries": queries, "candidates": candidates}.items():
        _check(name, vectors, np.shape(queries)[-1:])
    index, kind = _filled_index(candidates)
    k = min(k, len(candidates))
    search = _Search(index, queries, candidates, k, exact="Flat" in kind)
    note = f"{len(candidates):,} vectors, {kind}"
    if "IVF" in kind and len(queries):
        lists, found = search.tune(recall)
        note += f", {lists:,} lists per query, recall {found:.4f} on a sample"
        if found < recall:
            note += f" (requested: {recall})"
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
    """Return the type of index for a size, as a string for FAISS's `index_factory`.

    Args:
        count: Number of vectors in the index.
        dim: Length of the vectors.

    Returns:
        `"Flat"`, an exhaustive search, below 20,000 vectors; otherwise 4 sqrt(count)
        lists. Vectors in lists are stored as float32 up to 4 GB, with 8 bits per number
        up to 16 GB, and with product quantization, at most 128 bytes per vector,
        beyond.

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
    """Return an index trained on the candidates and filled with them, and its type."""
    import faiss

    count, dim = np.shape(candidates)
    kind = index_kind(count, dim)
    index = faiss.index_factory(dim, kind, faiss.METRIC_INNER_PRODUCT)
    if not index.is_trained:
        lists = faiss.extract_index_ivf(index).nlist
        # FAISS recommends at least 39 vectors per list; more change little.
        size = min(count, 64 * lists)
        rows = np.random.default_rng(0).choice(count, size, replace=False)
        index.train(_float32(candidates, np.sort(rows)))
    for start in range(0, count, _BLOCK):
        index.add(_float32(candidates, slice(start, start + _BLOCK)))
    return index, kind


class _Search:
    """Search for the neighbors of chosen queries, with exact cosines."""

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
        # If the searched lists have too few candidates, all candidates are compared.
        few = np.flatnonzero((near < 0).any(axis=1))
        near[few] = near[few].clip(0)
        cosines, rows = neighbors_of_candidates(
            queries, self._candidates, near, self._k
        )
        if len(few):
            cosines[few], rows[few] = self.exactly(queries[few])
        return cosines, rows

    def exactly(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the neighbors from a comparison with every candidate."""
        return nearest_neighbors(queries, self._candidates, self._k)

    def tune(self, recall: float) -> tuple[int, float]:
        """Set the smallest tried number of lists with the recall, and return both."""
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
            # A neighbor as near as the k-th nearest is one of the k nearest.
            found = float((self(chosen)[0] >= wanted).mean())
            if found >= recall or lists.nprobe == lists.nlist:
                return lists.nprobe, found
            more = max(lists.nprobe + 1, lists.nprobe * 3 // 2)
            lists.nprobe = min(more, lists.nlist)


def _check(name: str, vectors: Any, width: tuple[int, ...]) -> None:
    """Raise an error for anything but a finite matrix of the width."""
    shape = np.shape(vectors)
    if len(shape) != 2 or shape[1:] != width:
        raise ValueError(
            f"`{name}` must have the shape (rows, {(*width, 'D')[0]}). "
            f"Received: {shape}"
        )
    for start in range(0, len(vectors), _BLOCK):
        check_finite(np.asarray(vectors[start : start + _BLOCK]), f"`{name}`", start)


def _float32(vectors: Any, rows: Any) -> np.ndarray:
    """Return rows as unit vectors for FAISS, float32 `(n, D)`."""
    return np.ascontiguousarray(unit_rows(np.asarray(vectors[rows])), np.float32)
