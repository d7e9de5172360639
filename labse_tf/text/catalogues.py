"""Gettext catalogs, PO and MO -> rows."""

from __future__ import annotations

import codecs
import functools
import gettext
import itertools
import re
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from labse_tf.text.problems import InputFile, Row, shorten
from labse_tf.text.streams import DAMAGE, chunks, damage, lines, text_lines

_PO_LINE = re.compile(
    r'(?:(msgctxt|msgid|msgid_plural|msgstr(?:\[\d+\])?)\s*)?"((?:[^"\\]|\\.)*)"'
)
_ESCAPE = re.compile(r"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_CHARSET = re.compile(rb"(?i)Content-Type:[^\n]*charset=([\w.:-]+)")
# Line or message number, ids (one, or singular and plural), translated forms.
_Message = tuple[int, list[str], list[str]]
_CATALOGUE = b'msgid "\\n\\u0041 +2AA- xn--0"'  # Unchanged only in supersets of ASCII.


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] == "x" and len(code) > 1:
        return chr(int(code[1:], 16))
    return chr(int(code, 8)) if code[0] in "01234567" else _ESCAPES.get(code, code)


def _charset(header: bytes, file: InputFile) -> str | None:
    found = _CHARSET.search(header)
    name = found[1].decode() if found else "utf-8"
    name = "utf-8" if name == "CHARSET" else name  # An unfilled template.
    try:
        # Some codecs of Python are not for text, or not supersets of ASCII.
        if _CATALOGUE.decode(name) == _CATALOGUE.decode():
            return codecs.lookup(name).name
    except (LookupError, UnicodeError):
        pass
    file.problem(1, "a charset that Python knows, a superset of ASCII", name)
    return None


def po_rows(file: InputFile) -> Iterator[Row]:
    """Yield the translated messages of a PO file."""
    numbered = list(lines(file))
    charset = _charset(b"\n".join(content for _, content in numbered), file)
    if charset is None:
        return iter(())
    decoded = text_lines(file, charset, numbered)
    return _message_rows(_po_messages(decoded, file))


def _po_messages(
    numbered: Iterable[tuple[int, str | None]], file: InputFile
) -> Iterator[_Message]:
    """Yield line, ids and forms of each message that is not fuzzy."""
    fields: dict[str, str] = {}
    first = 0
    field, fuzzy, broken = "", False, False
    for line, text in itertools.chain(numbered, [(0, "")]):
        stripped = (text or "").strip()
        match = _PO_LINE.fullmatch(stripped)
        keyword = match[1] if match else None
        between = text is not None and stripped[:1] in ("", "#")
        if field.startswith("msgstr") and (between or keyword in ("msgctxt", "msgid")):
            ids = [fields[name] for name in ("msgid", "msgid_plural") if name in fields]
            header = ids == [""] and "msgctxt" not in fields
            if header or (ids and ids[0] and not fuzzy and not broken):
                names = sorted(name for name in fields if name.startswith("msgstr"))
                yield first, ids, [fields[name] for name in names]
            fields, field, fuzzy, broken = {}, "", False, False
        if between:
            if stripped.startswith("#,") and re.search(r"\bfuzzy\b", stripped):
                fuzzy = True
            elif stripped.startswith("#~"):
                fuzzy = False  # The flag belonged to an obsolete message.
            elif not stripped and broken:
                fields, field, broken = {}, "", False
        elif match and (field if keyword is None else keyword not in fields):
            first = first if fields else line
            field = keyword or field
            fields[field] = fields.get(field, "") + _ESCAPE.sub(_unescape, match[2])
        else:
            broken = True
            if text is not None:
                expected = 'the next gettext keyword of a message and a "string"'
                file.problem(line, expected, shorten(text))


def mo_rows(file: InputFile) -> Iterator[Row]:
    """Yield the messages of an MO file."""
    return _message_rows(_mo_messages(file))


def _mo_messages(file: InputFile) -> Iterator[_Message]:
    try:
        data = b"".join(chunks(file.path))
    except DAMAGE as error:
        return file.problem(1, *damage(error))
    order = {b"\xde\x12\x04\x95": "<", b"\x95\x04\x12\xde": ">"}.get(data[:4])
    if order is None or len(data) < 20:
        file.problem(1, "an MO file's magic number and header", shorten(data[:20]))
        return
    _, revision, count, ids, texts = struct.unpack_from(order + "5I", data)
    if revision >> 16 > 1 or max(ids, texts) + 8 * count > len(data):
        received = f"revision {revision >> 16}, {count} messages in {len(data)} bytes"
        file.problem(1, "revision 0 or 1 and tables inside the file", received)
        return
    charset: str | None = None
    for number in range(count):
        parts = []
        for table in (ids, texts):
            length, start = struct.unpack_from(order + "2I", data, table + 8 * number)
            if start + length > len(data):
                received = f"{length} bytes at offset {start} in {len(data)} bytes"
                file.problem(number + 1, "a message inside the file", received)
                break
            parts.append(data[start : start + length])
        if len(parts) < 2:
            continue
        if charset is None:
            charset = _charset(b"" if parts[0] else parts[1], file)
            if charset is None:
                return
        try:
            key, value = (part.decode(charset) for part in parts)
        except UnicodeDecodeError as error:
            bad = error.object[error.start : error.start + 4]
            file.problem(number + 1, f"{charset.upper()} text", f"the bytes {bad!r}")
            continue
        context, mark, key = key.rpartition("\4")
        if key or not mark:
            yield number + 1, key.split("\0"), value.split("\0")


def _message_rows(messages: Iterable[_Message]) -> Iterator[Row]:
    language, one = "", 0
    for line, ids, forms in messages:
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
                yield Row(line, source.strip(), target.strip(), language)


@functools.lru_cache(maxsize=256)
def _form_of_one(plural_forms: str) -> int:
    """Return the index of the form for n = 1: usually 0, but 1 in Arabic."""
    formula = re.search(r"plural\s*=\s*([^;]+)", plural_forms)
    compiler: Any = gettext
    try:
        return int(compiler.c2py(formula[1].strip())(1)) if formula else 0
    except (ValueError, ArithmeticError):
        return 0
