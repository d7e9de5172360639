"""Downloads of published models, with checks of their hashes.

Hugging Face publishes a hash of every file: SHA-256 for large files and git's SHA-1 for
small files. Each downloaded file is compared with its hash. `kagglehub` itself compares
archives with Kaggle's hash. The preset records the SHA-256 of the downloaded files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labse_tf import presets

# Many repositories also have the same weights in other formats, which are not needed.
_SMALL_FILES = (".json", ".txt")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Download:
    """A downloaded model.

    Attributes:
        path: Path of the model.
        vocabulary: Path of the preprocessing SavedModel, if it has the vocabulary.
        source: Record of the source: hub, revision, license, paper, and the SHA-256 of
            the files.
    """

    path: Path
    vocabulary: Path | None
    source: dict[str, Any]


def download(name: str, *, hub: str | None = None) -> Download:
    """Download a published model.

    Args:
        name: A name in `labse_tf.presets.FAMILY`.
        hub: `"huggingface"` or `"kaggle"`. Default: the first hub that can be reached.

    Returns:
        The paths of the downloaded files and the record of their source.

    Raises:
        ValueError: If there is no such model, the hub does not have it, or the hash of
            a file is wrong.
        ConnectionError: If no hub can be reached or its package is missing. The message
            states the reason for each hub and how to download the model by hand.
    """
    if name not in presets.FAMILY:
        raise ValueError(
            f"`name` must be one of {', '.join(presets.FAMILY)}. Received: {name!r}"
        )
    model = presets.FAMILY[name]
    origins = [origin for origin in model.origins if hub in (None, origin.hub)]
    if not origins:
        hubs = ", ".join(origin.hub for origin in model.origins)
        raise ValueError(f"{name}: expected the hub {hubs}. Received: {hub!r}")
    failures = []
    for origin in origins:
        fetch = _FETCH[origin.hub]
        try:
            found = fetch(origin)
        except (ValueError, MemoryError):
            raise
        # Clients raise errors of many types without network or access.
        except Exception as error:
            said = " ".join(str(error).split())[:120] or type(error).__name__
            failures.append(f"{origin.hub}: {said}")
            continue
        source = {"name": name, "licence": model.licence, "paper": model.paper}
        return Download(found.path, found.vocabulary, {**source, **found.source})
    raise ConnectionError(
        f"{name} could not be downloaded ({'; '.join(failures)}). By hand: "
        + ", or ".join(map(_by_hand, origins))
        + ". Then: labse-tf convert FOLDER --output DIR"
        + (
            " --vocabulary PREPROCESSOR"
            if any(origin.vocabulary for origin in origins)
            and not any(origin.hub == "huggingface" for origin in origins)
            else ""
        )
    )


def _by_hand(origin: presets.Origin) -> str:
    """Describe how to download a model by hand."""
    if origin.hub == "huggingface":
        return (
            f"download all .json and .txt files, also in subfolders, and "
            f"model.safetensors from {origin.url} into a FOLDER of the same structure"
        )
    text = f"download {origin.url} and unpack it into a FOLDER"
    if origin.vocabulary is not None:
        text += f", and {origin.vocabulary_url} into another folder (--vocabulary)"
    return text


# === Hugging Face ===


def _from_huggingface(origin: presets.Origin) -> Download:
    """Download the files that the conversion needs and compare their hashes."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "needs huggingface_hub: pip install 'labse-tf[convert]'"
        ) from error

    info = huggingface_hub.HfApi().model_info(origin.handle, files_metadata=True)
    files = {file.rfilename: file for file in info.siblings or []}
    wanted = [name for name in files if name.endswith(_SMALL_FILES)]
    # A Dense module has weights in its own folder.
    for place in {name.rpartition("/")[0] for name in files}:
        beside = [f"{place}/{name}".lstrip("/") for name in _WEIGHTS]
        wanted += [name for name in beside if name in files][:1]
    if not set(_WEIGHTS) & set(wanted):
        raise ValueError(
            f"{origin.url}: expected {' or '.join(_WEIGHTS)}. "
            f"Received: {', '.join(sorted(files)) or 'no files'}"
        )
    folder = Path(
        huggingface_hub.snapshot_download(
            origin.handle, revision=info.sha, allow_patterns=wanted
        )
    )
    hashes = {}
    for name in sorted(wanted):
        hashes[name] = presets.sha256(folder / name)
        _compare(folder / name, hashes[name], files[name])
    source = {"hub": origin.url, "revision": info.sha, "sha256": hashes}
    return Download(folder, None, source)


def _compare(path: Path, received: str, published: Any) -> None:
    """Raise an error for a file whose hash differs from the published hash."""
    large = getattr(published, "lfs", None)
    if large is not None:
        expected = large["sha256"] if isinstance(large, dict) else large.sha256
    else:
        expected = published.blob_id
        data = path.read_bytes()
        received = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    if expected is not None and received != expected:
        raise ValueError(
            f"{path}: expected a file with the published hash {expected[:12]}…; delete "
            f"the file and download it again. Received: {received[:12]}…"
        )


# === Kaggle ===


def _from_kaggle(origin: presets.Origin) -> Download:
    """Download a SavedModel and, if needed, the SavedModel with its vocabulary."""
    try:
        import kagglehub
    except ImportError as error:
        raise ImportError("needs kagglehub: pip install 'labse-tf[convert]'") from error

    folder = Path(kagglehub.model_download(origin.handle))
    vocabulary = None
    if origin.vocabulary is not None:
        vocabulary = Path(kagglehub.model_download(origin.vocabulary))
    hashes = {
        str(path.relative_to(folder)): presets.sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    # In kagglehub's cache the name of the folder is the version.
    source = {"hub": origin.url, "revision": folder.name, "sha256": hashes}
    return Download(folder, vocabulary, source)


_FETCH: dict[str, Callable[[presets.Origin], Download]] = {
    "huggingface": _from_huggingface,
    "kaggle": _from_kaggle,
}
