"""Alignment of two documents: sentences, or their vectors -> beads.

The path is found coarse to fine, in time and memory that grow with the length of the
documents: neighboring sentences are averaged until a full search is small; then each
level searches near the path of the level above it.

Shapes: N, M = sentences of source and target, n = sentences of the longest run,
D = dimension of the vectors.

References:
    - Thompson and Koehn, "Vecalign: Improved Sentence Alignment in Linear Time and
      Space", https://aclanthology.org/D19-1136/
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from labse_tf.alignment.costs import BeadCosts, Side
from labse_tf.alignment.runs import Runs, StoredRuns, SummedRuns, embed_runs
from labse_tf.alignment.search import Band, band_around, best_path, full_band
from labse_tf.mining import check_finite
from labse_tf.progress import Progress, progress_bar

RunVectors = Literal["text", "sum"]

RUN_VECTORS: tuple[RunVectors, ...] = ("text", "sum")

MAX_SENTENCES = 5
"""Default maximum of the sentences of a bead; ours: larger beads are rare."""

BAND = 8
"""Default half-width of the band; ours, see `benchmarks/alignment.py`."""

_FULL_SEARCH = 300 * 300  # nodes, as in the paper
_COARSE_KINDS = ((1, 1), (1, 2), (2, 1))
_ONE_TO_ONE = 0  # index of its kind

# ours, chosen with `benchmarks/alignment.py` for two models: the cost of a deletion by
# the median cost of a match; rows in which this median is measured.
_DELETION_BASE = 0.26
_DELETION_SLOPE = 0.5
_MEASURED_BLOCKS = 32
_MEASURED_ROWS = 16


class Bead(NamedTuple):
    """Sentences that are translations of each other, or a deletion.

    Attributes:
        source: Indices of consecutive source sentences; empty for a deletion.
        target: Indices of consecutive target sentences; empty for a deletion.
        score: Cosine between the vectors of the two runs; 0 for a deletion.
    """

    source: range
    target: range
    score: float


@dataclass(frozen=True)
class Alignment:
    """Monotone alignment of two documents.

    Attributes:
        nodes: int64 `(p + 1, 2)`, numbers of source and target sentences before each
            bead, from (0, 0) to (N, M).
        scores: float32 `(p,)`, cosine of each bead; 0 for deletions.
    """

    nodes: np.ndarray
    scores: np.ndarray

    def beads(self, *, deletions: bool = False) -> list[Bead]:
        """Return the beads in order, with or without deletions."""
        starts, stops = self.nodes[:-1].tolist(), self.nodes[1:].tolist()
        found = [
            Bead(range(a, c), range(b, d), score)
            for (a, b), (c, d), score in zip(
                starts, stops, self.scores.tolist(), strict=True
            )
        ]
        return [bead for bead in found if deletions or (bead.source and bead.target)]

    def summary(self) -> dict[str, Any]:
        """Return counts, shares and the mean score, as JSON values."""
        sizes = np.diff(self.nodes, axis=0)
        deleted = (sizes == 0).any(axis=1)
        kinds, counts = np.unique(sizes[~deleted], axis=0, return_counts=True)
        by_kind = {
            f"{x}-{y}": count
            for (x, y), count in zip(kinds.tolist(), counts.tolist(), strict=True)
        }
        beads = int((~deleted).sum())
        lost = sizes[deleted].sum(axis=0)
        totals = self.nodes[-1]
        return {
            "sentences": {"source": int(totals[0]), "target": int(totals[1])},
            "beads": beads,
            "kinds": dict(sorted(by_kind.items(), key=lambda item: -item[1])),
            "one_to_one": by_kind.get("1-1", 0) / max(beads, 1),
            "deleted": {
                name: int(lost[k]) for k, name in enumerate(("source", "target"))
            },
            "deleted_share": {
                name: float(lost[k] / max(totals[k], 1))
                for k, name in enumerate(("source", "target"))
            },
            "mean_score": float(self.scores[~deleted].mean()) if beads else None,
        }


def align(
    source: Sequence[str],
    target: Sequence[str],
    encode: Callable[[list[str]], Any] | None = None,
    *,
    source_vectors: Any = None,
    target_vectors: Any = None,
    run_vectors: RunVectors = "text",
    max_sentences: int = MAX_SENTENCES,
    anchors: Sequence[tuple[int, int]] = (),
    band: int = BAND,
    deletion: float | None = None,
    work: str | Path | None = None,
    model: str = "",
    progress: Progress = None,
) -> Alignment:
    """Align the sentences of two documents, which are translations of each other.

    The order of the text must be the same in both. Beads are many-to-many; sentences
    without a translation are deletions, as are those without letters.

    Args:
        source: N sentences.
        target: M sentences.
        encode: Callable from a list of strings to `(n, D)`. Not needed for a side with
            vectors.
        source_vectors: float `(N, D)`, vectors of the source sentences, or `(N, n, D)`,
            vectors of the runs of 1 to n sentences that begin with each sentence, or
            the result of `embed_runs`. With `(N, D)`, runs have weighted sums; see
            `run_vectors`.
        target_vectors: The same for the target.
        run_vectors: Vectors of runs of several sentences. `"text"`: those of the joined
            text, n embeddings per sentence, or one for an encoder of a bag of tokens;
            see `embed_runs`. `"sum"`: the sum of the sentence vectors, weighted by
            length, an approximation from one embedding per sentence.
        max_sentences: Maximum of the sentences of a bead on both sides together, at
            least 2; n is one less.
        anchors: (i, j), at which source sentence i and target sentence j each begin a
            part, such as a chapter, in ascending order. No bead crosses an anchor.
        band: Nodes that are searched around the path of the coarser level.
        deletion: Cost of a sentence without a translation, where a random pair costs
            about 1. Lower values leave out more. If `None`, it is measured.
        work: Directory for the vectors, to resume if interrupted. If `None`, a
            temporary one.
        model: Identifier of the model, for `work`; see `labse_tf.encoders.fingerprint`.
        progress: See `labse_tf.progress`. Counts runs embedded, then source sentences.

    Returns:
        The alignment.

    Raises:
        ValueError: If an argument is out of range, vectors do not fit the sentences or
            are not finite, or `encode` is needed and missing.
        OSError: If the vectors cannot be written.

    Example:
        >>> import numpy as np
        >>> from labse_tf.alignment import align
        >>> vectors = np.eye(4, dtype=np.float32)
        >>> found = align(["a", "b", "c"], ["A", "X", "C"],
        ...     source_vectors=vectors[[0, 1, 2]], target_vectors=vectors[[0, 3, 2]])
        >>> [(list(b.source), list(b.target)) for b in found.beads()]
        [([0], [0]), ([2], [2])]

    References:
        - Thompson and Koehn, "Vecalign: Improved Sentence Alignment in Linear Time and
          Space", https://aclanthology.org/D19-1136/
    """
    check_options(
        run_vectors=run_vectors,
        max_sentences=max_sentences,
        band=band,
        deletion=deletion,
    )
    longest = max_sentences - 1
    ends = _checked_anchors(anchors, len(source), len(target))
    with contextlib.ExitStack() as stack:
        folder = (
            stack.enter_context(tempfile.TemporaryDirectory(prefix="labse_tf."))
            if work is None
            else work
        )
        sides = []
        for name, sentences, vectors in (
            ("source", source, source_vectors),
            ("target", target, target_vectors),
        ):
            lengths = np.array([len(s) for s in sentences], np.float64)
            if vectors is not None:
                runs = _given_runs(f"{name}_vectors", vectors, lengths, longest)
            elif encode is None:
                raise ValueError(
                    f"`encode` or `{name}_vectors` is needed. Received: neither"
                )
            else:
                stored = embed_runs(
                    sentences,
                    encode,
                    Path(folder) / f"{name}.npy",
                    longest=longest if run_vectors == "text" else 1,
                    model=model,
                    progress=progress,
                )
                runs = (
                    stored
                    if run_vectors == "text"
                    else SummedRuns(
                        stored.vectors(1, np.arange(len(sentences))), lengths, longest
                    )
                )
            sides.append(Side(runs, lengths, has_letters(sentences)))
        return _aligned(
            sides[0], sides[1], max_sentences, ends, band, deletion, progress
        )


def has_letters(sentences: Sequence[str]) -> np.ndarray:
    """Return which sentences have a letter, bool `(N,)`."""
    return np.array([any(map(str.isalpha, s)) for s in sentences], bool)


def check_options(
    *,
    run_vectors: str = "text",
    max_sentences: int = MAX_SENTENCES,
    band: int = BAND,
    deletion: float | None = None,
) -> None:
    """Check the options of `align`, before any work.

    Raises:
        ValueError: If an option is out of range; see `align`.
    """
    if run_vectors not in RUN_VECTORS:
        raise ValueError(
            f"`run_vectors` must be one of {', '.join(RUN_VECTORS)}. "
            f"Received: {run_vectors}"
        )
    if max_sentences < 2:
        raise ValueError(
            f"`max_sentences` must be at least 2. Received: {max_sentences}"
        )
    if band < 1:
        raise ValueError(f"`band` must be positive. Received: {band}")
    if deletion is not None and not 0 < deletion < np.inf:
        raise ValueError(f"`deletion` must be positive. Received: {deletion}")


def _checked_anchors(
    anchors: Sequence[tuple[int, int]], sources: int, targets: int
) -> list[tuple[int, int]]:
    """Return the anchors and the end of both documents."""
    found = [(0, 0)]
    for i, j in anchors:
        if not (found[-1][0] <= i <= sources and found[-1][1] <= j <= targets):
            raise ValueError(
                f"`anchors` must ascend on both sides, within {sources} and {targets} "
                f"sentences. Received: {(i, j)} after {found[-1]}"
            )
        found.append((int(i), int(j)))
    return [*found[1:], (sources, targets)]


def _given_runs(name: str, vectors: Any, lengths: np.ndarray, longest: int) -> Runs:
    """Return the runs of precomputed vectors."""
    count = len(lengths)
    if isinstance(vectors, (StoredRuns, SummedRuns)):
        if vectors.count != count or vectors.longest < longest:
            raise ValueError(
                f"`{name}` must have {count} sentences and runs of {longest}. "
                f"Received: {vectors.count} sentences and runs of {vectors.longest}"
            )
        return vectors
    array = vectors if isinstance(vectors, np.ndarray) else np.asarray(vectors)
    if (
        array.ndim not in (2, 3)
        or len(array) != count
        or (array.ndim == 3 and array.shape[1] < min(longest, max(count, 1)))
    ):
        raise ValueError(
            f"`{name}` must have the shape ({count}, D) or ({count}, {longest}, D). "
            f"Received: {array.shape}"
        )
    if array.ndim == 2:
        check_finite(array, f"`{name}`")
        return SummedRuns(array, lengths, longest)
    used = [array[: max(count - x, 0), x] for x in range(min(longest, array.shape[1]))]
    for part in used:
        check_finite(part, f"`{name}`")
    width = array.shape[1]
    rows = np.arange(count) * width + np.arange(longest)[:, None].clip(0, width - 1)
    return StoredRuns(array.reshape(count * width, array.shape[2]), rows)


def _aligned(
    source: Side,
    target: Side,
    max_sentences: int,
    ends: Sequence[tuple[int, int]],
    band: int,
    deletion: float | None,
    progress: Progress,
) -> Alignment:
    """Align two documents with vectors, part by part."""
    sides = source, target
    count = len(source.lengths)
    kinds = [
        (x, total - x)
        for total in range(2, max_sentences + 1)
        for x in sorted(range(1, total), key=lambda x: abs(total - 2 * x))
    ]
    with progress_bar("Aligning", count, "sentences", show=progress) as advance:
        if not all(len(side.lengths) for side in sides):
            nodes = _only_deletions((0, 0), ends[-1])
            return Alignment(nodes, np.zeros(len(nodes) - 1, np.float32))
        sentences = [
            side.runs.vectors(1, np.arange(len(side.lengths)))
            * side.usable[:, None].astype(np.float32)
            for side in sides
        ]
        starts = [(0, 0), *ends[:-1]]
        coarse = [
            _coarse_path(_cut(sentences, start, stop), band)
            for start, stop in zip(starts, ends, strict=True)
        ]
        ratio = _length_ratio(sides, coarse, starts)
        costs = BeadCosts(source, target, kinds, length_ratio=ratio)
        cost = deletion
        if cost is None:
            cost = _deletion_cost(costs, coarse, starts, ends, band)
        deletions = [np.where(side.usable, cost, 0.0) for side in sides]
        parts = [np.zeros((1, 2), np.int64)]
        for path, start, stop in zip(coarse, starts, ends, strict=True):
            part = _part(costs, path, deletions, start, stop, band, advance)
            parts.append(part[1:])
    nodes = np.concatenate(parts)
    return Alignment(nodes, _scores(source.runs, target.runs, nodes))


def _only_deletions(start: tuple[int, int], stop: tuple[int, int]) -> np.ndarray:
    """Return a path from one node to another that deletes all sentences."""
    down = [(i, start[1]) for i in range(start[0], stop[0] + 1)]
    across = [(stop[0], j) for j in range(start[1] + 1, stop[1] + 1)]
    return np.array(down + across, np.int64)


def _cut(
    arrays: Sequence[np.ndarray], start: tuple[int, int], stop: tuple[int, int]
) -> list[np.ndarray]:
    """Return the rows of each side between two nodes."""
    return [
        array[first:last]
        for array, first, last in zip(arrays, start, stop, strict=True)
    ]


def _length_ratio(
    sides: Sequence[Side],
    coarse: Sequence[np.ndarray],
    starts: Sequence[tuple[int, int]],
) -> float:
    """Return the characters of a translation per character of the source.

    Only the text that the coarse paths match is counted: text that one side lacks would
    change the ratio.
    """
    sums = [np.concatenate([[0.0], np.cumsum(side.lengths)]) for side in sides]
    matched = np.zeros(2)
    for path, start in zip(coarse, starts, strict=True):
        for (a, b), (c, d) in zip(path[:-1], path[1:], strict=True):
            if a < c and b < d:
                nodes = np.minimum(
                    2 * np.array([[a, b], [c, d]]) + start,
                    [len(s) - 1 for s in sums],
                )
                matched += [
                    s[n[1]] - s[n[0]] for s, n in zip(sums, nodes.T, strict=True)
                ]
    return float(matched[1] / matched[0]) if matched.all() else 1.0


def _deletion_cost(
    costs: BeadCosts,
    coarse: Sequence[np.ndarray],
    starts: Sequence[tuple[int, int]],
    ends: Sequence[tuple[int, int]],
    band: int,
) -> float:
    """Return the cost of leaving out a sentence, between matches and random pairs.

    Two deletions must cost more than most matches, and less than most random pairs. The
    costs of matches depend on the model and the text: measured is the median of the
    lowest cost of a pair in each row of the band, for rows all over the documents which
    the coarse paths match.
    """
    lowest = [np.zeros(0)]
    for path, start, stop in zip(coarse, starts, ends, strict=True):
        sizes = stop[0] - start[0], stop[1] - start[1]
        if not all(sizes):
            continue
        nodes = band_around(np.minimum(2 * path, sizes), *sizes, band)
        matched = np.repeat(
            (np.diff(path, axis=0) > 0).all(axis=1), np.diff(path[:, 0])
        )
        share = -(-_MEASURED_BLOCKS * sizes[0] // ends[-1][0])
        firsts = np.linspace(1, sizes[0], share + 1, dtype=np.int64)[:-1]
        # In a short document, most blocks begin at the same rows.
        for first, times in zip(*np.unique(firsts, return_counts=True), strict=True):
            rows = np.arange(first, min(first + _MEASURED_ROWS, sizes[0] + 1))
            columns = nodes.first[rows, None] + np.arange(4 * band + 2)
            columns = np.minimum(columns, nodes.last[rows, None]) + start[1]
            row = first + start[0]
            found = costs.block(row, row + len(rows), columns, start)[:, _ONE_TO_ONE]
            values = found.min(axis=1)[matched[(rows - 1) // 2]]
            lowest.append(np.tile(values, times))
    values = np.concatenate(lowest)
    values = values[np.isfinite(values)]
    if not len(values):
        return costs.deletion
    return _DELETION_BASE + _DELETION_SLOPE * float(np.median(values))


def _part(
    costs: BeadCosts,
    coarse: np.ndarray,
    deletions: Sequence[np.ndarray],
    start: tuple[int, int],
    stop: tuple[int, int],
    band: int,
    advance: Callable[[int], None],
) -> np.ndarray:
    """Return the path from one anchor to the next, near the coarse path."""
    own = _cut(deletions, start, stop)
    sizes = len(own[0]), len(own[1])
    if not all(sizes):
        advance(sizes[0])
        return _only_deletions(start, stop)

    def block(first: int, last: int, columns: np.ndarray) -> np.ndarray:
        return costs.block(first + start[0], last + start[0], columns + start[1], start)

    nodes = _nodes_to_search(sizes, band, lambda: coarse)
    return best_path(block, costs.kinds, own[0], own[1], nodes, advance) + start


def _coarse_path(sentences: Sequence[np.ndarray], band: int) -> np.ndarray:
    """Return the path at half the resolution."""
    halved = [_halved(vectors) for vectors in sentences]
    sizes = len(halved[0]), len(halved[1])
    if not all(sizes):
        return _only_deletions((0, 0), sizes)
    sides = [
        Side(
            SummedRuns(vectors, np.ones(len(vectors)), 2),
            np.zeros(len(vectors)),
            np.ones(len(vectors), bool),
        )
        for vectors in halved
    ]
    costs = BeadCosts(sides[0], sides[1], _COARSE_KINDS)
    deletions = [np.full(size, costs.deletion) for size in sizes]
    nodes = _nodes_to_search(sizes, band, lambda: _coarse_path(halved, band))
    return best_path(costs.block, costs.kinds, deletions[0], deletions[1], nodes)


def _nodes_to_search(
    sizes: tuple[int, int], band: int, coarse: Callable[[], np.ndarray]
) -> Band:
    """Return all nodes if they are few, else those near the path of half resolution."""
    if sizes[0] * sizes[1] <= _FULL_SEARCH:
        return full_band(*sizes)
    return band_around(np.minimum(2 * coarse(), sizes), *sizes, band)


def _halved(vectors: np.ndarray) -> np.ndarray:
    """Return the sums of two rows each, and an odd last row."""
    even = len(vectors) // 2 * 2
    sums = vectors[0:even:2] + vectors[1:even:2]
    return np.concatenate([sums, vectors[even:]])


def _scores(source: Runs, target: Runs, nodes: np.ndarray) -> np.ndarray:
    """Return the cosine of each bead, float32 `(p,)`."""
    sizes = np.diff(nodes, axis=0)
    scores = np.zeros(len(sizes), np.float32)
    for x, y in np.unique(sizes[(sizes > 0).all(axis=1)], axis=0).tolist():
        for chosen in _blocks(np.flatnonzero((sizes == (x, y)).all(axis=1))):
            first = source.vectors(x, nodes[chosen, 0])
            second = target.vectors(y, nodes[chosen, 1])
            scores[chosen] = np.einsum("pd,pd->p", first, second)
    return scores


def _blocks(rows: np.ndarray, size: int = 4096) -> Iterator[np.ndarray]:
    yield from (rows[k : k + size] for k in range(0, len(rows), size))
