"""WordPiece in the graph: the ids of the original BERT tokenizer, with TF-Text's ops.

References:
    - Song et al., Fast WordPiece Tokenization, https://arxiv.org/abs/2012.15524
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from labse_tf.tokenizers.vocabulary import (
    CLS_TOKEN,
    MASK_TOKEN,
    PAD_TOKEN,
    SEP_TOKEN,
    SPECIAL_TOKENS,
    UNK_TOKEN,
    Table,
    save_vocabulary,
)

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
class WordPieceTokenizer(keras.layers.Layer):
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
        super().__init__(**kwargs)
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
        # Keras must not convert strings, on any backend.
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self.lowercase = bool(lowercase)
        self.compat = compat
        self._table = Table(vocabulary)
        self._ops = FastBert(self._table.tokens, self.lowercase, strip_accents, compat)
        self.strip_accents = self._ops.strip_accents
        self.built = True

    @property
    def vocabulary(self) -> list[str]:
        """Tokens in the order of their ids. Shared, not a copy: do not modify."""
        return self._table.tokens

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens."""
        return len(self._table.tokens)

    @property
    def special_tokens(self) -> list[str]:
        """Names of the five special tokens."""
        return list(SPECIAL_TOKENS)

    @property
    def special_token_ids(self) -> dict[str, int]:
        """Id of each special token."""
        return {token: self._table.index[token] for token in SPECIAL_TOKENS}

    @property
    def pad_token_id(self) -> int:
        """Id of `[PAD]`."""
        return self._table.index[PAD_TOKEN]

    @property
    def unk_token_id(self) -> int:
        """Id of `[UNK]`."""
        return self._table.index[UNK_TOKEN]

    @property
    def cls_token_id(self) -> int:
        """Id of `[CLS]`."""
        return self._table.index[CLS_TOKEN]

    @property
    def sep_token_id(self) -> int:
        """Id of `[SEP]`."""
        return self._table.index[SEP_TOKEN]

    @property
    def mask_token_id(self) -> int:
        """Id of `[MASK]`."""
        return self._table.index[MASK_TOKEN]

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Convert Python strings to a tensor before Keras inspects each string."""
        if not isinstance(inputs, keras.KerasTensor):
            inputs = to_strings(inputs)
        return super().__call__(inputs, **kwargs)

    def call(self, inputs: tf.Tensor) -> tf.RaggedTensor:
        """Split a batch of strings into ids."""
        return self._ops.tokenize(inputs)

    def tokenize(self, inputs: Any) -> tf.RaggedTensor:
        """Split a batch of strings into ids, as a call of the layer does."""
        return self(inputs)

    def token_to_id(self, token: str) -> int:
        """Return the id of a token; pieces inside words start with `##`.

        Raises:
            KeyError: If the vocabulary does not contain the token.
        """
        try:
            return self._table.index[token]
        except KeyError:
            raise KeyError(
                f"`token` must be a token of the vocabulary. Received: token={token!r}"
            ) from None

    def id_to_token(self, id: int) -> str:
        """Return the token of an id.

        Raises:
            ValueError: If the vocabulary has no such id.
        """
        if not 0 <= id < self.vocabulary_size:
            raise ValueError(
                f"`id` must be in [0, {self.vocabulary_size}). Received: id={id}"
            )
        return self._table.tokens[id]

    def detokenize(self, inputs: Any) -> tf.Tensor:
        """Join ids into text: pieces without `##`, words separated by spaces.

        `[PAD]`, `[CLS]` and `[SEP]` are omitted, `[UNK]` and `[MASK]` are kept.
        Tokenizing loses spaces, so the result can differ from the original text.

        Args:
            inputs: Ids as a list (of lists), NumPy array, tensor or ragged tensor,
                `(batch, length)` or `(length,)`.

        Returns:
            String tensor `(batch,)`, or a scalar for ids of shape `(length,)`.

        Raises:
            ValueError: If ids are not integers, not of rank 1 or 2, or out of range.
        """
        import tensorflow as tf

        ids, is_batch = _to_ragged_ids(inputs)
        if tf.executing_eagerly() and tf.size(ids.flat_values) > 0:
            low = int(tf.reduce_min(ids.flat_values))
            high = int(tf.reduce_max(ids.flat_values))
            if low < 0 or high >= self.vocabulary_size:
                raise ValueError(
                    f"Ids must be in [0, {self.vocabulary_size}). "
                    f"Received: ids from {low} to {high}"
                )
        dropped = [self.pad_token_id, self.cls_token_id, self.sep_token_id]
        keep = tf.reduce_all(ids.flat_values[:, None] != dropped, axis=-1)
        ids = tf.ragged.boolean_mask(ids, ids.with_flat_values(keep))
        pieces = tf.gather(self._table.strings(), ids.flat_values)
        text = tf.strings.reduce_join(
            ids.with_flat_values(pieces), axis=-1, separator=" "
        )
        text = tf.strings.regex_replace(text, r"(^| )##", "")
        return text if is_batch else text[0]

    def save_vocabulary(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary to a file; see `labse_tf.tokenizers.save_vocabulary`."""
        save_vocabulary(self._table.tokens, path)

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Return the shape and type of the ids."""
        return keras.KerasTensor((inputs.shape[0], None), dtype="int32", ragged=True)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, the vocabulary as a list."""
        config = super().get_config()
        config.update(
            vocabulary=list(self._table.tokens),
            lowercase=self.lowercase,
            strip_accents=self.strip_accents,
            compat=self.compat,
        )
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


def to_strings(inputs: Any) -> tf.Tensor:
    """Convert a list, an array or a tensor to a string tensor `(batch,)`."""
    import tensorflow as tf

    expected = "The tokenizer expects a batch of strings, shape `(batch,)`."
    if isinstance(inputs, (str, bytes)):
        raise ValueError(
            f"{expected} Put a single string in a list. Received: {inputs!r:.80}"
        )
    if tf.is_tensor(inputs):
        if inputs.dtype != tf.string or isinstance(inputs, tf.RaggedTensor):
            raise ValueError(f"{expected} Received: {type(inputs)}, {inputs.dtype}")
        if inputs.shape.rank is None:
            return tf.ensure_shape(inputs, (None,))
        if inputs.shape.rank != 1:
            raise ValueError(f"{expected} Received: shape {inputs.shape}")
        return inputs
    if not isinstance(inputs, (list, tuple)):
        array = np.asarray(inputs)
        if array.ndim != 1:
            raise ValueError(f"{expected} Received: shape {array.shape}")
        inputs = array.tolist()
    texts = []
    for index, text in enumerate(inputs):
        if isinstance(text, str):
            # The bytes of a lone surrogate are invalid UTF-8 and are deleted later.
            text = text.encode("utf-8", "surrogatepass")
        elif not isinstance(text, bytes):
            if tf.is_tensor(text) and text.dtype == tf.string and text.shape.rank == 0:
                return to_strings(tf.stack(inputs))
            raise ValueError(
                f"{expected} Received: {text!r:.80} of {type(text)} at row {index}"
            )
        texts.append(text)
    return tf.constant(texts, dtype=tf.string, shape=(len(texts),))


def _to_ragged_ids(inputs: Any) -> tuple[tf.RaggedTensor, bool]:
    """Return ragged ids `(batch, None)`, and whether there was a batch dimension."""
    import tensorflow as tf

    if isinstance(inputs, (list, tuple)):
        inputs = tf.ragged.constant(inputs)
        if tf.size(inputs) == 0:
            inputs = tf.cast(inputs, tf.int32)
    elif not isinstance(inputs, tf.RaggedTensor):
        inputs = tf.convert_to_tensor(inputs)
    if not inputs.dtype.is_integer:
        raise ValueError(f"Ids must be integers. Received: {inputs.dtype}")
    rank = inputs.shape.rank
    if rank not in (1, 2):
        raise ValueError(
            "Ids must have the shape `(batch, length)` or `(length,)`. "
            f"Received: shape {inputs.shape}"
        )
    ids = inputs if rank == 2 else inputs[None]
    if not isinstance(ids, tf.RaggedTensor):
        ids = tf.RaggedTensor.from_tensor(ids)
    return ids, rank == 2
