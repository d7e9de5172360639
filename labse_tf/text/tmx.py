"""Translation memories (TMX 1.1 to 1.4b) -> rows.

References:
    - https://www.gala-global.org/tmx-14b
"""

from __future__ import annotations

from collections.abc import Iterator

from labse_tf.text.markup import Markup
from labse_tf.text.problems import InputFile, Row
from labse_tf.text.translations import Translations

# "*all*" in the standard; files also have the other spellings.
_ANY_LANGUAGE = ("*all*", "*", "all")


def tmx_rows(file: InputFile) -> Iterator[Row]:
    """Yield one row per unit and language, with the English of the unit."""
    translations = Translations(file)
    for line, variants in _Units().read(file):
        if not all(code for code, _ in variants):
            file.problem(line, "xml:lang on each <tuv>, or srclang", "neither")
            continue
        yield from translations.rows(line, variants)
    translations.finish()


class _Units(Markup[tuple[int, list[tuple[str, str]]]]):
    """Reader of the line of each unit and its (language, text)."""

    root = "tmx"

    def __init__(self) -> None:
        super().__init__()
        self._source = self._unit_source = self._language = ""
        self._first, self._variants = 0, list[tuple[str, str]]()

    def opened(self, name: str, attributes: dict[str, str]) -> bool:
        if name == "seg":
            return True
        if name == "tuv":
            code = attributes.get("xml:lang") or attributes.get("lang")
            self._language = code or self._unit_source
        elif name == "tu":
            self._first, self._variants = self.line, []
            self._unit_source = attributes.get("srclang", self._source)
            if self._unit_source in _ANY_LANGUAGE:
                self._unit_source = ""
        elif name == "header":
            self._source = attributes.get("srclang", "")
        return False

    def closed(self, name: str, text: str | None) -> None:
        if text is not None:
            self._variants.append((self._language, text))
        elif name == "tu":
            self.found.append((self._first, self._variants))
