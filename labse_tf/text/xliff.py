"""XLIFF 1.2 and 2.x -> rows.

References:
    - https://docs.oasis-open.org/xliff/v1.2/os/xliff-core.html
    - https://docs.oasis-open.org/xliff/xliff-core/v2.1/xliff-core-v2.1.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from labse_tf.text.markup import Markup
from labse_tf.text.problems import InputFile, Row
from labse_tf.text.translations import Translations

_UNFINISHED = re.compile("new|initial|needs-.*")


def xliff_rows(file: InputFile) -> Iterator[Row]:
    """Yield one row per translated unit or segment, one side of which is English.

    A unit or segment is not translated if it has no target, a state of `new`, `initial`
    or `needs-...`, or no state and `approved="no"` (gettext's fuzzy).
    """
    translations = Translations(file)
    for line, *texts in _Units().read(file):
        yield from translations.rows(line, texts)
    translations.finish()


class _Units(Markup[tuple[int, tuple[str, str], tuple[str, str]]]):
    """Reader of the line, (language, source) and (language, target) of each unit."""

    root = "xliff"

    def __init__(self) -> None:
        super().__init__()
        self._parents: list[str] = []
        self._languages = {"source": "en", "target": ""}
        self._first, self._unfinished = 0, False
        self._texts: dict[str, tuple[str, str]] = {}

    def opened(self, name: str, attributes: dict[str, str]) -> bool:
        parent = self._parents[-1] if self._parents else ""
        self._parents.append(name)
        if name in ("xliff", "file"):
            for side, short in (("source", "srcLang"), ("target", "trgLang")):
                code = attributes.get(f"{side}-language") or attributes.get(short)
                self._languages[side] = code or self._languages[side]
        elif name in ("trans-unit", "segment"):
            self._first, self._texts = self.line, {}
            state = attributes.get("state", "")
            self._unfinished = bool(_UNFINISHED.fullmatch(state))
            self._unfinished |= not state and attributes.get("approved") == "no"
        # The sides inside <alt-trans> and <matches> are only proposals.
        elif name in self._languages and parent in ("trans-unit", "segment"):
            code = attributes.get("xml:lang") or self._languages[name]
            self._texts[name] = code, ""
            if name == "target" and "state" in attributes:
                state = attributes["state"]
                self._unfinished = bool(_UNFINISHED.fullmatch(state))
            return True
        return False

    def closed(self, name: str, text: str | None) -> None:
        self._parents.pop()
        if text is not None:
            self._texts[name] = self._texts[name][0], text
        elif name in ("trans-unit", "segment"):
            if len(self._texts) == 2 and not self._unfinished:
                pair = self._texts["source"], self._texts["target"]
                self.found.append((self._first, *pair))
