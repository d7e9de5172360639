"""SentencePiece in the graph: the ids of a Unigram model, with TF-Text's ops.

References:
    - Kudo, Subword Regularization, https://arxiv.org/abs/1804.10959, for the model.
    - Kudo and Richardson, SentencePiece, https://arxiv.org/abs/1808.06226
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from labse_tf.files import atomic_file
from labse_tf.tokenizers.layer import Tokenizer
from labse_tf.tokenizers.sentencepiece_model import WORD_MARK, SentencePieceModel

if TYPE_CHECKING:
    import tensorflow as tf

NORMALIZATIONS = ("model", "nmt_nfkc")

# What `Nmt` of Hugging Face tokenizers deletes, and what it replaces by a space.
_DELETED = r"[\x01-\x08\x0B\x0E-\x1F\x7F\x{8F}\x{9F}]"
_SPACES = r"[\t\n\f\r\x{1680}\x{200B}-\x{200F}\x{2028}\x{2029}\x{2581}\x{FEFF}\x{FFFD}]"


@keras.saving.register_keras_serializable(package="labse_tf")
class SentencePieceTokenizer(Tokenizer):
    """Layer that splits strings into the pieces of a Unigram model with TensorFlow ops.

    The ids are those of Hugging Face's `tokenizers` for the same model, with two
    differences. A special piece in the text, such as `"</s>"`, is plain text. If two
    ways to split a word have the same score up to the rounding of float32, the other
    way may be chosen. Invalid UTF-8 is deleted.

    The pieces of the model are in the order of the ids, so ids are not shifted. The
    layer does not add `<s>` and `</s>`; `SentencePreprocessor` does.

    Args:
        model: Path of a `.model` file of SentencePiece, or its content as bytes. It
            must be a Unigram model with the pieces `<pad>`, `<unk>`, `<s>`, `</s>` and
            `<mask>`, or `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and `[MASK]`, with any ids.
        normalization: How characters are replaced before text is split. `"model"`: by
            the model's own table and its settings for spaces. `"nmt_nfkc"`: in the
            graph, as by `Nmt` and `NFKC` of Hugging Face's `tokenizers`, for a model
            without a table: control characters are deleted, Unicode's form NFKC is
            applied, repeated spaces become one space, and a text that does not start
            with a space gets one.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: List, NumPy array or tensor of strings, `(batch,)`.

    Returns:
        `tf.RaggedTensor` of int32 ids, `(batch, None)`.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the content is not such a model, `normalization` is unknown or
            does not fit the model, or the inputs are not a batch of strings.

    Example:
        >>> from labse_tf.tokenizers.sentencepiece_model import *
        >>> special = [Piece("<s>", 0.0, PieceType.CONTROL)]
        >>> special += [Piece("<pad>", 0.0, PieceType.CONTROL)]
        >>> special += [Piece("</s>", 0.0, PieceType.CONTROL)]
        >>> special += [Piece("<unk>", 0.0, PieceType.UNKNOWN)]
        >>> special += [Piece("<mask>", 0.0, PieceType.CONTROL)]
        >>> words = [Piece("▁sun", -1.0), Piece("ny", -2.0), Piece("▁", -3.0)]
        >>> tokenizer = SentencePieceTokenizer(build_model([*special, *words]))
        >>> tokenizer(["sunny sun", "moon"]).to_list()
        [[5, 6, 5], [7, 3]]
        >>> tokenizer.detokenize([[0, 5, 6, 5, 2, 1]]).numpy().tolist()
        [b'sunny sun']

    References:
        - https://github.com/google/sentencepiece
    """

    file_name = "sentencepiece.model"

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        *,
        normalization: str = "model",
        **kwargs: Any,
    ) -> None:
        """Read and check the model, and build the op's form of it."""
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"`normalization` must be one of {', '.join(NORMALIZATIONS)}. "
                f"Received: normalization={normalization!r}"
            )
        found = SentencePieceModel(model)
        if normalization != "model" and (found.normalizes or any(found.spaces)):
            raise ValueError(
                '`normalization` must be "model" for a model that replaces characters '
                f"or adds or removes spaces itself. Received: {normalization!r}"
            )
        super().__init__(found, **kwargs)
        self.normalization = normalization
        self._model = found
        self._ops = _FastSentencepiece(found.content, normalization)

    @property
    def model(self) -> SentencePieceModel:
        """The model, with the scores and types of its pieces."""
        return self._model

    def call(self, inputs: tf.Tensor) -> tf.RaggedTensor:
        """Split a batch of strings into ids."""
        return self._ops.tokenize(inputs)

    def join(self, pieces: tf.RaggedTensor) -> tf.Tensor:
        """Join pieces `(batch, None)` into text: U+2581 is a space."""
        import tensorflow as tf

        text = tf.strings.reduce_join(pieces, axis=-1)
        text = tf.strings.regex_replace(text, WORD_MARK, " ")
        return tf.strings.regex_replace(text, r"^ ", "")

    def save_vocabulary(self, path: str | os.PathLike[str]) -> None:
        """Write the model atomically, as a `.model` file of SentencePiece."""
        with atomic_file(path) as temporary:
            temporary.write_bytes(self._model.content)

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides the model, as JSON values."""
        return {"normalization": self.normalization}

    def describe(self) -> dict[str, Any]:
        """Return the settings, and the size and SHA-256 of the model."""
        return {
            "vocabulary": hashlib.sha256(self._model.content).hexdigest(),
            "vocabulary_size": self.vocabulary_size,
            **self.settings(),
        }

    def with_tokens(self, ids: Sequence[int]) -> SentencePieceTokenizer:
        """Return a tokenizer with only the pieces of these ids, in this order.

        A text whose best pieces are all kept is split into them as before: the scores
        of the pieces stay the same, and other ways to split the text can only be lost.
        """
        return SentencePieceTokenizer(self._model.with_pieces(ids), **self.settings())

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, the model in base64."""
        content = base64.b64encode(self._model.content).decode()
        return {**super().get_config(), "model": content, **self.settings()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SentencePieceTokenizer:
        """Create the layer from the result of `get_config`."""
        return cls(**{**config, "model": base64.b64decode(config["model"])})


class _FastSentencepiece:
    """Ops of the tokenizer; a plain object, so that Keras does not track it.

    TF-Text has two ops for SentencePiece. `TFText>FastSentencepieceTokenize` takes the
    model as a constant of the graph, like the op of WordPiece, and needs no resource.
    """

    def __init__(self, content: bytes, normalization: str) -> None:
        import tensorflow as tf

        try:
            import tensorflow_text as tf_text
        except ImportError as error:
            raise ImportError(
                "`SentencePieceTokenizer` needs TF-Text: pip install tensorflow-text"
            ) from error

        self._text = tf_text
        self._normalization = normalization
        # Created outside any graph, so that every graph can use it, and on the CPU:
        # accelerators do not have the op.
        with tf.init_scope(), tf.device("cpu:0"):
            try:
                self._tokenizer = tf_text.FastSentencepieceTokenizer(content)
            except RuntimeError as error:
                raise ValueError(
                    "`model` must be a model that TF-Text can convert. "
                    f"Received: {error}"
                ) from error

    def clean(self, texts: tf.Tensor) -> tf.Tensor:
        """Delete invalid UTF-8 and replace characters in strings `(batch,)`."""
        import tensorflow as tf

        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="ignore")
        if self._normalization == "model":
            return texts
        texts = tf.strings.regex_replace(texts, _DELETED, "")
        texts = tf.strings.regex_replace(texts, _SPACES, " ")
        texts = self._text.normalize_utf8(texts, "NFKC")
        texts = tf.strings.regex_replace(texts, r" {2,}", " ")
        return tf.strings.regex_replace(texts, r"^([^ ])", r" \1")

    def tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Split strings `(batch,)` into ragged int32 ids `(batch, None)`."""
        ids = self._tokenizer.tokenize(self.clean(texts))
        # As int64 row splits, like those of the other tokenizer.
        return ids.with_row_splits_dtype("int64")
