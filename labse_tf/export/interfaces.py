"""The objects that are saved: one a TF Hub interface, all functions on tensors.

    text          strings -> unit vectors
    preprocessor  strings -> the encoder's inputs; `tokenize`, `bert_pack_inputs`
    encoder       the encoder's inputs -> unit vectors and hidden states

Each is a plain trackable (a Keras model would be saved with its layers, whose classes
a loader outside this package lacks) with `__call__(inputs, training=False)` traced for
both values and the endpoints `serve` and `serve_training` of one argument for
`keras.layers.TFSMLayer`. With it comes the function that a server runs.

All ops are of TensorFlow's core and of the part of TF-Text that TF Serving links; so
trimming two segments is written out here and not left to TF-Text's trimmer.

Shapes: B = batch, T = length in tokens, D = hidden dimension.

References:
    https://www.tensorflow.org/hub/common_saved_model_apis/text
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.export.storage import StoredEncoder
from labse_tf.models import LaBSE

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.preprocessing import SentencePreprocessor

INTERFACES = ("text", "preprocessor", "encoder")
PADS = ("longest", "buckets")
BUCKETS = (16, 32, 64, 128)

# TF Hub's name of each feature.
HUB_NAMES = {
    "token_ids": "input_word_ids",
    "padding_mask": "input_mask",
    "segment_ids": "input_type_ids",
}


class Packing:
    """Strings or token ids to padded features, in the graph.

    Args:
        preprocessor: Its tokenizer, special tokens and most tokens a row.
        buckets: Lengths that rows are padded to, where the longest row of the batch is
            not what they are padded to; `sequence_length` is the last of them.
    """

    def __init__(
        self, preprocessor: SentencePreprocessor, buckets: Sequence[int] | None = None
    ) -> None:
        most = preprocessor.sequence_length
        self._preprocessor = preprocessor
        self._buckets = None
        if buckets is not None:
            self._buckets = [*sorted(b for b in set(buckets) if b < most), most]

    def from_texts(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Strings `(B,)` to features int32 `(B, T)`."""
        import tensorflow as tf

        rows = self._preprocessor.token_rows(texts)
        # [CLS] and [SEP] are in every row; a batch of none has room for them too, for
        # the encoder looks at the first.
        longest = tf.reduce_max(tf.concat([rows.row_lengths(), [2]], axis=0))
        if self._buckets is not None:
            buckets = tf.constant(self._buckets, tf.int64)
            longest = tf.reduce_min(tf.where(buckets >= longest, buckets, buckets[-1:]))
        return self._pad(rows, longest, rows.row_lengths())

    def from_segments(
        self, segments: Sequence[tf.RaggedTensor], length: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Packs one or two segments a row: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

        What is too long is cut as if the segments were dealt their tokens in turn, the
        first one first, until the row is full: the longer one loses.

        Args:
            segments: One or two RaggedTensors of token ids int32 `(B, None)`.
            length: T, an int32 scalar.

        Returns:
            Features int32 `(B, T)`; the type of the second segment's tokens, its
            [SEP] among them, is 1.
        """
        import tensorflow as tf

        tokenizer = self._preprocessor.tokenizer
        length = tf.cast(length, tf.int64)
        room = length - 1 - len(segments)
        check = tf.debugging.Assert(
            room >= 0,
            [
                f"`seq_length` must have room for [CLS] and {len(segments)} [SEP]. "
                "Received:",
                length,
            ],
        )
        with tf.control_dependencies([check]):
            room = tf.identity(room)
        lengths = [segment.row_lengths() for segment in segments]
        if len(segments) == 1:
            kept = [tf.minimum(lengths[0], room)]
        else:
            half = room // 2
            kept = [
                tf.minimum(lengths[0], tf.maximum(room - lengths[1], room - half)),
                tf.minimum(lengths[1], tf.maximum(room - lengths[0], half)),
            ]
        ends = tf.ones([segments[0].nrows(), 1], tf.int32)
        parts = [ends * tokenizer.cls_token_id]
        for segment, count in zip(segments, kept, strict=True):
            parts += [_first_tokens(segment, count), ends * tokenizer.sep_token_id]
        rows = tf.concat(parts, axis=1)
        return self._pad(rows, length, kept[0] + 2)

    def _pad(
        self, rows: tf.RaggedTensor, length: tf.Tensor, first: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Pads rows whose first `first` tokens are of segment 0."""
        import tensorflow as tf

        ids = rows.to_tensor(
            self._preprocessor.tokenizer.pad_token_id, shape=tf.stack([-1, length])
        )
        ids.set_shape([None, None])
        mask = tf.sequence_mask(rows.row_lengths(), length, dtype=tf.int32)
        of_first = tf.sequence_mask(first, length, dtype=tf.int32)
        return {
            "token_ids": ids,
            "padding_mask": mask,
            "segment_ids": mask * (1 - of_first),
        }


def text_module(
    encoder: StoredEncoder, packing: Packing, vocabulary: Path
) -> tuple[tf.train.Checkpoint, Any]:
    """Strings `(B,)` to a dict whose `default` is unit vectors float32 `(B, D)`."""
    import tensorflow as tf

    strings = tf.TensorSpec([None], tf.string, name="inputs")

    def embed(inputs: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        return {"default": encoder(packing.from_texts(inputs), training)["default"]}

    module = _module(embed, strings, encoder)
    module.vocabulary_file = tf.saved_model.Asset(str(vocabulary))
    return module, module.serve


def preprocessor_module(
    model: LaBSE, packing: Packing, vocabulary: Path
) -> tuple[tf.train.Checkpoint, Any]:
    """Strings `(B,)` to the encoder's inputs int32 `(B, T)`, by TF Hub's names."""
    import tensorflow as tf

    preprocessor = model.text_preprocessor()
    tokenizer = preprocessor.tokenizer
    strings = tf.TensorSpec([None], tf.string, name="inputs")

    def prepare(inputs: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        return to_hub_names(packing.from_texts(inputs))

    def special_tokens() -> dict[str, tf.Tensor]:
        ids = {
            "vocab_size": tokenizer.vocabulary_size,
            "padding_id": tokenizer.pad_token_id,
            "start_of_sequence_id": tokenizer.cls_token_id,
            "end_of_segment_id": tokenizer.sep_token_id,
            "mask_id": tokenizer.mask_token_id,
        }
        return {name: tf.constant(id, tf.int32) for name, id in ids.items()}

    def pack(
        inputs: Sequence[tf.RaggedTensor],
        seq_length: tf.Tensor | int = preprocessor.sequence_length,
    ) -> dict[str, tf.Tensor]:
        return to_hub_names(packing.from_segments(inputs, seq_length))

    module = _module(prepare, strings, None)
    module.vocabulary_file = tf.saved_model.Asset(str(vocabulary))
    module.tokenize = tf.train.Checkpoint()
    module.tokenize.__call__ = tf.function(
        lambda inputs: tokenizer(inputs), input_signature=[strings], autograph=False
    )
    module.tokenize.get_special_tokens_dict = tf.function(
        special_tokens, input_signature=[], autograph=False
    )
    module.bert_pack_inputs = tf.train.Checkpoint()
    module.bert_pack_inputs.__call__ = tf.function(pack, autograph=False)
    ragged = tf.RaggedTensorSpec([None, None], tf.int32, ragged_rank=1)
    for count in (1, 2):
        module.bert_pack_inputs.__call__.get_concrete_function(
            [ragged] * count, seq_length=tf.TensorSpec([], tf.int32, "seq_length")
        )
    return module, module.serve


def encoder_module(encoder: StoredEncoder) -> tuple[tf.train.Checkpoint, Any]:
    """The encoder's inputs to `default`, `pooled_output` and the hidden states.

    A signature is flat, so the server's has no `encoder_outputs`.
    """
    import tensorflow as tf

    specs = {
        name: tf.TensorSpec([None, None], tf.int32, name=name)
        for name in HUB_NAMES.values()
    }

    def encode(inputs: dict[str, tf.Tensor], training: bool) -> dict[str, Any]:
        features = {ours: inputs[theirs] for ours, theirs in HUB_NAMES.items()}
        return encoder(features, training)

    module = _module(encode, specs, encoder)

    def signature(
        input_word_ids: tf.Tensor, input_mask: tf.Tensor, input_type_ids: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        inputs = {
            "input_word_ids": input_word_ids,
            "input_mask": input_mask,
            "input_type_ids": input_type_ids,
        }
        outputs = module.serve(inputs)
        return {name: outputs[name] for name in outputs if name != "encoder_outputs"}

    return module, tf.function(
        signature, input_signature=list(specs.values()), autograph=False
    )


def to_hub_names(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Features by TF Hub's names."""
    return {theirs: features[ours] for ours, theirs in HUB_NAMES.items()}


def _module(
    function: Callable[[Any, bool], dict[str, Any]],
    spec: Any,
    encoder: StoredEncoder | None,
) -> tf.train.Checkpoint:
    """What all interfaces have."""
    import tensorflow as tf

    def __call__(inputs: Any, training: bool = False) -> dict[str, Any]:
        return function(inputs, training)

    # A Checkpoint is the plain trackable of the public API.
    module = tf.train.Checkpoint()
    call = module.__call__ = tf.function(__call__, autograph=False)
    for training in (False, True):
        call.get_concrete_function(spec, training=training)
    # They call the traces that are there already: the graph is not saved twice.
    module.serve = tf.function(
        lambda inputs: call(inputs, training=False),
        input_signature=[spec],
        autograph=False,
    )
    module.serve_training = tf.function(
        lambda inputs: call(inputs, training=True),
        input_signature=[spec],
        autograph=False,
    )
    module.variables = [] if encoder is None else encoder.variables
    module.trainable_variables = [] if encoder is None else encoder.trainable_variables
    module.regularization_losses = []
    module.random_states = [] if encoder is None else encoder.random_states
    return module


def _first_tokens(rows: tf.RaggedTensor, counts: tf.Tensor) -> tf.RaggedTensor:
    """The first tokens of each row, a number of its own each."""
    import tensorflow as tf

    place = tf.ragged.range(rows.row_lengths())
    kept = place.values < tf.gather(counts, place.value_rowids())
    return tf.RaggedTensor.from_row_lengths(
        tf.boolean_mask(rows.values, kept), counts, validate=False
    )
