"""Texts of the same meaning in several languages -> rows with English."""

from __future__ import annotations

from collections.abc import Iterable

from labse_tf.languages import is_english, language_code
from labse_tf.text.problems import InputFile, Row, shorten


class Translations:
    """Pairs each translation of a file with its English.

    Args:
        file: where problems go.
    """

    def __init__(self, file: InputFile) -> None:
        self._file = file
        self._seen: set[str] = set()

    def rows(self, line: int, texts: Iterable[tuple[str, str]]) -> list[Row]:
        """A row for each language but English; none without English.

        Args:
            line: where the texts are.
            texts: (language, text); empty texts do not count, `""` is the language
                that only the caller or the file's name can say.
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
        """A text's code and itself without white space around; None without text."""
        text = text.strip()
        if not text:
            return None
        try:
            tag = code and language_code(code)
            text.encode()
        except UnicodeEncodeError:
            self._file.problem(line, "whole Unicode characters", shorten(text))
            return None
        except ValueError:
            expected = "a language code such as hi, zh-Hant or pt_BR"
            self._file.problem(line, expected, shorten(code))
            return None
        self._seen.add(tag)
        return tag, text

    def finish(self) -> None:
        """Says at the end of a file that it had no English at all."""
        if self._seen and not any(tag and is_english(tag) for tag in self._seen):
            received = ", ".join(sorted(self._seen)) or "none"
            self._file.problem(1, "a file with English in it", received)
