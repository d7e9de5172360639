"""A tokenizer of KerasHub behind the interface of this package's tokenizers.

References:
    https://keras.io/keras_hub/api/tokenizers
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import keras

from labse_tf.tokenizers.layer import Tokenizer
from labse_tf.tokenizers.vocabulary import (
    CLS_TOKEN,
    MASK_TOKEN,
    PAD_TOKEN,
    SEP_TOKEN,
    UNK_TOKEN,
)

if TYPE_CHECKING:
    import tensorflow as tf

# Special token -> KerasHub's attribute of its id.
_SPECIAL = {
    PAD_TOKEN: "pad_token_id",
    UNK_TOKEN: "unk_token_id",
    CLS_TOKEN: "start_token_id",
    SEP_TOKEN: "end_token_id",
    MASK_TOKEN: "mask_token_id",
}
# KerasHub's attributes of the vocabulary of WordPiece, byte pairs and SentencePiece.
_VOCABULARIES = ("vocabulary", "proto")
_NOT_SETTINGS = ("name", "trainable", "dtype", "config_file", "vocabulary", "merges")


@keras.saving.register_keras_serializable(package="labse_tf")
class KerasHubTokenizer(Tokenizer):
    """Layer that splits strings into ids with a tokenizer of KerasHub.

    It runs in the graph: KerasHub's tokenizers of WordPiece, SentencePiece and byte
    pairs consist of ops of TensorFlow and TF-Text. The ids are those of KerasHub in
    `tf.data`; outside of a graph, KerasHub's own code in Python splits an empty text
    and repeated spaces in another way for some tokenizers. The layer does not add the
    start and the end of a row; `SentencePreprocessor` does.

    The start and the end are `start_token_id` and `end_token_id` of the tokenizer; if
    `start_token_id` is `None`, as for Qwen3, rows have no start.

    TF-Text deletes the SentencePiece models of KerasHub's tokenizers when
    `keras.utils.set_random_seed` is called: set the seed before a tokenizer is created.

    Presets, `trim` and `extend` need a tokenizer of this package; see
    `labse_tf.checkpoints.from_keras_hub`.

    Args:
        tokenizer: A tokenizer of KerasHub, such as `keras_hub.models.BertTokenizer`.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: List, NumPy array or tensor of strings, `(batch,)`.

    Returns:
        `tf.RaggedTensor` of int32 ids, `(batch, None)`.

    Raises:
        ValueError: If the tokenizer returns strings or rows of a fixed length, has no
            tokens for padding and the end of a row, or the inputs are not a batch of
            strings.

    Example:
        >>> import keras_hub
        >>> from labse_tf.tokenizers import KerasHubTokenizer
        >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"]
        >>> tokenizer = KerasHubTokenizer(keras_hub.models.BertTokenizer(words))
        >>> tokenizer(["hello world", "hello"]).to_list()
        [[5, 6], [5]]
    """

    def __init__(self, tokenizer: keras.layers.Layer, **kwargs: Any) -> None:
        for name in (_SPECIAL[PAD_TOKEN], _SPECIAL[SEP_TOKEN]):
            if not hasattr(tokenizer, name):
                raise ValueError(
                    "`tokenizer` must be a tokenizer of KerasHub with `pad_token_id` "
                    f"and `end_token_id`. Received: {type(tokenizer).__name__} without "
                    f"`{name}`"
                )
        length = getattr(tokenizer, "sequence_length", None)
        if length is not None or "int" not in str(tokenizer.compute_dtype):
            raise ValueError(
                "`tokenizer` must return ids in rows of any length. Received: "
                f"sequence_length={length}, dtype={tokenizer.compute_dtype}"
            )
        super().__init__(_HubVocabulary(tokenizer), **kwargs)
        self.tokenizer = tokenizer
        self._graph: Any = None

    @property
    def has_vocabulary(self) -> bool:
        """Whether KerasHub's tokenizer has its vocabulary."""
        parts = (getattr(self.tokenizer, name, None) for name in _VOCABULARIES)
        return any(part is not None for part in parts)

    def call(self, inputs: tf.Tensor) -> tf.RaggedTensor:
        """Split a batch of strings into ids."""
        import tensorflow as tf

        if not tf.executing_eagerly():
            return self._tokenize(inputs)
        # Outside of a graph, KerasHub returns lists.
        if self._graph is None:
            self._graph = tf.function(
                self._tokenize,
                input_signature=[tf.TensorSpec([None], tf.string)],
                autograph=False,
            )
        return self._graph(inputs)

    def _tokenize(self, inputs: tf.Tensor) -> tf.RaggedTensor:
        """Split a tensor of a graph."""
        import tensorflow as tf

        ids = tf.cast(self.tokenizer(inputs), tf.int32)
        # As int64 row splits, like those of the other tokenizers.
        return ids.with_row_splits_dtype("int64")

    def decode(self, ids: tf.RaggedTensor) -> tf.Tensor:
        """Join ids into text; not in a graph."""
        import tensorflow as tf

        return tf.constant(
            [str(self.tokenizer.detokenize(row)) for row in ids.to_list()],
            shape=(ids.nrows(),),
            dtype=tf.string,
        )

    def save_vocabulary(self, path: str | os.PathLike[str]) -> NoReturn:
        """Raise an error; see `save_files`."""
        raise self._unsupported("a preset")

    def save_files(self, folder: Path) -> list[Path]:
        """Write the files of the tokenizer into a folder."""
        self.tokenizer.save_assets(str(folder))
        return sorted(folder.iterdir())

    def resources(self) -> list[Any]:
        """Return the tables and models that the ops read."""
        import tensorflow as tf

        kinds = (
            tf.Module,
            tf.lookup.StaticHashTable,
            tf.lookup.experimental.MutableHashTable,
        )
        return [x for x in vars(self.tokenizer).values() if isinstance(x, kinds)]

    def settings(self) -> dict[str, Any]:
        """Raise an error: a preset does not hold tokenizers of KerasHub."""
        raise self._unsupported("a preset")

    def with_tokens(self, ids: Sequence[int]) -> NoReturn:
        """Raise an error: only tokenizers of this package can be trimmed."""
        raise self._unsupported("a trimmed vocabulary")

    def _unsupported(self, what: str) -> ValueError:
        """Return the error for what needs a tokenizer of this package."""
        return ValueError(
            f"{what} needs a WordPieceTokenizer or a SentencePieceTokenizer; "
            "`labse_tf.checkpoints.from_keras_hub` converts models of BERT's form. "
            f"Received: {type(self.tokenizer).__name__} of KerasHub"
        )

    def describe(self) -> dict[str, Any]:
        """Return the class, the settings, and the size and hash of the vocabulary."""
        digest = hashlib.sha256()
        with tempfile.TemporaryDirectory(prefix="labse_tf.") as folder:
            for file in self.save_files(Path(folder)):
                digest.update(file.name.encode() + b"\n" + file.read_bytes())
        config = self.tokenizer.get_config().items()
        settings = {k: v for k, v in config if k not in _NOT_SETTINGS and _is_json(v)}
        return {
            "tokenizer": type(self.tokenizer).__name__,
            "vocabulary": digest.hexdigest(),
            "vocabulary_size": self.vocabulary_size,
            **settings,
        }

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments; a `.keras` file has the vocabulary."""
        serialized = keras.saving.serialize_keras_object(self.tokenizer)
        return {**super().get_config(), "tokenizer": serialized}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KerasHubTokenizer:
        """Create the layer from the result of `get_config`."""
        # The import registers the class, which Keras looks up by name below.
        import keras_hub  # noqa: F401

        deserialize = keras.saving.deserialize_keras_object
        return cls(**{**config, "tokenizer": deserialize(config["tokenizer"])})


class _HubVocabulary:
    """Tokens of a tokenizer of KerasHub, which Keras may load after its creation."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @functools.cached_property
    def tokens(self) -> list[str]:
        """The tokens in the order of their ids; an id without a token is `[[id]]`."""
        vocabulary = getattr(self._tokenizer, "vocabulary", None)
        if isinstance(vocabulary, Mapping):
            tokens = {row: token for token, row in vocabulary.items()}
            return [tokens.get(i, f"[[{i}]]") for i in range(max(tokens) + 1)]
        return list(self._tokenizer.get_vocabulary())

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Token -> id."""
        return {token: row for row, token in enumerate(self.tokens)}

    @property
    def special(self) -> dict[str, int]:
        """Special token -> id, without those that the tokenizer lacks."""
        found = {
            k: getattr(self._tokenizer, name, None) for k, name in _SPECIAL.items()
        }
        if found[UNK_TOKEN] is None and hasattr(self._tokenizer, "oov_token"):
            found[UNK_TOKEN] = self._tokenizer.token_to_id(self._tokenizer.oov_token)
        return {token: row for token, row in found.items() if row is not None}


def _is_json(value: Any) -> bool:
    """Return whether a value can be written as JSON."""
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
