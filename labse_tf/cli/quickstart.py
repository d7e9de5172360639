"""The command `quickstart`."""

from __future__ import annotations

import argparse
from typing import Any

from labse_tf.cli.arguments import (
    PAIRS_HELP,
    add_json,
    add_on_error,
    add_output,
    command,
)
from labse_tf.cli.output import write_json
from labse_tf.cli.runs import until_signal, with_steps
from labse_tf.recipes import PretrainingRecipe


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "quickstart",
        _quickstart,
        "train, measure, export and serve a small encoder in minutes",
        "labse-tf quickstart --output labse-quickstart",
    )
    add_output(parser, "DIR", "output directory", default="labse-quickstart")
    parser.add_argument(
        "--pairs",
        nargs="+",
        metavar="FILE",
        help="your own text (default: messages of software that pip has installed); "
        + PAIRS_HELP,
    )
    parser.add_argument(
        "--languages",
        nargs="+",
        metavar="CODE",
        help="languages, such as hi bn ta (default: all of --pairs, else 20 languages)",
    )
    add_on_error(parser)
    parser.add_argument("--fresh", action="store_true", help="delete earlier results")
    parser.add_argument(
        "--train-steps",
        type=int,
        metavar="N",
        help="number of steps on pairs (default: 400)",
    )
    parser.add_argument(
        "--pretrain-steps",
        type=int,
        metavar="N",
        help="number of steps of the masked language model; 0 skips it (default: 100)",
    )
    parser.add_argument(
        "--vocabulary-size",
        type=int,
        metavar="N",
        help="maximum number of tokens in the vocabulary (default: 8000)",
    )
    add_json(parser)


def _quickstart(options: argparse.Namespace) -> int | None:
    from labse_tf import quickstart

    recipe = quickstart.RECIPE
    if options.train_steps is not None:
        recipe = with_steps(recipe, options.train_steps)
    recipe.check()
    pretraining: PretrainingRecipe | None = quickstart.PRETRAINING
    if options.pretrain_steps is not None:
        steps = options.pretrain_steps
        pretraining = with_steps(quickstart.PRETRAINING, steps) if steps else None
    result = until_signal(
        lambda: quickstart.quickstart(
            options.output,
            pairs=options.pairs,
            languages=options.languages,
            recipe=recipe,
            pretraining=pretraining,
            vocabulary_size=(
                quickstart.VOCABULARY_SIZE
                if options.vocabulary_size is None
                else options.vocabulary_size
            ),
            on_error=options.on_error,
            fresh=options.fresh,
        )
    )
    if isinstance(result, int):
        return result
    quickstart.print_result(result)
    write_json(options.json, result.to_dict())
    return None
