"""LaBSE, the sentence encoder of this package, and its presets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from labse_tf import adapters, presets
from labse_tf.adapters import LoRA
from labse_tf.layers import POOLINGS, SentencePooling
from labse_tf.models.backbone import FEATURES, LaBSEBackbone, merged_weights
from labse_tf.models.sentence_encoder import SentenceEncoder
from labse_tf.precision import compute_policy
from labse_tf.processes import check_not_forked
from labse_tf.variables import tables_without_values

if TYPE_CHECKING:
    from labse_tf.preprocessing import SentencePreprocessor
    from labse_tf.tokenizers import Tokenizer

_DEFAULT = object()


@keras.saving.register_keras_serializable(package="labse_tf")
class LaBSE(SentenceEncoder):
    """Sentence encoder: text, or features, to unit vectors.

    `encode` takes text. A call takes features, as in any Keras model.

    Shapes: B = batch, T = length in tokens, D = hidden dimension.

    Args:
        backbone: A `LaBSEBackbone`.
        preprocessor: A `SentencePreprocessor`; `None` for a model that only takes
            features. `encode` and `save_to_preset` need a preprocessor.
        pooling: `"pooler"` (dense + tanh on [CLS], as in the released weights),
            `"cls"`, `"mean"` or `"weighted_mean"`; see
            `labse_tf.layers.SentencePooling`.
        **kwargs: `name`, `trainable`.

    Call arguments:
        inputs: Dict of int32 `(B, T)`: `token_ids`, `segment_ids`, `padding_mask`.

    Returns:
        float32 `(B, D)`, unit length.

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

    backbone: LaBSEBackbone

    def __init__(
        self,
        backbone: LaBSEBackbone,
        preprocessor: SentencePreprocessor | None = None,
        pooling: str = "pooler",
        **kwargs: Any,
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(
                f"`pooling` must be one of {POOLINGS}. Received: pooling={pooling!r}"
            )
        if preprocessor is not None:
            _check_fit(backbone, preprocessor)

        # === Layers ===
        self.backbone = backbone
        self.sentence_pooling = SentencePooling(
            pooling, vocabulary_size=backbone.vocabulary_size, name="sentence_pooling"
        )
        self.preprocessor = preprocessor
        # Other poolings give the pooler no gradient. If trainable, it would cause a
        # warning per step, and weight decay would shrink it.
        if backbone.lora is None:
            backbone.pooler.trainable = backbone.trainable and pooling == "pooler"
        else:
            self.sentence_pooling.trainable = False

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

    def _weights_of_graphs(self) -> LoRA | None:
        return self.backbone.lora

    def enable_lora(
        self,
        rank: int,
        target_layer_names: Sequence[str] | None = None,
        *,
        alpha: float | None = None,
        first_block: int = 0,
    ) -> None:
        """Freeze all weights and add LoRA weights, the only ones that are trained.

        See `LaBSEBackbone.enable_lora` for the arguments and errors. `save_to_preset`
        merges the LoRA weights.

        Example:
            >>> from labse_tf.models import LaBSE, LaBSEBackbone
            >>> model = LaBSE(LaBSEBackbone(7, 1, 2, 8, 16), pooling="mean")
            >>> model.enable_lora(2)
            >>> len(model.trainable_weights), len(model.merged().trainable_weights)
            (12, 21)
        """
        self.backbone.enable_lora(
            rank, target_layer_names, alpha=alpha, first_block=first_block
        )
        self.sentence_pooling.trainable = False

    def merged(self) -> LaBSE:
        """Return a model of ordinary weights, in which LoRA weights are merged.

        Returns:
            This model if it has no LoRA weights, else a new model with the same
            vectors, all of whose weights can be trained.

        Raises:
            ValueError: If the model has quantized weights.
        """
        if self.backbone.lora is None:
            return self
        return self._copy(self.backbone.dtype_policy)

    def _copy(self, policy: keras.DTypePolicy) -> LaBSE:
        """Return a model with a copy of the weights and another compute type."""
        weights = merged_weights(self)
        config = {**self.backbone.plain_config(), "dtype": policy}
        with tables_without_values():
            backbone = LaBSEBackbone(**config)
        model = type(self)(backbone, self.preprocessor, self.pooling, name=self.name)
        for weight in model.weights:
            weight.assign(weights[weight.path])
        return model

    @classmethod
    def from_preset(
        cls,
        preset: str | Path,
        *,
        preprocessor: SentencePreprocessor | None | object = _DEFAULT,
        sequence_length: int | None = None,
        dtype: str | keras.DTypePolicy | None = None,
        base: str | Path | None = None,
        merge_adapters: bool = True,
    ) -> LaBSE:
        """Load a model by name or from a directory.

        Args:
            preset: A name in `saved_models/`, or a directory written by
                `save_to_preset` or `save_adapters`.
            preprocessor: A preprocessor to use instead of the preset's. With `None` the
                model has no preprocessor and needs no TensorFlow.
            sequence_length: Maximum number of tokens per sentence, instead of the
                preset's.
            dtype: Compute type; see `labse_tf.precision.compute_policy`.
            base: For a preset of `save_adapters`, the preset that the adapters were
                trained on, if it is not where it was.
            merge_adapters: Whether adapters are merged into the weights. If not, the
                model has LoRA weights, the only ones that are trained.

        Returns:
            The model with its weights.

        Raises:
            ValueError: If the preset is unknown or invalid, or the preset of its
                adapters is missing or another one; the message names the file.
            OSError: If a file is missing or cannot be read.
        """
        check_not_forked()
        source = presets.find(preset)
        directory, config = adapters.with_base(
            source, presets.read_config(source), base
        )
        policy = compute_policy(dtype)
        with _naming(source):
            _check_settings(directory, config)
            if preprocessor is _DEFAULT:
                settings = config["preprocessor"]
                if sequence_length is not None:
                    settings = {**settings, "sequence_length": sequence_length}
                preprocessor = _preset_preprocessor(directory, config, settings)
            with tables_without_values():
                backbone = LaBSEBackbone(**config["backbone"], dtype=policy)
            model = cls(backbone, preprocessor, pooling=config["pooling"])  # type: ignore[arg-type]
        weights = {weight.path: weight for weight in model.weights}
        presets.assign_weights(directory / presets.WEIGHTS, weights)
        if source != directory and merge_adapters:
            backbone.merge_lora_weights(source / adapters.FILE)
        elif source != directory:
            backbone.load_lora_weights(source / adapters.FILE)
            model.sentence_pooling.trainable = False
        return model

    def save_to_preset(
        self, directory: str | Path, *, storage: str = "float32"
    ) -> None:
        """Write `config.json`, vocabulary, `model.weights.h5` and a card atomically.

        The vocabulary is `vocab.txt` or `sentencepiece.model`. LoRA weights are merged
        into the weights on disk; the model itself is not changed.

        Args:
            directory: Output directory. An older preset in it is replaced; other files
                stay unchanged.
            storage: Type of the weights on disk. `"float32"`: exact. `"float16"`: half
                the size. `"int8"`: a quarter of the size, matrices as int8 with one
                scale per channel (see `labse_tf.quantization`), other weights as
                float16. `"int4"`: the token table always in 4 bits, with one scale per
                32 values; a kernel in 4 bits only if no value changes, such as the
                kernels of a model that was published in 4 bits, otherwise as int8 with
                one scale per channel; the position table and other weights as float32.
                Loaded weights are always float32.

        Raises:
            ValueError: If the model has no preprocessor, `storage` is unknown, or is
                `"int4"` and `hidden_dim` is not a multiple of 32, or the model has
                quantized weights, which a preset cannot hold.
            OSError: If the directory cannot be written.
        """
        tokenizer = self.text_preprocessor().tokenizer
        weights = merged_weights(self)
        presets.check_storage(storage, self.backbone.hidden_dim)
        config = {**self._preset_config(), "storage": storage}
        with presets.writing(directory, config) as folder:
            tokenizer.save_vocabulary(folder / tokenizer.file_name)
            presets.write_weights(folder / presets.WEIGHTS, weights, storage)

    def save_adapters(self, directory: str | Path, base: str | Path) -> None:
        """Write only the LoRA weights, with a reference to another preset, atomically.

        The directory is a preset of a few megabytes, which `from_preset` reads as long
        as `base` exists. Vocabulary and weights are those of `base`, whatever its
        storage type, so the low-rank weights are not rounded.

        Args:
            directory: Output directory; see `save_to_preset`.
            base: Preset from which this model was loaded, before `enable_lora`. The
                reference to a directory is relative to `directory`.

        Raises:
            ValueError: If the model has no preprocessor or no LoRA weights, or there is
                no such preset, or it has another shape or tokenizer, has no weights of
                its own, or is `directory`.
            OSError: If the directory cannot be written.
        """
        with adapters.writing(directory, self._preset_config(), base) as folder:
            self.backbone.save_lora_weights(folder / adapters.FILE)

    def _preset_config(self) -> dict[str, Any]:
        """Return the sections of a preset's configuration that describe the model."""
        preprocessor = self.text_preprocessor()
        backbone = self.backbone.plain_config()
        for name in ("name", "trainable", "dtype"):
            backbone.pop(name)
        return {
            "backbone": backbone,
            "pooling": self.pooling,
            "preprocessor": {
                "sequence_length": preprocessor.sequence_length,
                **preprocessor.settings(),
            },
            "tokenizer": preprocessor.tokenizer.settings(),
        }

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
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
        """Create the model from the result of `get_config`."""
        config = dict(config)
        if config["preprocessor"] is not None:
            # The import registers the class, which Keras looks up by name below.
            from labse_tf import preprocessing  # noqa: F401
        for name in ("backbone", "preprocessor"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


@contextmanager
def _naming(directory: Path) -> Iterator[None]:
    """Add the path of the configuration file to errors in the settings of a preset."""
    try:
        yield
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        # Errors in the vocabulary name their own file.
        if str(error).startswith(str(directory)):
            raise
        what = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"{directory / presets.CONFIG}: {what}{error}") from error


def _check_settings(directory: Path, config: dict[str, Any]) -> None:
    """Raise an error for settings that would change weight names or fill the memory."""
    for section in ("backbone", "preprocessor", "tokenizer"):
        if foreign := sorted({"name", "dtype", "trainable"} & set(config[section])):
            raise ValueError(
                f"expected no general Keras layer arguments in {section}. "
                f"Received: {', '.join(foreign)}"
            )
    size = (directory / presets.WEIGHTS).stat().st_size
    # Every storage type takes at least four bits per number.
    if presets.count_parameters(config["backbone"]) > 2 * size:
        raise ValueError(
            f"expected the sizes of a model that fits into the {size:,} bytes of "
            f"{presets.WEIGHTS}. Received: {str(config['backbone']):.400}"
        )


def _preset_preprocessor(
    directory: Path, config: dict[str, Any], settings: dict[str, Any]
) -> SentencePreprocessor:
    """Create a preprocessor with the tokenizer of a preset."""
    from labse_tf.preprocessing import SentencePreprocessor
    from labse_tf.tokenizers import SentencePieceTokenizer, WordPieceTokenizer

    file, options = presets.vocabulary_file(config), config["tokenizer"]
    tokenizer: Tokenizer
    if file == SentencePieceTokenizer.file_name:
        tokenizer = SentencePieceTokenizer(directory / file, **options)
    else:
        tokenizer = WordPieceTokenizer(directory / file, **options)
    return SentencePreprocessor(tokenizer, **settings)


def _check_fit(backbone: LaBSEBackbone, preprocessor: SentencePreprocessor) -> None:
    """Raise an error if the tables of the backbone do not fit the preprocessor."""
    tokens = preprocessor.tokenizer.vocabulary_size
    if tokens != backbone.vocabulary_size:
        raise ValueError(
            "The tokenizer's vocabulary and the backbone's token table must have "
            f"the same size. Received: {tokens} tokens, "
            f"vocabulary_size={backbone.vocabulary_size}"
        )
    if preprocessor.sequence_length > backbone.max_sequence_length:
        raise ValueError(
            "The preprocessor's rows must not be longer than the backbone's position "
            f"table. Received: sequence_length={preprocessor.sequence_length}, "
            f"max_sequence_length={backbone.max_sequence_length}"
        )
