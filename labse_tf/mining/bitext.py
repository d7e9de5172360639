"""Bitext: nearest neighbors -> pairs of translations, selected by margin scores.

Some sentences are near to everything, so the same cosine can be high in one
neighborhood and low in another. The margin compares the cosine with the mean cosine of
both sentences with their k nearest neighbors on the other side.

References:
    - Artetxe and Schwenk, sections 3.1 (`MARGINS`) and 3.2 (`RETRIEVALS`),
      https://arxiv.org/abs/1811.01136
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any, NamedTuple

import numpy as np

from labse_tf.mining.neighbors import BothWays, neighbors_both_ways
from labse_tf.progress import Progress

MARGINS = ("ratio", "distance", "cosine")
RETRIEVALS = ("max", "intersection", "forward", "backward")
INDEXES = ("auto", "exact", "faiss")

# 100,000 x 100,000: an exact search takes about a minute on two cores.
_MOST_EXACT_PAIRS = 10**10

# Lower bound of a mean cosine: the ratio is undefined for a mean of 0 and changes its
# sign for a negative mean.
_SMALLEST_MEAN = 1e-6


class MinedPairs(NamedTuple):
    """Pairs of translations, best first.

    Of equal scores the lower source row comes first, then the lower target row.

    Attributes:
        scores: float32 `(p,)`.
        sources: Rows of the sources, int64 `(p,)`.
        targets: Rows of the targets, int64 `(p,)`.
    """

    scores: np.ndarray
    sources: np.ndarray
    targets: np.ndarray


def margin_scores(
    cosines: Any, source_means: Any, target_means: Any, margin: str = "ratio"
) -> np.ndarray:
    """Return the margin scores of pairs.

    With m, the mean of both neighborhood means, `ratio` is cosine / m, `distance` is
    cosine - m, and `cosine` is the cosine itself.

    Args:
        cosines: Cosines of the pairs, of any shape.
        source_means: Mean cosine of the source with its k nearest targets, of a
            broadcastable shape.
        target_means: Mean cosine of the target with its k nearest sources.
        margin: `"ratio"`, `"distance"` or `"cosine"`.

    Returns:
        float32 of the broadcast shape. Means below 1e-6 count as 1e-6 in a ratio.

    Raises:
        ValueError: If `margin` is unknown.

    Example:
        >>> from labse_tf.mining import margin_scores
        >>> float(margin_scores(0.9, 0.6, 0.4))
        1.7999999523162842
    """
    if margin not in MARGINS:
        raise ValueError(f"`margin` must be one of {MARGINS}. Received: {margin!r}")
    cosines, first, second = (
        np.asarray(values, dtype=np.float64)
        for values in (cosines, source_means, target_means)
    )
    mean = (first + second) / 2
    if margin == "ratio":
        scores = cosines / np.maximum(mean, _SMALLEST_MEAN)
    elif margin == "distance":
        scores = cosines - mean
    else:
        scores = np.broadcast_to(cosines, np.broadcast(cosines, mean).shape)
    return scores.astype(np.float32)


def mine_bitext(
    source_vectors: Any,
    target_vectors: Any,
    k: int = 4,
    margin: str = "ratio",
    threshold: float | None = None,
    **options: Any,
) -> list[tuple[float, int, int]]:
    """Find pairs of translations in two sets of sentences, as a list.

    Args:
        source_vectors: See `sources` of `mine_pairs`.
        target_vectors: See `targets` of `mine_pairs`.
        k: See `mine_pairs`.
        margin: See `mine_pairs`.
        threshold: See `mine_pairs`.
        **options: Further arguments of `mine_pairs`.

    Returns:
        `[(score, source row, target row)]`, best first.

    Raises:
        ValueError: See `mine_pairs`.

    Example:
        >>> import numpy as np
        >>> from labse_tf.mining import mine_bitext
        >>> pairs = mine_bitext(np.eye(3), np.eye(3)[[2, 0, 1]], k=2, margin="cosine")
        >>> [(source, target) for _, source, target in pairs]
        [(0, 1), (1, 2), (2, 0)]
    """
    found = mine_pairs(
        source_vectors,
        target_vectors,
        k=k,
        margin=margin,
        threshold=threshold,
        **options,
    )
    return list(zip(*(column.tolist() for column in found), strict=True))


def mine_pairs(
    sources: Any,
    targets: Any,
    *,
    k: int = 4,
    margin: str = "ratio",
    retrieval: str = "max",
    one_to_one: bool = True,
    threshold: float | None = None,
    top: int | None = None,
    index: str = "auto",
    recall: float = 0.99,
    mean_floor: float = 0.0,
    block_size: int = 2048,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> MinedPairs:
    """Find pairs of translations in two sets of sentences, as arrays.

    Args:
        sources: `(N, D)`; may be memory-mapped. Rows need not be unit vectors.
        targets: `(M, D)`, see `sources`.
        k: Number of neighbors whose mean cosine the margin uses, and number of
            candidates of each sentence.
        margin: `"ratio"`, `"distance"`, or `"cosine"` without a margin.
        retrieval: Candidates that become pairs. `"forward"`: each source with its best
            target; `"backward"`: each target with its best source; `"intersection"`:
            pairs in both; `"max"`: pairs in either.
        one_to_one: Whether each sentence is in at most one pair. Pairs are chosen
            greedily, best first.
        threshold: Lowest score to keep.
        top: Maximum number of pairs to keep.
        index: `"exact"` compares every pair; `"faiss"` finds nearly all neighbors much
            faster (needs `pip install 'labse_tf[mining]'`); `"auto"` uses FAISS if it
            is installed and there are more than 10^10 pairs.
        recall: Share of the neighbors that FAISS must find, measured on a sample.
        mean_floor: See `mine_from_neighbors`.
        block_size: See `neighbors_both_ways`. Exact search only.
        checkpoint: See `neighbors_both_ways`. Exact search only.
        progress: See `labse_tf.progress`. Counts sources, and with FAISS then targets.

    Raises:
        ImportError: If FAISS is requested but not installed.
        ValueError: If an argument or a matrix is invalid, see `neighbors_both_ways`.
    """
    check_options(
        k=k,
        margin=margin,
        retrieval=retrieval,
        top=top,
        index=index,
        recall=recall,
        mean_floor=mean_floor,
    )
    if margin == "cosine":
        # Without a margin, only the nearest candidate matters.
        k = min(k, 1)
    both = find_neighbors(
        sources,
        targets,
        k,
        index=index,
        recall=recall,
        block_size=block_size,
        checkpoint=checkpoint,
        progress=progress,
    )
    return mine_from_neighbors(
        both,
        margin=margin,
        retrieval=retrieval,
        one_to_one=one_to_one,
        threshold=threshold,
        top=top,
        mean_floor=mean_floor,
    )


def find_neighbors(
    sources: Any,
    targets: Any,
    k: int,
    *,
    index: str = "auto",
    recall: float = 0.99,
    block_size: int = 2048,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> BothWays:
    """Find the k nearest targets of each source, and vice versa, exactly or by FAISS.

    Args:
        sources: `(N, D)`; may be memory-mapped. Rows need not be unit vectors.
        targets: `(M, D)`, see `sources`.
        k: Number of neighbors; fewer if there are fewer candidates.
        index: See `mine_pairs`.
        recall: See `mine_pairs`.
        block_size: See `mine_pairs`.
        checkpoint: See `mine_pairs`.
        progress: See `mine_pairs`.

    Raises:
        ImportError: See `mine_pairs`.
        ValueError: See `mine_pairs`.
    """
    check_options(k=k, index=index, recall=recall)
    many = len(sources) * len(targets) > _MOST_EXACT_PAIRS
    if index == "faiss" or (index == "auto" and many and _has_faiss()):
        from labse_tf.mining import approximate

        return approximate.neighbors_both_ways(
            sources, targets, k, recall=recall, progress=progress
        )
    return neighbors_both_ways(
        sources,
        targets,
        k,
        block_size=block_size,
        checkpoint=checkpoint,
        progress=progress,
    )


def mine_from_neighbors(
    both: BothWays,
    *,
    margin: str = "ratio",
    retrieval: str = "max",
    one_to_one: bool = True,
    threshold: float | None = None,
    top: int | None = None,
    mean_floor: float = 0.0,
) -> MinedPairs:
    """Find pairs among known neighbors, to compute several scores from one search.

    Args:
        both: Neighbors from `neighbors_both_ways`.
        margin: See `mine_pairs`.
        retrieval: See `mine_pairs`.
        one_to_one: See `mine_pairs`.
        threshold: See `mine_pairs`.
        top: See `mine_pairs`.
        mean_floor: Quantile of all neighborhood means, of both sides, to which smaller
            means are raised. A sentence that is near to nothing has a tiny mean, which
            makes the ratio of a wrong pair high. 0 leaves the means as the paper
            defines them.

    Raises:
        ValueError: If an argument is invalid.
    """
    check_options(margin=margin, retrieval=retrieval, top=top, mean_floor=mean_floor)
    if not both.forward_rows.size or not both.backward_rows.size:
        none = np.empty(0, dtype=np.int64)
        return MinedPairs(np.empty(0, dtype=np.float32), none, none)
    means = neighborhood_means(both, mean_floor)
    forward = _best_candidates(
        both.forward_cosines, both.forward_rows, means[0], means[1], margin
    )
    backward = _best_candidates(
        both.backward_cosines, both.backward_rows, means[1], means[0], margin
    )
    sources = np.arange(len(both.forward_rows))
    targets = np.arange(len(both.backward_rows))
    if retrieval == "backward":
        found = MinedPairs(backward[0], backward[1], targets)
    else:
        found = MinedPairs(forward[0], sources, forward[1])
        agreed = backward[1][forward[1]] == sources
        if retrieval == "intersection":
            found = MinedPairs(*(column[agreed] for column in found))
        elif retrieval == "max":
            # Pairs in both directions have the same score, so they are added once.
            other = forward[1][backward[1]] != targets
            columns = (backward[0], backward[1], targets)
            found = MinedPairs(
                *(
                    np.concatenate([ours, theirs[other]])
                    for ours, theirs in zip(found, columns, strict=True)
                )
            )
    if threshold is not None:
        found = _chosen(found, found.scores >= np.float32(threshold))
    found = _chosen(found, np.lexsort((found.targets, found.sources, -found.scores)))
    if one_to_one:
        found = _chosen(found, select_one_to_one(found.sources, found.targets))
    return found if top is None else _chosen(found, slice(top))


def neighborhood_means(both: BothWays, mean_floor: float = 0.0) -> list[np.ndarray]:
    """Return the mean cosine of each sentence with its neighbors.

    Args:
        both: Neighbors from `neighbors_both_ways`.
        mean_floor: See `mine_from_neighbors`.

    Returns:
        float64 `(N,)` for the sources and `(M,)` for the targets.
    """
    means = [
        cosines.mean(axis=1, dtype=np.float64)
        for cosines in (both.forward_cosines, both.backward_cosines)
    ]
    if mean_floor:
        floor = np.quantile(np.concatenate(means), mean_floor)
        means = [np.maximum(side, floor) for side in means]
    return means


def _best_candidates(
    cosines: np.ndarray,
    rows: np.ndarray,
    means: np.ndarray,
    other_means: np.ndarray,
    margin: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Return score and row of each best candidate; of equal scores the lower row."""
    scores = margin_scores(cosines, means[:, None], other_means[rows], margin)
    best = scores.max(axis=1)
    equal = scores == best[:, None]
    return best, np.where(equal, rows, np.iinfo(np.int64).max).min(axis=1)


def select_one_to_one(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Select pairs greedily so that each sentence is in at most one pair.

    The pairs must be sorted, best first. Each round takes the pairs that are the first
    remaining pair of both their source and their target.

    Args:
        sources: Row of the source of each pair, int64 `(p,)`.
        targets: Row of the target of each pair, int64 `(p,)`.

    Returns:
        Which pairs are selected, bool `(p,)`.
    """
    kept = np.zeros(len(sources), dtype=bool)
    taken = [
        np.zeros(side.max(initial=-1) + 1, dtype=bool) for side in (sources, targets)
    ]
    left = np.arange(len(sources))
    while len(left):
        firsts = [
            np.unique(side[left], return_index=True)[1] for side in (sources, targets)
        ]
        both = np.intersect1d(firsts[0], firsts[1], assume_unique=True)
        chosen = left[both]
        kept[chosen] = True
        taken[0][sources[chosen]] = True
        taken[1][targets[chosen]] = True
        left = left[~(taken[0][sources[left]] | taken[1][targets[left]])]
    return kept


def _chosen(pairs: MinedPairs, which: Any) -> MinedPairs:
    """Return the pairs selected by an index, in its order."""
    return MinedPairs(*(column[which] for column in pairs))


def check_options(
    *,
    k: int = 1,
    margin: str = "ratio",
    retrieval: str = "max",
    top: int | None = None,
    index: str = "auto",
    recall: float = 1.0,
    mean_floor: float = 0.0,
) -> None:
    """Check arguments of `mine_pairs` before hours are spent on embedding.

    Args:
        k: See `mine_pairs`.
        margin: See `mine_pairs`.
        retrieval: See `mine_pairs`.
        top: See `mine_pairs`.
        index: See `mine_pairs`.
        recall: See `mine_pairs`.
        mean_floor: See `mine_from_neighbors`.

    Raises:
        ImportError: If FAISS is requested but not installed.
        ValueError: If an argument is invalid.
    """
    for name, value, known in (
        ("margin", margin, MARGINS),
        ("retrieval", retrieval, RETRIEVALS),
        ("index", index, INDEXES),
    ):
        if value not in known:
            raise ValueError(f"`{name}` must be one of {known}. Received: {value!r}")
    for name, count in (("k", k), ("top", top)):
        if count is not None and count < 1:
            raise ValueError(f"`{name}` must be positive. Received: {count}")
    if not 0 < recall <= 1:
        raise ValueError(f"`recall` must be in (0, 1]. Received: {recall}")
    if not 0 <= mean_floor < 1:
        raise ValueError(f"`mean_floor` must be in [0, 1). Received: {mean_floor}")
    if index == "faiss" and not _has_faiss():
        raise ImportError(
            "an approximate search needs FAISS: pip install 'labse_tf[mining]'"
        )


def _has_faiss() -> bool:
    """Return whether the extra `mining` is installed."""
    return importlib.util.find_spec("faiss") is not None
