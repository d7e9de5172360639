"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

# Of the commands that need none to be named.
DEFAULT_MODEL = "labse-mini"

_MODEL_HELP = (
    "a shipped name, a preset directory, a Hugging Face directory or a SavedModel"
)


def command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    help: str,
    example: str,
) -> argparse.ArgumentParser:
    """Adds a command with its help and an example."""
    parser = commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example: {example}",
    )
    parser.set_defaults(run=run)
    return parser


PAIRS_HELP = (
    "pairs: en-XX.tsv, .po, .mo, .tmx, .xlf, .jsonl, .tfrecord, the two files of Moses "
    "(corpus.en corpus.XX), each also .gz, .bz2, .xz or .zst, a directory of them, or "
    "tfds:NAME/CONFIG; XX=FILE where a file cannot say its language"
)


def add_text(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command that reads pair files."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help=PAIRS_HELP,
    )
    add_languages(parser)


def add_languages(parser: argparse.ArgumentParser) -> None:
    """Arguments that say the language of files, or choose some."""
    parser.add_argument(
        "--language",
        metavar="CODE",
        help="of all files that are not given as XX=FILE; of several languages in a "
        "file it chooses",
    )
    parser.add_argument("--languages", nargs="+", metavar="CODE", help="only these")
    add_on_error(parser)


def add_case(parser: argparse.ArgumentParser) -> None:
    """How a new tokenizer treats capitals and accents."""
    parser.add_argument("--lowercase", action="store_true")
    parser.add_argument(
        "--strip-accents",
        action=argparse.BooleanOptionalAction,
        help="delete non-spacing marks, by default where --lowercase is given; in "
        "Indian scripts they are vowels, so give --no-strip-accents there",
    )


def add_on_error(parser: argparse.ArgumentParser) -> None:
    """What to do at a bad line."""
    parser.add_argument(
        "--on-error",
        default="raise",
        choices=("raise", "skip"),
        help="at a bad line: stop, or count it and go on (default: raise)",
    )


def add_model(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """The model, needed where there is no default."""
    parser.add_argument(
        "--model",
        required=default is None,
        default=default,
        metavar="MODEL",
        help=_MODEL_HELP + (f" (default: {default})" if default else ""),
    )
    add_dtype(parser)


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """The type that a model computes in."""
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "auto"),
        help="compute in bfloat16, twice as fast where the machine has instructions "
        "for it; auto: where it has (default: float32)",
    )


def add_margin(parser: argparse.ArgumentParser) -> None:
    """How pairs are scored against their neighbourhoods."""
    parser.add_argument(
        "--margin",
        default="ratio",
        choices=("ratio", "distance", "cosine"),
        help="score: the cosine over, less, or without the mean cosine with the "
        "neighbours of both (default: ratio)",
    )
    parser.add_argument(
        "--k", type=int, default=4, metavar="K", help="neighbours (default: 4)"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Where results go beside standard output."""
    parser.add_argument("--json", metavar="FILE", help="write the results there too")
