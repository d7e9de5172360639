"""Languages of files: what a name, a header or the caller says."""

from __future__ import annotations

import os
import re
from pathlib import Path

from labse_tf.languages import is_language_code, language_code
from labse_tf.text.problems import PathLike

# Endings of compressed files; what a file is, its first bytes say.
PACKED = (".gz", ".xz", ".bz2", ".zst")
TFDS = "tfds:"


def split_language(path: PathLike) -> tuple[str | None, Path]:
    """Takes `hi=pairs.tsv` apart.

    Args:
        path: a path, or `XX=PATH`; a file whose own name has that form is a path.

    Returns:
        The language's canonical code, or None, and the path.
    """
    code, mark, place = os.fspath(path).partition("=")
    if mark and place and is_language_code(code) and not os.path.exists(path):
        return language_code(code), Path(place)
    return None, Path(path)


def stem_and_kind(path: PathLike) -> tuple[str, str]:
    """A file's name without its kind, and its kind in small letters (`.tsv`).

    The ending of a compressed file and a shard's number are part of neither.
    """
    name = split_language(path)[1].name
    stem, kind = os.path.splitext(re.sub(r"-\d{5}-of-\d{5}(?=\.|$)", "", name))
    if kind.lower() in PACKED:
        stem, kind = os.path.splitext(stem)
    return stem, kind.lower()


# "app.en-ca.po" is of Canada, not Catalan
_OF_ONE_LANGUAGE = (".po", ".mo", ".gmo", ".txt")


def pair_language(name: str) -> str | None:
    """The other language of a name that ends with a pair: `hi` of `wiki.en-hi`."""
    last = name.rpartition(".")[2]
    for english in ("en", "eng", "eng_Latn"):
        for code in (
            last.removeprefix(f"{english}-"),
            last.removesuffix(f"-{english}"),
        ):
            known = code[:2].islower() and is_language_code(code, known=True)
            if known and code != last:
                return code
    return None


def file_language(path: PathLike, said: str = "") -> str | None:
    """The language that a file's name gives, or None.

    The first of: `XX=any/path`; `en-XX.tsv`, and so other pair files; `XX/LC_MESSAGES/
    any.po`; the language that the file itself says, which is `Language:` in a
    catalogue's header; a name that is a code or ends with one, or with a pair, after a
    full stop: `XX.po`, `wiki.XX.txt`, `wiki.en-XX.jsonl`; a known code as the ending,
    `corpus.XX`. Endings of compressed files do not count.

    Args:
        path: the file's path; it need not exist.
        said: the language in the file's header, if any.

    Returns:
        The language's canonical code, or None.
    """
    given, path = split_language(path)
    if given is not None or os.fspath(path).startswith(TFDS):
        return given
    stem, kind = stem_and_kind(path)
    pairs = kind not in _OF_ONE_LANGUAGE
    folder = Path(os.path.abspath(path)).parent
    last = stem.rpartition(".")[2]
    # "app.hi" is no language "app" in an encoding "hi", as "de_DE.UTF-8" would be
    sure = last if is_language_code(last, known=True) else ""
    candidates = [said.strip(), sure, stem, last]
    if pairs and (code := pair_language(stem)):
        candidates.insert(1, code)
    if folder.name == "LC_MESSAGES":
        candidates.insert(0, folder.parent.name)
    if pairs and stem.lower().startswith("en-"):
        candidates.insert(0, stem[3:])
    if pairs and is_language_code(kind[1:], known=True):
        candidates.append(kind[1:])
    for candidate in candidates:
        if is_language_code(candidate):
            return language_code(candidate)
    return None
