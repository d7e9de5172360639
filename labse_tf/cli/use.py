"""Commands that use a model: embed, search."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.cli.commands import (
    DEFAULT_MODEL,
    add_json,
    add_model,
    command,
    encoder,
    write_json,
)
from labse_tf.files import whole_file

if TYPE_CHECKING:
    import numpy as np

# === embed ===


def _add_embed(commands: Any) -> None:
    parser = command(
        commands,
        "embed",
        _embed,
        "turn the lines of a file into vectors",
        "labse-tf embed sentences.txt --model my-model --output vectors.npy",
    )
    parser.add_argument(
        "file", metavar="FILE", help="one sentence a line, UTF-8, plain or .gz"
    )
    add_model(parser)
    parser.add_argument(
        "--output", required=True, metavar="FILE.npy", help="float32 (lines, D)"
    )


def _embed(options: argparse.Namespace) -> None:
    import numpy as np

    from labse_tf.progress import progress_bar

    path, output = Path(options.file), Path(options.output)
    if output.suffix != ".npy":
        raise ValueError(f"--output must end with .npy. Received: {output}")
    total = sum(len(block) for block in _line_blocks(path))
    encode = encoder(options.model, options.dtype)
    dim = encode([""]).shape[1]
    with whole_file(output) as temporary:
        # Mapped and filled a block at a time: memory does not grow with the file.
        vectors = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=(total, dim)
        )
        with progress_bar("Encoding", total, "lines") as advance:
            row = 0
            for block in _line_blocks(path):
                vectors[row : row + len(block)] = encode(block)
                row += len(block)
                advance(len(block))
        vectors.flush()
    print(f"{total:,} vectors of {dim} in {output}")


# === search ===


def _add_search(commands: Any) -> None:
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
    add_model(parser, default=DEFAULT_MODEL)
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
    encode = encoder(options.model, options.dtype)

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


def _filled_lines(files: Sequence[str]) -> Iterator[list[tuple[str, int, str]]]:
    """Lines that are not blank, with file and number, some thousands at a time."""
    for file in files:
        number = 0
        for block in _line_blocks(Path(file)):
            lines = [(file, number + i, line) for i, line in enumerate(block, start=1)]
            number += len(block)
            filled = [line for line in lines if line[2].strip()]
            if filled:
                yield filled


def _line_blocks(path: Path, size: int = 8192) -> Iterator[list[str]]:
    """The lines of a UTF-8 file, some thousands at a time."""
    from labse_tf.mining.texts import decode_line, open_text

    block = []
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            block.append(decode_line(path, number, line))
            if len(block) == size:
                yield block
                block = []
    if block:
        yield block


COMMANDS = (_add_embed, _add_search)
