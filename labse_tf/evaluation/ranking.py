"""Nearest-translation accuracy (P@1) on any sentence pairs.

References:
    - Feng et al., section 5.1 (UN: the translation among all sentences of the other
      side), https://arxiv.org/abs/2007.01852
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from labse_tf.evaluation.nearest import DistinctRows, Encoder, first_shares
from labse_tf.evaluation.pool import Pool, Queries, checked_pools, stream
from labse_tf.evaluation.result import Score, titled
from labse_tf.languages import (
    canonical_keys,
    language_code,
    language_name,
    without_script,
)
from labse_tf.mining import BothWays, neighbors_both_ways
from labse_tf.plots import plot_bars
from labse_tf.progress import Progress, progress_bar

if TYPE_CHECKING:
    from typing_extensions import Self

Pairs = Mapping[str, tuple[Sequence[str], Sequence[str]]]


@dataclass(frozen=True)
class RetrievalResult:
    """Accuracy of the nearest neighbor for each language, 0 to 1.

    Attributes:
        forward: Share of the sentences of a language whose nearest English sentence is
            their translation (XX -> en), by language.
        backward: The same for the English sentences (en -> XX).
        counts: Number of sentence pairs, by language.
        trained: Languages that the encoder was trained on, or `None` if unknown. All
            other languages are reported separately, as zero-shot.
        candidates: Number of English candidates and of candidates in the language, by
            language; `None` without a pool.
    """

    forward: dict[str, float]
    backward: dict[str, float]
    counts: dict[str, int]
    trained: tuple[str, ...] | None = None
    candidates: dict[str, tuple[int, int]] | None = None

    task: ClassVar[str] = "retrieval"
    title: ClassVar[str] = "Retrieval"
    measure: ClassVar[str] = "accuracy"

    @classmethod
    def from_shares(
        cls,
        shares: Mapping[str, tuple[float, float]],
        pairs: Pairs,
        trained: tuple[str, ...] | None = None,
        **further: Any,
    ) -> Self:
        """Create a result from the shares of right neighbors.

        Args:
            shares: Language -> share of its sentences, and of its English sentences,
                whose neighbor is right, 0 to 1.
            pairs: The measured pairs.
            trained: See `RetrievalResult`.
            **further: Other fields of the class.
        """
        return cls(
            forward={code: share for code, (share, _) in shares.items()},
            backward={code: share for code, (_, share) in shares.items()},
            counts={code: len(english) for code, (english, _) in pairs.items()},
            trained=trained,
            **further,
        )

    @property
    def accuracy(self) -> dict[str, float]:
        """Mean of both directions, by language."""
        return {
            code: (forward + self.backward[code]) / 2
            for code, forward in self.forward.items()
        }

    @property
    def mean_accuracy(self) -> float:
        """Mean over all measured languages, each with the same weight."""
        return float(np.mean(list(self.accuracy.values())))

    @property
    def zero_shot(self) -> tuple[str, ...]:
        """Measured languages that the encoder was not trained on, in any script.

        Empty if `trained` is `None`.
        """
        if self.trained is None:
            return ()
        # A model trained on zh is not zero-shot on zh-Hant.
        trained = {without_script(code) for code in self.trained}
        return tuple(c for c in self.forward if without_script(c) not in trained)

    @property
    def training_means(self) -> dict[str, float]:
        """Mean accuracy of the trained and of the zero-shot languages.

        The keys are `"trained"` and `"zero-shot"`, without empty groups. Empty if
        `trained` is `None`.
        """
        accuracy = self.accuracy
        return {
            name: float(np.mean([accuracy[code] for code in codes]))
            for name, codes in self._groups().items()
            if name and codes
        }

    def scores(self) -> list[Score]:
        """Return the mean accuracy, overall and for trained and zero-shot languages."""
        rows = [Score("accuracy", len(self.forward), self.mean_accuracy)]
        groups = {name: len(codes) for name, codes in self._groups().items()}
        means = self.training_means
        if len(means) > 1:
            rows += [Score(f"accuracy, {g}", groups[g], m) for g, m in means.items()]
        return rows

    def _groups(self) -> dict[str, list[str]]:
        """Return languages, best first: all under "", or trained and zero-shot ones."""
        codes = _best_first(self.accuracy)
        if self.trained is None:
            return {"": codes}
        zero_shot = set(self.zero_shot)
        return {
            "trained": [code for code in codes if code not in zero_shot],
            "zero-shot": [code for code in codes if code in zero_shot],
        }

    def _shown(self, accuracy: float) -> float:
        """Return the value that tables and plots show for an accuracy."""
        return accuracy

    def table(self) -> str:
        """Return the result as text, in percent, best language first.

        If `trained` is known, zero-shot languages are a separate group.
        """
        groups = {name: codes for name, codes in self._groups().items() if codes}
        names = {code: language_name(code) for code in self.forward}
        notes = self._notes()
        titles = ["mean of 000 zero-shot languages" if self.trained is not None else ""]
        titles += [*names.values(), "mean of 000 languages", *(n[0] for n in notes)]
        width = max(map(len, titles))
        pools = "   in en   in XX" if self.candidates else ""
        head = f"{'code':<9}{'language':<{width}}  pairs{pools}  XX->en  en->XX    mean"
        line = "-" * len(head)
        lines = [head, line]
        for group, codes in groups.items():
            for code in codes:
                among = ""
                if self.candidates:
                    size = self.counts[code]
                    pair = self.candidates.get(code, (size, size))
                    among = f"{pair[0]:8d}{pair[1]:8d}"
                values = self._row([code])
                lines.append(
                    f"{code:<9}{names[code]:<{width}}{self.counts[code]:7d}{among}"
                    f"{values}"
                )
            lines += [line, self._mean_row(group, codes, width)]
            if len(groups) > 1:
                lines.append(line)
        if len(groups) > 1:
            lines.append(self._mean_row("", list(self.forward), width))
        blank = " " * (23 + len(pools))
        for title, mean, note in notes:
            lines.append(f"{title:<{9 + width}}{blank}{100 * mean:7.1f}  {note}")
        return "\n".join(line.rstrip() for line in lines)

    def _row(self, codes: Sequence[str]) -> str:
        """Format both directions and their mean over languages."""
        columns = (self.forward, self.backward, self.accuracy)
        means = (np.mean([column[code] for code in codes]) for column in columns)
        return "".join(f"{100 * self._shown(float(mean)):7.1f} " for mean in means)

    def _mean_row(self, group: str, codes: Sequence[str], width: int) -> str:
        """Format the mean over languages and their number."""
        title = f"mean of {len(codes)} {group} language".replace("  ", " ")
        title += "s" if len(codes) > 1 else ""
        blank = " " * (16 if self.candidates else 0)
        pairs = sum(self.counts[code] for code in codes)
        return f"{title:<{9 + width}}{pairs:7d}{blank}{self._row(codes)}"

    def _notes(self) -> list[tuple[str, float, str]]:
        """Return further means for below the table: title, value, remark."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a dict for `json.dump`.

        Returns:
            `{"task": str, "mean_accuracy": float, "languages": {code: {"name", "pairs",
            "forward", "backward", "accuracy"}}}`. If `trained` is known, also
            `"trained"`, `"training_means"` and, per language, `"zero_shot"`. With a
            pool, each language also has `"candidates": {"english", "language"}`.
        """
        zero_shot = set(self.zero_shot)
        languages: dict[str, dict[str, Any]] = {}
        for code, accuracy in self.accuracy.items():
            languages[code] = {
                "name": language_name(code),
                "pairs": self.counts[code],
                "forward": self.forward[code],
                "backward": self.backward[code],
                "accuracy": accuracy,
            }
            if self.trained is not None:
                languages[code]["zero_shot"] = code in zero_shot
            if self.candidates and code in self.candidates:
                english, language = self.candidates[code]
                both = {"english": english, "language": language}
                languages[code]["candidates"] = both
        values: dict[str, Any] = {
            "task": self.task,
            "mean_accuracy": self.mean_accuracy,
        }
        if self.trained is not None:
            values["trained"] = list(self.trained)
            values["training_means"] = self.training_means
        return {**values, "languages": languages}

    def plot(self, path: str | os.PathLike[str], *, model: str | None = None) -> None:
        """Plot one horizontal bar per language, best on top, see `Result.plot`."""
        accuracy = self.accuracy
        groups = {name: codes for name, codes in self._groups().items() if codes}
        codes = [code for group in groups.values() for code in group]

        def per_cent(values: Mapping[str, float]) -> list[float]:
            return [100 * self._shown(values[code]) for code in codes]

        count = f"{len(codes)} language" + ("s" if len(codes) > 1 else "")
        mean = 100 * self._shown(self.mean_accuracy)
        plot_bars(
            path,
            labels=[f"{language_name(code)}  {code}" for code in codes],
            bars={
                f"mean, {name}" if name else "mean": [
                    length if code in group else None
                    for code, length in zip(codes, per_cent(accuracy), strict=True)
                ]
                for name, group in groups.items()
            },
            marks={
                "XX to en": per_cent(self.forward),
                "en to XX": per_cent(self.backward),
            },
            title=titled(
                model, f"{self.title}, mean {self.measure} {mean:.1f} over {count}"
            ),
            axis=f"{self.measure}, percent",
        )


def retrieval(
    encode: Encoder,
    pairs: Pairs,
    *,
    pool: Mapping[str, Pool] | None = None,
    trained: Iterable[str] | None = None,
    block_size: int = 1024,
    progress: Progress = None,
) -> RetrievalResult:
    """Measure how often the nearest neighbor of a sentence is its translation.

    The candidates of a sentence are all sentences of the other side of its language and
    of the pool of that side. `translation_accuracy` describes ties: only the first of
    several copies of a sentence can be right, so remove duplicates first. Each distinct
    sentence is encoded once, also if many languages share English sentences.

    A pool makes the test as hard as the paper's test on the United Nations corpus,
    where the translation is one of millions of sentences. The pool is read once, in
    blocks: memory holds the vectors of the pairs and one block. Pool sentences that
    also occur in the pairs are not new candidates, so a copy of a translation is not an
    error. A pool of vectors has no texts to compare, but ties go to the sentences of
    the pairs.

    Args:
        encode: Callable from a list of strings to vectors `(n, D)` of any norm.
        pairs: Language -> (English sentences, their translations), two lists of the
            same length.
        pool: Language or `"en"` -> additional candidates: an iterable of sentences,
            such as the lines of a file, or their vectors `(M, D)`, such as
            `np.load(file, mmap_mode="r")`. English candidates are searched for every
            language.
        trained: Languages that the encoder was trained on, in any spelling. Other
            languages are reported separately.
        block_size: Rows compared at a time; affects memory, not the result.
        progress: See `labse_tf.progress`. Counts sentences, including those of the
            pools. The total is unknown if the length of a pool is unknown.

    Returns:
        Accuracy in both directions for each language, in the order of `pairs`.

    Raises:
        ValueError: If there are no languages, a language has no pairs or sides of
            different lengths, a pool has a language outside `pairs`, or `encode` does
            not return one finite row per sentence.

    Example:
        >>> import numpy as np
        >>> from labse_tf.evaluation import retrieval
        >>> def encode(sentences):
        ...     return np.array([[len(s), 1.0] for s in sentences])
        >>> pairs = {"de": (["a", "one"], ["A", "Eins"])}
        >>> retrieval(encode, pairs).accuracy
        {'de': 1.0}
        >>> retrieval(encode, pairs, pool={"en": ["four", "one"]}).forward
        {'de': 0.5}
    """
    pairs = checked_pairs(pairs)
    pools = checked_pools(pool, pairs)
    known = trained_codes(trained)
    looking: dict[str, tuple[Queries, Queries]] = {}
    accuracy: dict[str, tuple[float, float]] = {}
    dim = 0
    total = _sizes(pairs, pools)
    with progress_bar("Retrieval", total, "sentences", show=progress) as advance:
        for code, vectors, both in searched(encode, pairs, 1, block_size, advance):
            accuracy[code] = first_shares(both)
            if pools:
                english, others = pairs[code]
                there = Queries(vectors[0], english, both)
                looking[code] = there, Queries(vectors[1], others, both.swapped())
                dim = vectors[0].shape[1]
        for code, sentences in pools.items():
            queries = (
                [there for there, _ in looking.values()]
                if code == "en"
                else [looking[code][1]]
            )
            for texts, block in stream(encode, sentences, dim, f"pool[{code!r}]"):
                for query in queries:
                    query.offer(texts, block, block_size)
                advance(len(block))
    for code, (there, back) in looking.items():
        accuracy[code] = there.accuracy, back.accuracy
    sizes = {c: (a.candidates, b.candidates) for c, (a, b) in looking.items()}
    return RetrievalResult.from_shares(accuracy, pairs, known, candidates=sizes or None)


def searched(
    encode: Encoder,
    pairs: Pairs,
    k: int,
    block_size: int,
    advance: Callable[[int], None],
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray], BothWays]]:
    """Encode one language after another and search for neighbors.

    Args:
        encode: See `retrieval`.
        pairs: Pairs that `checked_pairs` returned.
        k: Number of neighbors of each sentence.
        block_size: See `retrieval`.
        advance: Called after each language with its number of sentences.

    Yields:
        The language; the vectors `(N, D)` of its sentences and of the English
        sentences; and the neighbors, where forward is from the language to English.

    Raises:
        ValueError: If `encode` does not return one finite row per sentence.
    """
    english = DistinctRows(encode)
    for code, (target, source) in pairs.items():
        vectors = (
            DistinctRows(encode)(source, what=f"{code} sentences"),
            english(target, what=f"English sentences of {code}"),
        )
        if vectors[0].shape[1] != vectors[1].shape[1]:
            raise ValueError(
                "`encode` must return vectors of the same length for all texts. "
                f"Received: {vectors[0].shape[1]} for {code} and "
                f"{vectors[1].shape[1]} for English"
            )
        both = neighbors_both_ways(*vectors, k, block_size=block_size, progress=False)
        yield code, vectors, both
        advance(2 * len(source))


def _sizes(pairs: Pairs, pools: Mapping[str, Pool]) -> int | None:
    """Return the number of sentences to encode, or `None` if a pool has no length."""
    total = count_sentences(pairs)
    for sentences in pools.values():
        if not isinstance(sentences, Sized):
            return None
        total += len(sentences)
    return total


def count_sentences(pairs: Pairs) -> int:
    """Return the number of sentences on both sides in all languages."""
    return sum(2 * len(english) for english, _ in pairs.values())


def checked_pairs(pairs: Pairs) -> Pairs:
    """Check that pairs can be measured.

    Args:
        pairs: See `retrieval`.

    Returns:
        The pairs by canonical code, see `labse_tf.languages.canonical_keys`.

    Raises:
        ValueError: If there are no languages, or a language has no pairs or sides of
            different lengths.
    """
    if not pairs:
        raise ValueError("`pairs` must have at least one language. Received: none")
    for code, sides in pairs.items():
        sizes = [len(side) for side in sides]
        if len(sizes) != 2 or sizes[0] != sizes[1] or not sizes[0]:
            raise ValueError(
                f"`pairs[{code!r}]` must be two lists of the same length with at least "
                f"one sentence. Received: lengths {sizes}"
            )
    return canonical_keys(pairs)


def trained_codes(trained: Iterable[str] | None) -> tuple[str, ...] | None:
    """Return the canonical codes of the languages that an encoder was trained on.

    Args:
        trained: Codes or English names in any spelling, or `None` if unknown.

    Returns:
        Each code once, in the given order, or `None`.

    Raises:
        ValueError: If a name is not a valid code.
    """
    if trained is None:
        return None
    named = [trained] if isinstance(trained, str) else trained
    return tuple(dict.fromkeys(language_code(code) for code in named))


def _best_first(accuracy: Mapping[str, float]) -> list[str]:
    """Sort codes by accuracy, descending, then by code."""
    return sorted(accuracy, key=lambda code: (-accuracy[code], code))
