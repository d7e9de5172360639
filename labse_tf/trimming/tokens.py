"""Tokens: which of them some languages need, by their text or by their scripts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.cleaning.characters import (
    SCRIPTS,
    character_scripts,
    code_points,
)
from labse_tf.languages import language_code, scripts_of
from labse_tf.progress import Progress, progress_bar
from labse_tf.tokenizers import WordPieceTokenizer

Texts = Mapping[str, Iterable[str | bytes]]

# A language's text quotes others; a script with less than this share of its characters
# is not the language's own. ours: the English words in Hindi text are above it, the
# Chinese ones in English text far below.
_SCRIPT_SHARE = 0.01
_UNUSED = re.compile(r"\[unused\d+\]").fullmatch
BLOCK = 8192  # sentences that are tokenized at once


def choose_tokens(
    tokenizer: WordPieceTokenizer,
    texts: Texts | None = None,
    *,
    languages: Iterable[str] | None = None,
    min_count: int = 1,
    keep_characters: bool = True,
    progress: Progress = None,
) -> NDArray[np.int64]:
    """Chooses the tokens that some languages need.

    With `texts`, the tokens that the text is cut into, and single characters; with
    `languages` alone, every token that is written in their scripts, digits,
    punctuation and symbols included. Scripts cannot tell English from French: with
    any language of Latin script all tokens in Latin letters stay, so text is the
    sharper way. The five special tokens stay always, `[unused...]` never.

    Args:
        tokenizer: The model's.
        texts: Language code -> sentences, each language's read once.
        languages: Codes or English names; instead of `texts`.
        min_count: How often a token must occur in all of the text.
        keep_characters: Whether to keep also the tokens of one character that are
            written in Latin letters, in a script of the languages of `texts` (by the
            table of languages, or 1 % of a language's characters), or in none (digits,
            punctuation, symbols), so that words which the text lacks can be spelled.
        progress: See `labse_tf.progress`; counts sentences.

    Returns:
        Ids in ascending order, `(n,)`.

    Raises:
        ValueError: If not exactly one of `texts` and `languages` is given, a language
            is unknown, `min_count` is not positive, or no token is found.

    Example:
        >>> from labse_tf.tokenizers import WordPieceTokenizer
        >>> special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        >>> tokenizer = WordPieceTokenizer([*special, "sun", "moon", "m", "दिन"])
        >>> choose_tokens(tokenizer, {"en": ["sun"]}).tolist()
        [0, 1, 2, 3, 4, 5, 7]
        >>> choose_tokens(tokenizer, languages=["hi"]).tolist()
        [0, 1, 2, 3, 4, 7, 8]
    """
    if (texts is None) == (languages is None):
        raise ValueError(
            "Expected `texts` or `languages`, one of them. Received: "
            f"{'neither' if texts is None else 'both'}"
        )
    if min_count < 1:
        raise ValueError(f"`min_count` must be positive. Received: {min_count}")
    characters = _Characters(tokenizer.vocabulary)
    if texts is not None:
        counts = _count_tokens(tokenizer, texts, progress)
        if not sum(count.sum() for count in counts.values()):
            raise ValueError(
                "`texts` must hold tokens of the vocabulary. Received: none in the "
                f"text of {', '.join(counts) or 'no language'}"
            )
        keep = sum(counts.values()) >= min_count
        if keep_characters:
            scripts = {"Latn"}
            for code, count in counts.items():
                scripts |= _language_scripts(code) | characters.scripts_of(count)
            keep |= characters.single & characters.within(scripts)
    else:
        scripts = set()
        codes = [languages] if isinstance(languages, str) else list(languages or ())
        if not codes:
            raise ValueError("`languages` must name a language. Received: none")
        for code in codes:
            scripts |= _language_scripts(language_code(code, strict=True))
        keep = characters.within(scripts)
        if keep_characters:
            keep |= characters.single & characters.within({"Latn"})
    keep &= ~np.fromiter(map(bool, map(_UNUSED, tokenizer.vocabulary)), bool)
    special = list(tokenizer.special_token_ids.values())
    keep[special] = False
    if not keep.any():
        raise ValueError(
            "At least one token must be left beside the special ones. Received: none "
            f"with min_count={min_count}, keep_characters={keep_characters}"
        )
    keep[special] = True
    return np.flatnonzero(keep)


def _count_tokens(
    tokenizer: WordPieceTokenizer, texts: Texts, progress: Progress
) -> dict[str, NDArray[np.int64]]:
    """How often each token comes in each language's text; special ones: never."""
    size = tokenizer.vocabulary_size
    special = list(tokenizer.special_token_ids.values())
    counts = {}
    with progress_bar("Counting tokens", None, "sentences", show=progress) as advance:
        for code, sentences in texts.items():
            counts[code] = np.zeros(size, np.int64)
            for block in _blocks(sentences):
                ids = tokenizer(block).values.numpy()
                counts[code] += np.bincount(ids, minlength=size)
                advance(len(block))
            counts[code][special] = 0
    return counts


def _blocks(sentences: Iterable[str | bytes]) -> Iterator[list[str | bytes]]:
    """Lists of sentences, none longer than a block."""
    block: list[str | bytes] = []
    for sentence in sentences:
        block.append(sentence)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


class _Characters:
    """The characters of all tokens, without `##`, by script."""

    def __init__(self, tokens: Sequence[str]) -> None:
        words = [t[2:] if len(t) > 2 and t.startswith("##") else t for t in tokens]
        codes, bounds = code_points(words)
        self._scripts = character_scripts()[codes]
        self._lengths, self._starts = np.diff(bounds), bounds[:-1]
        self.single = self._lengths == 1

    def within(self, scripts: Set[str]) -> NDArray[np.bool_]:
        """Which tokens have only characters of these scripts or of no script."""
        allowed = np.array([True, *(script in scripts for script in SCRIPTS)])
        return np.logical_and.reduceat(allowed[self._scripts], self._starts)

    def scripts_of(self, counts: NDArray[np.int64]) -> set[str]:
        """The scripts that tokens with these counts are written in."""
        weights = np.repeat(counts, self._lengths)
        shares = np.bincount(self._scripts, weights, len(SCRIPTS) + 1)[1:]
        own = np.flatnonzero(shares > _SCRIPT_SHARE * shares.sum())
        return {SCRIPTS[i] for i in own}


def _language_scripts(code: str) -> frozenset[str]:
    """The usual scripts of a language by the table; none if the table lacks it."""
    return scripts_of(code, usual=True) or frozenset()
