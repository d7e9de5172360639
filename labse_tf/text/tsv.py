"""Tab-separated values -> rows."""

from __future__ import annotations

from collections.abc import Iterator

from labse_tf.text.problems import InputFile, Row, shorten
from labse_tf.text.streams import text_lines


def tsv_rows(file: InputFile) -> Iterator[Row]:
    """Yield `English<TAB>translation` of each line; ignore further columns."""
    for line, text in text_lines(file):
        if text is None:
            continue
        columns = text.split("\t", 2)
        if len(columns) < 2:
            file.problem(line, "English, a tab and its translation", shorten(text))
            continue
        source, target = columns[0].strip(), columns[1].strip()
        if source and target:
            yield Row(line, source, target, "")
        else:
            file.problem(line, "a sentence on both sides of the tab", shorten(text))
