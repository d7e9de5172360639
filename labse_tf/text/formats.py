"""Formats: a file name and the neighboring files -> readers for the content."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from labse_tf.text.catalogues import mo_rows, po_rows
from labse_tf.text.csv_tables import csv_rows, csv_texts
from labse_tf.text.jsonl import json_rows, json_texts
from labse_tf.text.moses import is_side, moses_rows, moses_texts, sides
from labse_tf.text.names import TFDS, split_language, stem_and_kind
from labse_tf.text.parquet import parquet_rows, parquet_texts
from labse_tf.text.plain import plain_rows
from labse_tf.text.problems import InputFile, PathLike, Row
from labse_tf.text.tfds import tfds_rows
from labse_tf.text.tfrecord import tfrecord_rows
from labse_tf.text.tmx import tmx_rows
from labse_tf.text.tsv import tsv_rows
from labse_tf.text.xliff import xliff_rows

Reader = Callable[[InputFile], Iterator[Row]]


class Format(NamedTuple):
    """Readers for a file format.

    Attributes:
        rows: Reader of pairs.
        texts: Reader of single sentences, whose rows have one empty side. If None, the
            sentences are those of the pairs.
        several: Whether each row has its own language, so that a file may have several.
    """

    rows: Reader
    texts: Reader | None = None
    several: bool = False


FORMATS = {
    ".tsv": Format(tsv_rows),
    ".csv": Format(csv_rows, csv_texts, several=True),
    ".po": Format(po_rows),
    ".mo": Format(mo_rows),
    ".gmo": Format(mo_rows),
    ".tmx": Format(tmx_rows, several=True),
    ".xlf": Format(xliff_rows, several=True),
    ".xliff": Format(xliff_rows, several=True),
    ".jsonl": Format(json_rows, json_texts, several=True),
    ".ndjson": Format(json_rows, json_texts, several=True),
    ".parquet": Format(parquet_rows, parquet_texts, several=True),
    ".tfrecord": Format(tfrecord_rows),
    ".tfrecords": Format(tfrecord_rows),
}
"""Formats by the ending of the file name."""

MOSES = Format(moses_rows, moses_texts, several=True)
"""Two text files whose lines are translations of each other."""

OTHER = Format(tsv_rows, plain_rows)
"""Any other file: pairs as TSV, or single sentences, one per line."""

_TFDS = Format(tfds_rows, several=True)


def format_of(path: PathLike) -> Format | None:
    """Return the format of a path, `XX=PATH` or `tfds:...`, or None for `OTHER`."""
    _, place = split_language(path)
    if os.fspath(place).startswith(TFDS):
        return _TFDS
    kind = stem_and_kind(place)[1]
    return FORMATS.get(kind) or (MOSES if is_side(place) else None)


def has_one_language(path: PathLike) -> bool:
    """Return whether the format of a file allows only one language."""
    return not (format_of(path) or OTHER).several


def moses_sides(path: PathLike) -> list[Path]:
    """Return the files of a path's Moses corpus that are not English."""
    found = sides(split_language(path)[1]) if format_of(path) is MOSES else []
    return [other for _, other, _ in found]


def distinct_files(paths: Iterable[PathLike]) -> list[Path]:
    """Return files without duplicates, in the given order and with their `XX=`.

    Two Moses files become the file that is not English.
    """
    found: dict[Path, None] = {}
    for path in paths:
        language = split_language(path)[0]
        before = "" if language is None else f"{language}="
        places = [Path(f"{before}{side}") for side in moses_sides(path)]
        found.update(dict.fromkeys(places or [Path(path)]))
    return list(found)
