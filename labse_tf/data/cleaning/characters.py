"""Character classes: counts of letters, marks and digits in texts, and letter hashes.

All texts of a block (some thousands) are processed as one array of code points.
"""

from __future__ import annotations

import functools
import itertools
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.hashing import hash_bytes
from labse_tf.languages import SCRIPTS as ALL_SCRIPTS
from labse_tf.languages import scripts_of

# Character classes. Letters and vowel signs of script i have class FIRST_SCRIPT + i.
OTHER, SPACE, DIGIT, MARK, LETTER, FIRST_SCRIPT = range(6)
SCRIPTS = tuple(s.code for s in ALL_SCRIPTS.values() if s.unicode_name)
CLASSES = FIRST_SCRIPT + len(SCRIPTS)
# Scripts in which one character carries about as much text as three letters.
_DENSE = ("Hang", "Hani", "Hira", "Kana", "Yiii")

# The ranges of code points that Unicode assigns.
_ASSIGNED = (range(0x40000), range(0xE0000, 0xE0200))


@functools.cache
def character_scripts() -> NDArray[np.uint8]:
    """Return the script of every letter, mark and digit, by its Unicode name.

    Returns:
        uint8 array of shape `(0x110000,)`: 1 + the index in `SCRIPTS`. 0 means no
        script of the table: spaces, punctuation, symbols, European digits.
    """
    scripts = np.zeros(sys.maxunicode + 1, np.uint8)
    indices = {ALL_SCRIPTS[code].unicode_name: i for i, code in enumerate(SCRIPTS, 1)}
    indices["IDEOGRAPHIC"] = indices["CJK"]
    names = "|".join(indices)
    begins = re.compile(f"(?:(?:FULL|HALF)WIDTH |EXTENDED )?({names})[ -]")
    for code in itertools.chain(*_ASSIGNED):
        if unicodedata.category(chr(code))[0] in "LMN":
            found = begins.match(unicodedata.name(chr(code), ""))
            scripts[code] = indices[found[1]] if found else 0
    return scripts


@functools.cache
def character_classes() -> NDArray[np.uint8]:
    """Return the class of every code point.

    Returns:
        uint8 array of shape `(0x110000,)`: `OTHER`, `SPACE`, `DIGIT`, or
        `FIRST_SCRIPT` + the index in `SCRIPTS` for letters and marks of a script (a
        vowel sign is a mark), or `LETTER` and `MARK` for other scripts.
    """
    groups = {"Z": SPACE, "N": DIGIT, "M": MARK, "L": LETTER}
    classes = np.zeros(sys.maxunicode + 1, np.uint8)
    for code in itertools.chain(*_ASSIGNED):
        classes[code] = groups.get(unicodedata.category(chr(code))[0], OTHER)
    classes[[ord(c) for c in "\t\n\r\v\f"]] = SPACE
    scripts = character_scripts()
    own = (scripts > 0) & ((classes == LETTER) | (classes == MARK))
    classes[own] = FIRST_SCRIPT + scripts[own] - 1
    return classes


@functools.cache
def allowed_classes(language: str) -> NDArray[np.bool_]:
    """Return which classes are letters of a language's scripts.

    Returns:
        bool array of shape `(CLASSES,)`. All letters if the language's scripts are
        unknown.
    """
    scripts = scripts_of(language)
    allowed = np.zeros(CLASSES, bool)
    allowed[FIRST_SCRIPT:] = [scripts is None or name in scripts for name in SCRIPTS]
    allowed[LETTER] = scripts is None
    return allowed


class Counts(NamedTuple):
    """Character counts of n texts, one array of shape `(n,)` per field.

    Attributes:
        characters: Code points. A character of a dense script (Chinese, Japanese,
            Korean, Yi) counts as three.
        visible: Code points other than spaces.
        words: Letters and all marks.
        letters: Letters and the vowel signs of their scripts.
        right: Letters of the scripts of the text's language.
    """

    characters: NDArray[np.int64]
    visible: NDArray[np.int64]
    words: NDArray[np.int64]
    letters: NDArray[np.int64]
    right: NDArray[np.int64]


def code_points(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return the concatenated code points of n texts, and their bounds `(n + 1,)`."""
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return np.frombuffer(joined, np.uint32), np.concatenate([[0], lengths.cumsum()])


def count_characters(texts: Sequence[str], languages: Sequence[str]) -> Counts:
    """Count the characters of each class in n texts, given the language of each."""
    codes, bounds = code_points(texts)
    classes = character_classes()[codes]
    names, places = np.unique(np.asarray(languages, object), return_inverse=True)
    allowed = np.array([allowed_classes(name) for name in names], bool)
    allowed = allowed.reshape(-1, CLASSES)
    own = np.repeat(places, np.diff(bounds))
    is_letter = classes >= LETTER
    # The weight of a character fits into a byte, the sum over a text into 64 bits.
    weight = np.ones(CLASSES, np.uint8)
    weight[[FIRST_SCRIPT + SCRIPTS.index(name) for name in _DENSE]] = 3

    def sums(values: NDArray[np.generic]) -> NDArray[np.int64]:
        running = np.zeros(len(codes) + 1, np.int64)
        np.cumsum(values, out=running[1:])
        return np.diff(running[bounds])

    return Counts(
        characters=sums(weight[classes]),
        visible=sums(classes != SPACE),
        words=sums(is_letter | (classes == MARK)),
        letters=sums(is_letter),
        right=sums(allowed[own, classes]),
    )


def letter_keys(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Hash the letters of n texts to uint64 `(n,)`.

    Case, digits, punctuation and spaces are ignored; vowel signs and other marks count
    as letters. A text without letters is hashed unchanged.
    """
    folded = [unicodedata.normalize("NFKC", text.casefold()) for text in texts]
    codes, bounds = code_points(folded)
    classes = character_classes()[codes]
    kept = (classes >= LETTER) | (classes == MARK)
    before = np.concatenate([[0], np.cumsum(kept)])[bounds].tolist()
    letters = codes[kept].tobytes()
    spans = zip(before, before[1:], folded, strict=False)
    keys = (
        hash_bytes(
            letters[4 * start : 4 * end] or text.encode("utf-8", "surrogatepass")
        )
        for start, end, text in spans
    )
    return np.fromiter(keys, np.uint64, len(texts))
