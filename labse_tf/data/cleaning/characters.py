"""Characters: letters by script, marks, digits; how many of them texts have, and keys.

Everything is counted in arrays of code points, some thousand texts at a time.
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

# Classes of characters; letters and vowel signs of script i are FIRST_SCRIPT + i.
OTHER, SPACE, DIGIT, MARK, LETTER, FIRST_SCRIPT = range(6)
SCRIPTS = tuple(s.code for s in ALL_SCRIPTS.values() if s.unicode_name)
CLASSES = FIRST_SCRIPT + len(SCRIPTS)
# Letters that say as much as about three of an alphabet.
_DENSE = ("Hang", "Hani", "Hira", "Kana", "Yiii")


# Nothing is assigned between these.
_ASSIGNED = (range(0x40000), range(0xE0000, 0xE0200))


@functools.cache
def character_scripts() -> NDArray[np.uint8]:
    """The script of every letter, mark and digit, by its Unicode name.

    Returns:
        `(0x110000,)`: 1 + the index in `SCRIPTS`; 0 for what belongs to no script of
        the table, such as spaces, punctuation, symbols and European digits.
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
    """The class of every code point.

    Returns:
        `(0x110000,)`: `OTHER`, `SPACE`, `DIGIT`, `FIRST_SCRIPT` and the place in
        `SCRIPTS` for letters and marks of a script (a vowel sign is one), or `LETTER`
        and `MARK` for those of no script that is known here.
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
    """Which classes are letters of a language's scripts.

    Args:
        language: any code that `labse_tf.languages.language_code` accepts.

    Returns:
        `(CLASSES,)`; all letters where nobody knows the language.
    """
    scripts = scripts_of(language)
    allowed = np.zeros(CLASSES, bool)
    allowed[FIRST_SCRIPT:] = [scripts is None or name in scripts for name in SCRIPTS]
    allowed[LETTER] = scripts is None
    return allowed


class Counts(NamedTuple):
    """What texts are made of, `(n,)` each.

    Attributes:
        characters: code points, of a dense script (Chinese, Japanese, Korean, Yi)
            counted for three.
        visible: code points that are no space.
        words: letters and all marks.
        letters: letters and the vowel signs of their scripts.
        right: those of the scripts of the text's language.
    """

    characters: NDArray[np.int64]
    visible: NDArray[np.int64]
    words: NDArray[np.int64]
    letters: NDArray[np.int64]
    right: NDArray[np.int64]


def code_points(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Texts as one array of code points.

    Args:
        texts: n strings.

    Returns:
        The code points end to end, and where the texts begin and end, `(n + 1,)`.
    """
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return np.frombuffer(joined, np.uint32), np.concatenate([[0], lengths.cumsum()])


def count_characters(texts: Sequence[str], languages: Sequence[str]) -> Counts:
    """Counts what texts are made of.

    Args:
        texts: n strings.
        languages: the language of each.

    Returns:
        `Counts`.
    """
    codes, bounds = code_points(texts)
    classes = character_classes()[codes]
    names, places = np.unique(np.asarray(languages, object), return_inverse=True)
    allowed = np.array([allowed_classes(name) for name in names], bool)
    allowed = allowed.reshape(-1, CLASSES)
    own = np.repeat(places, np.diff(bounds))
    is_letter = classes >= LETTER
    # A character's worth fits into a byte, a text's into 64 bits.
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
    """Hashes texts so that case, digits, punctuation and spaces make no difference.

    Vowel signs and other marks count, as letters do. A text without letters is hashed
    as it is.

    Args:
        texts: n strings.

    Returns:
        One 64-bit key per text, uint64 `(n,)`.
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
