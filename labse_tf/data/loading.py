"""Loading: paths -> pair files and sentence files -> a corpus in memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from labse_tf.data.corpus import (
    Corpus,
    DistinctSentences,
    MonolingualCorpus,
    ParallelCorpus,
)
from labse_tf.languages import language_code
from labse_tf.progress import Progress, progress_bar
from labse_tf.text import (
    DataError,
    DataWarning,
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
from labse_tf.text.csv_tables import has_pair_header
from labse_tf.text.jsonl import holds_pairs
from labse_tf.text.names import PACKED

Files = PathLike | Iterable[PathLike]

# === Files ===


def find_pair_files(files: Files) -> list[Path]:
    """Return the pair files among paths, sorted, each once.

    A directory stands for all pair files in it and its subdirectories, plain or
    compressed: `.po` and `.mo` (except English catalogs, and `.mo` next to a `.po` of
    the same name), `.tmx`, `.xlf`, `.jsonl` with pairs, `.csv` with a header of pairs,
    `.tsv` and `.tfrecord` whose name contains the language, and Moses files, `any.XX`
    next to `any.en`. Of the two Moses files the one that is not English is listed.

    A `DataWarning` names files in a directory that are left out because their names do
    not give a language.

    Args:
        files: One path or several. `XX=PATH` gives the language and stays in front of
            the paths found; `tfds:name/config` is passed through.

    Raises:
        DataError: If a directory has no pair files.
        ValueError: If there are no paths.
    """
    expected = "pair files (en-XX.tsv, XX.po, .tmx, ...)"
    return _find(files, _is_pair_file, _NAMED, expected)


def find_sentence_files(files: Files) -> list[Path]:
    """Return the sentence files among paths, sorted, each once.

    A directory stands for the pair files in it (see `find_pair_files`), `.jsonl` files,
    and text files whose name contains the language: `XX.txt`, `any.XX.txt`. All may be
    compressed.

    Args:
        files: See `find_pair_files`.

    Raises:
        DataError: If a directory has no such files.
        ValueError: If there are no paths.
    """

    def wanted(path: Path) -> bool:
        kind = stem_and_kind(path)[1]
        return _is_pair_file(path) or (
            split_language(path)[1].is_file()
            and (kind in _JSON or (kind == ".txt" and file_language(path) is not None))
        )

    expected = "sentence files (XX.txt, en-XX.tsv, XX.po, ...)"
    return _find(files, wanted, (*_NAMED, ".txt"), expected)


def _find(
    files: Files,
    wanted: Callable[[Path], bool],
    named: tuple[str, ...],
    expected: str,
) -> list[Path]:
    """Return the files, in directories those that are wanted.

    `named` are the endings of formats whose names must give the language.
    """
    paths = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    if not paths:
        raise ValueError(f"`files` must name at least one file. Received: {files!r}")
    found: set[Path] = set()
    for path in paths:
        language, place = split_language(path)
        before = "" if language is None else f"{language}="
        if place.is_dir():
            there = [Path(f"{before}{p}") for p in sorted(place.rglob("*"))]
            inside = {p for p in there if wanted(p)}
            _warn_unnamed(place, [p for p in there if p not in inside], named)
            if not inside:
                raise DataError(place, 1, expected, "no such files")
            found |= inside
        else:
            found.update(Path(f"{before}{p}") for p in moses_sides(path) or [place])
    return sorted(found)


def _warn_unnamed(folder: Path, left_out: list[Path], named: tuple[str, ...]) -> None:
    """Warn of files that were left out because their names do not give a language."""
    unnamed = [
        str(path.relative_to(folder))
        for path in left_out
        if stem_and_kind(path)[1] in named
        and file_language(path) is None
        and path.is_file()
    ]
    if unnamed:
        more = ", ..." if len(unnamed) > _SHOWN else ""
        warnings.warn(
            f"{folder}: expected names that give the language (en-XX.tsv, XX.txt), or "
            "XX=FILE; other files are left out. Received: "
            f"{len(unnamed):,} such files, {', '.join(unnamed[:_SHOWN])}{more}",
            DataWarning,
            stacklevel=4,
        )


_JSON = (".jsonl", ".ndjson")
# Endings of pair files that do not contain their language.
_NAMED = (".tsv", ".tfrecord", ".tfrecords")
_SHOWN = 5  # names of files in a warning


def _is_pair_file(path: Path) -> bool:
    place = split_language(path)[1]
    found = format_of(path)
    if found is None or not place.is_file():
        return False
    stem, kind = stem_and_kind(path)
    if kind in _JSON:
        return holds_pairs(place)
    if kind == ".csv":
        return has_pair_header(place)
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
    """Read the pairs of many files one after another, sorted by path.

    Args:
        files: One path or several. A directory stands for the pair files in it, see
            `find_pair_files`.
        language: See `read_pairs`; for all files except those given as `XX=PATH`.
        on_error: See `read_pairs`.
        skipped: See `read_pairs`.
        languages: Languages to keep; `None` for all.
        progress: See `labse_tf.progress`; counts files.

    Raises:
        DataError: See `read_pairs`.
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
    """Load pair files into memory.

    Files are read sorted by path, whatever their given order. Files of the same
    language are joined. Exact duplicates are kept.

    Args:
        files: See `read_files`.
        language: See `read_files`.
        on_error: See `read_pairs`.
        skipped: See `read_pairs`; also the corpus's attribute `skipped`.
        languages: Languages to keep; `None` for all.
        max_pairs_per_language: Number of pairs of each language to keep, from the
            first; `None` for no limit.
        transform: Function called with each pair; returns the pair to keep, or `None`.
        progress: See `labse_tf.progress`; counts files.

    Raises:
        DataError: See `read_pairs`.
        ValueError: If no pairs remain, in all or in one of `languages`, or an argument
            is out of range.
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
    _check_loaded(corpus, wanted, paths, "pairs", warn=skipped is None)
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
    """Load single sentences into memory, from text files and from pair files.

    Files are read sorted by path, whatever their given order. Files of the same
    language are joined. Of exact duplicates in a language the first is kept.

    Args:
        files: One path or several: text files with one sentence or paragraph per line,
            or pair files, of which both sides are read. A directory stands for the
            files in it, see `find_sentence_files`.
        language: See `read_sentences`; for all files except those given as `XX=PATH`.
        on_error: See `read_sentences`.
        skipped: See `read_sentences`; also the corpus's attribute `skipped`.
        languages: Languages to keep; `None` for all. Sources of pairs are `"en"`.
        min_characters: Least number of characters of a sentence. The paper takes lines
            of 10 to 5000 characters (arXiv 2007.01852).
        max_characters: Greatest number of characters; `None` for no limit.
        progress: See `labse_tf.progress`; counts files.

    Raises:
        DataError: See `read_sentences`.
        ValueError: If no sentences remain, in all or in one of `languages`, or an
            argument is out of range.
    """
    if not 1 <= min_characters <= (max_characters or min_characters):
        raise ValueError(
            "`min_characters` must be positive and at most `max_characters`. "
            f"Received: {min_characters}, {max_characters}"
        )
    paths = find_sentence_files(files)
    report = SkipReport() if skipped is None else skipped
    wanted = None if languages is None else {language_code(code) for code in languages}
    english = wanted is None or "en" in wanted
    side: Literal["both", "target"] = "both" if english else "target"
    distinct = DistinctSentences()
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
    corpus = MonolingualCorpus(distinct, skipped=report)
    _check_loaded(corpus, wanted, paths, "sentences", warn=skipped is None)
    return corpus


def _check_loaded(
    corpus: Corpus, wanted: set[str] | None, paths: list[Path], what: str, *, warn: bool
) -> None:
    """Warn of skipped lines, and raise an error if a requested language is missing."""
    if warn and corpus.skipped:
        warnings.warn(str(corpus.skipped), stacklevel=3)
    missing = sorted((wanted or set()) - corpus.counts.keys())
    if missing or not len(corpus):
        named = f"any {what}" if not missing else f"{what} in {', '.join(missing)}"
        raise ValueError(
            f"`files` must contain {named}. Received: {len(paths)} files from "
            f"{paths[0]} on, with {what} in {corpus.languages}"
        )
