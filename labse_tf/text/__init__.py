"""Readers: one file, plain or compressed, -> sentence pairs or sentences.

    XX=PATH -languages-> path -FORMATS-> reader -streams-> bytes, lines or markup
            -reader-> (English, translation, language)

One module a format: `tsv`, `catalogues` (gettext), `moses`, `tmx`, `xliff`, `jsonl`,
`tfrecord`, `tfds`, `text`. Each is a function from an `InputFile` to rows and tells the
file what is wrong and where: that is a `DataError`, or left out and counted in a
`SkipReport` (`problems`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from labse_tf.text.catalogues import mo_rows, po_rows
from labse_tf.text.jsonl import json_rows, json_texts
from labse_tf.text.moses import is_side, moses_rows, moses_texts, sides
from labse_tf.text.names import (
    TFDS,
    canonical,
    file_language,
    language_tag,
    split_language,
    stem_and_kind,
)
from labse_tf.text.plain import clean_interface_text, plain_rows
from labse_tf.text.problems import (
    DataError,
    InputFile,
    OnError,
    PathLike,
    Row,
    SentencePair,
    SkipReport,
)
from labse_tf.text.tfds import tfds_rows
from labse_tf.text.tfrecord import tfrecord_rows
from labse_tf.text.tmx import tmx_rows
from labse_tf.text.tsv import tsv_rows
from labse_tf.text.xliff import xliff_rows

__all__ = [
    "FORMATS",
    "DataError",
    "Format",
    "OnError",
    "PathLike",
    "SentencePair",
    "SkipReport",
    "clean_interface_text",
    "file_language",
    "format_of",
    "has_one_language",
    "language_tag",
    "moses_sides",
    "read_pairs",
    "read_sentences",
    "split_language",
    "stem_and_kind",
]

Reader = Callable[[InputFile], Iterator[Row]]


class Format(NamedTuple):
    """How pairs lie in a file.

    Attributes:
        rows: the reader of pairs.
        texts: the reader of single sentences, rows with one side empty; None where
            both sides of the pairs are all there is.
        several: whether the rows say their language, of which there may be several.
    """

    rows: Reader
    texts: Reader | None = None
    several: bool = False


FORMATS = {
    ".tsv": Format(tsv_rows),
    ".po": Format(po_rows),
    ".mo": Format(mo_rows),
    ".gmo": Format(mo_rows),
    ".tmx": Format(tmx_rows, several=True),
    ".xlf": Format(xliff_rows, several=True),
    ".xliff": Format(xliff_rows, several=True),
    ".jsonl": Format(json_rows, json_texts, several=True),
    ".ndjson": Format(json_rows, json_texts, several=True),
    ".tfrecord": Format(tfrecord_rows),
    ".tfrecords": Format(tfrecord_rows),
}
"""The formats that a file's name tells, by its ending."""

_MOSES = Format(moses_rows, moses_texts, several=True)
_TFDS = Format(tfds_rows, several=True)
# of any other name
_PAIRS, _TEXT = Format(tsv_rows), Format(tsv_rows, plain_rows)


def format_of(path: PathLike) -> Format | None:
    """The format of pairs in a file, by its name and its neighbours; None for others.

    Args:
        path: a path, `XX=PATH` or `tfds:...`.
    """
    _, place = split_language(path)
    if os.fspath(place).startswith(TFDS):
        return _TFDS
    kind = stem_and_kind(place)[1]
    return FORMATS.get(kind) or (_MOSES if is_side(place) else None)


def moses_sides(path: PathLike) -> list[Path]:
    """The files that are not English of the Moses files that a path stands for."""
    found = sides(split_language(path)[1]) if format_of(path) is _MOSES else []
    return [other for _, other, _ in found]


def has_one_language(path: PathLike) -> bool:
    """Whether all of a file's pairs are in the same language, whatever is in it."""
    return not (format_of(path) or _PAIRS).several


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

    Text is UTF-8, with LF or CRLF, where the file does not say otherwise. All but TFDS
    may be compressed with gzip, bzip2, xz or zstd. A catalogue's singular goes with
    the form that the language uses for one, `msgid_plural` with the last form. White
    space around a sentence is removed; placeholders stay (see `clean_interface_text`),
    inline codes of TMX and XLIFF go.

    Args:
        path: the file, or `XX=PATH`, which gives its language and goes before
            `language`.
        language: the translation's language; None to take it from the file, see
            `file_language`. Of a file that may hold several languages it chooses:
            pairs in any variety of that language are read, as that language.
        on_error: `"raise"`, or `"skip"` to leave out what cannot be read.
        skipped: where `"skip"` counts what it left out; without it a warning says so.

    Returns:
        An iterator of `SentencePair`.

    Raises:
        DataError: (while iterating) what cannot be read, with its file and line: an
            empty side, an empty, cut off, missing or damaged file, no English, or an
            unknown language.
        ImportError: (while iterating) the extra `text` (zstd) or `tfds` is missing.
    """
    found = format_of(path) or _PAIRS
    return _read(path, language, on_error, skipped, found.rows, found.several)


def _read(
    path: PathLike,
    language: str | None,
    on_error: OnError,
    skipped: SkipReport | None,
    reader: Reader,
    several: bool,
) -> Iterator[SentencePair]:
    if on_error not in ("raise", "skip"):
        raise ValueError(f'`on_error` must be "raise" or "skip". Received: {on_error}')
    tag = None if language is None else language_tag(language)
    given, place = split_language(path)
    tag = given or tag
    report = SkipReport() if skipped is None else skipped
    file = InputFile(place, tag, on_error, report)

    choice = None if tag == "und" else tag  # "undetermined" chooses nothing

    def pairs() -> Iterator[SentencePair]:
        known, others, found = tag, set(), False
        for source, target, said in reader(file):
            code: str | None = said if several else ""
            if code and choice is not None:
                if target and canonical(code) != canonical(choice):
                    others.add(code)
                    continue
                code = choice
            if not code:
                code = known = known or file_language(place, said)
            if code is None:
                expected = (
                    "a language in the name (en-hi.tsv, hi.po), before it (hi=PATH) "
                    "or as `language`"
                )
                file.problem(1, expected, place.name)
                break
            found = True
            yield SentencePair(source, target, code)
        if others and not found:
            file.problem(1, f"text in {tag}", ", ".join(sorted(others)))
        if skipped is None and report:
            warnings.warn(str(report), stacklevel=2)

    return pairs()


def read_sentences(
    path: PathLike,
    *,
    language: str | None = None,
    side: Literal["both", "source", "target"] = "both",
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> Iterator[tuple[str, str]]:
    """Reads single sentences, for a vocabulary or masked-LM training.

    Args:
        path: a pair file, see `read_pairs`; JSON Lines of `{"text": ...}`, with
            `"language"` or without; or text with one sentence or paragraph a line under
            any other name, of which blank lines are no sentences. The two files of
            Moses need not be aligned here.
        language: as in `read_pairs`; for a text file the language of the text.
        side: which sentences of a pair; a text file has one side only.
        on_error: as in `read_pairs`.
        skipped: as in `read_pairs`.

    Returns:
        An iterator of (language, sentence); the source of a pair is `"en"`.

    Raises:
        DataError: as in `read_pairs`.
        ImportError: as in `read_pairs`.
    """
    if side not in ("both", "source", "target"):
        raise ValueError(
            f'`side` must be "both", "source" or "target". Received: {side}'
        )
    found = format_of(path) or _TEXT
    reader = found.texts or found.rows
    pairs = _read(path, language, on_error, skipped, reader, found.several)
    # a text has one side, whatever its name
    single = reader in (plain_rows, json_texts)

    def sentences() -> Iterator[tuple[str, str]]:
        for source, target, code in pairs:
            alone = single and not source
            if source and side != "target":
                yield "en", source
            if target and (side != "source" or alone):
                yield code, target

    return sentences()
