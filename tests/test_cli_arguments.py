"""A flag means the same in every command."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from labse_tf import cli
from labse_tf.cli.arguments import DEFAULT_MODEL, MODELS

USES_AN_ENCODER = {"embed", "search", "mine", "filter", "evaluate"}


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command, and every test of `evaluate`."""

    def below(name: str, parser: argparse.ArgumentParser) -> Iterator:
        nested = [
            a for a in parser._actions if isinstance(a, argparse._SubParsersAction)
        ]
        if not nested:
            yield name, parser
        for action in nested:
            for word, child in action.choices.items():
                yield from below(f"{name} {word}".strip(), child)

    yield from below("", cli.build_parser())


ACTIONS = [(name, action) for name, parser in parsers() for action in parser._actions]


@pytest.mark.parametrize("name, action", ACTIONS, ids=lambda value: str(value)[:30])
def test_shared_flags(name: str, action: argparse.Action) -> None:
    flags = action.option_strings
    if action.dest == "output":
        assert flags == ["-o", "--output"] and action.metavar and action.help
    elif action.dest == "json":
        assert (flags, action.metavar) == (["--json"], "FILE")
    elif action.dest == "plot":
        assert (flags, action.metavar) == (["--plot"], "FILE.png")
    elif action.dest == "model" and flags:
        assert (flags, action.metavar) == (["--model"], "MODEL")
        assert MODELS in action.help
        encoder = name.split()[0] in USES_AN_ENCODER
        assert action.default == (DEFAULT_MODEL if encoder else None)


def test_the_model_may_stand_before_the_flags() -> None:
    parse = cli.build_parser().parse_args
    for words in (["trim", "nano"], ["trim", "--model", "nano"]):
        assert parse([*words, "-o", "new"]).model == "nano"
    assert parse(["trim", "-o", "new"]).model is None


def test_what_is_made_goes_to_output() -> None:
    makes = {name for name, action in ACTIONS if action.dest == "output"}
    assert makes == {
        *("quickstart", "vocab", "clean", "prepare", "pretrain", "train", "embed"),
        *("evaluate all", "mine", "filter", "export", "convert", "trim"),
    }
