"""Document alignment: vectors of sentences -> pairs of documents.

Shapes: N documents, S sentences of all documents, D = dimension of a sentence vector,
d = dimension after projection, J slots.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labse_tf.alignment.documents import align
from labse_tf.mining import (
    neighbors_both_ways,
    principal_axes,
    select_one_to_one,
    unit_rows,
)
from labse_tf.progress import Progress, progress_bar

Method = Literal["slots", "mean"]
Rescore = Callable[[NDArray[np.float32], NDArray[np.float32]], float]

METHODS = ("slots", "mean")
# Number of slots and the sharpness of their weights, and the dimensions of a sentence
# vector in a slot: Thompson and Koehn, 2020.
_SLOTS, _SHARPNESS, _DIMENSIONS = 16, 20.0, 128
_SAMPLE = 20_000  # ours: sentences per side from which the dimensions are chosen


class DocumentPairs(NamedTuple):
    """Pairs of documents, best first.

    Attributes:
        scores: Score of each pair, float32 `(n,)`.
        sources: Index of the source document, int64 `(n,)`; each at most once.
        targets: Index of the target document, int64 `(n,)`; each at most once.
    """

    scores: NDArray[np.float32]
    sources: NDArray[np.int64]
    targets: NDArray[np.int64]


class Documents:
    """The sentences of documents, as vectors.

    Args:
        vectors: Unit vectors of the different sentences, `(n, D)`; may be
            memory-mapped.
        counts: Number of sentences of each document, int `(N,)`.
        rows: Row of `vectors` of each sentence, in the order of the documents, int
            `(S,)` (default: one row per sentence).
        lengths: Length of each sentence, for example in characters, `(S,)`. The
            position of a sentence is that of its middle (default: equal lengths).

    Attributes:
        vectors: The argument.
        rows: int64 `(S,)`.
        bounds: Index of the first sentence of each document, and S, int64 `(N + 1,)`.
        positions: Position of the middle of each sentence in its document, between 0
            (start) and 1 (end), float64 `(S,)`.
        weights: 1 / (number of documents that contain the sentence), float32 `(S,)`.
            Menus and licenses occur in many documents and say little about which
            documents belong together.

    Raises:
        ValueError: If the shapes do not fit, or a number is negative.
    """

    def __init__(
        self,
        vectors: Any,
        counts: ArrayLike,
        *,
        rows: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
    ) -> None:
        """Compute the attributes."""
        self.vectors = vectors
        sizes = np.asarray(counts, np.int64)
        total = int(sizes.sum())
        self.rows = np.asarray(np.arange(total) if rows is None else rows, np.int64)
        long = np.asarray(np.ones(total) if lengths is None else lengths, np.float64)
        if sizes.ndim != 1 or (sizes < 0).any() or (long < 0).any():
            raise ValueError(
                "`counts` and `lengths` must be numbers that are not negative. "
                f"Received: {sizes}, {long}"
            )
        shape = np.shape(vectors)
        if (
            not self.rows.shape == long.shape == (total,)
            or len(shape) != 2
            or (total and not 0 <= self.rows.min() <= self.rows.max() < shape[0])
        ):
            raise ValueError(
                f"expected {total} rows of `vectors` and {total} `lengths`. Received: "
                f"`vectors` {shape}, `rows` {self.rows.shape}, `lengths` {long.shape}"
            )
        self.bounds = np.concatenate([[0], np.cumsum(sizes)])
        self.positions = _positions(long, self.bounds)
        documents = np.repeat(np.arange(len(sizes)), sizes)
        distinct = np.unique(np.stack([self.rows, documents]), axis=1)[0]
        self.weights = (1 / np.bincount(distinct)[self.rows]).astype(np.float32)

    def __len__(self) -> int:
        """Return N."""
        return len(self.bounds) - 1

    def sentences(self, document: int) -> NDArray[np.float32]:
        """Return the vectors of the sentences of a document, float32 `(n, D)`."""
        start, stop = self.bounds[document : document + 2]
        return np.asarray(self.vectors[self.rows[start:stop]], np.float32)


def bimax(source: ArrayLike, target: ArrayLike) -> float:
    """Return the mean of the best cosines of all sentences, in both directions.

    Args:
        source: Unit vectors of the sentences of a document, `(n, D)`.
        target: Unit vectors of the sentences of another document, `(m, D)`.

    Returns:
        The mean of two means: of the largest cosine of each source sentence, and of
        each target sentence. -1 if a document is empty.

    References:
        Wang et al., 2025, BiMax: Bidirectional MaxSim Score for Document-Level
        Alignment (https://aclanthology.org/2025.findings-emnlp.704).
    """
    one, other = np.asarray(source, np.float32), np.asarray(target, np.float32)
    if not len(one) or not len(other):
        return -1.0
    cosines = one @ other.T
    return float(cosines.max(axis=1).mean() + cosines.max(axis=0).mean()) / 2


def alignment_score(source: ArrayLike, target: ArrayLike) -> float:
    """Return the mean cosine of aligned sentences, where a deleted sentence has 0.

    Args:
        source: Unit vectors of the sentences of a document, `(n, D)`.
        target: Unit vectors of the sentences of another document, `(m, D)`.

    Returns:
        The cosines of the beads, weighted by their sentences, divided by n + m. -1 if a
        document is empty.
    """
    one, other = np.asarray(source, np.float32), np.asarray(target, np.float32)
    if not len(one) or not len(other):
        return -1.0
    found = align(
        ["a"] * len(one),  # sentences of equal length
        ["a"] * len(other),
        source_vectors=one,
        target_vectors=other,
        progress=False,
    )
    sizes = np.diff(found.nodes, axis=0).sum(axis=1)
    return float(found.scores @ sizes) / (len(one) + len(other))


def slot_weights(
    positions: ArrayLike, slots: int = _SLOTS, sharpness: float = _SHARPNESS
) -> NDArray[np.float32]:
    """Return the weight of sentences in each slot of their document.

    The weights are densities of beta distributions (in the form of PERT) whose modes
    are spread evenly from the start of the document to its end, divided by their
    maximum.

    Args:
        positions: Positions of the sentences, strictly between 0 (start of the
            document) and 1 (end), float `(S,)`.
        slots: J, at least 2.
        sharpness: How quickly a weight falls with the distance from its mode.

    Returns:
        float32 `(S, J)`, from 0 to 1.

    References:
        Thompson and Koehn, 2020, Exploiting Sentence Order in Document Alignment
        (https://aclanthology.org/2020.emnlp-main.483).
    """
    at = np.asarray(positions, np.float64)[:, None]
    modes = np.linspace(0, 1, slots)
    highest = np.zeros(slots)
    inner = modes[1:-1]
    highest[1:-1] = inner * np.log(inner) + (1 - inner) * np.log1p(-inner)
    exponent = modes * np.log(at) + (1 - modes) * np.log1p(-at) - highest
    return np.exp(sharpness * exponent).astype(np.float32)


def document_vectors(
    documents: Documents,
    *,
    axes: ArrayLike | None = None,
    method: Method = "slots",
    slots: int = _SLOTS,
    sharpness: float = _SHARPNESS,
    output: str | os.PathLike[str] | None = None,
) -> NDArray[np.float32]:
    """Return one unit vector per document.

    With "slots", it is the concatenation of J unit vectors, each a weighted mean of the
    sentences near one position. So two documents with the same sentences in another
    order have different vectors. With "mean", it is the mean of the sentences.

    Args:
        documents: The documents.
        axes: Orthonormal columns to which the sentence vectors are projected, `(D, d)`;
            see `shared_axes` (default: no projection, d = D).
        method: "slots" or "mean".
        slots: J.
        sharpness: See `slot_weights`.
        output: Path of a `.npy` file for the vectors (default: in memory).

    Returns:
        float32 `(N, J * d)` or `(N, d)`; memory-mapped with `output`. A document
        without sentences has a zero vector.

    Raises:
        ValueError: If an argument is out of range.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}. Received: {method!r}")
    if slots < 2 or sharpness < 0:
        raise ValueError(
            "`slots` must be at least 2 and `sharpness` not negative. "
            f"Received: {slots}, {sharpness}"
        )
    columns = None if axes is None else np.asarray(axes, np.float32)
    dim = documents.vectors.shape[1] if columns is None else columns.shape[1]
    shape = len(documents), dim * (slots if method == "slots" else 1)
    if output is None:
        result = np.zeros(shape, np.float32)
    else:
        result = np.lib.format.open_memmap(output, "w+", np.float32, shape)
    for document in range(len(documents)):
        start, stop = documents.bounds[document : document + 2]
        weights = documents.weights[start:stop, None]
        if method == "slots":
            positions = documents.positions[start:stop]
            weights = weights * slot_weights(positions, slots, sharpness)
        found = documents.sentences(document)
        if columns is not None:
            found = unit_rows(found @ columns)
        by_slot = unit_rows(weights.T @ found)
        result[document] = unit_rows(by_slot.reshape(1, -1))[0]
    return result


def shared_axes(
    source: Documents, target: Documents, dimensions: int = _DIMENSIONS
) -> NDArray[np.float32]:
    """Return the directions in which the sentences of both sides vary most.

    Args:
        source: Documents of one side.
        target: Documents of the other side.
        dimensions: d; at most D directions are returned.

    Returns:
        float32 `(D, min(d, D))` with orthonormal columns.
    """
    random = np.random.default_rng(0)
    parts = []
    for side in (source, target):
        rows = np.sort(random.permutation(len(side.vectors))[:_SAMPLE])
        parts.append(np.asarray(side.vectors[rows], np.float32))
    return principal_axes(np.concatenate(parts), dimensions)


def align_documents(
    source: Documents,
    target: Documents,
    *,
    method: Method = "slots",
    candidates: int = 32,
    rescore: Rescore | None = bimax,
    threshold: float | None = None,
    dimensions: int = _DIMENSIONS,
    work: str | os.PathLike[str] | None = None,
    progress: Progress = None,
) -> DocumentPairs:
    """Find the pairs of documents that are translations of each other.

    The candidates are the nearest neighbors of each document among the documents of the
    other side. Their score is the mean of the cosine of the documents, in which the
    order counts, and of a score of their sentences. The best pair is taken, then the
    best pair of the remaining documents, and so on.

    Args:
        source: Documents of one side.
        target: Documents of the other side.
        method: See `document_vectors`.
        candidates: Number of neighbors of each document.
        rescore: Function of the sentence vectors of two documents, `(n, D)` and
            `(m, D)`, to a score; `None` for the cosine of the documents alone.
        threshold: Lowest score of a pair (default: none).
        dimensions: Dimensions of a sentence in the documents' vectors.
        work: Existing folder for the vectors of the documents, which take 8 KB each
            (default: in memory).
        progress: See `labse_tf.progress`. Counts pairs of candidates.

    Returns:
        Pairs, best first. Documents without sentences are in no pair.

    Raises:
        ValueError: If an argument is out of range or the vectors differ in dimension.

    Example:
        >>> import numpy as np
        >>> from labse_tf.alignment import Documents, align_documents
        >>> source = Documents(np.eye(4), counts=[2, 2])
        >>> target = Documents(np.eye(4)[[2, 3, 0]], counts=[2, 1])
        >>> pairs = align_documents(source, target, progress=False)
        >>> pairs.sources.tolist(), pairs.targets.tolist()
        ([1, 0], [0, 1])
    """
    widths = source.vectors.shape[1], target.vectors.shape[1]
    if widths[0] != widths[1] or candidates < 1:
        raise ValueError(
            "`candidates` must be positive, and the vectors of both sides must have "
            f"the same dimension. Received: {candidates}, {widths}"
        )
    nothing = np.zeros(0, np.int64)
    if not len(source) or not len(target):
        return DocumentPairs(np.zeros(0, np.float32), nothing, nothing)
    axes = shared_axes(source, target, dimensions) if method == "slots" else None
    vectors = [
        document_vectors(
            side,
            axes=axes,
            method=method,
            output=None
            if work is None
            else os.path.join(work, f"{name}_documents.npy"),
        )
        for name, side in (("source", source), ("target", target))
    ]
    near = neighbors_both_ways(vectors[0], vectors[1], candidates, progress=progress)
    forward, backward = _flat(near.forward_rows), _flat(near.backward_rows)
    pairs = np.concatenate([forward, backward[:, ::-1]])
    cosines = np.concatenate(
        [near.forward_cosines.ravel(), near.backward_cosines.ravel()]
    )
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    filled = [np.diff(side.bounds) > 0 for side in (source, target)]
    there = filled[0][pairs[:, 0]] & filled[1][pairs[:, 1]]
    pairs, scores = pairs[there], cosines[first][there].astype(np.float32)
    if rescore is not None:
        with progress_bar("Comparing", len(pairs), "pairs", show=progress) as advance:
            for row, (one, other) in enumerate(pairs.tolist()):
                both = source.sentences(one), target.sentences(other)
                scores[row] = (scores[row] + rescore(*both)) / 2
                advance(1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -scores))
    if threshold is not None:
        order = order[scores[order] >= threshold]
    kept = order[select_one_to_one(pairs[order, 0], pairs[order, 1])]
    return DocumentPairs(scores[kept], pairs[kept, 0], pairs[kept, 1])


def _flat(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (query, neighbor) for each neighbor."""
    queries = np.repeat(np.arange(len(rows)), rows.shape[1])
    return np.stack([queries, rows.ravel()], axis=1)


def _positions(
    lengths: NDArray[np.float64], edges: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the positions of the sentences' middles in their documents, in (0, 1)."""
    sizes = np.diff(edges)
    # An empty sentence has a place, too.
    lengths = np.maximum(lengths, 1e-3)
    ends = np.cumsum(lengths)
    total = np.diff(np.concatenate([[0.0], ends])[edges])
    begins = np.repeat(np.concatenate([[0.0], ends])[edges[:-1]], sizes)
    return (ends - lengths / 2 - begins) / np.repeat(total, sizes)
