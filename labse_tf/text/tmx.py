"""Translation memories (TMX 1.1 to 1.4b) -> rows.

References:
    - https://www.gala-global.org/tmx-14b
"""

from __future__ import annotations

from collections.abc import Iterator

from labse_tf.text.markup import Markup
from labse_tf.text.problems import InputFile, Row
from labse_tf.text.translations import SCORES, Translations, score_of

# "*all*" in the standard; files also have the other spellings.
_ANY_LANGUAGE = ("*all*", "*", "all")


def tmx_rows(file: InputFile) -> Iterator[Row]:
    """Yield one row per unit and language, with the English of the unit.

    The score is a property of the unit, `<prop type="x-score">` or `x-` before another
    name of `labse_tf.text.translations.SCORES`.
    """
    translations = Translations(file)
    for line, variants, numbers in _Units().read(file):
        if not all(code for code, _ in variants):
            file.problem(line, "xml:lang on each <tuv>, or srclang", "neither")
            continue
        yield from translations.rows(line, variants, score_of(numbers))
    translations.finish()


class _Units(Markup[tuple[int, list[tuple[str, str]], dict[str, str]]]):
    """Reader of the line of each unit, its (language, text) and its numbers."""

    root = "tmx"

    def __init__(self) -> None:
        super().__init__()
        self._source = self._unit_source = self._language = ""
        self._first, self._variants = 0, list[tuple[str, str]]()
        self._numbers, self._number, self._of_unit = dict[str, str](), "", False

    def opened(self, name: str, attributes: dict[str, str]) -> bool:
        if name == "seg":
            return True
        if name == "prop":
            self._number = attributes.get("type", "").removeprefix("x-")
            return self._number in SCORES and self._of_unit
        if name == "tuv":
            code = attributes.get("xml:lang") or attributes.get("lang")
            self._language = code or self._unit_source
            self._of_unit = False
        elif name == "tu":
            self._first, self._variants, self._numbers = self.line, [], {}
            # Properties of a unit precede its variants, which may have others.
            self._of_unit = True
            self._unit_source = attributes.get("srclang", self._source)
            if self._unit_source in _ANY_LANGUAGE:
                self._unit_source = ""
        elif name == "header":
            self._source = attributes.get("srclang", "")
        return False

    def closed(self, name: str, text: str | None) -> None:
        if text is not None and name == "prop":
            self._numbers[self._number] = text
        elif text is not None:
            self._variants.append((self._language, text))
        elif name == "tu":
            self.found.append((self._first, self._variants, self._numbers))
