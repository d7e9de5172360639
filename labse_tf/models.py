"""The encoder: token ids to unit vectors, and the dual encoder that trains it.

`LaBSEBackbone` (BERT on KerasHub's blocks) -> `LaBSE` (pooling, L2; text in,
vectors out) -> `DualEncoder` (one encoder, two sides, a loss over the batch).

Shapes: B = batch, T = length in tokens, D = hidden dimension, n = sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import keras_hub
import numpy as np

from labse_tf import presets
from labse_tf.layers import (
    PackedAttentionMask,
    SentencePooling,
    compute_policy,
    get_activation,
    sentence_fingerprints,
)
from labse_tf.metrics import TranslationRankingAccuracy
from labse_tf.progress import progress_bar

if TYPE_CHECKING:
    from labse_tf.preprocessing import SentencePreprocessor

FEATURES = ("token_ids", "segment_ids", "padding_mask")
PACKED_FEATURES = ("position_ids", "sequence_ids")

_DEFAULT = object()


@keras.saving.register_keras_serializable(package="labse_tf")
class LaBSEBackbone(keras_hub.models.Backbone):
    """A BERT encoder: one set of weights for all languages and both sides.

    Args:
        vocabulary_size: Rows of the token table.
        num_layers: Transformer blocks; 0 leaves the embeddings alone.
        num_heads: Attention heads a block; must divide `hidden_dim`.
        hidden_dim: D.
        intermediate_dim: Width of the feed-forward layer.
        activation: Of the feed-forward layer; `"gelu"` is the exact one,
            `"gelu_approximate"` the tanh approximation of the official code.
        dropout: Rate after embeddings, attention and feed-forward.
        max_sequence_length: Rows of the position table.
        num_segments: Rows of the segment table.
        layer_norm_epsilon: Of all layer normalisations.
        initializer_range: Standard deviation of the truncated normal
            initialiser.
        dtype: Compute type; variables are float32 always.
        **kwargs: `name`, `trainable`.

    Call arguments:
        inputs: Dict of int32 `(B, T)`: `token_ids`, `segment_ids`,
            `padding_mask` and, for rows that hold several sentences,
            `position_ids` and `sequence_ids` (both may be left out).

    Returns:
        Dict: `sequence_output` `(B, T, D)`, `pooled_output` `(B, D)` (dense +
        tanh on the first token).

    Raises:
        ValueError: If `num_heads` does not divide `hidden_dim`, or a size is not
            positive.

    References:
        Devlin et al., 2019 (https://arxiv.org/abs/1810.04805); Feng et al., 2022,
        section 4.1 (https://arxiv.org/abs/2007.01852).
    """

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
        _check_sizes(
            vocabulary_size=vocabulary_size,
            num_heads=num_heads,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            max_sequence_length=max_sequence_length,
            num_segments=num_segments,
        )
        if num_layers < 0:
            raise ValueError(
                f"`num_layers` must be 0 or more. Received: num_layers={num_layers}"
            )
        if hidden_dim % num_heads:
            raise ValueError(
                "`num_heads` must divide `hidden_dim`. Received: "
                f"num_heads={num_heads}, hidden_dim={hidden_dim}"
            )
        policy = compute_policy(dtype)
        feed_forward_activation = get_activation(activation)

        def initializer() -> keras.initializers.Initializer:
            return keras.initializers.TruncatedNormal(stddev=initializer_range)

        # === Layers ===
        self.token_embedding = keras_hub.layers.ReversibleEmbedding(
            input_dim=vocabulary_size,
            output_dim=hidden_dim,
            embeddings_initializer=initializer(),
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
        self.embeddings_layer_norm = keras.layers.LayerNormalization(
            epsilon=layer_norm_epsilon, dtype=policy, name="embeddings_layer_norm"
        )
        self.embeddings_dropout = keras.layers.Dropout(
            dropout, dtype=policy, name="embeddings_dropout"
        )
        self.attention_mask = PackedAttentionMask(name="attention_mask")
        self.transformer_layers = [
            keras_hub.layers.TransformerEncoder(
                num_heads=num_heads,
                intermediate_dim=intermediate_dim,
                activation=feed_forward_activation,
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
        tokens = self.token_embedding(inputs["token_ids"])  # (B, T, D)
        positions = self.position_embedding(tokens, positions=inputs["position_ids"])
        segments = self.segment_embedding(inputs["segment_ids"])
        x = self.embeddings_add((tokens, positions, segments))
        x = self.embeddings_layer_norm(x)
        x = self.embeddings_dropout(x)
        if num_layers:
            visible = self.attention_mask(
                inputs["padding_mask"], inputs["sequence_ids"]
            )  # (B, T, T), or None where a row holds one sequence
        else:
            # Nothing attends; a Keras graph has only inputs that lead somewhere.
            del inputs["padding_mask"], inputs["sequence_ids"]
        for layer in self.transformer_layers:
            x = layer(x, padding_mask=inputs["padding_mask"], attention_mask=visible)
        pooled = self.pooler(x[:, 0, :])
        super().__init__(
            inputs=inputs,
            outputs={"sequence_output": x, "pooled_output": pooled},
            dtype=policy,
            **kwargs,
        )

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

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Runs the encoder; `position_ids` and `sequence_ids` may be left out."""
        if isinstance(inputs, Mapping):
            inputs = {name: inputs.get(name) for name in self.input}
        return super().__call__(inputs, *args, **kwargs)

    def compute_output_spec(
        self, inputs: Any, training: Any = None, mask: Any = None
    ) -> dict[str, keras.KerasTensor]:
        """Shapes of the outputs, also where the packing inputs are left out."""
        batch, length = inputs["token_ids"].shape
        dtype = self.compute_dtype
        return {
            "sequence_output": keras.KerasTensor(
                (batch, length, self.hidden_dim), dtype=dtype
            ),
            "pooled_output": keras.KerasTensor((batch, self.hidden_dim), dtype=dtype),
        }

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "activation": self.activation,
            "dropout": self.dropout,
            "max_sequence_length": self.max_sequence_length,
            "num_segments": self.num_segments,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "initializer_range": self.initializer_range,
        }


@keras.saving.register_keras_serializable(package="labse_tf")
class LaBSE(keras.Model):
    """A sentence encoder: text in, unit vectors out.

    Called on a feature dict it is a Keras model and returns unit vectors
    float32 `(B, D)`; `encode` takes text.

    Args:
        backbone: A `LaBSEBackbone`.
        preprocessor: A `SentencePreprocessor`; `None` where token ids are made
            elsewhere (`encode` is not there then).
        pooling: `"pooler"` (dense + tanh on [CLS], as in the released weights),
            `"cls"`, `"mean"` or `"weighted_mean"`; see
            `labse_tf.layers.SentencePooling`.
        **kwargs: `name`, `trainable`.

    Raises:
        ValueError: If `pooling` is unknown, the vocabularies of tokenizer and
            token table differ in size, or the preprocessor's rows are longer than
            the position table.

    Example:
        >>> from labse_tf.models import LaBSE, LaBSEBackbone
        >>> from labse_tf.preprocessing import SentencePreprocessor
        >>> from labse_tf.tokenizers import WordPieceTokenizer
        >>> tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world"]
        >>> preprocessor = SentencePreprocessor(WordPieceTokenizer(tokens))
        >>> backbone = LaBSEBackbone(7, 1, 2, 8, 16)
        >>> LaBSE(backbone, preprocessor).encode(["hello", "world"]).shape
        (2, 8)

    References:
        Feng et al., 2022, section 2 (https://arxiv.org/abs/2007.01852).
    """

    def __init__(
        self,
        backbone: LaBSEBackbone,
        preprocessor: SentencePreprocessor | None = None,
        pooling: str = "pooler",
        **kwargs: Any,
    ) -> None:
        if preprocessor is not None:
            _check_fit(backbone, preprocessor)

        # === Layers ===
        self.backbone = backbone
        self.sentence_pooling = SentencePooling(
            pooling, vocabulary_size=backbone.vocabulary_size, name="sentence_pooling"
        )
        self.preprocessor = preprocessor
        # Where no loss reaches the pooler, a trainable weight without a gradient is a
        # warning a step and decays for nothing.
        backbone.pooler.trainable = backbone.trainable and pooling == "pooler"

        # === Functional Model ===
        inputs = {
            name: keras.Input((None,), dtype="int32", name=name) for name in FEATURES
        }
        outputs = backbone(inputs)
        embeddings = self.sentence_pooling(
            outputs["sequence_output"],
            outputs["pooled_output"],
            inputs["padding_mask"],
            inputs["token_ids"],
        )  # (B, D)
        super().__init__(inputs=inputs, outputs=embeddings, **kwargs)

        # === Config ===
        self.pooling = pooling
        self._encode_rows: Callable[..., Any] | None = None

    @property
    def embedding_dim(self) -> int:
        """D, the length of a sentence's vector."""
        return self.backbone.hidden_dim

    def text_preprocessor(self) -> SentencePreprocessor:
        """Returns the preprocessor, which all work on text needs.

        Raises:
            ValueError: If the model was made without one.
        """
        if self.preprocessor is None:
            raise ValueError(
                "Text needs a preprocessor to become token ids: make the model with "
                "one, or call it on features. Received: preprocessor=None"
            )
        return self.preprocessor

    def encode(
        self,
        texts: Iterable[str] | str,
        *,
        batch_tokens: int = 8192,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Embeds sentences.

        Sentences are sorted by length within windows of 8,192 and batched by a
        budget of tokens, so that little time goes into padding; the answer is in
        the order of the input.

        Args:
            texts: Strings in any iterable, a generator too; or one string.
            batch_tokens: Tokens a batch, padding included.
            progress: A progress bar on standard error; `None` shows one on a
                terminal when the work is long.

        Returns:
            float32 `(n, D)` with rows of length 1; `(D,)` for one string; `(0, D)`
            for nothing.

        Raises:
            ValueError: If the model has no preprocessor, `batch_tokens` is not
                positive, or an element is no string (the message has its index).
        """
        self.text_preprocessor()
        if batch_tokens < 1:
            raise ValueError(
                f"`batch_tokens` must be positive. Received: {batch_tokens}"
            )
        if isinstance(texts, (str, bytes)):
            return self.encode([texts], batch_tokens=batch_tokens, progress=False)[0]
        total = len(texts) if isinstance(texts, Sequence) else None
        vectors = []
        with progress_bar("Encoding", total, "sentences", show=progress) as advance:
            for window in _windows(texts):
                vectors.append(self._encode_window(window, batch_tokens, advance))
        if not vectors:
            return np.zeros((0, self.embedding_dim), dtype=np.float32)
        return np.concatenate(vectors)

    def _encode_window(
        self, texts: list[bytes], batch_tokens: int, advance: Callable[[int], None]
    ) -> np.ndarray:
        """Embeds one window of sentences, in its order: `(len(texts), D)`."""
        import tensorflow as tf

        if self._encode_rows is None:
            self._encode_rows = _row_encoder(self)
        rows = self.text_preprocessor().token_rows(tf.constant(texts, dtype=tf.string))
        lengths = rows.row_lengths().numpy()
        order = np.argsort(-lengths, kind="stable")
        vectors = np.empty((len(texts), self.embedding_dim), dtype=np.float32)
        start = 0
        while start < len(order):
            # Longest first, so the first row is as long as the batch is padded to.
            count = max(1, batch_tokens // int(lengths[order[start]]))
            chosen = order[start : start + count]
            vectors[chosen] = self._encode_rows(rows.values, rows.row_splits, chosen)
            start += count
            advance(len(chosen))
        return vectors

    def similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Cosine of each row of one matrix with each of another.

        Args:
            first: `(n, D)`.
            second: `(m, D)`.

        Returns:
            float32 `(n, m)`, from -1 to 1.

        Raises:
            ValueError: If the arguments are no matrices of the same width.
        """
        return cosine_similarity(first, second)

    @classmethod
    def from_preset(
        cls,
        preset: str | Path,
        *,
        preprocessor: SentencePreprocessor | None | object = _DEFAULT,
        sequence_length: int | None = None,
        dtype: str | keras.DTypePolicy | None = None,
    ) -> LaBSE:
        """Loads a model by name or from a directory.

        Args:
            preset: A name in `saved_models/`, or a directory that `save_to_preset`
                made.
            preprocessor: One of your own, or `None` for a model without one, which
                needs no TensorFlow; left out, the preset's.
            sequence_length: Most tokens a sentence, instead of the preset's.
            dtype: Compute type, `"float32"` or `"bfloat16"`.

        Returns:
            The model with its weights.

        Raises:
            ValueError: If there is no such preset or it is damaged.
        """
        directory = presets.find(preset)
        config = presets.read_config(directory)
        if preprocessor is _DEFAULT:
            settings = config["preprocessor"]
            if sequence_length is not None:
                settings = {**settings, "sequence_length": sequence_length}
            preprocessor = _preset_preprocessor(directory, config, settings)
        backbone = LaBSEBackbone(**config["backbone"], dtype=dtype)
        model = cls(backbone, preprocessor, pooling=config["pooling"])  # type: ignore[arg-type]
        weights = {weight.path: weight for weight in model.weights}
        shapes = {path: tuple(weight.shape) for path, weight in weights.items()}
        arrays = presets.read_weights(directory / presets.WEIGHTS, shapes)
        for path, array in arrays.items():
            weights[path].assign(array)
        return model

    def save_to_preset(
        self, directory: str | Path, *, storage: str = "float32"
    ) -> None:
        """Writes `config.json`, `vocab.txt`, `model.weights.h5` and a card.

        The preset appears whole or not at all: files are written beside it and
        moved when all are there.

        Args:
            directory: Where to; an older preset there is replaced, other files
                stay.
            storage: Of the weights on disk: `"float32"`, exact; `"float16"`, half
                the size; `"int8"`, a token table of a quarter the size (one scale a
                row) and the rest as float16. Loaded, all are float32.

        Raises:
            ValueError: If the model has no preprocessor, whose vocabulary belongs
                to the preset, or there is no such storage type.
            OSError: If the directory cannot be written.
        """
        preprocessor = self.text_preprocessor()
        backbone = self.backbone.get_config()
        for name in ("name", "trainable", "dtype"):
            backbone.pop(name)
        tokenizer = preprocessor.tokenizer
        config = {
            "backbone": backbone,
            "pooling": self.pooling,
            "preprocessor": {
                "sequence_length": preprocessor.sequence_length,
                "pad": preprocessor.pad,
            },
            "tokenizer": {
                "lowercase": tokenizer.lowercase,
                "strip_accents": tokenizer.strip_accents,
                "compat": tokenizer.compat,
            },
            "storage": storage,
        }
        with presets.writing(directory, config) as folder:
            tokenizer.save_vocabulary(folder / presets.VOCABULARY)
            presets.write_weights(
                folder / presets.WEIGHTS,
                {weight.path: np.asarray(weight) for weight in self.weights},
                storage,
            )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": serialize(self.backbone),
            "preprocessor": serialize(self.preprocessor),
            "pooling": self.pooling,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LaBSE:
        """Makes the model again from `get_config`."""
        config = dict(config)
        if config["preprocessor"] is not None:
            # Importing registers the class, which Keras looks up by name below.
            from labse_tf import preprocessing  # noqa: F401
        for name in ("backbone", "preprocessor"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


@keras.saving.register_keras_serializable(package="labse_tf")
class DualEncoder(keras.Model):
    """Trains a sentence encoder on translation pairs: one encoder, two sides.

    `fit` takes `{"source": features, "target": features}`, as
    `labse_tf.data.sentence_pairs` gives them; the loss ranks each pair against the
    global batch. Sentences that occur twice in a batch are found by hashing their
    token ids, so that the loss does not take copies for negatives.

    Args:
        encoder: A `LaBSE` model, or any Keras model from features to unit vectors.
        length_groups: Each side is encoded in that many groups of sentences of like
            length, each cut to its own longest. Vectors and gradients are those of
            one group; where a batch has long and short sentences, little time goes
            into padding. TensorFlow without XLA only, where shapes may vary.
        **kwargs: `name`, `trainable`.

    Raises:
        ValueError: If `length_groups` is not positive, or more than 1 on another
            backend than TensorFlow.

    Call arguments:
        inputs: Dict with `source` and `target`, each a feature dict of int32
            `(B, T)`; the two T may differ.

    Returns:
        Dict with `source` and `target`, float32 `(B, D)` each.

    References:
        Feng et al., 2022, section 2.1 (https://arxiv.org/abs/2007.01852).
    """

    def __init__(
        self, encoder: keras.Model, *, length_groups: int = 1, **kwargs: Any
    ) -> None:
        if length_groups < 1:
            raise ValueError(
                f"`length_groups` must be positive. Received: {length_groups}"
            )
        if length_groups > 1 and keras.backend.backend() != "tensorflow":
            raise ValueError(
                "`length_groups` above 1 needs shapes that vary, so the TensorFlow "
                f"backend. Received: length_groups={length_groups} on "
                f"{keras.backend.backend()}"
            )
        super().__init__(**kwargs)
        self.encoder = encoder
        self.length_groups = length_groups
        self.pair_loss: keras.losses.Loss | None = None
        self.pair_metrics: list[keras.metrics.Metric] = []
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        """See the class."""

        def encode(features: dict[str, Any]) -> Any:
            return self.encoder(features, training=training)

        return {
            side: encode(inputs[side])
            if self.length_groups == 1
            else _encode_by_length(encode, inputs[side], self.length_groups)
            for side in ("source", "target")
        }

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adamw",
        loss: keras.losses.Loss | None = None,
        *,
        metrics: Sequence[keras.metrics.Metric] | None = None,
        jit_compile: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        """Sets optimiser and loss.

        Args:
            optimizer: A Keras optimiser or its name.
            loss: Called as `loss(source, target, source_ids=, target_ids=)`, such
                as `labse_tf.losses.AdditiveMarginSoftmax`.
            metrics: Called the same way; the ranking accuracy over the global
                batch where left out.
            jit_compile: `"auto"` leaves XLA to the backend, and off on TensorFlow,
                where it is slower on the CPU and fails with collectives outside
                a TPU (which compiles always).
            **kwargs: Other arguments of `keras.Model.compile`.

        Raises:
            ValueError: If there is no loss.
        """
        if loss is None:
            raise ValueError(
                "`loss` is needed, such as "
                "labse_tf.losses.AdditiveMarginSoftmax(). Received: loss=None"
            )
        jit_compile = resolve_jit_compile(jit_compile)
        if jit_compile and self.length_groups > 1:
            raise ValueError(
                "`length_groups` above 1 needs shapes that vary, which XLA has not. "
                f"Received: jit_compile={jit_compile}, "
                f"length_groups={self.length_groups}"
            )
        super().compile(
            optimizer=optimizer, loss=None, jit_compile=jit_compile, **kwargs
        )
        self.pair_loss = loss
        self.pair_metrics = (
            [TranslationRankingAccuracy()] if metrics is None else list(metrics)
        )

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The loss of a batch, with duplicates marked."""
        if self.pair_loss is None:
            raise ValueError("Call `compile` with a `loss` first. Received: loss=None")
        return self.pair_loss(y_pred["source"], y_pred["target"], **_pair_ids(x))

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Adds a batch to the metrics and returns all their values."""
        for metric in self.pair_metrics:
            metric.update_state(y_pred["source"], y_pred["target"], **_pair_ids(x))
        return self.get_metrics_result()

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "length_groups": self.length_groups,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DualEncoder:
        """Makes the model again from `get_config`."""
        config = dict(config)
        config["encoder"] = keras.saving.deserialize_keras_object(config["encoder"])
        return cls(**config)

    def get_compile_config(self) -> dict[str, Any]:
        """What `compile` was given, for `keras.saving`."""
        serialize = keras.saving.serialize_keras_object
        return {
            "optimizer": serialize(self.optimizer),
            "loss": serialize(self.pair_loss),
            "metrics": [serialize(metric) for metric in self.pair_metrics],
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as `get_compile_config` says."""
        deserialize = keras.saving.deserialize_keras_object
        self.compile(
            optimizer=deserialize(config["optimizer"]),
            loss=deserialize(config["loss"]),
            metrics=[deserialize(metric) for metric in config["metrics"]],
        )
        self.optimizer.build(self.trainable_variables)


def resolve_jit_compile(jit_compile: bool | str) -> bool | str:
    """Gives what `"auto"` means here.

    Args:
        jit_compile: As `compile` takes it.

    Returns:
        `False` for `"auto"` on TensorFlow, where XLA is slower on the CPU and fails
        with collectives outside a TPU (which compiles always); else the argument.
    """
    if jit_compile == "auto" and keras.backend.backend() == "tensorflow":
        return False
    return jit_compile


def cosine_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of each row of one matrix with each row of another.

    Args:
        first: `(n, D)`.
        second: `(m, D)`.

    Returns:
        float32 `(n, m)`. A row of zeros has cosine 0 with all.

    Raises:
        ValueError: If the arguments are no matrices of the same width.

    Example:
        >>> from labse_tf.models import cosine_similarity
        >>> cosine_similarity([[3.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]]).tolist()
        [[1.0, 0.0]]
    """
    matrices = [np.asarray(x, dtype=np.float32) for x in (first, second)]
    if any(x.ndim != 2 for x in matrices) or len({x.shape[-1] for x in matrices}) != 1:
        raise ValueError(
            "Expected two matrices (n, D) and (m, D). "
            f"Received: shapes {matrices[0].shape} and {matrices[1].shape}"
        )
    unit = [
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        for x in matrices
    ]
    return unit[0] @ unit[1].T


def _pair_ids(inputs: dict[str, Any]) -> dict[str, Any]:
    """Fingerprints of both sides under the names that loss and metrics take."""
    return {
        f"{side}_ids": sentence_fingerprints(
            inputs[side]["token_ids"], inputs[side]["padding_mask"]
        )
        for side in ("source", "target")
    }


def _encode_by_length(
    encode: Callable[[dict[str, Any]], Any], features: dict[str, Any], groups: int
) -> Any:
    """Encodes `(B, T)` in groups of like length, each cut to its own: `(B, D)`."""
    import tensorflow as tf

    mask = tf.cast(features["padding_mask"], tf.int32)
    count, length = tf.unstack(tf.shape(mask))
    # The place behind the last token, wherever the mask has zeros before it.
    lengths = tf.reduce_max(mask * tf.range(1, length + 1), axis=1)  # (B,)
    order = tf.argsort(lengths, stable=True)
    vectors = []
    for group in range(groups):
        start, stop = count * group // groups, count * (group + 1) // groups
        # A group without sentences, where groups are more than those, encodes one for
        # nothing: not all kernels take an empty batch.
        first = tf.minimum(start, count - 1)
        rows = order[first : tf.maximum(stop, first + 1)]
        longest = tf.reduce_max(tf.gather(lengths, rows))
        encoded = encode(
            {k: tf.gather(x[:, :longest], rows) for k, x in features.items()}
        )
        vectors.append(encoded[: stop - start])
    return tf.gather(tf.concat(vectors, axis=0), tf.argsort(order))


def _windows(texts: Iterable[str], size: int = 8192) -> Iterable[list[bytes]]:
    """Cuts an iterable of strings into lists of UTF-8."""
    window: list[bytes] = []
    for index, text in enumerate(texts):
        if isinstance(text, str):
            window.append(text.encode("utf-8", "replace"))
        elif isinstance(text, bytes):
            window.append(text)
        else:
            raise ValueError(
                f"`texts` must hold strings, element {index} is none. "
                f"Received: {text!r} of type {type(text).__name__}"
            )
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def _row_encoder(model: LaBSE) -> Callable[..., np.ndarray]:
    """A function from ragged rows and the ones to take to vectors, traced once."""
    import tensorflow as tf

    preprocessor = model.text_preprocessor()

    def features(values: Any, splits: Any, chosen: Any) -> dict[str, Any]:
        rows = tf.RaggedTensor.from_row_splits(values, splits, validate=False)
        return preprocessor.pack(tf.gather(rows, chosen))

    if keras.backend.backend() != "tensorflow":
        # Rows are padded to a multiple of 16 to bound how often XLA compiles.
        def encode_with_backend(values: Any, splits: Any, chosen: Any) -> np.ndarray:
            arrays = {k: v.numpy() for k, v in features(values, splits, chosen).items()}
            count, length = arrays["token_ids"].shape
            limit = model.backbone.max_sequence_length
            padded = min(-(-length // 16) * 16, limit)
            room = ((0, -count % 16), (0, padded - length))
            arrays = {k: np.pad(v, room) for k, v in arrays.items()}
            # A mask of zeros alone would divide nothing by nothing in the softmax.
            arrays["padding_mask"][count:, 0] = 1
            return np.asarray(model.predict_on_batch(arrays))[:count]

        return encode_with_backend

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None], tf.int64),
        ],
        autograph=False,
    )
    def encode(values: Any, splits: Any, chosen: Any) -> Any:
        return model(features(values, splits, chosen), training=False)

    return lambda *args: encode(*args).numpy()


def _preset_preprocessor(
    directory: Path, config: dict[str, Any], settings: dict[str, Any]
) -> SentencePreprocessor:
    """A preprocessor with a preset's tokenizer."""
    from labse_tf.preprocessing import SentencePreprocessor
    from labse_tf.tokenizers import WordPieceTokenizer

    tokenizer = WordPieceTokenizer(
        directory / presets.VOCABULARY, **config["tokenizer"]
    )
    return SentencePreprocessor(tokenizer, **settings)


def _check_fit(backbone: LaBSEBackbone, preprocessor: SentencePreprocessor) -> None:
    """Refuses a preprocessor whose ids or rows the backbone has no room for."""
    tokens = preprocessor.tokenizer.vocabulary_size
    if tokens != backbone.vocabulary_size:
        raise ValueError(
            "The tokenizer's vocabulary and the backbone's token table must have "
            f"the same size. Received: {tokens} tokens, "
            f"vocabulary_size={backbone.vocabulary_size}"
        )
    if preprocessor.sequence_length > backbone.max_sequence_length:
        raise ValueError(
            "The preprocessor's rows must fit the backbone's position table. "
            f"Received: sequence_length={preprocessor.sequence_length}, "
            f"max_sequence_length={backbone.max_sequence_length}"
        )


def _check_sizes(**sizes: int) -> None:
    """Refuses sizes that are not positive, by name."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
