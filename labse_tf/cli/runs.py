"""Functions that all training commands share, such as flags from dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.cli.arguments import add_case, add_output
from labse_tf.cli.memory import add_plan, wants_plan
from labse_tf.cli.parsing import show_default
from labse_tf.recipes import BaseRecipe, Recipe, read_recipe
from labse_tf.training.options import RunOptions

if TYPE_CHECKING:
    from labse_tf.data import TextVectors
    from labse_tf.encoders import Encoder

_R = typing.TypeVar("_R", bound=BaseRecipe)

_TITLES = {"model": "shape of a new model", "data": "text", "run": "run options"}


def with_steps(recipe: _R, steps: int) -> _R:
    """Return a recipe with another number of steps and a warm-up that fits."""
    warmup = min(recipe.warmup_steps, steps // 10)
    return dataclasses.replace(recipe, train_steps=steps, warmup_steps=warmup)


def add_run(
    parser: argparse.ArgumentParser,
    recipes: Mapping[str, Any],
    *,
    without: Collection[str] = (),
) -> None:
    """Add the arguments of a training command.

    Args:
        parser: Parser of the command.
        recipes: Named recipes of the command.
        without: Names of fields of `RunOptions` without a flag.
    """
    add_output(
        parser, "DIR", "directory of the run, which becomes the preset", required=False
    )
    about = "; ".join(f"{name}: {named.about}" for name, named in recipes.items())
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--recipe",
        default="small",
        choices=sorted(recipes),
        help="values of the flags below that are not given (default: small). " + about,
    )
    start.add_argument(
        "--config",
        metavar="run.json",
        help="run.json of an earlier run, whose recipe gives the values of the flags "
        "below that are not given",
    )
    add_case(parser)
    add_plan(parser)
    add_settings(parser, RunOptions(), without=without)
    name = parser.get_default("recipe")
    add_settings(parser, recipes[name].recipe, where=f" in {name}")


def add_settings(
    parser: argparse.ArgumentParser,
    settings: Any,
    *,
    without: Collection[str] = (),
    where: str = "",
) -> None:
    """Add one flag per field of a dataclass, in groups.

    Args:
        parser: Parser of the command.
        settings: Instance of a dataclass whose fields were declared with
            `labse_tf.settings.setting`. Its values are the defaults in the help.
        without: Names of fields without a flag.
        where: Text after "default" in the help, such as the name of the recipe.
    """
    types = typing.get_type_hints(type(settings))
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        name = field.metadata["group"]
        if name is None or field.name in without:
            continue
        if name not in groups:
            groups[name] = parser.add_argument_group(_TITLES.get(name, name))
        help_text, choices = field.metadata["help"], field.metadata["choices"]
        default = show_default(getattr(settings, field.name))
        if "(default" not in help_text:
            help_text += f" (default{where}: {default})"
        about: dict[str, Any] = {"help": help_text}
        parts = [t for t in typing.get_args(types[field.name]) if t is not type(None)]
        plain = parts[0] if parts else types[field.name]
        if field.metadata["parse"]:
            about |= {"nargs": "*", "metavar": field.metadata["metavar"]}
        elif plain is bool:
            about["action"] = argparse.BooleanOptionalAction
        else:
            metavar = "NAME" if plain is str else "N"
            about |= {
                "type": plain,
                "choices": choices,
                "metavar": None if choices else metavar,
            }
        groups[name].add_argument("--" + field.name.replace("_", "-"), **about)


def given(options: argparse.Namespace, kind: type) -> dict[str, Any]:
    """Return the fields of a dataclass whose flags were given."""
    given = {}
    for field in dataclasses.fields(kind):
        value = getattr(options, field.name, None)
        if value is not None:
            parse = field.metadata["parse"]
            given[field.name] = tuple(map(parse, value)) if parse else value
    return given


def recipe_of(
    options: argparse.Namespace, kind: type[_R], named: Callable[..., _R]
) -> _R:
    """Return the checked recipe of `--recipe` or `--config`, changed by the flags."""
    changes = given(options, kind)
    if options.config is not None:
        return read_recipe(kind, options.config, **changes)
    return named(options.recipe, **changes)


def run_options(options: argparse.Namespace) -> RunOptions:
    """Return the checked run options; a training requires `--output`."""
    if options.output is None and not wants_plan(options):
        raise ValueError("-o/--output is required. Received: no directory")
    return RunOptions(**given(options, RunOptions))


def check_adapters(how: RunOptions, recipe: Recipe, model: str | None) -> None:
    """Raise an error if adapters cannot be kept, before any text is read."""
    from labse_tf.encoders import layout_of

    if not how.keep_adapters:
        return
    if recipe.lora is None:
        raise ValueError("--keep-adapters requires --lora. Received: no --lora")
    if model is not None and layout_of(model) not in (None, "preset"):
        raise ValueError(
            "--keep-adapters requires a preset as --model, to which the adapters "
            f"refer; `labse-tf convert` makes one. Received: --model {model}"
        )


def open_text_vectors(
    role: str, model: str, prefix: str, folder: str | Path
) -> tuple[TextVectors, Callable[[], Encoder]]:
    """Open the vectors of an encoder that a training learns from or asks.

    Args:
        role: What the encoder is in the training, `"teacher"` or `"guide"`.
        model: See `labse_tf.encoders.open_encoder`.
        prefix: Text before each text.
        folder: Directory of the vectors.

    Returns:
        Vectors on disk, and a function that opens the encoder. It raises a `ValueError`
        if the model cannot be opened or has a prefix of its own.

    Raises:
        ValueError: If the model does not exist, or the directory has the vectors of
            another encoder.
    """
    from labse_tf.data import TextVectors
    from labse_tf.encoders import fingerprint, layout_of, open_encoder

    dtype = "float32" if layout_of(model) == "saved_model" else "auto"

    def opened() -> Encoder:
        encoder = open_encoder(model, dtype)
        preprocessor = None if encoder.model is None else encoder.model.preprocessor
        if prefix and preprocessor is not None and preprocessor.prefix:
            raise ValueError(
                f"--{role}-prefix must be left out: the {role} puts its own prefix "
                f"{preprocessor.prefix!r} before each text. Received: {prefix!r}"
            )
        return encoder

    name = f"{Path(model).name} {fingerprint(model, dtype)}"
    return TextVectors(folder, name, prefix), opened


def say_model(output: str) -> None:
    """Print the path of the model."""
    from labse_tf import presets

    if presets.is_preset(Path(output)):
        print(f"model: {output}")
    else:
        print(f"the chief has written the model to {output} on its host")


def until_signal(work: Callable[[], Any]) -> Any:
    """Run a training and return its result, or an exit status if it has none."""
    from labse_tf.distribute import WorkerLostError
    from labse_tf.training import EndedElsewhere, Interrupted

    try:
        return work()
    except EndedElsewhere as end:
        print(f"labse-tf: {end}", file=sys.stderr)
        return 0
    except WorkerLostError as lost:
        print(
            f"labse-tf: {lost}; run the same command on all hosts to resume from the "
            "last checkpoint",
            file=sys.stderr,
        )
        return 1
    except Interrupted as stop:
        print(f"labse-tf: {stop}; run the same command to resume", file=sys.stderr)
        return 128 + stop.signal
