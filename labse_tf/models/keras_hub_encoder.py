"""Backbones of KerasHub as sentence encoders.

Shapes: B = batch, T = length in tokens, D = dimension of the vectors.

References:
    https://keras.io/keras_hub
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import keras_hub

from labse_tf.layers import SentencePooling
from labse_tf.models.backbone import FEATURES, LaBSEBackbone
from labse_tf.models.sentence_encoder import SentenceEncoder

if TYPE_CHECKING:
    from labse_tf.preprocessing import SentencePreprocessor

POOLINGS = ("mean", "cls", "max", "last", "pooler")

# ours: the paper's length (v1, section 3.4), for a tokenizer without a preprocessor.
_LENGTH = 64


@keras.saving.register_keras_serializable(package="labse_tf")
class KerasHubEncoder(SentenceEncoder):
    """Sentence encoder around a backbone of KerasHub, whose weights it shares.

    For every backbone with the inputs `token_ids`, `padding_mask` and perhaps
    `segment_ids`: ALBERT, BERT, DeBERTa-v3, DistilBERT, ELECTRA, RoBERTa, XLM-R and
    XLNet; decoders such as Gemma 3 and Qwen 3. It has the methods of `LaBSE` except
    presets: train it in a `DualEncoder`, measure its `encode`, export it. Text is split
    by KerasHub's tokenizer, in the graph.

    Backbones of BERT's form can be converted to a `LaBSE` model instead, which has
    CPU kernels and presets, before or after a training; see
    `labse_tf.checkpoints.from_keras_hub`. A pooler of the backbone that the pooling
    does not use is frozen.

    Args:
        model: A `TextEmbedder` or a backbone of KerasHub.
        preprocessor: A preprocessor or a tokenizer of KerasHub, or a
            `SentencePreprocessor`. Default: the embedder's. With `None` for a backbone,
            the encoder only takes features.
        pooling: Pooling of a backbone: `"mean"` (default), `"cls"`, `"max"`, `"last"`,
            or `"pooler"` for the backbone's own `pooled_output`; see
            `labse_tf.layers.SentencePooling`. An embedder has its own pooling.
        sequence_length: Maximum number of tokens per text. Default: the preprocessor's,
            or 64 for a tokenizer, limited to the position table.
        prefix: Text before each sentence, such as `"query: "` for the E5 models.
            Default: that of a `SentencePreprocessor`, else none.
        **kwargs: `name`, `trainable`.

    Call arguments:
        inputs: Dict of int32 `(B, T)`: `token_ids`, `segment_ids`, `padding_mask`.

    Returns:
        float32 `(B, D)`, unit length, also if an embedder does not normalize.

    Raises:
        ValueError: If `model` has other inputs or outputs or another head, the pooling
            does not exist, the tokenizer has more tokens than the token table has rows,
            or `sequence_length` is longer than the position table.

    Example:
        >>> import keras_hub
        >>> from labse_tf.models import KerasHubEncoder
        >>> words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"]
        >>> tokenizer = keras_hub.models.ElectraTokenizer(words)
        >>> backbone = keras_hub.models.ElectraBackbone(7, 1, 2, 8, 8, 16)
        >>> KerasHubEncoder(backbone, tokenizer).encode(["hello world"]).shape
        (1, 8)
    """

    def __init__(
        self,
        model: Any,
        preprocessor: Any = None,
        *,
        pooling: str | None = None,
        sequence_length: int | None = None,
        prefix: str | None = None,
        **kwargs: Any,
    ) -> None:
        backbone = hub_backbone(model)
        pooling = hub_pooling(model, pooling, _poolings(backbone))
        if preprocessor is None:
            preprocessor = getattr(model, "preprocessor", None)
        if preprocessor is not None:
            preprocessor = _converted(
                preprocessor, sequence_length, prefix, _positions(backbone)
            )
            _check_fit(backbone, preprocessor)

        # === Layers ===
        if pooling != "pooler":
            _freeze_unused(backbone)
        self.backbone = backbone
        self.sentence_pooling = SentencePooling(pooling, name="sentence_pooling")
        self.preprocessor = preprocessor

        # === Functional Model ===
        inputs = {
            name: keras.Input((None,), dtype="int32", name=name) for name in FEATURES
        }
        outputs = self.backbone_outputs(inputs)
        embeddings = self.sentence_pooling(
            outputs["sequence_output"],
            outputs.get("pooled_output"),
            inputs["padding_mask"],
        )  # (B, D)
        super().__init__(inputs=inputs, outputs=embeddings, **kwargs)

        # === Config ===
        self.pooling = pooling

    def backbone_outputs(
        self, features: dict[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        """Return the outputs of the backbone.

        Args:
            features: See the class.
            training: Whether dropout is on.

        Returns:
            Dict with `sequence_output` `(B, T, H)` and, for some backbones,
            `pooled_output` `(B, D)`.
        """
        names = self.backbone.input
        outputs = self.backbone(
            {name: features[name] for name in names}, training=training
        )
        return outputs if isinstance(outputs, dict) else {"sequence_output": outputs}

    def _copy(self, policy: keras.DTypePolicy) -> KerasHubEncoder:
        old = self.backbone
        backbone = type(old).from_config({**old.get_config(), "dtype": policy})
        shapes = [[w.shape for w in model.weights] for model in (old, backbone)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"Expected a backbone with the {len(shapes[1])} weights of its "
                "configuration, without LoRA and quantization. "
                f"Received: {old.name} with {len(shapes[0])} weights"
            )
        for source, target in zip(old.weights, backbone.weights, strict=True):
            target.assign(source)
        return type(self)(
            backbone, self.preprocessor, pooling=self.pooling, name=self.name
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "model": serialize(self.backbone),
            "preprocessor": serialize(self.preprocessor),
            "pooling": self.pooling,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KerasHubEncoder:
        """Create the model from the result of `get_config`."""
        config = dict(config)
        if config["preprocessor"] is not None:
            # The import registers the classes, which Keras looks up by name below.
            from labse_tf import preprocessing  # noqa: F401
        for name in ("model", "preprocessor"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


def as_encoder(model: Any, argument: str = "encoder") -> Any:
    """Return a model from features to unit vectors, KerasHub's in a `KerasHubEncoder`.

    Args:
        model: A Keras model from features to unit vectors, or a `TextEmbedder` or a
            backbone of KerasHub.
        argument: Name of the argument in errors.

    Returns:
        `model` itself, or the `KerasHubEncoder` that shares its weights.

    Raises:
        ValueError: If `model` is something else.
    """
    if isinstance(model, (keras_hub.models.Backbone, keras_hub.models.Task)):
        hub_backbone(model, argument)
        return KerasHubEncoder(model)
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(
            f"`{argument}` must be a Keras model from features to unit vectors, or a "
            f"TextEmbedder or a backbone of KerasHub. Received: {model!r:.200}"
        )
    return model


def hub_backbone(model: Any, argument: str = "model") -> Any:
    """Return the backbone of an embedder, or a backbone itself, if it is supported.

    Args:
        model: A `TextEmbedder` or a backbone of KerasHub.
        argument: Name of the argument in errors.

    Raises:
        ValueError: If `model` is something else, or the backbone has other inputs than
            `token_ids`, `padding_mask` and `segment_ids`, or no states per token.
    """
    is_embedder = isinstance(model, keras_hub.models.Task) and hasattr(
        model, "pooling_mode"
    )
    backbone = model.backbone if is_embedder else model
    received = f"Received: {type(model).__name__}"
    if isinstance(backbone, LaBSEBackbone):
        raise ValueError(
            f"`{argument}` must be a model of KerasHub; a LaBSEBackbone is a part of a "
            f"LaBSE model. {received}"
        )
    if not isinstance(backbone, keras_hub.models.Backbone):
        raise ValueError(
            f"`{argument}` must be a TextEmbedder or a backbone of KerasHub, such as "
            f"the `backbone` of another task. {received}"
        )
    names = set(backbone.input) if isinstance(backbone.input, dict) else set()
    if not {"token_ids", "padding_mask"} <= names <= set(FEATURES):
        raise ValueError(
            f"`{argument}` must have a backbone with the inputs token_ids, "
            "padding_mask and perhaps segment_ids. "
            f"{received} with {', '.join(sorted(names))}"
        )
    output = backbone.output
    states = output.get("sequence_output") if isinstance(output, dict) else output
    if len(getattr(states, "shape", ())) != 3:
        raise ValueError(
            f"`{argument}` must have a backbone with the output sequence_output "
            f"(B, T, D). {received} with {output}"
        )
    return backbone


def hub_pooling(model: Any, pooling: str | None, available: Sequence[str]) -> str:
    """Return the pooling of an embedder, or the pooling for a backbone.

    Args:
        model: A `TextEmbedder` or a backbone of KerasHub.
        pooling: The argument `pooling` for a backbone; `None` for `"mean"`.
        available: Possible poolings.

    Raises:
        ValueError: If an embedder is given with a pooling, or the pooling is not one of
            `available`.
    """
    kind = type(model).__name__
    if not hasattr(model, "backbone"):
        pooling = "mean" if pooling is None else pooling
        if pooling not in available:
            raise ValueError(
                f"`pooling` must be one of {', '.join(available)} for {kind}. "
                f"Received: pooling={pooling!r}"
            )
        return pooling
    if pooling is not None:
        raise ValueError(
            "`pooling` must be left out for an embedder, which has its own. "
            f"Received: pooling={pooling!r}"
        )
    own: Any = getattr(model, "pooling_mode", None)
    if getattr(model.backbone, "is_embedding_model", False):
        own = "pooler"  # Gemma 3's embedder then uses the output of its backbone.
    if own not in available:
        raise ValueError(
            f"`model` must pool by {', '.join(available)}. "
            f"Received: {kind} with pooling_mode={own!r}"
        )
    return own


def hub_tokenizer(preprocessor: Any) -> tuple[Any, int]:
    """Return KerasHub's tokenizer and the maximum number of tokens per text.

    Args:
        preprocessor: A preprocessor or a tokenizer of KerasHub.
    """
    length = getattr(preprocessor, "sequence_length", None)
    return getattr(preprocessor, "tokenizer", preprocessor), length or _LENGTH


def _poolings(backbone: Any) -> tuple[str, ...]:
    """Return the poolings that the outputs of a backbone allow."""
    output = backbone.output
    pooled = isinstance(output, dict) and "pooled_output" in output
    return POOLINGS if pooled else POOLINGS[:-1]


def _positions(backbone: Any) -> int:
    """Return the number of positions of a backbone; a large one if it has no table."""
    return getattr(backbone, "max_sequence_length", None) or sys.maxsize


def _converted(
    preprocessor: Any, sequence_length: int | None, prefix: str | None, most: int
) -> SentencePreprocessor:
    """Return the preprocessor of this package for that of KerasHub.

    Its default length is limited to `most`.
    """
    from labse_tf.preprocessing import SentencePreprocessor
    from labse_tf.tokenizers import KerasHubTokenizer

    if isinstance(preprocessor, SentencePreprocessor):
        return preprocessor.copy(sequence_length=sequence_length, prefix=prefix)
    tokenizer, length = hub_tokenizer(preprocessor)
    length = min(length, most) if sequence_length is None else sequence_length
    return SentencePreprocessor(
        KerasHubTokenizer(tokenizer), length, prefix=prefix or ""
    )


def _check_fit(backbone: Any, preprocessor: SentencePreprocessor) -> None:
    """Raise an error if the tables of the backbone are too small."""
    most = _positions(backbone)
    if preprocessor.sequence_length > most:
        raise ValueError(
            "`sequence_length` must not be longer than the backbone's position table. "
            f"Received: sequence_length={preprocessor.sequence_length}, "
            f"max_sequence_length={most}"
        )
    # Keras restores the vocabulary of a saved model after its creation.
    if not preprocessor.tokenizer.has_vocabulary:
        return
    tokens = preprocessor.tokenizer.vocabulary_size
    if tokens > backbone.token_embedding.input_dim:
        raise ValueError(
            "`preprocessor` must have a tokenizer with at most as many tokens as the "
            f"backbone's token table has rows. Received: {tokens} tokens, "
            f"{backbone.token_embedding.input_dim} rows"
        )


def _freeze_unused(backbone: Any) -> None:
    """Freeze the layers behind the states of the tokens, such as a pooler.

    They have no gradient; if they were trainable, Keras would warn.
    """
    output = backbone.output
    if isinstance(output, dict):
        used = keras.Model(backbone.input, output["sequence_output"]).layers
        for layer in backbone.layers:
            if layer.weights and not any(layer is other for other in used):
                layer.trainable = False
