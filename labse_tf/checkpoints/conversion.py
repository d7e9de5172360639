"""Conversions: where the weights of a preset are from, and the preset itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labse_tf import presets
from labse_tf.files import atomic_directory, check_vacant
from labse_tf.models import LaBSE

# What is read of a Hugging Face directory; there may be other formats beside.
_READ = ("*.json", "*.txt", "*.safetensors", "pytorch_model.bin")


def describe_source(path: str | Path, layout: str | None) -> dict[str, Any]:
    """Describe the files that a conversion reads, for the preset that it makes.

    Args:
        path: A model, as `labse_tf.encoders.load_model` takes it.
        layout: What `labse_tf.encoders.layout_of` returns for it.

    Returns:
        `layout`, and `sha256` of the files by name; empty for a preset, which has
        hashes of its own.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if layout == "huggingface":
        files = {file for pattern in _READ for file in folder.rglob(pattern)}
    elif layout == "saved_model":
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
    """Save a preset that says where its weights are from.

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
