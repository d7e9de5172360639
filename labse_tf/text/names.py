"""Languages of files: what a name, a header or the caller says."""

from __future__ import annotations

import functools
import itertools
import os
import re
from pathlib import Path

from labse_tf.languages import language_code
from labse_tf.text.problems import PathLike

# Endings of compressed files; what a file is, its first bytes say.
PACKED = (".gz", ".xz", ".bz2", ".zst")
TFDS = "tfds:"

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


@functools.lru_cache(maxsize=4096)
def canonical(code: str) -> str:
    """A code in the spelling of the package's table, with an unusual script."""
    return language_code(language_tag(code))


def is_english(code: str) -> bool:
    """Whether a code is English of any region."""
    return canonical(code).split("-")[0] == "en"


@functools.lru_cache(maxsize=4096)
def is_known(code: str) -> bool:
    """Whether a text is the code, and not the name, of a language of the table."""
    try:
        language_code(code, strict=True)
    except ValueError:
        return False
    return bool(_TAG.fullmatch(code))


def split_language(path: PathLike) -> tuple[str | None, Path]:
    """Takes `hi=pairs.tsv` apart.

    Args:
        path: a path, or `XX=PATH`; a file whose own name has that form is a path.

    Returns:
        The language's tag, or None, and the path.
    """
    code, mark, place = os.fspath(path).partition("=")
    if mark and place and _TAG.fullmatch(code) and not os.path.exists(path):
        return language_tag(code), Path(place)
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
            if code != last and code[:2].islower() and is_known(code):
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
        A tag as `language_tag` writes it, or None.
    """
    given, path = split_language(path)
    if given is not None or os.fspath(path).startswith(TFDS):
        return given
    stem, kind = stem_and_kind(path)
    pairs = kind not in _OF_ONE_LANGUAGE
    folder = Path(os.path.abspath(path)).parent
    last = stem.rpartition(".")[2]
    # "app.hi" is no language "app" in an encoding "hi", as "de_DE.UTF-8" would be
    candidates = [said.strip(), last if is_known(last) else "", stem, last]
    if pairs and (code := pair_language(stem)):
        candidates.insert(1, code)
    if folder.name == "LC_MESSAGES":
        candidates.insert(0, folder.parent.name)
    if pairs and stem.lower().startswith("en-"):
        candidates.insert(0, stem[3:])
    if pairs and is_known(kind[1:]):
        candidates.append(kind[1:])
    for candidate in candidates:
        if _TAG.fullmatch(candidate):
            return language_tag(candidate)
    return None
