"""BERT's weights by any name: the layouts, the checks, and Google's own checkpoints.

Shapes: D = hidden dimension, H = heads. Ours are Keras's: a query's kernel is
`(D, H, D / H)`. Most foreign layouts keep it as `(D, D)`, PyTorch's transposed.

References:
    - Devlin et al., 2019, https://arxiv.org/abs/1810.04805; the checkpoints are those
      of https://github.com/google-research/bert.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer

# === Layouts ===


@dataclass(frozen=True)
class Layout:
    """Where a foreign layout keeps the weights.

    Attributes:
        name: What people call it, for messages.
        parts: Path of a part of ours -> its name there, `{}` for a block's number.
        table: What follows a table's name, where it is not the name itself.
        kernel: What follows the name of a dense layer, for its kernel.
        bias: The same for its bias.
        scale: What follows the name of a normalization's gamma.
        shift: What follows the name of a normalization's beta.
        flat: Whether heads are one axis with their width.
        transposed: Whether kernels are output first, as in PyTorch.
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
        """Name the weights of a BERT.

        Args:
            num_layers: Blocks.
            pooler: Whether the pooler is among them.

        Returns:
            Weight path of ours -> name there.
        """
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
        """The weights of one part: name of ours, suffix there."""
        if part.endswith("_embedding"):
            return (("embeddings", self.table),)
        if part.endswith("layer_norm"):
            return (("gamma", self.scale), ("beta", self.shift))
        return (("kernel", self.kernel), ("bias", self.bias))

    def shape(self, path: str, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The shape there of a weight that has the shape `ours` here."""
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
        """Their array as float32 in our shape."""
        array = np.asarray(array, dtype=np.float32)
        if self.transposed and path.endswith("/kernel"):
            array = array.T
        return array.reshape(ours)

    def export_array(self, path: str, array: np.ndarray) -> np.ndarray:
        """Our array as float32 in their shape."""
        array = np.asarray(array, dtype=np.float32)
        shape = self.shape(path, array.shape)
        if self.transposed and path.endswith("/kernel"):
            return np.ascontiguousarray(array.reshape(shape[::-1]).T)
        return np.ascontiguousarray(array.reshape(shape))


_BLOCK = "transformer_layer_{}"
_ATTENTION = f"{_BLOCK}/self_attention_layer"
# Google's first code; Hugging Face has the same names with dots.
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
# `BertEncoder` of the TensorFlow Model Garden, which LaBSE on TF Hub was exported from.
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
    """Foreign weights that are read one at a time, as LaBSE's table has 1.5 GB.

    Attributes:
        where: File or directory, for messages.
        shapes: Name -> shape of all that may be read.
        read: Gives the array of a name.
    """

    where: str
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


def check_names(source: Source, needed: Iterable[str], layout: Layout) -> None:
    """Raise a source that lacks weights or has some that nothing would take.

    Args:
        source: What there is.
        needed: All names that the model takes.
        layout: Of the names.

    Raises:
        ValueError: The message names the first missing or surplus weight and counts
            the others.
    """
    needed = list(needed)
    for problem, names in (
        ("without the weight", [name for name in needed if name not in source.shapes]),
        ("with a weight that it lacks", sorted(set(source.shapes) - set(needed))),
    ):
        if names:
            raise ValueError(
                f"{source.where}: expected the {len(needed)} weights of {layout.name} "
                f"that its configuration describes. Received: a file {problem}: "
                f"{names[0]}"
                + (f" and {len(names) - 1} more" if len(names) > 1 else "")
            )


def assign_weights(
    model: LaBSE, source: Source, names: Mapping[str, str], layout: Layout
) -> None:
    """Put foreign weights into a model.

    Args:
        model: The model; only the weights in `names` change.
        source: Where the arrays are.
        names: Weight path of ours -> name there.
        layout: How they lie there.

    Raises:
        ValueError: If a weight has another shape, or is not finite; the message has
            both shapes.
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
    """Return the pooler, which a source without one leaves at random, the identity.

    Nothing of the model's vectors goes through it then; fixed values make converting
    repeatable.
    """
    width = model.backbone.hidden_dim
    model.backbone.pooler.set_weights(
        [np.eye(width, dtype=np.float32), np.zeros(width, np.float32)]
    )


def make_model(
    config: Mapping[str, Any],
    tokenizer: WordPieceTokenizer,
    *,
    where: str,
    pooling: str,
    sequence_length: int,
    dtype: str | keras.DTypePolicy | None = None,
) -> LaBSE:
    """Create a model whose weights come next.

    Args:
        config: Of `LaBSEBackbone`.
        tokenizer: With the vocabulary.
        where: The vocabulary's file, for messages.
        pooling: Of `LaBSE`.
        sequence_length: Of the preprocessor; cut to the position table.
        dtype: Compute type.

    Returns:
        The model at random weights.

    Raises:
        ValueError: If vocabulary and token table differ in size.
    """
    if tokenizer.vocabulary_size != config["vocabulary_size"]:
        raise ValueError(
            f"{where}: expected {config['vocabulary_size']:,} tokens, one for each row "
            f"of the token table. Received: {tokenizer.vocabulary_size:,}"
        )
    length = min(sequence_length, config["max_sequence_length"])
    backbone = LaBSEBackbone(**config, dtype=dtype)
    return LaBSE(backbone, SentencePreprocessor(tokenizer, length), pooling=pooling)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        ValueError: If it is missing or no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a JSON file. Received: no file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: expected JSON. Received: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(
            f"{path}: expected a JSON object. Received: {type(value).__name__}"
        )
    return value


# What others call GELU's two forms, and the rest that Keras has too. `gelu_fast` and
# `gelu_new` differ in rounding alone.
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
    """Turn a `config.json` or `bert_config.json` into the arguments of our backbone.

    Args:
        path: The file, for messages.
        config: What it holds.

    Returns:
        Arguments of `LaBSEBackbone`.

    Raises:
        ValueError: If a size is missing or no positive integer, or the activation is
            one that we lack.
    """

    def size(key: str, default: int | None = None, low: int = 1) -> int:
        value = config.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ValueError(
                f'{path}: expected "{key}" to be an integer of {low} or more. '
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
    """The name in a `config.json` of an activation of ours.

    Args:
        activation: Of `LaBSEBackbone`.

    Returns:
        Hugging Face's name.

    Raises:
        ValueError: If it has none.
    """
    names = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
    names["gelu_approximate"] = "gelu_pytorch_tanh"
    if activation not in names:
        raise ValueError(
            f"Hugging Face's BERT has the activations {', '.join(names)}. "
            f"Received: activation={activation!r}"
        )
    return names[activation]


def is_lowercase(vocabulary: Iterable[str]) -> bool:
    """Return whether a vocabulary was made of lower-cased text: it has no capitals.

    Args:
        vocabulary: Tokens; those in brackets, as `[CLS]`, do not count.

    Returns:
        True where no token changes when lower-cased.

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
# What pre-training leaves in a checkpoint beside the encoder.
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
        activation: What the configuration's `"gelu"` means. The official code
            computes it by tanh; `"gelu"` is the exact one, which ports use.
        lowercase: Whether to lower-case and strip accents, which the checkpoint does
            not say. Left out, text is lower-cased where the vocabulary has no capital.
        sequence_length: Most tokens a sentence; left out, the position table's rows.
        pooling: Of `LaBSE`: the checkpoint has a pooler, trained on next sentences.
        dtype: Compute type.

    Returns:
        The model. It is no sentence encoder yet in what it knows: train it.

    Raises:
        ValueError: If files are missing or damaged, weights are missing, surplus (the
            pre-training heads and the optimizer's aside) or of another shape, or the
            vocabulary has another size than the token table.

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
    """A tokenizer that lower-cases if asked to or if the vocabulary has no capitals."""
    from labse_tf.tokenizers.vocabulary import load_vocabulary

    if not path.is_file():
        raise ValueError(f"{path}: expected the vocabulary. Received: no file")
    vocabulary = load_vocabulary(path)
    if lowercase is None:
        lowercase = is_lowercase(vocabulary)
    return WordPieceTokenizer(path, lowercase=lowercase)


def _checkpoint_prefix(path: Path) -> Path:
    """The path before `.index`, of a directory's only checkpoint or as given."""
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) != 1:
            raise ValueError(
                f"{path}: expected one checkpoint, as bert_model.ckpt.index. "
                f"Received: {len(found)} files that end with .index"
            )
        return found[0].with_suffix("")
    if path.suffix == ".index":
        path = path.with_suffix("")
    if not path.with_name(f"{path.name}.index").is_file():
        raise ValueError(
            f"{path}: expected a checkpoint, so {path.name}.index beside it. "
            "Received: no such file"
        )
    return path


def _checkpoint_source(prefix: Path) -> Source:
    """The encoder's variables of a checkpoint, without their common prefix."""
    import tensorflow as tf

    def failed(error: Exception) -> ValueError:
        said = " ".join(str(error).split())[:200]
        return ValueError(
            f"{prefix}: expected a TensorFlow checkpoint that can be read. "
            f"Received: {said}"
        )

    # TensorFlow's own reader raises errors of many kinds, bare RuntimeErrors too.
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
    except Exception as error:
        raise failed(error) from error
    if "_CHECKPOINTABLE_OBJECT_GRAPH" in shapes:
        raise ValueError(
            f"{prefix}: expected a checkpoint of TensorFlow 1, whose variables have "
            "names as bert/pooler/dense/kernel. Received: one of TensorFlow 2, whose "
            "names depend on the program that wrote it; convert its SavedModel instead"
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
