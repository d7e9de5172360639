"""Settings: dataclass fields that carry their help, their flag and their limits.

`recipes` and `training.options` declare their fields with `setting`. The command line
makes its flags from the same fields, and `check_settings` validates them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal


def setting(
    default: Any,
    help: str,
    *,
    group: str | None,
    choices: tuple[str, ...] | None = None,
    parse: Callable[[str], Any] | None = None,
    must_be: Literal["positive", "0 or more"] | None = None,
) -> Any:
    """Declares a dataclass field with what the command line needs for its flag.

    Args:
        default: The field's default value.
        help: One line; also the help of the flag.
        group: The heading of the flag in the command's help; `None` for a field
            without a flag.
        choices: The values that are allowed.
        parse: Parses one value of a flag that takes any number of values.
        must_be: The lower limit of a number. `None` as the field's value passes.

    Returns:
        A `dataclasses.field`.
    """
    metadata = {
        "help": help,
        "group": group,
        "choices": choices,
        "parse": parse,
        "must_be": must_be,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check_settings(settings: Any) -> None:
    """Checks the fields of a dataclass against their limits and choices.

    Args:
        settings: An instance whose fields were declared with `setting`.

    Raises:
        ValueError: If a value is not allowed; the message names the first such field.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        must_be, choices = field.metadata["must_be"], field.metadata["choices"]
        if must_be and value is not None:
            # NaN is in no range.
            if not (value > 0 if must_be == "positive" else value >= 0):
                raise ValueError(f"`{field.name}` must be {must_be}. Received: {value}")
        if choices and value not in choices:
            raise ValueError(
                f"`{field.name}` must be one of {choices}. Received: {value!r}"
            )
