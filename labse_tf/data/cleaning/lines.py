"""Lines that are hardly sentences of their file's language, by their characters alone.

A file of sentences from the web also has numbers, dates, tables and lines in other
languages. Mining finds equal or similar lines on the other side, with a high score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.cleaning.characters import (
    CLASSES,
    LETTER,
    MARK,
    SPACE,
    character_classes,
    code_points,
)

# ours: a script with this share of the letters of a file belongs to its language. In
# Japanese, Kanji and Kana have more; words in Latin script among others have less.
_MAIN_SCRIPT = 0.2


class UnlikelyLines(NamedTuple):
    """Which of n lines are hardly sentences, bool arrays `(n,)`.

    Attributes:
        few_letters: Less than half of the visible characters are letters or marks.
        other_script: Other lines with less than 40 % of their letters in a main script
            of the file.
    """

    few_letters: NDArray[np.bool_]
    other_script: NDArray[np.bool_]


def unlikely_lines(
    blocks: Callable[[], Iterable[list[str]]],
    *,
    min_letters: float = 0.5,
    min_script: float = 0.4,
) -> UnlikelyLines:
    """Find lines with few letters, or in another script than most of their file.

    The file is read twice: first to find its scripts. A script is a main script if at
    least a fifth of all letters are in it.

    Args:
        blocks: Function that returns the lines, as lists of some thousand.
        min_letters: See `CleaningRules`.
        min_script: See `CleaningRules`, for the main scripts.

    Returns:
        The lines; each line is in one of both at most.

    Example:
        >>> from labse_tf.data.cleaning.lines import unlikely_lines
        >>> lines = ["Good morning to all of you.", "12.05.2026", "да"]
        >>> few_letters, other_script = unlikely_lines(lambda: [lines])
        >>> few_letters.tolist(), other_script.tolist()
        ([False, True, False], [False, False, True])
    """
    total = np.zeros(CLASSES, np.int64)
    for block in blocks():
        codes, _ = code_points(block)
        total += np.bincount(character_classes()[codes], minlength=CLASSES)
    letters = np.arange(CLASSES) >= LETTER
    main = letters & (total >= _MAIN_SCRIPT * total[letters].sum())
    few, other = [], []
    for block in blocks():
        codes, bounds = code_points(block)
        classes = character_classes()[codes]
        own = _counts(letters[classes], bounds)
        words = own + _counts(classes == MARK, bounds)
        few.append(words < min_letters * _counts(classes != SPACE, bounds))
        other.append(~few[-1] & (_counts(main[classes], bounds) < min_script * own))
    empty = [np.zeros(0, bool)]
    return UnlikelyLines(np.concatenate(few or empty), np.concatenate(other or empty))


def _counts(chosen: NDArray[np.bool_], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the number of chosen characters of each text."""
    return np.diff(np.concatenate([[0], np.cumsum(chosen)])[bounds])
