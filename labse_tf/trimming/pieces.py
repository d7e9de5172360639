"""Pieces: how a teacher's tokenizer splits a single token of another vocabulary."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labse_tf.files import read_json
from labse_tf.tokenizers import (
    CLS_TOKEN,
    MASK_TOKEN,
    PAD_TOKEN,
    SEP_TOKEN,
    UNK_TOKEN,
    WordPieceTokenizer,
)

_WORD_MARK = "\u2581"  # SentencePiece writes it in place of a space before a word.
_INSIDE = "##"
# Special token -> its keys in `tokenizer_config.json`, and its names in the vocabulary
# of XLM-RoBERTa and of BERT.
_SPECIAL = {
    PAD_TOKEN: (("pad_token",), ("<pad>", PAD_TOKEN)),
    UNK_TOKEN: (("unk_token",), ("<unk>", UNK_TOKEN)),
    CLS_TOKEN: (("cls_token", "bos_token"), ("<s>", CLS_TOKEN)),
    SEP_TOKEN: (("sep_token", "eos_token"), ("</s>", SEP_TOKEN)),
    MASK_TOKEN: (("mask_token",), ("<mask>", MASK_TOKEN)),
}


@dataclass(frozen=True)
class Pieces:
    """Pieces of a teacher's vocabulary for the tokens of a WordPiece vocabulary.

    Attributes:
        size: Number of tokens of the teacher's vocabulary.
        special: Our special token -> the teacher's id; without those that the teacher
            does not have.
        split: Function from the text of a token, and whether the token continues a word
            (`##`), to the teacher's ids. Without [UNK]: an empty list if the teacher
            does not know any part of the text.
        index: Function from a token to the teacher's id of the token of this spelling,
            or `None`.
    """

    size: int
    special: Mapping[str, int]
    split: Callable[[str, bool], list[int]]
    index: Callable[[str], int | None]

    def of_token(self, token: str) -> list[int]:
        """Return the teacher's ids for a token of a WordPiece vocabulary.

        A token that continues a word is split as text inside a word. If the teacher
        does not know it there, it is split as a word.

        Args:
            token: A token, such as `"sun"`, `"##ny"` or `"[CLS]"`.

        Returns:
            The ids, without [UNK]; empty if the teacher knows no part of the token.
        """
        if token in _SPECIAL:
            found = self.special.get(token)
            return [] if found is None else [found]
        inside = token.startswith(_INSIDE) and len(token) > len(_INSIDE)
        text = token[len(_INSIDE) :] if inside else token
        return self.split(text, inside) or (self.split(text, False) if inside else [])


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

    def split(text: str, inside: bool) -> list[int]:
        if not inside:
            ids = tokenizer([text]).values.numpy().tolist()
            return [row for row in ids if row != unk]
        if tokenizer.lowercase:
            text = text.lower()
        if tokenizer.strip_accents:
            marked = unicodedata.normalize("NFD", text)
            text = "".join(c for c in marked if unicodedata.category(c) != "Mn")
        return _longest(text, index)

    return Pieces(
        tokenizer.vocabulary_size, tokenizer.special_token_ids, split, index.get
    )


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

    Text inside a word is split without the mark of a word's start (U+2581). A mark
    that is a piece of its own is left out, because it is the same for all words.

    Args:
        directory: Directory with `tokenizer.json`, a Unigram model of the package
            `tokenizers`, and optionally `tokenizer_config.json`.

    Returns:
        The pieces.

    Raises:
        ValueError: If the file is missing, invalid, or another kind of tokenizer.
    """
    from tokenizers import Tokenizer

    path = Path(directory) / "tokenizer.json"
    if tokenizer_kind(directory) != "Unigram":
        raise ValueError(
            f"{path}: expected a model of type Unigram. "
            f"Received: {tokenizer_kind(directory)}"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # `tokenizers` raises plain exceptions.
    except Exception as error:
        raise ValueError(
            f"{path}: expected a tokenizer of the package tokenizers. Received: {error}"
        ) from error
    model, normalizer = tokenizer.model, tokenizer.normalizer
    special = _special_ids(Path(directory), tokenizer.token_to_id)
    skipped = {special.get(UNK_TOKEN), tokenizer.token_to_id(_WORD_MARK)}

    def split(text: str, inside: bool) -> list[int]:
        if normalizer is not None:
            text = normalizer.normalize_str(text)
        text = text.strip().replace(" ", _WORD_MARK).removeprefix(_WORD_MARK)
        if not text:
            return []
        pieces = model.tokenize(text if inside else _WORD_MARK + text)
        return [piece.id for piece in pieces if piece.id not in skipped]

    return Pieces(tokenizer.get_vocab_size(), special, split, tokenizer.token_to_id)


def tokenizer_kind(directory: str | Path) -> str | None:
    """Return the type of the model in `tokenizer.json`, `None` without the file.

    Raises:
        ValueError: If the file is not a JSON object.
    """
    whole = _read_object(Path(directory) / "tokenizer.json")
    if whole is None:
        return None
    model = whole.get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    # Files of tokenizers before version 0.9 have no type.
    return str(kind or "WordPiece")


def _special_ids(folder: Path, index: Callable[[str], int | None]) -> dict[str, int]:
    """Return our special token -> the id of the teacher's token, where it has one."""
    config = _read_object(folder / "tokenizer_config.json") or {}
    found = {}
    for ours, (keys, names) in _SPECIAL.items():
        for name in (*(_content(config.get(key)) for key in keys), *names):
            row = index(name) if name else None
            if row is not None:
                found[ours] = row
                break
    return found


def _content(token: Any) -> str | None:
    """Return the text of a token in `tokenizer_config.json`."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; `None` if there is no file."""
    return read_json(path) if path.is_file() else None
