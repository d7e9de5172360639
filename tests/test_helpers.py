"""The checks that other tests are made of see what they should."""

from __future__ import annotations

import re
import warnings

import pytest

from helpers.errors import Fields, check_message, raises, warns

MESSAGE = "a/en-hi.tsv:12: `batch_size` must be at most 4 (hi, ta). Received: 'x' in 7"


@pytest.mark.parametrize(
    ("names", "fields"),
    [
        ((4, "hi", "(hi, ta)", re.compile(r"\d \(")), {}),
        ((), {"argument": "batch_size"}),
        ((), {"path": "en-hi.tsv", "line": 12}),
        ((), {"path": "a/en-hi.tsv"}),
        ((), {"received": "'x'"}),
        ((), {"received": True}),
        ((Fields(4, argument="batch_size"), Fields(line=12, path="en-hi.tsv")), {}),
    ],
)
def test_what_is_in_a_message_is_found(names, fields) -> None:
    check_message(MESSAGE, *names, **fields)
    # Keras marks a message up.
    check_message(f"\x1b[1m{MESSAGE}\x1b[0m", *names, **fields)


@pytest.mark.parametrize(
    ("names", "fields"),
    [
        ((2,), {}),
        (("h",), {}),
        ((4, 5), {}),
        ((re.compile("^b"),), {}),
        ((), {"argument": "batch"}),
        ((), {"argument": "--batch-size"}),
        ((), {"path": "en-hi.tsv", "line": 1}),
        ((), {"path": "en-ta.tsv"}),
        ((), {"received": 4}),
        ((Fields(4), Fields(argument="seed")), {}),
    ],
)
def test_what_is_not_in_a_message_is_missed(names, fields) -> None:
    with pytest.raises(AssertionError):
        check_message(MESSAGE, *names, **fields)


def test_a_message_ends_with_what_was_received() -> None:
    for message in ("`size` must be positive.", "`size`. Received: "):
        for fields in ({"argument": "size"}, {"received": True}):
            with pytest.raises(AssertionError):
                check_message(message, **fields)


def test_errors_and_warnings_of_the_type() -> None:
    with raises(ValueError, 4, argument="batch_size") as caught:
        raise ValueError(MESSAGE)
    assert str(caught.value) == MESSAGE
    with pytest.raises(AssertionError), raises(ValueError, 5):
        raise ValueError(MESSAGE)
    with pytest.raises(pytest.fail.Exception), raises(ValueError):
        pass
    with warns(UserWarning, line=12, path="en-hi.tsv"):
        warnings.warn("other", stacklevel=1)
        warnings.warn(MESSAGE, stacklevel=1)
    with pytest.raises(pytest.fail.Exception), warns(UserWarning, 5):
        warnings.warn(MESSAGE, stacklevel=1)
