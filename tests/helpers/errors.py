"""Errors and messages by their fields, so that their prose may be rewritten.

A message of this package names the argument or flag, the file and the line, and ends
with what it received; see `check_message`.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from helpers.command_line import fails


class Fields:
    """The fields of a message, as `check_message` takes them, to hand around."""

    def __init__(self, *names: object, **fields: Any) -> None:
        self.names = names
        self.fields = fields


def check_message(
    message: str,
    *names: object,
    argument: str | None = None,
    path: str | os.PathLike[str] | None = None,
    line: int | None = None,
    received: object = None,
) -> None:
    """Checks the fields of a message.

    Args:
        message: Of an error, a warning or the command line.
        *names: What it must hold anywhere: names, numbers, terms. Letters and digits
            must not go on before or after: 2 is not found in 12. A pattern is
            searched for, `Fields` are checked as such.
        argument: Name of an argument, which stands in backticks, or a flag such as
            `--size`. The message must end with what was received.
        path: Path of a file or its end; with `line`, both as `path:line:`.
        line: The line of that file.
        received: What must be in the part after the last "Received: ", True for
            anything.
    """
    message = re.sub(r"\x1b\[[\d;]*m", "", message)  # Keras's colours
    wanted = []
    for name in names:
        if isinstance(name, Fields):
            check_message(message, *name.names, **name.fields)
        else:
            wanted.append(name)
    if argument is not None:
        wanted.append(argument if argument.startswith("-") else f"`{argument}`")
    if path is not None:
        wanted.append(os.fspath(path) if line is None else f"{path}:{line}:")
    missing = [str(name) for name in wanted if not _holds(message, name)]
    assert not missing, f"{missing} not in: {message}"
    if argument is not None or received is not None:
        _, found, last = message.rpartition("Received: ")
        assert found and last.strip(), f"no `Received: ...` at the end of: {message}"
        if received is not None and received is not True:
            assert _holds(last, received), f"{received} not in: {last}"


@contextlib.contextmanager
def raises(
    kind: type[BaseException] | tuple[type[BaseException], ...],
    *names: object,
    **fields: Any,
) -> Iterator[pytest.ExceptionInfo]:
    """Expects an error of a type, with the fields that `check_message` takes."""
    with pytest.raises(kind) as caught:
        yield caught
    check_message(str(caught.value), *names, **fields)


@contextlib.contextmanager
def warns(kind: type[Warning], *names: object, **fields: Any) -> Iterator[None]:
    """Expects a warning of a type, with the fields that `check_message` takes."""
    with pytest.warns(kind) as caught:
        yield
    messages = [str(warning.message) for warning in caught]
    for message in messages:
        with contextlib.suppress(AssertionError):
            check_message(message, *names, **fields)
            return
    pytest.fail(f"none has {names}, {fields}: {messages}")


def refuses(
    capsys: pytest.CaptureFixture, arguments: object, *names: object, **fields: Any
) -> None:
    """Expects of a command status 2 and one line, with the fields of `check_message`.

    Args:
        capsys: The fixture.
        arguments: Of the command line.
        *names: See `check_message`.
        **fields: See `check_message`.
    """
    check_message(fails(capsys, *arguments), *names, **fields)


def _holds(text: str, part: object) -> bool:
    if isinstance(part, re.Pattern):
        return part.search(text) is not None
    part = str(part)
    before = r"(?<!\w)" if re.match(r"\w", part) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", part) else ""
    return re.search(before + re.escape(part) + after, text) is not None
