"""Translations in several languages -> rows with English."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from labse_tf.languages import is_english, language_code
from labse_tf.text.problems import InputFile, Row, shorten

SCORES = ("probability", "margin", "score", "cosine")
"""Names of the numbers of a pair that are scores; of several, the first is read."""


def score_of(numbers: Mapping[str, Any]) -> float | None:
    """Return the score among named values, or `None` without a finite number."""
    for name in SCORES:
        try:
            value = float(numbers[name])
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(value):
            return value
    return None


class Translations:
    """Pairing of the translations in a file with their English."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._seen: set[str] = set()

    def rows(
        self,
        line: int,
        texts: Iterable[tuple[str, str]],
        score: float | None = None,
    ) -> list[Row]:
        """Return one row per translation, or no rows without English.

        `texts` are (language, text). Empty texts are ignored. The language may be `""`
        if only the caller or the name of the file specifies it.
        """
        checked = [self.check(line, code, text) for code, text in texts]
        english, others = "", []
        for tag, text in filter(None, checked):
            if not (tag and is_english(tag)):
                others.append((text, tag))
            elif not english:
                english = text
        if not english:
            return []
        return [Row(line, english, text, tag, score) for text, tag in others]

    def check(self, line: int, code: str, text: str) -> tuple[str, str] | None:
        """Return (canonical code, stripped text), or None if blank or invalid."""
        text = text.strip()
        if not text:
            return None
        try:
            tag = code and language_code(code)
            text.encode()
        except UnicodeEncodeError:
            self._file.problem(line, "valid Unicode text", shorten(text))
            return None
        except ValueError:
            expected = "a language code such as hi, zh-Hant or pt_BR"
            self._file.problem(line, expected, shorten(code))
            return None
        self._seen.add(tag)
        return tag, text

    def finish(self) -> None:
        """Report a problem if the file had no English; call it at the end."""
        if self._seen and not any(tag and is_english(tag) for tag in self._seen):
            received = ", ".join(sorted(self._seen)) or "none"
            self._file.problem(1, "English text", received)
