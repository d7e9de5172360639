"""Corpus: files -> all their pairs or sentences, packed in memory.

Shapes: N pairs or sentences of a corpus.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import warnings
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labse_tf.languages import language_code
from labse_tf.progress import Progress, progress_bar
from labse_tf.text import (
    DataError,
    OnError,
    PathLike,
    SentencePair,
    SkipReport,
    file_language,
    format_of,
    has_one_language,
    moses_sides,
    read_pairs,
    read_sentences,
    split_language,
    stem_and_kind,
)
from labse_tf.text.jsonl import holds_pairs
from labse_tf.text.names import PACKED

Files = PathLike | Iterable[PathLike]

_AnyCorpus = TypeVar("_AnyCorpus", bound="_Corpus")


class _GrowingTexts:
    """Strings end to end, to which more can be added."""

    def __init__(self) -> None:
        self.buffer, self.sizes = bytearray(), array("q")

    def append(self, text: bytes) -> None:
        self.buffer += text
        self.sizes.append(len(text))


class _Texts(NamedTuple):
    """Strings end to end in one buffer: 8 bytes of overhead each."""

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

    def take(self, rows: NDArray[np.int64]) -> list[bytes]:
        buffer = self.buffer
        starts, ends = self.offsets[rows].tolist(), self.offsets[rows + 1].tolist()
        return [buffer[start:end] for start, end in zip(starts, ends, strict=True)]

    def subset(self, rows: NDArray[np.int64]) -> _Texts:
        sizes = (self.offsets[rows + 1] - self.offsets[rows]).cumsum()
        return _Texts(b"".join(self.take(rows)), np.concatenate([[0], sizes]))

    def lengths(self) -> NDArray[np.int32]:
        """Rough length in tokens, up to a factor: characters, a CJK one for three.

        Not bytes: an Indian letter has three and is worth no more than a Latin one.
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


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Splitmix64's finaliser: spreads close numbers over all 64 bits."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class _Corpus:
    """Texts of many languages, of one side or two, packed in memory.

    They lie language by language, in alphabetical order of the languages.
    """

    counts: dict[str, int]
    languages: list[str]
    skipped: SkipReport
    _sides: tuple[_Texts, ...]
    _bounds: dict[str, tuple[int, int]]  # language -> first row, row after the last
    # a preprocessor, and the tokens that it makes of each text
    _counted: tuple[object, NDArray[np.integer]] | None = None

    def _set(
        self,
        counts: dict[str, int],
        sides: tuple[_Texts, ...],
        skipped: SkipReport | None,
    ) -> None:
        self.counts = counts
        self.languages = list(counts)
        self.skipped = SkipReport() if skipped is None else skipped
        self._sides = sides
        ends = np.cumsum([0, *counts.values()]).tolist()
        self._bounds = dict(zip(counts, itertools.pairwise(ends), strict=True))

    def __len__(self) -> int:
        """Number of pairs or sentences in all languages."""
        return sum(self.counts.values())

    def digest(self) -> str:
        """SHA-256 of the text: languages, sentences, their bounds and their order.

        The same text in the same order inside each language gives the same digest,
        whatever files it came from. Made once, at some 500 MB a second or more.

        Returns:
            64 hexadecimal digits.
        """
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        # the offsets end with the size of the text, so no part runs into the next
        digest = hashlib.sha256(json.dumps(list(self.counts.items())).encode())
        for buffer, offsets in self._sides:
            digest.update(np.ascontiguousarray(offsets, "<i8").data)
            digest.update(buffer)
        return digest.hexdigest()

    def select(self: _AnyCorpus, languages: Iterable[str]) -> _AnyCorpus:
        """A corpus of some of the languages.

        Args:
            languages: codes, in any order, as `language_code` accepts them.

        Raises:
            ValueError: there is no such language.
        """
        wanted = {language_code(code) for code in languages}
        if not wanted or not wanted <= self.counts.keys():
            raise ValueError(
                f"`languages` must be some of {self.languages}. "
                f"Received: {sorted(wanted)}"
            )
        spans = [np.arange(*self._bounds[code]) for code in sorted(wanted)]
        return self._subset(np.concatenate(spans))

    def _rows(self, language: str, rows: ArrayLike) -> NDArray[np.int64]:
        """Rows of a language as rows of the corpus, checked."""
        language = language_code(language)
        if language not in self.counts:
            raise ValueError(
                f"`language` must be one of {self.languages}. Received: {language}"
            )
        rows, count = np.asarray(rows, np.int64), self.counts[language]
        if rows.size and not (0 <= rows.min() and rows.max() < count):
            raise ValueError(
                f"`rows` must lie in 0 to {count - 1}. "
                f"Received: {rows.min()} to {rows.max()}"
            )
        return rows + self._bounds[language][0]

    def _take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.object_], ...]:
        """Some rows of the corpus, an array of bytes a side."""
        taken = np.empty((len(self._sides), len(rows)), object)
        for texts, side in zip(taken, self._sides, strict=True):
            texts[:] = side.take(rows)
        return tuple(taken)

    @functools.cached_property
    def _lengths(self) -> NDArray[np.int32]:
        return np.maximum.reduce([side.lengths() for side in self._sides])

    def _subset(self: _AnyCorpus, rows: NDArray[np.int64]) -> _AnyCorpus:
        ends = np.searchsorted(rows, [end for _, end in self._bounds.values()])
        counts = np.diff(ends, prepend=0).tolist()
        corpus = type(self).__new__(type(self))
        corpus._set(
            {code: n for code, n in zip(self.counts, counts, strict=True) if n},
            tuple(side.subset(rows) for side in self._sides),
            self.skipped,
        )
        return corpus

    def _sentences(self) -> Iterator[tuple[str, bytes]]:
        """(language, sentence) of all sides."""
        raise NotImplementedError

    def _side(self, number: int, language: str) -> Iterator[bytes]:
        """Sentences of one side of a language."""
        first, end = self._bounds[language]
        for start in range(first, end, 1 << 13):  # bounds the copies
            yield from self._sides[number].take(
                np.arange(start, min(start + (1 << 13), end))
            )


class ParallelCorpus(_Corpus):
    """Sentence pairs of many languages, packed in memory.

    Holds the text in UTF-8 and 16 bytes a pair. Pairs lie language by language, in
    alphabetical order of the languages; inside a language in the order given. Exact
    duplicates are kept.

    Args:
        pairs: any iterable of `SentencePair`.
        skipped: the report of what could not be read.

    Attributes:
        counts: language -> number of pairs.
        languages: the languages, sorted.
        skipped: the report of what could not be read.
    """

    def __init__(
        self, pairs: Iterable[SentencePair], *, skipped: SkipReport | None = None
    ) -> None:
        """Packs the pairs."""
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
        self._set(counts, tuple(sides), skipped)

    def sources(self, rows: NDArray[np.integer]) -> NDArray[np.object_]:
        """English sentences of some rows of the corpus.

        Args:
            rows: Integers below the number of pairs, any order.

        Returns:
            An array of UTF-8 `bytes`, of the shape of `rows`.
        """
        texts = np.empty(len(rows), object)
        texts[:] = self._sides[0].take(np.asarray(rows, np.int64))
        return texts

    def pairs(
        self, language: str, rows: ArrayLike
    ) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
        """Sentences of some rows of a language.

        Args:
            language: one of `languages`.
            rows: integers below `counts[language]`, any order.

        Returns:
            Sources and targets: arrays of UTF-8 `bytes`, ready for `tf.constant`.
        """
        sources, targets = self._take(self._rows(language, rows))
        return sources, targets

    def lists(self) -> dict[str, tuple[list[str], list[str]]]:
        """All pairs as strings, which takes many times the memory of the corpus.

        Returns:
            Language -> sources and targets, as `labse_tf.evaluation.retrieval` takes
            them.
        """
        found = {}
        for language in self.languages:
            sides = self.pairs(language, range(self.counts[language]))
            sources, targets = ([text.decode() for text in side] for side in sides)
            found[language] = sources, targets
        return found

    def to_sentences(self) -> MonolingualCorpus:
        """Both sides of the pairs as single sentences, for masked-LM training.

        Returns:
            A `MonolingualCorpus`: the sources in the language `"en"`, the targets in
            theirs, each sentence once a language.
        """
        return MonolingualCorpus._of(_Distinct(self._sentences()), self.skipped)

    def _sentences(self) -> Iterator[tuple[str, bytes]]:
        for language in self.languages:
            yield from (("en", text) for text in self._side(0, language))
            yield from ((language, text) for text in self._side(1, language))

    def split(
        self, held_out: float | int, seed: int = 0
    ) -> tuple[ParallelCorpus, ParallelCorpus]:
        """Splits so that no English sentence is on both sides, whatever the language.

        Whether a sentence is held out depends on its text, the seed and the share, not
        on its place: a fraction holds out the same sentences when the corpus grows.

        Args:
            held_out: a fraction (float between 0 and 1) of the English sentences, or a
                number of pairs (int), exceeded by less than one sentence's pairs.
            seed: another seed, another split.

        Returns:
            Training and held-out corpus; a language without pairs left is not in it.

        Raises:
            ValueError: the share is out of range, or one side would be empty.
        """
        buffer, offsets = self._sides[0]
        spans = itertools.pairwise(offsets.tolist())
        codes = [zlib.crc32(buffer[start:end]) for start, end in spans]
        salt = _mix(np.asarray([seed & (2**64 - 1)], np.uint64) + np.uint64(1))
        hashes = _mix(np.asarray(codes, np.uint64) ^ salt)
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
                f"`held_out` must leave pairs on both sides of the {len(self)}. "
                f"Received: {held_out!r}"
            )
        return self._subset(np.flatnonzero(~out)), self._subset(np.flatnonzero(out))


class _Distinct:
    """Sentences of many languages, each kept once a language; grows.

    Beside the text it holds 64 bits of a hash (in a set: some 100 bytes) of each
    sentence until the corpus is made. Among 100 million sentences of a language there
    is one chance in 3,700 that two have the same hash, and that one is lost.
    """

    def __init__(self, sentences: Iterable[tuple[str, bytes]] = ()) -> None:
        self._growing: dict[str, tuple[_GrowingTexts, set[bytes]]] = {}
        self._count = 0
        for language, text in sentences:
            self.add(language, text)

    def __len__(self) -> int:
        return self._count

    def add(self, language: str, text: bytes) -> None:
        if language not in self._growing:
            self._growing[language] = _GrowingTexts(), set()
        texts, seen = self._growing[language]
        # not `hash`, which differs from process to process
        key = hashlib.blake2b(text, digest_size=8).digest()
        if key not in seen:
            seen.add(key)
            texts.append(text)
            self._count += 1

    def packed(self) -> tuple[dict[str, int], tuple[_Texts]]:
        """The counts and the one side of a corpus; leaves nothing here."""
        parts = {code: self._growing.pop(code)[0] for code in sorted(self._growing)}
        counts = {code: len(texts.sizes) for code, texts in parts.items()}
        return counts, (_Texts.join(parts.values()),)


class MonolingualCorpus(_Corpus):
    """Single sentences of many languages, packed in memory.

    Holds the text in UTF-8 and 8 bytes a sentence. Sentences lie language by language,
    in alphabetical order of the languages; inside a language in the order given. Of
    exact duplicates inside a language the first is kept.

    Args:
        sentences: any iterable of (language, sentence), such as `read_sentences`
            returns.
        skipped: the report of what could not be read.

    Attributes:
        counts: language -> number of sentences.
        languages: the languages, sorted.
        skipped: the report of what could not be read.
    """

    def __init__(
        self,
        sentences: Iterable[tuple[str, str]],
        *,
        skipped: SkipReport | None = None,
    ) -> None:
        """Packs the sentences."""
        encoded = (
            (language_code(spelling), text.encode()) for spelling, text in sentences
        )
        self._set(*_Distinct(encoded).packed(), skipped)

    @classmethod
    def _of(cls, distinct: _Distinct, skipped: SkipReport) -> MonolingualCorpus:
        corpus = cls.__new__(cls)
        corpus._set(*distinct.packed(), skipped)
        return corpus

    def sentences(self, language: str, rows: ArrayLike) -> NDArray[np.object_]:
        """Sentences of some rows of a language.

        Args:
            language: one of `languages`.
            rows: integers below `counts[language]`, any order.

        Returns:
            An array of UTF-8 `bytes`, ready for `tf.constant`.
        """
        return self._take(self._rows(language, rows))[0]

    def union(self, *others: MonolingualCorpus | ParallelCorpus) -> MonolingualCorpus:
        """This corpus's sentences, then those of others that are not among them.

        Args:
            *others: corpora; both sides of a parallel one, as in
                `ParallelCorpus.to_sentences`.

        Returns:
            A new corpus, with this one's `skipped`.
        """
        corpora: tuple[_Corpus, ...] = self, *others
        every = itertools.chain.from_iterable(each._sentences() for each in corpora)
        return MonolingualCorpus._of(_Distinct(every), self.skipped)

    def _sentences(self) -> Iterator[tuple[str, bytes]]:
        for language in self.languages:
            yield from ((language, text) for text in self._side(0, language))


# === Files ===


def find_pair_files(files: Files) -> list[Path]:
    """Lists the pair files among paths, sorted, each once.

    A directory stands for the pair files anywhere in it, plain or compressed: `.po` and
    `.mo` (no `.mo` beside a `.po` of the same name, no catalogue of English), `.tmx`,
    `.xlf`, `.jsonl` of pairs; `.tsv` and `.tfrecord` whose name gives the language; and
    files of Moses, `any.XX` beside `any.en`. These stand for each other: the one that
    is not English is listed.

    Args:
        files: a path or several, each also as `XX=PATH`, which gives the language and
            stays before the paths found, or `tfds:name/config`.

    Raises:
        DataError: a directory without pair files.
        ValueError: no path at all.
    """
    return _find(files, _is_pair_file, "pair files (en-XX.tsv, XX.po, .tmx, ...)")


def find_sentence_files(files: Files) -> list[Path]:
    """Lists the files of sentences among paths, sorted, each once.

    A directory stands for the pair files in it, see `find_pair_files`, for `.jsonl`,
    and for the text files anywhere in it whose name gives the language: `XX.txt`,
    `any.XX.txt`; all plain or compressed.

    Args:
        files: as in `find_pair_files`.

    Raises:
        DataError: a directory without such files.
        ValueError: no path at all.
    """

    def wanted(path: Path) -> bool:
        kind = stem_and_kind(path)[1]
        return _is_pair_file(path) or (
            split_language(path)[1].is_file()
            and (kind in _JSON or (kind == ".txt" and file_language(path) is not None))
        )

    return _find(files, wanted, "files of sentences (XX.txt, en-XX.tsv, XX.po, ...)")


def _find(files: Files, wanted: Callable[[Path], bool], expected: str) -> list[Path]:
    paths = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    if not paths:
        raise ValueError(f"`files` must name at least one file. Received: {files!r}")
    found: set[Path] = set()
    for path in paths:
        language, place = split_language(path)
        before = "" if language is None else f"{language}="
        if place.is_dir():
            inside = [Path(f"{before}{p}") for p in place.rglob("*")]
            inside = [p for p in inside if wanted(p)]
            if not inside:
                raise DataError(place, 1, expected, "none of them")
            found.update(inside)
        else:
            found.update(Path(f"{before}{p}") for p in moses_sides(path) or [place])
    return sorted(found)


_JSON = (".jsonl", ".ndjson")


def _is_pair_file(path: Path) -> bool:
    place = split_language(path)[1]
    found = format_of(path)
    if found is None or not place.is_file():
        return False
    stem, kind = stem_and_kind(path)
    if kind in _JSON:
        return holds_pairs(place)
    if kind not in (".po", ".mo", ".gmo"):
        others = moses_sides(path)
        return place in others if others else found.several or bool(file_language(path))
    beside = (place.with_name(f"{stem}.po{ending}") for ending in ("", *PACKED))
    return file_language(path) != "en" and (
        kind == ".po" or not any(other.exists() for other in beside)
    )


def read_files(
    files: Files,
    *,
    language: str | None = None,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
    languages: Iterable[str] | None = None,
    progress: Progress = None,
) -> Iterator[SentencePair]:
    """Reads the pairs of many files one after another, sorted by path.

    Args:
        files: a path or several; a directory stands for the pair files in it, see
            `find_pair_files`.
        language: as in `read_pairs`, for all files but those given as `XX=PATH`.
        on_error: as in `read_pairs`.
        skipped: as in `read_pairs`.
        languages: only these.
        progress: see `labse_tf.progress`; counts files.

    Returns:
        An iterator of `SentencePair`.

    Raises:
        DataError: as in `read_pairs`.
    """
    return _read_files(
        find_pair_files(files),
        None if languages is None else {language_code(code) for code in languages},
        progress=progress,
        language=language,
        on_error=on_error,
        skipped=skipped,
    )


def _read_files(
    paths: list[Path],
    wanted: set[str] | None,
    *,
    max_pairs_per_language: int | None = None,
    transform: Callable[[SentencePair], SentencePair | None] | None = None,
    progress: Progress = None,
    **options: Any,
) -> Iterator[SentencePair]:
    kept: dict[str, int] = {}

    def read(path: Path) -> Iterator[SentencePair]:
        for pair in read_pairs(path, **options):
            unwanted = wanted is not None and pair.language not in wanted
            if unwanted or kept.get(pair.language, 0) == max_pairs_per_language:
                if has_one_language(path):
                    return
                continue
            changed = pair if transform is None else transform(pair)
            if changed is not None:
                kept[changed.language] = kept.get(changed.language, 0) + 1
                yield changed

    with progress_bar("Reading", len(paths), "files", show=progress) as advance:
        for path in paths:
            yield from read(path)
            advance(1)


def load_pairs(
    files: Files,
    *,
    language: str | None = None,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
    languages: Iterable[str] | None = None,
    max_pairs_per_language: int | None = None,
    transform: Callable[[SentencePair], SentencePair | None] | None = None,
    progress: Progress = None,
) -> ParallelCorpus:
    """Loads pair files into memory.

    The order of `files` does not matter: they are read sorted by path. Files of one
    language are joined. Exact duplicates are kept.

    Args:
        files: a path or several; a directory stands for the pair files in it, see
            `find_pair_files`.
        language: as in `read_pairs`, for all files but those given as `XX=PATH`.
        on_error: as in `read_pairs`.
        skipped: as in `read_pairs`; also the corpus's attribute `skipped`.
        languages: keep only these.
        max_pairs_per_language: keep the first so many pairs of a language.
        transform: called with each pair; returns the pair to keep, or None.
        progress: see `labse_tf.progress`; counts files.

    Returns:
        A `ParallelCorpus`.

    Raises:
        DataError: as in `read_pairs`.
        ValueError: nothing was left to load, or an argument is wrong.
    """
    if max_pairs_per_language is not None and max_pairs_per_language < 1:
        raise ValueError(
            "`max_pairs_per_language` must be positive. "
            f"Received: {max_pairs_per_language}"
        )
    paths = find_pair_files(files)
    report = SkipReport() if skipped is None else skipped
    wanted = None if languages is None else {language_code(code) for code in languages}
    pairs = _read_files(
        paths,
        wanted,
        max_pairs_per_language=max_pairs_per_language,
        transform=transform,
        progress=progress,
        language=language,
        on_error=on_error,
        skipped=report,
    )
    corpus = ParallelCorpus(pairs, skipped=report)
    if skipped is None and report:
        warnings.warn(str(report), stacklevel=2)
    _check_loaded(corpus, wanted, paths, "pairs")
    return corpus


def load_sentences(
    files: Files,
    *,
    language: str | None = None,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
    languages: Iterable[str] | None = None,
    min_characters: int = 1,
    max_characters: int | None = None,
    progress: Progress = None,
) -> MonolingualCorpus:
    """Loads single sentences into memory, from text files and from pair files.

    The order of `files` does not matter: they are read sorted by path. Files of one
    language are joined. Of exact duplicates inside a language the first is kept.

    Args:
        files: a path or several: text with one sentence or paragraph a line, or pair
            files, of which both sides are taken; a directory stands for those in it,
            see `find_sentence_files`.
        language: as in `read_sentences`, for all files but those given as `XX=PATH`.
        on_error: as in `read_sentences`.
        skipped: as in `read_sentences`; also the corpus's attribute `skipped`.
        languages: keep only these; the sources of pairs are `"en"`.
        min_characters: leave out what is shorter; the paper takes lines of 10 to 5000
            characters.
        max_characters: leave out what is longer; None for no limit.
        progress: see `labse_tf.progress`; counts files.

    Returns:
        A `MonolingualCorpus`.

    Raises:
        DataError: as in `read_sentences`.
        ValueError: nothing was left to load, or an argument is wrong.

    References:
        arXiv 2007.01852, for the characters of a line.
    """
    if not 1 <= min_characters <= (max_characters or min_characters):
        raise ValueError(
            "`min_characters` must be positive and not be over `max_characters`. "
            f"Received: {min_characters}, {max_characters}"
        )
    paths = find_sentence_files(files)
    report = SkipReport() if skipped is None else skipped
    wanted = None if languages is None else {language_code(code) for code in languages}
    english = wanted is None or "en" in wanted
    side: Literal["both", "target"] = "both" if english else "target"
    distinct = _Distinct()
    with progress_bar("Reading", len(paths), "files", show=progress) as advance:
        for path in paths:
            for code, text in read_sentences(
                path, language=language, side=side, on_error=on_error, skipped=report
            ):
                if wanted is not None and code not in wanted:
                    if side == "target" and has_one_language(path):
                        break
                elif min_characters <= len(text) <= (max_characters or len(text)):
                    distinct.add(code, text.encode())
            advance(1)
    corpus = MonolingualCorpus._of(distinct, report)
    if skipped is None and report:
        warnings.warn(str(report), stacklevel=2)
    _check_loaded(corpus, wanted, paths, "sentences")
    return corpus


def _check_loaded(
    corpus: _Corpus, wanted: set[str] | None, paths: list[Path], what: str
) -> None:
    """Refuses a corpus that is empty or lacks a language that was asked for."""
    missing = sorted((wanted or set()) - corpus.counts.keys())
    if missing or not len(corpus):
        named = f"any {what}" if not missing else f"{what} in {', '.join(missing)}"
        raise ValueError(
            f"`files` must hold {named}. Received: {len(paths)} files from {paths[0]} "
            f"on, with {what} in {corpus.languages}"
        )
