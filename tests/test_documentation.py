"""What the README and the docstrings show runs."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import os
import re
import shlex
import shutil

import pytest

from helpers.documents import README_BLOCKS, Block, command_lines, read_blocks
from helpers.paths import README, ROOT

SECTIONS = list(
    dict.fromkeys(b.section for b in README_BLOCKS if b.language == "python")
)
COMMANDS = [
    (block.line, command)
    for block in README_BLOCKS
    if block.language in ("bash", "sh", "shell", "console")
    for command in command_lines(block.code)
    if re.match(r"(python3? -m labse_tf|labse-tf)\b", command)
]


def test_readme_exists_and_has_blocks():
    assert README.exists()
    assert SECTIONS, "README.md has no ```python block"
    assert COMMANDS, "README.md shows no labse-tf command"


@pytest.mark.parametrize("section", SECTIONS)
def test_readme_python_blocks_run(section, small_quickstart, tmp_path, monkeypatch):
    """Blocks of one section share their names, in a folder with a quickstart in it."""
    blocks = [
        block
        for block in README_BLOCKS
        if block.section == section and block.language == "python"
    ]
    reasons = [block.skip for block in blocks if block.skip is not None]
    if len(reasons) == len(blocks):
        pytest.skip("; ".join(reasons))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_quickstart, small_quickstart.name)
    names: dict[str, object] = {"__name__": "__readme__"}
    for block in blocks:
        if block.skip is None:
            # Empty lines give the code the line numbers that it has in the README.
            code = "\n" * block.line + block.code
            exec(compile(code, str(README), "exec"), names)
        else:
            # Skipped code is still code.
            ast.parse(block.code)


@pytest.mark.parametrize(
    ("line", "command"), COMMANDS, ids=[f"line {line}" for line, _ in COMMANDS]
)
def test_readme_commands_parse(line, command, capsys):
    from labse_tf import cli

    words = shlex.split(command, comments=True)
    # A redirection is the shell's; so is everything behind it.
    end = next((i for i, w in enumerate(words) if re.match(r"\d*[<>]", w)), len(words))
    arguments = words[1:end] if words[0] == "labse-tf" else words[3:end]
    if words[1:3] == ["-m", "labse_tf.beam"]:
        check_beam_command(arguments)
        return
    try:
        cli.build_parser().parse_args(arguments)
    except SystemExit as end_of_parser:
        told = capsys.readouterr()
        if end_of_parser.code:
            pytest.fail(f"README.md:{line}: {command}\n{told.err}")
        assert {"--help", "-h", "--version"} & set(arguments)


def check_beam_command(arguments):
    """What is not ours is an option that Beam has."""
    pytest.importorskip("apache_beam", reason="the extra `beam` is missing")
    from apache_beam.options.pipeline_options import PipelineOptions

    from labse_tf.beam.commands import build_parser

    options, others = build_parser().parse_known_args(arguments)
    known = PipelineOptions([]).get_all_options()
    names = [other.removeprefix("--").partition("=")[0] for other in others]
    assert [name for name in names if name not in known] == []
    assert options.runner.endswith("Runner")


def test_relative_links_of_the_readme_lead_somewhere():
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    broken = [
        target
        for target in targets
        if not re.match(r"\w+:", target) and not (ROOT / target).exists()
    ]
    assert broken == []


MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "labse_tf").rglob("*.py")
    if path.stem != "__main__"
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name, tmp_path, monkeypatch):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        # A module may need an extra; a fault of our own is none.
        if error.name is None or error.name.partition(".")[0] == "labse_tf":
            raise
        pytest.skip(f"{name} needs {error.name}")
    monkeypatch.chdir(tmp_path)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        failed, _ = doctest.testmod(
            module,
            optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS,
        )
    assert failed == 0, f"{failed} examples of {name} fail; they are printed above"


def test_blocks_are_found():
    text = "\n".join(
        [
            "# One",
            "```python",
            "a = 1",
            "# no heading",
            "```",
            "## Two",
            "<!-- skip-test: needs a model -->",
            "",
            "```python",
            "b = 2",
            "```",
            "<!-- skip-test: forgotten -->",
            "words",
            "  ```bash",
            "  labse-tf embed \\",
            "    x > y",
            "  ```",
        ]
    )
    assert read_blocks(text) == [
        Block("One", 2, "python", "a = 1\n# no heading", None),
        Block("Two", 9, "python", "b = 2", "needs a model"),
        Block("Two", 14, "bash", "labse-tf embed \\\n  x > y", None),
    ]
    assert command_lines("cd a && labse-tf embed \\\n  x > y\n# c\n$ ls | wc") == [
        *("cd a", "labse-tf embed x > y", "ls", "wc"),
    ]
