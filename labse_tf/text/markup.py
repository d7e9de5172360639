"""XML as a stream: elements whose text is wanted, in constant memory.

Nothing is fetched, and a file with entities of its own is refused: a short one may
stand for gigabytes, or for another file.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Generic, TypeVar
from xml.parsers import expat

from labse_tf.text.problems import InputFile
from labse_tf.text.streams import DAMAGE, chunks, damage

_Found = TypeVar("_Found")

# Inline elements that hold a format's own codes, in TMX and XLIFF.
_CODES = {"bpt", "ept", "ph", "it", "ut"}


class _Refused(Exception):
    """What was expected of the markup, and what was there."""


class Markup(Generic[_Found]):
    """Base of readers: gets elements in the order of the file, collects what it finds.

    Names come without their namespace. Inside an element whose text is wanted,
    elements are flattened: the text of all counts but that of codes.

    Attributes:
        root: name of the outermost element.
        found: what `read` yields and clears.
    """

    root = ""

    def __init__(self) -> None:
        self.found: list[_Found] = []
        self._text: list[str] | None = None  # of the element whose text is wanted
        self._depth = 0  # of elements in it
        self._hidden = 0  # depth of codes among these
        self._inside = False
        # no namespaces: files lack the declarations of prefixes
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        parser.EntityDeclHandler = self._entity
        # of a document type that is not fetched; "&nbsp;" is what it is in HTML
        parser.SkippedEntityHandler = lambda name, _: self._data(
            html.unescape(f"&{name};")
        )

    @property
    def line(self) -> int:
        """Of the tag or text at hand."""
        return self._parser.CurrentLineNumber

    def opened(self, name: str, attributes: dict[str, str]) -> bool:
        """Called at a start tag; returns whether the element's text is wanted."""
        raise NotImplementedError

    def closed(self, name: str, text: str | None) -> None:
        """Called at an end tag; the text if it was wanted."""
        raise NotImplementedError

    def read(self, file: InputFile) -> Iterator[_Found]:
        """Goes through a file."""
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
                problem = self.line, "XML in an encoding that is known", str(error)
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
        raise _Refused("XML without entities of its own", f"<!ENTITY {name}>")
