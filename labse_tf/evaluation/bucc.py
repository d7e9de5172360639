"""BUCC: mining translations from two sets of sentences with a score threshold.

Most sentences of either set have no translation in the other. Each source sentence is
paired with its best target sentence, and all pairs with a score at or above a threshold
count as translations. The threshold is the one with the best F on the training set.

This is not `mteb`'s "BUCC.v2", which omits the sentences without a translation and only
tests whether the nearest neighbor is right. Its scores are far higher.

Counting: sentences with the same text on one side are one row, which is encoded and
searched once and can be found in only one pair. A found pair of texts is right if the
gold file pairs any id of the first text with any id of the second. Gold lines between
the same two texts are one gold pair. With `found` pairs at or above the threshold, of
which `right` are right, and `gold` distinct gold pairs,

    precision = right / found,  recall = right / gold,  F = 2 right / (found + gold),

and precision is 0 if no pair is found. LASER's script removes repeated texts from the
found pairs but not from the gold pairs.

References:
    - Feng et al., the results on BUCC, https://arxiv.org/abs/2007.01852
    - Artetxe and Schwenk, "Margin-based Parallel Corpus Mining with Multilingual
      Sentence Embeddings" (the scores), https://arxiv.org/abs/1811.01136
    - https://github.com/facebookresearch/LASER/tree/main/tasks/bucc
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from labse_tf.evaluation import bucc_files
from labse_tf.evaluation.bucc_results import DIRECTIONS, BuccReport, BuccResult
from labse_tf.evaluation.nearest import Encoder, encoded
from labse_tf.mining import BothWays, mine_from_neighbors, neighbors_both_ways
from labse_tf.progress import Progress, progress_bar

SCORES = ("cosine", "ratio", "distance")

_ENCODED_AT_A_TIME = 8192
_CURVE_POINTS = 100

# === Threshold ===


class Cut(NamedTuple):
    """A threshold and the number of items that it keeps.

    Attributes:
        threshold: Items with this score or a higher one are kept.
        found: Number of kept items.
        right: Number of kept items that are right.
    """

    threshold: float
    found: int
    right: int


def best_threshold(scores: Any, right: Any, gold: int) -> Cut:
    """Find the threshold with the best F.

    Items with the same score are kept together. If several thresholds have the same F,
    the highest one is returned.

    Args:
        scores: `(n,)`, in any order; higher is better.
        right: bool `(n,)`, whether each item is a gold item.
        gold: Number of gold items, found or not.

    Returns:
        The best cut. Its threshold is halfway between the lowest kept score and the
        next lower score, or the lowest score itself if all items are kept.

    Raises:
        ValueError: If there are no items, the lengths differ, a score is not finite, or
            more items are right than there are gold items.

    Example:
        >>> from labse_tf.evaluation import best_threshold
        >>> best_threshold([0.75, 0.5, 0.25], [True, True, False], gold=3)
        Cut(threshold=0.375, found=2, right=2)
        >>> best_threshold([0.75, 0.5, 0.25], [False, True, True], gold=2)
        Cut(threshold=0.25, found=3, right=2)
    """
    return _cuts(scores, right, gold).best(gold)


class _Cuts(NamedTuple):
    """All possible cuts of a sorted list of items, `(c,)` each."""

    lowest: np.ndarray  # the lowest kept score
    found: np.ndarray
    right: np.ndarray

    def best(self, gold: int) -> Cut:
        """Return the first cut with the best F."""
        # A single division gives equal F values exactly the same float.
        index = int(np.argmax(2 * self.right / (self.found + gold)))
        threshold = float(self.lowest[index : index + 2].mean())
        return Cut(threshold, int(self.found[index]), int(self.right[index]))

    def at(self, threshold: float) -> Cut:
        """Return the cut at a given threshold."""
        kept = int((self.lowest >= threshold).sum())
        if not kept:
            return Cut(threshold, 0, 0)
        return Cut(threshold, int(self.found[kept - 1]), int(self.right[kept - 1]))


def _cuts(scores: Any, right: Any, gold: int) -> _Cuts:
    """Sort items by score, descending, and count the items kept at each score."""
    # In float64 the midpoint of two adjacent float32 scores lies between them.
    scores = np.asarray(scores, dtype=np.float64)
    right = np.asarray(right, dtype=bool)
    if scores.ndim != 1 or not scores.size or scores.shape != right.shape:
        raise ValueError(
            "`scores` and `right` must have the same shape (n,) with at least one "
            f"item. Received: {scores.shape} and {right.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            "`scores` must be finite. Received: NaN or infinity at index "
            f"{np.flatnonzero(~np.isfinite(scores))[0]}"
        )
    if gold < max(1, right.sum()):
        raise ValueError(
            f"`gold` must be at least 1 and at least the {right.sum()} items that are "
            f"right. Received: {gold}"
        )
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    return _Cuts(scores[ends], ends + 1, np.cumsum(right[order])[ends])


def _curve(cuts: _Cuts, gold: int, chosen: Cut) -> tuple[tuple[float, float], ...]:
    """Return recall and precision at about 100 cuts, including the chosen one."""
    recall = cuts.right / gold
    levels = np.linspace(recall[0], recall[-1], _CURVE_POINTS)
    # The first cut that reaches a recall level has the best precision at that level.
    places = np.searchsorted(recall, levels)
    places = np.append(places, [0, len(recall) - 1])
    places = np.append(places, np.flatnonzero(cuts.found == chosen.found))
    return tuple(
        (round(float(recall[i]), 5), round(float(cuts.right[i] / cuts.found[i]), 5))
        for i in np.unique(places)
    )


# === Measuring ===


def bucc(
    encode: Encoder,
    folder: str | os.PathLike[str],
    pair: str = "de-en",
    *,
    direction: str = "forward",
    score: str = "cosine",
    split: str = "training",
    threshold: float | None = None,
    k: int = 4,
    progress: Progress = None,
) -> BuccResult:
    """Mine one language pair in one direction by one score.

    Each text of the source side is paired with its best text of the target side; a
    target may be in several pairs. The module docstring describes how pairs are
    counted. To choose a threshold on one split and use it on another, pass the
    `threshold` of the first result to the second call, or call `bucc_report`, which
    also encodes only once for all directions and scores.

    Args:
        encode: Callable from a list of strings to vectors `(n, D)` of any norm.
        folder: Folder of `XX-en.training.{XX,en,gold}` (or another split), plain or
            compressed, directly in it or in its sub-folder `XX-en`.
        pair: A language and English, with any code of the language.
        direction: `"forward"` if English is the target, `"backward"` if it is the
            source.
        score: `"cosine"`, as in the paper; `"ratio"` or `"distance"`: the cosine
            divided by, or minus, the mean cosine of both texts with their `k` nearest
            neighbors.
        split: `"training"`, `"sample"` or `"test"`.
        threshold: Lowest score of a found pair. If `None`, the threshold with the best
            F is used.
        k: Number of neighbors.
        progress: See `labse_tf.progress`. Counts sentences of each step: sources,
            targets, search.

    Raises:
        OSError: If the folder or a file cannot be read.
        ValueError: If an argument is invalid, a file is missing or has an invalid line
            (the message has file and line), or `encode` does not return one finite row
            per sentence.

    Example:
        >>> result = bucc(model.encode, "bucc2018", "fr-en")  # doctest: +SKIP
        >>> result.precision, result.recall, result.f1  # doctest: +SKIP
        (0.866, 0.909, 0.887)

    References:
        - Feng et al., the results on BUCC, https://arxiv.org/abs/2007.01852
        - Artetxe and Schwenk, https://arxiv.org/abs/1811.01136
    """
    _check_among("direction", direction, DIRECTIONS)
    _check_among("score", score, SCORES)
    _check_k(k)
    if threshold is not None and not np.isfinite(threshold):
        raise ValueError(f"`threshold` must be finite. Received: {threshold}")
    ((data, _),) = _read(folder, pair, split, None)
    both = _neighbors(encode, data, k, progress)
    return _result(data, both, direction, score, threshold, "caller")


def bucc_report(
    encode: Encoder,
    folder: str | os.PathLike[str],
    pairs: str | Iterable[str] | None = None,
    *,
    directions: Iterable[str] = DIRECTIONS,
    scores: Iterable[str] = ("cosine", "ratio"),
    split: str = "training",
    apply_to: str | None = "test",
    k: int = 4,
    progress: Progress = None,
) -> BuccReport:
    """Mine several language pairs, as in the paper's table.

    The threshold with the best F on `split` is also used on `apply_to`, if that split
    has a gold file. Every text is encoded once, and one search gives all directions and
    scores.

    Args:
        encode: See `bucc`.
        folder: See `bucc`.
        pairs: Pairs to measure. If `None`, all pairs that have files of `split`.
        directions: One or both directions, see `bucc`.
        scores: One or more scores, see `bucc`.
        split: Split on which thresholds are chosen.
        apply_to: Split on which these thresholds are also used, or `None`.
        k: See `bucc`.
        progress: See `bucc`.

    Returns:
        The results, ordered by pair, split, direction and score.

    Raises:
        OSError: See `bucc`.
        ValueError: See `bucc`. Invalid files are reported before anything is encoded.

    Example:
        >>> report = bucc_report(model.encode, "bucc2018")  # doctest: +SKIP
        >>> print(report.table())  # doctest: +SKIP
    """
    directions = _some_of("directions", directions, DIRECTIONS)
    scores = _some_of("scores", scores, SCORES)
    _check_k(k)
    results = []
    for data, other in _read(folder, pairs, split, apply_to):
        thresholds: dict[tuple[str, str], float] = {}
        for part in (data,) if other is None else (data, other):
            both = _neighbors(encode, part, k, progress)
            for key in itertools.product(directions, scores):
                # Chosen on the first part, then reused on the second.
                result = _result(part, both, *key, thresholds.get(key), split)
                thresholds[key] = result.threshold
                results.append(result)
    return BuccReport(tuple(results))


def _some_of(name: str, values: Iterable[str], known: Sequence[str]) -> list[str]:
    chosen = list(dict.fromkeys([values] if isinstance(values, str) else values))
    if not chosen:
        raise ValueError(f"`{name}` must have at least one value. Received: none")
    for value in chosen:
        _check_among(name, value, known)
    return chosen


def _check_among(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"`{name}` must be one of {known}. Received: {value!r}")


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"`k` must be at least 1. Received: {k}")


def _read(
    folder: str | os.PathLike[str],
    pairs: str | Iterable[str] | None,
    split: str,
    apply_to: str | None,
) -> list[tuple[bucc_files.BuccSentences, bucc_files.BuccSentences | None]]:
    """Read all files before any sentence is encoded, which may take hours."""
    _check_among("split", split, bucc_files.SPLITS)
    if apply_to is not None:
        _check_among("apply_to", apply_to, bucc_files.SPLITS)
    if pairs is not None:
        named = [pairs] if isinstance(pairs, str) else pairs
        pairs = list(dict.fromkeys(bucc_files.pair_name(pair) for pair in named))
        if not pairs:
            raise ValueError("`pairs` must name at least one pair. Received: none")
    files = bucc_files.find_bucc_files(folder)
    if pairs is None:
        pairs = [pair for pair, splits in files.items() if split in splits]
        if not pairs:
            raise ValueError(
                f"{folder}: expected files XX-en.{split}.XX, .en and .gold. Received: "
                f"only other splits of {' '.join(files)}"
            )
    missing = [pair for pair in pairs if pair not in files]
    if missing:
        raise ValueError(
            f"`pairs` must be in {folder}, which has files of {' '.join(files)}. "
            f"Received: {' '.join(missing)}"
        )
    read: list[tuple[bucc_files.BuccSentences, bucc_files.BuccSentences | None]] = []
    for pair in pairs:
        data = bucc_files.read_bucc(folder, pair, split, files[pair])
        other = None
        # BUCC's own test set has no gold file.
        if apply_to not in (None, split) and "gold" in files[pair].get(apply_to, {}):
            other = bucc_files.read_bucc(folder, pair, apply_to, files[pair])
        read.append((data, other))
    return read


def _neighbors(
    encode: Encoder, data: bucc_files.BuccSentences, k: int, progress: Progress
) -> BothWays:
    """Encode both sides and find the neighbors of each text on the other side."""
    what = f"{data.pair} {data.split}"
    codes = (data.pair.removesuffix("-en"), "en")
    sources, targets = (
        _encode(encode, texts, f"{what} {code}", progress)
        for texts, code in zip((data.sources, data.targets), codes, strict=True)
    )
    if sources.shape[1] != targets.shape[1]:
        raise ValueError(
            "`encode` must return vectors of the same length for all texts. Received: "
            f"{sources.shape[1]} for {what} {codes[0]} and {targets.shape[1]} for "
            f"{what} en"
        )
    return neighbors_both_ways(sources, targets, k, progress=progress)


def _encode(
    encode: Encoder, texts: list[str], what: str, progress: Progress
) -> np.ndarray:
    """Encode texts in blocks and show a progress bar."""
    blocks: list[np.ndarray] = []
    with progress_bar(
        f"Encoding {what}", len(texts), "sentences", show=progress
    ) as advance:
        for start in range(0, len(texts), _ENCODED_AT_A_TIME):
            block = texts[start : start + _ENCODED_AT_A_TIME]
            vectors = encoded(encode, block, what=what, first=start)
            if blocks and vectors.shape[1] != blocks[0].shape[1]:
                raise ValueError(
                    "`encode` must return vectors of the same length for all texts. "
                    f"Received: {blocks[0].shape[1]}, and {vectors.shape[1]} for {what}"
                )
            blocks.append(vectors)
            advance(len(block))
    return np.concatenate(blocks)


def _result(
    data: bucc_files.BuccSentences,
    both: BothWays,
    direction: str,
    score: str,
    threshold: float | None,
    given_by: str,
) -> BuccResult:
    """Pair the texts, choose the threshold or apply the given one, and count."""
    mined = mine_from_neighbors(
        both, margin=score, retrieval=direction, one_to_one=False
    )
    # Each pair of rows as one integer, to compare pairs with `np.isin`.
    width = len(data.targets)
    right = np.isin(
        mined.sources * width + mined.targets, data.gold[:, 0] * width + data.gold[:, 1]
    )
    gold = len(data.gold)
    cuts = _cuts(mined.scores, right, gold)
    cut = cuts.best(gold) if threshold is None else cuts.at(float(threshold))
    return BuccResult(
        pair=data.pair,
        direction=direction,
        score=score,
        split=data.split,
        threshold=cut.threshold,
        threshold_from=data.split if threshold is None else given_by,
        found=cut.found,
        right=cut.right,
        gold=gold,
        lines=data.lines,
        texts=(len(data.sources), len(data.targets)),
        curve=_curve(cuts, gold, cut),
    )
