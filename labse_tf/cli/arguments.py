"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from labse_tf.pipes import is_stream

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
    """Add a command with its help and an example."""
    parser = commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example: {example}",
    )
    parser.set_defaults(run=run)
    return parser


def needs(
    parser: argparse.ArgumentParser,
    extra: str,
    user: str,
    when: Callable[[argparse.Namespace], Any],
) -> None:
    """State that a command needs an extra, which is checked before it runs.

    Args:
        parser: Parser of the command.
        extra: A name in `labse_tf.extras.EXTRAS`.
        user: What needs the extra, for the error message.
        when: Function of the parsed options; a true value if the extra is needed.
    """
    others = parser.get_default("needs") or ()
    parser.set_defaults(needs=(*others, (extra, user, when)))


PAIRS_HELP = (
    "pairs: en-XX.tsv, .csv, .po, .mo, .tmx, .xlf, .jsonl, .parquet, .tfrecord, two "
    "Moses files (corpus.en corpus.XX), each also .gz, .bz2, .xz or .zst, a directory "
    "of them, or tfds:NAME/CONFIG; XX=FILE if the name and the content do not give the "
    "language; XX=- for standard input"
)


SENTENCES_HELP = "text, one sentence per line (XX.txt, or XX=FILE); or " + PAIRS_HELP


def add_text(
    parser: argparse.ArgumentParser, *, sentences: bool = False, optional: bool = False
) -> None:
    """Add the arguments of a command that reads pairs, or also single sentences."""
    about = SENTENCES_HELP if sentences else PAIRS_HELP
    nargs = "*" if optional else "+"
    parser.add_argument("files", nargs=nargs, metavar="FILE", help=about)
    add_languages(parser)


TEXT_HELP = (
    "text with one sentence per line, or a pair file as for train (.tsv, .po, .tmx, "
    ".jsonl, ...); plain, .gz, .bz2, .xz or .zst; XX=FILE selects the pairs of one "
    "language; - for standard input"
)


def add_side(parser: argparse.ArgumentParser, flag: str = "--side") -> None:
    """Add the flag that selects a side of pairs."""
    parser.add_argument(
        flag,
        default="both",
        choices=("both", "source", "target"),
        help="side of pairs to read: English (source), translations (target) or both, "
        "in the order of the file (default: both)",
    )


def add_languages(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that specify or select languages, and `--on-error`."""
    parser.add_argument(
        "--language",
        metavar="CODE",
        help="language of files not given as XX=FILE; for files with several "
        "languages, the language to read (default: that of the name or the content)",
    )
    parser.add_argument(
        "--languages",
        nargs="+",
        metavar="CODE",
        help="languages to use, in any spelling (hi, hin, hi-IN, Hindi; default: all)",
    )
    add_on_error(parser)


def add_case(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a new tokenizer for uppercase letters and accents."""
    parser.add_argument(
        "--lowercase",
        action="store_true",
        help="convert text to lowercase; without it, the vocabulary is cased, as in "
        "the paper",
    )
    parser.add_argument(
        "--strip-accents",
        action=argparse.BooleanOptionalAction,
        help="delete non-spacing marks (default: with --lowercase only); in Indian "
        "scripts they are vowels, which --no-strip-accents keeps",
    )


def check_case(options: argparse.Namespace) -> None:
    """Raise an error if the flags of a new tokenizer are given with `--model`."""
    strip = {None: "", True: "--strip-accents", False: "--no-strip-accents"}
    flags = ["--lowercase" * options.lowercase, strip[options.strip_accents]]
    if options.model is not None and any(flags):
        raise ValueError(
            "--lowercase and --strip-accents require --vocab, since a model has its "
            f"own tokenizer. Received: --model {options.model} "
            + " ".join(flag for flag in flags if flag)
        )


def add_on_error(parser: argparse.ArgumentParser) -> None:
    """Add `--on-error`."""
    parser.add_argument(
        "--on-error",
        default="raise",
        choices=("raise", "skip"),
        help="for an invalid line: stop, or skip and count it (default: raise)",
    )


def add_layout(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the layout of documents."""
    layout = parser.add_mutually_exclusive_group()
    layout.add_argument(
        "--lines",
        action="store_const",
        const="lines",
        dest="layout",
        default="paragraphs",
        help="each line is one sentence (default: lines are split into sentences)",
    )
    layout.add_argument(
        "--wrapped",
        action="store_const",
        const="wrapped",
        dest="layout",
        help="the text is hard-wrapped: only a blank line ends a paragraph",
    )


def add_run_vectors(parser: argparse.ArgumentParser) -> None:
    """Add `--run-vectors`, how several sentences become one vector."""
    parser.add_argument(
        "--run-vectors",
        choices=("text", "sum"),
        default="text",
        help="vectors of several sentences: embed the joined text, or add the vectors "
        "of the sentences, which is faster and less exact (default: text)",
    )


def add_encoder(parser: argparse.ArgumentParser) -> None:
    """Add the encoder's arguments of a command that embeds text."""
    add_model(parser, "encoder", default=DEFAULT_MODEL)
    add_dtype(parser)
    parser.add_argument(
        "--sequence-length",
        type=int,
        metavar="N",
        help="maximum tokens per text; longer texts are cut, and their number is "
        "reported (default: the model's, mostly 64)",
    )
    add_dim(parser)


def add_model(parser: Any, purpose: str, *, default: str | None = None) -> None:
    """Add `--model`; `purpose` is a noun phrase for the help, such as "encoder"."""
    ending = f" (default: {default})" if default else ""
    parser.add_argument(
        "--model", default=default, metavar="MODEL", help=f"{purpose}: {MODELS}{ending}"
    )


def add_model_by_place(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add the positional `MODEL`, and `--model MODEL` as in all other commands."""
    parser.add_argument(
        "model",
        nargs="?",
        default=argparse.SUPPRESS,
        metavar="MODEL",
        help="the same as --model MODEL",
    )
    add_model(parser, purpose)


def add_dtype(parser: argparse.ArgumentParser) -> None:
    """Add the compute type of a model."""
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16", "auto"),
        help="compute type; bfloat16 is up to twice as fast on machines with bfloat16 "
        "instructions; auto: bfloat16 on such machines (default: float32)",
    )


def add_dim(parser: argparse.ArgumentParser) -> None:
    """Add `--dim`, a smaller size of vectors."""
    parser.add_argument(
        "--dim",
        type=int,
        metavar="N",
        help="cut vectors to their first N components, normalized again: a smaller "
        "size of a model that was trained with --dims (default: whole vectors)",
    )


def add_margin(parser: argparse.ArgumentParser) -> None:
    """Add the flags of margin scores."""
    parser.add_argument(
        "--margin",
        default="ratio",
        choices=("ratio", "distance", "cosine"),
        help="score: the cosine divided by (ratio), minus (distance) or without "
        "(cosine) the mean cosine with the neighbors of both sides (default: ratio)",
    )
    parser.add_argument(
        "--k", type=int, default=4, metavar="K", help="number of neighbors (default: 4)"
    )


def add_mean_floor(parser: argparse.ArgumentParser) -> None:
    """Add `--mean-floor`, against high margin scores of isolated sentences."""
    parser.add_argument(
        "--mean-floor",
        type=float,
        default=0.05,
        metavar="SHARE",
        help="quantile of the mean cosines with the neighbors to which smaller means "
        "are raised, because isolated sentences would have high scores; 0: none, as in "
        "evaluate bucc (default: 0.05)",
    )


def add_output(
    parser: argparse.ArgumentParser,
    metavar: str,
    help: str,
    *,
    required: bool = True,
    default: str | None = None,
) -> None:
    """Add `-o` or `--output`; for a file, `-` is standard output."""
    help += "" if metavar == "DIR" else "; - for standard output"
    parser.add_argument(
        "-o",
        "--output",
        required=required and default is None,
        default=default,
        metavar=metavar,
        type=_directory if metavar == "DIR" else str,
        help=help + (f" (default: {default})" if default else ""),
    )


def _directory(path: str) -> str:
    """Return the path of an output directory, which cannot be a stream."""
    if is_stream(path):
        raise argparse.ArgumentTypeError(f"expected a directory. Received: {path}")
    return path


def add_work(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--work`, the folder for the state of a command that can resume."""
    parser.add_argument(
        "--work",
        metavar="DIR",
        help=f"folder for {what}; if interrupted, run the same command again to resume "
        "(default: OUTPUT.work, removed at the end)",
    )


def add_pair_output(parser: argparse.ArgumentParser, table: str) -> None:
    """Add `--output` and `--format` of a command that writes pairs.

    `table` describes the default lines of TSV.
    """
    add_output(
        parser,
        "FILE",
        "pairs: .tsv (see --format), .jsonl, .tmx or .parquet, which have languages "
        "and scores; each except .parquet also .gz, .bz2, .xz or .zst",
    )
    parser.add_argument(
        "--format",
        choices=("table", "pairs"),
        default="table",
        help=f"lines of .tsv: {table} (table), or English<TAB>translation, as in "
        "en-XX.tsv for train (pairs) (default: table)",
    )


def add_plot(parser: argparse.ArgumentParser, help: str) -> None:
    """Add `--plot`, for a plot of the results."""
    parser.add_argument(
        "--plot",
        metavar="FILE.png",
        help=f"draw {help} (pip install 'labse-tf[plots]')",
    )
    needs(parser, "plots", "--plot", lambda options: options.plot)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, for the results as JSON."""
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="also write the results as JSON; - for standard output",
    )


# === Cleaning and preparing, here and as pipelines ===

# Fields of `CleaningRules`, not imported to keep the parser fast; a test compares.
CLEANING_NUMBERS: dict[str, tuple[type, str]] = {
    "min_characters": (int, "characters per side (default: 10, as in the paper)"),
    "max_characters": (int, "characters per side (default: 5000, as in the paper)"),
    "min_letters": (float, "share of letters in visible text (default: 0.5)"),
    "min_script": (float, "share of letters in the side's own script (default: 0.4)"),
    "max_length_ratio": (float, "ratio of the lengths of the sides (default: 3.0)"),
}


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Add the cleaning rules."""
    parser.add_argument(
        "--held-out",
        nargs="+",
        default=[],
        metavar="[NAME=]PATH",
        help="test sets; removes pairs that contain one of their sentences on either "
        "side, in any language",
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
        help="first remove tags, placeholders and accelerators of interface messages "
        "from the sentences",
    )
    parser.add_argument(
        "--short",
        action="store_true",
        help="rules for short text, such as interface messages: at least 2 characters "
        "per side instead of 10",
    )
    for name, (kind, meaning) in CLEANING_NUMBERS.items():
        parser.add_argument(
            "--" + name.replace("_", "-"), type=kind, metavar="N", help=meaning
        )


def rules_of(options: argparse.Namespace) -> tuple[CleaningRules, list[HeldOut]]:
    """Return the cleaning rules and held-out sets of the arguments."""
    from labse_tf import data

    given = {name: getattr(options, name) for name in CLEANING_NUMBERS}
    create = data.CleaningRules.short if options.short else data.CleaningRules
    rules = create(
        **{name: value for name, value in given.items() if value is not None},
        interface=options.interface,
    ).without(options.without)
    held_out = [data.HeldOut.parse(text) for text in options.held_out]
    for each in held_out:
        print(f"{each.name}: {len(each):,} sentences held out", file=sys.stderr)
    return rules, held_out


def add_shards(parser: argparse.ArgumentParser) -> None:
    """Add the tokenizer, output and format of prepared pairs."""
    tokenizer = parser.add_mutually_exclusive_group(required=True)
    tokenizer.add_argument("--vocab", metavar="FILE", help="vocabulary of a new model")
    add_model(tokenizer, "model whose tokenizer to use")
    add_case(parser)
    add_output(parser, "DIR", "output directory, local or gs://bucket/folder")
    parser.add_argument(
        "--format",
        nargs="+",
        default=("arrays", "tfrecord"),
        choices=("arrays", "tfrecord"),
        help="arrays for training from memory, also without TensorFlow; tfrecord for "
        "streaming (default: both)",
    )
    parser.add_argument(
        "--sequence-length",
        type=int,
        default=128,
        metavar="N",
        help="maximum tokens per sentence; training may use fewer (default: 128)",
    )
    parser.add_argument(
        "--shard-size",
        type=int,
        default=1 << 16,
        metavar="N",
        help="pairs per shard (default: 65536)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="shuffle seed (default: 0)"
    )


def tokenizer_of(options: argparse.Namespace) -> WordPieceTokenizer:
    """Return the tokenizer of the arguments."""
    from labse_tf import tokenizers

    check_case(options)
    if options.model is not None:
        from labse_tf.encoders import load_model

        return load_model(options.model).text_preprocessor().tokenizer
    return tokenizers.WordPieceTokenizer(
        options.vocab, lowercase=options.lowercase, strip_accents=options.strip_accents
    )
