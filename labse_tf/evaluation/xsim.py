"""xSIM: error rate of margin-based sentence alignment.

References:
    - NLLB Team, "No Language Left Behind" (xSIM), https://arxiv.org/abs/2207.04672
    - LASER, `tasks/xsim` and `source/xsim.py`,
      https://github.com/facebookresearch/LASER
    - Artetxe and Schwenk, section 3.1 (margins), https://arxiv.org/abs/1811.01136
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from labse_tf.evaluation import ranking
from labse_tf.evaluation.nearest import Encoder
from labse_tf.evaluation.result import Score
from labse_tf.mining import MARGINS, BothWays, mine_from_neighbors
from labse_tf.progress import Progress, progress_bar

MATCHES = ("row", "text")


@dataclass(frozen=True)
class XsimResult(ranking.RetrievalResult):
    """xSIM error rates for each language.

    Tables and plots show error rates. `forward`, `backward` and `accuracy` are the
    shares of right sentences, as in `RetrievalResult`.

    Attributes:
        margin: `"ratio"`, `"distance"` or `"cosine"`.
        k: Number of neighbors of the margin.
        match: Whether a neighbor is right by its `"row"` or by its `"text"`.
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
        """Return the mean error rate."""
        measure = "xSIM error rate (lower is better)"
        return [Score(measure, len(self.forward), self.mean_error_rate)]

    def _shown(self, accuracy: float) -> float:
        return 1 - accuracy

    def table(self) -> str:
        """Return the settings and the error rates as text, in percent, best first."""
        settings = f"xSIM error rate, margin {self.margin}"
        settings += "" if self.margin == "cosine" else f", k {self.k}"
        settings += ", same text counts as right" if self.match == "text" else ""
        return f"{settings}\n{super().table()}"

    def to_dict(self) -> dict[str, Any]:
        """Return `RetrievalResult.to_dict` with the error rates.

        Returns:
            Additionally `"margin"`, `"k"`, `"match"`, `"mean_error_rate"` and, per
            language, `"error_rate"`.
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
    pairs: ranking.Pairs,
    *,
    margin: str = "ratio",
    k: int = 4,
    match: str = "row",
    trained: Iterable[str] | None = None,
    block_size: int = 1024,
    progress: Progress = None,
) -> XsimResult:
    """Measure how often margin-based alignment chooses a wrong sentence.

    Each sentence is aligned with the one of its k nearest neighbors that has the best
    margin score, see `labse_tf.mining.margin_scores`; of equal scores, the lower row is
    chosen. The error rate is the share of sentences that are not aligned with their
    translation. LASER reports one direction, mostly into English, which is `XX->en`
    here.

    Args:
        encode: See `retrieval`.
        pairs: See `retrieval`.
        margin: `"ratio"`, `"distance"`, or `"cosine"` without a margin, which LASER
            calls absolute.
        k: Number of neighbors whose mean cosine the margin uses, and number of
            candidates of each sentence.
        match: `"row"`: only the translation itself is right, LASER's default. `"text"`:
            any sentence with the same text is right, for sets with duplicates.
        trained: See `retrieval`.
        block_size: See `retrieval`.
        progress: See `labse_tf.progress`. Counts sentences.

    Returns:
        Error rates in both directions for each language, in the order of `pairs`.

    Raises:
        ValueError: If an option is unknown or k is not positive; see also `retrieval`.

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
            raise ValueError(f"`{name}` must be one of {names}. Received: {value!r}")
    if k < 1:
        raise ValueError(f"`k` must be positive. Received: {k}")
    pairs = ranking.checked_pairs(pairs)
    known = ranking.trained_codes(trained)
    near, total = 1 if margin == "cosine" else k, ranking.count_sentences(pairs)
    with progress_bar("xSIM", total, "sentences", show=progress) as advance:
        shares = {
            code: xsim_shares(both, pairs[code], margin, match)
            for code, _, both in ranking.searched(
                encode, pairs, near, block_size, advance
            )
        }
    return XsimResult.from_shares(shares, pairs, known, margin=margin, k=k, match=match)


def xsim_shares(
    both: BothWays,
    sides: tuple[Sequence[str], Sequence[str]],
    margin: str = "ratio",
    match: str = "row",
) -> tuple[float, float]:
    """Return the shares of rightly aligned sentences, from known neighbors.

    Args:
        both: The k nearest English sentences of each sentence, and vice versa.
        sides: English sentences and their translations.
        margin: See `xsim`.
        match: See `xsim`.

    Returns:
        The shares XX -> en and en -> XX, 0 to 1.
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
