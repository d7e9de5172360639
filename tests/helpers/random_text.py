"""Random strings of every kind that text can go wrong in, from a seed."""

from __future__ import annotations

import functools
import random
import unicodedata
from collections.abc import Callable, Iterator

# First and last code point of the blocks that Indian languages are written in.
INDIAN_SCRIPTS = {
    "Devanagari": (0x900, 0x97F),
    "Bengali": (0x980, 0x9FF),
    "Gurmukhi": (0xA00, 0xA7F),
    "Gujarati": (0xA80, 0xAFF),
    "Odia": (0xB00, 0xB7F),
    "Tamil": (0xB80, 0xBFF),
    "Telugu": (0xC00, 0xC7F),
    "Kannada": (0xC80, 0xCFF),
    "Malayalam": (0xD00, 0xD7F),
    "Sinhala": (0xD80, 0xDFF),
    "Arabic": (0x600, 0x6FF),
    "Arabic Supplement": (0x750, 0x77F),
    "Tibetan": (0xF00, 0xFFF),
    "Limbu": (0x1900, 0x194F),
    "Lepcha": (0x1C00, 0x1C4F),
    "Ol Chiki": (0x1C50, 0x1C7F),
    "Vedic Extensions": (0x1CD0, 0x1CFF),
    "Syloti Nagri": (0xA800, 0xA82F),
    "Saurashtra": (0xA880, 0xA8DF),
    "Devanagari Extended": (0xA8E0, 0xA8FF),
    "Meetei Mayek": (0xABC0, 0xABFF),
    "Kharoshthi": (0x10A00, 0x10A5F),
    "Brahmi": (0x11000, 0x1107F),
    "Kaithi": (0x11080, 0x110CF),
    "Sora Sompeng": (0x110D0, 0x110FF),
    "Chakma": (0x11100, 0x1114F),
    "Mahajani": (0x11150, 0x1117F),
    "Sharada": (0x11180, 0x111DF),
    "Khojki": (0x11200, 0x1124F),
    "Multani": (0x11280, 0x112AF),
    "Khudawadi": (0x112B0, 0x112FF),
    "Grantha": (0x11300, 0x1137F),
    "Newa": (0x11400, 0x1147F),
    "Tirhuta": (0x11480, 0x114DF),
    "Siddham": (0x11580, 0x115FF),
    "Modi": (0x11600, 0x1165F),
    "Takri": (0x11680, 0x116CF),
    "Ahom": (0x11700, 0x1174F),
    "Dogra": (0x11800, 0x1184F),
    "Warang Citi": (0x118A0, 0x118FF),
    "Nandinagari": (0x119A0, 0x119FF),
    "Bhaiksuki": (0x11C00, 0x11C6F),
    "Masaram Gondi": (0x11D00, 0x11D5F),
    "Gunjala Gondi": (0x11D60, 0x11DAF),
    "Mro": (0x16A40, 0x16A6F),
    "Toto": (0x1E290, 0x1E2BF),
    "Wancho": (0x1E2C0, 0x1E2FF),
    "Nag Mundari": (0x1E4D0, 0x1E4FF),
}
OTHER_SCRIPTS = {
    "Latin": (0x41, 0x24F),
    "Greek": (0x370, 0x3FF),
    "Cyrillic": (0x400, 0x4FF),
    "Hebrew": (0x590, 0x5FF),
    "Thai": (0xE00, 0xE7F),
    "Myanmar": (0x1000, 0x109F),
    "Georgian": (0x10A0, 0x10FF),
    "Ethiopic": (0x1200, 0x137F),
    "Khmer": (0x1780, 0x17FF),
    "Kana": (0x3040, 0x30FF),
    "Han": (0x4E00, 0x9FFF),
    "Hangul": (0xAC00, 0xD7A3),
    "Han Extension B": (0x20000, 0x2A6DF),
    "Mathematical": (0x1D400, 0x1D7FF),
}
WHITE_SPACE = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u180e\u2000\u2001\u2002\u2003\u2004"
    "\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
JOINERS = "\u200c\u200d"
CONTROLS = "".join(map(chr, [*range(32), *range(0x7F, 0xA0)]))
EMOJI = [*map(chr, range(0x1F300, 0x1F650)), *map(chr, range(0x1F900, 0x1FA00)), "❤"]
SKIN = [*map(chr, range(0x1F3FB, 0x1F400)), "\ufe0f", "\ufe0e", "\u20e3"]
FLAGS = [*map(chr, range(0x1F1E6, 0x1F200))]
NONCHARACTERS = [*range(0xFDD0, 0xFDF0)] + [
    plane << 16 | end for plane in range(17) for end in (0xFFFE, 0xFFFF)
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]", "##", "##a"]
PLAIN = "the a railway station रेलवे स्टेशन বাংলা தமிழ் మన ਪੰਜਾਬੀ 42 3.14 don't x@y.org".split()

Text = str | bytes


@functools.cache
def _assigned(first: int, last: int) -> list[str]:
    """The characters of a block, unassigned code points left out."""
    characters = [chr(point) for point in range(first, last + 1)]
    # Python may know less of Unicode than has been assigned.
    return [c for c in characters if unicodedata.category(c) != "Cn"] or characters


@functools.cache
def _of_category(*categories: str) -> list[str]:
    """All characters of some general categories."""
    characters = map(chr, range(0x110000))
    return [c for c in characters if unicodedata.category(c) in categories]


def _words(rng: random.Random, letters: list[str], most: int = 8) -> str:
    """Words of these letters."""
    return " ".join(
        "".join(rng.choices(letters, k=rng.randint(1, 9)))
        for _ in range(rng.randint(1, most))
    )


def _script(rng: random.Random, scripts: dict[str, tuple[int, int]]) -> list[str]:
    return _assigned(*rng.choice(list(scripts.values())))


def _mixed(rng: random.Random) -> str:
    parts = [
        _words(rng, _script(rng, rng.choice([INDIAN_SCRIPTS, OTHER_SCRIPTS])), 2)
        for _ in range(rng.randint(2, 6))
    ]
    return rng.choice(["", " ", *JOINERS]).join(parts)


def _spiced(rng: random.Random, spice: str | list[str]) -> str:
    """Plain words with such characters before, between and inside them."""
    letters = list(" ".join(rng.choices(PLAIN, k=rng.randint(0, 6))))
    for _ in range(rng.randint(1, 12)):
        letters.insert(rng.randint(0, len(letters)), rng.choice(spice))
    return "".join(letters)


def _marks(rng: random.Random) -> str:
    """Letters under floods of combining marks."""
    return "".join(
        rng.choice("aक ")
        + "".join(rng.choices(_of_category("Mn", "Mc", "Me"), k=count))
        for count in (rng.choice([0, 1, 3, 50, 300]) for _ in range(rng.randint(1, 4)))
    )


def _emoji(rng: random.Random) -> str:
    return "".join(
        "\u200d".join(
            rng.choice(EMOJI) + rng.choice(["", *SKIN])
            for _ in range(rng.randint(1, 5))
        )
        + rng.choice(["", " ", "".join(rng.choices(FLAGS, k=2)), "\u200d"])
        for _ in range(rng.randint(1, 6))
    )


def _any_code_points(rng: random.Random) -> str:
    points = (rng.randrange(0x10F800) for _ in range(rng.randint(1, 30)))
    return "".join(chr(p if p < 0xD800 else p + 0x800) for p in points)


def _lone_surrogates(rng: random.Random) -> str:
    return _spiced(rng, [chr(rng.randrange(0xD800, 0xE000)) for _ in range(4)])


def _valid(rng: random.Random) -> str:
    return rng.choice([_mixed, _emoji, _any_code_points])(rng)


def _broken(rng: random.Random) -> bytes:
    """UTF-8 that has lost bytes, got others, or ends too early."""
    data = bytearray(_valid(rng).encode())
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        fault = rng.randrange(4)
        if fault == 0:
            del data[place : place + rng.randint(1, 3)]
        elif fault == 1:
            data[place:place] = rng.randbytes(rng.randint(1, 3))
        elif fault == 2:
            # Overlong forms, beyond U+10FFFF, a byte that UTF-8 never has.
            data[place:place] = rng.choice(
                [
                    b"\xc0\xaf",
                    b"\xe0\x80\x80",
                    b"\xf4\x90\x80\x80",
                    b"\xff",
                    b"\xf8\x88",
                ]
            )
        else:
            del data[place:]
    return bytes(data)


def _long_word(rng: random.Random) -> str:
    """A word about as long as the tokenizer takes: 100 characters, 400 bytes."""
    letter = rng.choice(["a", "é", "क", "𑄌"])
    return letter * max(
        0, rng.choice([100, 400 // len(letter.encode())]) + rng.randint(-2, 2)
    )


def _million(rng: random.Random) -> str:
    """A megabyte: one word, many words, or blanks."""
    piece = rng.choice(
        ["a", "क", "ab ", "नमस्ते ", " ", "\u0301", "\0", "字", "[MASK]", "."]
    )
    return piece * (1_000_000 // len(piece.encode()) + 1)


# What each kind is, and how many of it come where others come once.
KINDS: dict[str, tuple[Callable[[random.Random], Text], float]] = {
    "empty": (lambda rng: rng.choice(["", b""]), 0.5),
    "plain words": (lambda rng: " ".join(rng.choices(PLAIN, k=rng.randint(1, 90))), 1),
    "Indian scripts": (lambda rng: _words(rng, _script(rng, INDIAN_SCRIPTS)), 2),
    "other scripts": (lambda rng: _words(rng, _script(rng, OTHER_SCRIPTS)), 1),
    "mixed scripts": (_mixed, 1),
    "any code points": (_any_code_points, 1),
    "unassigned code points": (lambda rng: _spiced(rng, _of_category("Cn")), 1),
    "private use, noncharacters": (
        lambda rng: _spiced(rng, [*map(chr, NONCHARACTERS), "\ue000", "\U0010fffd"]),
        0.5,
    ),
    "combining marks": (_marks, 1),
    "emoji sequences": (_emoji, 1),
    "joiners": (lambda rng: _spiced(rng, JOINERS), 0.5),
    "bidi controls": (lambda rng: _spiced(rng, BIDI), 0.5),
    "NUL and controls": (lambda rng: _spiced(rng, CONTROLS), 1),
    "white space": (lambda rng: _spiced(rng, WHITE_SPACE), 1),
    "white space alone": (
        lambda rng: "".join(rng.choices(WHITE_SPACE, k=rng.randint(1, 9))),
        0.5,
    ),
    "special tokens": (lambda rng: _spiced(rng, SPECIAL), 1),
    "words at the limit": (_long_word, 0.5),
    "lone surrogates": (_lone_surrogates, 1),
    "bytes of lone surrogates": (
        lambda rng: _lone_surrogates(rng).encode("utf-8", "surrogatepass"),
        1,
    ),
    "broken UTF-8": (_broken, 2),
    "random bytes": (lambda rng: rng.randbytes(rng.randint(1, 60)), 1),
    "a megabyte": (_million, 0.0025),
}


def random_texts(count: int, seed: int) -> Iterator[tuple[str, Text]]:
    """Draws kinds and strings of them; each kind comes at least once.

    Yields:
        `(kind, text)`: a str, which may hold lone surrogates, or bytes, which may be
        no UTF-8.
    """
    rng = random.Random(seed)
    weights = [weight for _, weight in KINDS.values()]
    drawn = rng.choices(list(KINDS), weights, k=max(0, count - len(KINDS)))
    kinds = [*KINDS, *drawn]
    rng.shuffle(kinds)
    for kind in kinds:
        yield kind, KINDS[kind][0](rng)
