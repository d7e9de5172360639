"""Sentence splitter: text of a document -> sentences with their line numbers.

Rules, not a model: the marks that end a sentence in each script, and a table of
abbreviations and initials after which a full stop does not end one
(`abbreviations.tsv`). A line break always ends a sentence, except in hard-wrapped text,
in which a blank line does. Thai and Lao, which have no such marks, are split by line.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from labse_tf.languages import language_code, without_script
from labse_tf.text.formats import FORMATS, format_of
from labse_tf.text.names import file_language
from labse_tf.text.problems import OnError, PathLike, SkipReport
from labse_tf.text.reading import read_numbered

Layout = Literal["paragraphs", "wrapped", "lines"]

LAYOUTS: tuple[Layout, ...] = ("paragraphs", "wrapped", "lines")

# These end a sentence whatever follows: Indic, CJK, Arabic script, Armenian, Ethiopic,
# Khmer, Burmese, Tibetan, Ol Chiki, Meetei Mayek.
_SURE = "।॥。！？｡؟۔։።፧፨។៕။༎᱾᱿꯫"
_MARKS = f".!?…{_SURE}"
_END = re.compile(
    rf"(?P<marks>[{_MARKS}]+)"
    # Closing quotes and brackets, and references to notes. A straight quote, or one
    # that opens in other languages, closes only if no word begins after it.
    r"(?P<closing>(?:[)\]}»”’›」』）】〉》]|[\"'“‘](?!\w)|\[\d+\]|\s»(?=\s|$))*)"
    r"(?P<gap>\s*)"
)
_OPENING = "([{¿¡“‘\"'«„‚‹「『（【〈《*–—-• "
_WORD_BEFORE = re.compile(r"[^\s(\[{“‘\"'«„‹—–/]+\Z")
_NEXT_WORD = re.compile(r"\w+")

# Thai, Lao, Tibetan, Burmese and Khmer end no sentence with a full stop, only
# abbreviations.
_WITHOUT_STOPS = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]")
# Han, kana and their punctuation, which have no spaces; also with Hangul, which has.
_UNSPACED = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef]")
_CJK = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")
# Here a letter with a vowel sign is a common last word ("है.", "છે."), so that only
# bare letters are initials: Devanagari, Gurmukhi, Gujarati.
_BARE_INITIALS = re.compile("[\u0900-\u097f\u0a00-\u0aff]")
# Last words of one letter that are not initials: Nepali "is", Hindi and Bengali "no",
# imperatives ("come", "go", "give") of Dravidian languages.
_SHORT_WORDS = frozenset("छ न না কি நீ வா போ தா రా పో దా ಬಾ ಹೋ വാ പോ താ".split())

_LONGEST_NUMBER = 3  # ours: digits of an enumerator, "12." before a heading
_LONGEST_ORDINAL = 2  # digits of a day, "am 31. Oktober"


class Sentence(NamedTuple):
    """A sentence of a document.

    Attributes:
        text: The text, without white space around it.
        line: Line of the file on which it begins, from 1.
    """

    text: str
    line: int


@dataclass(frozen=True)
class _Rules:
    """Abbreviations of a language, in lowercase, without their last full stop.

    Attributes:
        never: Abbreviations that do not end a sentence.
        final: Abbreviations that end one if a word of `start` follows.
        number: Abbreviations that do not end a sentence before a number.
        start: Words with which a sentence often begins.
        ordinal: Whether "31." may be an ordinal.
    """

    never: frozenset[str]
    final: frozenset[str]
    number: frozenset[str]
    start: frozenset[str]
    ordinal: bool


@functools.cache
def abbreviations() -> dict[tuple[str, str], frozenset[str]]:
    """Return (language, kind) -> words of the table; see `_Rules` for the kinds."""
    path = Path(__file__).parent.parent / "abbreviations.tsv"
    table = {}
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        language, kind, words = line.split("\t")
        table[language, kind] = frozenset(words.split())
    return table


@functools.cache
def _rules(language: str | None) -> _Rules:
    """Return the rules of a language; `None` also has those of all other scripts."""
    table = abbreviations()

    def words(kind: str) -> frozenset[str]:
        found = set(table.get(("*", kind), ()))
        for (code, name), more in table.items():
            if name != kind or code == "*":
                continue
            # Abbreviations in Latin script of one language are words of others.
            found |= {w for w in more if code == language or _is_safe(w, language)}
        return frozenset(w if kind == "start" else w.lower() for w in found)

    return _Rules(
        never=words("never"),
        final=words("final"),
        number=words("number"),
        start=table["en", "start"] if language in (None, "en") else frozenset(),
        ordinal=(language, "ordinal") in table,
    )


def _is_safe(word: str, language: str | None) -> bool:
    return language is None and not word.isascii() and word[0] > "\u0370"


def split_sentences(text: str, language: str | None = None) -> list[str]:
    """Split text into sentences.

    Each line break ends a sentence. See `split_document` for hard-wrapped text.

    Args:
        text: Text of one or more paragraphs.
        language: Language in any spelling (hi, hin, hi-IN), for its abbreviations.
            If `None`, only abbreviations that are not words in other languages are
            known.

    Returns:
        The sentences, without white space around them. No sentence is empty.

    Raises:
        ValueError: If `language` is not a language code.

    Example:
        >>> from labse_tf.text import split_sentences
        >>> split_sentences("Dr. Rao paid 3.50. “Really?” he asked. यह सच है। हाँ!")
        ['Dr. Rao paid 3.50.', '“Really?” he asked.', 'यह सच है।', 'हाँ!']
    """
    lines = enumerate(text.splitlines(), 1)
    return [sentence.text for sentence in split_document(lines, language)]


def split_document(
    lines: Iterable[tuple[int, str]],
    language: str | None = None,
    *,
    layout: Layout = "paragraphs",
) -> Iterator[Sentence]:
    """Split the numbered lines of a document into sentences.

    Args:
        lines: (line number, line) in order, as `read_lines` returns them.
        language: See `split_sentences`.
        layout: `"paragraphs"`: a line is a paragraph, and its end ends a sentence.
            `"wrapped"`: only a blank line ends a paragraph; other line ends count as
            spaces. `"lines"`: a line is a sentence.

    Returns:
        An iterator of sentences. Blank lines have none.

    Raises:
        ValueError: If `layout` or `language` is unknown.

    Example:
        >>> from labse_tf.text import split_document
        >>> lines = [(1, "One sentence"), (2, "of two lines. Another."), (3, "")]
        >>> [tuple(s) for s in split_document(lines, "en", layout="wrapped")]
        [('One sentence of two lines.', 1), ('Another.', 2)]
    """
    if layout not in LAYOUTS:
        raise ValueError(
            f"`layout` must be one of {', '.join(LAYOUTS)}. Received: {layout}"
        )
    code = None if language is None else without_script(language_code(language))
    return _split(lines, _rules(code), layout)


def read_document(
    path: PathLike,
    *,
    language: str | None = None,
    layout: Layout = "paragraphs",
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> list[Sentence]:
    """Read a text file as sentences.

    Args:
        path: Path of a UTF-8 text, plain or compressed, or `XX=PATH`.
        language: Language of the text. If `None`, that of the name; see
            `file_language`.
        layout: See `split_document`.
        on_error: `"raise"`, or `"skip"` to skip lines of invalid UTF-8.
        skipped: See `read_lines`.

    Returns:
        The sentences; none for an empty file.

    Raises:
        DataError: If the file is missing or damaged, or a line is invalid UTF-8.
        ImportError: If the file needs the extra `text` (zstd).
        ValueError: If the path has the ending of a format of pairs.
    """
    found = format_of(path)
    if found in FORMATS.values():
        raise ValueError(
            f"{path}: expected a text, one file per language; `labse-tf filter` scores "
            "pairs. Received: the ending of a file of pairs"
        )
    lines = read_numbered(path, blank_lines=True, on_error=on_error, skipped=skipped)
    language = language or file_language(path)
    return list(split_document(lines, language, layout=layout))


def join_sentences(sentences: Iterable[str]) -> str:
    """Join sentences, with spaces except between Chinese or Japanese letters.

    Example:
        >>> from labse_tf.text import join_sentences
        >>> join_sentences(["One.", "Two."]), join_sentences(["一。", "二。"])
        ('One. Two.', '一。二。')
    """
    joined = ""
    for text in sentences:
        joined += f"{_gap(joined, text)}{text}"
    return joined


def _gap(before: str, after: str) -> str:
    """Return what stands between two parts of a text."""
    unspaced = _UNSPACED.match(before[-1:]) and _UNSPACED.match(after)
    return "" if unspaced or not before else " "


def _split(
    lines: Iterable[tuple[int, str]], rules: _Rules, layout: Layout
) -> Iterator[Sentence]:
    """Yield the sentences of numbered lines."""
    if layout == "lines":
        yield from (Sentence(t.strip(), n) for n, t in lines if t.strip())
        return
    for paragraph, starts in _paragraphs(lines, layout):
        place = 0
        for start, end in _spans(paragraph, rules):
            while place + 1 < len(starts) and starts[place + 1][0] <= start:
                place += 1
            yield Sentence(paragraph[start:end], starts[place][1])


def _paragraphs(
    lines: Iterable[tuple[int, str]], layout: Layout
) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Yield paragraphs, each with (offset, line number) of its lines."""
    if layout == "paragraphs":
        yield from ((text, [(0, number)]) for number, text in lines)
        return
    parts: list[str] = []
    starts: list[tuple[int, int]] = []
    length = 0
    for number, line in lines:
        text = line.strip()
        if not text:
            if parts:
                yield "".join(parts), starts
            parts, starts, length = [], [], 0
            continue
        text = (_gap(parts[-1], text) if parts else "") + text
        # The space before a line belongs to the line before.
        starts.append((length + (text[0] == " "), number))
        parts.append(text)
        length += len(text)
    if parts:
        yield "".join(parts), starts


def _spans(paragraph: str, rules: _Rules) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each sentence, without white space around it.

    A part without letters or digits, such as a closing mark, joins the part before it.
    """
    start = _after_space(paragraph, 0)
    pending: tuple[int, int] | None = None
    for match in [*_END.finditer(paragraph), None]:
        if match is None:
            end = len(paragraph.rstrip())
        elif _ends(paragraph, start, match, rules):
            end = match.end("closing")
        else:
            continue
        if end <= start:
            continue
        if pending is not None and not _has_word(paragraph, start, end):
            pending = pending[0], end
        else:
            if pending is not None:
                yield pending
            pending = start, end
        start = _after_space(paragraph, end)
    if pending is not None:
        yield pending


def _after_space(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def _has_word(text: str, start: int, end: int) -> bool:
    return any(letter.isalnum() for letter in text[start:end])


def _ends(text: str, start: int, match: re.Match[str], rules: _Rules) -> bool:
    """Return whether a sentence that begins at `start` ends at these marks."""
    marks, after = match["marks"], match.end()
    if after == len(text):
        return True
    following = text[after]
    if marks[-1] in _SURE:
        # "१।२" and "３．１" are numbers.
        inside = not match["closing"] and not match["gap"] and following.isdigit()
        word = _WORD_BEFORE.search(text, start, match.start())
        short = marks == "۔" and word is not None and word[0].lower() in rules.never
        return not inside and not short
    if not match["gap"]:
        before = text[match.start() - 1 : match.start()]
        return (marks[-1] in "!?" or _CJK.match(before) is not None) and _CJK.match(
            following
        ) is not None
    first = after
    while first < len(text) and text[first] in _OPENING:
        first += 1
    if first < len(text) and text[first].islower():
        return False
    # "... (e.g.) Next": the closing marks belong to the abbreviation.
    return marks != "." or not _is_abbreviation(
        text, start, match.start(), first, rules
    )


def _is_abbreviation(
    text: str, start: int, stop: int, after: int, rules: _Rules
) -> bool:
    """Return whether the full stop at `stop` belongs to the word before it.

    Args:
        text: The paragraph.
        start: Start of the sentence.
        stop: Offset of the full stop.
        after: Offset of the first letter after it.
        rules: Rules of the language.
    """
    found = _WORD_BEFORE.search(text, max(start, stop - 40), stop)
    if found is None:
        return False
    word = found[0]
    if word.isdigit():
        first = found.start() == start and len(word) <= _LONGEST_NUMBER
        return first or (rules.ordinal and len(word) <= _LONGEST_ORDINAL)
    if _WITHOUT_STOPS.match(word[-1]):
        return True
    key = word.lower()
    if key in rules.never:
        return True
    if key in rules.number and after < len(text) and text[after].isdigit():
        return True
    if not (key in rules.final or _is_initial(word) or _is_acronym(word)):
        return False
    following = _NEXT_WORD.match(text, after)
    starts = following is not None and following[0] in rules.start
    return not starts or found.start() == start


def _is_initial(word: str) -> bool:
    """Return whether a word is one letter, with its vowel signs in Indic scripts."""
    if len(word) == 1:
        # "é" is a word in Portuguese, "ạ" in Vietnamese.
        accented = "\u0080" <= word < "\u0250"
        known = accented or word in _SHORT_WORDS or _CJK.match(word)
        return word.isalpha() and not known
    letters = [c for c in word if unicodedata.category(c)[0] == "L"]
    marks = [c for c in word if unicodedata.category(c)[0] == "M"]
    return (
        len(letters) == 1
        and len(marks) == len(word) - 1
        and "\u0980" <= word[0] <= "\u0dff"
        and not _BARE_INITIALS.match(word)
        and word not in _SHORT_WORDS
    )


def _is_acronym(word: str) -> bool:
    """Return whether a word has full stops between one to three letters: U.S, कि.मी."""
    parts = word.split(".")
    return len(parts) > 1 and all(
        1 <= sum(letter.isalpha() for letter in part) <= 3 and part[0].isalpha()
        for part in parts
    )
