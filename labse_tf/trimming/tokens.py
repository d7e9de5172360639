"""Tokens: choose the tokens that languages need, by their text or their scripts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from labse_tf.data.cleaning.characters import SCRIPTS, character_scripts, code_points
from labse_tf.languages import language_code, scripts_of
from labse_tf.progress import Progress, progress_bar
from labse_tf.tokenizers import SentencePieceTokenizer, Tokenizer
from labse_tf.tokenizers.sentencepiece_model import WORD_MARK

Texts = Mapping[str, Iterable[str | bytes]]

# Text of one language quotes other languages; a script with a smaller share of the
# characters is ignored. ours: English words in Hindi text are above it, Chinese words
# in English text far below.
_SCRIPT_SHARE = 0.01
_UNUSED = re.compile(r"\[unused\d+\]").fullmatch
# ours: of 0, 0.3, 0.5, 0.7 and 1, this weight covered most tokens of storybooks and
# medical text with 88,000 tokens of multilingual-e5-small, chosen from manuals.
_TEXT_WEIGHT = 0.3
BLOCK = 8192  # sentences that are tokenized at once


def choose_tokens(
    tokenizer: Tokenizer,
    texts: Texts | None = None,
    *,
    languages: Iterable[str] | None = None,
    min_count: int = 1,
    max_tokens: int | None = None,
    keep_characters: bool = True,
    required: Iterable[int] = (),
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
        max_tokens: Maximum number of tokens, including special tokens and the single
            characters of `keep_characters`; only with `texts`. The tokens with the
            greatest sum of their shares in the text of each language are kept, so that
            all languages count alike. The share of a SentencePiece token is combined
            with its probability in the model, which was estimated from more text: the
            result is proportional to `share ** 0.3 * probability ** 0.7`. Default: no
            limit.
        keep_characters: Whether to also keep single-character tokens, so that words
            missing from the text can be split: Latin letters, characters of the scripts
            of `texts` (by the table of languages, or over 1 % of the characters of a
            language), and characters of no script (digits, punctuation, symbols).
        required: Ids of tokens to keep in any case, such as those of a prefix.
        progress: See `labse_tf.progress`; counts sentences.

    Returns:
        int64 ids in ascending order, `(n,)`.

    Raises:
        ValueError: If not exactly one of `texts` and `languages` is given, a language
            is unknown, `min_count` or `max_tokens` is not positive or has no room
            for the characters, or no token is found.

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
    if max_tokens is not None and (texts is None or max_tokens < 1):
        raise ValueError(
            "`max_tokens` must be positive, and requires `texts`. "
            f"Received: max_tokens={max_tokens}"
        )
    mark = WORD_MARK if isinstance(tokenizer, SentencePieceTokenizer) else "##"
    characters = _Characters(tokenizer.vocabulary, mark)
    special = [*{*tokenizer.special_token_ids.values(), *required}]
    if texts is not None:
        counts = _count_tokens(tokenizer, texts, progress)
        if not sum(count.sum() for count in counts.values()):
            raise ValueError(
                "`texts` must contain tokens of the vocabulary. Received: no tokens in "
                f"the text of {', '.join(counts) or 'no language'}"
            )
        total = np.sum(list(counts.values()), axis=0)
        keep: NDArray[np.bool_] = total >= min_count
        always = np.zeros(len(total), np.bool_)
        if keep_characters:
            scripts = {"Latn"}
            for code, count in counts.items():
                scripts |= _language_scripts(code) | characters.scripts_of(count)
            always = characters.single & characters.within(scripts)
        if max_tokens is not None:
            shares = [count / max(count.sum(), 1) for count in counts.values()]
            if isinstance(tokenizer, SentencePieceTokenizer):
                shares = [_with_scores(share, tokenizer) for share in shares]
            ranks = np.sum(shares, axis=0)
            keep &= _most_frequent(ranks, always, special, max_tokens)
        keep |= always
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
    keep[special] = False
    if not keep.any():
        raise ValueError(
            "At least one token besides the special tokens must be kept. Received: "
            f"none with min_count={min_count}, keep_characters={keep_characters}"
        )
    keep[special] = True
    return np.flatnonzero(keep)


def _count_tokens(
    tokenizer: Tokenizer, texts: Texts, progress: Progress
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


def _with_scores(
    shares: NDArray[np.float64], tokenizer: SentencePieceTokenizer
) -> NDArray[np.float64]:
    """Combine shares of a text with the probabilities of the model; the sum is 1."""
    scores = tokenizer.model.scores.astype(np.float64)
    combined = shares**_TEXT_WEIGHT * np.exp((1 - _TEXT_WEIGHT) * scores)
    return combined / max(combined.sum(), np.finfo(np.float64).tiny)


def _most_frequent(
    ranks: NDArray[np.float64],
    always: NDArray[np.bool_],
    special: Sequence[int],
    max_tokens: int,
) -> NDArray[np.bool_]:
    """Return the tokens of the greatest ranks, beside the tokens of `always`."""
    room = max_tokens - int(always.sum()) - len(special)
    if room < 1:
        raise ValueError(
            f"`max_tokens` must be more than {max_tokens - room:,}, the number of "
            f"special tokens and characters. Received: max_tokens={max_tokens:,}"
        )
    ranks = np.where(always, 0.0, ranks)
    ranks[special] = 0.0
    best = np.argsort(-ranks, kind="stable")[:room]
    keep = np.zeros(len(always), bool)
    keep[best] = ranks[best] > 0
    return keep


class _Characters:
    """Characters of all tokens, without the mark of a piece, by script."""

    def __init__(self, tokens: Sequence[str], mark: str) -> None:
        words = [token.removeprefix(mark) or token for token in tokens]
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
