"""A vocabulary: its special tokens, its file, and the checks that it must pass."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from labse_tf.files import atomic_file

if TYPE_CHECKING:
    import tensorflow as tf

PAD_TOKEN = "[PAD]"
UNK_TOKEN = "[UNK]"
CLS_TOKEN = "[CLS]"
SEP_TOKEN = "[SEP]"
MASK_TOKEN = "[MASK]"
SPECIAL_TOKENS = (PAD_TOKEN, UNK_TOKEN, CLS_TOKEN, SEP_TOKEN, MASK_TOKEN)

# The ids that multilingual BERT and LaBSE have: [PAD] is 0 and the others start at 100.
LAYOUT = (
    PAD_TOKEN,
    *(f"[unused{number}]" for number in range(1, 100)),
    UNK_TOKEN,
    CLS_TOKEN,
    SEP_TOKEN,
    MASK_TOKEN,
)

# TF-Text takes none longer; the "##" before a piece inside a word does not count.
MAX_BYTES_PER_TOKEN = 256


def save_vocabulary(vocabulary: Sequence[str], path: str | os.PathLike[str]) -> None:
    """Writes a vocabulary atomically, one token per line.

    Args:
        vocabulary: the tokens in the order of their ids.
        path: the file to write; an old one is replaced.

    Raises:
        ValueError: if a token is empty or holds a line end.
    """
    for index, token in enumerate(vocabulary):
        if not token or "\n" in token or token.endswith("\r"):
            raise ValueError(
                "A token must have a character and no line end to be written to a "
                f"file. Received: token {index}, {token!r}"
            )
    with (
        atomic_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(token + "\n" for token in vocabulary)


def load_vocabulary(path: str | os.PathLike[str]) -> list[str]:
    """Reads a `vocab.txt`: UTF-8, one token a line.

    Line ends of Windows and a byte order mark are tolerated, blank lines at the end
    are left out.

    Args:
        path: the file.

    Returns:
        The tokens; the line number from 0 is the id.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is empty, a line is no UTF-8 or blank, or a token
            comes twice. The message gives file and line.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"`vocabulary` must be a file with one token a line. Received: {path}"
        )
    with open(path, "rb") as file:
        data = file.read()
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    while lines and not lines[-1].rstrip(b"\r"):
        lines.pop()
    if not lines:
        raise ValueError(
            f"{path}: a vocabulary has one token a line. Received: an empty file"
        )
    tokens = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            token = line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}:{number}: a token must be UTF-8. Received: {line!r}"
            ) from error
        if not token:
            raise ValueError(
                f"{path}:{number}: a line must hold a token. Received: a blank line"
            )
        if first_line.setdefault(token, number) != number:
            raise ValueError(
                f"{path}:{number}: a token must come once. Received: {token!r}, "
                f"which is on line {first_line[token]} too"
            )
        tokens.append(token)
    return tokens


class Table:
    """A checked vocabulary; a plain object, so that Keras does not wrap its list."""

    def __init__(self, vocabulary: str | os.PathLike[str] | Sequence[str]) -> None:
        where = "`vocabulary`"
        if isinstance(vocabulary, (str, os.PathLike)):
            where = os.fspath(vocabulary)
            self.tokens = load_vocabulary(vocabulary)
        else:
            self.tokens = list(vocabulary)
        if not self.tokens:
            raise ValueError(f"{where} must hold tokens. Received: an empty list")
        self.index: dict[str, int] = {}
        for number, token in enumerate(self.tokens):
            if not isinstance(token, str) or not token:
                raise ValueError(
                    f"{where} must hold strings of one character or more. "
                    f"Received: token {number}, {token!r}"
                )
            length = len(token.removeprefix("##").encode("utf-8", "surrogatepass"))
            if length > MAX_BYTES_PER_TOKEN:
                raise ValueError(
                    f"{where} must hold tokens of at most {MAX_BYTES_PER_TOKEN} bytes "
                    f"of UTF-8. Received: token {number} of {length} bytes, "
                    f"{token!r:.40}"
                )
            if self.index.setdefault(token, number) != number:
                raise ValueError(
                    f"{where} must hold each token once. Received: {token!r} with "
                    f"the ids {self.index[token]} and {number}"
                )
        missing = [token for token in SPECIAL_TOKENS if token not in self.index]
        if missing:
            raise ValueError(
                f"{where} must hold the special tokens {', '.join(SPECIAL_TOKENS)}. "
                f"Received: {len(self.tokens)} tokens without {', '.join(missing)}"
            )
        self._strings: tf.Tensor | None = None

    def strings(self) -> tf.Tensor:
        """The tokens as a string tensor: made once when eager, a constant in a graph.

        Returns:
            String tensor `(vocabulary_size,)`.
        """
        import tensorflow as tf

        if not tf.executing_eagerly():
            return tf.constant(self.tokens)
        if self._strings is None:
            with tf.device("cpu:0"):
                self._strings = tf.constant(self.tokens)
        return self._strings
