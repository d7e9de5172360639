"""Vectors of runs: 1 to n consecutive sentences -> one unit vector per run.

Shapes: N = sentences of a document, n = sentences of the longest run, D = dimension of
the vectors, U = different runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from labse_tf.alignment.token_sums import TokenSums, is_bag_of_tokens
from labse_tf.mining import rows_on_disk
from labse_tf.progress import Progress
from labse_tf.text import join_sentences

_TINY = 1e-12
_BLOCK = 1024  # ours: runs per call of `encode`, some seconds of a small model

# The vector of this sentence identifies a model that has no name.
_PROBE = "The quick brown fox jumps over the lazy dog. 0123456789"


class Runs(Protocol):
    """Vectors of the runs of a document.

    Attributes:
        count: N.
        longest: n.
    """

    count: int
    longest: int

    def vectors(self, length: int, starts: np.ndarray) -> np.ndarray:
        """Return unit vectors, float32 `(len(starts), D)`.

        Args:
            length: Sentences of a run, from 1 to n.
            starts: int64, indices of the first sentences. For a run that begins before
                the document or ends after it, the vector has no meaning.
        """
        ...


class SummedRuns:
    """Runs whose vector is the weighted sum of the vectors of their sentences.

    This is an approximation of the vector of the joined text, from one embedding per
    sentence. For a bag of tokens, such as labse-nano, `embed_runs` has exact sums.

    Args:
        vectors: float `(N, D)`.
        weights: float `(N,)`, for example the lengths of the sentences.
        longest: n.
    """

    def __init__(self, vectors: np.ndarray, weights: np.ndarray, longest: int) -> None:
        self.count, self.longest = len(vectors), longest
        self._vectors = vectors
        self._weights = np.asarray(weights, np.float32)[:, None]

    def vectors(self, length: int, starts: np.ndarray) -> np.ndarray:
        """Return the vectors of runs; see `Runs`."""
        total = self._weighted(starts)
        for step in range(1, length):
            total += self._weighted(starts + step)
        return unit(total)

    def _weighted(self, rows: np.ndarray) -> np.ndarray:
        rows = np.clip(rows, 0, self.count - 1)
        return np.asarray(self._vectors[rows], np.float32) * self._weights[rows]


class StoredRuns:
    """Runs with a vector each.

    Args:
        vectors: float `(U, D)`, may be memory-mapped.
        rows: Integers `(n, N)`: `rows[x - 1, i]` is the row of `vectors` for the run of
            x sentences that begins with sentence i.
    """

    def __init__(self, vectors: np.ndarray, rows: np.ndarray) -> None:
        self.longest, self.count = rows.shape
        self._vectors, self._rows = vectors, rows

    def vectors(self, length: int, starts: np.ndarray) -> np.ndarray:
        """Return the vectors of runs; see `Runs`."""
        starts = np.clip(starts, 0, self.count - 1)
        return unit(self._vectors[self._rows[length - 1, starts]])


def unit(vectors: Any) -> np.ndarray:
    """Return rows of unit length; rows of zeros stay zero."""
    rows = np.asarray(vectors, np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), _TINY)


def embed_runs(
    sentences: Sequence[str],
    encode: Callable[[list[str]], Any],
    path: str | Path,
    *,
    longest: int,
    sentence_vectors: Any = None,
    model: str = "",
    progress: Progress = None,
) -> StoredRuns:
    """Embed the joined text of every run into a `.npy` file, and resume if interrupted.

    Equal runs are embedded once. Vectors of other text or of another model are
    recomputed; see `labse_tf.mining.rows_on_disk`. With an encoder of a bag of tokens,
    such as labse-nano, the runs that begin with the same sentence share their tokens;
    see `labse_tf.alignment.token_sums`.

    Args:
        sentences: N sentences.
        encode: Callable from a list of strings to `(n, D)`, such as
            `labse_tf.encoders.open_encoder` returns.
        path: Path of the `.npy` file.
        longest: n.
        sentence_vectors: float `(N, D)`, vectors of the sentences, if they are known.
            Then only runs of two or more sentences are embedded.
        model: Identifier of the model, such as `labse_tf.encoders.fingerprint` returns.
        progress: See `labse_tf.progress`. Counts runs.

    Returns:
        The runs, memory-mapped.

    Raises:
        ValueError: If `encode` does not return `(n, D)` of finite numbers, or
            `sentence_vectors` has another shape.
        OSError: If the file cannot be written.
    """
    rows, first = _distinct(sentences, longest)
    known = None if sentence_vectors is None else np.asarray(sentence_vectors)
    if known is not None and (known.ndim != 2 or len(known) != len(sentences)):
        raise ValueError(
            f"`sentence_vectors` must have the shape ({len(sentences)}, D). "
            f"Received: {known.shape}"
        )

    def blocks(done: int) -> Iterator[list[list[int]]]:
        for start in range(done, len(first), _BLOCK):
            yield first[start : start + _BLOCK].tolist()

    sums = TokenSums(encode) if is_bag_of_tokens(encode) else None

    def embed(runs: list[list[int]]) -> np.ndarray:
        if sums is not None:
            return sums(sentences, runs)
        texts = [join_sentences(sentences[i : i + length]) for i, length in runs]
        return np.asarray(encode(texts), dtype=np.float32)

    def compute(runs: list[list[int]]) -> np.ndarray:
        if known is None:
            vectors = embed(runs)
        else:
            starts, lengths = np.array(runs).T
            vectors = np.array(known[starts], np.float32)
            if (lengths > 1).any():
                vectors[lengths > 1] = embed([run for run in runs if run[1] > 1])
        if not np.isfinite(vectors).all():
            raise ValueError(
                "`encode` must return finite numbers. Received: infinity or NaN"
            )
        return vectors

    # Known vectors identify a model as well.
    probe = encode([_PROBE]) if known is None or not len(known) else known[:1]
    probe = np.asarray(probe, dtype=np.float32)
    if probe.ndim != 2 or len(probe) != 1:
        raise ValueError(f"`encode` must return (1, D). Received: {probe.shape}")
    digest = hashlib.sha256()
    for sentence in sentences:
        text = sentence.encode("utf-8", "surrogatepass")
        digest.update(b"%d " % len(text) + text)
    vectors = rows_on_disk(
        blocks,
        compute,
        path,
        shape=(len(first), probe.shape[1]),
        made_of={
            "texts": digest.hexdigest(),
            "longest": longest,
            "model": model,
            "probe": [round(float(x), 3) for x in probe[0]],
        },
        progress=progress,
    )
    return StoredRuns(vectors, rows)


def _distinct(sentences: Sequence[str], longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Number the different runs in the order in which they begin.

    Returns:
        `(n, N)` number of each run, 0 for runs that end after the document; `(U, 2)`
        first sentence and length of the first run with each number.
    """
    count = len(sentences)
    known: dict[str, int] = {}
    ids = np.array([known.setdefault(s, len(known)) for s in sentences], np.int64)
    rows = np.zeros((longest, count), np.int64)
    found = [np.zeros((0, 2), np.int64)]
    total, previous = 0, ids
    for length in range(1, min(longest, count) + 1):
        # A run is the run without its last sentence, and that sentence.
        keys = previous[: count - length + 1] * (len(known) + 1)
        if length > 1:
            keys = keys + 1 + ids[length - 1 :]
        _, starts, numbers = np.unique(keys, return_index=True, return_inverse=True)
        rows[length - 1, : len(keys)] = numbers.reshape(-1) + total
        found.append(np.stack([starts, np.full_like(starts, length)], axis=1))
        total, previous = total + len(starts), numbers.reshape(-1)
    first = np.concatenate(found)
    order = np.lexsort((first[:, 1], first[:, 0]))
    place = np.zeros(max(len(order), 1), np.int64)
    place[order] = np.arange(len(order))
    return place[rows], first[order]
