"""Encoders: name or path of a model of any kind -> encoder.

`layout_of` determines the kind of model at a path. `open_encoder` opens models that can
embed text. `load_model` loads models that can be trained, converted or exported;
`load_encoder` also loads backbones of KerasHub that can be exported only.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.nested import check_dim, cut_vectors
from labse_tf.processes import check_not_forked
from labse_tf.saved_model import SAVED_MODEL, load_saved_model

if TYPE_CHECKING:
    import keras
    import numpy as np

    from labse_tf.models import LaBSE, SentenceEncoder

Encode = Callable[[list[str]], "np.ndarray"]

_BATCH_SIZE = 128
# Files next to a model that vectors do not depend on.
_NOTES = (".md", ".png", ".jsonl", ".sh", "run.json", "scores.json")


@dataclass(frozen=True)
class Encoder:
    """A function from texts to vectors, as the `encode` of `labse_tf.evaluation`.

    Attributes:
        name: Name or path of the model.
        encode: Function from a list of `n` strings to an array `(n, D)`.
        dimension: D.
        dtype: Compute type, or `None` for a SavedModel, which does not state it.
        model: The model, or `None` for a SavedModel.
    """

    name: str
    encode: Encode
    dimension: int
    dtype: str | None = None
    model: SentenceEncoder | None = None

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Embed `n` texts; return an array `(n, D)` in their order."""
        return self.encode(texts)

    def cut(self, dim: int) -> Encoder:
        """Return the encoder of the first `dim` components, normalized again.

        Args:
            dim: From 1 to D.

        Returns:
            The new encoder, whose dimension is `dim`. `model` still is the model of
            whole vectors.

        Raises:
            ValueError: If `dim` is not an integer from 1 to D.
        """
        check_dim(dim, self.dimension)

        def cut(texts: list[str]) -> Any:
            return cut_vectors(self.encode(texts), dim)

        encode: Encode = cut
        if self.model is not None:  # Cuts each window of a long list by itself.
            encode = functools.partial(self.model.encode, dim=dim)
        return replace(self, encode=encode, dimension=dim)


def open_encoder(
    name: str | Path,
    dtype: str = "float32",
    sequence_length: int | None = None,
    dim: int | None = None,
) -> Encoder:
    """Open an encoder by name or from a path of any kind.

    Args:
        name: Name of a shipped model, or path of a preset, a Hugging Face directory, a
            preset of KerasHub, a SavedModel that takes strings, or an official BERT
            checkpoint.
        dtype: Compute type: `"float32"`, `"bfloat16"`, or `"auto"` for bfloat16 if this
            CPU has instructions for it. Must be `"float32"` for a SavedModel, whose
            compute type is fixed.
        sequence_length: Maximum number of tokens per text, instead of the model's. Must
            be `None` for a SavedModel.
        dim: Number of components of each vector to keep, from the first, normalized
            again; for models that are trained with nested sizes (`train --dims`).

    Returns:
        The encoder.

    Raises:
        ValueError: If there is no such model, it is damaged, a SavedModel takes token
            ids, `dtype` or `sequence_length` is set for a SavedModel, `sequence_length`
            is less than 3 or longer than the position table, or `dim` is not an integer
            from 1 to the dimension of the model.

    Example:
        >>> from labse_tf.encoders import open_encoder
        >>> encoder = open_encoder("labse-nano")
        >>> encoder(["Hello, world.", "नमस्ते दुनिया"]).shape == (2, encoder.dimension)
        True
    """
    encoder = _open(name, dtype, sequence_length)
    return encoder if dim is None else encoder.cut(dim)


def _open(name: str | Path, dtype: str, sequence_length: int | None) -> Encoder:
    """Open an encoder of whole vectors; see `open_encoder`."""
    if layout_of(name) == "saved_model":
        if dtype != "float32":
            raise ValueError(
                "`dtype` must be float32 for a SavedModel, whose compute type is set "
                f"when it is exported. Received: {dtype} for {name}"
            )
        if sequence_length is not None:
            raise ValueError(
                "`sequence_length` must be None for a SavedModel, whose length is set "
                f"when it is exported. Received: {sequence_length} for {name}"
            )
        return _open_saved_model(name)
    if layout_of(name) == "huggingface":
        foreign = _open_foreign(name, dtype, sequence_length)
        if foreign is not None:
            return foreign
    model = load_encoder(name).with_dtype(dtype)
    if sequence_length is not None:
        model = model.with_sequence_length(sequence_length)
    computes = model.backbone.compute_dtype
    return Encoder(str(name), model.encode, model.embedding_dim, computes, model)


def _open_foreign(
    name: str | Path, dtype: str, sequence_length: int | None
) -> Encoder | None:
    """Open a Hugging Face directory that cannot be a `LaBSE` model with its tokenizer.

    Returns:
        The encoder; `None` if the directory has a WordPiece tokenizer and a supported
        architecture.
    """
    from labse_tf.checkpoints.huggingface import check_supported
    from labse_tf.checkpoints.tokenizer_json import (
        TokenizerJsonEncoder,
        needs_tokenizer_json,
    )

    try:
        check_supported(name)
    except ValueError as error:
        return _open_sentence_transformer(name, dtype, sequence_length, error)
    if not needs_tokenizer_json(name):
        return None
    check_not_forked()
    encoder = TokenizerJsonEncoder(name, dtype, sequence_length)
    model = encoder.model
    computes = model.backbone.compute_dtype
    return Encoder(str(name), encoder.encode, model.embedding_dim, computes, None)


def _open_sentence_transformer(
    name: str | Path, dtype: str, sequence_length: int | None, reason: ValueError
) -> Encoder:
    """Open a Hugging Face directory with the package sentence-transformers.

    Args:
        name: Path of the directory.
        dtype: Compute type.
        sequence_length: Maximum number of tokens per text.
        reason: Why this package cannot load the directory.

    Raises:
        ValueError: If the package is not installed, or cannot load the directory.
    """
    try:
        import sentence_transformers
        import torch
    except ImportError:
        raise ValueError(
            f"{reason}; such models can be teachers, be measured and embed text with "
            "sentence-transformers: pip install 'labse-tf[teacher]'"
        ) from reason
    from labse_tf.precision import computes_bfloat16

    if dtype == "auto":
        dtype = "bfloat16" if computes_bfloat16() else "float32"
    check_not_forked()
    try:
        model = sentence_transformers.SentenceTransformer(
            str(name), model_kwargs={"torch_dtype": getattr(torch, dtype)}
        )
    # The package and those below it raise errors of many types.
    except Exception as error:
        raise ValueError(
            f"{name}: expected a model that sentence-transformers can load. "
            f"Received: {error}"
        ) from error
    if sequence_length is not None:
        model.max_seq_length = sequence_length

    def encode(texts: list[str]) -> np.ndarray:
        return model.encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False
        )

    dimension = model.get_sentence_embedding_dimension()
    return Encoder(str(name), encode, dimension, dtype)


def layout_of(path: str | Path) -> str | None:
    """Determine the kind of model at a path.

    Args:
        path: A directory, or the path of a checkpoint with or without `.index`.

    Returns:
        `"preset"`, `"huggingface"`, `"keras_hub"`, `"saved_model"`,
        `"bert_checkpoint"`, or `None` for anything else, such as a shipped name.
    """
    from labse_tf import presets

    path = Path(path)
    if (path / SAVED_MODEL).is_file():
        return "saved_model"
    if (path / "modules.json").is_file():
        return "huggingface"
    if (path / presets.CONFIG).is_file():
        try:
            config = json.loads((path / presets.CONFIG).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError):
            return "preset"  # The reader of presets describes the problem.
        if not isinstance(config, dict) or "format" in config:
            return "preset"
        if "registered_name" in config:
            return "keras_hub"
        return "huggingface" if "model_type" in config else "preset"
    folder = path if path.is_dir() else path.parent
    indexed = path.with_name(f"{path.name}.index")
    if (folder / "bert_config.json").is_file() and (
        path.is_dir() or path.suffix == ".index" or indexed.is_file()
    ):
        return "bert_checkpoint"
    return None


def load_model(
    name: str | Path,
    *,
    vocabulary: str | Path | None = None,
    dtype: str | keras.DTypePolicy | None = None,
) -> LaBSE:
    """Load a model by name or from a path of any kind.

    Args:
        name: Name of a shipped model, or path of a preset, a Hugging Face directory, a
            preset of KerasHub of BERT's form, a SavedModel of TF Hub, or an official
            BERT checkpoint.
        vocabulary: Only for a SavedModel. See `labse_tf.checkpoints.from_tf_hub`.
        dtype: Compute type.

    Returns:
        The model.

    Raises:
        ValueError: If there is no such model, or it is damaged.
    """
    from labse_tf import checkpoints
    from labse_tf.models import LaBSE

    check_not_forked()
    layout = layout_of(name)
    if vocabulary is not None and layout != "saved_model":
        raise ValueError(
            "`vocabulary` must be left out except for SavedModels. "
            f"Received: vocabulary={str(vocabulary)!r} for {name}"
        )
    if layout == "huggingface":
        return checkpoints.from_huggingface(name, dtype or "float32")  # type: ignore[arg-type]
    if layout == "saved_model":
        return checkpoints.from_tf_hub(name, vocabulary=vocabulary, dtype=dtype)
    if layout == "keras_hub":
        with _naming(name):
            return checkpoints.from_keras_hub(name, dtype=dtype)
    if layout == "bert_checkpoint":
        return checkpoints.from_bert_checkpoint(name, dtype=dtype)
    return LaBSE.from_preset(name, dtype=dtype)


def load_encoder(name: str | Path) -> SentenceEncoder:
    """Load a model by name or from a path of any kind, to embed text or to be exported.

    Args:
        name: See `load_model`; or a preset of KerasHub of any form.

    Returns:
        The result of `load_model`. For a preset of KerasHub that it cannot convert, a
        `KerasHubEncoder`.

    Raises:
        ValueError: If the model does not exist, is damaged, or its backbone is not
            supported.
    """
    if layout_of(name) != "keras_hub":
        return load_model(name)
    from labse_tf import checkpoints
    from labse_tf.models import KerasHubEncoder

    check_not_forked()
    model, preprocessor = checkpoints.load_keras_hub(name)
    with _naming(name):
        if checkpoints.is_convertible(model, preprocessor):
            return checkpoints.from_keras_hub(model, preprocessor)
        return KerasHubEncoder(model, preprocessor)


def fingerprint(
    name: str | Path,
    dtype: str = "float32",
    sequence_length: int | None = None,
    dim: int | None = None,
) -> str:
    """Return an identifier of a model: a hash of its files, and its compute type.

    Vectors on disk are noted with it, so that a model that was trained further in the
    same directory counts as another model.

    Args:
        name: A model, see `open_encoder`.
        dtype: Compute type, see `open_encoder`.
        sequence_length: Maximum number of tokens per text, see `open_encoder`.
        dim: Number of components of each vector, see `open_encoder`.

    Returns:
        The identifier, for example `"float32 90f2..."`.

    Raises:
        ValueError: If there is no such model.
    """
    from labse_tf import presets
    from labse_tf.precision import computes_bfloat16

    if dtype == "auto":
        dtype = "bfloat16" if computes_bfloat16() else "float32"
    layout, path = layout_of(name), Path(name)
    if layout in (None, "preset"):
        path = presets.find(name)
    # A checkpoint may be given without a suffix: its files begin with its name.
    files = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.stem}*")
    digest = hashlib.sha256()
    for file in sorted(files):
        if file.is_file() and file.suffix not in _NOTES and file.name not in _NOTES:
            digest.update(f"{file.name} {presets.sha256(file)}\n".encode())
    length = "" if sequence_length is None else f" {sequence_length}"
    cut = "" if dim is None else f" dim {dim}"
    return f"{dtype} {digest.hexdigest()}{length}{cut}"


def read_sizes(name: str | Path) -> dict[str, Any]:
    """Return the sizes of a model without reading its weights.

    Args:
        name: Name of a shipped or published model, or path of a preset or a Hugging
            Face directory.

    Returns:
        Arguments of `LaBSEBackbone`; and `pooling` and, of a preset, `storage` if they
        are stated.

    Raises:
        ValueError: If the model does not exist or is of another kind.
    """
    from labse_tf import presets

    layout, published = layout_of(name), presets.published_name(name)
    if layout == "huggingface":
        from labse_tf.checkpoints.huggingface import read_sizes

        return read_sizes(name)
    if layout in (None, "preset"):
        if layout is None and published is not None and not Path(name).is_dir():
            return {**presets.FAMILY[published].backbone, "pooling": "pooler"}
        config = presets.read_config(presets.find(name))
        stated = {key: config[key] for key in ("pooling", "storage") if key in config}
        return {**config["backbone"], **stated}
    raise ValueError(
        f"{name}: expected a preset or a Hugging Face directory, as `labse-tf convert` "
        f"writes them. Received: a {layout}"
    )


@contextmanager
def as_preset(name: str | None) -> Iterator[str | None]:
    """Provide a preset for a model of any kind, if needed by temporary conversion.

    The conversion is deterministic, so a resumed run recognizes its initial model.

    Args:
        name: A model, see `load_model`, or `None`.

    Yields:
        `name` if it is a preset or `None`, else a temporary preset directory.
    """
    from labse_tf import presets

    if name is None or layout_of(name) in (None, "preset"):
        yield name
        return
    with tempfile.TemporaryDirectory(prefix="labse_tf.") as folder:
        preset = Path(folder) / "model"
        load_model(name).save_to_preset(preset)
        # A model that is trained from it states its languages, license and name.
        card = Path(name) / presets.CARD
        if card.is_file():
            shutil.copyfile(card, preset / presets.CARD)
        presets.record_source(preset, {"name": Path(name).name})
        yield str(preset)


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Add the path of a model to errors about its parts."""
    try:
        yield
    except ValueError as error:
        # Errors about a file name it.
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: {error}") from error


def _open_saved_model(path: str | Path) -> Encoder:
    """Open a SavedModel with the text interface of TF Hub."""
    import numpy as np
    import tensorflow as tf

    from labse_tf.models.text_inputs import check_texts, windows

    check_not_forked()
    module = load_saved_model(path)
    # SavedModels with other interfaces raise errors of several types.
    try:
        first = module(tf.constant([""]))
    except Exception as error:
        raise ValueError(
            f"{path}: expected a SavedModel that takes strings and returns vectors; "
            "use `labse-tf convert` for a BERT that takes token ids, such as LaBSE on "
            f"TF Hub. Received: {str(error).strip()[:120]}"
        ) from error

    def vectors_of(output: Any) -> Any:
        return output.get("default") if isinstance(output, Mapping) else output

    vectors = vectors_of(first)
    if not (tf.is_tensor(vectors) and vectors.dtype.is_floating and vectors.ndim == 2):
        keys = sorted(first) if isinstance(first, Mapping) else type(first).__name__
        raise ValueError(
            f"{path}: expected a SavedModel that returns vectors (n, D), either as the "
            f"only output or as `default`. Received: {keys}"
        )
    dimension = int(vectors.shape[1])

    def encode(texts: list[str]) -> np.ndarray:
        check_not_forked()
        strings = list(itertools.chain.from_iterable(windows(check_texts(texts)[0])))
        result = np.zeros((len(strings), dimension), vectors.dtype.as_numpy_dtype)
        # Sorted by length to reduce padding.
        order = np.argsort([len(text) for text in strings], kind="stable")
        for start in range(0, len(order), _BATCH_SIZE):
            chosen = order[start : start + _BATCH_SIZE]
            batch = tf.constant([strings[i] for i in chosen])
            result[chosen] = vectors_of(module(batch)).numpy()
        return result

    return Encoder(str(path), encode, dimension)
