"""Cleaning rules: which pairs are removed, and the keys that find duplicates.

Each pair is judged on its own, in blocks of some thousand pairs, so that one machine
and many machines give the same results. Shapes: n pairs of a block.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.cleaning.characters import count_characters, letter_keys
from labse_tf.data.cleaning.held_out import HeldOut
from labse_tf.data.hashing import hash_bytes, mix_bits
from labse_tf.languages import language_code
from labse_tf.text import SentencePair, clean_interface_text

_MARKUP = re.compile(
    r"</?[A-Za-z!][^<>]*>"  # a tag
    r"|&(?:[A-Za-z]{2,8}|#\d{1,7}|#x[0-9A-Fa-f]{1,6});"  # an entity
    r"|[{}]"  # {name}, {{name}}, ${name}, {0}
    r"|%\([^()]*\)"  # %(name)s
    r"|%(?:\d+\$)?[-+#0]*\d*(?:\.\d+)?(?:hh|h|ll|l|z)?[diouxXeEfgGcrs@](?![A-Za-z])"
    r"|\$[A-Z][A-Z_]+\b|\$\w+\$"  # $NAME, $name$
    r"|\[\[|\]\]|(?<!_)__[A-Za-z]+__"  # wiki links, __NAME__
)
_SPACES = re.compile(r"\s+")


@dataclasses.dataclass(frozen=True)
class CleaningRules:
    """Rules of `clean_pairs`. `None` or `False` switches a rule off.

    A character of Chinese, Japanese, Korean or Yi counts as three in lengths and their
    ratio, because it carries about as much text as three letters.

    Attributes:
        min_characters: Least length of each side.
        max_characters: Greatest length of each side.
        markup: Whether to remove pairs with tags, entities or placeholders.
        min_letters: Least share of letters and their marks in the visible characters.
        min_script: Least share of letters in the language's scripts: Latin for English,
            see `labse_tf.languages.scripts_of` for the other side.
        max_length_ratio: Greatest ratio of the two lengths, after adding 10 characters
            to each, so that short sides may differ more.
        identical: Whether to remove pairs whose sides are equal.
        duplicates: Whether to keep only the first of equal pairs in a language.
        near_duplicates: The same for pairs that are equal except for case, digits,
            punctuation and spaces.
        interface: Whether to first delete tags, placeholders and accelerators from the
            sentences, see `clean_interface_text`.

    Raises:
        ValueError: If a number is out of range.

    References:
        Feng et al., 2022, section 3.1, for 10 to 5000 characters
        (https://arxiv.org/abs/2007.01852). The other defaults are ours.
    """

    min_characters: int | None = 10
    max_characters: int | None = 5000
    markup: bool = True
    min_letters: float | None = 0.5
    min_script: float | None = 0.4
    max_length_ratio: float | None = 3.0
    identical: bool = True
    duplicates: bool = True
    near_duplicates: bool = True
    interface: bool = False

    def __post_init__(self) -> None:
        """Check the ranges of the numbers."""
        least, most = self.min_characters or 1, self.max_characters
        if least < 1 or (most is not None and most < least):
            raise ValueError(
                "`min_characters` must be positive and at most `max_characters`. "
                f"Received: {self.min_characters}, {self.max_characters}"
            )
        for name in ("min_letters", "min_script"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ValueError(f"`{name}` must be from 0 to 1. Received: {share}")
        ratio = self.max_length_ratio
        if ratio is not None and not ratio >= 1:
            raise ValueError(f"`max_length_ratio` must be 1 or more. Received: {ratio}")

    @classmethod
    def short(cls, **rules: Any) -> CleaningRules:
        """Return rules for short text, such as messages of an interface.

        Args:
            **rules: Further fields, which take precedence.

        Example:
            >>> CleaningRules.short(interface=True).min_characters
            2
        """
        return cls(**{"min_characters": 2, **rules})

    def without(self, names: Sequence[str]) -> CleaningRules:
        """Return a copy without the rules `names` (from `RULES` and `DUPLICATES`).

        Raises:
            ValueError: If a name does not exist.
        """
        off: dict[str, object] = {}
        for name in names:
            if name not in _FIELDS:
                raise ValueError(
                    f"`without` must be names from {', '.join(_FIELDS)}. "
                    f"Received: {name!r}"
                )
            field = _FIELDS[name]
            off[field] = False if isinstance(getattr(self, field), bool) else None
        return dataclasses.replace(self, **off)  # type: ignore[arg-type]


# Rule -> the field that switches it on or off.
_FIELDS = {
    "too_short": "min_characters",
    "too_long": "max_characters",
    "markup": "markup",
    "few_letters": "min_letters",
    "wrong_script": "min_script",
    "length_ratio": "max_length_ratio",
    "identical": "identical",
    "duplicate": "duplicates",
    "near_duplicate": "near_duplicates",
}


class Judged(NamedTuple):
    """Normalized pairs of a block and the result for each pair.

    Attributes:
        pairs: Pairs with collapsed white space, in NFC.
        reasons: Name of the broken rule or "", `(n,)`.
        exact: 64-bit hash of each pair's text, uint64 `(n,)`.
        near: 64-bit hash of each pair's letters, uint64 `(n,)`.
    """

    pairs: list[SentencePair]
    reasons: NDArray[np.object_]
    exact: NDArray[np.uint64]
    near: NDArray[np.uint64]


def judge(
    pairs: Sequence[SentencePair],
    rules: CleaningRules,
    held_out: Sequence[HeldOut] = (),
) -> Judged:
    """Judge each pair on its own, see `clean_pairs`. The caller finds duplicates."""
    tidy = [_tidy(pair, rules.interface) for pair in pairs]
    # All English sides, then all other sides.
    texts = [pair.source for pair in tidy] + [pair.target for pair in tidy]
    languages = ["en"] * len(tidy) + [pair.language for pair in tidy]
    counts = count_characters(texts, languages)
    characters, keys = counts.characters, letter_keys(texts)
    source_keys, target_keys = keys[: len(tidy)], keys[len(tidy) :]
    reasons = np.full(len(tidy), "", object)

    def leave_out(reason: str, wrong: NDArray[np.bool_]) -> None:
        """Mark pairs, given one value per pair or per side."""
        pairs = wrong.reshape(-1, len(tidy)).any(axis=0)
        reasons[pairs & (reasons == "")] = reason

    # A side may be empty after its placeholders are deleted.
    leave_out("too_short", characters < (rules.min_characters or 1))
    if rules.max_characters is not None:
        leave_out("too_long", characters > rules.max_characters)
    if rules.markup:
        found = (_MARKUP.search(text) is not None for text in texts)
        leave_out("markup", np.fromiter(found, bool, len(texts)))
    if rules.min_letters is not None:
        leave_out("few_letters", counts.words < rules.min_letters * counts.visible)
    if rules.min_script is not None:
        leave_out("wrong_script", counts.right < rules.min_script * counts.letters)
    if rules.max_length_ratio is not None:
        sides = characters.reshape(2, -1) + 10
        longer, shorter = sides.max(axis=0), sides.min(axis=0)
        leave_out("length_ratio", longer > rules.max_length_ratio * shorter)
    if rules.identical:
        leave_out("identical", source_keys == target_keys)
    for each in held_out:
        leave_out(each.name, each.holds(keys))
    exact = [f"{pair.source}\t{pair.target}".encode() for pair in tidy]
    return Judged(
        tidy,
        reasons,
        np.fromiter(map(hash_bytes, exact), np.uint64, len(exact)),
        mix_bits(source_keys) * np.uint64(3) + mix_bits(target_keys),
    )


def _tidy(pair: SentencePair, interface: bool) -> SentencePair:
    """Return a pair with normalized text and the canonical code of its language."""
    source, target, language = pair
    if interface:
        source, target = clean_interface_text(source), clean_interface_text(target)
    return SentencePair(_line(source), _line(target), language_code(language))


def _line(text: str) -> str:
    """Return text in NFC with single spaces."""
    return unicodedata.normalize("NFC", _SPACES.sub(" ", text).strip())
