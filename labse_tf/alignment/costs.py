"""Costs of beads: vectors and lengths of runs -> how badly they match.

The cost of a bead of x source and y target sentences is, after Vecalign,

    x * y * (2 (1 - cos) / (n_source + n_target) + length term)

where n is the mean of 1 - cos between a run and random sentences of the other document,
so that a random pair costs about 1 per pair of sentences, whatever the model. The
length term, after Gale and Church, is the difference in characters divided by the
square root of their number.

Shapes: N, M = sentences of source and target, B = rows of a block, W = width of the
band, K = kinds of beads, D = dimension of the vectors.

References:
    - Thompson and Koehn, "Vecalign: Improved Sentence Alignment in Linear Time and
      Space", https://aclanthology.org/D19-1136/
    - Gale and Church, "A Program for Aligning Sentences in Bilingual Corpora",
      https://aclanthology.org/J93-1004/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labse_tf.alignment.runs import Runs

# ours, chosen with `benchmarks/alignment.py`: weight of the length term, its largest
# value, the share of the quantile that a deleted sentence costs, and its largest cost:
# two deletions must cost less than a random pair.
_LENGTH_WEIGHT = 0.15
_LARGEST_LENGTH_TERM = 2.0
_DELETION_SHARE = 0.6
_LARGEST_DELETION = 0.45

_QUANTILE = 0.2
_RANDOM_PAIRS = 20_000
_SAMPLED_SENTENCES = 1000
_TINY = 1e-6


@dataclass(frozen=True)
class Side:
    """A document, as the costs need it.

    Attributes:
        runs: Vectors of its runs.
        lengths: float `(N,)`, characters of its sentences.
        usable: bool `(N,)`, whether a sentence may be in a bead.
    """

    runs: Runs
    lengths: np.ndarray
    usable: np.ndarray


class BeadCosts:
    """Costs of the beads of two documents, computed in blocks.

    Args:
        source: The source.
        target: The target.
        kinds: K pairs (x, y), numbers of sentences on each side.
        length_ratio: Characters of a translation per character of the source; `None`
            for costs without the length term.

    Attributes:
        deletion: Cost of leaving out a sentence by the costs of random pairs: a share
            of a low quantile. It is used on the coarse levels.
    """

    def __init__(
        self,
        source: Side,
        target: Side,
        kinds: Sequence[tuple[int, int]],
        *,
        length_ratio: float | None = None,
    ) -> None:
        self.kinds = list(kinds)
        self._sides = source, target
        self._weight = 0.0 if length_ratio is None else _LENGTH_WEIGHT
        self._by_target = {
            y: [(k, x) for k, (x, other) in enumerate(self.kinds) if other == y]
            for y in sorted({y for _, y in self.kinds})
        }
        self._lengths_of_source = sorted({x for x, _ in self.kinds})
        # Sums up to each sentence: characters, and sentences that may not be used.
        # Both sides have the characters that a text between the two would have.
        scale = 1.0 if length_ratio is None else length_ratio
        scales = scale**0.5, scale**-0.5
        self._characters = [
            _sums(side.lengths * factor)
            for side, factor in zip(self._sides, scales, strict=True)
        ]
        self._unusable = [_sums(~side.usable) for side in self._sides]
        # Mean of random vectors of each side, whose product with a vector is its mean
        # cosine with them; and sums of what the own translation adds to this mean.
        rng = np.random.default_rng(0)
        self._means = [_mean_vector(side, rng) for side in self._sides]
        self._excess = [np.zeros(len(side.lengths) + 1) for side in self._sides]
        self.deletion = self._measured(rng)

    def block(
        self,
        start: int,
        stop: int,
        columns: np.ndarray,
        origin: tuple[int, int] = (0, 0),
    ) -> np.ndarray:
        """Return the costs of the beads that end at some nodes.

        Args:
            start: First row i.
            stop: Row after the last.
            columns: int64 `(B, W)`, columns j of each row.
            origin: Node before which no bead begins.

        Returns:
            float32 `(B, K, W)`; infinite for beads that begin before the origin or have
            a sentence that may not be used.
        """
        source, target = self._sides
        rows = np.arange(start, stop)
        low, high = int(columns.min()), int(columns.max())
        span, inside = np.arange(low, high + 1), columns - low
        vectors = {x: source.runs.vectors(x, rows - x) for x in self._lengths_of_source}
        costs = np.full((len(rows), len(self.kinds), columns.shape[1]), np.inf, "f")
        for y, kinds in self._by_target.items():
            others = target.runs.vectors(y, span - y)  # (span, D)
            far_target = self._far(1, others, span, y)
            usable_target = self._usable(1, span, y, origin[1])
            characters_target = self._run_characters(1, span, y)
            for kind, x in kinds:
                usable = self._usable(0, rows, x, origin[0])
                if not usable.any():
                    continue
                distance = 1 - vectors[x] @ others.T  # (B, span)
                far = self._far(0, vectors[x], rows, x)
                distance *= 2 / (far[:, None] + far_target + _TINY)
                characters = self._run_characters(0, rows, x)[:, None]
                if self._weight:
                    distance += self._weight * _length_term(
                        characters, characters_target
                    )
                distance[:, ~usable_target] = np.inf
                distance[~usable] = np.inf
                costs[:, kind] = x * y * np.take_along_axis(distance, inside, axis=1)
        return costs

    def _far(
        self, side: int, vectors: np.ndarray, ends: np.ndarray, length: int
    ) -> np.ndarray:
        """Return the mean distance of runs from random sentences of the other side."""
        sums = self._excess[side]
        excess = (sums[ends] - sums[np.maximum(ends - length, 0)]) / length
        return (1 - vectors @ self._means[1 - side] + excess).astype(np.float32)

    def _usable(
        self, side: int, ends: np.ndarray, length: int, origin: int
    ) -> np.ndarray:
        """Return which runs may be used, by the node at which they end."""
        sums = self._unusable[side]
        starts = ends - length
        return (starts >= origin) & (sums[ends] == sums[np.maximum(starts, 0)])

    def _run_characters(self, side: int, ends: np.ndarray, length: int) -> np.ndarray:
        sums = self._characters[side]
        found = sums[ends] - sums[np.maximum(ends - length, 0)]
        return found.astype(np.float32)

    def _measured(self, rng: np.random.Generator) -> float:
        """Set the excess of the mean cosines, and return the cost of a deletion."""
        rows = [np.flatnonzero(side.usable) for side in self._sides]
        sizes = [len(usable) for usable in rows]
        if not all(sizes):
            return _LARGEST_DELETION
        few = sizes[0] * sizes[1] <= _RANDOM_PAIRS
        if not few:
            # All pairs of some sentences are one matrix product.
            most = int(_RANDOM_PAIRS**0.5)
            rows = [
                usable
                if len(usable) <= most
                else rng.choice(usable, most, replace=False)
                for usable in rows
            ]
        first, second = (
            side.runs.vectors(1, chosen)
            for side, chosen in zip(self._sides, rows, strict=True)
        )
        cosines = first @ second.T
        random = np.ones(cosines.shape, bool)
        if few:
            # Leave out what may be translations: the best of each row and column.
            random = cosines < np.minimum(
                cosines.max(axis=1, keepdims=True), cosines.max(axis=0)
            )
            for k in (0, 1):
                excess = np.zeros(len(self._sides[k].lengths))
                excess[rows[k]] = _excess(cosines if k == 0 else cosines.T)
                self._excess[k] = _sums(excess)
        if not random.any():
            return _LARGEST_DELETION
        far = [
            self._far(k, vectors, chosen + 1, 1)
            for k, (vectors, chosen) in enumerate(
                zip((first, second), rows, strict=True)
            )
        ]
        costs = (2 * (1 - cosines) / (far[0][:, None] + far[1] + _TINY))[random]
        measured = _DELETION_SHARE * float(np.quantile(costs, _QUANTILE))
        return min(measured, _LARGEST_DELETION)


def _excess(cosines: np.ndarray) -> np.ndarray:
    """Return the mean of each row minus its mean without the largest value.

    A row of one value has no other, and counts as unrelated to the rest: as 0.
    """
    means, others = cosines.mean(axis=1), cosines.shape[1] - 1
    if not others:
        return np.maximum(means, 0)
    return (cosines.max(axis=1) - means) / others


def _length_term(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return how much two numbers of characters differ, in units of their variation."""
    term = np.abs(first - second) / (4 * np.sqrt(first + second + 1))
    return np.minimum(term, _LARGEST_LENGTH_TERM)


def _sums(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _mean_vector(side: Side, rng: np.random.Generator) -> np.ndarray:
    """Return the mean of random sentence vectors, float32 `(D,)`."""
    usable = np.flatnonzero(side.usable)
    if len(usable) > _SAMPLED_SENTENCES:
        usable = rng.choice(usable, _SAMPLED_SENTENCES, replace=False)
    vectors = side.runs.vectors(1, usable)
    return vectors.sum(axis=0) / max(len(vectors), 1)
