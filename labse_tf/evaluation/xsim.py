"""xSIM: how often margin-based alignment takes a wrong sentence.

References:
    - NLLB Team, "No Language Left Behind" (xSIM), https://arxiv.org/abs/2207.04672
    - LASER, `tasks/xsim` and `source/xsim.py`, https://github.com/facebookresearch/LASER
    - Artetxe and Schwenk, section 3.1 (margins), https://arxiv.org/abs/1811.01136
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from labse_tf.evaluation.nearest import Encoder
from labse_tf.evaluation.ranking import (
    Pairs,
    RetrievalResult,
    checked_pairs,
    count_sentences,
    searched,
    trained_codes,
)
from labse_tf.evaluation.result import Score
from labse_tf.mining import MARGINS, BothWays, mine_from_neighbors
from labse_tf.progress import Progress, progress_bar

MATCHES = ("row", "text")


@dataclass(frozen=True)
class XsimResult(RetrievalResult):
    """xSIM error rates a language.

    Tables and plots show error rates; `forward`, `backward` and `accuracy` are, as in
    `RetrievalResult`, shares of right ones.

    Attributes:
        margin: `"ratio"`, `"distance"` or `"cosine"`.
        k: neighbours of the margin.
        match: what makes a neighbour right, its `"row"` or its `"text"`.
    """

    margin: str = "ratio"
    k: int = 4
    match: str = "row"

    task: ClassVar[str] = "xsim"
    title: ClassVar[str] = "xSIM"
    measure: ClassVar[str] = "error rate"

    @property
    def error_rate(self) -> dict[str, float]:
        """Mean error rate of both directions, 0 to 1, by language."""
        return {code: 1 - share for code, share in self.accuracy.items()}

    @property
    def mean_error_rate(self) -> float:
        """Mean over all measured languages, each with the same weight."""
        return 1 - self.mean_accuracy

    def scores(self) -> list[Score]:
        """The mean error rate."""
        measure = "xSIM error rate (low is good)"
        return [Score(measure, len(self.forward), self.mean_error_rate)]

    def _shown(self, accuracy: float) -> float:
        return 1 - accuracy

    def table(self) -> str:
        """Writes the error rates as text, per cent, best language first.

        Returns:
            As `RetrievalResult.table`, with the settings above.
        """
        settings = f"xSIM error rate, margin {self.margin}"
        settings += "" if self.margin == "cosine" else f", k {self.k}"
        settings += ", same text counts as right" if self.match == "text" else ""
        return f"{settings}\n{super().table()}"

    def to_dict(self) -> dict[str, Any]:
        """As `RetrievalResult.to_dict`, with the error rates.

        Returns:
            `"margin"`, `"k"`, `"match"`, `"mean_error_rate"` and, of each language,
            `"error_rate"` in addition.
        """
        values = super().to_dict()
        for code, rate in self.error_rate.items():
            values["languages"][code]["error_rate"] = rate
        return {
            "task": self.task,
            "margin": self.margin,
            "k": self.k,
            "match": self.match,
            "mean_error_rate": self.mean_error_rate,
            **values,
        }


def xsim(
    encode: Encoder,
    pairs: Pairs,
    *,
    margin: str = "ratio",
    k: int = 4,
    match: str = "row",
    trained: Iterable[str] | None = None,
    block_size: int = 1024,
    progress: Progress = None,
) -> XsimResult:
    """Measures how often margin-based alignment takes a wrong sentence.

    Each sentence is aligned with the one of its k nearest that has the best margin
    score (see `labse_tf.mining.margin_scores`); the error rate is the share of those
    that are not its translation. LASER gives the rate of one direction, into English
    for the most part: here that is `XX->en`.

    Args:
        encode: from a list of strings to `(n, D)`; the rows need not be unit vectors.
        pairs: language -> (English sentences, their translations), as long as each
            other.
        margin: `"ratio"`, `"distance"`, or `"cosine"` without any margin, which LASER
            calls absolute.
        k: neighbours whose mean cosine the margin compares with, and candidates of
            each sentence; all there are where they are fewer.
        match: `"row"`: right is the translation alone, LASER's default. `"text"`:
            right is any sentence with the same text, for a set with duplicates.
        trained: languages that the encoder was trained on, to report the others apart.
        block_size: rows that are compared at a time; it bounds memory and does not
            change the result.
        progress: see `labse_tf.progress`; counts sentences.

    Returns:
        Error rates both ways a language, in the order of `pairs`. Of equal scores the
        lower row counts as the neighbour.

    Raises:
        ValueError: an option is unknown or k not positive, there is no language or a
            language without pairs, the sides of a language differ in length, or
            `encode` gives anything but one finite row a sentence.

    Example:
        >>> import numpy as np
        >>> from labse_tf.evaluation import xsim
        >>> def encode(sentences):
        ...     return np.array([[len(s), 1.0] for s in sentences])
        >>> xsim(encode, {"de": (["a", "one"], ["A", "Eins"])}, k=2).error_rate
        {'de': 0.0}
    """
    for name, value, names in (("margin", margin, MARGINS), ("match", match, MATCHES)):
        if value not in names:
            raise ValueError(f"{name} must be one of {names}. Received: {value!r}")
    if k < 1:
        raise ValueError(f"k must be positive. Received: {k}")
    pairs = checked_pairs(pairs)
    known = trained_codes(trained)
    near, total = 1 if margin == "cosine" else k, count_sentences(pairs)
    with progress_bar("xSIM", total, "sentences", show=progress) as advance:
        shares = {
            code: xsim_shares(both, pairs[code], margin, match)
            for code, _, both in searched(encode, pairs, near, block_size, advance)
        }
    return XsimResult.from_shares(shares, pairs, known, margin=margin, k=k, match=match)


def xsim_shares(
    both: BothWays,
    sides: tuple[Sequence[str], Sequence[str]],
    margin: str = "ratio",
    match: str = "row",
) -> tuple[float, float]:
    """Shares of sentences that are aligned right, from neighbours that are known.

    Args:
        both: the k nearest English sentences of each sentence, and the other way.
        sides: English sentences and their translations.
        margin: as in `xsim`.
        match: as in `xsim`.

    Returns:
        The share XX -> en and that en -> XX, 0 to 1.
    """
    shares = []
    for neighbors, texts in zip((both, both.swapped()), sides, strict=True):
        found = mine_from_neighbors(
            neighbors, margin=margin, retrieval="forward", one_to_one=False
        )
        right = found.targets == found.sources
        if match == "text":
            for place in np.flatnonzero(~right):
                same = texts[found.targets[place]] == texts[found.sources[place]]
                right[place] = same
        shares.append(float(np.mean(right)))
    return shares[0], shares[1]
