"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labse_tf.data import CleaningRules, HeldOut
    from labse_tf.tokenizers import WordPieceTokenizer

DEFAULT_MODEL = "labse-mini"

MODELS = (
    "a shipped name, a preset or Hugging Face directory, a SavedModel, or a BERT "
    "checkpoint"
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


TEXT_HELP = (
    "text, one sentence per line, or the sentences of pairs in a file that is named as "
    "those of train (.tsv, .po, .tmx, .jsonl, ...); UTF-8; plain, .gz, .bz2, .xz or "
    ".zst; XX=FILE selects the pairs of one language"
)


def add_side(parser: argparse.ArgumentParser, flag: str = "--side") -> None:
    """Which sentences of pairs a command reads."""
    parser.add_argument(
        flag,
        default="both",
        choices=("both", "source", "target"),
        help="which sentences of pairs: English (source), its translations (target) or "
        "both, in the order of the file (default: both)",
    )


def add_languages(parser: argparse.ArgumentParser) -> None:
    """Arguments that say the language of files, or choose some."""
    parser.add_argument(
        "--language",
        metavar="CODE",
        help="of all files that are not given as XX=FILE; of several languages in a "
        "file it chooses",
    )
    parser.add_argument(
        "--languages",
        nargs="+",
        metavar="CODE",
        help="only these, in any spelling (hi, hin, hi-IN, Hindi)",
    )
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


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """`--model` and `--dtype` of a command that embeds text."""
    add_model(parser, "encoder", default=DEFAULT_MODEL)
    add_dtype(parser)


def add_model(parser: Any, purpose: str, *, default: str | None = None) -> None:
    """`--model`, which takes the same kinds of models in every command.

    Args:
        parser: The parser, or a group of its arguments.
        purpose: What the command uses the model for, "encoder".
        default: The model where none is given.
    """
    ending = f" (default: {default})" if default else ""
    parser.add_argument(
        "--model",
        default=default,
        metavar="MODEL",
        help=f"{purpose}: {MODELS}{ending}",
    )


def add_model_by_place(parser: argparse.ArgumentParser, purpose: str) -> None:
    """`MODEL` before the flags, or `--model MODEL` as in all other commands."""
    parser.add_argument(
        "model",
        nargs="?",
        default=argparse.SUPPRESS,
        metavar="MODEL",
        help="the same as --model MODEL",
    )
    add_model(parser, purpose)


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


def add_output(
    parser: argparse.ArgumentParser,
    metavar: str,
    help: str,
    *,
    required: bool = True,
    default: str | None = None,
) -> None:
    """`-o` or `--output`: what the command makes."""
    parser.add_argument(
        "-o",
        "--output",
        required=required and default is None,
        default=default,
        metavar=metavar,
        help=help + (f" (default: {default})" if default else ""),
    )


def add_plot(parser: argparse.ArgumentParser, help: str) -> None:
    """`--plot`: a picture of the results."""
    parser.add_argument(
        "--plot",
        metavar="FILE.png",
        help=f"draw {help} (pip install 'labse-tf[plots]')",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`: the results for programs."""
    parser.add_argument("--json", metavar="FILE", help="write the results there too")


# === Cleaning and preparing, here and as pipelines ===

# Fields of `CleaningRules`, which is not imported for a parser alone; a test compares.
CLEANING_NUMBERS: dict[str, tuple[type, str]] = {
    "min_characters": (int, "least of each side (default: 10, the paper's)"),
    "max_characters": (int, "most of each side (default: 5000, the paper's)"),
    "min_letters": (float, "share of letters in what is visible (default: 0.5)"),
    "min_script": (float, "share of letters in the side's own script (default: 0.4)"),
    "max_length_ratio": (float, "of the two sides (default: 3.0)"),
}


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Which pairs are left out."""
    parser.add_argument(
        "--held-out",
        nargs="+",
        default=[],
        metavar="[NAME=]PATH",
        help="test sets: pairs with one of their sentences on either side, in any "
        "language, go",
    )
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        metavar="RULE",
        help="rules to switch off: too_short, too_long, markup, few_letters, "
        "wrong_script, length_ratio, identical, duplicate, near_duplicate",
    )
    parser.add_argument(
        "--interface",
        action="store_true",
        help="take tags, placeholders and accelerators out of the sentences first, "
        "as messages of programs have them",
    )
    for name, (kind, meaning) in CLEANING_NUMBERS.items():
        parser.add_argument(
            "--" + name.replace("_", "-"), type=kind, metavar="N", help=meaning
        )


def rules_of(options: argparse.Namespace) -> tuple[CleaningRules, list[HeldOut]]:
    """The rules and held-out sets that the user has named."""
    from labse_tf import data

    given = {name: getattr(options, name) for name in CLEANING_NUMBERS}
    rules = data.CleaningRules(
        **{name: value for name, value in given.items() if value is not None},
        interface=options.interface,
    ).without(options.without)
    held_out = [data.HeldOut.parse(text) for text in options.held_out]
    for each in held_out:
        print(f"{each.name}: {len(each):,} sentences held out", file=sys.stderr)
    return rules, held_out


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Where prepared pairs go and how."""
    tokenizer = parser.add_mutually_exclusive_group(required=True)
    tokenizer.add_argument("--vocab", metavar="FILE", help="of a new model")
    add_model(tokenizer, "model whose tokenizer to use")
    add_case(parser)
    add_output(parser, "DIR", "local, or gs://bucket/folder")
    parser.add_argument(
        "--format",
        nargs="+",
        default=("arrays", "tfrecord"),
        choices=("arrays", "tfrecord"),
        help="arrays are read into memory whole and train in any way, also without "
        "TensorFlow; tfrecord is streamed (default: both)",
    )
    parser.add_argument(
        "--sequence-length",
        type=int,
        default=128,
        metavar="N",
        help="most tokens a sentence; training may use fewer (default: 128)",
    )
    parser.add_argument(
        "--shard-size",
        type=int,
        default=1 << 16,
        metavar="N",
        help="pairs of a shard (default: 65536)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the order (default: 0)"
    )


def tokenizer_of(options: argparse.Namespace) -> WordPieceTokenizer:
    """The tokenizer that the user has named."""
    from labse_tf import tokenizers

    if options.model is not None:
        from labse_tf.encoders import load_model

        return load_model(options.model).text_preprocessor().tokenizer
    return tokenizers.WordPieceTokenizer(
        options.vocab,
        lowercase=options.lowercase,
        strip_accents=options.strip_accents,
    )
