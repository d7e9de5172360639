"""BERT weights: layouts of other libraries, checks, and Google's BERT checkpoints.

Shapes: D = hidden dimension, H = heads. As in Keras, a query's kernel is
`(D, H, D / H)` here. Most other layouts have `(D, D)`, which PyTorch transposes.

References:
    - Devlin et al., 2019, https://arxiv.org/abs/1810.04805. Checkpoints:
      https://github.com/google-research/bert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from labse_tf.files import read_json
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import Tokenizer, WordPieceTokenizer

# === Layouts ===


@dataclass(frozen=True)
class Layout:
    """Names and shapes of BERT's weights in another library.

    Attributes:
        name: Name of the layout, for messages.
        parts: Path of a part in labse_tf -> name in the layout, `{}` for the index of a
            block.
        table: Suffix of embedding tables.
        kernel: Suffix of a dense layer's kernel.
        bias: Suffix of a dense layer's bias.
        scale: Suffix of a layer normalization's gamma.
        shift: Suffix of a layer normalization's beta.
        flat: Whether heads and their width are one axis.
        transposed: Whether the output axis of kernels is first, as in PyTorch.
    """

    name: str
    parts: Mapping[str, str]
    table: str
    kernel: str
    bias: str
    scale: str
    shift: str
    flat: bool
    transposed: bool = False

    def names(self, num_layers: int, *, pooler: bool = True) -> dict[str, str]:
        """Return weight path in labse_tf -> name in the layout for all weights."""
        found: dict[str, str] = {}
        for ours, theirs in self.parts.items():
            if ours == "pooler" and not pooler:
                continue
            blocks = range(num_layers) if "{}" in ours else (None,)
            for block in blocks:
                part, name = ours.format(block), theirs.format(block)
                for weight, suffix in self._weights(part):
                    found[f"{part}/{weight}"] = name + suffix
        return found

    def _weights(self, part: str) -> tuple[tuple[str, str], ...]:
        """Return the weights of one part: name in labse_tf, suffix in the layout."""
        if part.endswith("_embedding"):
            return (("embeddings", self.table),)
        if part.endswith("layer_norm"):
            return (("gamma", self.scale), ("beta", self.shift))
        return (("kernel", self.kernel), ("bias", self.bias))

    def shape(self, path: str, ours: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape in the layout of a weight of shape `ours` in labse_tf."""
        shape = tuple(ours)
        if self.flat and "self_attention_layer/" in path:
            if path.endswith("attention_output/kernel"):
                shape = (shape[0] * shape[1], shape[2])
            elif path.endswith("/kernel"):
                shape = (shape[0], shape[1] * shape[2])
            elif len(shape) == 2:
                shape = (shape[0] * shape[1],)
        if self.transposed and path.endswith("/kernel"):
            shape = shape[::-1]
        return shape

    def import_array(
        self, path: str, array: np.ndarray, ours: tuple[int, ...]
    ) -> np.ndarray:
        """Convert an array of the layout to float32 in the shape `ours`."""
        array = np.asarray(array, dtype=np.float32)
        if self.transposed and path.endswith("/kernel"):
            array = array.T
        return array.reshape(ours)

    def export_array(self, path: str, array: np.ndarray) -> np.ndarray:
        """Convert an array of labse_tf to float32 in the shape of the layout."""
        array = np.asarray(array, dtype=np.float32)
        shape = self.shape(path, array.shape)
        if self.transposed and path.endswith("/kernel"):
            return np.ascontiguousarray(array.reshape(shape[::-1]).T)
        return np.ascontiguousarray(array.reshape(shape))


_BLOCK = "transformer_layer_{}"
_ATTENTION = f"{_BLOCK}/self_attention_layer"
# Names of google-research/bert. Hugging Face has the same names with dots.
_GOOGLE = {
    "token_embedding": "embeddings/word_embeddings",
    "position_embedding": "embeddings/position_embeddings",
    "segment_embedding": "embeddings/token_type_embeddings",
    "embeddings_layer_norm": "embeddings/LayerNorm",
    f"{_ATTENTION}/query": "encoder/layer_{}/attention/self/query",
    f"{_ATTENTION}/key": "encoder/layer_{}/attention/self/key",
    f"{_ATTENTION}/value": "encoder/layer_{}/attention/self/value",
    f"{_ATTENTION}/attention_output": "encoder/layer_{}/attention/output/dense",
    f"{_BLOCK}/self_attention_layer_norm": (
        "encoder/layer_{}/attention/output/LayerNorm"
    ),
    f"{_BLOCK}/feedforward_intermediate_dense": "encoder/layer_{}/intermediate/dense",
    f"{_BLOCK}/feedforward_output_dense": "encoder/layer_{}/output/dense",
    f"{_BLOCK}/feedforward_layer_norm": "encoder/layer_{}/output/LayerNorm",
    "pooler": "pooler/dense",
}

GOOGLE = Layout(
    name="Google's BERT",
    parts=_GOOGLE,
    table="",
    kernel="/kernel",
    bias="/bias",
    scale="/gamma",
    shift="/beta",
    flat=True,
)
HUGGING_FACE = Layout(
    name="Hugging Face's BERT",
    parts={
        ours: theirs.replace("layer_", "layer.").replace("/", ".")
        for ours, theirs in _GOOGLE.items()
    },
    table=".weight",
    kernel=".weight",
    bias=".bias",
    scale=".weight",
    shift=".bias",
    flat=True,
    transposed=True,
)
# `BertEncoder` of the TensorFlow Model Garden, from which LaBSE on TF Hub was exported.
MODEL_GARDEN = Layout(
    name="the Model Garden's BERT",
    parts={
        "token_embedding": "word_embeddings",
        "position_embedding": "position_embedding",
        "segment_embedding": "type_embeddings",
        "embeddings_layer_norm": "embeddings/layer_norm",
        f"{_ATTENTION}/query": "transformer/layer_{}/self_attention/query",
        f"{_ATTENTION}/key": "transformer/layer_{}/self_attention/key",
        f"{_ATTENTION}/value": "transformer/layer_{}/self_attention/value",
        f"{_ATTENTION}/attention_output": (
            "transformer/layer_{}/self_attention/attention_output"
        ),
        f"{_BLOCK}/self_attention_layer_norm": (
            "transformer/layer_{}/self_attention_layer_norm"
        ),
        f"{_BLOCK}/feedforward_intermediate_dense": "transformer/layer_{}/intermediate",
        f"{_BLOCK}/feedforward_output_dense": "transformer/layer_{}/output",
        f"{_BLOCK}/feedforward_layer_norm": "transformer/layer_{}/output_layer_norm",
        "pooler": "pooler_transform",
    },
    table="/embeddings",
    kernel="/kernel",
    bias="/bias",
    scale="/gamma",
    shift="/beta",
    flat=False,
)


# === Weights into a model ===


@dataclass(frozen=True)
class Source:
    """Weights that are read one at a time, because LaBSE's token table has 1.5 GB.

    Attributes:
        where: File or directory, for messages.
        shapes: Name -> shape of all weights.
        read: Function from a name to its array.
    """

    where: str
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


def check_names(source: Source, needed: Iterable[str], layout: Layout) -> None:
    """Raise `ValueError` for the first missing or unexpected weight of a source."""
    needed = list(needed)
    for problem, names in (
        ("no weight", [name for name in needed if name not in source.shapes]),
        ("the unexpected weight", sorted(set(source.shapes) - set(needed))),
    ):
        if names:
            raise ValueError(
                f"{source.where}: expected the {len(needed)} weights of {layout.name} "
                f"that its configuration describes. Received: {problem} {names[0]}"
                + (f" and {len(names) - 1} more" if len(names) > 1 else "")
            )


def assign_weights(
    model: LaBSE, source: Source, names: Mapping[str, str], layout: Layout
) -> None:
    """Assign the weights in `names`: path in labse_tf -> name in `source`.

    Raises:
        ValueError: If a weight is not finite or has another shape.
    """
    weights = {weight.path: weight for weight in model.weights}
    for path, name in names.items():
        ours = tuple(weights[path].shape)
        expected, received = layout.shape(path, ours), tuple(source.shapes[name])
        if received != expected:
            raise ValueError(
                f"{source.where}: expected {name} of shape {expected}. "
                f"Received: {received}"
            )
        array = layout.import_array(path, source.read(name), ours)
        if not np.isfinite(array).all():
            raise ValueError(
                f"{source.where}: expected finite weights. "
                f"Received: NaN or infinity in {name}"
            )
        weights[path].assign(array)


def neutral_pooler(model: LaBSE) -> None:
    """Set an unused pooler to the identity, so that conversion is deterministic."""
    width = model.backbone.hidden_dim
    model.backbone.pooler.set_weights(
        [np.eye(width, dtype=np.float32), np.zeros(width, np.float32)]
    )


def make_model(
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    *,
    where: str,
    pooling: str,
    sequence_length: int,
    prefix: str = "",
    dtype: str | keras.DTypePolicy | None = None,
) -> LaBSE:
    """Create a model with random weights from a configuration of the backbone.

    `sequence_length` is limited to the rows of the position table. `where` is the file
    of the vocabulary, for messages.

    Raises:
        ValueError: If the vocabulary and the token table differ in size.
    """
    if tokenizer.vocabulary_size != config["vocabulary_size"]:
        raise ValueError(
            f"{where}: expected {config['vocabulary_size']:,} tokens, one per row of "
            f"the token table. Received: {tokenizer.vocabulary_size:,}"
        )
    length = min(sequence_length, config["max_sequence_length"])
    backbone = LaBSEBackbone(**config, dtype=dtype)
    preprocessor = SentencePreprocessor(tokenizer, length, prefix=prefix)
    return LaBSE(backbone, preprocessor, pooling=pooling)


# Hugging Face's name of an activation -> the name in labse_tf. `gelu_fast` and
# `gelu_new` differ only in rounding.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_approximate",
    "gelu_fast": "gelu_approximate",
    "gelu_pytorch_tanh": "gelu_approximate",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


def backbone_config(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a `config.json` or `bert_config.json` to arguments of `LaBSEBackbone`.

    Raises:
        ValueError: If a size is missing or is not a positive integer, or the activation
            is not supported.
    """

    def size(key: str, default: int | None = None, low: int = 1) -> int:
        value = config.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ValueError(
                f'{path}: expected "{key}" to be an integer of at least {low}. '
                f"Received: {value!r}"
            )
        return value

    activation = config.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f'{path}: expected "hidden_act" to be one of {", ".join(_ACTIVATIONS)}. '
            f"Received: {activation!r}"
        )
    return {
        "vocabulary_size": size("vocab_size"),
        "num_layers": size("num_hidden_layers", low=0),
        "num_heads": size("num_attention_heads"),
        "hidden_dim": size("hidden_size"),
        "intermediate_dim": size("intermediate_size"),
        "activation": _ACTIVATIONS[activation],
        "dropout": float(config.get("hidden_dropout_prob", 0.1)),
        "max_sequence_length": size("max_position_embeddings", 512),
        "num_segments": size("type_vocab_size", 2),
        "layer_norm_epsilon": float(config.get("layer_norm_eps", 1e-12)),
        "initializer_range": float(config.get("initializer_range", 0.02)),
    }


def activation_name(activation: str) -> str:
    """Return Hugging Face's name of an activation, or raise `ValueError`."""
    names = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
    names["gelu_approximate"] = "gelu_pytorch_tanh"
    if activation not in names:
        raise ValueError(
            "`activation` must be one that Hugging Face's BERT has: "
            f"{', '.join(names)}. Received: activation={activation!r}"
        )
    return names[activation]


def is_lowercase(vocabulary: Iterable[str]) -> bool:
    """Return whether no token, except tokens in brackets, has uppercase letters.

    Example:
        >>> from labse_tf.checkpoints.bert import is_lowercase
        >>> is_lowercase(["[CLS]", "paris"]), is_lowercase(["[CLS]", "Paris"])
        (True, False)
    """
    return not any(
        token != token.lower()
        for token in vocabulary
        if not (token.startswith("[") and token.endswith("]"))
    )


# === Google's checkpoints ===

_CONFIG = "bert_config.json"
_VOCABULARY = "vocab.txt"
# Variables of pre-training that do not belong to the encoder.
_NOT_THE_ENCODER = ("cls/", "global_step", "good_steps", "loss_scale")
_OPTIMIZER = ("/adam_m", "/adam_v", "/AdamWeightDecayOptimizer")


def from_bert_checkpoint(
    path: str | Path,
    *,
    activation: str = "gelu_approximate",
    lowercase: bool | None = None,
    sequence_length: int | None = None,
    pooling: str = "pooler",
    dtype: str | keras.DTypePolicy | None = None,
) -> LaBSE:
    """Load an official BERT checkpoint (TensorFlow 1) as a sentence encoder.

    Args:
        path: The directory with `bert_config.json`, `vocab.txt` and
            `bert_model.ckpt.index`, or the path before `.index`.
        activation: Activation to use if the configuration specifies `"gelu"`. The
            official code computes it by tanh. `"gelu"` is the exact form, which
            Hugging Face uses.
        lowercase: Whether to lower-case text and strip accents, which the checkpoint
            does not specify. Default: true if the vocabulary has no uppercase letters.
        sequence_length: Maximum number of tokens per sentence. Default: the number of
            rows of the position table.
        pooling: Pooling of the model. The checkpoint's pooler was trained on next
            sentence prediction.
        dtype: Compute type.

    Returns:
        The model. It must be trained to be useful as a sentence encoder.

    Raises:
        ValueError: If files are missing or damaged; if weights of the encoder are
            missing, unexpected or of another shape; or if the vocabulary and the token
            table differ in size.

    References:
        Devlin et al., 2019 (https://arxiv.org/abs/1810.04805).
    """
    prefix = _checkpoint_prefix(Path(path))
    folder = prefix.parent
    config = read_json(folder / _CONFIG)
    settings = backbone_config(folder / _CONFIG, config)
    if config.get("hidden_act", "gelu") == "gelu":
        settings["activation"] = activation
    source = _checkpoint_source(prefix)
    names = GOOGLE.names(settings["num_layers"])
    check_names(source, names.values(), GOOGLE)
    tokenizer = _cased_as_its_vocabulary(folder / _VOCABULARY, lowercase)
    model = make_model(
        settings,
        tokenizer,
        where=str(folder / _VOCABULARY),
        pooling=pooling,
        sequence_length=sequence_length or settings["max_sequence_length"],
        dtype=dtype,
    )
    assign_weights(model, source, names, GOOGLE)
    return model


def _cased_as_its_vocabulary(path: Path, lowercase: bool | None) -> WordPieceTokenizer:
    """Create the tokenizer. Without `lowercase` the vocabulary decides the casing."""
    from labse_tf.tokenizers.vocabulary import load_vocabulary

    if not path.is_file():
        raise ValueError(f"{path}: expected the vocabulary. Received: no file")
    vocabulary = load_vocabulary(path)
    if lowercase is None:
        lowercase = is_lowercase(vocabulary)
    return WordPieceTokenizer(path, lowercase=lowercase)


def _checkpoint_prefix(path: Path) -> Path:
    """Return the path of a checkpoint, or of the only one in a directory."""
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) != 1:
            raise ValueError(
                f"{path}: expected one checkpoint, such as bert_model.ckpt.index. "
                f"Received: {len(found)} files that end with .index"
            )
        return found[0].with_suffix("")
    if path.suffix == ".index":
        path = path.with_suffix("")
    if not path.with_name(f"{path.name}.index").is_file():
        raise ValueError(
            f"{path}: expected a checkpoint with the file {path.name}.index. "
            "Received: no such file"
        )
    return path


def _checkpoint_source(prefix: Path) -> Source:
    """Return the encoder's variables of a checkpoint without their common prefix."""
    import tensorflow as tf

    def failed(error: Exception) -> ValueError:
        said = " ".join(str(error).split())[:200]
        return ValueError(
            f"{prefix}: expected a readable TensorFlow checkpoint. Received: {said}"
        )

    # TensorFlow's reader raises errors of many types, including RuntimeError.
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
    except Exception as error:
        raise failed(error) from error
    if "_CHECKPOINTABLE_OBJECT_GRAPH" in shapes:
        raise ValueError(
            f"{prefix}: expected a checkpoint of TensorFlow 1 with variable names such "
            "as bert/pooler/dense/kernel. Received: a checkpoint of TensorFlow 2, "
            "whose names depend on the program that wrote it; convert its SavedModel "
            "instead"
        )
    root = "bert/"
    kept = {
        name.removeprefix(root): name
        for name in shapes
        if not name.startswith(_NOT_THE_ENCODER) and not name.endswith(_OPTIMIZER)
    }

    def read(name: str) -> np.ndarray:
        try:
            return reader.get_tensor(kept[name])
        except Exception as error:
            raise failed(error) from error

    return Source(
        str(prefix), {name: tuple(shapes[full]) for name, full in kept.items()}, read
    )
