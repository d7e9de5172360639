"""Extending: more tokens for a language or a domain, with the old ids unchanged.

Shapes: V = tokens before, n = new tokens, D = hidden dimension.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from labse_tf.models import LaBSE
from labse_tf.progress import Progress
from labse_tf.tokenizers import (
    SPECIAL_TOKENS,
    WordCounter,
    WordPieceTokenizer,
    learn_vocabulary_from_counts,
)
from labse_tf.tokenizers.vocabulary import LAYOUT, MAX_BYTES_PER_TOKEN
from labse_tf.trimming.pieces import wordpiece_of, wordpiece_pieces
from labse_tf.trimming.rebuilding import rebuild
from labse_tf.trimming.transfer import token_rows

_INSIDE = "##"
_FIXED = {*LAYOUT, *SPECIAL_TOKENS}
# ours: exponent of the language sizes, as in section 3.1 of the paper.
_SMOOTHING = 0.3
# ours: candidates per token that is added, and at least; the best by use are chosen.
_CANDIDATES, _LEAST_CANDIDATES = 2, 1000


class Extension(NamedTuple):
    """Result of `extend_vocabulary`.

    Attributes:
        model: The extended model.
        added: The new tokens, in the order of their ids from V.
        characters: How many of them, at the end, are single characters that the new
            tokens require; see `extend_vocabulary`.
        unknown: New tokens whose row is the mean of all rows, because the model knows
            no part of their text.
        present: Given tokens that the model already had.
    """

    model: LaBSE
    added: list[str]
    characters: int
    unknown: list[str]
    present: list[str]


def extend_vocabulary(model: LaBSE, tokens: Iterable[str]) -> Extension:
    """Create a model with more tokens, which gives other texts the same vectors.

    The row of a new token is the mean of the rows of the pieces into which the model
    split its text so far; see `token_rows`. Old tokens keep their ids and rows, and all
    other weights are copied.

    A text without a new token has the same ids and the same vector as before. WordPiece
    takes the longest matching piece, and a word becomes [UNK] if a part of it matches
    no piece. So a new token could turn a word into [UNK] if the rest of the word starts
    within an old piece. For such words, the characters of old pieces inside words that
    are not tokens of their own (`##x`) are added too.

    Args:
        model: A model with a preprocessor.
        tokens: Words, and pieces inside words with `##`, as the tokenizer splits text.

    Returns:
        The new model and its tokens.

    Raises:
        ValueError: If the model has no preprocessor, there is no new token, or the
            tokenizer cannot produce a token: it contains white space or punctuation, or
            uppercase letters or accents that the tokenizer removes.

    Example:
        >>> from labse_tf.models import LaBSE, LaBSEBackbone
        >>> from labse_tf.preprocessing import SentencePreprocessor
        >>> from labse_tf.tokenizers import WordPieceTokenizer
        >>> old = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sun", "##n", "##y"]
        >>> preprocessor = SentencePreprocessor(WordPieceTokenizer(old))
        >>> model = LaBSE(LaBSEBackbone(8, 1, 2, 8, 16), preprocessor)
        >>> extended = extend_vocabulary(model, ["sunny"]).model
        >>> extended.preprocessor(["sunny sun"])["token_ids"].numpy().tolist()
        [[2, 8, 5, 3]]
        >>> bool(abs(extended.encode("sun") - model.encode("sun")).max() < 1e-6)
        True
    """
    preprocessor = model.text_preprocessor()
    old = wordpiece_of(preprocessor.tokenizer)
    known = set(old.vocabulary)
    given = list(dict.fromkeys(tokens))
    check_tokens(old, given)
    added = [token for token in given if token not in known]
    if not added:
        raise ValueError(
            "`tokens` must contain a token that the model does not have. "
            f"Received: {len(given)} tokens that it has"
        )
    characters = _missing_characters(old, known.union(added))
    added += characters
    tokenizer = _with_tokens(old, added)
    split = wordpiece_pieces(old).of_tokens(added)
    new = token_rows(
        {weight.path: weight for weight in model.weights}, split, old.vocabulary_size
    )

    def value(path: str, weights: Mapping[str, Any]) -> Any:
        if path not in new:
            return weights[path]
        return np.concatenate([np.asarray(weights[path]), new[path]])

    extended = rebuild(
        model,
        {"vocabulary_size": tokenizer.vocabulary_size},
        preprocessor.copy(tokenizer=tokenizer),
        value,
    )
    present = [token for token in given if token in known]
    unknown = [token for token, ids in zip(added, split, strict=True) if not ids]
    return Extension(extended, added, len(characters), unknown, present)


def check_tokens(
    tokenizer: WordPieceTokenizer,
    tokens: Sequence[str],
    places: Sequence[str] | None = None,
) -> None:
    """Raise an error for a token that the tokenizer cannot produce.

    Args:
        tokenizer: The tokenizer.
        tokens: The tokens.
        places: Name of the place of each token, for the message, such as `file:line`.

    Raises:
        ValueError: For the first such token.
    """
    strings = [token if isinstance(token, str) else "" for token in tokens]
    words = [_as_word(token) for token in strings]
    counted = _counter(tokenizer).count([word for word in words if word])
    for number, (token, word) in enumerate(zip(tokens, words, strict=True)):
        # The splitter leaves a word as it is, so a word of any text is a valid one.
        if token not in _FIXED and (
            not word or word not in counted or len(token.encode()) > MAX_BYTES_PER_TOKEN
        ):
            where = "`tokens`" if places is None else f"{places[number]}"
            number_text = f"token {number}, " if places is None else ""
            raise ValueError(
                f"{where}: expected a word or a piece with ## as the tokenizer splits "
                f"text (lowercase={tokenizer.lowercase}, "
                f"strip_accents={tokenizer.strip_accents}), of at most "
                f"{MAX_BYTES_PER_TOKEN} bytes. "
                f"Received: {number_text}{token!r:.80}"
            )


def choose_new_tokens(
    tokenizer: WordPieceTokenizer,
    counts: Mapping[str, Mapping[str, int]],
    number: int,
    *,
    min_count: int = 2,
    progress: Progress = None,
) -> list[str]:
    """Choose the tokens that shorten a text most.

    Candidates are learned from the text as a new vocabulary is. Chosen are those that
    save most of the old pieces, times their use in the text. A character that the
    tokenizer does not have counts as two pieces. Languages are smoothed as in
    `labse_tf.tokenizers.learn_vocabulary`.

    Args:
        tokenizer: Tokenizer to extend.
        counts: Language -> word -> count, from `labse_tf.tokenizers.WordCounter` with
            the settings of the tokenizer.
        number: How many tokens to choose.
        min_count: Minimum number of uses of a token.
        progress: See `labse_tf.progress`.

    Returns:
        At most `number` tokens, by their use.

    Raises:
        ValueError: If `number` or `min_count` is not positive, or there are no words.
    """
    for name, value in (("number", number), ("min_count", min_count)):
        if value < 1:
            raise ValueError(f"`{name}` must be positive. Received: {value}")
    languages = {code: words for code, words in counts.items() if words}
    weights: dict[str, float] = defaultdict(float)
    occurrences: Counter[str] = Counter()
    for words in languages.values():
        share = sum(words.values()) ** (_SMOOTHING - 1)
        for word, count in words.items():
            weights[word] += count * share
            occurrences[word] += count
    listed = sorted(occurrences)
    used = np.unique(tokenizer(listed).values.numpy()) if listed else ()
    # A learned vocabulary has old tokens and both forms of characters (`a`, `##a`) too.
    characters = {c for word in listed for c in word}
    candidates = max(_CANDIDATES * number, _LEAST_CANDIDATES)
    learned = learn_vocabulary_from_counts(
        languages,
        len(LAYOUT) + len(used) + 2 * len(characters) + candidates,
        smoothing=_SMOOTHING,
        min_frequency=min_count,
        progress=progress,
    )
    known = set(tokenizer.vocabulary)
    found = [t for t in learned if t not in known and t not in _FIXED]
    if not found:
        return []
    rows = _with_tokens(tokenizer, found)(listed)
    ids, owners = rows.values.numpy(), rows.value_rowids().numpy()
    new = ids >= tokenizer.vocabulary_size
    ids, owners = ids[new] - tokenizer.vocabulary_size, owners[new]

    def total(values: Mapping[str, float]) -> np.ndarray:
        per_word = np.array([values[word] for word in listed], np.float64)
        return np.bincount(ids, per_word[owners], len(found))

    pieces = wordpiece_pieces(tokenizer).of_tokens(found)
    saved = np.array([(len(ids) or 2) - 1 for ids in pieces])
    worth = saved * total(weights)
    worth[total(occurrences) < min_count] = 0
    best = np.argsort(-worth, kind="stable")[:number]
    return [found[i] for i in best if worth[i] > 0]


def _counter(tokenizer: WordPieceTokenizer) -> WordCounter:
    """Return a counter that splits text as a tokenizer does."""
    return WordCounter(
        lowercase=tokenizer.lowercase, strip_accents=tokenizer.strip_accents
    )


def _as_word(token: str) -> str:
    """Return a token as a word; a piece inside words after a letter."""
    inside = token.startswith(_INSIDE) and len(token) > len(_INSIDE)
    return f"a{token[len(_INSIDE) :]}" if inside else token


def _with_tokens(old: WordPieceTokenizer, added: Sequence[str]) -> WordPieceTokenizer:
    """Return a tokenizer with more tokens."""
    return old.with_vocabulary([*old.vocabulary, *added])


def _missing_characters(old: WordPieceTokenizer, tokens: set[str]) -> list[str]:
    """Return the characters inside words of old tokens that are not tokens (`##x`)."""
    inside: set[str] = set()
    for token in old.vocabulary:
        if token in _FIXED:
            continue
        if token.startswith(_INSIDE) and len(token) > len(_INSIDE):
            inside.update(token[len(_INSIDE) :])
        else:
            inside.update(token[1:])
    missing = sorted(c for c in inside if _INSIDE + c not in tokens)
    words = _counter(old).count([f"a{c}" for c in missing])
    return [_INSIDE + c for c in missing if f"a{c}" in words]
