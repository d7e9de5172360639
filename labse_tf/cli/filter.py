"""The command `filter`: keep the pairs whose cosine reaches a threshold."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from labse_tf.cli import arguments
from labse_tf.cli.models import open_encoder
from labse_tf.cli.output import ON_ONE_LINE, say_skipped, write_json
from labse_tf.encoders import Encode
from labse_tf.files import atomic_file

if TYPE_CHECKING:
    import numpy as np

    from labse_tf.text import OnError, SkipReport

_MARKS = {"good": True, "bad": False, "1": True, "0": False}

_EDGES = [i / 100 for i in range(-100, 101)]


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = arguments.command(
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
    arguments.add_on_error(parser)
    arguments.add_encoder(parser)
    arguments.add_output(parser, "FILE.tsv", "kept lines, unchanged")
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
        "--with-scores", action="store_true", help="write the cosine before each line"
    )
    arguments.add_plot(parser, "a histogram of the cosines")
    arguments.add_json(parser)


class _Pair(NamedTuple):
    """A pair, and the line to write if it is kept."""

    whole: str
    texts: tuple[str, str]


def _filter(options: argparse.Namespace) -> None:
    from labse_tf import mining
    from labse_tf.text import SkipReport

    if not 0 < options.good_share <= 1:
        raise ValueError(
            f"--good-share must be in (0, 1]. Received: {options.good_share}"
        )
    marked = list(_marked(options.marked)) if options.marked else []
    skipped = SkipReport()
    total = sum(1 for _ in _pairs(options, skipped))
    say_skipped(skipped)
    if not total:
        raise ValueError(f"{options.file}: expected pairs. Received: no pairs")
    encode = open_encoder(options.model, options.dtype)
    threshold, rule = options.threshold, ""
    if marked:
        cosines = _cosines(encode, [line.texts for line, _ in marked])
        good = [mark for _, mark in marked]
        threshold = mining.quality_threshold(cosines, good, options.good_share)
        above = [mark for mark, c in zip(good, cosines, strict=True) if c >= threshold]
        rule = f"; {sum(above)} of {len(above)} marked pairs above it are good"
    histogram, kept = _write_kept(options, encode, float(threshold), total)
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
    options: argparse.Namespace, encode: Encode, threshold: float, total: int
) -> tuple[list[int], int]:
    """Write the kept lines, and return a histogram of all cosines and their number."""
    import numpy as np

    from labse_tf.progress import progress_bar
    from labse_tf.text import SkipReport, blocks_of

    histogram = np.zeros(len(_EDGES) - 1, dtype=np.int64)
    kept = 0
    with (
        atomic_file(options.output) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
        progress_bar("Scoring", total, "pairs") as advance,
    ):
        for block in blocks_of(_pairs(options, SkipReport())):
            cosines = _cosines(encode, [line.texts for line in block])
            histogram += np.histogram(cosines.clip(-1, 1), _EDGES)[0]
            for line, cosine in zip(block, cosines.tolist(), strict=True):
                if cosine >= threshold:
                    kept += 1
                    score = f"{cosine:.6f}\t" if options.with_scores else ""
                    file.write(f"{score}{line.whole}\n")
            advance(len(block))
    return histogram.tolist(), kept


def _cosines(encode: Encode, pairs: list[tuple[str, str]]) -> np.ndarray:
    """Return the cosine of each pair, float32, to 7 decimals.

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
    from labse_tf.text import FORMATS, format_of, read_pairs, split_language

    if format_of(options.file) in (None, FORMATS[".tsv"]):
        path = split_language(options.file)[1]
        table = _table(path, slice(-2, None), options.on_error, skipped)
        yield from (pair for _, pair in table)
        return
    for pair in read_pairs(
        options.file, language="und", on_error=options.on_error, skipped=skipped
    ):
        texts = pair.source.translate(ON_ONE_LINE), pair.target.translate(ON_ONE_LINE)
        yield _Pair("\t".join(texts), texts)


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
