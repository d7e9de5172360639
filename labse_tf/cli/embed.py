"""The command `embed`: sentences to vectors."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labse_tf.cli.arguments import (
    TEXT_HELP,
    add_encoder,
    add_json,
    add_output,
    add_side,
    command,
)
from labse_tf.cli.models import open_encoder, say_truncated
from labse_tf.cli.output import write_json
from labse_tf.files import atomic_file
from labse_tf.pipes import is_stream


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "embed",
        _embed,
        "encode the sentences of a file as vectors",
        "labse-tf embed sentences.txt --model my-model --output vectors.npy",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help=f"{TEXT_HELP}; blank lines of a text also have vectors",
    )
    add_side(parser)
    add_encoder(parser)
    add_output(parser, "FILE.npy", "vectors, float32 (sentences, D)")
    add_json(parser)


def _embed(options: argparse.Namespace) -> None:
    import numpy as np

    from labse_tf.progress import progress_bar
    from labse_tf.text import blocks_of, check_unchanged, read_numbered

    output = options.output
    if not is_stream(output) and Path(output).suffix != ".npy":
        raise ValueError(f"--output must end with .npy. Received: {output}")

    def blocks() -> Iterator[list[str]]:
        numbered = read_numbered(options.file, side=options.side, blank_lines=True)
        return blocks_of(text for _, text in numbered)

    total = sum(map(len, blocks()))
    encode = open_encoder(options)
    dim = encode([""]).shape[1]
    with atomic_file(output) as temporary:
        # Memory-mapped and filled by blocks: memory does not grow with the file.
        vectors = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=(total, dim)
        )
        with progress_bar("Encoding", total, "sentences") as advance:
            row = 0
            for block in blocks():
                check_unchanged(options.file, total, max(total, row + len(block)))
                vectors[row : row + len(block)] = encode(block)
                row += len(block)
                advance(len(block))
        check_unchanged(options.file, total, row)
        vectors.flush()
    say_truncated(encode)
    print(f"{total:,} vectors of {dim} in {output}")
    write_json(
        options.json,
        {
            "output": str(output),
            "model": options.model,
            "dtype": options.dtype,
            "sentences": total,
            "dimension": dim,
        },
    )
