"""Import of KerasHub's models as sentence encoders.

Backbones of BERT's form become a `LaBSE` model with the same vectors, so that presets,
storage types, trimming and every command apply to them. Models of another form are
refused; `labse_tf.models.KerasHubEncoder` wraps them.

References:
    https://keras.io/keras_hub
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import keras
import keras_hub
import numpy as np

from labse_tf.checkpoints import bert
from labse_tf.files import read_json
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.models.keras_hub_encoder import hub_pooling, hub_tokenizer
from labse_tf.tokenizers import (
    SentencePieceTokenizer,
    Tokenizer,
    WordPieceTokenizer,
)
from labse_tf.tokenizers.sentencepiece_model import (
    Piece,
    PieceType,
    build_model,
    read_pieces,
)

CONFIG = "config.json"
_TASK = "task.json"
_TOKENIZER = "tokenizer.json"
_POOLINGS = ("mean", "cls")

# The names of KerasHub's BERT are ours, except the pooler's.
_PARTS = {ours: ours for ours in bert.GOOGLE.parts} | {"pooler": "pooled_dense"}


class _Kind(NamedTuple):
    """A backbone of BERT's form.

    Attributes:
        backbone: Name of the class in `keras_hub.models`.
        activation: Activation of the feed-forward layers.
        table: Name of the layer that holds the token and position tables, if any.
        segments: Whether there are a segment table and a pooler.
    """

    backbone: str
    activation: str
    table: str = ""
    segments: bool = False


_KINDS = (
    _Kind("BertBackbone", "gelu_approximate", segments=True),
    _Kind("DistilBertBackbone", "gelu", "token_and_position_embedding"),
    # XLMRobertaBackbone is a RobertaBackbone. KerasHub's position table has no rows for
    # padding, so the first token of a row has position 0, as in BERT.
    _Kind("RobertaBackbone", "gelu", "embeddings"),
)


def from_keras_hub(
    model: Any,
    preprocessor: Any = None,
    *,
    pooling: str | None = None,
    sequence_length: int | None = None,
    prefix: str = "",
    dtype: str | keras.DTypePolicy | None = None,
) -> LaBSE:
    """Convert a model of KerasHub to a sentence encoder with the same vectors.

    Converts `BertBackbone`, `DistilBertBackbone`, `RobertaBackbone` and
    `XLMRobertaBackbone`, alone or in a `TextEmbedder`, with a WordPiece tokenizer or
    the SentencePiece model of XLM-RoBERTa. Vectors always have unit length, also if the
    embedder does not normalize.

    Text is split by `labse_tf.WordPieceTokenizer` or `labse_tf.SentencePieceTokenizer`,
    which follow the original BERT and Hugging Face where KerasHub's tokenizers differ
    from these: words over 100 bytes, control and format characters, lower case of some
    letters, invalid UTF-8.

    Args:
        model: A `TextEmbedder` or a backbone of KerasHub, or a directory written by
            their `save_to_preset`.
        preprocessor: A preprocessor or tokenizer of KerasHub. Default: the model's. If
            the model lacks one, so does the result.
        pooling: Pooling of a backbone: `"mean"` (default), `"cls"` or, only for BERT,
            `"pooler"`. An embedder has its own pooling.
        sequence_length: Maximum number of tokens per text. Default: the preprocessor's,
            or 64 for a tokenizer. At most the rows of the position table.
        prefix: Text before each sentence, such as `"query: "` for the E5 models.
        dtype: Compute type. Default: the backbone's. Variables are always float32.

    Returns:
        The model. It shares no weights with `model`.

    Raises:
        ValueError: If the backbone, the tokenizer or the pooling is not supported, the
            vocabulary does not fit the token table, or the backbone has LoRA or
            quantized weights.

    Example:
        >>> import keras_hub
        >>> from labse_tf.checkpoints import from_keras_hub
        >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"]
        >>> tokenizer = keras_hub.models.BertTokenizer(words)
        >>> backbone = keras_hub.models.BertBackbone(7, 1, 2, 8, 16)
        >>> from_keras_hub(backbone, tokenizer).encode(["hello world"]).shape
        (1, 8)
    """
    if isinstance(model, (str, Path)):
        model, found = load_keras_hub(model)
        preprocessor = found if preprocessor is None else preprocessor
    backbone = getattr(model, "backbone", model)
    kind = _kind_of(backbone)
    pooling = hub_pooling(model, pooling, _poolings(kind))
    if preprocessor is None:
        preprocessor = getattr(model, "preprocessor", None)
    settings = {
        "vocabulary_size": backbone.vocabulary_size,
        "num_layers": backbone.num_layers,
        "num_heads": backbone.num_heads,
        "hidden_dim": backbone.hidden_dim,
        "intermediate_dim": backbone.intermediate_dim,
        "activation": kind.activation,
        "dropout": backbone.dropout,
        "max_sequence_length": backbone.max_sequence_length,
        "num_segments": backbone.num_segments if kind.segments else 1,
        "layer_norm_epsilon": backbone.embeddings_layer_norm.epsilon,
    }
    if dtype is None:
        dtype = backbone.compute_dtype
    if preprocessor is None:
        converted = LaBSE(LaBSEBackbone(**settings, dtype=dtype), pooling=pooling)
    else:
        tokenizer, length = hub_tokenizer(preprocessor)
        converted = bert.make_model(
            settings,
            convert_tokenizer(tokenizer, backbone.vocabulary_size),
            where="`preprocessor`",
            pooling=pooling,
            sequence_length=sequence_length or length,
            prefix=prefix,
            dtype=dtype,
        )
    _assign(converted, backbone, kind)
    return converted


def is_convertible(model: Any, preprocessor: Any = None) -> bool:
    """Return whether `from_keras_hub` supports a model and a preprocessor.

    Args:
        model: A `TextEmbedder` or a backbone of KerasHub.
        preprocessor: See `from_keras_hub`.
    """
    if preprocessor is None:
        preprocessor = getattr(model, "preprocessor", None)
    try:
        kind = _kind_of(getattr(model, "backbone", model))
        hub_pooling(model, None, _poolings(kind))
        if preprocessor is not None:
            _check_tokenizer(hub_tokenizer(preprocessor)[0])
    except ValueError:
        return False
    return True


# === Models ===


def _kind_of(backbone: Any) -> _Kind:
    """Return the kind of a backbone."""
    for kind in _KINDS:
        if isinstance(backbone, getattr(keras_hub.models, kind.backbone)):
            return kind
    raise ValueError(
        "`model` must be an embedder or a backbone of "
        f"{', '.join(kind.backbone for kind in _KINDS)} or XLMRobertaBackbone. "
        f"Received: {type(backbone).__name__}"
    )


def _poolings(kind: _Kind) -> tuple[str, ...]:
    """Return the poolings for a kind of backbone."""
    return (*_POOLINGS, "pooler") if kind.segments else _POOLINGS


def _assign(model: LaBSE, backbone: Any, kind: _Kind) -> None:
    """Assign the weights of a backbone of KerasHub to a model."""
    parts = dict(_PARTS)
    if kind.table:
        for part in ("token_embedding", "position_embedding"):
            parts[part] = f"{kind.table}/{part}"
    if not kind.segments:
        del parts["segment_embedding"], parts["pooler"]
    layout = dataclasses.replace(
        bert.GOOGLE,
        name=f"KerasHub's {kind.backbone}",
        parts=parts,
        table="/embeddings",
        flat=False,
    )
    weights = {weight.path: weight for weight in backbone.weights}
    source = bert.Source(
        f"`model` ({backbone.name})",
        {path: tuple(weight.shape) for path, weight in weights.items()},
        lambda path: keras.ops.convert_to_numpy(weights[path]),
    )
    names = layout.names(backbone.num_layers)
    bert.check_names(source, names.values(), layout)
    bert.assign_weights(model, source, names, layout)
    if not kind.segments:
        table = model.backbone.segment_embedding
        table.set_weights([np.zeros_like(table.get_weights()[0])])
        bert.neutral_pooler(model)


# === Tokenizers ===


def convert_tokenizer(tokenizer: Any, size: int | None = None) -> Tokenizer:
    """Convert a tokenizer of KerasHub to one of labse_tf with the same ids.

    Args:
        tokenizer: A WordPiece tokenizer, such as `BertTokenizer`, or an
            `XLMRobertaTokenizer`.
        size: Number of rows of the token table. Rows without a piece of a SentencePiece
            model become `[unused1]`, `[unused2]` and so on. Default: the number of
            pieces.

    Returns:
        The tokenizer.

    Raises:
        ValueError: If the tokenizer is of another kind, has no vocabulary, or splits
            text in another way.
    """
    _check_tokenizer(tokenizer)
    if isinstance(tokenizer, keras_hub.tokenizers.WordPieceTokenizer):
        return WordPieceTokenizer(
            list(tokenizer.get_vocabulary()),
            lowercase=tokenizer.lowercase,
            strip_accents=tokenizer.strip_accents,
        )
    pieces, settings = read_pieces(tokenizer.proto, "`preprocessor`")
    control = PieceType.CONTROL
    # KerasHub shifts the ids of the model by one, to the ids of XLM-RoBERTa.
    pieces = [
        Piece("<s>", 0.0, control),
        Piece("<pad>", 0.0, control),
        Piece("</s>", 0.0, control),
        Piece("<unk>", 0.0, PieceType.UNKNOWN),
        *pieces[3:],
        Piece("<mask>", 0.0, control),
    ]
    pieces += [
        Piece(f"[unused{number}]", 0.0, control)
        for number in range(1, (size or 0) - len(pieces) + 1)
    ]
    return SentencePieceTokenizer(build_model(pieces, **settings))


def _check_tokenizer(tokenizer: Any) -> None:
    """Raise an error for a tokenizer that cannot be converted."""
    received = f"Received: {type(tokenizer).__name__}"
    if isinstance(tokenizer, keras_hub.tokenizers.WordPieceTokenizer):
        expected = {
            "split": True,
            "split_on_cjk": True,
            "suffix_indicator": "##",
            "oov_token": "[UNK]",
            "special_tokens_in_strings": False,
        }
        vocabulary = tokenizer.vocabulary
    elif isinstance(tokenizer, keras_hub.models.XLMRobertaTokenizer):
        expected = {"add_bos": False, "add_eos": False}
        vocabulary = tokenizer.proto
    else:
        raise ValueError(
            "`preprocessor` must have a WordPiece tokenizer, such as BertTokenizer, or "
            f"an XLMRobertaTokenizer. {received}"
        )
    for name, value in expected.items():
        if getattr(tokenizer, name, value) != value:
            raise ValueError(
                f"`preprocessor` must have a tokenizer with {name}={value!r}. "
                f"{received} with {name}={getattr(tokenizer, name)!r}"
            )
    if not vocabulary:
        raise ValueError(
            f"`preprocessor` must have a tokenizer with a vocabulary. {received} "
            "without one"
        )


# === Presets ===


def load_keras_hub(directory: str | Path) -> tuple[Any, Any]:
    """Load a preset of KerasHub, a directory that `save_to_preset` has written.

    Args:
        directory: The directory.

    Returns:
        A `TextEmbedder` and `None`; or a backbone and its tokenizer, which is `None` if
        the preset has no tokenizer.

    Raises:
        ValueError: If the directory is not such a preset, or KerasHub cannot load it.
    """
    directory = Path(directory)
    config = read_json(directory / CONFIG)
    if not str(config.get("registered_name", "")).startswith("keras_hub>"):
        raise ValueError(
            f"{directory / CONFIG}: expected a preset of KerasHub, with a "
            '"registered_name" of keras_hub. '
            f"Received: {config.get('registered_name')!r}"
        )
    path = str(directory.resolve())
    # KerasHub raises errors of many types for a damaged preset.
    try:
        if _is_embedder(directory):
            return keras_hub.models.TextEmbedder.from_preset(path), None
        backbone = keras_hub.models.Backbone.from_preset(path)
        if not (directory / _TOKENIZER).is_file():
            return backbone, None
        tokenizer = keras_hub.tokenizers.Tokenizer.from_preset(path)
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{directory}: expected a preset that KerasHub can load. Received: {said}"
        ) from error
    return backbone, tokenizer


def _is_embedder(directory: Path) -> bool:
    """Return whether a preset of KerasHub is of a `TextEmbedder`."""
    if not (directory / _TASK).is_file():
        return False
    return str(read_json(directory / _TASK).get("class_name")).endswith("TextEmbedder")
