"""Candidate pools: sentences, beyond those of the test, to search for translations.

The paper's United Nations test searches for each translation in the whole other side,
millions of sentences. A pool is streamed: memory holds the queries, one block of the
pool, and the cosine of each query with its translation.

Shapes: N queries, M sentences of a pool, D dimensions.

References:
    - Feng et al., section 5.1, https://arxiv.org/abs/2007.01852
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from labse_tf.evaluation.nearest import Encoder, encoded
from labse_tf.languages import canonical_keys
from labse_tf.mining import BothWays, check_finite, nearest_neighbors

Pool = Iterable[str] | np.ndarray
"""Sentences, or their vectors `(M, D)`, which may be a memory-mapped file."""

# Number of sentences per call of `encode`: enough to sort them by length.
_BLOCK = 8192


class Queries:
    """Sentences of one language and the search for their translations.

    Attributes:
        hits: bool `(N,)`, whether no candidate so far is nearer than the translation.
        candidates: Number of candidates so far.
    """

    def __init__(
        self, vectors: np.ndarray, candidates: Sequence[str], both: BothWays
    ) -> None:
        """Start with the candidates of the test itself.

        Args:
            vectors: `(N, D)`.
            candidates: N sentences. Sentence i is the translation of query i.
            both: Neighbors of the queries among the candidates, searched with k = 1.
        """
        self._vectors = vectors
        self._known = frozenset(candidates)
        self._cosines = both.forward_cosines[:, 0]
        self.hits = both.forward_rows[:, 0] == np.arange(len(vectors))
        self.candidates = len(candidates)

    @property
    def accuracy(self) -> float:
        """Share of the queries whose nearest candidate is their translation."""
        return float(np.mean(self.hits))

    def offer(
        self, texts: Sequence[str] | None, vectors: np.ndarray, block_size: int
    ) -> None:
        """Update `hits` with more candidates.

        Args:
            texts: M sentences, or `None` if unknown. Sentences that are already
                candidates are skipped, because they cannot change `hits`.
            vectors: `(M, D)`.
            block_size: Number of rows compared at a time.
        """
        if texts is not None:
            vectors = vectors[[text not in self._known for text in texts]]
        self.candidates += len(vectors)
        # A query with a nearer candidate cannot become a hit again.
        still = np.flatnonzero(self.hits)
        if len(vectors) and len(still):
            cosines, _ = nearest_neighbors(
                self._vectors[still], vectors, 1, block_size=block_size
            )
            # Ties go to the first candidate, and the test's own candidates come first.
            self.hits[still] = cosines[:, 0] <= self._cosines[still]


def checked_pools(
    pool: Mapping[str, Pool] | None, codes: Iterable[str]
) -> dict[str, Pool]:
    """Check pools as far as possible before anything is encoded.

    Args:
        pool: Language -> pool.
        codes: Languages of the test, without English.

    Returns:
        The pools by canonical code.

    Raises:
        ValueError: If a pool has a language outside the test, or is neither sentences
            nor a matrix.
    """
    pools = canonical_keys(pool or {})
    known = ["en", *codes]
    for code, sentences in pools.items():
        if code not in known:
            raise ValueError(
                f"`pool` must have languages of the pairs, {' '.join(known)}. "
                f"Received: {code!r}"
            )
        if isinstance(sentences, np.ndarray) and sentences.ndim != 2:
            raise ValueError(
                f"`pool[{code!r}]` must have the shape (M, D) if it is an array. "
                f"Received: {sentences.shape}"
            )
        if isinstance(sentences, str) or not isinstance(sentences, Iterable):
            raise ValueError(
                f"`pool[{code!r}]` must be an iterable of sentences or their vectors. "
                f"Received: {type(sentences).__name__}"
            )
    return pools


def stream(
    encode: Encoder, pool: Pool, dim: int, what: str
) -> Iterator[tuple[list[str] | None, np.ndarray]]:
    """Read a pool once, block by block.

    Args:
        encode: Encoder of the sentences.
        pool: Sentences or vectors.
        dim: D of the queries.
        what: Name of the sentences, for errors.

    Yields:
        Sentences (`None` for a pool of vectors) and their vectors `(M, D)`.

    Raises:
        ValueError: If a row is not finite or has another width.
    """
    first = 0
    for texts, vectors in _blocks(encode, pool, what):
        if vectors.shape[1] != dim:
            raise ValueError(
                f"the vectors of {what} must have the length of the queries, {dim}. "
                f"Received: {vectors.shape[1]}"
            )
        if texts is None:
            check_finite(vectors, f"the vectors of {what}", first)
        yield texts, vectors
        first += len(vectors)


def _blocks(
    encode: Encoder, pool: Pool, what: str
) -> Iterator[tuple[list[str] | None, np.ndarray]]:
    """Yield blocks of a pool, encoded."""
    if isinstance(pool, np.ndarray):
        for start in range(0, len(pool), _BLOCK):
            yield None, np.asarray(pool[start : start + _BLOCK], dtype=np.float32)
        return
    texts, first = iter(pool), 0
    while block := list(itertools.islice(texts, _BLOCK)):
        yield block, encoded(encode, block, what=what, first=first)
        first += len(block)
