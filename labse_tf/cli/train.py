"""The command `train`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.cli.arguments import (
    MODELS,
    add_json,
    add_model,
    add_text,
    check_case,
    command,
)
from labse_tf.cli.memory import print_plan, wants_plan
from labse_tf.cli.output import (
    load,
    print_table,
    say_counts,
    say_skipped,
    write_json,
)
from labse_tf.cli.runs import (
    add_run,
    check_adapters,
    given,
    open_text_vectors,
    recipe_of,
    run_options,
    say_model,
    until_signal,
)
from labse_tf.encoders import as_preset, read_sizes
from labse_tf.recipes import RECIPES, Recipe, get_recipe, shape_fields, with_shape

if TYPE_CHECKING:
    from labse_tf.data import SkipReport
    from labse_tf.training import Guide


def add_command(commands: Any) -> None:
    """Add the command to the parser of all commands."""
    parser = command(
        commands,
        "train",
        _train,
        "train a sentence encoder on pairs of translations",
        "labse-tf train en-hi.tsv en-bn.tsv --vocab vocab.txt --output my-model",
    )
    add_text(parser, optional=True)
    start = parser.add_mutually_exclusive_group(required=True)
    add_model(start, "model to start from")
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
        help="held-out pairs, in the formats of FILE; the log gets their accuracy, and "
        "the model the weights with the highest accuracy, see --keep-best",
    )
    parser.add_argument(
        "--guide",
        metavar="MODEL",
        help="encoder by which a sentence of another pair of the batch that is nearer "
        "than the translation is ignored instead of pushed away, against noise and "
        f"near-duplicates in the text: {MODELS}. Its vectors of the text are computed "
        "once, before the first step",
    )
    parser.add_argument(
        "--guide-prefix",
        metavar="TEXT",
        help='text before each text for the guide, such as "query: " for E5 '
        "(default: none)",
    )
    parser.add_argument(
        "--guide-vectors",
        metavar="DIR",
        help="directory of the guide's vectors, which other runs can use again, also "
        "as --teacher-vectors of distill (default: a folder inside OUTPUT, which is "
        "removed at the end)",
    )
    add_json(parser)


def _train(options: argparse.Namespace) -> int | None:
    check_case(options)
    recipe = recipe_of(options, Recipe, get_recipe)
    if options.model is None:
        recipe.check_shape()
    how = run_options(options)
    check_adapters(how, recipe, options.model)
    _check_guide(options, recipe)
    if wants_plan(options):
        _plan(options, recipe)
        return None
    from labse_tf import data, training

    if not options.files:
        raise ValueError("FILE is required. Received: no file")
    guide = None if options.guide is None else _open_guide(options)
    report = data.SkipReport()
    pairs = _training_pairs(options, report)
    dev = None
    if options.dev:
        dev = load(options, data.find_pair_files(options.dev), data.load_pairs, report)
    say_skipped(report)
    say_counts(pairs.counts, "pairs")
    with as_preset(options.model) as model:
        if model is not None:
            _check_shape(
                options.model, training.shape_of(model), given(options, Recipe)
            )
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
                guide=guide,
                options=how,
            )
        )
    if isinstance(result, int):
        return result
    say_summary(options)
    return None


def _check_guide(options: argparse.Namespace, recipe: Recipe) -> None:
    """Raise an error if there are flags of a guide, but no guide."""
    flags = {
        "--guide-prefix": options.guide_prefix,
        "--guide-vectors": options.guide_vectors,
        "--guide-margin": recipe.guide_margin,
    }
    alone = [f"{flag} {value}" for flag, value in flags.items() if value]
    if alone and options.guide is None:
        raise ValueError(
            f"{', '.join(flags)} require --guide. Received: {' '.join(alone)}"
        )


def _open_guide(options: argparse.Namespace) -> Guide:
    """Return the guide, whose vectors lie in the folder of the run by default."""
    from labse_tf.training.guide import DIRECTORY, Guide

    folder = options.guide_vectors or Path(options.output) / DIRECTORY
    prefix = options.guide_prefix or ""
    # The encoder is opened by the run, after TensorFlow's devices are configured.
    return Guide(*open_text_vectors("guide", options.guide, prefix, folder))


def _plan(options: argparse.Namespace, recipe: Recipe) -> None:
    """Print the memory of the run."""
    if options.model is None:
        from labse_tf.tokenizers import load_vocabulary

        sizes: dict[str, Any] = {"vocabulary_size": len(load_vocabulary(options.vocab))}
    else:
        sizes = read_sizes(options.model)
        _check_shape(options.model, shape_fields(sizes), given(options, Recipe))
    recipe = with_shape(recipe, shape_fields(sizes))
    recipe.check_shape()
    print_plan(
        options,
        recipe,
        sizes["vocabulary_size"],
        options.files,
        sizes.get("storage", "float32"),
    )


def say_summary(options: argparse.Namespace) -> None:
    """Print the accuracies on held-out pairs, and write the summary as JSON."""
    from labse_tf import presets
    from labse_tf.training import summarize

    if presets.is_preset(Path(options.output)):
        summary = summarize(options.output)
        if summary.measured:
            print_table(summary.columns(), summary.rows())
        print(summary)
        write_json(options.json, summary.to_dict() | {"model": options.output})
    say_model(options.output)


def _check_shape(
    model: str, shape: Mapping[str, Any], changes: Mapping[str, Any]
) -> None:
    """Raise an error if a flag contradicts the shape of the model to start from."""
    wrong = [name for name in shape if changes.get(name, shape[name]) != shape[name]]
    if changes.get("stages") and "num_layers" in wrong:
        wrong.remove("num_layers")  # The model grows to this depth.
    if wrong:
        raise ValueError(
            f"A model keeps its shape: with --model {model} expected "
            f"{_written(wrong, shape)}, or no such flag; --stages can make it deeper. "
            f"Received: {_written(wrong, changes)}"
        )


def _written(names: Sequence[str], values: Mapping[str, Any]) -> str:
    """Return values as flags."""
    return " ".join(f"--{name.replace('_', '-')} {values[name]}" for name in names)


def _training_pairs(options: argparse.Namespace, report: SkipReport) -> Any:
    """Return the pairs of files or of a prepared directory."""
    from labse_tf import data

    prepared = [path for path in options.files if data.is_prepared(path)]
    if not prepared:
        if options.stream:
            raise ValueError(
                "--stream requires a prepared directory, see labse-tf prepare. "
                f"Received: {' '.join(options.files)}"
            )
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
