"""Text -> rows without English; interface messages -> their words."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from labse_tf.text.problems import InputFile, Row
from labse_tf.text.streams import text_lines


def plain_rows(file: InputFile) -> Iterator[Row]:
    """Yield the lines of a text file that are not blank."""
    for line, text in text_lines(file):
        if text is not None and text.strip():
            yield Row(line, "", text.strip(), "")


_INTERFACE = (
    (re.compile(r"</?[A-Za-z!][^<>]*>"), " "),
    (re.compile(r"\$?\{\{?[^{}]*\}?\}"), " "),
    (re.compile(r"%\([^()]*\)[-+ #0]*[\d.]*[a-zA-Z]"), " "),
    (re.compile(r"%(?:\d+\$)?[-+#0]*[\d.]*(?:hh|h|ll|l|z)?[diouxXeEfgGcrs@]\b"), " "),
    (re.compile(r"%%"), "%"),
    (re.compile(r"\s*\([&_]\w\)"), ""),
    # "R&D" and "snake_case" have no accelerators.
    (re.compile(r"(?<![A-Z])&(?=\w)|&(?=[a-z])|(?<!\w)_(?=\w)"), ""),
    (re.compile(r"\s+"), " "),
)


def clean_interface_text(text: str) -> str:
    """Reduce an interface message to its words.

    HTML tags, `%(name)s`, `%s`, `{name}` and accelerators (`&File`, `_File`, `(&F)`)
    are removed, entities are resolved and white space is collapsed.

    Example:
        >>> clean_interface_text("<b>&amp;Open</b> %(count)d {kind} files")
        'Open files'
    """
    text = html.unescape(_INTERFACE[0][0].sub(" ", text))
    for pattern, replacement in _INTERFACE[1:]:
        text = pattern.sub(replacement, text)
    return text.strip()
