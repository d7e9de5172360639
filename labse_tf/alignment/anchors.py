"""Anchors: marks or line numbers -> nodes that the alignment must pass."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from labse_tf.text import DataError, PathLike, Sentence, read_lines, shorten


def anchors_by_pattern(
    documents: Sequence[Sequence[str]], pattern: str
) -> list[tuple[int, ...]]:
    """Return the sentences of several documents that begin the same part.

    The k-th sentence that matches in one document belongs to the k-th in the others.

    Args:
        documents: Sentences of each document.
        pattern: Regular expression, which is searched in each sentence, such as
            `"^(Chapter|अध्याय) "`.

    Returns:
        For each part, the index of its first sentence in each document.

    Raises:
        ValueError: If the pattern is not a regular expression, nothing matches, or the
            documents do not have the same number of matches.

    Example:
        >>> from labse_tf.alignment import anchors_by_pattern
        >>> anchors_by_pattern([["# 1", "a", "# 2"], ["# 1", "b", "c", "# 2"]], "^#")
        [(0, 0), (2, 3)]
    """
    try:
        mark = re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"`pattern` must be a regular expression. Received: {pattern} ({error})"
        ) from error
    found = [
        [index for index, text in enumerate(sentences) if mark.search(text)]
        for sentences in documents
    ]
    counts = [len(places) for places in found]
    if len(set(counts)) > 1 or not counts[0]:
        raise ValueError(
            f"all documents must have the same number of sentences that match "
            f"`pattern`, at least one. Received: {', '.join(map(str, counts))} for "
            f"{pattern}"
        )
    return list(zip(*found, strict=True))


def read_anchors(
    path: PathLike, documents: Sequence[Sequence[Sentence]]
) -> list[tuple[int, ...]]:
    """Read the lines at which parts of documents begin.

    Args:
        path: Path of a text: per line one line number of each document, separated by
            tabs or spaces, ascending.
        documents: Sentences of each document.

    Returns:
        For each line of the file, the index of the first sentence of each document that
        begins on its line or after it.

    Raises:
        DataError: If a line has another form, or numbers do not ascend.
    """
    starts = [np.array([s.line for s in sentences], int) for sentences in documents]
    found: list[tuple[int, ...]] = []
    previous = (0,) * len(documents)
    for line, text in read_lines(path):
        words = text.split()
        if not words:
            continue
        if len(words) != len(documents) or not all(w.isdecimal() for w in words):
            expected = f"{len(documents)} line numbers"
            raise DataError(path, line, expected, shorten(text))
        numbers = tuple(map(int, words))
        if any(a < b for a, b in zip(numbers, previous, strict=True)):
            raise DataError(path, line, "numbers that ascend", shorten(text))
        previous = numbers
        found.append(
            tuple(
                int(np.searchsorted(lines, number))
                for lines, number in zip(starts, numbers, strict=True)
            )
        )
    return found
