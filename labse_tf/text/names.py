"""Languages of files: from the name, a header or the caller."""

from __future__ import annotations

import os
import re
from pathlib import Path

from labse_tf.languages import is_language_code, language_code
from labse_tf.text.problems import PathLike

# Endings of compressed files. Readers look at the first bytes instead.
PACKED = (".gz", ".xz", ".bz2", ".zst")
TFDS = "tfds:"


def split_language(path: PathLike) -> tuple[str | None, Path]:
    """Return the canonical code in `XX=PATH`, or None, and the path.

    The name of an existing file is always a path.
    """
    code, mark, place = os.fspath(path).partition("=")
    if mark and place and is_language_code(code) and not os.path.exists(path):
        return language_code(code), Path(place)
    return None, Path(path)


def stem_and_kind(path: PathLike) -> tuple[str, str]:
    """Return a file's name without its kind, and its kind in lowercase (`.tsv`).

    Neither includes the ending of a compressed file or the number of a shard.
    """
    name = split_language(path)[1].name
    stem, kind = os.path.splitext(re.sub(r"-\d{5}-of-\d{5}(?=\.|$)", "", name))
    if kind.lower() in PACKED:
        stem, kind = os.path.splitext(stem)
    return stem, kind.lower()


# "app.en-ca.po" is English of Canada, not Catalan.
_OF_ONE_LANGUAGE = (".po", ".mo", ".gmo", ".txt")


def pair_language(name: str) -> str | None:
    """Return the other language of a name that ends in a pair: `hi` of `wiki.en-hi`."""
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
    """Return the canonical code of a file's language, or None.

    The first of: `XX=any/path`; `en-XX.tsv`, also with other endings of pair files;
    `XX/LC_MESSAGES/any.po`; the language in the file's header (`Language:` of a gettext
    catalog); a name that is a code, or that ends in a code or a pair after a full stop
    (`XX.po`, `wiki.XX.txt`, `wiki.en-XX.jsonl`); a known code as the ending
    (`corpus.XX`). Endings of compressed files are ignored.

    Args:
        path: Path of the file, which need not exist.
        said: Language in the file's header, if any.
    """
    given, path = split_language(path)
    if given is not None or os.fspath(path).startswith(TFDS):
        return given
    stem, kind = stem_and_kind(path)
    pairs = kind not in _OF_ONE_LANGUAGE
    folder = Path(os.path.abspath(path)).parent
    last = stem.rpartition(".")[2]
    # Not the whole stem: "app.hi" is not language "app" with encoding "hi".
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
