"""Paths of any kind: what they hold, the model in them, and a preset made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from labse_tf import presets
from labse_tf.checkpoints.bert import from_bert_checkpoint
from labse_tf.checkpoints.huggingface import MODULES, from_huggingface
from labse_tf.checkpoints.tf_hub import SAVED_MODEL, from_tf_hub
from labse_tf.files import atomic_directory, check_vacant
from labse_tf.models import LaBSE


def layout_of(path: str | Path) -> str | None:
    """Tells what kind of model a path is.

    Args:
        path: A directory, or the path of a checkpoint before `.index`.

    Returns:
        `"preset"`, `"huggingface"`, `"saved_model"`, `"bert_checkpoint"`, or None where
        it is none of these.
    """
    path = Path(path)
    if (path / SAVED_MODEL).is_file():
        return "saved_model"
    if (path / MODULES).is_file():
        return "huggingface"
    if (path / presets.CONFIG).is_file():
        try:
            config = json.loads((path / presets.CONFIG).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError):
            return "preset"  # which says what is wrong with it
        foreign = isinstance(config, dict) and "model_type" in config
        return "huggingface" if foreign and "format" not in config else "preset"
    folder = path if path.is_dir() else path.parent
    indexed = path.with_name(f"{path.name}.index")
    if (folder / "bert_config.json").is_file() and (
        path.is_dir() or path.suffix == ".index" or indexed.is_file()
    ):
        return "bert_checkpoint"
    return None


def load(
    model: str | Path,
    *,
    vocabulary: str | Path | None = None,
    dtype: str | keras.DTypePolicy | None = None,
) -> LaBSE:
    """Loads a model by name or from a path of any kind.

    Args:
        model: A shipped name, a preset directory, a Hugging Face directory, a
            SavedModel of TF Hub, or an official BERT checkpoint.
        vocabulary: As in `from_tf_hub`, for a SavedModel without one.
        dtype: Compute type.

    Returns:
        The model.

    Raises:
        ValueError: If it is none of these, or damaged.
    """
    kind = layout_of(model)
    if vocabulary is not None and kind != "saved_model":
        raise ValueError(
            "`vocabulary` is for SavedModels, all others have their own. "
            f"Received: vocabulary={str(vocabulary)!r} for {model}"
        )
    if kind == "huggingface":
        return from_huggingface(model, dtype or "float32")  # type: ignore[arg-type]
    if kind == "saved_model":
        return from_tf_hub(model, vocabulary=vocabulary, dtype=dtype)
    if kind == "bert_checkpoint":
        return from_bert_checkpoint(model, dtype=dtype)
    return LaBSE.from_preset(model, dtype=dtype)


# What is read of a Hugging Face directory; there may be other formats beside.
_READ = ("*.json", "*.txt", "*.safetensors", "pytorch_model.bin")


def describe_source(path: str | Path) -> dict[str, Any]:
    """Describes the files that a conversion reads, for the preset that it makes.

    Args:
        path: As in `load`.

    Returns:
        `layout`, and `sha256` of the files by name; empty for a preset, which has
        hashes of its own.
    """
    kind, path = layout_of(path), Path(path)
    folder = path if path.is_dir() else path.parent
    if kind == "huggingface":
        files = {file for pattern in _READ for file in folder.rglob(pattern)}
    elif kind == "saved_model":
        files = set(folder.rglob("*"))
    elif kind == "bert_checkpoint":
        stem = "*.ckpt" if path.is_dir() else path.name.removesuffix(".index")
        files = {*folder.glob(f"{stem}.*"), *folder.glob("*.json")}
        files |= {*folder.glob("vocab.txt")}
    else:
        return {}
    return {
        "layout": kind,
        "sha256": {
            file.relative_to(folder).as_posix(): presets.sha256(file)
            for file in sorted(files)
            if file.is_file()
        },
    }


def save_converted(
    model: LaBSE,
    directory: str | Path,
    source: Mapping[str, Any],
    *,
    storage: str = "float32",
) -> Path:
    """Saves a preset that says where its weights are from.

    Args:
        model: With a preprocessor.
        directory: The target, new or empty; written atomically.
        source: As `describe_source` or `Download.source` give it; may be empty.
        storage: As in `LaBSE.save_to_preset`.

    Returns:
        The directory.

    Raises:
        ValueError: If the directory holds something, or there is no such storage type.
        OSError: If it cannot be written.
    """
    target = Path(directory)
    check_vacant(target, "`directory`")
    with atomic_directory(target, overwrite=target.exists()) as folder:
        model.save_to_preset(folder, storage=storage)
        card = folder / presets.CARD
        text = card.read_text(encoding="utf-8")
        card.write_text(text.replace(folder.name, target.name), encoding="utf-8")
        if source:
            presets.record_source(folder, source)
    return target
