"""Characters: letters by script, marks, digits; which scripts a language is written in.

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

from labse_tf.languages import LANGUAGES, language_code

# ISO 15924 code -> how the Unicode names of its letters begin.
_NAMES = {
    **{"Adlm": "ADLAM", "Arab": "ARABIC", "Armn": "ARMENIAN", "Avst": "AVESTAN"},
    **{"Bali": "BALINESE", "Beng": "BENGALI", "Bopo": "BOPOMOFO", "Bugi": "BUGINESE"},
    **{"Cakm": "CHAKMA", "Cans": "CANADIAN SYLLABICS", "Cher": "CHEROKEE"},
    **{"Copt": "COPTIC", "Cyrl": "CYRILLIC", "Deva": "DEVANAGARI", "Ethi": "ETHIOPIC"},
    **{"Geor": "GEORGIAN", "Goth": "GOTHIC", "Grek": "GREEK", "Gujr": "GUJARATI"},
    **{"Guru": "GURMUKHI", "Hang": "HANGUL", "Hani": "CJK", "Hebr": "HEBREW"},
    **{"Hira": "HIRAGANA", "Java": "JAVANESE", "Kana": "KATAKANA", "Khmr": "KHMER"},
    **{"Knda": "KANNADA", "Laoo": "LAO", "Latn": "LATIN", "Lepc": "LEPCHA"},
    **{"Limb": "LIMBU", "Mlym": "MALAYALAM", "Mong": "MONGOLIAN", "Mymr": "MYANMAR"},
    **{"Mtei": "MEETEI MAYEK", "Nkoo": "NKO", "Olck": "OL CHIKI", "Orya": "ORIYA"},
    **{"Rohg": "HANIFI ROHINGYA", "Sinh": "SINHALA", "Sund": "SUNDANESE"},
    **{"Syrc": "SYRIAC", "Tale": "TAI LE", "Taml": "TAMIL", "Telu": "TELUGU"},
    **{"Tfng": "TIFINAGH", "Thaa": "THAANA", "Thai": "THAI", "Tibt": "TIBETAN"},
    **{"Vaii": "VAI", "Yiii": "YI"},
}
# Codes that stand for several scripts.
_SEVERAL = {
    "Hans": ("Hani", "Bopo"),
    "Hant": ("Hani", "Bopo"),
    "Jpan": ("Hani", "Hira", "Kana"),
    "Kore": ("Hang", "Hani"),
}
# Languages that are written in more scripts than the usual one, in use today.
_MORE = {
    **dict.fromkeys(("ace", "bjn", "ha", "min", "ms", "so", "sw"), ("Arab",)),
    **dict.fromkeys(("bs", "isv", "ro", "sh", "tr"), ("Cyrl",)),
    **dict.fromkeys(("be", "kv", "sr", "tg", "uk"), ("Latn",)),
    **dict.fromkeys(("az", "ku", "tk", "uz"), ("Arab", "Cyrl")),
    **dict.fromkeys(("crh", "kaa"), ("Cyrl",)),
    **dict.fromkeys(("kk", "ky"), ("Arab", "Latn")),
    **dict.fromkeys(("ba", "cv", "tt"), ("Latn",)),
    **dict.fromkeys(("ber", "kab"), ("Tfng", "Arab")),
    **dict.fromkeys(("cr", "iu", "oj"), ("Latn",)),
    **dict.fromkeys(("hak", "nan", "za"), ("Latn", "Hani")),
    **dict.fromkeys(("aeb", "arq", "ary", "arz"), ("Latn",)),
    "ban": ("Bali",),
    "bm": ("Nkoo",),
    "ckb": ("Latn",),
    "ff": ("Adlm", "Arab"),
    "hif": ("Deva",),
    "jv": ("Java",),
    "kok": ("Latn", "Knda", "Mlym"),
    "ks": ("Deva",),
    "mn": ("Mong",),
    "mni": ("Beng",),
    "pa": ("Arab",),
    "pi": ("Latn", "Beng", "Sinh", "Mymr", "Thai"),
    "sa": ("Latn", "Beng", "Gujr", "Knda", "Mlym", "Telu", "Taml", "Orya"),
    "sat": ("Deva", "Beng", "Orya", "Latn"),
    "sd": ("Deva",),
    "su": ("Sund",),
    "tly": ("Cyrl", "Arab"),
    "ug": ("Cyrl", "Latn"),
    "yi": ("Latn",),
}

# Classes of characters; letters and vowel signs of script i are FIRST_SCRIPT + i.
OTHER, SPACE, DIGIT, MARK, LETTER, FIRST_SCRIPT = range(6)
SCRIPTS = tuple(_NAMES)
CLASSES = FIRST_SCRIPT + len(SCRIPTS)
# Letters that say as much as about three of an alphabet.
_DENSE = ("Hang", "Hani", "Hira", "Kana", "Yiii")


@functools.cache
def character_classes() -> NDArray[np.uint8]:
    """The class of every code point.

    Returns:
        `(0x110000,)`: `OTHER`, `SPACE`, `DIGIT`, `FIRST_SCRIPT` and the place in
        `SCRIPTS` for letters and marks of a script (a vowel sign is one), or `LETTER`
        and `MARK` for those of no script that is known here.
    """
    classes = np.zeros(sys.maxunicode + 1, np.uint8)
    scripts = {name: SCRIPTS.index(script) for script, name in _NAMES.items()}
    scripts["IDEOGRAPHIC"] = scripts["CJK"]
    names = "|".join(scripts)
    begins = re.compile(f"(?:FULLWIDTH |HALFWIDTH )?({names})[ -]")
    groups = {"Z": SPACE, "N": DIGIT, "M": MARK, "L": LETTER}
    # Nothing is assigned between.
    for code in itertools.chain(range(0x40000), range(0xE0000, 0xE0200)):
        character = chr(code)
        group = unicodedata.category(character)[0]
        classes[code] = groups.get(group, OTHER)
        if group in "LM":
            found = begins.match(unicodedata.name(character, ""))
            if found:
                classes[code] = FIRST_SCRIPT + scripts[found[1]]
    classes[[ord(c) for c in "\t\n\r\v\f"]] = SPACE
    return classes


@functools.cache
def scripts_of(language: str) -> frozenset[str] | None:
    """The scripts that a language is written in.

    Args:
        language: any code that `labse_tf.languages.language_code` takes.

    Returns:
        ISO 15924 codes of single scripts (`Hani`, `Hira` and `Kana` for Japanese); the
        code's own where it names one (`sr-Latn`); `None` where nobody knows.

    Example:
        >>> from labse_tf.data.cleaning.scripts import scripts_of
        >>> sorted(scripts_of("hi")), sorted(scripts_of("mni")), scripts_of("xyz")
        (['Deva'], ['Beng', 'Mtei'], None)
    """
    try:
        code = language_code(language)
    except ValueError:
        return None
    known = LANGUAGES.get(code)
    if known is not None:
        scripts = known.script, *_MORE.get(code, ())
    elif "-" in code:
        scripts = (code.rpartition("-")[2],)
    else:
        return None
    single = [one for script in scripts for one in _SEVERAL.get(script, (script,))]
    return frozenset(single) if set(single) <= set(SCRIPTS) else None


@functools.cache
def allowed_classes(language: str) -> NDArray[np.bool_]:
    """Which classes are letters of a language's scripts.

    Args:
        language: as `scripts_of`.

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
