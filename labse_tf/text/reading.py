"""Reading: files of any format and compression -> lines, sentences, pairs.

Content that cannot be read, such as invalid UTF-8, raises a `DataError` with path and
line, or is skipped and counted in a `SkipReport`.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

from labse_tf.languages import language_code
from labse_tf.text.csv_tables import csv_texts
from labse_tf.text.formats import MOSES, OTHER, Format, Reader, format_of
from labse_tf.text.jsonl import json_texts
from labse_tf.text.names import file_language, split_language
from labse_tf.text.parquet import parquet_texts
from labse_tf.text.plain import plain_rows
from labse_tf.text.plausibility import Plausibility
from labse_tf.text.problems import (
    InputFile,
    OnError,
    PathLike,
    Row,
    SentencePair,
    SkipReport,
)
from labse_tf.text.streams import text_lines

Side = Literal["both", "source", "target"]

BLOCK = 8192
"""Default size of `blocks_of`; ours: some megabytes of text."""

_Item = TypeVar("_Item")


def read_lines(
    path: PathLike, *, on_error: OnError = "raise", skipped: SkipReport | None = None
) -> Iterator[tuple[int, str]]:
    """Read the lines of a text file.

    Text is UTF-8, with or without a byte order mark, plain or compressed. Lines end
    with LF or CRLF only: U+2028 and U+0085 may be inside a sentence.

    Args:
        path: Path of the file.
        on_error: `"raise"`, or `"skip"` to skip lines of invalid UTF-8.
        skipped: Report that counts the skipped problems. If None, a warning reports
            them at the end.

    Returns:
        An iterator of (line number from 1, line without its end), which raises the
        errors below.

    Raises:
        DataError: If the file is missing, empty or damaged, or a line is invalid UTF-8.
        ImportError: If the file needs the extra `text` (zstd).
    """
    file = _input_file(path, None, on_error, skipped)
    return _warned(_decoded(file), file, skipped)


def read_pairs(
    path: PathLike,
    *,
    language: str | None = None,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> Iterator[SentencePair]:
    """Read sentence pairs from a file in any of the formats below.

    | ending | content |
    |---|---|
    | `.tsv`, any other | `English<TAB>translation`; further columns are ignored |
    | `.csv` | comma-separated, with a header of the keys of JSON Lines |
    | `.po`, `.mo`, `.gmo` | gettext: `msgid` is English; not fuzzy or obsolete |
    | `.en` and `.hi` | Moses: two aligned files; either path, or `corpus` |
    | `.tmx` | translation memories; one pair per unit and language |
    | `.xlf`, `.xliff` | XLIFF 1.2 and 2.x; only translated segments |
    | `.jsonl`, `.ndjson` | `{"en": ..., "hi": ...}`, also as `"translation"`; \
`{"source": ..., "target": ...}` or `{"src": ..., "tgt": ...}` |
    | `.parquet` | columns as the keys of JSON Lines |
    | `.tfrecord`, `.tfrecords` | `tf.train.Example` with `src_raw` and `tgt_raw` |
    | `tfds:name/config?split=train` | a translation data set of TFDS |

    Text is UTF-8 with LF or CRLF line ends unless the file declares another encoding.
    Files may be compressed with gzip, bzip2, xz or zstd. In a gettext catalog, `msgid`
    is paired with the form for n = 1, `msgid_plural` with the last form. White space
    around a sentence and inline codes of TMX and XLIFF are removed; placeholders stay
    (see `clean_interface_text`).

    Args:
        path: Path of the file, or `XX=PATH`, whose language takes precedence over
            `language`.
        language: Language of the translations. If None, it is taken from the file (see
            `file_language`). For a format with several languages per file, only pairs
            in this language (any regional variety) are read.
        on_error: `"raise"`, or `"skip"` to skip content that cannot be read.
        skipped: Report that counts the skipped problems. If None, a warning reports
            them at the end.

    Returns:
        An iterator of `SentencePair`, which raises the errors below. It warns
        (`DataWarning`) if the first pairs look wrong: most English sides are not in
        Latin script, or the lengths of the two sides are not correlated.

    Raises:
        DataError: If the file is missing, empty or damaged, a pair has an empty side,
            there is no English, or the language is unknown.
        ImportError: If the file needs the extra `text` (zstd), `parquet` or `tfds`.
    """
    numbered = read_numbered_pairs(
        path, language=language, on_error=on_error, skipped=skipped
    )
    return (pair for _, pair in numbered)


def read_numbered_pairs(
    path: PathLike,
    *,
    language: str | None = None,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> Iterator[tuple[int, SentencePair]]:
    """Read sentence pairs with their line numbers.

    Args:
        path: See `read_pairs`.
        language: See `read_pairs`; `"und"` if the language may be unknown.
        on_error: See `read_pairs`.
        skipped: See `read_pairs`.

    Returns:
        An iterator of (line number, pair). Line numbers are those of `DataError`; in a
        gettext catalog, the line on which a message begins.

    Raises:
        DataError: See `read_pairs`.
        ImportError: See `read_pairs`.
    """
    scored = read_scored_pairs(
        path, language=language, on_error=on_error, skipped=skipped
    )
    return ((line, pair) for line, pair, _ in scored)


def read_scored_pairs(
    path: PathLike,
    *,
    language: str | None = None,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> Iterator[tuple[int, SentencePair, float | None]]:
    """Read sentence pairs with their line numbers and scores.

    JSON Lines, CSV, Parquet and TMX may have scores: a key, a column or a property
    `x-...` of a unit with the name probability, margin, score or cosine, as
    `pair_writer` writes them. Of several names, the first of these is read.

    Args:
        path: See `read_pairs`.
        language: See `read_numbered_pairs`.
        on_error: See `read_pairs`.
        skipped: See `read_pairs`.

    Returns:
        An iterator of (line number, pair, score); see `read_numbered_pairs`. The score
        is `None` without a finite number.

    Raises:
        DataError: See `read_pairs`.
        ImportError: See `read_pairs`.
    """
    found = format_of(path) or OTHER
    file = _input_file(path, language, on_error, skipped)
    pairs = (
        (row.line, SentencePair(row.source, row.target, row.language), row.score)
        for row in _rows(file, found.rows, found.several)
    )
    return _warned(pairs, file, skipped)


def read_sentences(
    path: PathLike,
    *,
    language: str | None = None,
    side: Side = "both",
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> Iterator[tuple[str, str]]:
    """Read single sentences, for a vocabulary or MLM pre-training.

    Args:
        path: A pair file (see `read_pairs`); JSON Lines of `{"text": ...}`, optionally
            with `"language"`, or CSV or Parquet with such columns; or any other file as
            text with one sentence or paragraph per line, whose blank lines are skipped.
            Two Moses files need not be aligned; one without the other is text.
        language: See `read_pairs`; for a text file, the language of the text.
        side: Sides of the pairs to read; a text file has only one side.
        on_error: See `read_pairs`.
        skipped: See `read_pairs`.

    Returns:
        An iterator of (language, sentence); the source of a pair is `"en"`.

    Raises:
        DataError: See `read_pairs`.
        ImportError: See `read_pairs`.
    """
    found = format_of(path) or OTHER
    file = _input_file(path, language, on_error, skipped)
    sentences = ((code, text) for _, code, text in _sentences(file, found, side))
    return _warned(sentences, file, skipped)


def read_numbered(
    path: PathLike,
    *,
    side: Side = "both",
    blank_lines: bool = False,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> Iterator[tuple[int, str]]:
    """Read single sentences in any language with their line numbers.

    Unlike in `read_sentences`, the language of the file may be unknown. Each Moses file
    and each file without the ending of a pair format is text with one sentence per
    line. Such a file may be empty.

    Args:
        path: See `read_sentences`. For a file with several languages, `XX=PATH` selects
            the pairs of one language.
        side: See `read_sentences`.
        blank_lines: Whether to keep blank lines of a text, so that row k is line k + 1.
        on_error: See `read_pairs`.
        skipped: See `read_pairs`.

    Returns:
        An iterator of (line number, sentence). Line numbers are those of `DataError`;
        the sentences of a pair have the same line number. Lines of text keep leading
        and trailing white space.

    Raises:
        DataError: See `read_pairs`.
        ImportError: See `read_pairs`.
    """
    found = format_of(path)
    file = _input_file(path, "und", on_error, skipped)
    numbered: Iterator[tuple[int, str]]
    if found is None or (found is MOSES and file.path.exists()):
        numbered = _decoded(file, may_be_empty=True)
        if not blank_lines:
            numbered = (line for line in numbered if line[1].strip())
    else:
        numbered = ((line, text) for line, _, text in _sentences(file, found, side))
    return _warned(numbered, file, skipped)


def blocks_of(items: Iterable[_Item], size: int | None = None) -> Iterator[list[_Item]]:
    """Yield lists of `size` items, by default `BLOCK`; the last may be shorter."""
    iterator = iter(items)
    while block := list(itertools.islice(iterator, size or BLOCK)):
        yield block


def _input_file(
    path: PathLike, language: str | None, on_error: OnError, skipped: SkipReport | None
) -> InputFile:
    if on_error not in ("raise", "skip"):
        raise ValueError(f'`on_error` must be "raise" or "skip". Received: {on_error}')
    tag = None if language is None else language_code(language)
    given, place = split_language(path)
    report = SkipReport() if skipped is None else skipped
    return InputFile(place, given or tag, on_error, report)


def _warned(
    items: Iterator[_Item], file: InputFile, skipped: SkipReport | None
) -> Iterator[_Item]:
    """Yield the items; warn about skipped problems at the end without a report."""
    yield from items
    if skipped is None and file.report:
        warnings.warn(str(file.report), stacklevel=2)


def _decoded(
    file: InputFile, *, may_be_empty: bool = False
) -> Iterator[tuple[int, str]]:
    """Yield the lines that can be decoded."""
    for line, text in text_lines(file, may_be_empty=may_be_empty):
        if text is not None:
            yield line, text


def _rows(file: InputFile, reader: Reader, several: bool) -> Iterator[Row]:
    """Yield the rows in the requested language, each with its language."""
    tag = file.language
    choice = None if tag == "und" else tag  # "und" selects all.
    known, others, found = choice, set(), False
    plausibility = Plausibility(file.path)
    for row in reader(file):
        source, target, said = row.source, row.target, row.language
        code: str | None = said if several else ""
        if code and choice is not None:
            if target and code != choice:
                others.add(code)
                continue
            code = choice
        if not code:
            code = known = known or file_language(file.path, said) or tag
        if code is None:
            expected = (
                "a language in the name (en-hi.tsv, hi.po), as a prefix (hi=PATH) "
                "or as `language`"
            )
            file.problem(1, expected, file.path.name)
            break
        found = True
        if source and target:
            plausibility.add(source, target)
        yield Row(row.line, source, target, code, row.score)
    plausibility.finish()
    if others and not found:
        file.problem(1, f"text in {tag}", ", ".join(sorted(others)))


def _sentences(
    file: InputFile, found: Format, side: Side
) -> Iterator[tuple[int, str, str]]:
    """Return an iterator of (line, language, sentence) for the requested side."""
    if side not in ("both", "source", "target"):
        raise ValueError(
            f'`side` must be "both", "source" or "target". Received: {side}'
        )
    reader = found.texts or found.rows
    # A text has only one side, which is read whatever `side` is.
    single = reader in (plain_rows, csv_texts, json_texts, parquet_texts)

    def sentences() -> Iterator[tuple[int, str, str]]:
        for line, source, target, code, _ in _rows(file, reader, found.several):
            alone = single and not source
            if source and side != "target":
                yield line, "en", source
            if target and (side != "source" or alone):
                yield line, code, target

    return sentences()
