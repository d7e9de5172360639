"""Loading: paths -> the pair files and sentence files among them -> a corpus."""

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
    corpus: Corpus,
    wanted: set[str] | None,
    paths: list[Path],
    what: str,
    *,
    warn: bool,
) -> None:
    """Warns of what was skipped, and refuses a corpus without a wanted language."""
    if warn and corpus.skipped:
        warnings.warn(str(corpus.skipped), stacklevel=3)
    missing = sorted((wanted or set()) - corpus.counts.keys())
    if missing or not len(corpus):
        named = f"any {what}" if not missing else f"{what} in {', '.join(missing)}"
        raise ValueError(
            f"`files` must hold {named}. Received: {len(paths)} files from {paths[0]} "
            f"on, with {what} in {corpus.languages}"
        )
