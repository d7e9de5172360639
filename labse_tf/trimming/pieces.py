"""Pieces: how a teacher's tokenizer splits a single token of another vocabulary."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.checkpoints.unigram import to_tokenizers
from labse_tf.files import read_json
from labse_tf.tokenizers import (
    CLS_TOKEN,
    MASK_TOKEN,
    PAD_TOKEN,
    SEP_TOKEN,
    UNK_TOKEN,
    SentencePieceTokenizer,
    Tokenizer,
    WordPieceTokenizer,
)
from labse_tf.tokenizers.sentencepiece_model import SPECIAL_PIECES, WORD_MARK

if TYPE_CHECKING:
    import tokenizers

_INSIDE = "##"
_UNUSED = re.compile(r"\[unused\d+\]").fullmatch
_BLOCK = 8192  # texts that are split at once
# Special token -> its keys in `tokenizer_config.json`.
_KEYS = {
    PAD_TOKEN: ("pad_token",),
    UNK_TOKEN: ("unk_token",),
    CLS_TOKEN: ("cls_token", "bos_token"),
    SEP_TOKEN: ("sep_token", "eos_token"),
    MASK_TOKEN: ("mask_token",),
}


@dataclass(frozen=True)
class Pieces:
    """Pieces of a teacher's vocabulary for the tokens of a WordPiece vocabulary.

    Attributes:
        size: Number of tokens of the teacher's vocabulary.
        special: Our special token -> the teacher's id; without those that the teacher
            does not have.
        split: Function from the texts of n tokens, and whether the tokens continue a
            word (`##`), to n lists of the teacher's ids. Without [UNK]: an empty list
            if the teacher does not know any part of the text.
    """

    size: int
    special: Mapping[str, int]
    split: Callable[[list[str], bool], list[list[int]]]

    def of_tokens(self, tokens: Sequence[str]) -> list[list[int]]:
        """Return the teacher's ids for tokens of a WordPiece vocabulary.

        A token that continues a word is split as text inside a word. If the teacher
        does not know it there, it is split as a word. `[unused...]` have no pieces.

        Args:
            tokens: n tokens, such as `"sun"`, `"##ny"` or `"[CLS]"`.

        Returns:
            n lists of ids, without [UNK]; empty if the teacher knows no part of the
            token.
        """
        found: list[list[int]] = [[] for _ in tokens]
        words: dict[int, str] = {}
        inside: dict[int, str] = {}
        for row, token in enumerate(tokens):
            if token in _KEYS:
                if token in self.special:
                    found[row] = [self.special[token]]
            elif is_unused(token):
                continue
            elif token.startswith(_INSIDE) and len(token) > len(_INSIDE):
                inside[row] = token[len(_INSIDE) :]
            else:
                words[row] = token
        for row, ids in zip(
            inside, self.split(list(inside.values()), True), strict=True
        ):
            if ids:
                found[row] = ids
            else:
                words[row] = inside[row]
        for row, ids in zip(
            words, self.split(list(words.values()), False), strict=True
        ):
            found[row] = ids
        return found


def is_unused(token: str) -> bool:
    """Return whether a token is a free row of a vocabulary, such as `[unused1]`."""
    return _UNUSED(token) is not None


def pieces_of(tokenizer: Tokenizer) -> Pieces:
    """Return the pieces of a tokenizer of this package; see the next functions."""
    if isinstance(tokenizer, SentencePieceTokenizer):
        same = to_tokenizers(tokenizer)
        return _unigram_pieces(same, dict(tokenizer.model.special))
    if isinstance(tokenizer, WordPieceTokenizer):
        return wordpiece_pieces(tokenizer)
    raise ValueError(f"Expected a tokenizer of labse_tf. Received: {tokenizer!r}")


def wordpiece_of(tokenizer: Tokenizer) -> WordPieceTokenizer:
    """Return a tokenizer whose vocabulary can grow.

    Raises:
        ValueError: If it is a SentencePiece tokenizer.
    """
    if not isinstance(tokenizer, WordPieceTokenizer):
        raise ValueError(
            "Only a WordPiece vocabulary can be extended; labse-tf shrink --vocab FILE "
            "gives a model a WordPiece vocabulary. Received: "
            f"{type(tokenizer).__name__}"
        )
    return tokenizer


def wordpiece_pieces(tokenizer: WordPieceTokenizer) -> Pieces:
    """Return the pieces of a WordPiece tokenizer.

    Text inside a word is split into the longest pieces with `##`, as the end of a word
    is.

    Args:
        tokenizer: The teacher's tokenizer.

    Returns:
        The pieces.
    """
    index = {token: row for row, token in enumerate(tokenizer.vocabulary)}
    unk = tokenizer.unk_token_id

    def split(texts: list[str], inside: bool) -> list[list[int]]:
        if not inside:
            rows = []
            for start in range(0, len(texts), _BLOCK):
                rows += tokenizer(texts[start : start + _BLOCK]).to_list()
            return [[row for row in ids if row != unk] for ids in rows]
        if tokenizer.lowercase:
            texts = [text.lower() for text in texts]
        if tokenizer.strip_accents:
            texts = [_without_marks(text) for text in texts]
        return [_longest(text, index) for text in texts]

    return Pieces(tokenizer.vocabulary_size, tokenizer.special_token_ids, split)


def _without_marks(text: str) -> str:
    """Return a text without non-spacing marks, as BERT removes accents."""
    characters = unicodedata.normalize("NFD", text)
    return "".join(c for c in characters if unicodedata.category(c) != "Mn")


def _longest(text: str, index: Mapping[str, int]) -> list[int]:
    """Split text inside a word into the longest pieces; empty if this fails."""
    found, start = [], 0
    while start < len(text):
        for end in range(len(text), start, -1):
            row = index.get(_INSIDE + text[start:end])
            if row is not None:
                break
        else:
            return []
        found.append(row)
        start = end
    return found


def sentencepiece_pieces(directory: str | Path) -> Pieces:
    """Return the pieces of the SentencePiece tokenizer of a Hugging Face directory.

    Text inside a word is split without the mark of a word's start (U+2581), and so are
    punctuation and Chinese characters, if possible: most of them follow a character
    without a space. A mark that is a piece of its own is left out, because it is the
    same for all words.

    Args:
        directory: Directory with `tokenizer.json`, a Unigram model of the package
            `tokenizers`, and optionally `tokenizer_config.json`.

    Returns:
        The pieces.

    Raises:
        ValueError: If the file is missing, invalid, or another kind of tokenizer.
    """
    from tokenizers import Tokenizer, models

    path = Path(directory) / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # `tokenizers` raises plain exceptions.
    except Exception as error:
        raise ValueError(
            f"{path}: expected a tokenizer of the package tokenizers. Received: {error}"
        ) from error
    if not isinstance(tokenizer.model, models.Unigram):
        raise ValueError(
            f"{path}: expected a model of type Unigram. "
            f"Received: {type(tokenizer.model).__name__}"
        )
    special = _special_ids(Path(directory), tokenizer.token_to_id)
    return _unigram_pieces(tokenizer, special)


def _unigram_pieces(
    tokenizer: tokenizers.Tokenizer, special: Mapping[str, int]
) -> Pieces:
    """Return the pieces of a Unigram model of the package `tokenizers`."""
    model, normalizer = tokenizer.model, tokenizer.normalizer
    skipped = {special.get(UNK_TOKEN), tokenizer.token_to_id(WORD_MARK)}

    def ids_of(text: str) -> list[int]:
        return [piece.id for piece in model.tokenize(text) if piece.id not in skipped]

    def split_one(text: str, inside: bool) -> list[int]:
        if normalizer is not None:
            text = normalizer.normalize_str(text)
        text = text.strip().replace(" ", WORD_MARK).removeprefix(WORD_MARK)
        if not text:
            return []
        found = ids_of(text) if inside or _stands_alone(text) else []
        return found or ([] if inside else ids_of(WORD_MARK + text))

    return Pieces(
        tokenizer.get_vocab_size(),
        special,
        lambda texts, inside: [split_one(text, inside) for text in texts],
    )


def _stands_alone(text: str) -> bool:
    """Return whether a text is punctuation, a symbol or a Chinese character."""
    return len(text) == 1 and (
        unicodedata.category(text)[0] in "PS"
        or unicodedata.name(text, "").startswith("CJK ")
    )


def _special_ids(folder: Path, index: Callable[[str], int | None]) -> dict[str, int]:
    """Return our special token -> the id of the teacher's token, where it has one."""
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    found = {}
    for ours, keys in _KEYS.items():
        named = (_content(config.get(key)) for key in keys)
        for name in (*named, *SPECIAL_PIECES[ours]):
            row = index(name) if name else None
            if row is not None:
                found[ours] = row
                break
    return found


def _content(token: Any) -> str | None:
    """Return the text of a token in `tokenizer_config.json`."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None
