"""Calls the command line in this process."""

from __future__ import annotations

from labse_tf import cli


def run(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def fails(capsys, *arguments: object) -> str:
    """Runs a command that must end with 2 and one line on standard error."""
    capsys.readouterr()
    assert run(*arguments) == 2
    output = capsys.readouterr()
    lines = output.err.strip().splitlines()
    assert len(lines) == 1, output.err
    assert lines[0].startswith("labse-tf: ")
    assert output.out == ""
    return lines[0]
