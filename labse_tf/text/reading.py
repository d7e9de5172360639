"""Reading: files of any format and compression -> lines, sentences, pairs.

One policy holds for everything that cannot be read, such as invalid UTF-8: it is a
`DataError` with its file and line, or it is left out and counted in a `SkipReport`.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

from labse_tf.languages import language_code
from labse_tf.text.formats import MOSES, OTHER, Format, Reader, format_of
from labse_tf.text.jsonl import json_texts
from labse_tf.text.names import file_language, split_language
from labse_tf.text.plain import plain_rows
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
"""The default size of `blocks_of`, `ours`: some megabytes of text."""

_Item = TypeVar("_Item")


def read_lines(
    path: PathLike,
    *,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> Iterator[tuple[int, str]]:
    """Reads the lines of a text file, which has at least one.

    Text is UTF-8, with or without a byte order mark, plain or compressed. Only LF or
    CRLF ends a line: U+2028 and U+0085 may be inside a sentence.

    Args:
        path: The file.
        on_error: `"raise"`, or `"skip"` to leave out lines of invalid UTF-8.
        skipped: Where `"skip"` counts what it left out; without it a warning reports
            that.

    Returns:
        An iterator of (line number, from 1; line without its end).

    Raises:
        DataError: (while iterating) If the file is missing, empty or damaged, or a line
            is invalid UTF-8.
        ImportError: (while iterating) If the extra `text` (zstd) is missing.
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
    """Reads sentence pairs from a file in any of the formats below.

    | ending | what |
    |---|---|
    | `.tsv`, any other | `English<TAB>translation`, further columns are ignored |
    | `.po`, `.mo`, `.gmo` | gettext: `msgid` is English; nothing fuzzy or obsolete |
    | `.en` and `.hi` | Moses: two files, line by line; either, or `corpus` for both |
    | `.tmx` | translation memories; of each unit a pair for every language |
    | `.xlf`, `.xliff` | XLIFF 1.2 and 2.x; no segments that wait for a translator |
    | `.jsonl`, `.ndjson` | `{"en": ..., "hi": ...}`, also as `"translation"`; \
`{"source": ..., "target": ...}` or `{"src": ..., "tgt": ...}` |
    | `.tfrecord`, `.tfrecords` | `tf.train.Example` with `src_raw` and `tgt_raw` |
    | `tfds:name/config?split=train` | a translation data set of TFDS |

    Text is UTF-8, with LF or CRLF, unless the file specifies another encoding. All but
    TFDS may be compressed with gzip, bzip2, xz or zstd. A catalogue's singular is
    paired with the form that the language uses for one, `msgid_plural` with the last
    form. White space around a sentence is removed; placeholders stay (see
    `clean_interface_text`), inline codes of TMX and XLIFF are removed.

    Args:
        path: The file, or `XX=PATH`, which gives its language and takes precedence over
            `language`.
        language: The translation's language; None to take it from the file, see
            `file_language`. For a file that may have several languages it selects:
            pairs in any variety of that language are read, as that language.
        on_error: `"raise"`, or `"skip"` to leave out what cannot be read.
        skipped: Where `"skip"` counts what it left out; without it a warning reports
            that.

    Returns:
        An iterator of `SentencePair`.

    Raises:
        DataError: (while iterating) If something cannot be read: an empty side, an
            empty, cut off, missing or damaged file, no English, or an unknown language.
        ImportError: (while iterating) If the extra `text` (zstd) or `tfds` is missing.
    """
    found = format_of(path) or OTHER
    file = _input_file(path, language, on_error, skipped)
    rows = _rows(file, found.rows, found.several)
    pairs = (SentencePair(source, target, code) for _, source, target, code in rows)
    return _warned(pairs, file, skipped)


def read_sentences(
    path: PathLike,
    *,
    language: str | None = None,
    side: Side = "both",
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> Iterator[tuple[str, str]]:
    """Reads single sentences, for a vocabulary or masked-LM training.

    Args:
        path: A pair file, see `read_pairs`; JSON Lines of `{"text": ...}`, with
            `"language"` or without; or text with one sentence or paragraph per line
            under any other name, whose blank lines are left out. The two files of Moses
            need not be aligned here; one without the other is text.
        language: As in `read_pairs`; for a text file the language of the text.
        side: Which sentences of a pair; a text file has one side only.
        on_error: As in `read_pairs`.
        skipped: As in `read_pairs`.

    Returns:
        An iterator of (language, sentence); the source of a pair is `"en"`.

    Raises:
        DataError: As in `read_pairs`.
        ImportError: As in `read_pairs`.
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
    """Reads single sentences in any language, with the lines that they are on.

    Unlike `read_sentences`, needs no language. A file that exists and whose ending is
    not that of a pair format is text, one sentence per line, which may be empty; so is
    each of the two files of Moses.

    Args:
        path: As in `read_sentences`; `XX=PATH` selects the pairs of a language in a
            file of several.
        side: As in `read_sentences`.
        blank_lines: Whether blank lines of a text are sentences too, so that row k is
            line k + 1.
        on_error: As in `read_pairs`.
        skipped: As in `read_pairs`.

    Returns:
        An iterator of (line number, sentence). The line is that of `DataError`, and
        sentences of a pair have the same. Lines of text keep white space around them.

    Raises:
        DataError: As in `read_pairs`.
        ImportError: As in `read_pairs`.
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
    """Groups items, such as lines, into lists.

    Args:
        items: What to group.
        size: The length of all lists but the last, which may be shorter; None for
            some thousands.

    Yields:
        Lists with at least one item.
    """
    iterator = iter(items)
    while block := list(itertools.islice(iterator, size or BLOCK)):
        yield block


def _input_file(
    path: PathLike,
    language: str | None,
    on_error: OnError,
    skipped: SkipReport | None,
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
    """The items; a warning at the end where the caller has no report."""
    yield from items
    if skipped is None and file.report:
        warnings.warn(str(file.report), stacklevel=2)


def _decoded(
    file: InputFile, *, may_be_empty: bool = False
) -> Iterator[tuple[int, str]]:
    """The lines that can be decoded."""
    for line, text in text_lines(file, may_be_empty=may_be_empty):
        if text is not None:
            yield line, text


def _rows(file: InputFile, reader: Reader, several: bool) -> Iterator[Row]:
    """The rows of a file that are in the language asked for, each with its language."""
    tag = file.language
    choice = None if tag == "und" else tag  # "undetermined" selects nothing
    known, others, found = tag, set(), False
    for line, source, target, said in reader(file):
        code: str | None = said if several else ""
        if code and choice is not None:
            if target and code != choice:
                others.add(code)
                continue
            code = choice
        if not code:
            code = known = known or file_language(file.path, said)
        if code is None:
            expected = (
                "a language in the name (en-hi.tsv, hi.po), before it (hi=PATH) "
                "or as `language`"
            )
            file.problem(1, expected, file.path.name)
            break
        found = True
        yield line, source, target, code
    if others and not found:
        file.problem(1, f"text in {tag}", ", ".join(sorted(others)))


def _sentences(
    file: InputFile, found: Format, side: Side
) -> Iterator[tuple[int, str, str]]:
    """(line, language, sentence) for the sides of a file's rows that are asked for."""
    if side not in ("both", "source", "target"):
        raise ValueError(
            f'`side` must be "both", "source" or "target". Received: {side}'
        )
    reader = found.texts or found.rows
    # a text has one side, whatever its name
    single = reader in (plain_rows, json_texts)

    def sentences() -> Iterator[tuple[int, str, str]]:
        for line, source, target, code in _rows(file, reader, found.several):
            alone = single and not source
            if source and side != "target":
                yield line, "en", source
            if target and (side != "source" or alone):
                yield line, code, target

    return sentences()
