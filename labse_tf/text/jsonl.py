"""JSON Lines -> rows."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from labse_tf.languages import is_language_code, language_code
from labse_tf.text.problems import InputFile, Row, SkipReport, shorten
from labse_tf.text.streams import text_lines
from labse_tf.text.translations import Translations, score_of

Entries = Iterable[tuple[int, dict[str, Any]]]
"""Numbered objects of texts."""


def json_rows(file: InputFile) -> Iterator[Row]:
    """Yield pairs from objects of texts by language, or of two sides.

    Texts by language are the object itself or its `translation`. The sides are `source`
    (English) and `target`, or `src` and `tgt`, optionally with the target's `language`
    and the source's `source_language`.
    A key `id` of the object itself is Indonesian if the object has only one other
    language or the caller specifies Indonesian; otherwise it is an identifier.
    A number of a key of `SCORES` is the score of the pair.
    """
    return entry_rows(file, _objects(file))


def json_texts(file: InputFile) -> Iterator[Row]:
    """Yield rows without English from `text` and `language`, or rows of pairs."""
    return entry_texts(file, _objects(file))


def entry_rows(file: InputFile, entries: Entries) -> Iterator[Row]:
    """Yield the pairs of numbered objects; see `json_rows`."""
    translations = Translations(file)
    for line, entry in entries:
        texts = _texts(entry, file.language)
        rows = translations.rows(line, texts, score_of(entry))
        if not rows:
            file.problem(line, "English and a translation", shorten(entry))
        yield from rows


def entry_texts(file: InputFile, entries: Entries) -> Iterator[Row]:
    """Yield the sentences of numbered objects; see `json_texts`."""
    translations = Translations(file)
    for line, entry in entries:
        if isinstance(entry.get("text"), str):
            checked = translations.check(line, _language(entry), entry["text"])
            if checked is not None:
                yield Row(line, "", checked[1], checked[0])
        else:
            yield from translations.rows(line, _texts(entry, file.language))


def names_pairs(names: Collection[str], language: str | None) -> bool:
    """Return whether objects with text under these keys can be pairs."""
    return len(_texts(dict.fromkeys(names, "text"), language)) > 1


def holds_pairs(path: Path) -> bool:
    """Return whether the first object of a file, if any, has no `text`."""
    file = InputFile(path, None, "skip", SkipReport())
    first = next(_objects(file), None)
    return first is None or "text" not in first[1]


def _objects(file: InputFile) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in text_lines(file):
        if text is None or not text.strip():
            continue
        try:
            entry = json.loads(text)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict):
            yield line, entry
        else:
            file.problem(line, "a JSON object", shorten(text))


def _language(entry: dict[str, Any], key: str = "language", default: str = "") -> str:
    code = entry.get(key)
    return code if isinstance(code, str) else default


def _texts(entry: dict[str, Any], wanted: str | None) -> list[tuple[str, str]]:
    """Return the texts of an object as (language, text)."""
    nested = entry.get("translation")
    if isinstance(nested, dict):
        return [(key, text) for key, text in nested.items() if isinstance(text, str)]
    for source, target in (("source", "target"), ("src", "tgt")):
        sides = entry.get(source), entry.get(target)
        if all(isinstance(side, str) for side in sides):
            first = _language(entry, "source_language", "en")
            return [(first, entry[source]), (_language(entry), entry[target])]
    texts = {
        key: text
        for key, text in entry.items()
        if isinstance(text, str) and _is_language(key, wanted)
    }
    if len(texts) > 2 and wanted != "id":
        texts.pop("id", None)  # An identifier, not Indonesian.
    return list(texts.items())


def _is_language(key: str, wanted: str | None) -> bool:
    """Return whether a key is a known language or the requested language."""
    return is_language_code(key, known=True) or (
        is_language_code(key) and language_code(key) == wanted
    )
