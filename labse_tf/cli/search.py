"""The command search."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from labse_tf.cli.arguments import add_encoder, add_json, command
from labse_tf.cli.embed import _filled_lines
from labse_tf.cli.models import open_encoder
from labse_tf.cli.output import write_json

if TYPE_CHECKING:
    import numpy as np


def add_command(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
    parser = command(
        commands,
        "search",
        _search,
        "print the lines of files that are nearest in meaning, in any language",
        'labse-tf search "where is the station?" phrases.hi.txt phrases.ta.txt',
    )
    parser.add_argument("query", metavar="QUERY", help="a sentence in any language")
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="one sentence a line, UTF-8, plain or .gz",
    )
    add_encoder(parser)
    parser.add_argument(
        "--top", type=int, default=5, metavar="N", help="lines to print (default 5)"
    )
    add_json(parser)


def _search(options: argparse.Namespace) -> None:
    from labse_tf.mining import nearest_neighbors
    from labse_tf.progress import progress_bar

    if options.top < 1:
        raise ValueError(f"--top must be positive. Received: {options.top}")
    if not options.query.strip():
        raise ValueError(f"QUERY must be a sentence. Received: {options.query!r}")
    for file in options.files:
        with open(file, "rb"):
            pass  # before the model is loaded
    encode = open_encoder(options.model, options.dtype)

    def vectors(advance: Callable[[int], None]) -> Iterator[np.ndarray]:
        for block in _filled_lines(options.files):
            yield encode([text for _, _, text in block])
            advance(len(block))

    with progress_bar("Searching", None, "lines") as advance:
        cosines, rows = nearest_neighbors(
            encode([options.query]), vectors(advance), options.top
        )
    # Read again: to keep all lines would take memory that grows with the files.
    wanted = set(rows[0].tolist())
    every = (line for block in _filled_lines(options.files) for line in block)
    read = itertools.islice(every, max(wanted, default=-1) + 1)
    lines = {row: line for row, line in enumerate(read) if row in wanted}
    found = [
        {"cosine": round(float(cosine), 4), "file": file, "line": number, "text": text}
        for cosine, row in zip(cosines[0], rows[0].tolist(), strict=True)
        for file, number, text in (lines[row],)
    ]
    if not found:
        raise ValueError(f"expected lines with text. Received: {options.files}, empty")
    for line in found:
        print(f"{line['cosine']:.3f}  {line['file']}:{line['line']}  {line['text']}")
    write_json(options.json, {"query": options.query, "lines": found})
