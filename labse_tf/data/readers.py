"""Readers: one TSV, PO, MO or text file -> sentence pairs or sentences.

Bad input is a `DataError` with its file and line, or left out and counted in a
`SkipReport`.
"""

from __future__ import annotations

import codecs
import functools
import gettext
import gzip
import html
import itertools
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

OnError = Literal["raise", "skip"]
PathLike = str | os.PathLike[str]
Problem = Callable[[int, str, str], None]  # line, what was expected, what was received
Row = tuple[str, str, str]  # source, target, the language the file itself names or ""


class SentencePair(NamedTuple):
    """An English sentence and its translation."""

    source: str
    target: str
    language: str


class DataError(ValueError):
    """A file that cannot be read as pairs, with its `path` and `line`.

    Line 1 stands for the file as a whole; in an MO file it is the message's number.
    """

    def __init__(self, path: PathLike, line: int, expected: str, received: str) -> None:
        """Keeps the four parts, which also makes it travel between processes."""
        super().__init__(path, line, expected, received)
        self.path, self.line, self.expected = Path(path), line, expected

    def __str__(self) -> str:
        """`path:line: expected ... Received: ...`."""
        path, line, expected, received = self.args
        return f"{path}:{line}: expected {expected}. Received: {received}"


class SkipReport:
    """What `on_error="skip"` left out: `print` it, or look into `entries`.

    Many threads may share one. A line counts once for a reason, however often its file
    is read: counting the words and then the unknown ones reads every file twice.
    """

    def __init__(self) -> None:
        """Starts empty."""
        self._lock = threading.Lock()
        # (path, what was expected) -> times, first line, and one bit for each line:
        # a file may be bad from its first line to its millionth
        self._found: dict[tuple[str, str], tuple[int, int, bytearray]] = {}

    def add(self, error: DataError) -> None:
        """Counts one problem, if it is not known yet."""
        key = (str(error.path), error.expected)
        place, bit = divmod(error.line, 8)
        with self._lock:
            times, first, bits = self._found.get(key, (0, error.line, bytearray()))
            bits.extend(bytes(max(0, place + 1 - len(bits))))
            if not bits[place] >> bit & 1:
                bits[place] |= 1 << bit
                self._found[key] = times + 1, min(first, error.line), bits

    @property
    def entries(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(path, what was expected) -> (times, first line), sorted; a copy."""
        with self._lock:
            return {key: self._found[key][:2] for key in sorted(self._found)}

    @property
    def total(self) -> int:
        """Number of problems in all files."""
        return sum(times for times, _ in self.entries.values())

    def __bool__(self) -> bool:
        """Whether anything was skipped."""
        return bool(self.entries)

    def __str__(self) -> str:
        """One line a file and reason."""
        return "\n".join(
            f"{path}:{line}: skipped {times}, the first here: expected {expected}"
            for (path, expected), (times, line) in self.entries.items()
        )

    def __getstate__(self) -> dict[str, Any]:
        """A copy without the lock, which cannot travel between processes."""
        with self._lock:
            found = {key: (*v[:2], bytearray(v[2])) for key, v in self._found.items()}
        return {"_found": found}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Gives the copy a lock of its own."""
        self.__dict__.update(state)
        self._lock = threading.Lock()


# === Language of a file ===

_TAG = re.compile(r"[A-Za-z]{2,3}(?:[-_@][A-Za-z0-9]{2,8}|\.[A-Za-z0-9-]+(?=@|$))*")
_SCRIPTS = {"latin": "Latn", "cyrillic": "Cyrl", "devanagari": "Deva", "arabic": "Arab"}


def language_tag(code: str) -> str:
    """Writes a language code of any catalogue the BCP 47 way.

    Args:
        code: such as `hi`, `zh_Hans`, `pt_BR`, `sr@latin`, `de_DE.UTF-8`.

    Returns:
        Language, script, region and variants, joined by hyphens.

    Raises:
        ValueError: it does not look like a language code.

    Example:
        >>> language_tag("zh_Hans"), language_tag("pt_br"), language_tag("sr_RS@latin")
        ('zh-Hans', 'pt-BR', 'sr-Latn-RS')
    """
    if not _TAG.fullmatch(code):
        raise ValueError(
            "`language` must be a code such as hi, zh-Hant or pt_BR. "
            f"Received: {code!r}"
        )
    # "de_DE.UTF-8@euro" has its encoding in the middle in POSIX names
    language, *rest = re.split("[-_@]", re.sub(r"\.[^@]+", "", code))
    parts: dict[str, list[str]] = {"script": [], "region": [], "variant": []}
    for part in rest:
        part = _SCRIPTS.get(part.lower(), part)
        if len(part) == 4 and part.isalpha():
            parts["script"].append(part.title())
        elif len(part) == 2 or (len(part) == 3 and part.isdigit()):
            parts["region"].append(part.upper())
        else:
            parts["variant"].append(part.lower())
    return "-".join([language.lower(), *itertools.chain(*parts.values())])


def _stem_and_kind(path: PathLike) -> tuple[str, str]:
    name = Path(path).name
    if name.lower().endswith(".gz"):
        name = name[:-3]
    stem, suffix = os.path.splitext(name)
    return stem, suffix.lower()


def file_language(path: PathLike, said: str = "") -> str | None:
    """The language that a file's name gives, or None.

    The first of: `en-XX.tsv[.gz]`; `XX/LC_MESSAGES/any.po`; the language that the file
    itself says, which is `Language:` in a catalogue's header; a name that is a code or
    ends with one after a full stop: `XX.po`, `wiki.XX.txt`.

    Args:
        path: the file's path; it need not exist.
        said: the language in the file's header, if any.

    Returns:
        A tag as `language_tag` writes it, or None.
    """
    stem, kind = _stem_and_kind(path)
    folder = Path(os.path.abspath(path)).parent
    candidates = [said.strip(), stem, stem.rpartition(".")[2]]
    if folder.name == "LC_MESSAGES":
        candidates.insert(0, folder.parent.name)
    if kind == ".tsv" and stem.lower().startswith("en-"):
        candidates.insert(0, stem[3:])
    for candidate in candidates:
        if _TAG.fullmatch(candidate):
            return language_tag(candidate)
    return None


# === Readers ===


def read_pairs(
    path: PathLike,
    *,
    language: str | None = None,
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> Iterator[SentencePair]:
    """Reads sentence pairs from a TSV, PO or MO file, plain or gzipped.

    A TSV row is `English<TAB>translation`, in UTF-8, with LF or CRLF; further columns
    are ignored. A catalogue's `msgid` is taken for English; its singular goes with the
    form that the language uses for one, `msgid_plural` with the last form, and fuzzy,
    obsolete and untranslated messages are no pairs. White space around a sentence is
    removed; placeholders and markup stay (see `clean_interface_text`).

    Args:
        path: `.po`, `.mo`, `.gmo`, each also with `.gz`; any other name is read as TSV.
        language: the translation's language; None to take it from the file, see
            `file_language`.
        on_error: `"raise"`, or `"skip"` to leave out what cannot be read.
        skipped: where `"skip"` counts what it left out; without it a warning says so.

    Returns:
        An iterator of `SentencePair`.

    Raises:
        DataError: (while iterating) invalid UTF-8, a row without a tab, an empty side,
            an empty, cut off, missing or unreadable file, or an unknown language.
    """
    return _read(path, language, on_error, skipped, _pair_rows(path))


def _read(
    path: PathLike,
    language: str | None,
    on_error: OnError,
    skipped: SkipReport | None,
    reader: Callable[[PathLike, Problem], Iterator[Row]],
) -> Iterator[SentencePair]:
    if on_error not in ("raise", "skip"):
        raise ValueError(f'`on_error` must be "raise" or "skip". Received: {on_error}')
    tag = None if language is None else language_tag(language)
    report = SkipReport() if skipped is None else skipped

    def problem(line: int, expected: str, received: str) -> None:
        error = DataError(path, line, expected, received)
        if on_error == "raise":
            raise error
        report.add(error)

    def pairs() -> Iterator[SentencePair]:
        known = tag
        for source, target, said in reader(path, problem):
            if known is None:
                known = file_language(path, said)
            if known is None:
                expected = "a language in the name (en-hi.tsv, hi.po) or `language`"
                problem(1, expected, Path(path).name)
                return
            yield SentencePair(source, target, known)
        if skipped is None and report:
            warnings.warn(str(report), stacklevel=2)

    return pairs()


def _pair_rows(path: PathLike) -> Callable[[PathLike, Problem], Iterator[Row]]:
    kind = _stem_and_kind(path)[1]
    return {".po": _po_rows, ".mo": _mo_rows, ".gmo": _mo_rows}.get(kind, _tsv_rows)


def _chunks(path: PathLike) -> Iterator[bytes]:
    """Content of a plain or gzipped file; all that comes before any damage."""
    with open(path, "rb") as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        stream: Any = gzip.GzipFile(fileobj=file) if packed else file
        # read1, because read throws away what it has when it meets damage
        while chunk := stream.read1(1 << 17):
            yield chunk


def _lines(path: PathLike, problem: Problem) -> Iterator[tuple[int, bytes]]:
    """Numbered lines without their line feed."""
    line, pending = 0, [b""]
    try:
        for chunk in _chunks(path):
            *lines, last = chunk.split(b"\n")
            if lines:
                lines[0] = b"".join([*pending, lines[0]])
                pending = []
            pending.append(last)
            for content in lines:
                line += 1
                yield line, content
    except _DAMAGE as error:
        problem(line + 1, *_damage(error))  # the unfinished line is lost as well
    else:
        if any(pending):
            yield line + 1, b"".join(pending)
        elif line == 0:
            problem(1, "text", "an empty file")


_DAMAGE = (EOFError, zlib.error, OSError)


def _damage(error: Exception) -> tuple[str, str]:
    """What was expected, what was received."""
    if isinstance(error, OSError) and error.strerror:
        return "a readable file", error.strerror
    return "an undamaged gzip file", str(error)


def _shorten(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _text_lines(
    path: PathLike, problem: Problem, lines: Iterable[tuple[int, bytes]], charset: str
) -> Iterator[tuple[int, str | None]]:
    """Decoded lines without their ends; None for one that cannot be decoded."""
    for line, content in lines:
        try:
            text = content.decode(charset)
        except UnicodeDecodeError as error:
            bad = content[error.start : error.start + 4]
            problem(line, f"{charset.upper()} text", f"the bytes {bad!r}")
            yield line, None
            continue
        if line == 1:
            text = text.removeprefix("\ufeff")
        yield line, text.removesuffix("\r")


def _tsv_rows(path: PathLike, problem: Problem) -> Iterator[Row]:
    for line, text in _text_lines(path, problem, _lines(path, problem), "utf-8"):
        if text is None:
            continue
        columns = text.split("\t", 2)
        if len(columns) < 2:
            problem(line, "English, a tab and its translation", _shorten(text))
            continue
        source, target = columns[0].strip(), columns[1].strip()
        if source and target:
            yield source, target, ""
        else:
            problem(line, "a sentence on both sides of the tab", _shorten(text))


_PO_LINE = re.compile(
    r'(?:(msgctxt|msgid|msgid_plural|msgstr(?:\[\d+\])?)\s*)?"((?:[^"\\]|\\.)*)"'
)
_ESCAPE = re.compile(r"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CHARSET = re.compile(rb"(?i)Content-Type:[^\n]*charset=([\w.:-]+)")
_CATALOGUE = b'msgid "\\n\\u0041 +2AA- xn--0"'  # means what it says in ASCII alone


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    return chr(int(code, 8)) if code[0] in "01234567" else _ESCAPES.get(code, code)


def _charset(header: bytes, problem: Problem) -> str | None:
    found = _CHARSET.search(header)
    name = found[1].decode() if found else "utf-8"
    name = "utf-8" if name == "CHARSET" else name  # an unfilled template
    try:
        # Python's codecs are not all of text, and text may be no superset of ASCII
        if _CATALOGUE.decode(name) == _CATALOGUE.decode():
            return codecs.lookup(name).name
    except (LookupError, UnicodeError):
        pass
    problem(1, "a charset that Python knows and that holds ASCII", name)
    return None


def _po_rows(path: PathLike, problem: Problem) -> Iterator[Row]:
    lines = list(_lines(path, problem))
    charset = _charset(b"\n".join(content for _, content in lines), problem)
    if charset is None:
        return iter(())
    decoded = _text_lines(path, problem, lines, charset)
    return _message_rows(_po_messages(decoded, problem))


def _po_messages(
    lines: Iterable[tuple[int, str | None]], problem: Problem
) -> Iterator[tuple[list[str], list[str]]]:
    """The ids (one, or singular and plural) and the forms of each message."""
    fields: dict[str, str] = {}
    field, fuzzy, broken = "", False, False
    for line, text in itertools.chain(lines, [(0, "")]):
        stripped = (text or "").strip()
        match = _PO_LINE.fullmatch(stripped)
        keyword = match[1] if match else None
        between = text is not None and stripped[:1] in ("", "#")
        if field.startswith("msgstr") and (between or keyword in ("msgctxt", "msgid")):
            ids = [fields[name] for name in ("msgid", "msgid_plural") if name in fields]
            header = ids == [""] and "msgctxt" not in fields
            if header or (ids and ids[0] and not fuzzy and not broken):
                names = sorted(name for name in fields if name.startswith("msgstr"))
                yield ids, [fields[name] for name in names]
            fields, field, fuzzy, broken = {}, "", False, False
        if between:
            if stripped.startswith("#,") and re.search(r"\bfuzzy\b", stripped):
                fuzzy = True
            elif stripped.startswith("#~"):
                fuzzy = False  # the flag belonged to an obsolete message
            elif not stripped and broken:
                fields, field, broken = {}, "", False
        elif match and (field if keyword is None else keyword not in fields):
            field = keyword or field
            fields[field] = fields.get(field, "") + _ESCAPE.sub(_unescape, match[2])
        else:
            broken = True
            if text is not None:
                expected = 'the next gettext keyword of a message and a "string"'
                problem(line, expected, _shorten(text))


def _mo_rows(path: PathLike, problem: Problem) -> Iterator[Row]:
    return _message_rows(_mo_messages(path, problem))


def _mo_messages(
    path: PathLike, problem: Problem
) -> Iterator[tuple[list[str], list[str]]]:
    try:
        data = b"".join(_chunks(path))
    except _DAMAGE as error:
        return problem(1, *_damage(error))
    order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}.get(data[:4])
    if order is None or len(data) < 20:
        problem(1, "an MO file's magic number and header", _shorten(data[:20]))
        return
    _, revision, count, ids, texts = struct.unpack_from(order + "5I", data)
    if revision >> 16 > 1 or max(ids, texts) + 8 * count > len(data):
        received = f"revision {revision >> 16}, {count} messages in {len(data)} bytes"
        problem(1, "revision 0 or 1 and tables inside the file", received)
        return
    charset: str | None = None
    for number in range(count):
        parts = []
        for table in (ids, texts):
            length, start = struct.unpack_from(order + "2I", data, table + 8 * number)
            if start + length > len(data):
                received = f"{length} bytes from {start} in {len(data)} bytes"
                problem(number + 1, "a message inside the file", received)
                break
            parts.append(data[start : start + length])
        if len(parts) < 2:
            continue
        if charset is None:
            charset = _charset(b"" if parts[0] else parts[1], problem)
            if charset is None:
                return
        try:
            key, value = (part.decode(charset) for part in parts)
        except UnicodeDecodeError as error:
            bad = error.object[error.start : error.start + 4]
            problem(number + 1, f"{charset.upper()} text", f"the bytes {bad!r}")
            continue
        context, mark, key = key.rpartition("\4")
        if key or not mark:
            yield key.split("\0"), value.split("\0")


def _message_rows(messages: Iterable[tuple[list[str], list[str]]]) -> Iterator[Row]:
    language, one = "", 0
    for ids, forms in messages:
        if ids == [""]:
            header = dict(re.findall(r"(?m)^([\w-]+):[ \t]*(.*)$", forms[0]))
            language = header.get("Language", "")
            one = _form_of_one(header.get("Plural-Forms", ""))
            continue
        pairs = [(ids[-1], forms[-1])]
        if len(ids) > 1 and len(forms) > 1:
            pairs.insert(0, (ids[0], forms[one if 0 <= one < len(forms) else 0]))
        for source, target in pairs:
            if source.strip() and target.strip():
                yield source.strip(), target.strip(), language


@functools.lru_cache(maxsize=256)
def _form_of_one(plural_forms: str) -> int:
    """Number of the form for n = 1: mostly 0, but 1 in Arabic, whose 0 is for none."""
    formula = re.search(r"plural\s*=\s*([^;]+)", plural_forms)
    compiler: Any = gettext
    try:
        return int(compiler.c2py(formula[1].strip())(1)) if formula else 0
    except (ValueError, ArithmeticError):
        return 0


def read_sentences(
    path: PathLike,
    *,
    language: str | None = None,
    side: Literal["both", "source", "target"] = "both",
    on_error: OnError = "raise",
    skipped: SkipReport | None = None,
) -> Iterator[tuple[str, str]]:
    """Reads single sentences, for a vocabulary or masked-LM training.

    Args:
        path: a pair file (`.tsv`, `.po`, `.mo`), or text with one sentence a line under
            any other name; blank lines of a text are no sentences. Plain or gzipped.
        language: as in `read_pairs`; for a text file the language of the text.
        side: which sentences of a pair; a text file has one side only.
        on_error: as in `read_pairs`.
        skipped: as in `read_pairs`.

    Returns:
        An iterator of (language, sentence); the source of a pair is `"en"`.

    Raises:
        DataError: as in `read_pairs`.
    """
    if side not in ("both", "source", "target"):
        raise ValueError(
            f'`side` must be "both", "source" or "target". Received: {side}'
        )
    paired = _stem_and_kind(path)[1] in (".tsv", ".po", ".mo", ".gmo")
    reader = _pair_rows(path) if paired else _plain_rows
    pairs = _read(path, language, on_error, skipped, reader)

    def sentences() -> Iterator[tuple[str, str]]:
        for pair in pairs:
            if paired and side != "target":
                yield "en", pair.source
            if side != "source" or not paired:
                yield pair.language, pair.target

    return sentences()


def _plain_rows(path: PathLike, problem: Problem) -> Iterator[Row]:
    for _, text in _text_lines(path, problem, _lines(path, problem), "utf-8"):
        if text is not None and text.strip():
            yield "", text.strip(), ""


_INTERFACE = (
    (re.compile(r"</?[A-Za-z!][^<>]*>"), " "),
    (re.compile(r"\$?\{\{?[^{}]*\}?\}"), " "),
    (re.compile(r"%\([^()]*\)[-+ #0]*[\d.]*[a-zA-Z]"), " "),
    (re.compile(r"%(?:\d+\$)?[-+#0]*[\d.]*(?:hh|h|ll|l|z)?[diouxXeEfgGcrs@]\b"), " "),
    (re.compile(r"%%"), "%"),
    (re.compile(r"\s*\([&_]\w\)"), ""),
    # "R&D" and "snake_case" are no accelerators
    (re.compile(r"(?<![A-Z])&(?=\w)|&(?=[a-z])|(?<!\w)_(?=\w)"), ""),
    (re.compile(r"\s+"), " "),
)


def clean_interface_text(text: str) -> str:
    """Leaves the words of an interface message.

    Removes HTML tags, `%(name)s`, `%s`, `{name}` and accelerators (`&File`, `_File`,
    `(&F)`), resolves entities and collapses white space.

    Example:
        >>> clean_interface_text("<b>&amp;Open</b> %(count)d {kind} files")
        'Open files'
    """
    text = html.unescape(_INTERFACE[0][0].sub(" ", text))
    for pattern, replacement in _INTERFACE[1:]:
        text = pattern.sub(replacement, text)
    return text.strip()
