"""Backbone: BERT, from token ids to one vector per token."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np

from labse_tf.adapters import LAYERS, LoRA, read_settings, write_adapters
from labse_tf.files import atomic_file
from labse_tf.layers import LayerNormalization, PackedAttentionMask, get_activation
from labse_tf.models.low_rank import LowRankLayer, MergedWeights, merge
from labse_tf.models.transformer_block import TransformerBlock
from labse_tf.precision import compute_policy
from labse_tf.presets import assign_weights
from labse_tf.processes import check_not_forked
from labse_tf.settings import check_integer
from labse_tf.variables import has_no_value, no_value

FEATURES = ("token_ids", "segment_ids", "padding_mask")
PACKED_FEATURES = ("position_ids", "sequence_ids")

# Last parts of the paths of all weights of a backbone and a sentence encoder.
_WEIGHT_NAMES = {"embeddings", "kernel", "bias", "gamma", "beta"}


@keras.saving.register_keras_serializable(package="labse_tf")
class TableInitializer(keras.initializers.TruncatedNormal):
    """Initializer of a token table, which gets no values in `tables_without_values`."""

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        """Return a tensor of a shape and type."""
        if has_no_value():
            return no_value(shape, dtype)
        return super().__call__(shape, dtype)


@keras.saving.register_keras_serializable(package="labse_tf")
class LaBSEBackbone(keras_hub.models.Backbone):
    """BERT encoder with one set of weights for all languages and both sides.

    Shapes: B = batch, T = length in tokens, D = hidden dimension.

    Args:
        vocabulary_size: Rows of the token table.
        num_layers: Transformer blocks; 0 for embeddings without attention.
        num_heads: Attention heads per block; must divide `hidden_dim`.
        hidden_dim: D.
        intermediate_dim: Width of the feed-forward layer.
        activation: Activation of the feed-forward layer; see
            `labse_tf.layers.get_activation`.
        dropout: Rate after embeddings, attention and feed-forward layer.
        max_sequence_length: Rows of the position table.
        num_segments: Rows of the segment table.
        layer_norm_epsilon: Epsilon of all layer normalizations.
        initializer_range: Standard deviation of the truncated normal initializer.
        dtype: Compute type; see `labse_tf.precision.compute_policy`.
        **kwargs: `name`, `trainable`.

    Call arguments:
        inputs: Dict of int32 `(B, T)`: `token_ids`, `segment_ids`, `padding_mask`
            and, for rows with several sentences, the optional `position_ids` and
            `sequence_ids`.

    Returns:
        Dict of the compute type: `sequence_output` `(B, T, D)` and `pooled_output`
        `(B, D)` (dense + tanh on the first token).

    Raises:
        ValueError: If `num_heads` does not divide `hidden_dim`, a size is not a
            positive integer, another number is not in 0 to 1, or an argument is
            unknown.

    References:
        Devlin et al., 2019 (https://arxiv.org/abs/1810.04805); Feng et al., 2022,
        section 4.1 (https://arxiv.org/abs/2007.01852).
    """

    # Settings of the LoRA weights, if there are any.
    lora: LoRA | None = None

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        activation: str = "gelu",
        dropout: float = 0.1,
        max_sequence_length: int = 512,
        num_segments: int = 2,
        *,
        layer_norm_epsilon: float = 1e-12,
        initializer_range: float = 0.02,
        dtype: str | keras.DTypePolicy | None = None,
        **kwargs: Any,
    ) -> None:
        check_not_forked()
        # Keras would accept unknown arguments and ignore them.
        if unknown := sorted(set(kwargs) - {"name", "trainable"}):
            raise ValueError(
                "Unknown arguments: expected `name`, `trainable` or a documented "
                f"argument. Received: {', '.join(unknown)}"
            )
        config = {
            "vocabulary_size": vocabulary_size,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "hidden_dim": hidden_dim,
            "intermediate_dim": intermediate_dim,
            "activation": activation,
            "dropout": dropout,
            "max_sequence_length": max_sequence_length,
            "num_segments": num_segments,
            "layer_norm_epsilon": layer_norm_epsilon,
            "initializer_range": initializer_range,
        }
        _check_config(config)
        policy = compute_policy(dtype)

        def initializer() -> keras.initializers.Initializer:
            return keras.initializers.TruncatedNormal(stddev=initializer_range)

        # === Layers ===
        self.token_embedding = keras_hub.layers.ReversibleEmbedding(
            input_dim=vocabulary_size,
            output_dim=hidden_dim,
            embeddings_initializer=TableInitializer(stddev=initializer_range),
            dtype=policy,
            name="token_embedding",
        )
        self.position_embedding = keras_hub.layers.PositionEmbedding(
            sequence_length=max_sequence_length,
            initializer=initializer(),
            dtype=policy,
            name="position_embedding",
        )
        self.segment_embedding = keras.layers.Embedding(
            input_dim=num_segments,
            output_dim=hidden_dim,
            embeddings_initializer=initializer(),
            dtype=policy,
            name="segment_embedding",
        )
        self.embeddings_add = keras.layers.Add(dtype=policy, name="embeddings_add")
        self.embeddings_layer_norm = LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=policy, name="embeddings_layer_norm"
        )
        self.embeddings_dropout = keras.layers.Dropout(
            dropout, dtype=policy, name="embeddings_dropout"
        )
        self.attention_mask = PackedAttentionMask(name="attention_mask")
        self.transformer_layers = [
            TransformerBlock(
                num_heads=num_heads,
                intermediate_dim=intermediate_dim,
                activation=activation,
                dropout=dropout,
                layer_norm_epsilon=layer_norm_epsilon,
                kernel_initializer=initializer(),
                dtype=policy,
                name=f"transformer_layer_{i}",
            )
            for i in range(num_layers)
        ]
        self.pooler = keras.layers.Dense(
            hidden_dim,
            activation="tanh",
            kernel_initializer=initializer(),
            dtype=policy,
            name="pooler",
        )

        # === Functional Model ===
        inputs = {
            name: keras.Input(
                (None,), dtype="int32", name=name, optional=name in PACKED_FEATURES
            )
            for name in FEATURES + PACKED_FEATURES
        }
        if not num_layers:
            # Keras raises an error for inputs that no output depends on.
            del inputs["padding_mask"], inputs["sequence_ids"]
        features = dict(inputs)
        tokens = self.token_embedding(features.pop("token_ids"))
        outputs = self.call_with_embeddings(tokens, **features)
        del outputs["encoder_outputs"]
        super().__init__(inputs=inputs, outputs=outputs, dtype=policy, **kwargs)

        # === Config ===
        self.vocabulary_size = vocabulary_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.intermediate_dim = intermediate_dim
        self.activation = activation
        self.dropout = dropout
        self.max_sequence_length = max_sequence_length
        self.num_segments = num_segments
        self.layer_norm_epsilon = layer_norm_epsilon
        self.initializer_range = initializer_range
        self._config = config

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Encode features; `position_ids` and `sequence_ids` are optional."""
        if isinstance(inputs, Mapping):
            inputs = {name: inputs.get(name) for name in self.input}
        return super().__call__(inputs, *args, **kwargs)

    def call_with_embeddings(
        self,
        token_embeddings: Any,
        *,
        segment_ids: Any,
        padding_mask: Any | None = None,
        position_ids: Any | None = None,
        sequence_ids: Any | None = None,
        training: bool | None = None,
    ) -> dict[str, Any]:
        """Encode token embeddings that the caller has looked up.

        The backbone applies this function to `token_embedding(token_ids)`. An export
        applies it to the embeddings of a quantized table.

        Args:
            token_embeddings: Float `(B, T, D)`.
            segment_ids: Int `(B, T)`.
            padding_mask: Int `(B, T)`; optional only if the backbone has no blocks.
            position_ids: Int `(B, T)`, for packed rows.
            sequence_ids: Int `(B, T)`, for packed rows.
            training: Whether dropout is active.

        Returns:
            The outputs of the backbone and `encoder_outputs`, a list with the output
            `(B, T, D)` of each block.
        """
        positions = self.position_embedding(token_embeddings, positions=position_ids)
        segments = self.segment_embedding(segment_ids)
        x = self.embeddings_add((token_embeddings, positions, segments))
        x = self.embeddings_layer_norm(x)
        x = self.embeddings_dropout(x, training=training)
        visible = None  # (B, T, T), or None if each row is one sequence
        if self.transformer_layers:
            visible = self.attention_mask(padding_mask, sequence_ids)
        blocks = []
        for layer in self.transformer_layers:
            x = layer(
                x, padding_mask=padding_mask, attention_mask=visible, training=training
            )
            blocks.append(x)
        return {
            "sequence_output": x,
            "pooled_output": self.pooler(x[:, 0, :]),
            "encoder_outputs": blocks,
        }

    def compute_output_spec(
        self, inputs: Any, training: Any = None, mask: Any = None
    ) -> dict[str, keras.KerasTensor]:
        """Return the output shapes, with or without the packing inputs."""
        batch, length = inputs["token_ids"].shape
        dtype = self.compute_dtype
        return {
            "sequence_output": keras.KerasTensor(
                (batch, length, self.hidden_dim), dtype=dtype
            ),
            "pooled_output": keras.KerasTensor((batch, self.hidden_dim), dtype=dtype),
        }

    def default_lora_layer_names(self) -> list[str]:
        """Return the layers of a block that get LoRA weights, all with a kernel."""
        return list(LAYERS)

    def enable_lora(
        self,
        rank: int,
        target_layer_names: Sequence[str] | None = None,
        *,
        alpha: float | None = None,
        first_block: int = 0,
    ) -> None:
        """Freeze all weights and add LoRA weights to layers of the blocks.

        The model computes the same vectors until the new weights are trained. Biases
        and layer normalizations are frozen as well. Create the optimizer afterwards.

        Args:
            rank: Rank of the low-rank weights; see `labse_tf.adapters.LoRA`.
            target_layer_names: Names of the layers (default:
                `default_lora_layer_names`).
            alpha: The low-rank product is multiplied by `alpha / rank` (default: twice
                the rank).
            first_block: Number of blocks, from the first, that get no LoRA weights.

        Raises:
            ValueError: If an argument is out of range, no block remains, or the
                backbone has LoRA or quantized weights already. The model is not
                changed.
        """
        if target_layer_names is None:
            target_layer_names = self.default_lora_layer_names()
        lora = LoRA(rank, alpha, tuple(target_layer_names), first_block)
        self._check_lora(lora)
        self.trainable = True
        for weight in self.weights:
            weight.trainable = False
        for block in self.transformer_layers[first_block:]:
            block.enable_lora(lora)
        self.lora = lora

    def low_rank_layers(self, lora: LoRA | None = None) -> list[LowRankLayer]:
        """Return the layers that have LoRA weights, or would have those of `lora`."""
        lora = lora or self.lora
        if lora is None:
            return []
        blocks = self.transformer_layers[lora.first_block :]
        return [
            layer
            for block in blocks
            for layer in block.kernel_layers(lora.target_layer_names)
        ]

    def low_rank_weights(self) -> dict[str, Any]:
        """Return the LoRA weights by path."""
        weights: dict[str, Any] = {}
        for layer in self.low_rank_layers():
            weights |= layer.low_rank_weights()
        return weights

    def save_lora_weights(self, filepath: str | Path) -> None:
        """Write the LoRA weights and their settings to a file, atomically.

        Args:
            filepath: Path that ends in `.lora.h5`. The format is that of
                `labse_tf.adapters`, not that of other backbones of KerasHub.

        Raises:
            ValueError: If the backbone lacks LoRA weights, or the path ends otherwise.
            OSError: If the file cannot be written.
        """
        if self.lora is None:
            raise ValueError(
                "Expected a backbone with LoRA weights, see `enable_lora`. "
                "Received: none"
            )
        if not str(filepath).endswith(".lora.h5"):
            raise ValueError(
                f"`filepath` must end in .lora.h5. Received: filepath={filepath}"
            )
        with atomic_file(filepath) as path:
            write_adapters(path, self.lora, self.low_rank_weights())

    def load_lora_weights(self, filepath: str | Path) -> None:
        """Assign the LoRA weights of a file; a backbone without any gets them first.

        Args:
            filepath: File that `save_lora_weights` has written.

        Raises:
            ValueError: If the file is damaged, its weights do not fit the backbone, or
                the backbone has LoRA weights with other settings.
        """
        path = Path(filepath)
        lora = read_settings(path)
        if self.lora is None:
            self.enable_lora(**dataclasses.asdict(lora))
        if self.lora != lora:
            raise ValueError(
                f"{path}: expected LoRA weights with the settings {self.lora}. "
                f"Received: {lora}"
            )
        assign_weights(path, self.low_rank_weights())

    def merge_lora_weights(self, filepath: str | Path) -> None:
        """Add the low-rank products of a file to the kernels, in place.

        Args:
            filepath: File that `save_lora_weights` has written.

        Raises:
            ValueError: If the file is damaged, its weights do not fit the backbone, or
                the backbone has LoRA weights of its own.
        """
        path = Path(filepath)
        lora = read_settings(path)
        self._check_lora(lora)
        layers = self.low_rank_layers(lora)
        pairs = [
            {
                name: keras.Variable(np.zeros(shape, np.float32), trainable=False)
                for name, shape in layer.low_rank_shapes(lora.rank).items()
            }
            for layer in layers
        ]
        assign_weights(path, {name: x for pair in pairs for name, x in pair.items()})
        for layer, pair in zip(layers, pairs, strict=True):
            layer.kernel.assign(merge(layer.kernel, *pair.values(), scale=lora.scale))

    def plain_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, without LoRA weights."""
        return {**super().get_config(), **self._config}

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments and, if there is any, `lora`."""
        lora = {} if self.lora is None else {"lora": dataclasses.asdict(self.lora)}
        return {**self.plain_config(), **lora}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LaBSEBackbone:
        """Create the backbone from the result of `get_config`."""
        config = dict(config)
        lora = config.pop("lora", None)
        backbone = super().from_config(config)
        if lora is not None:
            backbone.enable_lora(**lora)
        return backbone

    def _check_lora(self, lora: LoRA) -> None:
        """Raise an error if the backbone cannot have LoRA weights of some settings."""
        if lora.first_block >= self.num_layers:
            raise ValueError(
                "`first_block` must leave a block for the LoRA weights. Received: "
                f"first_block={lora.first_block}, num_layers={self.num_layers}"
            )
        if lora.rank > self.hidden_dim:
            raise ValueError(
                "`rank` must be at most `hidden_dim`, as that of a kernel. Received: "
                f"rank={lora.rank}, hidden_dim={self.hidden_dim}"
            )
        check_plain_weights(self)


def merged_weights(model: keras.Model) -> Mapping[str, Any]:
    """Return the weights that the configuration of a model describes, by path.

    LoRA weights are merged into the kernels, each when it is looked up.

    Args:
        model: A `LaBSE` or a `LaBSEBackbone`.

    Returns:
        Path -> Keras variable, or the float32 array of a merged kernel.

    Raises:
        ValueError: If the model has other weights, such as those of quantization by
            Keras. The message names the first.
    """
    backbone = getattr(model, "backbone", model)
    own = {id(weight) for weight in backbone.low_rank_weights().values()}
    weights = [weight for weight in model.weights if id(weight) not in own]
    _check_plain(weights)
    return MergedWeights(weights, backbone.low_rank_layers())


def check_plain_weights(model: keras.Model) -> None:
    """Raise an error if a model has weights that its configuration does not describe.

    Such weights come from LoRA or from quantization by Keras. A copy made from the
    configuration would lack them.

    Raises:
        ValueError: If there are such weights. The message names the first.
    """
    _check_plain(model.weights)


def _check_plain(weights: Iterable[Any]) -> None:
    """Raise an error if a weight is not one of a backbone and a pooling."""
    other = [
        weight.path
        for weight in weights
        if weight.path.rsplit("/", 1)[-1] not in _WEIGHT_NAMES
        or weight.dtype != "float32"
    ]
    if other:
        raise ValueError(
            "The weights must be those of a backbone without LoRA and quantization; "
            "`LaBSE.merged` merges the weights of `LaBSE.enable_lora`. "
            f"Received: {len(other)} other weights, first {other[0]}"
        )


def _check_config(config: dict[str, Any]) -> None:
    """Raise a `ValueError` for the first argument that is out of range."""
    for name in (
        "vocabulary_size",
        "num_heads",
        "hidden_dim",
        "intermediate_dim",
        "max_sequence_length",
        "num_segments",
    ):
        check_integer(name, config[name], smallest=1)
    check_integer("num_layers", config["num_layers"], smallest=0)
    if config["hidden_dim"] % config["num_heads"]:
        raise ValueError(
            "`num_heads` must divide `hidden_dim`. Received: "
            f"num_heads={config['num_heads']}, hidden_dim={config['hidden_dim']}"
        )
    for name in ("dropout", "layer_norm_epsilon", "initializer_range"):
        number = config[name]
        if not isinstance(number, Real) or not 0 <= float(number) <= 1:
            raise ValueError(
                f"`{name}` must be a number in 0 to 1. Received: {name}={number!r}"
            )
    get_activation(config["activation"])
