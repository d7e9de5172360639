"""The command `search`: the nearest sentences to a query."""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from labse_tf.cli import arguments
from labse_tf.cli.models import open_encoder, say_truncated
from labse_tf.cli.output import say_skipped, write_json

if TYPE_CHECKING:
    import numpy as np

    from labse_tf.text import SkipReport


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = arguments.command(
        commands,
        "search",
        _search,
        "print the sentences of files that are nearest in meaning to a query",
        'labse-tf search "where is the station?" phrases.hi.txt phrases.ta.txt',
    )
    parser.add_argument("query", metavar="QUERY", help="a sentence in any language")
    parser.add_argument("files", nargs="+", metavar="FILE", help=arguments.TEXT_HELP)
    arguments.add_side(parser)
    arguments.add_on_error(parser)
    arguments.add_encoder(parser)
    parser.add_argument(
        "--top", type=int, default=5, metavar="N", help="results to print (default: 5)"
    )
    arguments.add_json(parser)


def _search(options: argparse.Namespace) -> None:
    from labse_tf.mining import nearest_neighbors
    from labse_tf.progress import progress_bar
    from labse_tf.text import SkipReport, blocks_of, check_unchanged

    if options.top < 1:
        raise ValueError(f"--top must be positive. Received: {options.top}")
    # In an ASCII locale Python decodes arguments as surrogates of their bytes.
    query = os.fsencode(options.query).decode("utf-8", "replace")
    if not query.strip():
        raise ValueError(f"QUERY must be a sentence. Received: {options.query!r}")
    skipped = SkipReport()
    for file in options.files:  # Before the model is loaded.
        next(_sentences(options, [file], skipped), None)
    encode = open_encoder(options)

    def vectors(advance: Callable[[int], None]) -> Iterator[np.ndarray]:
        for block in blocks_of(_sentences(options, options.files, skipped)):
            yield encode([text for _, _, text in block])
            advance(len(block))

    with progress_bar("Searching", None, "sentences") as advance:
        cosines, rows = nearest_neighbors(
            encode([query]), vectors(advance), options.top
        )
    say_skipped(skipped)
    say_truncated(encode)
    # Read again: memory must not grow with the files.
    wanted = set(rows[0].tolist())
    every = _sentences(options, options.files, skipped)
    read = itertools.islice(every, max(wanted, default=-1) + 1)
    lines = {row: line for row, line in enumerate(read) if row in wanted}
    check_unchanged(" ".join(options.files), len(wanted), len(lines))
    found: list[dict[str, Any]] = [
        {"cosine": round(float(cosine), 4), "file": file, "line": number, "text": text}
        for cosine, row in zip(cosines[0], rows[0].tolist(), strict=True)
        for file, number, text in (lines[row],)
    ]
    if not found:
        raise ValueError(f"FILE must have lines with text. Received: {options.files}")
    for line in found:
        text = line["text"].replace("\n", " ")
        print(f"{line['cosine']:.3f}  {line['file']}:{line['line']}  {text}")
    write_json(options.json, {"query": query, "lines": found})


def _sentences(
    options: argparse.Namespace, files: list[str], skipped: SkipReport
) -> Iterator[tuple[str, int, str]]:
    """Yield (file, line, sentence)."""
    from labse_tf.text import read_numbered, split_language

    for path in files:
        language, place = split_language(path)
        file = path if language is None else str(place)
        for line, text in read_numbered(
            path, side=options.side, on_error=options.on_error, skipped=skipped
        ):
            yield file, line, text
