"""Tokens: choose the tokens that languages need, by their text or their scripts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.cleaning.characters import SCRIPTS, character_scripts, code_points
from labse_tf.languages import language_code, scripts_of
from labse_tf.progress import Progress, progress_bar
from labse_tf.tokenizers import WordPieceTokenizer

Texts = Mapping[str, Iterable[str | bytes]]

# Text of one language quotes other languages; a script with a smaller share of the
# characters is ignored. ours: English words in Hindi text are above it, Chinese words
# in English text far below.
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
    """Return the ids of the tokens that some languages need.

    With `texts`, these are the tokens of the text, and single characters. With
    `languages`, these are all tokens in the scripts of the languages, including digits,
    punctuation and symbols. Languages of one script, such as English and French, cannot
    be separated by script: use text for a smaller choice. The five special tokens are
    always kept, `[unused...]` never.

    Args:
        tokenizer: Tokenizer of the model.
        texts: Language code -> sentences, which are read once.
        languages: Codes or English names; instead of `texts`.
        min_count: Minimum number of occurrences of a token in the whole text.
        keep_characters: Whether to also keep single-character tokens, so that words
            missing from the text can be split: Latin letters, characters of the scripts
            of `texts` (by the table of languages, or over 1 % of the characters of a
            language), and characters of no script (digits, punctuation, symbols).
        progress: See `labse_tf.progress`; counts sentences.

    Returns:
        int64 ids in ascending order, `(n,)`.

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
            "Expected either `texts` or `languages`. Received: "
            f"{'neither' if texts is None else 'both'}"
        )
    if min_count < 1:
        raise ValueError(f"`min_count` must be positive. Received: {min_count}")
    characters = _Characters(tokenizer.vocabulary)
    if texts is not None:
        counts = _count_tokens(tokenizer, texts, progress)
        if not sum(count.sum() for count in counts.values()):
            raise ValueError(
                "`texts` must contain tokens of the vocabulary. Received: no tokens in "
                f"the text of {', '.join(counts) or 'no language'}"
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
            raise ValueError("`languages` must not be empty. Received: an empty list")
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
            "At least one token besides the special tokens must be kept. Received: "
            f"none with min_count={min_count}, keep_characters={keep_characters}"
        )
    keep[special] = True
    return np.flatnonzero(keep)


def _count_tokens(
    tokenizer: WordPieceTokenizer, texts: Texts, progress: Progress
) -> dict[str, NDArray[np.int64]]:
    """Count each token in the text of each language, except special tokens."""
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
    """Yield lists of at most `BLOCK` sentences."""
    block: list[str | bytes] = []
    for sentence in sentences:
        block.append(sentence)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


class _Characters:
    """Characters of all tokens, without `##`, by script."""

    def __init__(self, tokens: Sequence[str]) -> None:
        words = [t[2:] if len(t) > 2 and t.startswith("##") else t for t in tokens]
        codes, bounds = code_points(words)
        self._scripts = character_scripts()[codes]
        self._lengths, self._starts = np.diff(bounds), bounds[:-1]
        self.single = self._lengths == 1

    def within(self, scripts: Set[str]) -> NDArray[np.bool_]:
        """Return which tokens have only characters of these scripts or of no script."""
        allowed = np.array([True, *(script in scripts for script in SCRIPTS)])
        return np.logical_and.reduceat(allowed[self._scripts], self._starts)

    def scripts_of(self, counts: NDArray[np.int64]) -> set[str]:
        """Return the scripts of tokens with these counts, without rare scripts."""
        weights = np.repeat(counts, self._lengths)
        shares = np.bincount(self._scripts, weights, len(SCRIPTS) + 1)[1:]
        own = np.flatnonzero(shares > _SCRIPT_SHARE * shares.sum())
        return {SCRIPTS[i] for i in own}


def _language_scripts(code: str) -> frozenset[str]:
    """Return the usual scripts of a language; empty if the table lacks it."""
    return scripts_of(code, usual=True) or frozenset()
