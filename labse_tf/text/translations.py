"""Translations in several languages -> rows with English."""

from __future__ import annotations

from collections.abc import Iterable

from labse_tf.languages import is_english, language_code
from labse_tf.text.problems import InputFile, Row, shorten


class Translations:
    """Pairing of the translations in a file with their English."""

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._seen: set[str] = set()

    def rows(self, line: int, texts: Iterable[tuple[str, str]]) -> list[Row]:
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
        return [(line, english, text, tag) for text, tag in others] if english else []

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
