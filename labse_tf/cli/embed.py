"""The command embed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from labse_tf.cli.arguments import add_encoder, add_output, command
from labse_tf.cli.models import open_encoder
from labse_tf.files import atomic_file


def add_command(commands: Any) -> None:
    """Adds the command to the parser of all commands."""
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
    add_encoder(parser)
    add_output(parser, "FILE.npy", "float32 (lines, D)")


def _embed(options: argparse.Namespace) -> None:
    import numpy as np

    from labse_tf.progress import progress_bar

    path, output = Path(options.file), Path(options.output)
    if output.suffix != ".npy":
        raise ValueError(f"--output must end with .npy. Received: {output}")
    total = sum(len(block) for block in line_blocks(path))
    encode = open_encoder(options.model, options.dtype)
    dim = encode([""]).shape[1]
    with atomic_file(output) as temporary:
        # Mapped and filled a block at a time: memory does not grow with the file.
        vectors = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=(total, dim)
        )
        with progress_bar("Encoding", total, "lines") as advance:
            row = 0
            for block in line_blocks(path):
                vectors[row : row + len(block)] = encode(block)
                row += len(block)
                advance(len(block))
        vectors.flush()
    print(f"{total:,} vectors of {dim} in {output}")


def _filled_lines(files: Sequence[str]) -> Iterator[list[tuple[str, int, str]]]:
    """Lines that are not blank, with file and number, some thousands at a time."""
    for file in files:
        number = 0
        for block in line_blocks(Path(file)):
            lines = [(file, number + i, line) for i, line in enumerate(block, start=1)]
            number += len(block)
            filled = [line for line in lines if line[2].strip()]
            if filled:
                yield filled


def line_blocks(path: Path, size: int = 8192) -> Iterator[list[str]]:
    """The lines of a UTF-8 file, some thousands at a time."""
    from labse_tf.text.distinct_lines import decode_line, open_text

    block = []
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            block.append(decode_line(path, number, line))
            if len(block) == size:
                yield block
                block = []
    if block:
        yield block
