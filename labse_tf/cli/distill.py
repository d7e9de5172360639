"""The command `distill`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from labse_tf.cli.arguments import MODELS, add_json, add_text
from labse_tf.cli.output import load, say_counts, say_skipped
from labse_tf.cli.runs import add_run, recipe_of, run_options, until_signal
from labse_tf.cli.train import say_summary
from labse_tf.distillation.recipe import (
    DISTILLATION_RECIPES,
    DistillationRecipe,
    get_distillation_recipe,
)


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    from labse_tf.cli.arguments import command

    parser = command(
        commands,
        "distill",
        _distill,
        "train a small encoder to return the vectors of a large one",
        "labse-tf distill en-hi.tsv en-ta.tsv --teacher e5 --model student -o small",
    )
    add_text(parser)
    parser.add_argument(
        "--teacher", metavar="MODEL", required=True, help=f"teacher: {MODELS}"
    )
    parser.add_argument(
        "--teacher-prefix",
        default="",
        metavar="TEXT",
        help='text before each text for the teacher, such as "query: " for E5 '
        "(default: none)",
    )
    parser.add_argument(
        "--teacher-vectors",
        metavar="DIR",
        help="directory of the teacher's vectors, which other runs can use again "
        "(default: OUTPUT.teacher)",
    )
    parser.add_argument("--model", required=True, metavar="MODEL", help="student")
    add_run(parser, DISTILLATION_RECIPES)
    parser.add_argument(
        "--dev",
        nargs="+",
        default=[],
        metavar="FILE",
        help="held-out pairs, in the formats of FILE; the log gets their accuracy, and "
        "the model the weights with the highest accuracy, see --keep-best",
    )
    add_json(parser)


def _distill(options: argparse.Namespace) -> int | None:
    recipe = recipe_of(options, DistillationRecipe, get_distillation_recipe)
    how = run_options(options)
    from labse_tf import data, distillation
    from labse_tf.encoders import as_preset, fingerprint, open_encoder

    report = data.SkipReport()
    files = data.find_pair_files(options.files)
    pairs = load(options, files, data.load_pairs, report)
    dev = None
    if options.dev:
        dev = load(options, data.find_pair_files(options.dev), data.load_pairs, report)
    say_skipped(report)
    say_counts(pairs.counts, "pairs")
    vectors = options.teacher_vectors or f"{options.output}.teacher"
    if (Path(options.teacher) / "teacher.json").is_file():
        store, encode = distillation.TeacherVectors(options.teacher), None
    else:
        name = fingerprint(options.teacher, "auto")
        store = distillation.TeacherVectors(vectors, name, options.teacher_prefix)
        encode = open_encoder(options.teacher, "auto").encode
    with as_preset(options.model) as model:
        result = until_signal(
            lambda: distillation.distill(
                recipe,
                pairs,
                options.output,
                student=model,
                teacher=store,
                encode=encode,
                dev=dev,
                options=how,
            )
        )
    if isinstance(result, int):
        return result
    say_summary(options)
    return None
