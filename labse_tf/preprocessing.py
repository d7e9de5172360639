"""Text to features: the three int32 tensors that every encoder here takes.

Shapes: B = batch, T = length in tokens. A feature dict holds `token_ids`,
`segment_ids` and `padding_mask`, each int32 `(B, T)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras

from labse_tf.tokenizers import WordPieceTokenizer

if TYPE_CHECKING:
    import tensorflow as tf

PADS = ("longest", "fixed")


@keras.saving.register_keras_serializable(package="labse_tf")
class SentencePreprocessor(keras.layers.Layer):
    """Sentences to `[CLS] tokens [SEP]` rows, padded.

    Runs in the graph: in `tf.data`, in a `tf.function`, in an exported SavedModel.

    Args:
        tokenizer: A `WordPieceTokenizer`.
        sequence_length: Most tokens a row, [CLS] and [SEP] included. The rest of
            a longer sentence is cut off. 64 is the paper's length for dual-encoder
            training (v1, section 3.4).
        pad: `"longest"`: to the longest row of the batch, which is several times
            faster on CPU and GPU; `"fixed"`: to `sequence_length`, the static
            shape that a TPU asks for.
        **kwargs: `name` and other arguments of `keras.layers.Layer`.

    Call arguments:
        texts: Strings `(B,)`: a list, a NumPy array or a tensor.

    Returns:
        Dict of int32 `(B, T)` tensors: `token_ids`, `segment_ids` (all 0),
        `padding_mask` (1 where a token is).

    Raises:
        ValueError: If `sequence_length` has no room for a token between [CLS] and
            [SEP], or `pad` is unknown.

    Example:
        >>> from labse_tf.preprocessing import SentencePreprocessor
        >>> from labse_tf.tokenizers import WordPieceTokenizer
        >>> tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"]
        >>> preprocessor = SentencePreprocessor(WordPieceTokenizer(tokens))
        >>> preprocessor(["hello world", "hello"])["token_ids"].numpy().tolist()
        [[2, 5, 6, 3], [2, 5, 3, 0]]
    """

    def __init__(
        self,
        tokenizer: WordPieceTokenizer,
        sequence_length: int = 64,
        *,
        pad: str = "longest",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        if int(sequence_length) < 3:
            raise ValueError(
                "`sequence_length` must be at least 3: [CLS], one token, [SEP]. "
                f"Received: sequence_length={sequence_length}"
            )
        if pad not in PADS:
            raise ValueError(f"`pad` must be one of {PADS}. Received: pad={pad!r}")
        self.tokenizer = tokenizer
        self.sequence_length = int(sequence_length)
        self.pad = pad
        self.built = True

    def token_rows(self, texts: Any) -> tf.RaggedTensor:
        """Sentences to unpadded rows `[CLS] tokens [SEP]`.

        Args:
            texts: Strings `(B,)`.

        Returns:
            RaggedTensor int32 `(B, None)`, no row longer than `sequence_length`.
        """
        import tensorflow as tf

        ids = self.tokenizer(texts)[:, : self.sequence_length - 2]
        rows = ids.nrows()
        ends = tf.ones([rows, 1], dtype=tf.int32)
        return tf.concat(
            [
                ends * self.tokenizer.cls_token_id,
                ids,
                ends * self.tokenizer.sep_token_id,
            ],
            axis=1,
        )

    def pack(self, rows: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """Pads rows of token ids to features.

        Args:
            rows: RaggedTensor int32 `(B, None)`, as `token_rows` makes them.

        Returns:
            Dict of int32 `(B, T)` tensors.
        """
        import tensorflow as tf

        length = self.sequence_length if self.pad == "fixed" else None
        token_ids = rows.to_tensor(
            default_value=self.tokenizer.pad_token_id, shape=[None, length]
        )
        # By length, not by `token_ids != pad`: a text may hold the pad token's id.
        mask = tf.sequence_mask(
            rows.row_lengths(), maxlen=tf.shape(token_ids)[1], dtype=tf.int32
        )
        mask = tf.ensure_shape(mask, token_ids.shape)
        return {
            "token_ids": token_ids,
            "segment_ids": tf.zeros_like(token_ids),
            "padding_mask": mask,
        }

    def call(self, texts: Any) -> dict[str, tf.Tensor]:
        """See the class."""
        return self.pack(self.token_rows(texts))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the tokenizer with its vocabulary."""
        return {
            **super().get_config(),
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "sequence_length": self.sequence_length,
            "pad": self.pad,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SentencePreprocessor:
        """Makes the layer again from `get_config`."""
        config = dict(config)
        config["tokenizer"] = keras.saving.deserialize_keras_object(config["tokenizer"])
        return cls(**config)
