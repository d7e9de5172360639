"""Conversions: presets with a record of the source of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labse_tf import presets
from labse_tf.files import atomic_directory, check_vacant
from labse_tf.models import LaBSE

# Files that are read from a Hugging Face directory, which may have other formats too.
_READ = ("*.json", "*.txt", "*.safetensors", "pytorch_model.bin")


def describe_source(path: str | Path, layout: str | None) -> dict[str, Any]:
    """Describe the files that a conversion reads.

    Args:
        path: A model. See `labse_tf.encoders.load_model`.
        layout: The result of `labse_tf.encoders.layout_of` for `path`.

    Returns:
        `layout`, and `sha256` of the files by name. Empty for a preset, which has its
        own hashes.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if layout == "huggingface":
        files = {file for pattern in _READ for file in folder.rglob(pattern)}
    elif layout in ("saved_model", "keras_hub"):
        files = set(folder.rglob("*"))
    elif layout == "bert_checkpoint":
        stem = "*.ckpt" if path.is_dir() else path.name.removesuffix(".index")
        files = {*folder.glob(f"{stem}.*"), *folder.glob("*.json")}
        files |= {*folder.glob("vocab.txt")}
    else:
        return {}
    return {
        "layout": layout,
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
    """Save a preset with a record of the source of its weights.

    Args:
        model: A model with a preprocessor.
        directory: New or empty target directory, written atomically.
        source: The result of `describe_source`, or `Download.source`. May be empty.
        storage: Storage type. See `LaBSE.save_to_preset`.

    Returns:
        The directory.

    Raises:
        ValueError: If the directory is not empty or the storage type is unknown.
        OSError: If the directory cannot be written.
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
