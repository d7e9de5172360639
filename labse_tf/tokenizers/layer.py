"""What all tokenizers share: layers from strings to ragged ids, with special tokens."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np

from labse_tf.tokenizers.vocabulary import (
    CLS_TOKEN,
    MASK_TOKEN,
    PAD_TOKEN,
    SEP_TOKEN,
    UNK_TOKEN,
)

if TYPE_CHECKING:
    import tensorflow as tf


class Vocabulary(Protocol):
    """Tokens of a tokenizer."""

    @property
    def tokens(self) -> list[str]:
        """The tokens in the order of their ids."""

    @property
    def index(self) -> dict[str, int]:
        """Token -> id."""

    @property
    def special(self) -> dict[str, int]:
        """`"[PAD]"`, `"[UNK]"`, `"[CLS]"`, `"[SEP]"`, `"[MASK]"` -> id."""


class Tokenizer(keras.layers.Layer):
    """Base of the tokenizers.

    A subclass defines the methods that raise `NotImplementedError` here.

    Args:
        table: The vocabulary.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Attributes:
        file_name: Name of the vocabulary's file in a preset and in a SavedModel.
    """

    file_name: str

    def __init__(self, table: Vocabulary, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Keras must not convert strings, on any backend.
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        self._table = table
        self._strings: tf.Tensor | None = None
        self.built = True

    @property
    def has_vocabulary(self) -> bool:
        """Whether the vocabulary is known; Keras may restore it after the creation."""
        return True

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
        """Names of the five special tokens in the vocabulary."""
        return list(self.special_token_ids)

    @property
    def special_token_ids(self) -> dict[str, int]:
        """Name of each special token in the vocabulary -> its id."""
        return {self._table.tokens[row]: row for row in self._table.special.values()}

    @property
    def pad_token_id(self) -> int:
        """Id of the padding, `[PAD]` or `<pad>`."""
        return self._special(PAD_TOKEN)

    @property
    def unk_token_id(self) -> int:
        """Id of unknown text, `[UNK]` or `<unk>`."""
        return self._special(UNK_TOKEN)

    @property
    def cls_token_id(self) -> int:
        """Id of the start of a row, `[CLS]` or `<s>`."""
        return self._special(CLS_TOKEN)

    @property
    def start_token_ids(self) -> list[int]:
        """Ids that a row starts with: that of `[CLS]`, if the tokenizer has one."""
        found = self._table.special.get(CLS_TOKEN)
        return [] if found is None else [found]

    @property
    def sep_token_id(self) -> int:
        """Id of the end of a sentence, `[SEP]` or `</s>`."""
        return self._special(SEP_TOKEN)

    @property
    def mask_token_id(self) -> int:
        """Id of a masked token, `[MASK]` or `<mask>`."""
        return self._special(MASK_TOKEN)

    def _special(self, token: str) -> int:
        """Return the id of a special token; raise an error if it is missing."""
        special = self._table.special
        if token not in special:
            raise ValueError(
                f"The tokenizer must have a token for {token}. "
                f"Received: only {', '.join(special)}"
            )
        return special[token]

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Convert Python strings to a tensor before Keras inspects each string."""
        if not isinstance(inputs, keras.KerasTensor):
            inputs = to_strings(inputs)
        return super().__call__(inputs, **kwargs)

    def call(self, inputs: tf.Tensor) -> tf.RaggedTensor:
        """Split a batch of strings into ids."""
        raise NotImplementedError

    def join(self, pieces: tf.RaggedTensor) -> tf.Tensor:
        """Join pieces `(batch, None)` into text `(batch,)`."""
        raise NotImplementedError

    def save_vocabulary(self, path: str | os.PathLike[str]) -> None:
        """Write the vocabulary to a file."""
        raise NotImplementedError

    def save_files(self, folder: Path) -> list[Path]:
        """Write the vocabulary into a folder and return its files."""
        path = folder / self.file_name
        self.save_vocabulary(path)
        return [path]

    def resources(self) -> list[Any]:
        """Return the objects of TensorFlow that a SavedModel of the ops must track."""
        return []

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments besides the vocabulary, as JSON values."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return the settings, and the size and SHA-256 of the vocabulary."""
        raise NotImplementedError

    def with_tokens(self, ids: Sequence[int]) -> Tokenizer:
        """Return a tokenizer with only the tokens of these ids, in this order."""
        raise NotImplementedError

    def tokenize(self, inputs: Any) -> tf.RaggedTensor:
        """Split a batch of strings into ids, as a call of the layer does."""
        return self(inputs)

    def token_to_id(self, token: str) -> int:
        """Return the id of a token of the vocabulary.

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
        """Join ids into text, words separated by spaces.

        Padding and the marks of a row's start and of a sentence's end are omitted,
        unknown and masked tokens are kept. Tokenizing loses spaces and other
        characters, so the result can differ from the original text.

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
        dropped = [self.pad_token_id, *self.start_token_ids, self.sep_token_id]
        keep = tf.reduce_all(ids.flat_values[:, None] != dropped, axis=-1)
        ids = tf.ragged.boolean_mask(ids, ids.with_flat_values(keep))
        text = self.decode(ids)
        return text if is_batch else text[0]

    def decode(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Join ids `(batch, None)` into text `(batch,)`, with all special tokens."""
        import tensorflow as tf

        pieces = tf.gather(self._token_strings(), ids.flat_values)
        return self.join(ids.with_flat_values(pieces))

    def _token_strings(self) -> tf.Tensor:
        """Return the tokens as a string tensor `(vocabulary_size,)`.

        Created once in eager mode; a constant in a graph.
        """
        import tensorflow as tf

        if not tf.executing_eagerly():
            return tf.constant(self._table.tokens)
        if self._strings is None:
            with tf.device("cpu:0"):
                self._strings = tf.constant(self._table.tokens)
        return self._strings

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Return the shape and type of the ids."""
        return keras.KerasTensor((inputs.shape[0], None), dtype="int32", ragged=True)


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
