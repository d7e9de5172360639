"""The command `filter`: keep the pairs whose cosine reaches a threshold."""

from __future__ import annotations

import argparse
import functools
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from labse_tf.cli.arguments import (
    add_encoder,
    add_json,
    add_on_error,
    add_pair_output,
    add_plot,
    add_work,
    command,
)
from labse_tf.cli.models import open_encoder, say_truncated
from labse_tf.cli.output import say_skipped, work_folder, write_json
from labse_tf.encoders import Encode

if TYPE_CHECKING:
    import numpy as np

    from labse_tf.text import OnError, SkipReport, WrittenPair

_MARKS = {"good": True, "bad": False, "1": True, "0": False}

_SAMPLE = 1000  # ours: pairs of a table that show the script of each column

_EDGES = [i / 100 for i in range(-100, 101)]


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "filter",
        _filter,
        "keep the pairs of a file whose sentences have the same meaning",
        "labse-tf filter pairs.tsv --marked sample.tsv -o kept.tsv",
    )
    parser.add_argument(
        "file",
        metavar="PAIRS",
        help="tab-separated table with the sentences in the last two columns, such as "
        "en-XX.tsv or the output of mine, or any other format of train, whose pairs "
        "are written as source<TAB>target; UTF-8; plain, .gz, .bz2, .xz or .zst",
    )
    add_on_error(parser)
    add_encoder(parser)
    add_pair_output(parser, "kept lines, unchanged")
    parser.add_argument(
        "--columns",
        nargs=2,
        metavar=("CODE", "CODE"),
        help="languages of the two columns of a table, such as hi en (default: en and "
        "the language in the name, in the order that the scripts show)",
    )
    rule = parser.add_mutually_exclusive_group(required=True)
    rule.add_argument(
        "--threshold", type=float, metavar="COSINE", help="lowest cosine to keep"
    )
    rule.add_argument(
        "--marked",
        metavar="SAMPLE.tsv",
        help="pairs marked by a person, with `good` or `bad` in the last column; the "
        "threshold is the lowest at which enough of the kept pairs are good",
    )
    parser.add_argument(
        "--good-share",
        type=float,
        default=0.8,
        metavar="SHARE",
        help="share of the kept marked pairs that must be good (default: 0.8, as in "
        "the paper)",
    )
    parser.add_argument(
        "--with-scores",
        action="store_true",
        help="write the cosine before each line of a table; other formats always have "
        "it",
    )
    add_work(parser, "the cosines, which do not depend on the threshold")
    add_plot(parser, "a histogram of the cosines")
    add_json(parser)


class _Pair(NamedTuple):
    """A pair, the line to write if it is kept, and the languages if known."""

    whole: str
    texts: tuple[str, str]
    languages: tuple[str, str] = ("", "")


def _filter(options: argparse.Namespace) -> None:
    from labse_tf import mining
    from labse_tf.text import SkipReport

    if not 0 < options.good_share <= 1:
        raise ValueError(
            f"--good-share must be in (0, 1]. Received: {options.good_share}"
        )
    _check_output(options)
    marked = list(_marked(options.marked)) if options.marked else []
    skipped = SkipReport()
    total, digest = 0, hashlib.sha256()
    for pair in _pairs(options, skipped):
        total += 1
        digest.update("\t".join([*pair.texts, ""]).encode())
    say_skipped(skipped)
    if not total:
        raise ValueError(f"{options.file}: expected pairs. Received: no pairs")
    languages = _column_languages(options)
    encode = open_encoder(options)
    threshold, rule = options.threshold, ""
    if marked:
        sample = _cosines(encode, [line for line, _ in marked])
        good = [mark for _, mark in marked]
        threshold = mining.quality_threshold(sample, good, options.good_share)
        above = [mark for mark, c in zip(good, sample, strict=True) if c >= threshold]
        rule = f"; {sum(above)} of {len(above)} marked pairs above it are good"
    with work_folder(options.work, options.output) as work:
        cosines = _cosines_on_disk(options, encode, work, total, digest.hexdigest())
        say_truncated(encode)
        histogram, kept = _write_kept(options, cosines, float(threshold), languages)
    print(
        f"{kept:,} of {total:,} pairs kept ({kept / total:.1%}), cosine threshold "
        f"{threshold:.4f}{rule}: {options.output}"
    )
    if options.plot:
        from labse_tf.plots import plot_histogram

        plot_histogram(histogram, _EDGES, float(threshold), options.plot)
        print(f"plot: {options.plot}")
    result = {"pairs": total, "kept": kept, "threshold": float(threshold)}
    if marked:
        result |= {"marked": len(marked), "marked_kept": len(above)}
        result |= {"good_share": sum(above) / len(above)}
    write_json(options.json, result)


def _write_kept(
    options: argparse.Namespace,
    cosines: np.ndarray,
    threshold: float,
    languages: tuple[str, str],
) -> tuple[list[int], int]:
    """Write the kept pairs, and return a histogram of all cosines and their number.

    `languages` are those of a table.
    """
    import numpy as np

    from labse_tf.text import SkipReport, blocks_of, check_unchanged, pair_writer

    histogram = np.zeros(len(_EDGES) - 1, dtype=np.int64)
    kept = row = 0
    with pair_writer(options.output) as write:
        for block in blocks_of(_pairs(options, SkipReport())):
            values = cosines[row : row + len(block)]
            row += len(block)
            histogram += np.histogram(values.clip(-1, 1), _EDGES)[0]
            for pair, cosine in zip(block, values.tolist(), strict=True):
                if cosine >= threshold:
                    kept += 1
                    write(_written(options, pair, cosine, languages))
        check_unchanged(options.file, len(cosines), row)
    return histogram.tolist(), kept


def _cosines_on_disk(
    options: argparse.Namespace, encode: Encode, work: Path, total: int, digest: str
) -> np.ndarray:
    """Return the cosine of each pair of the file, float32 `(total,)`, on disk."""
    from labse_tf import mining
    from labse_tf.encoders import fingerprint
    from labse_tf.text import SkipReport, blocks_of

    def blocks(start: int) -> Iterator[list[_Pair]]:
        return blocks_of(itertools.islice(_pairs(options, SkipReport()), start, None))

    return mining.rows_on_disk(
        blocks,
        functools.partial(_cosines, encode),
        work / "cosines.npy",
        shape=(total,),
        made_of={
            "pairs": digest,
            "model": fingerprint(options.model, options.dtype, options.sequence_length),
        },
        what=("Scoring", "pairs"),
    )


def _written(
    options: argparse.Namespace,
    pair: _Pair,
    cosine: float,
    languages: tuple[str, str],
) -> WrittenPair:
    """Return a pair as the writer needs it, English first except in tables."""
    from labse_tf.text import WrittenPair

    line = ""
    if options.format == "table":
        line = (f"{cosine:.6f}\t" if options.with_scores else "") + pair.whole
    texts, numbers = pair.texts, {"cosine": round(cosine, 6)}
    languages = languages if pair.languages == ("", "") else pair.languages
    if languages[1] == "en" != languages[0]:
        texts, languages = texts[::-1], languages[::-1]
    stripped = texts[0].strip(), texts[1].strip()
    return WrittenPair(stripped, languages, numbers, line)


def _check_output(options: argparse.Namespace) -> None:
    """Raise `ValueError` if the output cannot be written as requested."""
    from labse_tf.text import output_kind

    kind = output_kind(options.output)
    if options.with_scores and options.format == "pairs" and kind == ".tsv":
        raise ValueError(
            "--with-scores requires --format table, or an output that has scores, such "
            f"as .jsonl. Received: --format pairs and {options.output}"
        )


def _is_table(options: argparse.Namespace) -> bool:
    """Return whether the input is a table, whose lines may have further columns."""
    from labse_tf.text import FORMATS, format_of

    return format_of(options.file) in (None, FORMATS[".tsv"])


def _column_languages(options: argparse.Namespace) -> tuple[str, str]:
    """Return the languages of a table's columns or else of the first pair.

    They are taken from `--columns`, the name and the script, and `""` if unknown.

    Raises:
        ValueError: If they are needed for the output and unknown.
    """
    from labse_tf.languages import language_code
    from labse_tf.text import SkipReport, english_first, file_language, output_kind
    from labse_tf.text.plausibility import mostly_in_another_script

    if not _is_table(options):
        first, second = next(_pairs(options, SkipReport())).languages
    elif options.columns:
        first, second = map(language_code, options.columns)
    else:
        other = file_language(options.file) or ""
        other = "" if other == "en" else other
        sample = itertools.islice(_pairs(options, SkipReport()), _SAMPLE)
        columns = zip(*(pair.texts for pair in sample), strict=True)
        scripts = [mostly_in_another_script(column) for column in columns]
        if scripts == [True, False]:
            first, second = other, "en"
        elif other or scripts == [False, True]:
            first, second = "en", other
        else:
            first, second = "", ""
    hint = f"give those of {options.file} as --columns hi en"
    if not _is_table(options):
        hint = f"give the other one as a prefix, hi={options.file}"
    if options.format == "pairs":
        english_first((first, second), hint)
    if output_kind(options.output) == ".tmx" and not (first and second):
        raise ValueError(
            f"TMX needs the languages of both sides; {hint}. "
            f"Received: {first or 'unknown'} and {second or 'unknown'}"
        )
    return first, second


def _cosines(encode: Encode, pairs: list[_Pair]) -> np.ndarray:
    """Return the cosine of each pair, float32, to 7 decimals.

    Each text is encoded once.
    """
    import numpy as np

    from labse_tf import mining

    texts, places = np.unique(
        np.array([pair.texts for pair in pairs], dtype=object), return_inverse=True
    )
    vectors = mining.unit_rows(np.asarray(encode(texts.tolist())))
    mining.check_finite(vectors, "the model's vectors")
    rows = places.reshape(-1, 2)
    cosines = np.einsum("pd,pd->p", vectors[rows[:, 0]], vectors[rows[:, 1]])
    return cosines.round(7).astype(np.float32)


def _marked(path: str) -> Iterator[tuple[_Pair, bool]]:
    """Yield each marked pair and whether it is good."""
    from labse_tf.text import DataError

    expected = f"a last column with {' or '.join(sorted(_MARKS))}"
    for number, pair in _table(Path(path), slice(-3, -1)):
        mark = pair.whole.rpartition("\t")[2].strip().lower()
        if mark not in _MARKS:
            raise DataError(path, number, expected, repr(mark))
        yield pair, _MARKS[mark]


def _pairs(options: argparse.Namespace, skipped: SkipReport) -> Iterator[_Pair]:
    """Yield the pairs of the file, a table or another format."""
    from labse_tf.text import on_one_line, read_pairs, split_language

    if _is_table(options):
        path = split_language(options.file)[1]
        table = _table(path, slice(-2, None), options.on_error, skipped)
        yield from (pair for _, pair in table)
        return
    for pair in read_pairs(
        options.file, language="und", on_error=options.on_error, skipped=skipped
    ):
        line = f"{on_one_line(pair.source)}\t{on_one_line(pair.target)}"
        code = "" if pair.language == "und" else pair.language
        yield _Pair(line, (pair.source, pair.target), ("en", code))


def _table(
    path: Path,
    columns: slice,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> Iterator[tuple[int, _Pair]]:
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
            yield number, _Pair(whole, (texts[0], texts[1]))
            continue
        error = DataError(path, number, expected, shorten(whole))
        if on_error == "raise":
            raise error
        report.add(error)
