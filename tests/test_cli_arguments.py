"""A flag means the same in every command."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator

import pytest

from helpers.command_line import fails
from labse_tf import cli, quickstart
from labse_tf.cli.arguments import DEFAULT_MODEL, MODELS

USES_AN_ENCODER = {
    *("embed", "search", "mine", "align", "align-documents", "filter", "review"),
}
USES_AN_ENCODER |= {"evaluate"}


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


LISTED = ["evaluate", "evaluate retrieval", "train", "doctor"]  # With `--help`.
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
        *("distill", "shrink", "extend", "align", "align-documents", "review"),
    }


# === Help ===


def described(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """The help of an argument as it is printed."""
    return parser._get_formatter()._expand_help(action)


@pytest.mark.parametrize(
    "name, parser", list(parsers()), ids=lambda value: str(value)[:30]
)
def test_every_flag_has_help_and_a_default(name, parser) -> None:
    for action in parser._actions:
        assert action.help, (name, action.dest)
        takes_a_value = action.option_strings and action.nargs != 0
        switch = isinstance(action, argparse.BooleanOptionalAction)
        if (takes_a_value or switch) and not action.required:
            assert "default" in described(action, parser), (name, action.dest)


def test_defaults_in_the_help_are_true() -> None:
    texts = {}
    for name, parser in parsers():
        for action in parser._actions:
            texts[name, action.dest] = text = described(action, parser)
            stated = re.search(r"\(default: ([\w.]+)\)", text)
            plain = action.default != argparse.SUPPRESS
            if stated and plain and type(action.default) in (int, float, str):
                assert stated[1] == (str(action.default) or "none"), (name, action.dest)
    assert texts["train", "margin"].endswith("(default in small: 0.3)")
    assert texts["train", "cap"].endswith("(default in small: none)")
    assert texts["train", "lora"].endswith("(default in small: none)")
    assert texts["distill", "lora_alpha"].endswith("(default: twice the rank)")
    assert texts["train", "keep_adapters"].endswith("(default: off)")
    assert ("pretrain", "keep_adapters") not in texts
    assert texts["train", "deterministic"].endswith("(default: off)")
    assert texts["search", "json"].endswith("(default: none)")
    for field, value in (
        ("train_steps", quickstart.RECIPE.train_steps),
        ("pretrain_steps", quickstart.PRETRAINING.train_steps),
        ("vocabulary_size", quickstart.VOCABULARY_SIZE),
    ):
        assert texts["quickstart", field].endswith(f"(default: {value})")


def exits(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(list(words))
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


@pytest.mark.parametrize("words", ["", "--version", "train x", *LISTED])
def test_help_and_mistakes_need_only_the_standard_library(words, run_python) -> None:
    """They take a tenth of a second, and work where a package is missing or damaged."""
    help_of = [*words.split(), "--help"] if words in LISTED else words.split()
    found = run_python(
        f"""
        import contextlib, sys
        before = set(sys.modules)  # What the environment imports at the start.
        from labse_tf import cli
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
            cli.main({help_of})
        roots = {{name.partition(".")[0] for name in set(sys.modules) - before}}
        print(*roots - sys.stdlib_module_names, *({{"ctypes", "secrets"}} & roots))
        """
    )
    assert found.split() == ["labse_tf"]


def test_the_list_of_commands(capsys) -> None:
    code, listed, _ = exits(capsys, "--help")
    assert code == 0
    names = {name.split()[0] for name, _ in parsers()}
    assert names == set(re.findall(r"(?m)^  ([a-z][a-z-]*)  ", listed))
    assert "python -m labse_tf.beam" in listed and "train a model:" in listed
    # Without a command the same list, and the status of a missing argument.
    assert exits(capsys) == (2, listed, "")
    assert "tatoeba" in exits(capsys, "evaluate")[1]


@pytest.mark.parametrize(
    "words, expected",
    {
        "trian x.tsv": "train",
        "evaluate tatoba data": "tatoeba",
        "--verison": "--version",
        "embed x.txt --outptu v.npy": "--output",
        "embed x.txt --modle=m -o v.npy": "--model",
        "train x.tsv --batch_size 3 -o out": "--batch-size",
        "embed x.txt -output v.npy": "--output",
        "search query x.txt -top 3": "--top",
    }.items(),
)
def test_the_nearest_flag_or_command_is_suggested(capsys, words, expected) -> None:
    code, out, message = exits(capsys, *words.split())
    assert (code, out) == (2, "")
    assert message.count("\n") == 1 and message.startswith("labse-tf")
    assert re.search(rf"expected {expected}\. Received: \S+; `labse-tf", message)


def test_words_that_look_like_flags_are_still_texts() -> None:
    parse = cli.build_parser().parse_args
    assert parse(["search", "--", "--weird", "x.txt"]).query == "--weird"
    assert parse(["search", "--two words", "x.txt"]).query == "--two words"
    assert parse(["search", "-5", "x.txt"]).query == "-5"


@pytest.mark.parametrize(
    "name", ["LaBSE", "sentence-transformers/LaBSE", "labse", "google/labse"]
)
def test_a_published_model_points_to_convert(capsys, tmp_path, name) -> None:
    text = tmp_path / "x.txt"
    text.write_text("Hello.\n", encoding="utf-8")
    message = fails(capsys, "search", "a", text, "--model", name)
    assert "labse-tf convert labse --output" in message and repr(name) in message


def test_unknown_models_name_the_known(capsys, tmp_path) -> None:
    text = tmp_path / "x.txt"
    text.write_text("Hello.\n", encoding="utf-8")
    message = fails(capsys, "search", "a", text, "--model", "nobody/unknown")
    assert DEFAULT_MODEL in message and "lealla-small" in message


# === Extras ===

PLOTS = [
    "align {pairs} {pairs} -o {out}",
    "balance {pairs}",
    "filter {pairs} --threshold 0.5 -o {out}",
    "evaluate retrieval {pairs}",
    "evaluate xsim {pairs}",
    "evaluate tatoeba {folder}",
    "evaluate bucc {folder}",
    "evaluate sts {folder}",
]


@pytest.mark.parametrize(
    "words, module, extra",
    [(f"{words} --plot {{out}}.png", "matplotlib", "plots") for words in PLOTS]
    + [
        ("evaluate all {folder} -o {out}", "matplotlib", "plots"),
        ("mine {pairs} {pairs} -o {out} --index faiss", "faiss", "mining"),
        (
            "export --model labse-nano -o {out} --serving",
            "tensorflow_serving",
            "serving",
        ),
        ("convert labse-nano -o {out} --to huggingface", "safetensors", "convert"),
    ],
)
def test_a_missing_extra_is_noticed_before_the_work(
    capsys, tmp_path, monkeypatch, words, module, extra
) -> None:
    (tmp_path / "en-hi.tsv").write_text("a\tb\n", encoding="utf-8")
    places = {"pairs": "en-hi.tsv", "folder": ".", "out": "out"}
    command = [word.format(**places) for word in words.split()]
    options = cli.build_parser().parse_args(command)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)

    def works(options: argparse.Namespace) -> None:
        raise AssertionError("the work has begun")

    options.run = works
    assert cli.run_command("labse-tf", options) == 2
    assert f"pip install 'labse-tf[{extra}]'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["en-hi.tsv"]


def test_every_plot_needs_the_extra() -> None:
    plots = {name for name, action in ACTIONS if action.dest == "plot"}
    assert plots == {" ".join(words.split(" {")[0].split()) for words in PLOTS}
