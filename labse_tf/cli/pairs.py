"""Pairs of a command that scores them: tables and other files, marks, cosines."""

from __future__ import annotations

import argparse
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from labse_tf.encoders import Encode

if TYPE_CHECKING:
    import numpy as np

    from labse_tf.text import OnError, SkipReport

MARKS = {"good": True, "bad": False, "1": True, "0": False}
"""Words of the last column of marked pairs."""

_SAMPLE = 1000  # ours: pairs of a table that show the script of each column


class Pair(NamedTuple):
    """A pair, the line to write if it is kept, and the languages if known."""

    whole: str
    texts: tuple[str, str]
    languages: tuple[str, str] = ("", "")


def is_table(path: str) -> bool:
    """Return whether a file is a table, whose lines may have further columns."""
    from labse_tf.text import FORMATS, format_of

    return format_of(path) in (None, FORMATS[".tsv"])


def read_file(options: argparse.Namespace, skipped: SkipReport) -> Iterator[Pair]:
    """Yield the pairs of `options.file`, a table or another format."""
    from labse_tf.text import on_one_line, read_pairs, split_language

    if is_table(options.file):
        path = split_language(options.file)[1]
        table = read_table(path, slice(-2, None), options.on_error, skipped)
        yield from (pair for _, pair in table)
        return
    for pair in read_pairs(
        options.file, language="und", on_error=options.on_error, skipped=skipped
    ):
        line = f"{on_one_line(pair.source)}\t{on_one_line(pair.target)}"
        code = "" if pair.language == "und" else pair.language
        yield Pair(line, (pair.source, pair.target), ("en", code))


def read_table(
    path: Path,
    columns: slice,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> Iterator[tuple[int, Pair]]:
    """Yield the line number and pair of each line that is not blank."""
    from labse_tf.text import DataError, SkipReport, read_lines, shorten

    report = SkipReport() if skipped is None else skipped
    expected = "two sentences separated by a tab"
    expected += "" if columns.stop is None else ", and a mark"
    for number, whole in read_lines(path, on_error=on_error, skipped=report):
        if not whole.strip():
            continue
        texts = whole.split("\t")[columns]
        if len(texts) == 2 and all(text.strip() for text in texts):
            yield number, Pair(whole, (texts[0], texts[1]))
            continue
        error = DataError(path, number, expected, shorten(whole))
        if on_error == "raise":
            raise error
        report.add(error)


def read_marked(path: str) -> Iterator[tuple[Pair, bool]]:
    """Yield each marked pair and whether it is good."""
    from labse_tf.text import DataError

    expected = f"a last column with {' or '.join(sorted(MARKS))}"
    for number, pair in read_table(Path(path), slice(-3, -1)):
        mark = pair.whole.rpartition("\t")[2].strip().lower()
        if mark not in MARKS:
            raise DataError(path, number, expected, repr(mark))
        yield pair, MARKS[mark]


def column_languages(options: argparse.Namespace) -> tuple[str, str]:
    """Return the languages of a table's columns or else of the first pair.

    They are taken from `--columns`, the name and the script, and `""` if unknown.

    Raises:
        ValueError: If they are needed for the output and unknown.
    """
    from labse_tf import text
    from labse_tf.languages import language_code
    from labse_tf.text import SkipReport, english_first, output_kind

    table = is_table(options.file)
    if not table:
        first, second = next(read_file(options, SkipReport())).languages
    elif options.columns:
        first, second = map(language_code, options.columns)
    else:
        sample = itertools.islice(read_file(options, SkipReport()), _SAMPLE)
        texts = [pair.texts for pair in sample]
        first, second = text.column_languages(options.file, texts)
    hint = f"give those of {options.file} as --columns hi en"
    if not table:
        hint = f"give the other one as a prefix, hi={options.file}"
    if options.format == "pairs":
        english_first((first, second), hint)
    if output_kind(options.output) == ".tmx" and not (first and second):
        raise ValueError(
            f"TMX needs the languages of both sides; {hint}. "
            f"Received: {first or 'unknown'} and {second or 'unknown'}"
        )
    return first, second


def pair_cosines(encode: Encode, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Return the cosine of each pair of texts, float32, to 7 decimals.

    Each text is encoded once.
    """
    import numpy as np

    from labse_tf import mining

    texts, places = np.unique(np.array(pairs, dtype=object), return_inverse=True)
    vectors = mining.unit_rows(np.asarray(encode(texts.tolist())))
    mining.check_finite(vectors, "the model's vectors")
    rows = places.reshape(-1, 2)
    cosines = np.einsum("pd,pd->p", vectors[rows[:, 0]], vectors[rows[:, 1]])
    return cosines.round(7).astype(np.float32)


def cosines_on_disk(
    read: Callable[[], Iterable[tuple[str, str]]],
    encode: Encode,
    work: Path,
    *,
    total: int,
    digest: str,
    model: str,
) -> np.ndarray:
    """Compute the cosines of pairs of texts in a folder, and resume if interrupted.

    Args:
        read: Function that returns the pairs, the same in each call.
        encode: Encoder.
        work: Folder for `cosines.npy`.
        total: Number of pairs.
        digest: Hash of the pairs.
        model: Identifier of the model, see `labse_tf.encoders.fingerprint`.

    Returns:
        float32 `(total,)`, memory-mapped.
    """
    from labse_tf import mining
    from labse_tf.text import blocks_of

    def blocks(start: int) -> Iterator[list[tuple[str, str]]]:
        return blocks_of(itertools.islice(read(), start, None))

    return mining.rows_on_disk(
        blocks,
        functools.partial(pair_cosines, encode),
        work / "cosines.npy",
        shape=(total,),
        made_of={"pairs": digest, "model": model},
        what=("Scoring", "pairs"),
    )
