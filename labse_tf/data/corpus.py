"""Corpus: pair files -> all their pairs, packed in memory.

Shapes: N pairs of a corpus.
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
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labse_tf.data.readers import (
    DataError,
    OnError,
    PathLike,
    SentencePair,
    SkipReport,
    _stem_and_kind,
    file_language,
    language_tag,
    read_pairs,
)

Files = PathLike | Iterable[PathLike]


class _Texts(NamedTuple):
    """Strings end to end in one buffer: 8 bytes of overhead each."""

    buffer: bytes
    offsets: NDArray[np.int64]  # (N + 1,)

    @classmethod
    def join(cls, buffers: list[bytearray], sizes: list[array]) -> _Texts:
        buffer = b"".join(buffers)
        for copied in buffers:
            copied.clear()
        lengths = [np.frombuffer(size, np.int64) for size in sizes]
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


class ParallelCorpus:
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
        growing: dict[str, tuple[bytearray, array, bytearray, array]] = {}
        for source, target, language in pairs:
            if language not in growing:
                growing[language] = bytearray(), array("q"), bytearray(), array("q")
            sources, source_sizes, targets, target_sizes = growing[language]
            encoded = source.encode()
            sources += encoded
            source_sizes.append(len(encoded))
            encoded = target.encode()
            targets += encoded
            target_sizes.append(len(encoded))
        counts = {code: len(growing[code][1]) for code in sorted(growing)}
        parts = [growing.pop(code) for code in counts]
        self._set(
            counts,
            _Texts.join([part[0] for part in parts], [part[1] for part in parts]),
            _Texts.join([part[2] for part in parts], [part[3] for part in parts]),
            skipped,
        )

    def _set(
        self,
        counts: dict[str, int],
        source: _Texts,
        target: _Texts,
        skipped: SkipReport | None,
    ) -> None:
        self.counts = counts
        self.languages = list(counts)
        self.skipped = SkipReport() if skipped is None else skipped
        self._source, self._target = source, target
        ends = np.cumsum([0, *counts.values()]).tolist()
        self._bounds = dict(zip(counts, itertools.pairwise(ends), strict=True))

    def __len__(self) -> int:
        """Number of pairs in all languages."""
        return sum(self.counts.values())

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
        return self._take(rows + self._bounds[language][0])

    def digest(self) -> str:
        """SHA-256 of the pairs: languages, sentences, their bounds and their order.

        The same pairs in the same order inside each language give the same digest,
        whatever files they came from. Made once, at some 500 MB a second or more.

        Returns:
            64 hexadecimal digits.
        """
        return self._digest

    @functools.cached_property
    def _digest(self) -> str:
        # the offsets end with the size of the text, so no part runs into the next
        digest = hashlib.sha256(json.dumps(list(self.counts.items())).encode())
        for buffer, offsets in (self._source, self._target):
            digest.update(np.ascontiguousarray(offsets, "<i8").data)
            digest.update(buffer)
        return digest.hexdigest()

    def _take(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
        sources, targets = np.empty((2, len(rows)), object)
        sources[:], targets[:] = self._source.take(rows), self._target.take(rows)
        return sources, targets

    @functools.cached_property
    def _lengths(self) -> NDArray[np.int32]:
        return np.maximum(self._source.lengths(), self._target.lengths())

    def _subset(self, rows: NDArray[np.int64]) -> ParallelCorpus:
        ends = np.searchsorted(rows, [end for _, end in self._bounds.values()])
        counts = np.diff(ends, prepend=0).tolist()
        corpus = ParallelCorpus.__new__(ParallelCorpus)
        corpus._set(
            {code: n for code, n in zip(self.counts, counts, strict=True) if n},
            self._source.subset(rows),
            self._target.subset(rows),
            self.skipped,
        )
        return corpus

    def select(self, languages: Iterable[str]) -> ParallelCorpus:
        """A corpus of some of the languages.

        Args:
            languages: codes, in any order and spelling that `language_tag` knows.

        Raises:
            ValueError: there is no such language.
        """
        wanted = {language_tag(code) for code in languages}
        if not wanted or not wanted <= self.counts.keys():
            raise ValueError(
                f"`languages` must be some of {self.languages}. "
                f"Received: {sorted(wanted)}"
            )
        spans = [np.arange(*self._bounds[code]) for code in sorted(wanted)]
        return self._subset(np.concatenate(spans))

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
        buffer, offsets = self._source
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


def find_pair_files(files: Files) -> list[Path]:
    """Lists the pair files among paths, sorted, each once.

    A directory stands for the pair files anywhere in it: `.po` and `.mo` (no `.mo`
    beside a `.po` of the same name, no catalogue of English), and `.tsv` files whose
    name gives the language; all also with `.gz`.

    Args:
        files: a path or several.

    Raises:
        DataError: a directory without pair files.
        ValueError: no path at all.
    """
    paths = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    if not paths:
        raise ValueError(f"`files` must name at least one file. Received: {files!r}")
    found: set[Path] = set()
    for path in map(Path, paths):
        if not path.is_dir():
            found.add(path)
            continue
        inside = [p for p in path.rglob("*") if _is_pair_file(p)]
        if not inside:
            raise DataError(path, 1, "en-XX.tsv, .po or .mo files", "none of them")
        found.update(inside)
    return sorted(found)


def _is_pair_file(path: Path) -> bool:
    stem, kind = _stem_and_kind(path)
    if kind not in (".tsv", ".po", ".mo", ".gmo") or not path.is_file():
        return False
    code = file_language(path)
    if kind == ".tsv":
        return code is not None
    beside = (path.with_name(stem + ending) for ending in (".po", ".po.gz"))
    return (code or "").split("-")[0] != "en" and (
        kind == ".po" or not any(other.exists() for other in beside)
    )


def load_pairs(
    files: Files,
    *,
    language: str | None = None,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
    languages: Iterable[str] | None = None,
    max_pairs_per_language: int | None = None,
    transform: Callable[[SentencePair], SentencePair | None] | None = None,
    progress: Callable[[Path, int], None] | None = None,
) -> ParallelCorpus:
    """Loads pair files into memory.

    The order of `files` does not matter: they are read sorted by path. Files of one
    language are joined. Exact duplicates are kept.

    Args:
        files: a path or several; a directory stands for the pair files in it, see
            `find_pair_files`.
        language: as in `read_pairs`, for all files.
        on_error: as in `read_pairs`.
        skipped: as in `read_pairs`; also the corpus's attribute `skipped`.
        languages: keep only these.
        max_pairs_per_language: keep the first so many pairs of a language.
        transform: called with each pair; returns the pair to keep, or None.
        progress: called after each file with its path and the number of pairs kept.

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
    wanted = None if languages is None else {language_tag(code) for code in languages}
    kept: dict[str, int] = {}

    def read(path: Path) -> Iterator[SentencePair]:
        for pair in read_pairs(
            path, language=language, on_error=on_error, skipped=report
        ):
            if wanted is not None and pair.language not in wanted:
                return  # a file has one language
            if kept.get(pair.language, 0) == max_pairs_per_language:
                return
            changed = pair if transform is None else transform(pair)
            if changed is not None:
                kept[changed.language] = kept.get(changed.language, 0) + 1
                yield changed

    def read_all() -> Iterator[SentencePair]:
        for path in paths:
            before = sum(kept.values())
            yield from read(path)
            if progress is not None:
                progress(path, sum(kept.values()) - before)

    corpus = ParallelCorpus(read_all(), skipped=report)
    if skipped is None and report:
        warnings.warn(str(report), stacklevel=2)
    missing = sorted((wanted or set()) - corpus.counts.keys())
    if missing or not len(corpus):
        named = "any pairs" if not missing else f"pairs in {', '.join(missing)}"
        raise ValueError(
            f"`files` must hold {named}. Received: {len(paths)} files from {paths[0]} "
            f"on, with pairs in {corpus.languages}"
        )
    return corpus
