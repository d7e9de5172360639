"""Self-contained HTML pages: text, tables and pictures in one file.

Browsers shape all scripts, which plots as PNG do only if a font is installed.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

_STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans", sans-serif; max-width: 60em;
       margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { overflow-x: auto; background: #f6f6f6; padding: .8em; font-size: 13px; }
img { max-width: 100%; }
"""


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
