"""Settings: dataclass fields with help text, flag and limits.

`recipes` and `training.options` declare their fields with `setting`. The command line
derives its flags from these fields, and `check_settings` validates the values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from numbers import Integral
from typing import Any, Literal

# Written so that NaN fails, too.
_LIMITS: dict[str, Callable[[Any], bool]] = {
    "positive": lambda value: value > 0,
    "0 or more": lambda value: value >= 0,
    "from 0 to 1": lambda value: 0 <= value <= 1,
}


def setting(
    default: Any,
    help: str,
    *,
    group: str | None,
    choices: tuple[str, ...] | None = None,
    parse: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    must_be: Literal["positive", "0 or more", "from 0 to 1"] | None = None,
) -> Any:
    """Declare a dataclass field with the metadata of its flag.

    Args:
        default: Default value of the field.
        help: Help of the field and of its flag.
        group: Group of the flag in the command's help; `None` for a field without a
            flag.
        choices: Allowed values.
        parse: Parser of one value, for a flag that takes any number of values.
        metavar: Name of one value in the command's help; with `parse` only.
        must_be: Limits of a number. The value `None` is always allowed.
    """
    metadata = {
        "help": help,
        "group": group,
        "choices": choices,
        "parse": parse,
        "metavar": metavar,
        "must_be": must_be,
    }
    return dataclasses.field(default=default, metadata=metadata)


def check_settings(settings: Any) -> None:
    """Check the fields of a dataclass, declared with `setting`.

    Raises:
        ValueError: If a value is not allowed. The message names the first such field.
    """
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        must_be, choices = field.metadata["must_be"], field.metadata["choices"]
        if must_be and value is not None and not _LIMITS[must_be](value):
            raise ValueError(f"`{field.name}` must be {must_be}. Received: {value}")
        if choices and value not in choices:
            raise ValueError(
                f"`{field.name}` must be one of {choices}. Received: {value!r}"
            )


def check_integer(name: str, value: Any, *, smallest: Literal[0, 1]) -> None:
    """Check an integer of Python or NumPy; a bool does not count.

    Args:
        name: Name of the argument, for the message.
        value: Its value.
        smallest: Smallest value allowed.

    Raises:
        ValueError: If the value is not an integer, or less than `smallest`.
    """
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or int(value) < smallest:
        least = "positive" if smallest else "non-negative"
        raise ValueError(
            f"`{name}` must be a {least} integer. Received: {name}={value!r}"
        )
