"""The command extend."""

from __future__ import annotations

import argparse
from typing import Any

from labse_tf.cli import arguments
from labse_tf.cli.convert import STORAGES
from labse_tf.cli.output import print_table, say_skipped, write_json


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = arguments.command(
        commands,
        "extend",
        _extend,
        "add tokens for a language or a domain; texts without them keep their vectors",
        "labse-tf extend labse-nano --vocab-from as.txt --add 4000 -o nano-as, or: "
        "labse-tf extend labse-nano --tokens terms.txt -o nano-terms",
    )
    arguments.add_model_by_place(parser, "model to extend")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--tokens",
        metavar="FILE",
        help="the new tokens, one per line: words, and pieces inside words with ##, as "
        "the tokenizer splits text (default: chosen from --vocab-from)",
    )
    source.add_argument(
        "--vocab-from",
        nargs="+",
        metavar="FILE",
        help="choose the tokens that shorten this text most: text (XX.txt, or "
        f"XX=FILE), or {arguments.PAIRS_HELP} (default: those of --tokens)",
    )
    parser.add_argument(
        "--add",
        type=int,
        metavar="N",
        help="number of tokens to choose from --vocab-from (required with it; no "
        "default)",
    )
    parser.add_argument(
        "--min-count",
        type=int,
        default=2,
        metavar="N",
        help="choose tokens that occur at least N times in the text (default: 2)",
    )
    arguments.add_languages(parser)
    arguments.add_output(parser, "DIR", "directory of the new preset")
    parser.add_argument(
        "--storage",
        choices=STORAGES,
        default="float32",
        help="storage type of the new weights; float32 is exact, the others may round "
        "old weights (default: float32)",
    )
    arguments.add_json(parser)


def _extend(options: argparse.Namespace) -> None:
    from labse_tf import data, trimming

    if options.model is None:
        raise ValueError("extend needs MODEL or --model MODEL. Received: neither")
    if (options.vocab_from is None) != (options.add is None):
        raise ValueError(
            "--vocab-from FILE requires --add N, and --tokens excludes it. "
            f"Received: --add {options.add}"
        )
    skipped = data.SkipReport()
    report = trimming.extend_preset(
        options.model,
        options.output,
        tokens=options.tokens,
        files=options.vocab_from,
        number=options.add,
        min_count=options.min_count,
        languages=options.languages,
        language=options.language,
        storage=options.storage,
        on_error=options.on_error,
        skipped=skipped,
    )
    say_skipped(skipped)
    print_table(
        ("", "before", "after"),
        [
            (name, f"{before:,}", f"{after:,}")
            for name, (before, after) in (
                ("tokens", report.tokens),
                ("parameters", report.parameters),
            )
        ],
    )
    if report.present:
        print(f"given tokens that the model already had: {report.present:,}")
    if report.characters:
        print(
            "new tokens that are single characters, without which other new tokens "
            f"would turn words into [UNK]: {report.characters:,}"
        )
    if report.unknown:
        print(
            "new tokens that start at the mean of all rows, because the model does not "
            f"know their characters: {len(report.unknown):,}"
        )
    print(report.in_words())
    if report.parity:
        print("old and new model, compared on sentences not used for the choice:")
        print_table(trimming.COLUMNS, report.rows())
    print(f"model: {options.output}")
    write_json(options.json, report.to_dict())
