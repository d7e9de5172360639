"""The command `train`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from labse_tf.cli import arguments
from labse_tf.cli.output import load, say_counts, say_skipped
from labse_tf.cli.runs import add_run, given, run_options, say_model, until_signal
from labse_tf.encoders import as_preset
from labse_tf.recipes import RECIPES, Recipe, get_recipe

if TYPE_CHECKING:
    from labse_tf.data import SkipReport


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = arguments.command(
        commands,
        "train",
        _train,
        "train a sentence encoder on pairs of translations",
        "labse-tf train en-hi.tsv en-bn.tsv --vocab vocab.txt --output my-model",
    )
    arguments.add_text(parser)
    start = parser.add_mutually_exclusive_group(required=True)
    arguments.add_model(start, "model to start from")
    start.add_argument("--vocab", metavar="FILE", help="vocabulary of a new model")
    add_run(parser, RECIPES)
    parser.add_argument(
        "--stream",
        action="store_true",
        help="stream the TFRecords of a prepared directory instead of reading its "
        "arrays into memory",
    )
    parser.add_argument(
        "--dev",
        nargs="+",
        default=[],
        metavar="FILE",
        help="held-out pairs, in the formats of FILE; the log gets their accuracy",
    )


def _train(options: argparse.Namespace) -> int | None:
    recipe = get_recipe(options.recipe, **given(options, Recipe))
    how = run_options(options)
    from labse_tf import data, training

    report = data.SkipReport()
    pairs = _training_pairs(options, report)
    dev = None
    if options.dev:
        dev = load(options, data.find_pair_files(options.dev), data.load_pairs, report)
    say_skipped(report)
    say_counts(pairs.counts, "pairs")
    with as_preset(options.model) as model:
        result = until_signal(
            lambda: training.train_dual_encoder(
                recipe,
                pairs,
                options.output,
                model=model,
                vocabulary=options.vocab,
                lowercase=options.lowercase,
                strip_accents=options.strip_accents,
                dev=dev,
                options=how,
            )
        )
    if isinstance(result, int):
        return result
    say_model(options.output)
    return None


def _training_pairs(options: argparse.Namespace, report: SkipReport) -> Any:
    """Return the pairs of files or of a prepared directory."""
    from labse_tf import data

    prepared = [path for path in options.files if data.is_prepared(path)]
    if not prepared:
        files = data.find_pair_files(options.files)
        return load(options, files, data.load_pairs, report)
    if len(options.files) > 1 or options.language is not None:
        raise ValueError(
            "A prepared directory must be the only input, without --language. "
            f"Received: {' '.join(options.files)}"
        )
    path, languages = prepared[0], options.languages
    if options.stream or "arrays" not in data.read_description(path).formats:
        return data.PairStream(path, languages=languages)
    return data.open_prepared(path, languages=languages)
