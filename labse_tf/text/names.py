"""Languages of files: from the name, a header or the caller."""

from __future__ import annotations

import os
import re
from pathlib import Path

from labse_tf.languages import (
    LANGUAGES,
    is_language_code,
    language_code,
    without_script,
)
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


# Words of file names that are also codes (`new` is Newari, `tok` Toki Pona). Alone they
# do not give a language, and after `en-` only if the language is in the table.
_WORDS = frozenset(
    "all any app bad bak big dev doc ext hyp log low max min mix neg new old one org "
    "out pos raw ref run set src sub tgt tmp tok top trg two".split()
)


def _is_word(part: str) -> bool:
    return re.split("[-_.@]", part.lower())[0] in _WORDS


def _is_sure(part: str) -> bool:
    """Return whether a part of a file name can only be a language."""
    return is_language_code(part, known=True) and not _is_word(part)


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
    (`XX.po`, `wiki.XX.txt`, `wiki.en-XX.jsonl`); a code as the ending (`corpus.XX`).
    Endings of compressed files are ignored.

    In the last two cases the code must be in the table of `labse_tf.languages` and not
    a word such as "new" (Newari): `dev.txt`, `new.txt` and `all.tsv` give no language.

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
    candidates = [said.strip()]
    if pairs and (code := pair_language(stem)):
        candidates.append(code)
    if folder.name == "LC_MESSAGES":
        candidates.insert(0, folder.parent.name)
    if pairs and stem.lower().startswith("en-"):
        candidates.insert(0, _after_english(stem[3:]))
    # Last: "app.hi" is not language "app" with encoding "hi".
    candidates += filter(_is_sure, [last, stem, *([kind[1:]] if pairs else [])])
    for candidate in candidates:
        if is_language_code(candidate):
            return language_code(candidate)
    return None


def _after_english(text: str) -> str:
    """Return the code after `en-` in a name, or an empty text for a word.

    A code may be unknown to the table.
    """
    if not is_language_code(text):
        return ""
    known = without_script(text) in LANGUAGES
    return "" if _is_word(text) and not known else text
