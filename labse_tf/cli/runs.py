"""What the commands pretrain and train share."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from labse_tf.cli.arguments import (
    add_case,
    add_output,
)
from labse_tf.recipes import (
    BaseRecipe,
)

_R = typing.TypeVar("_R", bound=BaseRecipe)


def with_steps(recipe: _R, steps: int) -> _R:
    """A recipe of fewer or more steps, with a warm-up that fits into them."""
    warmup = min(recipe.warmup_steps, steps // 10)
    return dataclasses.replace(recipe, train_steps=steps, warmup_steps=warmup)


# === Shared by the trainers ===


def add_run(parser: argparse.ArgumentParser, recipes: Mapping[str, Any]) -> None:
    """The arguments of a command that trains."""
    add_output(parser, "DIR", "a preset when the run ends")
    about = "; ".join(f"{name}: {named.about}" for name, named in recipes.items())
    parser.add_argument(
        "--recipe",
        default="small",
        choices=sorted(recipes),
        help="where the values come from that no flag gives (default: small). " + about,
    )
    add_case(parser)
    parser.add_argument(
        "--strategy",
        default="auto",
        help="auto, one_device, mirrored, cpu:N, multi_worker (hosts of TF_CONFIG: the "
        "same command on each) or tpu",
    )
    parser.add_argument(
        "--tpu", default="local", metavar="NAME", help="name or address of the TPU"
    )
    parser.add_argument(
        "--steps-per-execution",
        type=int,
        default=1,
        metavar="N",
        help="steps that TensorFlow does before Python looks again; the weights are "
        "the same",
    )
    parser.add_argument(
        "--on-nan",
        choices=("stop", "skip"),
        default="stop",
        help="at a loss that is not finite: stop and say at which step, or leave the "
        "step out and count it in the log",
    )
    parser.add_argument("--checkpoint-every", type=int, default=1000, metavar="STEPS")
    parser.add_argument("--log-every", type=int, default=50, metavar="STEPS")
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="bit-identical results on the same machine, somewhat slower",
    )


def say_model(output: str) -> None:
    """Says where the model is."""
    from labse_tf import presets

    if presets.is_preset(Path(output)):
        print(f"model: {output}")
    else:
        print(f"the chief has written the model, to its {output}")


def check_run(options: argparse.Namespace) -> None:
    """Refuses numbers of a run that are not positive."""
    check_every(options, "checkpoint_every", "log_every", "steps_per_execution")


def check_every(options: argparse.Namespace, *names: str) -> None:
    """Refuses options that are not positive."""
    for name in names:
        if getattr(options, name) < 1:
            raise ValueError(
                f"--{name.replace('_', '-')} must be positive. "
                f"Received: {getattr(options, name)}"
            )


def run_options(options: argparse.Namespace) -> dict[str, Any]:
    """What both trainers take as it is."""
    names = (
        *("lowercase", "strip_accents", "strategy", "tpu"),
        *("steps_per_execution", "on_nan"),
        *("checkpoint_every", "log_every", "deterministic"),
    )
    return {name: getattr(options, name) for name in names}


def add_recipe_flags(parser: argparse.ArgumentParser, kind: type[BaseRecipe]) -> None:
    """A flag for each field of a recipe."""
    types = typing.get_type_hints(kind)
    titles = {"model": "the model, where it is new", "data": "text"}
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        name = field.metadata["group"]
        if name not in groups:
            groups[name] = parser.add_argument_group(titles.get(name, name))
        settings: dict[str, Any] = {"help": field.metadata["help"]}
        parts = [t for t in typing.get_args(types[field.name]) if t is not type(None)]
        if field.metadata["parse"]:
            settings |= {"nargs": "*", "metavar": "LAYERS:STEPS"}
        elif types[field.name] is bool:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings["type"] = parts[0] if parts else types[field.name]
            settings["choices"] = field.metadata["choices"]
            settings["metavar"] = None if field.metadata["choices"] else "N"
        groups[name].add_argument("--" + field.name.replace("_", "-"), **settings)


def given(options: argparse.Namespace, kind: type[BaseRecipe]) -> dict[str, Any]:
    """The fields of a recipe whose flags were given."""
    given = {}
    for field in dataclasses.fields(kind):
        value = getattr(options, field.name)
        if value is not None:
            parse = field.metadata["parse"]
            given[field.name] = tuple(map(parse, value)) if parse else value
    return given


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
