"""Runs: what the commands that train share, and flags from dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from labse_tf.cli.arguments import add_case, add_output
from labse_tf.recipes import BaseRecipe
from labse_tf.training.options import RunOptions

_R = typing.TypeVar("_R", bound=BaseRecipe)

_TITLES = {
    "model": "the model, where it is new",
    "data": "text",
    "run": "how it runs",
}


def with_steps(recipe: _R, steps: int) -> _R:
    """A recipe of fewer or more steps, with a warm-up that fits into them."""
    warmup = min(recipe.warmup_steps, steps // 10)
    return dataclasses.replace(recipe, train_steps=steps, warmup_steps=warmup)


def add_run(
    parser: argparse.ArgumentParser,
    recipes: Mapping[str, Any],
    *,
    without: Collection[str] = (),
) -> None:
    """Adds the arguments of a command that trains.

    Args:
        parser: The command's.
        recipes: The named recipes of its kind.
        without: Fields of `RunOptions` that make no sense for the command.
    """
    add_output(parser, "DIR", "a preset when the run ends")
    about = "; ".join(f"{name}: {named.about}" for name, named in recipes.items())
    parser.add_argument(
        "--recipe",
        default="small",
        choices=sorted(recipes),
        help="where the values come from that no flag gives (default: small). " + about,
    )
    add_case(parser)
    add_settings(parser, RunOptions, without=without, show_defaults=True)
    add_settings(parser, type(recipes["small"].recipe))


def add_settings(
    parser: argparse.ArgumentParser,
    kind: type,
    *,
    without: Collection[str] = (),
    show_defaults: bool = False,
) -> None:
    """Adds a flag for each field of a dataclass, under the titles of their groups.

    Args:
        parser: The command's.
        kind: A dataclass whose fields were declared with `labse_tf.settings.setting`.
        without: Names of fields that get no flag.
        show_defaults: Whether the help shows the fields' own defaults. Those of
            recipes depend on `--recipe`.
    """
    types = typing.get_type_hints(kind)
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        name = field.metadata["group"]
        if name is None or field.name in without:
            continue
        if name not in groups:
            groups[name] = parser.add_argument_group(_TITLES.get(name, name))
        help_text, choices = field.metadata["help"], field.metadata["choices"]
        settings: dict[str, Any] = {"help": help_text}
        parts = [t for t in typing.get_args(types[field.name]) if t is not type(None)]
        plain = parts[0] if parts else types[field.name]
        if field.metadata["parse"]:
            settings |= {"nargs": "*", "metavar": "LAYERS:STEPS"}
        elif plain is bool:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            if show_defaults:
                settings["help"] = f"{help_text} (default: {field.default})"
            metavar = "NAME" if plain is str else "N"
            settings |= {
                "type": plain,
                "choices": choices,
                "metavar": None if choices else metavar,
            }
        groups[name].add_argument("--" + field.name.replace("_", "-"), **settings)


def given(options: argparse.Namespace, kind: type) -> dict[str, Any]:
    """Returns the fields of a dataclass whose flags were given."""
    given = {}
    for field in dataclasses.fields(kind):
        value = getattr(options, field.name, None)
        if value is not None:
            parse = field.metadata["parse"]
            given[field.name] = tuple(map(parse, value)) if parse else value
    return given


def run_options(options: argparse.Namespace) -> RunOptions:
    """Returns the run's options, checked."""
    return RunOptions(**given(options, RunOptions))


def say_model(output: str) -> None:
    """Says where the model is."""
    from labse_tf import presets

    if presets.is_preset(Path(output)):
        print(f"model: {output}")
    else:
        print(f"the chief has written the model, to its {output}")


def until_signal(work: Callable[[], Any]) -> Any:
    """Runs a training; an exit status instead of a result if it ended otherwise."""
    from labse_tf.distribute import WorkerLostError
    from labse_tf.training import EndedElsewhere, Interrupted

    try:
        return work()
    except EndedElsewhere as end:
        print(f"labse-tf: {end}", file=sys.stderr)
        return 0
    except WorkerLostError as lost:
        print(
            f"labse-tf: {lost}; the same command on all hosts goes on from the last "
            "checkpoint",
            file=sys.stderr,
        )
        return 1
    except Interrupted as stop:
        print(f"labse-tf: {stop}; the same command goes on from there", file=sys.stderr)
        return 128 + stop.signal
