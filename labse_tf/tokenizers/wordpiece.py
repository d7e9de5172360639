"""WordPiece in the graph: the ids of the original BERT tokenizer, with TF-Text's ops.

References:
    - Song et al., Fast WordPiece Tokenization, https://arxiv.org/abs/2012.15524
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from labse_tf.tokenizers.layer import Tokenizer
from labse_tf.tokenizers.vocabulary import UNK_TOKEN, Table, save_vocabulary

if TYPE_CHECKING:
    import tensorflow as tf

# BERT deletes control and format characters and U+FFFD before it splits words, in
# Hugging Face's version private-use characters too. TF-Text replaces them by spaces,
# which would split Persian or Malayalam words at a zero-width joiner, so they are
# deleted before TF-Text runs.
_DELETED = r"[\p{Cf}\p{Co}\x{FFFD}\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x{9F}]"

# For "bert", 100 characters as in Hugging Face's version; TF-Text counts bytes, and a
# character has at most four. Google's code has a limit of 200 characters.
MAX_BYTES_PER_WORD = {"bert": 400, "tfhub": 100}


@keras.saving.register_keras_serializable(package="labse_tf")
class WordPieceTokenizer(Tokenizer):
    """Layer that splits strings into WordPiece ids with TensorFlow ops.

    The ids are those of the original BERT tokenizer (cased, accents kept, CJK
    characters split), with two intended differences. Words over 400 bytes become [UNK];
    the limit is 100 characters in Hugging Face's tokenizer and 200 in Google's. A
    special token in the text, such as `"[MASK]"`, is plain text. Invalid UTF-8 is
    deleted, as BERT deletes the replacement character that it decodes to.

    Lowercasing is Python's `str.lower`, as in the original; Hugging Face's fast
    tokenizer differs for Greek capital sigmas at the end of a word.

    The layer does not add `[CLS]` and `[SEP]`; `SentencePreprocessor` does.

    Args:
        vocabulary: Path of a `vocab.txt` (see `load_vocabulary`), or the list of
            tokens. It must contain `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and `[MASK]`,
            with any ids.
        lowercase: Whether to lowercase, for uncased vocabularies.
        strip_accents: Whether to delete Unicode's non-spacing marks (default: same as
            `lowercase`, as in BERT's uncased models). In Indian scripts these marks are
            vowels: a lowercase vocabulary for them needs `strip_accents=False`.
        compat: `"bert"` for the ids of the original tokenizer, or `"tfhub"` for those
            of the preprocessing models on TF Hub: words over 100 bytes become one
            `[UNK]`, format characters (zero-width joiners) split words, and invalid
            UTF-8 becomes U+FFFD.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: List, NumPy array or tensor of strings, `(batch,)`.

    Returns:
        `tf.RaggedTensor` of int32 ids, `(batch, None)`.

    Raises:
        FileNotFoundError: If the vocabulary file does not exist.
        ValueError: If the vocabulary is empty or invalid UTF-8, has a token twice or a
            token of over 256 bytes, or lacks a special token; or if the inputs are not
            a batch of strings.

    Example:
        >>> tokenizer = WordPieceTokenizer(
        ...     ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hell", "##o", "!"]
        ... )
        >>> tokenizer(["hello!", "what?"]).to_list()
        [[5, 6, 7], [1, 1]]
        >>> tokenizer.detokenize([[2, 5, 6, 7, 3, 0]]).numpy().tolist()
        [b'hello !']

    References:
        - https://arxiv.org/abs/2012.15524 for the algorithm of the op.
    """

    file_name = "vocab.txt"

    def __init__(
        self,
        vocabulary: str | os.PathLike[str] | Sequence[str],
        *,
        lowercase: bool = False,
        strip_accents: bool | None = None,
        compat: str = "bert",
        **kwargs: Any,
    ) -> None:
        """Read and check the vocabulary, and build the op's model of it."""
        if compat not in MAX_BYTES_PER_WORD:
            raise ValueError(
                f'`compat` must be "bert" or "tfhub". Received: compat={compat!r}'
            )
        for name, choice in (
            ("lowercase", lowercase),
            ("strip_accents", strip_accents or False),
        ):
            # The string "false" would be true.
            if choice not in (True, False):
                raise ValueError(
                    f"`{name}` must be True or False. Received: {name}={choice!r}"
                )
        if strip_accents is not None and compat == "tfhub":
            if bool(strip_accents) != bool(lowercase):
                raise ValueError(
                    '`strip_accents` must equal `lowercase` if compat="tfhub". '
                    f"Received: lowercase={lowercase}, strip_accents={strip_accents}"
                )
        super().__init__(Table(vocabulary), **kwargs)
        self.lowercase = bool(lowercase)
        self.compat = compat
        self._ops = FastBert(self.vocabulary, self.lowercase, strip_accents, compat)
        self.strip_accents = self._ops.strip_accents

    def call(self, inputs: tf.Tensor) -> tf.RaggedTensor:
        """Split a batch of strings into ids."""
        return self._ops.tokenize(inputs)

    def join(self, pieces: tf.RaggedTensor) -> tf.Tensor:
        """Join pieces `(batch, None)` into text: words separated by spaces."""
        import tensorflow as tf

        text = tf.strings.reduce_join(pieces, axis=-1, separator=" ")
        return tf.strings.regex_replace(text, r"(^| )##", "")

    def save_vocabulary(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary to a file; see `labse_tf.tokenizers.save_vocabulary`."""
        save_vocabulary(self.vocabulary, path)

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides the vocabulary, as JSON values."""
        return {
            "lowercase": self.lowercase,
            "strip_accents": self.strip_accents,
            "compat": self.compat,
        }

    def describe(self) -> dict[str, Any]:
        """Return the settings, and the size and SHA-256 of the vocabulary."""
        digest = hashlib.sha256()
        for token in self.vocabulary:
            digest.update(token.encode() + b"\n")
        return {
            "vocabulary": digest.hexdigest(),
            "vocabulary_size": self.vocabulary_size,
            **self.settings(),
        }

    def with_vocabulary(self, vocabulary: Sequence[str]) -> WordPieceTokenizer:
        """Return a tokenizer with other tokens and the same settings."""
        return WordPieceTokenizer(vocabulary, **self.settings())

    def with_tokens(self, ids: Sequence[int]) -> WordPieceTokenizer:
        """Return a tokenizer with only the tokens of these ids, in this order."""
        return self.with_vocabulary([self.vocabulary[row] for row in ids])

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, the vocabulary as a list."""
        config = super().get_config()
        config.update(vocabulary=list(self.vocabulary), **self.settings())
        return config


class FastBert:
    """Ops of the tokenizer; a plain object, so that Keras does not track it."""

    def __init__(
        self,
        tokens: list[str],
        lowercase: bool,
        strip_accents: bool | None,
        compat: str,
    ) -> None:
        import tensorflow as tf

        try:
            import tensorflow_text as tf_text
        except ImportError as error:
            raise ImportError(
                "`WordPieceTokenizer` needs TF-Text: pip install tensorflow-text"
            ) from error

        self._text = tf_text
        self._lowercase = lowercase
        self.strip_accents = bool(lowercase if strip_accents is None else strip_accents)
        self._compat = compat
        # A token with white space cannot match a word, but the op lets it match between
        # words. A token with NUL cannot match either, and the op rejects it. Both are
        # replaced by a token with punctuation, which matches nothing.
        blank = re.compile(r"[\s\0]").search
        tokens = [
            f"[[{row}]]" if blank(token) else token for row, token in enumerate(tokens)
        ]
        # The model of the op is a tensor of bytes. It is created outside any graph, so
        # that every graph can use it, and on the CPU: accelerators do not have the op.
        with tf.init_scope(), tf.device("cpu:0"):
            self._tokenizer = tf_text.FastBertTokenizer(
                tokens,
                token_out_type=tf.int32,
                unknown_token=UNK_TOKEN,
                # TF-Text lowercases by NFKC case folding, which changes Greek final
                # sigmas, Thai vowels and more that BERT does not change.
                lower_case_nfd_strip_accents=lowercase and compat == "tfhub",
                max_bytes_per_word=MAX_BYTES_PER_WORD[compat],
            )

    def clean(self, texts: tf.Tensor) -> tf.Tensor:
        """Delete the bytes and characters that BERT deletes from strings `(batch,)`."""
        import tensorflow as tf

        if self._compat == "tfhub":
            return tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8")
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="ignore")
        texts = tf.strings.regex_replace(texts, _DELETED, "")
        if self._lowercase:
            texts = tf.strings.lower(texts, encoding="utf-8")
        if self.strip_accents:
            texts = self._text.normalize_utf8(texts, "NFD")
            texts = tf.strings.regex_replace(texts, r"\p{Mn}", "")
        return texts

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Split strings `(batch,)` into ragged int32 ids `(batch, None)`."""
        return self._tokenizer.tokenize(self.clean(texts))
