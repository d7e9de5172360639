"""The sentence encoder: text in, unit vectors out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from labse_tf import presets
from labse_tf.layers import SentencePooling
from labse_tf.models.backbone import FEATURES, LaBSEBackbone
from labse_tf.models.padding import BATCH_TOKENS
from labse_tf.models.text_encoder import TextEncoder
from labse_tf.precision import compute_policy
from labse_tf.progress import Progress

if TYPE_CHECKING:
    from labse_tf.preprocessing import SentencePreprocessor

_DEFAULT = object()


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
        self._text_encoder: TextEncoder | None = None

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
        batch_tokens: int = BATCH_TOKENS,
        progress: Progress = None,
    ) -> np.ndarray:
        """Embeds sentences.

        Sentences are sorted by length within windows of 8,192 and batched by a
        budget of tokens, so that little time goes into padding; the answer is in
        the order of the input.

        Args:
            texts: Strings in any iterable, a generator too; or one string. `bytes`
                are taken as UTF-8. What is no UTF-8 in them, and lone surrogates in
                a `str`, are deleted, as the tokenizer and a SavedModel do.
            batch_tokens: Tokens a batch, padding included.
            progress: See `labse_tf.progress`; counts sentences.

        Returns:
            float32 `(n, D)` with rows of length 1; `(D,)` for one string; `(0, D)`
            for nothing.

        Raises:
            ValueError: If the model has no preprocessor, `batch_tokens` is not
                positive, or an element is no string (the message has its index).
        """
        preprocessor = self.text_preprocessor()
        if batch_tokens < 1:
            raise ValueError(
                f"`batch_tokens` must be positive. Received: {batch_tokens}"
            )
        if isinstance(texts, (str, bytes)):
            return self.encode([texts], batch_tokens=batch_tokens, progress=False)[0]
        if self._text_encoder is None:
            self._text_encoder = TextEncoder(self, preprocessor)
        return self._text_encoder.encode(texts, batch_tokens, progress)

    def with_dtype(self, dtype: str | keras.DTypePolicy) -> LaBSE:
        """The same model, computing in another type.

        Vectors in bfloat16 are about twice as fast on processors that have
        instructions for it; their cosine with those of float32 is 0.999 and more.

        Args:
            dtype: `"float32"`, `"bfloat16"` or `"auto"`, as `from_preset` takes it.

        Returns:
            This model where it computes so already; else one with a copy of its
            weights, which are float32 in both.

        Raises:
            ValueError: If there is no such type.
        """
        policy = compute_policy(dtype)
        if policy.compute_dtype == self.backbone.compute_dtype:
            return self
        config = self.backbone.get_config()
        backbone = LaBSEBackbone(**{**config, "dtype": policy})
        model = type(self)(backbone, self.preprocessor, self.pooling, name=self.name)
        model.set_weights(self.get_weights())
        return model

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
            dtype: Compute type: `"float32"`, `"bfloat16"`, or `"auto"` for bfloat16
                where this machine has instructions for it.

        Returns:
            The model with its weights.

        Raises:
            ValueError: If there is no such preset or it is damaged; the message names
                the file.
            OSError: If a file is missing or cannot be read.
        """
        directory = presets.find(preset)
        config = presets.read_config(directory)
        policy = compute_policy(dtype)
        with _naming(directory):
            _check_settings(directory, config)
            if preprocessor is _DEFAULT:
                settings = config["preprocessor"]
                if sequence_length is not None:
                    settings = {**settings, "sequence_length": sequence_length}
                preprocessor = _preset_preprocessor(directory, config, settings)
            backbone = LaBSEBackbone(**config["backbone"], dtype=policy)
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

        The preset is written atomically.

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


@contextmanager
def _naming(directory: Path) -> Iterator[None]:
    """Says of errors in a preset's settings which file they are in."""
    try:
        yield
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        # The vocabulary's errors name their own file.
        if str(error).startswith(str(directory)):
            raise
        what = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{directory / presets.CONFIG}: {what}{error}") from error


def _check_settings(directory: Path, config: dict[str, Any]) -> None:
    """Refuses settings before they take memory or change what weights are called."""
    for section in ("backbone", "preprocessor", "tokenizer"):
        # Arguments of every layer, which `save_to_preset` leaves out.
        if foreign := sorted({"name", "dtype", "trainable"} & set(config[section])):
            raise ValueError(
                f"expected no argument of every Keras layer under {section}. "
                f"Received: {', '.join(foreign)}"
            )
    size = (directory / presets.WEIGHTS).stat().st_size
    # No storage type has less than a byte a number.
    if presets.count_parameters(config["backbone"]) > size:
        raise ValueError(
            f"expected the sizes of a model whose weights {presets.WEIGHTS} has room "
            f"for, {size:,} bytes. Received: {str(config['backbone']):.400}"
        )


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
