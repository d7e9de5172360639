"""Encoders: a name, a preset, a directory or a SavedModel -> an encoder.

`layout_of` alone decides what a path holds. `open_encoder` opens all that can embed
text, `load_model` what can be trained, converted or exported.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.saved_model import SAVED_MODEL, load_saved_model

if TYPE_CHECKING:
    import keras
    import numpy as np

    from labse_tf.models import LaBSE

Encode = Callable[[list[str]], "np.ndarray"]

_BATCH_SIZE = 128


@dataclass(frozen=True)
class Encoder:
    """A function from texts to vectors that knows where it is from.

    Call it as any `encode` that `labse_tf.evaluation` takes.

    Attributes:
        name: The name or the path that it was opened by.
        encode: The function from a list of `n` strings to an array `(n, D)`.
        dimension: D.
        dtype: The compute type, or `None` for a SavedModel, which does not state it.
        model: The model, or `None` for a SavedModel.
    """

    name: str
    encode: Encode
    dimension: int
    dtype: str | None = None
    model: LaBSE | None = None

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Embed texts.

        Args:
            texts: `n` strings.

        Returns:
            `(n, D)`, in the order of the texts.
        """
        return self.encode(texts)


def open_encoder(name: str | Path, dtype: str = "float32") -> Encoder:
    """Open an encoder by name or from a path of any kind.

    Args:
        name: A shipped name; a preset or Hugging Face directory; a SavedModel that
            takes strings; or an official BERT checkpoint.
        dtype: Compute type: `"float32"`, `"bfloat16"`, or `"auto"` for bfloat16 where
            this machine has instructions for it. A SavedModel has its own.

    Returns:
        The encoder.

    Raises:
        ValueError: If there is no such model or it is damaged; if a SavedModel takes
            token ids, or `dtype` is given for one.

    Example:
        >>> from labse_tf.encoders import open_encoder
        >>> encoder = open_encoder("labse-nano")
        >>> encoder(["Hello, world.", "नमस्ते दुनिया"]).shape == (2, encoder.dimension)
        True
    """
    if layout_of(name) == "saved_model":
        if dtype != "float32":
            raise ValueError(
                "`dtype` is fixed in a SavedModel: expected float32 here, or another "
                f"`dtype` when it is exported. Received: {dtype} for {name}"
            )
        return _open_saved_model(name)
    model = load_model(name).with_dtype(dtype)
    computes = model.backbone.compute_dtype
    return Encoder(str(name), model.encode, model.embedding_dim, computes, model)


def layout_of(path: str | Path) -> str | None:
    """Determine what kind of model a path is.

    Args:
        path: A directory, or the path of a checkpoint, with or without `.index`.

    Returns:
        `"preset"`, `"huggingface"`, `"saved_model"`, `"bert_checkpoint"`, or `None` for
        anything else, such as a shipped name.
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
            return "preset"  # its reader names the fault
        foreign = isinstance(config, dict) and "model_type" in config
        return "huggingface" if foreign and "format" not in config else "preset"
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
        name: A shipped name, a preset directory, a Hugging Face directory, a SavedModel
            of TF Hub, or an official BERT checkpoint.
        vocabulary: As in `labse_tf.checkpoints.from_tf_hub`, for a SavedModel without
            one.
        dtype: Compute type.

    Returns:
        The model.

    Raises:
        ValueError: If there is no such model, or it is damaged.
    """
    from labse_tf import checkpoints
    from labse_tf.models import LaBSE

    layout = layout_of(name)
    if vocabulary is not None and layout != "saved_model":
        raise ValueError(
            "`vocabulary` is for SavedModels, all other models have their own. "
            f"Received: vocabulary={str(vocabulary)!r} for {name}"
        )
    if layout == "huggingface":
        return checkpoints.from_huggingface(name, dtype or "float32")  # type: ignore[arg-type]
    if layout == "saved_model":
        return checkpoints.from_tf_hub(name, vocabulary=vocabulary, dtype=dtype)
    if layout == "bert_checkpoint":
        return checkpoints.from_bert_checkpoint(name, dtype=dtype)
    return LaBSE.from_preset(name, dtype=dtype)


@contextmanager
def as_preset(name: str | None) -> Iterator[str | None]:
    """Provide a preset for a model of any kind, converted for the time of the block.

    The conversion is deterministic, so that a resumed run recognizes its initial model.

    Args:
        name: As in `load_model`, or `None`.

    Yields:
        The name itself where it is a preset or `None`, else a temporary directory.
    """
    if name is None or layout_of(name) in (None, "preset"):
        yield name
        return
    with tempfile.TemporaryDirectory(prefix="labse_tf.") as folder:
        preset = Path(folder) / "model"
        load_model(name).save_to_preset(preset)
        yield str(preset)


def _open_saved_model(path: str | Path) -> Encoder:
    """The encoder in a SavedModel with the text interface of TF Hub."""
    import numpy as np
    import tensorflow as tf

    module = load_saved_model(path)
    # Each kind of SavedModel with another interface raises another type of error.
    try:
        first = module(tf.constant([""]))
    except Exception as error:
        raise ValueError(
            f"{path}: expected a SavedModel that takes strings and returns vectors. "
            "`labse-tf convert` makes a model of a BERT that takes token ids, such as "
            f"LaBSE on TF Hub. Received: {str(error).strip()[:120]}"
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
        result = np.zeros((len(texts), dimension), vectors.dtype.as_numpy_dtype)
        # Sorted by length, so that few rows of a batch need much padding.
        order = np.argsort([len(text) for text in texts], kind="stable")
        for start in range(0, len(order), _BATCH_SIZE):
            chosen = order[start : start + _BATCH_SIZE]
            batch = tf.constant([texts[i] for i in chosen])
            result[chosen] = vectors_of(module(batch)).numpy()
        return result

    return Encoder(str(path), encode, dimension)
