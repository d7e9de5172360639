"""Self-contained HTML pages: text, tables and pictures in one file.

Browsers shape all scripts, which plots as PNG do only if a font is installed.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans", sans-serif; max-width: 60em;
       margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; background: #f6f6f6; padding: .8em; font-size: 13px; }
img { max-width: 100%; }
"""


# Characters that could end the element of the data, and lone halves of surrogate pairs,
# which UTF-8 cannot encode. U+2028 and U+2029 end a line of JavaScript.
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


def json_in_html(value: Any) -> str:
    r"""Return a value as JSON that is safe inside `<script type="application/json">`.

    Example:
        >>> json_in_html({"text": "</script>"})
        '{"text":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def application(title: str, *, body: str, style: str, script: str, data: Any) -> str:
    """Return an interactive page as HTML, in one file that loads nothing.

    Args:
        title: Title of the window.
        body: HTML of the body.
        style: CSS.
        script: JavaScript, which runs after the body is there.
        data: Value that the script finds as JSON in the element `pairs`.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style></head>\n"
        f'<body>\n{body}<script type="application/json" id="pairs">'
        f"{json_in_html(data)}</script>\n<script>\n{script}</script></body></html>\n"
    )


class Page:
    """A page to which headings, paragraphs, tables and pictures are added in order.

    Args:
        title: Title and first heading.

    Example:
        >>> page = Page("Scores")
        >>> page.table(("language", "accuracy"), [("हिन्दी", "58.7")], numbers=(1,))
        >>> "<td>हिन्दी</td>" in page.text()
        True
    """

    def __init__(self, title: str) -> None:
        self._title = html.escape(title)
        self._parts = [f"<h1>{self._title}</h1>"]

    def heading(self, text: str) -> None:
        """Add a heading of a section."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._parts.append(f"<p>{html.escape(text)}</p>")

    def block(self, text: str) -> None:
        """Add text that keeps its lines and columns."""
        self._parts.append(f"<pre>{html.escape(text)}</pre>")

    def picture(self, png: bytes, description: str) -> None:
        """Add a PNG picture, which becomes part of the page."""
        data = base64.b64encode(png).decode("ascii")
        about = html.escape(description)
        self._parts.append(
            f'<p><img alt="{about}" src="data:image/png;base64,{data}"></p>'
        )

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        numbers: Sequence[int] = (),
        colors: Sequence[Sequence[str | None]] | None = None,
    ) -> None:
        """Add a table.

        Args:
            columns: Column heads.
            rows: Rows of cells.
            numbers: Indices of the columns that align right.
            colors: Background color of each cell, if any.
        """
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        lines = [f"<table><tr>{head}</tr>"]
        for y, row in enumerate(rows):
            cells = []
            for x, cell in enumerate(row):
                kind = ' class="number"' if x in numbers else ""
                color = colors[y][x] if colors else None
                style = f' style="background: {color}"' if color else ""
                cells.append(f"<td{kind}{style}>{html.escape(cell)}</td>")
            lines.append(f"<tr>{''.join(cells)}</tr>")
        self._parts.append("\n".join([*lines, "</table>"]))

    def text(self) -> str:
        """Return the page as HTML."""
        return (
            '<!DOCTYPE html>\n<html><head><meta charset="utf-8">'
            f"<title>{self._title}</title><style>{_STYLE}</style></head><body>\n"
            + "\n".join(self._parts)
            + "\n</body></html>\n"
        )
