"""Vocabulary: special tokens, the vocabulary file, and its checks."""

from __future__ import annotations

import os
from collections.abc import Sequence

from labse_tf.files import atomic_file
from labse_tf.pipes import is_stream, spooled

PAD_TOKEN = "[PAD]"
UNK_TOKEN = "[UNK]"
CLS_TOKEN = "[CLS]"
SEP_TOKEN = "[SEP]"
MASK_TOKEN = "[MASK]"
SPECIAL_TOKENS = (PAD_TOKEN, UNK_TOKEN, CLS_TOKEN, SEP_TOKEN, MASK_TOKEN)

# As in multilingual BERT and LaBSE: [PAD] is 0, the other special tokens start at 100.
LAYOUT = (
    PAD_TOKEN,
    *(f"[unused{number}]" for number in range(1, 100)),
    UNK_TOKEN,
    CLS_TOKEN,
    SEP_TOKEN,
    MASK_TOKEN,
)

# The limit of TF-Text, without the "##" before a piece inside a word.
MAX_BYTES_PER_TOKEN = 256


def save_vocabulary(vocabulary: Sequence[str], path: str | os.PathLike[str]) -> None:
    """Write a vocabulary atomically, one token per line.

    Args:
        vocabulary: Tokens in the order of their ids.
        path: The file to write; an existing file is replaced.

    Raises:
        ValueError: If a token is empty or contains a line end.
    """
    for index, token in enumerate(vocabulary):
        if not token or "\n" in token or token.endswith("\r"):
            raise ValueError(
                "Tokens in a file must not be empty or contain line ends. "
                f"Received: token {index}, {token!r}"
            )
    with (
        atomic_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(token + "\n" for token in vocabulary)


def load_vocabulary(path: str | os.PathLike[str]) -> list[str]:
    """Read a `vocab.txt`: UTF-8, one token per line; the line number from 0 is the id.

    Windows line ends and a byte order mark are accepted; empty lines at the end are
    ignored.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is empty, a line is empty or invalid UTF-8, or a token
            occurs twice. The message gives file and line.
    """
    path = os.fspath(path)
    if not (os.path.isfile(path) or is_stream(path)):
        raise FileNotFoundError(
            f"`vocabulary` must be a file with one token per line. Received: {path}"
        )
    with open(spooled(path), "rb") as file:
        data = file.read()
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    while lines and not lines[-1].rstrip(b"\r"):
        lines.pop()
    if not lines:
        raise ValueError(
            f"{path}: expected one token per line. Received: an empty file"
        )
    tokens = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            token = line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}:{number}: expected UTF-8. Received: {line!r}"
            ) from error
        if not token:
            raise ValueError(
                f"{path}:{number}: expected a token. Received: an empty line"
            )
        if first_line.setdefault(token, number) != number:
            raise ValueError(
                f"{path}:{number}: expected each token once. Received: {token!r}, "
                f"which is also on line {first_line[token]}"
            )
        tokens.append(token)
    return tokens


class Table:
    """Checked vocabulary; a plain object, so that Keras does not wrap its list."""

    def __init__(self, vocabulary: str | os.PathLike[str] | Sequence[str]) -> None:
        where = "`vocabulary`"
        if isinstance(vocabulary, (str, os.PathLike)):
            where = os.fspath(vocabulary)
            self.tokens = load_vocabulary(vocabulary)
        else:
            self.tokens = list(vocabulary)
        if not self.tokens:
            raise ValueError(f"{where} must not be empty. Received: an empty list")
        self.index: dict[str, int] = {}
        for number, token in enumerate(self.tokens):
            if not isinstance(token, str) or not token:
                raise ValueError(
                    f"{where} must contain non-empty strings. "
                    f"Received: token {number}, {token!r}"
                )
            length = len(token.removeprefix("##").encode("utf-8", "surrogatepass"))
            if length > MAX_BYTES_PER_TOKEN:
                raise ValueError(
                    f"{where} must contain tokens of at most {MAX_BYTES_PER_TOKEN} "
                    f"bytes of UTF-8. Received: token {number} of {length} bytes, "
                    f"{token!r:.40}"
                )
            if self.index.setdefault(token, number) != number:
                raise ValueError(
                    f"{where} must contain each token once. Received: {token!r} with "
                    f"the ids {self.index[token]} and {number}"
                )
        missing = [token for token in SPECIAL_TOKENS if token not in self.index]
        if missing:
            raise ValueError(
                f"{where} must contain the special tokens {', '.join(SPECIAL_TOKENS)}. "
                f"Received: {len(self.tokens)} tokens without {', '.join(missing)}"
            )
        self.special = {token: self.index[token] for token in SPECIAL_TOKENS}
