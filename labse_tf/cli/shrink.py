"""The command shrink."""

from __future__ import annotations

import argparse
from typing import Any

from labse_tf.cli import arguments
from labse_tf.cli.convert import STORAGES
from labse_tf.cli.output import print_table, write_json


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = arguments.command(
        commands,
        "shrink",
        _shrink,
        "make a student with fewer blocks or another vocabulary from a teacher",
        "labse-tf shrink teacher --vocab vocab.txt --keep-layers 6 -o student",
    )
    arguments.add_model_by_place(
        parser,
        "teacher; a Hugging Face directory may have a SentencePiece tokenizer.json",
    )
    parser.add_argument(
        "--vocab",
        metavar="FILE",
        help="new vocabulary; the row of a token is the mean of the rows of the "
        "teacher's pieces of its text (default: the teacher's vocabulary)",
    )
    arguments.add_case(parser)
    parser.add_argument(
        "--keep-layers",
        type=_layers,
        metavar="N",
        help="the first N blocks, or the blocks of these numbers from 0, such as "
        "0,2,4 (default: all)",
    )
    parser.add_argument(
        "--sequence-length",
        type=int,
        metavar="N",
        help="maximum tokens per text (default: the teacher's)",
    )
    parser.add_argument(
        "--max-sequence-length",
        type=int,
        metavar="N",
        help="rows of the position table to keep (default: all)",
    )
    parser.add_argument(
        "--drop-prefix",
        action="store_true",
        help="put no prefix before each text, which the teacher may have; each token "
        "keeps its position vector",
    )
    arguments.add_output(parser, "DIR", "directory of the new preset")
    parser.add_argument(
        "--storage",
        choices=STORAGES,
        default="float32",
        help="storage type of the new weights (default: float32)",
    )
    arguments.add_json(parser)


def _layers(text: str) -> int | list[int]:
    """Return a number of blocks, or the numbers of blocks."""
    try:
        if "," in text:
            return [int(part) for part in text.split(",") if part.strip()]
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            "expected a number of blocks such as 6, or numbers of blocks such as "
            f"0,2,4. Received: {text}"
        ) from None


def _shrink(options: argparse.Namespace) -> None:
    from labse_tf import trimming

    if options.model is None:
        raise ValueError("shrink needs MODEL or --model MODEL. Received: neither")
    if options.vocab is None and (
        options.lowercase or options.strip_accents is not None
    ):
        raise ValueError(
            "--lowercase and --strip-accents require --vocab, since a model has its "
            "own tokenizer. Received: --lowercase or --strip-accents without --vocab"
        )
    report = trimming.shrink_preset(
        options.model,
        options.output,
        layers=options.keep_layers,
        vocabulary=options.vocab,
        lowercase=options.lowercase,
        strip_accents=options.strip_accents,
        sequence_length=options.sequence_length,
        max_sequence_length=options.max_sequence_length,
        prefix=not options.drop_prefix,
        storage=options.storage,
    )
    print_table(
        ("", "before", "after"),
        [
            (name, f"{before:,}", f"{after:,}")
            for name, (before, after) in (
                ("layers", report.layers),
                ("tokens", report.tokens),
                ("positions", report.max_sequence_length),
                ("parameters", report.parameters),
            )
        ],
    )
    if report.pieces_per_token is not None:
        print(f"the teacher's pieces per token: {report.pieces_per_token:.2f}")
        print(f"unknown to the teacher, with the mean row: {len(report.unknown):,}")
    if report.agreement is not None:
        print(
            "correlation of the cosines of teacher and student, all pairs of the "
            f"shipped sample: {report.agreement:.3f}"
        )
    print(f"model: {options.output}")
    write_json(options.json, report.to_dict())
