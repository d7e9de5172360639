"""XML as a stream: bytes -> the text of chosen elements, in constant memory.

Nothing is fetched. A file that declares entities is an error, because a short entity
may expand to gigabytes or to the content of another file.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Generic, TypeVar
from xml.parsers import expat

from labse_tf.text.problems import InputFile
from labse_tf.text.streams import DAMAGE, chunks, damage

_Found = TypeVar("_Found")

# Inline elements of TMX and XLIFF that hold codes of another format.
_CODES = {"bpt", "ept", "ph", "it", "ut"}


class _Refused(Exception):
    """Unexpected markup: what was expected, and what was received."""


class Markup(Generic[_Found]):
    """Base class of XML readers; `opened` and `closed` collect items in `found`.

    Names are given without their namespace. The text of a chosen element includes the
    text of the elements inside, except codes.
    """

    root = ""  # name of the outermost element

    def __init__(self) -> None:
        self.found: list[_Found] = []  # items that `read` yields and removes
        self._text: list[str] | None = None  # of the chosen element
        self._depth = 0  # of elements in the chosen element
        self._hidden = 0  # depth of codes in the chosen element
        self._inside = False
        # No namespaces: files lack the declarations of prefixes.
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        parser.EntityDeclHandler = self._entity
        # Document types are not fetched: entities such as "&nbsp;" are those of HTML.
        parser.SkippedEntityHandler = lambda name, _: self._data(
            html.unescape(f"&{name};")
        )

    @property
    def line(self) -> int:
        """Line of the current tag or text."""
        return self._parser.CurrentLineNumber

    def opened(self, name: str, attributes: dict[str, str]) -> bool:
        """Handle a start tag; return whether to collect the text of the element."""
        raise NotImplementedError

    def closed(self, name: str, text: str | None) -> None:
        """Handle an end tag, with the text of the element if it was collected."""
        raise NotImplementedError

    def read(self, file: InputFile) -> Iterator[_Found]:
        """Parse a file and yield the items found."""
        stream, problem = chunks(file.path), None
        while problem is None:
            try:
                chunk = next(stream, b"")
                self._parser.Parse(chunk, not chunk)
            except DAMAGE as error:
                problem = self.line, *damage(error)
            except _Refused as error:
                problem = self.line, *error.args
            except expat.ExpatError as error:
                reason = expat.ErrorString(error.code)
                problem = error.lineno, "well-formed XML", str(reason)
            except (ValueError, LookupError) as error:
                problem = self.line, "XML in a known encoding", str(error)
            yield from self.found
            self.found.clear()
            if problem is None and not chunk:
                return
        file.problem(*problem)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        if self._text is not None:
            self._depth += 1
            if self._hidden or name in _CODES:
                self._hidden += 1
            return
        if not self._inside and name != self.root:
            raise _Refused(f"<{self.root}> as the outermost element", f"<{name}>")
        self._inside = True
        if self.opened(name, attributes):
            self._text = []

    def _end(self, name: str) -> None:
        if self._depth:
            self._depth -= 1
            self._hidden -= bool(self._hidden)
            return
        text = None if self._text is None else "".join(self._text)
        self._text = None
        self.closed(name.rpartition(":")[2], text)

    def _data(self, data: str) -> None:
        if self._text is not None and not self._hidden:
            self._text.append(data)

    def _entity(self, name: str, *declared: object) -> None:
        raise _Refused("XML that declares no entities", f"<!ENTITY {name}>")
