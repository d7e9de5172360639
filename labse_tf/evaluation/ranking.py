"""Nearest-translation accuracy (P@1) on any pairs, and the result that it gives.

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
from labse_tf.evaluation.result import Score
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
    """Accuracy of the nearest neighbour a language, 0 to 1.

    Attributes:
        forward: share of the sentences of a language whose nearest English sentence
            is their translation (XX -> en), by language.
        backward: the same for the English sentences (en -> XX).
        counts: number of sentence pairs.
        trained: languages that the encoder was trained on, where that is known; the
            others are reported apart, as zero-shot.
        candidates: by language, among how many English sentences and sentences of the
            language a translation was looked for, where that is more than the pairs.
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
        """Makes a result from what was right.

        Args:
            shares: language -> share of its sentences whose neighbour is right, and
                that of the English ones, 0 to 1.
            pairs: that were measured.
            trained: see above.
            **further: what else the class has.

        Returns:
            The result.
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

        None of them where `trained` is None.
        """
        if self.trained is None:
            return ()
        # A model that knows zh knows zh-Hant.
        trained = {without_script(code) for code in self.trained}
        return tuple(c for c in self.forward if without_script(c) not in trained)

    @property
    def training_means(self) -> dict[str, float]:
        """Mean accuracy of the trained and of the zero-shot languages.

        Keys are `"trained"` and `"zero-shot"`, as far as there are such languages;
        none where `trained` is None.
        """
        accuracy = self.accuracy
        return {
            name: float(np.mean([accuracy[code] for code in codes]))
            for name, codes in self._groups().items()
            if name and codes
        }

    def scores(self) -> list[Score]:
        """The mean accuracy, and those of the trained and zero-shot languages."""
        rows = [Score("accuracy", len(self.forward), self.mean_accuracy)]
        groups = {name: len(codes) for name, codes in self._groups().items()}
        means = self.training_means
        if len(means) > 1:
            rows += [Score(f"accuracy, {g}", groups[g], m) for g, m in means.items()]
        return rows

    def _groups(self) -> dict[str, list[str]]:
        """Languages, best first: all under "", or the trained ones and the others."""
        codes = _best_first(self.accuracy)
        if self.trained is None:
            return {"": codes}
        zero_shot = set(self.zero_shot)
        return {
            "trained": [code for code in codes if code not in zero_shot],
            "zero-shot": [code for code in codes if code in zero_shot],
        }

    def _shown(self, accuracy: float) -> float:
        """What tables and plots show for an accuracy."""
        return accuracy

    def table(self) -> str:
        """Writes the result as text, per cent, best language first.

        Returns:
            A row a language and their means; the languages that the encoder was not
            trained on stand apart, where `trained` is known.
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
        """Both directions and their mean, over languages."""
        columns = (self.forward, self.backward, self.accuracy)
        means = (np.mean([column[code] for code in codes]) for column in columns)
        return "".join(f"{100 * self._shown(float(mean)):7.1f} " for mean in means)

    def _mean_row(self, group: str, codes: Sequence[str], width: int) -> str:
        """The mean over languages, with how many they are."""
        title = f"mean of {len(codes)} {group} language".replace("  ", " ")
        title += "s" if len(codes) > 1 else ""
        blank = " " * (16 if self.candidates else 0)
        pairs = sum(self.counts[code] for code in codes)
        return f"{title:<{9 + width}}{pairs:7d}{blank}{self._row(codes)}"

    def _notes(self) -> list[tuple[str, float, str]]:
        """Further means below the table: title, value, remark."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Gives the result as what `json.dump` takes.

        Returns:
            `{"task": str, "mean_accuracy": float, "languages": {code: {"name",
            "pairs", "forward", "backward", "accuracy"}}}`; where `trained` is known,
            also `"trained"`, `"training_means"` and `"zero_shot"` of each language,
            and `"candidates": {"english", "language"}` of one with a pool.
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

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws a horizontal bar a language, best on top, zero-shot ones apart.

        Args:
            path: the PNG file to write.

        Raises:
            ImportError: matplotlib is not installed.
            OSError: the file cannot be written.
        """
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
            title=f"{self.title}, mean {self.measure} {mean:.1f} over {count}",
            axis=f"{self.measure}, per cent",
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
    """Measures how often a sentence's nearest neighbour is its translation.

    The candidates of a sentence are all sentences of the other side of its language,
    and those of that side's pool. For ties see `translation_accuracy`: of several
    copies of a sentence only the first can be right, so leave duplicates out where
    there are any. Each distinct sentence is encoded once, also where many languages
    share English sentences.

    A pool makes the test as hard as the paper's on the United Nations corpus, where the
    translation is one of millions of sentences. It is gone through once, in blocks:
    memory holds the vectors of the pairs and one block. A sentence of the pool that
    stands among the pairs' own is no new candidate, so a copy of the translation is no
    error. Of vectors nobody knows the sentences; a copy is then as near as the
    translation itself, and of equals the pairs' own come first.

    Args:
        encode: from a list of strings to `(n, D)`; the rows need not be unit vectors.
        pairs: language -> (English sentences, their translations), as long as each
            other.
        pool: language, or "en", -> further candidates: an iterable of sentences, such
            as the lines of a file, or their vectors `(M, D)`, such as
            `np.load(file, mmap_mode="r")`. English ones are searched for every
            language.
        trained: languages that the encoder was trained on (any spelling), to report
            the others apart.
        block_size: rows that are compared at a time; it bounds memory and does not
            change the result.
        progress: see `labse_tf.progress`; counts sentences, also those of the pools.
            The total is unknown where the length of a pool is.

    Returns:
        Accuracy both ways a language, in the order of `pairs`.

    Raises:
        ValueError: there is no language or a language without pairs, the sides of a
            language differ in length, a pool is of no language of the pairs, or
            `encode` gives anything but one finite row a sentence.

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
    """Encodes language after language and finds what lies near what.

    Args:
        encode: as in `retrieval`.
        pairs: as in `retrieval`, checked.
        k: neighbours of each sentence.
        block_size: as in `retrieval`.
        advance: called with the number of sentences of each language when it is done.

    Yields:
        The language, the vectors `(N, D)` of its sentences and of the English ones, and
        the neighbours, English ones of its sentences forward.

    Raises:
        ValueError: `encode` gives anything but one finite row a sentence.
    """
    english = DistinctRows(encode)
    for code, (target, source) in pairs.items():
        vectors = (
            DistinctRows(encode)(source, what=f"{code} sentences"),
            english(target, what=f"English sentences of {code}"),
        )
        if vectors[0].shape[1] != vectors[1].shape[1]:
            raise ValueError(
                "encode must give vectors of one length. Received: "
                f"{vectors[0].shape[1]} for {code} and {vectors[1].shape[1]} for "
                "English"
            )
        both = neighbors_both_ways(*vectors, k, block_size=block_size, progress=False)
        yield code, vectors, both
        advance(2 * len(source))


def _sizes(pairs: Pairs, pools: Mapping[str, Pool]) -> int | None:
    """Number of sentences to encode; None where the length of a pool is unknown."""
    total = count_sentences(pairs)
    for sentences in pools.values():
        if not isinstance(sentences, Sized):
            return None
        total += len(sentences)
    return total


def count_sentences(pairs: Pairs) -> int:
    """Counts the sentences of both sides in all languages."""
    return sum(2 * len(english) for english, _ in pairs.values())


def checked_pairs(pairs: Pairs) -> Pairs:
    """Refuses pairs that cannot be measured.

    Args:
        pairs: language -> (English sentences, their translations).

    Returns:
        The pairs by canonical code, see `labse_tf.languages.canonical_keys`.

    Raises:
        ValueError: there is no language, or one without pairs or with sides of
            different length.
    """
    if not pairs:
        raise ValueError("pairs must have at least one language. Received: none")
    for code, sides in pairs.items():
        sizes = [len(side) for side in sides]
        if len(sizes) != 2 or sizes[0] != sizes[1] or not sizes[0]:
            raise ValueError(
                f"pairs[{code!r}] must be two lists of the same length, with one "
                f"sentence at least. Received: lengths {sizes}"
            )
    return canonical_keys(pairs)


def trained_codes(trained: Iterable[str] | None) -> tuple[str, ...] | None:
    """Canonical codes of the languages that an encoder was trained on.

    Args:
        trained: codes or English names in any spelling; None where nobody knows.

    Returns:
        Each code once, in the order given; None for None.

    Raises:
        ValueError: a name has not the form of a code.
    """
    if trained is None:
        return None
    named = [trained] if isinstance(trained, str) else trained
    return tuple(dict.fromkeys(language_code(code) for code in named))


def _best_first(accuracy: Mapping[str, float]) -> list[str]:
    """Sorts codes by accuracy, those of the same one by code."""
    return sorted(accuracy, key=lambda code: (-accuracy[code], code))
