"""Languages: one canonical code for each, with its names, scripts and groups.

All per-language data of the package (corpora, shares of a mixture, reports, scores)
uses the code that `language_code` returns:

- ISO 639-1 if it exists, else ISO 639-3 (`hi`, `brx`), for any spelling as a code,
  locale name or English name: `hi`, `hin`, `hin_Deva`, `hi-IN`, `Hindi`.
- Regions, variants and encodings are dropped: `pt-BR` and `pt` are one language, and so
  are `es-419` and `es`.
- A script is kept if it is not the usual script of the language, because such text
  shares hardly any tokens with the usual one: `zh-Hant`, `sr-Latn`, `mni-Beng`. A
  region that implies such a script counts as the script: `zh-TW` is `zh-Hant`.
- An unknown code is a separate language and is normalized in the same way:
  `XQX_deva_IN` is `xqx-Deva`. `und` (undetermined) is such a code.

The tables are data files: `languages.tsv` (code, English name, scripts with the usual
one first, aliases) and `scripts.tsv` (ISO 15924 code, the first words of the Unicode
names of its letters, or the scripts that the code combines). The usual form of a
macrolanguage is an alias of it (`cmn` of `zh`, `arb` of `ar`, `pes` of `fa`), and so is
`nb` of `no`, as in most corpora. Other varieties (`arz`, `yue`, `prs`) have their own
rows. `kzj`, which ISO has merged into `dtp`, has its own row because Tatoeba has a file
for each.
"""

from __future__ import annotations

import csv
import difflib
import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

_Value = TypeVar("_Value")


class Language(NamedTuple):
    """Row of the table of languages.

    Attributes:
        code: ISO 639-1 if it exists, else ISO 639-3, or the code that corpora use if
            there is neither (`ber`, `map-bms`).
        name: English name.
        scripts: ISO 15924 codes of the scripts in use today. The bare code means the
            first script.
        aliases: Other codes of the same language.
    """

    code: str
    name: str
    scripts: tuple[str, ...]
    aliases: tuple[str, ...]

    @property
    def script(self) -> str:
        """ISO 15924 code of the script that the bare code means."""
        return self.scripts[0]


class Script(NamedTuple):
    """Row of the table of scripts.

    Attributes:
        code: ISO 15924 code.
        unicode_name: The first words of the Unicode names of its letters; empty for a
            code that combines scripts (`Jpan`).
        scripts: Codes of the single scripts that it combines; usually only itself.
    """

    code: str
    unicode_name: str
    scripts: tuple[str, ...]


def _rows(name: str) -> list[list[str]]:
    """Read a table in this module's directory, without its header."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return list(csv.reader(text.splitlines()[1:], delimiter="\t"))


LANGUAGES: Mapping[str, Language] = MappingProxyType(
    {
        code: Language(code, name, tuple(scripts.split()), tuple(aliases.split()))
        for code, name, scripts, aliases in _rows("languages.tsv")
    }
)
"""Languages of the table by canonical code."""

SCRIPTS: Mapping[str, Script] = MappingProxyType(
    {
        code: Script(code, name, tuple(scripts.split()))
        for code, name, scripts in _rows("scripts.tsv")
    }
)
"""Scripts of the table by ISO 15924 code."""

# === Groups ===

INDIAN_LANGUAGES = tuple(
    "as bn brx doi gu hi kn kok ks mai ml mni mr ne or pa sa sat sd ta te ur".split()
)
"""The 22 languages of the eighth schedule of the constitution of India."""

LABSE_LANGUAGES = tuple(
    "af am ar as az be bg bn bo bs ca ceb co cs cy da de el en eo es et eu fa fi fr "
    "fy ga gd gl gu ha haw he hi hmn hr ht hu hy id ig is it ja jv ka kk km kn ko ku "
    "ky la lb lo lt lv mg mi mk ml mn mr ms mt my ne nl no ny or pa pl pt ro ru rw si "
    "sk sl sm sn so sq sr st su sv sw ta te tg th tk tl tr tt ug uk ur uz vi wo xh yi "
    "yo zh zu".split()
)
"""The 109 languages of LaBSE, from the paper's appendix."""

# === Codes ===

_CANONICAL = {
    spelling: language.code
    for language in LANGUAGES.values()
    for spelling in (language.code, *language.aliases)
}
# Codes are looked up before names: "mon" is Mongolian, not the language called Mon.
_BY_NAME = {language.name.lower(): language.code for language in LANGUAGES.values()}

_TAG = r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*"
CODE_PATTERN = rf"{_TAG}(?:@[A-Za-z0-9]+)?"
"""Regular expression of a possible code, to find codes in file names."""

# Includes the encoding of POSIX locale names: de_DE.UTF-8@euro.
_FORM = re.compile(
    rf"(?P<tag>{_TAG})(?:\.(?P<encoding>[a-z0-9-]+))?(?:@(?P<modifier>[a-z0-9]+))?"
)
# A region or, in gettext's locale names (sr@latin, uz@Cyrl, tt@iqtelif), a modifier can
# imply a script that is not the usual one.
_SCRIPT_OF_REGION = {
    ("zh", "tw"): "Hant",
    ("zh", "hk"): "Hant",
    ("zh", "mo"): "Hant",
    ("pa", "pk"): "Arab",
}
_SCRIPT_OF_MODIFIER = {
    "iqtelif": "Latn",
    **{script.lower(): script for script in SCRIPTS},
    **{s.unicode_name.lower(): s.code for s in SCRIPTS.values() if s.unicode_name},
}
# A region or variant, and an encoding, that no word of a file name looks like.
_SUBTAG = re.compile(r"[a-z]{2}|\d{3}|valencia|tarask")
_ENCODING = re.compile(r"(?:utf|iso|cp|koi|euc|gb|big|windows|tis|shift)[a-z0-9-]*")
_SAME_SCRIPT = {"Hang": "Kore", "Hira": "Jpan", "Kana": "Jpan"}


def language_code(code: str, *, strict: bool = False) -> str:
    """Return the canonical code of a language; see the module.

    Accepts ISO 639-1 and 639-3 codes, codes of LASER, FLORES (`hin_Deva`), gettext
    (`sr@latin`, `de_DE.UTF-8`) and BCP 47, and English names.

    Args:
        code: A code or an English name, in any case.
        strict: Whether to raise an error if the language is not in the table; otherwise
            its normalized code is returned.

    Returns:
        ISO 639-1 if it exists, else ISO 639-3, with a script suffix such as `zh-Hant`
        if needed.

    Raises:
        ValueError: If `code` does not have the form of a code, or is unknown and
            `strict` is set.

    Example:
        >>> [language_code(c) for c in ("hin", "hin_Deva", "cmn", "zho-CN", "zh_TW")]
        ['hi', 'hi', 'zh', 'zh', 'zh-Hant']
        >>> language_code("sr@latin"), language_code("Tamil"), language_code("pt-BR")
        ('sr-Latn', 'ta', 'pt')
    """
    language, script = _parse(code) if isinstance(code, str) else ("", "")
    if not language:
        raise ValueError(
            "A language must be a code such as 'hi', 'hin' or 'zh-Hant', or an "
            f"English name.{_close_matches(str(code))} Received: {code!r}"
        )
    if strict and language not in LANGUAGES:
        raise ValueError(
            "Unknown language: expected a code or English name of the table."
            f"{_close_matches(str(code))} Received: {code!r}"
        )
    return f"{language}-{script}" if script else language


def _parse(code: str) -> tuple[str, str]:
    """Return language and unusual script of a code or name, or two empty strings."""
    language, script, _ = _parsed(code)
    return language, script


@functools.lru_cache(maxsize=4096)
def _parsed(code: str) -> tuple[str, str, tuple[str, ...]]:
    """Return what `_parse` returns, and the subtags after the language.

    The longest alias is matched first: `zh-min-nan` is not Chinese.
    """
    # "Chinese (Hant)" is the form that `language_name` returns.
    text = re.sub(r" \((\w{4})\)$", r"-\1", code.strip().lower())
    name, _, ending = text.rpartition("-")
    if name in _BY_NAME:
        text = f"{_BY_NAME[name]}-{ending}"
    known = _CANONICAL.get(text) or _BY_NAME.get(text)
    if known:
        return known, "", ()
    form = _FORM.fullmatch(text)
    if form is None:
        return "", "", ()
    parts = re.split("[-_]", form["tag"])
    language, size = parts[0], 1
    for length in range(len(parts), 0, -1):
        known = _CANONICAL.get("-".join(parts[:length]))
        if known:
            language, size = known, length
            break
    script = _SCRIPT_OF_MODIFIER.get(form["modifier"], "")
    for part in parts[size:]:
        if re.fullmatch("[a-z]{4}", part):
            script = part.title()
            break
        script = _SCRIPT_OF_REGION.get((language, part), script)
    script = _SAME_SCRIPT.get(script, script)
    usual = language in LANGUAGES and script == LANGUAGES[language].script
    return language, "" if usual else script, tuple(parts[size:])


def is_language_code(text: str, *, known: bool = False) -> bool:
    """Return whether a string, such as a part of a file name, has the form of a code.

    Args:
        text: Any string. English names of languages do not count.
        known: Whether the language must be in the table, and all that follows it must
            be a script, a region, a variant or an encoding in use: neither `my-data`
            nor `my.data` is Burmese.

    Example:
        >>> [is_language_code(x) for x in ("hi", "xqx", "zh_Hant", "Hindi", "data")]
        [True, True, True, False, False]
        >>> [is_language_code(x, known=True) for x in ("hin", "xqx", "my-data")]
        [True, False, False]
    """
    form = _FORM.fullmatch(text.lower())
    if form is None or not known:
        return form is not None
    language, _, subtags = _parsed(text)
    encoding = form["encoding"]
    return (
        language in LANGUAGES
        and (encoding is None or _ENCODING.fullmatch(encoding) is not None)
        and all(part.title() in SCRIPTS or _SUBTAG.fullmatch(part) for part in subtags)
    )


def canonical_keys(values: Mapping[str, _Value]) -> dict[str, _Value]:
    """Replace the keys of per-language values by canonical codes.

    The order is kept. If several keys belong to one language, the first key gets the
    code and the other keys keep their spelling: test sets such as `ti`, `ti_ER` and
    `ti_ET` stay separate. For accepted keys see `language_code`.

    Example:
        >>> canonical_keys({"pt-BR": 1, "hin": 2, "ti": 3, "ti_ER": 4})
        {'pt': 1, 'hi': 2, 'ti': 3, 'ti_ER': 4}
    """
    taken = {code for code in values if language_code(code) == code}
    keyed = {}
    for spelling, value in values.items():
        code = language_code(spelling)
        keyed[spelling if code in taken else code] = value
        taken.add(code)
    return keyed


def chosen_languages(
    there: Mapping[str, _Value], languages: str | Iterable[str] | None, where: str
) -> dict[str, _Value]:
    """Return the values of the named languages in that order; all, sorted, if `None`.

    Args:
        there: Values by canonical code.
        languages: One or several languages, see `language_code`.
        where: Name of `there` in messages.

    Raises:
        ValueError: If `there` or `languages` is empty, or a language is missing.
    """
    if not there:
        raise ValueError(f"`{where}` must have at least one language. Received: none")
    if languages is None:
        return {code: there[code] for code in sorted(there)}
    named = [languages] if isinstance(languages, str) else languages
    codes = list(dict.fromkeys(language_code(code) for code in named))
    if not codes:
        raise ValueError("`languages` must name at least one. Received: none")
    missing = [code for code in codes if code not in there]
    if missing:
        raise ValueError(
            f"`languages` must be in {where}, which has {' '.join(sorted(there))}. "
            f"Received: {' '.join(missing)}"
        )
    return {code: there[code] for code in codes}


def without_script(code: str) -> str:
    """Return the canonical code of a language without its script.

    Example:
        >>> without_script("zh-Hant"), without_script("mni_Beng")
        ('zh', 'mni')
    """
    return _parse(language_code(code))[0]


def is_english(code: str) -> bool:
    """Return whether a code is English, of any region and script."""
    return without_script(code) == "en"


# === Names and scripts ===


def language_name(code: str) -> str:
    """Return the English name of a language, or its code if the name is unknown.

    The script is appended if the code has one. For accepted codes see `language_code`.

    Example:
        >>> language_name("hin"), language_name("zh-TW"), language_name("xyz")
        ('Hindi', 'Chinese (Hant)', 'xyz')
    """
    canonical = language_code(code)
    language, script = _parse(canonical)
    if language not in LANGUAGES:
        return canonical
    name = LANGUAGES[language].name
    return f"{name} ({script})" if script else name


@functools.cache
def scripts_of(code: str, *, usual: bool = False) -> frozenset[str] | None:
    """Return the scripts that a language is written in.

    Args:
        code: Any code that `language_code` accepts.
        usual: Whether to return only the script that the bare code means.

    Returns:
        ISO 15924 codes of single scripts (`Hani`, `Hira` and `Kana` for Japanese); only
        the named script for a code with a script (`sr-Latn`); `None` if unknown.

    Example:
        >>> sorted(scripts_of("hi")), sorted(scripts_of("mni")), scripts_of("xyz")
        (['Deva'], ['Beng', 'Mtei'], None)
    """
    language, script = _parse(code)
    scripts: tuple[str, ...] = (script,) if script else ()
    if not script and language in LANGUAGES:
        scripts = LANGUAGES[language].scripts[: 1 if usual else None]
    if not scripts or not all(script in SCRIPTS for script in scripts):
        return None
    return frozenset(single for each in scripts for single in SCRIPTS[each].scripts)


def _close_matches(text: str) -> str:
    """Return a sentence with similar codes and names, or an empty string."""
    spellings = {**_BY_NAME, **_CANONICAL}
    close = difflib.get_close_matches(text.lower(), spellings, n=3, cutoff=0.6)
    if not close:
        return ""
    found = ", ".join(
        f"{spellings[c]!r} ({LANGUAGES[spellings[c]].name})" for c in close
    )
    return f" Close matches: {found}."
