"""Corpora: pairs or sentences of many languages, packed in memory. No TensorFlow.

Shapes: N pairs or sentences of a corpus.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import itertools
import json
import zlib
from array import array
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labse_tf.data.hashing import hash_bytes, mix_bits
from labse_tf.languages import language_code
from labse_tf.text import SentencePair, SkipReport

_AnyCorpus = TypeVar("_AnyCorpus", bound="Corpus")


class _GrowingTexts:
    """Concatenated strings to which more can be added."""

    def __init__(self) -> None:
        self.buffer, self.sizes = bytearray(), array("q")

    def append(self, text: bytes) -> None:
        self.buffer += text
        self.sizes.append(len(text))


class _Texts(NamedTuple):
    """Concatenated strings in one buffer, with 8 bytes of overhead per string."""

    buffer: bytes
    offsets: NDArray[np.int64]  # (N + 1,)

    @classmethod
    def join(cls, parts: Iterable[_GrowingTexts]) -> _Texts:
        parts = list(parts)
        buffer = b"".join([part.buffer for part in parts])
        for part in parts:
            part.buffer.clear()
        lengths = [np.frombuffer(part.sizes, np.int64) for part in parts]
        return cls(buffer, np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum())

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.object_]:
        buffer, texts = self.buffer, np.empty(len(rows), object)
        starts, ends = self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()
        texts[:] = [buffer[start:end] for start, end in zip(starts, ends, strict=True)]
        return texts

    def subset(self, rows: NDArray[np.int64]) -> _Texts:
        sizes = (self.offsets[rows + 1] - self.offsets[rows]).cumsum()
        return _Texts(b"".join(self.take(rows)), np.concatenate([[0], sizes]))

    def lengths(self) -> NDArray[np.int32]:
        """Count the characters of each string; a CJK character counts as three.

        This is roughly proportional to the number of tokens. Bytes are not: an Indian
        letter has three bytes and a Latin letter has one.
        """
        worth = bytes([1] * 0x80 + [0] * 0x40 + [1] * 0x23 + [3] * 0x1D)
        data = np.frombuffer(self.buffer.translate(worth), np.uint8)
        result = np.empty(len(self.offsets) - 1, np.int32)
        for first in range(0, len(result), 1 << 15):  # bounds the running sums
            offsets = self.offsets[first : first + (1 << 15) + 1]
            sums = data[offsets[0] : offsets[-1]].cumsum(dtype=np.int32)
            sums = np.concatenate([np.zeros(1, np.int32), sums])
            ends = sums[offsets - offsets[0]]
            result[first : first + len(ends) - 1] = np.diff(ends)
        return result


class Corpus:
    """Items of many languages, with one side or two, packed in memory.

    An item is a pair or a sentence, as text or as token ids. Items are sorted by
    language. The row of an item is its index, from 0 to N - 1.

    Args:
        counts: Language -> number of items, sorted.
        sides: One object per side, with the methods `take(rows)`, `subset(rows)` and
            `lengths()` of this class.
        skipped: Report of the lines that could not be read.

    Attributes:
        counts: Language -> number of items.
        languages: Languages, sorted.
        bounds: Language -> its first row and the row after its last.
        sides: The sides.
        skipped: Report of the lines that could not be read.
    """

    def __init__(
        self,
        counts: dict[str, int],
        sides: tuple[Any, ...],
        skipped: SkipReport | None = None,
    ) -> None:
        """Store the arguments."""
        self.counts = counts
        self.languages = list(counts)
        self.skipped = SkipReport() if skipped is None else skipped
        self.sides = sides
        ends = np.cumsum([0, *counts.values()]).tolist()
        self.bounds: dict[str, tuple[int, int]] = dict(
            zip(counts, itertools.pairwise(ends), strict=True)
        )

    def __len__(self) -> int:
        """Number of items in all languages."""
        return sum(self.counts.values())

    def digest(self) -> str:
        """Return the SHA-256 of the text: languages, sentences, their bounds and order.

        The same text in the same order inside each language gives the same digest,
        whatever files it came from. Computed once, at 500 MB per second or more.

        Returns:
            64 hexadecimal digits.
        """
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        # The last offset is the size of the text, so texts of two sides cannot mix.
        digest = hashlib.sha256(json.dumps(list(self.counts.items())).encode())
        for buffer, offsets in self.sides:
            digest.update(np.ascontiguousarray(offsets, "<i8").data)
            digest.update(buffer)
        return digest.hexdigest()

    @functools.cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Length of the longer side of each item, in characters or tokens, `(N,)`."""
        return np.maximum.reduce([side.lengths() for side in self.sides])

    def rows(self, language: str, rows: ArrayLike) -> NDArray[np.int64]:
        """Convert rows of a language to rows of the corpus.

        Args:
            language: One of `languages`.
            rows: Integers below `counts[language]`, in any order.

        Returns:
            int64 array of the shape of `rows`.

        Raises:
            ValueError: If the language or a row does not exist.
        """
        language = language_code(language)
        if language not in self.counts:
            raise ValueError(
                f"`language` must be one of {self.languages}. Received: {language}"
            )
        rows, count = np.asarray(rows, np.int64), self.counts[language]
        if rows.size and not (0 <= rows.min() and rows.max() < count):
            raise ValueError(
                f"`rows` must be from 0 to {count - 1}. "
                f"Received: {rows.min()} to {rows.max()}"
            )
        return rows + self.bounds[language][0]

    def take(self, rows: NDArray[np.int64]) -> tuple[Any, ...]:
        """Return the items of some rows.

        Args:
            rows: Rows of the corpus, int64 `(n,)`.

        Returns:
            One entry per side. For text: an object array `(n,)` of UTF-8 `bytes`. For
            token ids: the concatenated ids, and the number of ids per item, `(n,)`.
        """
        return tuple(side.take(rows) for side in self.sides)

    def subset(self: _AnyCorpus, rows: NDArray[np.int64]) -> _AnyCorpus:
        """Return a corpus of some of the items.

        Args:
            rows: Rows of the corpus in ascending order, int64 `(n,)`.

        Returns:
            A corpus of the same kind. Languages without items are dropped.
        """
        ends = np.searchsorted(rows, [end for _, end in self.bounds.values()])
        counts = np.diff(ends, prepend=0).tolist()
        corpus = copy.copy(self)
        vars(corpus).pop("_digest", None)
        vars(corpus).pop("lengths", None)
        Corpus.__init__(
            corpus,
            {code: n for code, n in zip(self.counts, counts, strict=True) if n},
            tuple(side.subset(rows) for side in self.sides),
            self.skipped,
        )
        return corpus

    def select(self: _AnyCorpus, languages: Iterable[str]) -> _AnyCorpus:
        """Return a corpus of some of the languages.

        Args:
            languages: Codes in any order, see `language_code`.

        Raises:
            ValueError: If the corpus does not have one of the languages.
        """
        wanted = {language_code(code) for code in languages}
        if not wanted or not wanted <= self.counts.keys():
            raise ValueError(
                f"`languages` must be some of {self.languages}. "
                f"Received: {sorted(wanted)}"
            )
        spans = [np.arange(*self.bounds[code]) for code in sorted(wanted)]
        return self.subset(np.concatenate(spans))

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Iterate over (language, sentence in UTF-8) of all sides."""
        raise NotImplementedError

    def _side(self, number: int, language: str) -> Iterator[bytes]:
        """Iterate over the sentences of one side of a language."""
        first, end = self.bounds[language]
        for start in range(first, end, 1 << 13):  # bounds the copies
            yield from self.sides[number].take(
                np.arange(start, min(start + (1 << 13), end))
            )


class ParallelCorpus(Corpus):
    """Sentence pairs of many languages, packed in memory.

    Holds the text in UTF-8 and 16 bytes per pair. Pairs are sorted by language and keep
    the given order inside a language. Exact duplicates are kept. See `Corpus` for the
    attributes.

    Args:
        pairs: Any iterable of `SentencePair`.
        skipped: Report of the lines that could not be read.
    """

    def __init__(
        self, pairs: Iterable[SentencePair], *, skipped: SkipReport | None = None
    ) -> None:
        """Pack the pairs."""
        growing: dict[str, tuple[_GrowingTexts, _GrowingTexts]] = {}
        for source, target, spelling in pairs:
            language = language_code(spelling)
            if language not in growing:
                growing[language] = _GrowingTexts(), _GrowingTexts()
            sources, targets = growing[language]
            sources.append(source.encode())
            targets.append(target.encode())
        counts = {code: len(growing[code][0].sizes) for code in sorted(growing)}
        parts = [growing.pop(code) for code in counts]
        sides = (_Texts.join([part[side] for part in parts]) for side in (0, 1))
        super().__init__(counts, tuple(sides), skipped)

    def sources(self, rows: NDArray[np.integer]) -> NDArray[np.object_]:
        """Return the English sentences of rows of the corpus, as UTF-8 `bytes`."""
        return self.sides[0].take(np.asarray(rows, np.int64))

    def pairs(
        self, language: str, rows: ArrayLike
    ) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
        """Return the sentences of some rows of a language.

        Args:
            language: One of `languages`.
            rows: Integers below `counts[language]`, in any order.

        Returns:
            Sources and targets: arrays of UTF-8 `bytes`, ready for `tf.constant`.
        """
        sources, targets = self.take(self.rows(language, rows))
        return sources, targets

    def lists(self) -> dict[str, tuple[list[str], list[str]]]:
        """Return all pairs as strings, which take many times the corpus's memory.

        Returns:
            Language -> (sources, targets), for `labse_tf.evaluation.retrieval`.
        """
        found = {}
        for language in self.languages:
            sides = self.pairs(language, range(self.counts[language]))
            sources, targets = ([text.decode() for text in side] for side in sides)
            found[language] = sources, targets
        return found

    def to_sentences(self) -> MonolingualCorpus:
        """Return both sides of the pairs as single sentences, for masked-LM training.

        Returns:
            A `MonolingualCorpus`. Sources have the language `"en"`. Each language holds
            a sentence once.
        """
        return MonolingualCorpus(DistinctSentences(self.texts()), skipped=self.skipped)

    def union(self, *others: ParallelCorpus) -> ParallelCorpus:
        """Return a corpus of these pairs and, after them, the pairs of other corpora.

        Args:
            *others: Corpora. Pairs that occur in several corpora are kept in each.

        Returns:
            A new corpus with the `skipped` of this corpus.
        """
        return ParallelCorpus(
            (
                SentencePair(source.decode(), target.decode(), language)
                for corpus in (self, *others)
                for language in corpus.languages
                for source, target in zip(
                    corpus._side(0, language), corpus._side(1, language), strict=True
                )
            ),
            skipped=self.skipped,
        )

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Iterate over (language, sentence in UTF-8) of all sides."""
        for language in self.languages:
            yield from (("en", text) for text in self._side(0, language))
            yield from ((language, text) for text in self._side(1, language))

    def split(
        self, held_out: float | int, seed: int = 0
    ) -> tuple[ParallelCorpus, ParallelCorpus]:
        """Split into two corpora that share no English sentence in any language.

        Whether a sentence is held out depends on its text, the seed and the share, not
        on its position: a fraction holds out the same sentences when the corpus grows.

        Args:
            held_out: Fraction of the English sentences (float between 0 and 1), or
                number of pairs (int), exceeded by less than the pairs of one sentence.
            seed: Seed of the split.

        Returns:
            Training corpus and held-out corpus. Languages without pairs are dropped.

        Raises:
            ValueError: If `held_out` is out of range, or one corpus would be empty.
        """
        buffer, offsets = self.sides[0]
        spans = itertools.pairwise(offsets.tolist())
        codes = [zlib.crc32(buffer[start:end]) for start, end in spans]
        salt = mix_bits(np.asarray([seed & (2**64 - 1)], np.uint64) + np.uint64(1))
        hashes = mix_bits(np.asarray(codes, np.uint64) ^ salt)
        if isinstance(held_out, float) and 0 < held_out < 1:
            limit = np.uint64(int(held_out * 2**64))
        elif not isinstance(held_out, float) and 0 < held_out < len(self):
            limit = np.partition(hashes, held_out - 1)[held_out - 1] + np.uint64(1)
        else:
            raise ValueError(
                "`held_out` must be a float between 0 and 1 or an int between 1 and "
                f"{len(self) - 1}. Received: {held_out!r}"
            )
        out = hashes < limit
        if out.all() or not out.any():
            raise ValueError(
                f"`held_out` must leave some of the {len(self)} pairs in each corpus. "
                f"Received: {held_out!r}"
            )
        return self.subset(np.flatnonzero(~out)), self.subset(np.flatnonzero(out))


class DistinctSentences:
    """Growing sentences of many languages, each kept once per language.

    In addition to the text, memory holds a 64-bit hash of each sentence (some 100 bytes
    in a set) until the corpus is made. A sentence with the hash of another sentence is
    dropped: among 100 million sentences of a language the probability of such a
    collision is 1 in 3,700.

    Args:
        sentences: Pairs of (language, UTF-8 `bytes`) to begin with.
    """

    def __init__(self, sentences: Iterable[tuple[str, bytes]] = ()) -> None:
        """Add the sentences."""
        self._growing: dict[str, tuple[_GrowingTexts, set[int]]] = {}
        for language, text in sentences:
            self.add(language, text)

    def add(self, language: str, text: bytes) -> None:
        """Add a sentence in UTF-8 unless the language already has it."""
        if language not in self._growing:
            self._growing[language] = _GrowingTexts(), set()
        texts, seen = self._growing[language]
        key = hash_bytes(text)
        if key not in seen:
            seen.add(key)
            texts.append(text)

    def pack(self) -> tuple[dict[str, int], tuple[Any]]:
        """Move the sentences into the counts and the single side of a corpus."""
        parts = {code: self._growing.pop(code)[0] for code in sorted(self._growing)}
        counts = {code: len(texts.sizes) for code, texts in parts.items()}
        return counts, (_Texts.join(parts.values()),)


class MonolingualCorpus(Corpus):
    """Single sentences of many languages, packed in memory.

    Holds the text in UTF-8 and 8 bytes per sentence. Sentences are sorted by language
    and keep the given order inside a language. Of exact duplicates in a language the
    first is kept. See `Corpus` for the attributes.

    Args:
        sentences: Any iterable of (language, sentence), such as `read_sentences`
            returns, or `DistinctSentences`, which is empty afterwards.
        skipped: Report of the lines that could not be read.
    """

    def __init__(
        self,
        sentences: Iterable[tuple[str, str]] | DistinctSentences,
        *,
        skipped: SkipReport | None = None,
    ) -> None:
        """Pack the sentences."""
        if not isinstance(sentences, DistinctSentences):
            encoded = (
                (language_code(spelling), text.encode()) for spelling, text in sentences
            )
            sentences = DistinctSentences(encoded)
        super().__init__(*sentences.pack(), skipped)

    def sentences(self, language: str, rows: ArrayLike) -> NDArray[np.object_]:
        """Return the sentences of rows of a language, see `ParallelCorpus.pairs`."""
        return self.take(self.rows(language, rows))[0]

    def to_pairs(self) -> ParallelCorpus:
        """Return each sentence as a pair with itself, for distillation without pairs.

        Returns:
            A `ParallelCorpus` that shares the memory of this corpus.
        """
        corpus = ParallelCorpus(())
        Corpus.__init__(corpus, self.counts, (self.sides[0],) * 2, self.skipped)
        return corpus

    def union(self, *others: MonolingualCorpus | ParallelCorpus) -> MonolingualCorpus:
        """Return a corpus of these sentences and the new sentences of other corpora.

        Args:
            *others: Corpora. Both sides of a parallel corpus are added, see
                `ParallelCorpus.to_sentences`.

        Returns:
            A new corpus with the `skipped` of this corpus.
        """
        corpora: tuple[Corpus, ...] = self, *others
        every = itertools.chain.from_iterable(each.texts() for each in corpora)
        return MonolingualCorpus(DistinctSentences(every), skipped=self.skipped)

    def texts(self) -> Iterator[tuple[str, bytes]]:
        """Iterate over (language, sentence in UTF-8) of all sides."""
        for language in self.languages:
            yield from ((language, text) for text in self._side(0, language))
