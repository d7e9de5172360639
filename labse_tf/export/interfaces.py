"""Exported objects: one per TF Hub interface.

    text          strings -> unit vectors
    preprocessor  strings -> the encoder's inputs; `tokenize`, `bert_pack_inputs`
    encoder       the encoder's inputs -> unit vectors and hidden states

Each object is a plain trackable, because loading a saved Keras model requires the
classes of its layers. It has `__call__(inputs, training=False)`, traced for both values
of `training`, and the one-argument endpoints `serve` and `serve_training` for
`keras.layers.TFSMLayer`. Each builder also returns the function for `serving_default`.

All ops belong to core TensorFlow or to the part of TF-Text that TF Serving links. For
this reason `labse_tf.preprocessing` truncates segments without TF-Text's trimmer.

Shapes: B = batch, T = length in tokens, D = hidden dimension.

References:
    https://www.tensorflow.org/hub/common_saved_model_apis/text
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.export.storage import StoredEncoder
from labse_tf.preprocessing import SentencePreprocessor, frame_segments

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.tokenizers import Tokenizer

INTERFACES = ("text", "preprocessor", "encoder")
PADS = ("longest", "buckets")
BUCKETS = (16, 32, 64, 128)

# Feature -> its name in TF Hub.
HUB_NAMES = {
    "token_ids": "input_word_ids",
    "padding_mask": "input_mask",
    "segment_ids": "input_type_ids",
}


def pack_texts(
    preprocessor: SentencePreprocessor,
    texts: tf.Tensor,
    buckets: Sequence[int] | None = None,
) -> dict[str, tf.Tensor]:
    """Preprocess strings with padding to the longest row or to the next bucket.

    Args:
        preprocessor: The model's preprocessor. Its `pad` is not used.
        texts: Strings `(B,)`.
        buckets: Lengths to pad to, ascending. The last is the maximum length of a row.

    Returns:
        Features, int32 `(B, T)`. T is at least 2, also for an empty batch, because the
        encoder reads the first token.
    """
    import tensorflow as tf

    rows = preprocessor.token_rows(texts)
    length = tf.reduce_max(tf.concat([rows.row_lengths(), [2]], axis=0))
    if buckets is not None:
        lengths = tf.constant(buckets, tf.int64)
        length = tf.reduce_min(tf.where(lengths >= length, lengths, lengths[-1:]))
    return preprocessor.pack(rows, length=length)


def text_module(
    encoder: StoredEncoder,
    preprocessor: SentencePreprocessor,
    buckets: Sequence[int] | None,
    vocabulary: Sequence[Path],
) -> tuple[tf.train.Checkpoint, Any]:
    """Create the text model: strings `(B,)` -> `default`, unit vectors `(B, D)`."""
    import tensorflow as tf

    strings = tf.TensorSpec([None], tf.string, name="inputs")

    def embed(inputs: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        features = pack_texts(preprocessor, inputs, buckets)
        return {"default": encoder(features, training)["default"]}

    module = _module(embed, strings, encoder)
    _add_tokenizer(module, preprocessor.tokenizer, vocabulary)
    return module, module.serve


def preprocessor_module(
    preprocessor: SentencePreprocessor,
    buckets: Sequence[int] | None,
    vocabulary: Sequence[Path],
) -> tuple[tf.train.Checkpoint, Any]:
    """Create the preprocessor: strings `(B,)` -> int32 `(B, T)` by TF Hub's names."""
    import tensorflow as tf

    tokenizer = preprocessor.tokenizer
    strings = tf.TensorSpec([None], tf.string, name="inputs")

    def prepare(inputs: tf.Tensor, training: bool) -> dict[str, tf.Tensor]:
        return to_hub_names(pack_texts(preprocessor, inputs, buckets))

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
        needed = 1 + len(inputs)
        enough = tf.debugging.Assert(
            tf.cast(seq_length, tf.int64) >= needed,
            [
                f"`seq_length` must have room for [CLS] and {len(inputs)} [SEP]. "
                "Received:",
                seq_length,
            ],
        )
        with tf.control_dependencies([enough]):
            length = tf.identity(tf.cast(seq_length, tf.int64))
        rows, first_lengths = frame_segments(tokenizer, inputs, length)
        return to_hub_names(
            preprocessor.pack(rows, length=length, first_lengths=first_lengths)
        )

    module = _module(prepare, strings, None)
    _add_tokenizer(module, tokenizer, vocabulary)
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
    """Create the encoder: its inputs -> `default`, `pooled_output`, hidden states.

    Signatures do not allow nested outputs, so `serving_default` has no
    `encoder_outputs`.
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
    """Rename features to TF Hub's names."""
    return {theirs: features[ours] for ours, theirs in HUB_NAMES.items()}


def _add_tokenizer(
    module: tf.train.Checkpoint, tokenizer: Tokenizer, vocabulary: Sequence[Path]
) -> None:
    """Add the files of the vocabulary, and the tables and models of the ops."""
    import tensorflow as tf

    first, *others = (tf.saved_model.Asset(str(file)) for file in vocabulary)
    module.vocabulary_file = first
    module.other_vocabulary_files = others
    module.tokenizer_resources = tokenizer.resources()


def _module(
    function: Callable[[Any, bool], dict[str, Any]],
    spec: Any,
    encoder: StoredEncoder | None,
) -> tf.train.Checkpoint:
    """Create an object with the attributes that all interfaces share."""
    import tensorflow as tf

    def __call__(inputs: Any, training: bool = False) -> dict[str, Any]:
        return function(inputs, training)

    # A Checkpoint is the plain trackable of the public API.
    module = tf.train.Checkpoint()
    call = module.__call__ = tf.function(__call__, autograph=False)
    for training in (False, True):
        call.get_concrete_function(spec, training=training)
    # The endpoints call the existing traces, so the graph is not saved twice.
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
