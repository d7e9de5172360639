"""BUCC: mining translations out of two piles of text, and the threshold that does it.

Most sentences of either pile have no translation in the other. Each sentence of the
source side is paired with its best sentence of the target side, the pairs are sorted
by score, and those from a threshold on are said to be translations. The threshold is
the one with the best F on the training set.

This is not `mteb`'s "BUCC.v2", which leaves the sentences without a translation out
and asks only whether the nearest neighbour is right: figures are far higher there.

How pairs are counted. Sentences of the same text on a side are one: the text is
encoded and searched once, and it can be found in one pair only. A found pair of texts
is right if the gold file pairs any id of the one with any id of the other, and gold
lines between the same two texts are one gold pair. With `found` pairs from the
threshold on, of which `right` are right, and `gold` different gold pairs,

    precision = right / found,  recall = right / gold,  F = 2 right / (found + gold),

and precision is 0 where nothing is found. LASER's script leaves texts that repeat
out of what it finds, and not out of the gold pairs.

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

from labse_tf.evaluation.bucc_files import (
    SPLITS,
    BuccSentences,
    find_bucc_files,
    pair_name,
    read_bucc,
)
from labse_tf.evaluation.bucc_results import DIRECTIONS, BuccReport, BuccResult
from labse_tf.evaluation.nearest import Encoder, encoded
from labse_tf.mining import BothWays, mine_from_neighbors, neighbors_both_ways
from labse_tf.progress import Progress, progress_bar

SCORES = ("cosine", "ratio", "distance")

_ENCODED_AT_A_TIME = 8192
_CURVE_POINTS = 100

# === Threshold ===


class Cut(NamedTuple):
    """A threshold and what it keeps.

    Attributes:
        threshold: items with this score or a higher one are kept.
        found: number of kept items.
        right: number of kept items that are right.
    """

    threshold: float
    found: int
    right: int


def best_threshold(scores: Any, right: Any, gold: int) -> Cut:
    """Finds the threshold with the best F.

    A threshold keeps all items of a score or none of them, so only the ends of runs
    of equal scores are cuts; all of those are looked at, the last item's too. Of cuts
    with the same F the one with the highest threshold is taken.

    Args:
        scores: `(n,)`, in any order; higher is better.
        right: bool `(n,)`: whether the item is one of the gold ones.
        gold: number of gold ones, found or not.

    Returns:
        The cut. Its threshold lies in the middle between the lowest kept score and
        the next one; it is the lowest score itself where all items are kept.

    Raises:
        ValueError: there is no item, the lengths differ, a score is not finite, or
            more items are right than there are gold ones.

    Example:
        >>> from labse_tf.evaluation import best_threshold
        >>> best_threshold([0.75, 0.5, 0.25], [True, True, False], gold=3)
        Cut(threshold=0.375, found=2, right=2)
        >>> best_threshold([0.75, 0.5, 0.25], [False, True, True], gold=2)
        Cut(threshold=0.25, found=3, right=2)
    """
    return _cuts(scores, right, gold).best(gold)


class _Cuts(NamedTuple):
    """Every place where a sorted list of items can be cut, `(c,)` each."""

    lowest: np.ndarray  # the lowest kept score
    found: np.ndarray
    right: np.ndarray

    def best(self, gold: int) -> Cut:
        """The first cut with the best F, its threshold halfway to the next score."""
        # One division: cuts of the same F get the same number.
        index = int(np.argmax(2 * self.right / (self.found + gold)))
        threshold = float(self.lowest[index : index + 2].mean())
        return Cut(threshold, int(self.found[index]), int(self.right[index]))

    def at(self, threshold: float) -> Cut:
        """What a given threshold keeps."""
        kept = int((self.lowest >= threshold).sum())
        if not kept:
            return Cut(threshold, 0, 0)
        return Cut(threshold, int(self.found[kept - 1]), int(self.right[kept - 1]))


def _cuts(scores: Any, right: Any, gold: int) -> _Cuts:
    """Sorts items, the best first, and counts what is kept up to each score."""
    # As float64, in which the middle between two float32 lies between them.
    scores = np.asarray(scores, dtype=np.float64)
    right = np.asarray(right, dtype=bool)
    if scores.ndim != 1 or not scores.size or scores.shape != right.shape:
        raise ValueError(
            "scores and right must have the same shape (n,), with one item at least. "
            f"Received: {scores.shape} and {right.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            "scores must be finite. Received: NaN or infinity as item "
            f"{np.flatnonzero(~np.isfinite(scores))[0]}"
        )
    if gold < max(1, right.sum()):
        raise ValueError(
            f"gold must be 1 at least, and not below the {right.sum()} items that are "
            f"right. Received: {gold}"
        )
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    return _Cuts(scores[ends], ends + 1, np.cumsum(right[order])[ends])


def _curve(cuts: _Cuts, gold: int, chosen: Cut) -> tuple[tuple[float, float], ...]:
    """Recall and precision at about a hundred cuts, the chosen one among them."""
    recall = cuts.right / gold
    levels = np.linspace(recall[0], recall[-1], _CURVE_POINTS)
    # The first cut that reaches a level, which is that of the best precision there.
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
    """Mines one pair of languages in one direction by one score.

    Each text of the source side is paired with its best text of the target side; a
    target may be in many pairs. How pairs are counted, with texts that repeat, is
    said at the head of this module. To choose a threshold on one split and use it on
    another, give the `threshold` of the first result to the second call;
    `bucc_report` does it, and encodes once for all directions and scores.

    Args:
        encode: from a list of strings to `(n, D)`; the rows need not be unit vectors.
        folder: with `XX-en.training.{XX,en,gold}` and so on, plain or `.gz`, in it or
            in its folder `XX-en`.
        pair: a language and English, with any code of the language.
        direction: `"forward"`: English is the target; `"backward"`: the source.
        score: `"cosine"`, the paper's; `"ratio"` and `"distance"`: the cosine over,
            or less, the mean cosine with both texts' `k` nearest neighbours.
        split: `"training"`, `"sample"` or `"test"`.
        threshold: finds pairs with this score or a higher one; the threshold of the
            best F is searched where None.
        k: number of neighbours.
        progress: see `labse_tf.progress`; counts sentences, of each step anew:
            sources, targets, search.

    Returns:
        The result.

    Raises:
        OSError: the folder or a file cannot be read.
        ValueError: an argument is none of those above, a file is not there or has a
            bad line (the message has file and line), or `encode` gives anything but
            one finite row a sentence.

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
    if threshold is not None and not np.isfinite(threshold):
        raise ValueError(f"threshold must be finite. Received: {threshold}")
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
    """Mines pairs of languages: the paper's table, with thresholds used elsewhere.

    The threshold of the best F is searched on `split` and used as it is on
    `apply_to`, where that has a gold file. Every text is encoded once, and one search
    gives all directions and scores.

    Args:
        encode: as in `bucc`.
        folder: as in `bucc`.
        pairs: those to measure; all that have files of `split` where None.
        directions: as in `bucc`, some of them.
        scores: as in `bucc`, some of them.
        split: on which thresholds are searched.
        apply_to: on which they are used too; None for nowhere.
        k: as in `bucc`.
        progress: as in `bucc`.

    Returns:
        The results: by pair, by split, by direction, by score.

    Raises:
        OSError: as in `bucc`.
        ValueError: as in `bucc`, before anything is encoded where it is the files.

    Example:
        >>> report = bucc_report(model.encode, "bucc2018")  # doctest: +SKIP
        >>> print(report.table())  # doctest: +SKIP
    """
    directions = _some_of("directions", directions, DIRECTIONS)
    scores = _some_of("scores", scores, SCORES)
    results = []
    for data, other in _read(folder, pairs, split, apply_to):
        thresholds: dict[tuple[str, str], float] = {}
        for part in (data,) if other is None else (data, other):
            both = _neighbors(encode, part, k, progress)
            for key in itertools.product(directions, scores):
                # Searched on the first part, known on the second.
                result = _result(part, both, *key, thresholds.get(key), split)
                thresholds[key] = result.threshold
                results.append(result)
    return BuccReport(tuple(results))


def _some_of(name: str, values: Iterable[str], known: Sequence[str]) -> list[str]:
    chosen = list(dict.fromkeys([values] if isinstance(values, str) else values))
    if not chosen:
        raise ValueError(f"{name} must have one at least. Received: none")
    for value in chosen:
        _check_among(name, value, known)
    return chosen


def _check_among(name: str, value: Any, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {known}. Received: {value!r}")


def _read(
    folder: str | os.PathLike[str],
    pairs: str | Iterable[str] | None,
    split: str,
    apply_to: str | None,
) -> list[tuple[BuccSentences, BuccSentences | None]]:
    """Reads all files, before the first sentence is encoded, which may take hours."""
    _check_among("split", split, SPLITS)
    if apply_to is not None:
        _check_among("apply_to", apply_to, SPLITS)
    if pairs is not None:
        named = [pairs] if isinstance(pairs, str) else pairs
        pairs = list(dict.fromkeys(pair_name(pair) for pair in named))
        if not pairs:
            raise ValueError("pairs must name at least one. Received: none")
    files = find_bucc_files(folder)
    if pairs is None:
        pairs = [pair for pair, splits in files.items() if split in splits]
        if not pairs:
            raise ValueError(
                f"{folder}: expected files XX-en.{split}.XX, .en and .gold. Received: "
                f"other splits of {' '.join(files)}"
            )
    missing = [pair for pair in pairs if pair not in files]
    if missing:
        raise ValueError(
            f"pairs that {folder} has no files of; it has {' '.join(files)}. "
            f"Received: {' '.join(missing)}"
        )
    read: list[tuple[BuccSentences, BuccSentences | None]] = []
    for pair in pairs:
        data = read_bucc(folder, pair, split, files[pair])
        other = None
        # BUCC's own test set has no gold file.
        if apply_to not in (None, split) and "gold" in files[pair].get(apply_to, {}):
            other = read_bucc(folder, pair, apply_to, files[pair])
        read.append((data, other))
    return read


def _neighbors(
    encode: Encoder, data: BuccSentences, k: int, progress: Progress
) -> BothWays:
    """Encodes both sides and finds each text's neighbours on the other side."""
    if k < 1:
        raise ValueError(f"k must be 1 or more. Received: {k}")
    what = f"{data.pair} {data.split}"
    codes = (data.pair.removesuffix("-en"), "en")
    sources, targets = (
        _encode(encode, texts, f"{what} {code}", progress)
        for texts, code in zip((data.sources, data.targets), codes, strict=True)
    )
    if sources.shape[1] != targets.shape[1]:
        raise ValueError(
            "encode must give vectors of one length. Received: "
            f"{sources.shape[1]} for {what} {codes[0]} and {targets.shape[1]} for "
            f"{what} en"
        )
    return neighbors_both_ways(sources, targets, k, progress=progress)


def _encode(
    encode: Encoder, texts: list[str], what: str, progress: Progress
) -> np.ndarray:
    """Encodes texts in blocks, under a bar."""
    blocks: list[np.ndarray] = []
    with progress_bar(
        f"Encoding {what}", len(texts), "sentences", show=progress
    ) as advance:
        for start in range(0, len(texts), _ENCODED_AT_A_TIME):
            block = texts[start : start + _ENCODED_AT_A_TIME]
            vectors = encoded(encode, block, what=what, first=start)
            if blocks and vectors.shape[1] != blocks[0].shape[1]:
                raise ValueError(
                    "encode must give vectors of one length. Received: "
                    f"{blocks[0].shape[1]}, and {vectors.shape[1]} for {what}"
                )
            blocks.append(vectors)
            advance(len(block))
    return np.concatenate(blocks)


def _result(
    data: BuccSentences,
    both: BothWays,
    direction: str,
    score: str,
    threshold: float | None,
    given_by: str,
) -> BuccResult:
    """Pairs texts, searches the threshold or uses the given one, and counts."""
    mined = mine_from_neighbors(
        both, margin=score, retrieval=direction, one_to_one=False
    )
    # A pair of rows as one number.
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
