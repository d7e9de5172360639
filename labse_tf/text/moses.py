"""Moses corpora, two files that are translations of each other line by line -> rows.

The names differ only in the language after the last full stop: `corpus.en-hi.en` and
`corpus.en-hi.hi`, or `train.en` and `train.hi`.
"""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from labse_tf.languages import is_english, is_language_code, language_code
from labse_tf.text.names import PACKED, pair_language
from labse_tf.text.problems import InputFile, Row
from labse_tf.text.streams import text_lines

_ENGLISH = ("en", "eng", "eng_Latn")


def sides(path: Path) -> list[tuple[Path, Path, str]]:
    """Return (English file, other file, its language) for each pair of a path.

    A path is the file of one language, or a path without the language. The English file
    and the path without the language stand for all languages.
    """
    name, code = _name_and_code(path)
    if path.exists() and not code:
        return []
    if not path.exists():
        name, code = path.name, ""
    folder = path.parent
    english = next(
        (file for other in _ENGLISH if (file := _file(folder, name, other))), None
    )
    if english is None:
        return []
    if code and not is_english(code):
        return [(english, path, code)]
    other = pair_language(name)
    if other is not None:
        file = _file(folder, name, other)
        return [] if file is None else [(english, file, other)]
    found = {}
    for file in sorted(folder.glob(f"{glob.escape(name)}.*")):
        start, code = _name_and_code(file)
        if start == name and code and not is_english(code):
            found[code] = english, file, code
    return list(found.values())


def is_side(path: Path) -> bool:
    """Return whether a path has Moses files, or a name such as `corpus.en-hi.hi`."""
    name, code = _name_and_code(path)
    pair = pair_language(name) if code else None
    return pair is not None and (code == pair or is_english(code)) or bool(sides(path))


def moses_rows(file: InputFile) -> Iterator[Row]:
    """Yield one row per line that both files have; an empty side is a problem."""
    pairs = sides(file.path)
    if not pairs:
        file.problem(1, "a file in the other language in the same directory", "none")
    for english, other, code in pairs:
        left, right = file.beside(english), file.beside(other)
        line = 0
        for ours, theirs in itertools.zip_longest(text_lines(left), text_lines(right)):
            line += 1
            if ours is None or theirs is None:
                short, full = (left, other) if ours is None else (right, english)
                short.problem(line, f"as many lines as in {full.name}", "its end")
                break
            source, target = ours[1], theirs[1]
            if source is None or target is None:
                continue
            source, target = source.strip(), target.strip()
            if source and target:
                yield Row(line, source, target, language_code(code))
            elif source or target:
                empty = right if source else left
                empty.problem(line, "a sentence in both files", "an empty line")


def moses_texts(file: InputFile) -> Iterator[Row]:
    """Yield the lines of both files, which need not be aligned, as single sentences.

    A file without the file in the other language is read alone.
    """
    pairs = sides(file.path)
    texts = dict.fromkeys((english, "en") for english, _, _ in pairs)
    texts |= dict.fromkeys((path, language_code(code)) for _, path, code in pairs)
    code = _name_and_code(file.path)[1]
    if not texts and code:
        texts[file.path, "en" if is_english(code) else language_code(code)] = None
    for path, language in texts:
        for line, text in text_lines(file.beside(path)):
            sentence = (text or "").strip()
            if language == "en":
                yield Row(line, sentence, "", language)
            else:
                yield Row(line, "", sentence, language)


def _name_and_code(path: Path) -> tuple[str, str]:
    """Return the name before the language, and the language as written, or ""."""
    name = path.name
    if os.path.splitext(name)[1].lower() in PACKED:
        name = os.path.splitext(name)[0]
    stem, mark, code = name.rpartition(".")
    known = mark and (is_language_code(code, known=True) or code == pair_language(stem))
    return (stem, code) if known else (name, "")


def _file(folder: Path, name: str, code: str) -> Path | None:
    """Return the file of a language, plain or compressed, or None."""
    paths = (folder / f"{name}.{code}{ending}" for ending in ("", *PACKED))
    return next((path for path in paths if path.is_file()), None)
