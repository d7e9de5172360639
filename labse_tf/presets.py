"""Presets: models as directories of four files, found by name or by path.

Some models are shipped with the package (`shipped_names`). Models that others have
published (`FAMILY`) become presets by `labse-tf convert NAME`.

    config.json        constructor arguments, and the SHA-256 of the next two files
    vocab.txt          one token per line; or sentencepiece.model
    model.weights.h5   weights by path, in float32 or a smaller storage type
    README.md          the model card

`config.json` is moved into place last, so a directory with this file is complete. An
existing preset is exchanged for the new one in one step.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labse_tf.files import directory_beside, directory_of, exchange, write_text
from labse_tf.languages import LABSE_LANGUAGES, language_code
from labse_tf.quantization import (
    GROUP,
    channel_axes,
    dequantize_groups,
    from_channels,
    packed_shapes,
    quantize,
    quantize_groups,
    scale_shape,
    to_channels,
)
from labse_tf.variables import TOKEN_TABLE, assign_blocks, block_bounds, read_blocks

CONFIG = "config.json"
VOCABULARY = "vocab.txt"
SENTENCEPIECE = "sentencepiece.model"
WEIGHTS = "model.weights.h5"
CARD = "README.md"

# Types of weights on disk. Variables are always float32.
STORAGES = ("float32", "float16", "int8", "int4")
_IN_WORDS = {
    "float32": "float32",
    "float16": "float16",
    "int8": "matrices int8 with one scale per channel, other weights float16",
    "int4": (
        f"token table in 4 bits with one scale per {GROUP} values; kernels in 4 bits "
        "if that is exact, otherwise int8 with one scale per channel; other weights "
        "float32"
    ),
}

# Last parts of the paths of matrices that become int8.
_BY_CHANNEL = {"int8": ("embeddings", "kernel"), "int4": ("kernel",)}

_FORMAT = "labse_tf preset"
_FORMAT_VERSION = 1
# Required keys of a configuration, and their types.
_SECTIONS = {
    "backbone": dict,
    "pooling": str,
    "preprocessor": dict,
    "tokenizer": dict,
    "sha256": dict,
}
# Suffix of the scales of a matrix in int8 or in 4 bits.
_SCALE = "scale"

# === The family ===


@dataclass(frozen=True)
class Origin:
    """A source to download a published model from.

    Attributes:
        hub: `"huggingface"` or `"kaggle"`, which now hosts the models of TF Hub.
        handle: Name of the model in the hub.
        vocabulary: Handle of the preprocessing SavedModel with the vocabulary, if the
            model itself does not include it.
    """

    hub: str
    handle: str
    vocabulary: str | None = None

    @property
    def url(self) -> str:
        """The web page of the model."""
        return _page(self.hub, self.handle)

    @property
    def vocabulary_url(self) -> str | None:
        """The web page of the preprocessing SavedModel."""
        return None if self.vocabulary is None else _page(self.hub, self.vocabulary)


def _page(hub: str, handle: str) -> str:
    """Return the address of a model's web page."""
    if hub == "huggingface":
        return f"https://huggingface.co/{handle}"
    owner, model, framework, variation = handle.split("/")
    return f"https://www.kaggle.com/models/{owner}/{model}/{framework}/{variation}"


@dataclass(frozen=True)
class PublishedModel:
    """A model of the LaBSE family that others have published.

    Attributes:
        backbone: Sizes, as arguments of `labse_tf.LaBSEBackbone`.
        sequence_length: Maximum number of tokens per sentence at the origin.
        languages: Codes of the training languages.
        licence: SPDX name of the license.
        origins: Sources to download the model from, best first.
        paper: Address of the paper.
    """

    backbone: dict[str, Any]
    sequence_length: int
    languages: tuple[str, ...]
    licence: str
    origins: tuple[Origin, ...]
    paper: str

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return count_parameters(self.backbone)


def count_parameters(sizes: Mapping[str, Any]) -> int:
    """Return `LaBSEBackbone(**sizes).count_params()` without creating the model."""
    width, inner = sizes["hidden_dim"], sizes["intermediate_dim"]
    tables = sizes["vocabulary_size"] + sizes["max_sequence_length"]
    tables += sizes["num_segments"]
    block = 4 * width * (width + 1) + 2 * width * inner + inner + width + 4 * width
    pooler = width * (width + 1)
    return tables * width + 2 * width + sizes["num_layers"] * block + pooler


def _shape(width: int, layers: int, heads: int, vocabulary: int) -> dict[str, Any]:
    """Return the sizes of a BERT with `intermediate_dim` of `4 * width`."""
    return {
        "vocabulary_size": vocabulary,
        "num_layers": layers,
        "num_heads": heads,
        "hidden_dim": width,
        "intermediate_dim": 4 * width,
        "max_sequence_length": 512,
        "num_segments": 2,
    }


_LABSE_TOKENS = 501_153
_LABSE_PAPER = "https://arxiv.org/abs/2007.01852"


def _lealla(size: str, width: int, heads: int) -> PublishedModel:
    """Return a LEALLA model: 24 narrow layers distilled from LaBSE."""
    return PublishedModel(
        backbone=_shape(width, 24, heads, _LABSE_TOKENS),
        sequence_length=128,
        languages=LABSE_LANGUAGES,
        licence="Apache-2.0",
        origins=(
            Origin("kaggle", f"google/lealla/tensorFlow2/lealla-{size}"),
            Origin("huggingface", f"setu4993/LEALLA-{size}"),
        ),
        paper="https://arxiv.org/abs/2302.08387",
    )


FAMILY = {
    "labse": PublishedModel(
        backbone=_shape(768, 12, 12, _LABSE_TOKENS),
        sequence_length=256,
        languages=LABSE_LANGUAGES,
        licence="Apache-2.0",
        origins=(
            Origin("huggingface", "sentence-transformers/LaBSE"),
            Origin(
                "kaggle",
                "google/labse/tensorFlow2/labse",
                vocabulary=(
                    "google/universal-sentence-encoder/tensorFlow2/"
                    "cmlm-multilingual-preprocess"
                ),
            ),
        ),
        paper=_LABSE_PAPER,
    ),
    "lealla-small": _lealla("small", 128, 8),
    "lealla-base": _lealla("base", 192, 12),
    "lealla-large": _lealla("large", 256, 8),
    # LaBSE with the tokens of 15 languages (method: arXiv 2010.05609).
    "smaller-labse": PublishedModel(
        backbone=_shape(768, 12, 12, 173_347),
        sequence_length=512,
        languages=tuple("ar de en es fr it ja ko nl pl pt ru th tr zh".split()),
        licence="Apache-2.0",
        origins=(Origin("huggingface", "setu4993/smaller-LaBSE"),),
        paper=_LABSE_PAPER,
    ),
}


def published_name(name: str | Path) -> str | None:
    """Return the key of `FAMILY` for a name or address of a published model.

    Args:
        name: A key in any case (`LaBSE`), a name in a hub
            (`sentence-transformers/LaBSE`), or the address of its page.

    Returns:
        The key, or `None` if the model is unknown.
    """
    wanted = str(name).casefold().rstrip("/")
    for key, model in FAMILY.items():
        known = {key}
        for origin in model.origins:
            owner, *_, last = origin.handle.split("/")
            known |= {origin.handle, origin.url, f"{owner}/{last}"}
        if wanted in {text.casefold() for text in known}:
            return key
    return None


# === Shipped models ===

# SPDX name of the license of the weights of each model in `saved_models/`.
LICENSES = {"labse-mini": "MIT", "labse-nano": "Apache-2.0"}


# === Presets on disk ===


def shipped_directory() -> Path:
    """Return the folder of the models that are shipped with the package.

    In a checkout it is `saved_models/` next to the package, in an installed wheel
    `labse_tf/saved_models/`.
    """
    package = Path(__file__).resolve().parent
    installed = package / "saved_models"
    return installed if installed.is_dir() else package.parent / "saved_models"


def shipped_names() -> list[str]:
    """Return the sorted names of the models that are shipped with the package."""
    folder = shipped_directory()
    if not folder.is_dir():
        return []
    return sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))


def find(preset: str | Path) -> Path:
    """Find a preset by name or path.

    Args:
        preset: A directory with `config.json`, or a name in `shipped_names()`. The
            directory takes precedence.

    Returns:
        The directory of the preset.

    Raises:
        ValueError: If there is no such preset. The message lists the shipped names or,
            for a published model, describes how to download it.
    """
    directory = Path(preset)
    if is_preset(directory):
        return directory
    if directory.is_dir():
        raise ValueError(
            f"{directory}: expected a preset, which has a {CONFIG}. "
            f"Received: a directory without this file ({preset!s})"
        )
    if str(preset) in shipped_names():
        return shipped_directory() / str(preset)
    published = published_name(preset)
    if published is not None:
        raise ValueError(
            f"{preset} is not shipped with the package: download it with `labse-tf "
            f"convert {published} --output DIR` and load DIR. Received: "
            f"{str(preset)!r}, a published model, which is not an existing directory"
        )
    names = ", ".join(shipped_names()) or "this version has none"
    raise ValueError(
        "Expected a preset directory or the name of a shipped model "
        f"({names}); `labse-tf convert` downloads {', '.join(FAMILY)}. "
        f"Received: {str(preset)!r}"
    )


def is_preset(directory: str | Path) -> bool:
    """Return whether a directory is a complete preset."""
    return (Path(directory) / CONFIG).is_file()


def stated_languages(directory: str | Path) -> tuple[str, ...] | None:
    """Return the training languages that the files of a model specify.

    Args:
        directory: A preset or a Hugging Face directory.

    Returns:
        Canonical codes from the front matter of the card (`language:`, as on Hugging
        Face), else from the row `| languages | ... |` of the card, else from the model
        in `FAMILY` that was converted. `None` if the languages are not specified, or
        the card has other values, such as "multilingual".

    Raises:
        OSError: If a file cannot be read.

    Example:
        >>> from labse_tf import presets
        >>> presets.stated_languages(presets.find("labse-nano"))[:3]
        ('en', 'hi', 'bn')
    """
    card, config = Path(directory, CARD), Path(directory, CONFIG)
    if card.is_file():
        text = card.read_text(encoding="utf-8", errors="replace")
        languages = _front_matter_languages(text)
        row = re.search(r"^\| *languages *\|(.+)\|\s*$", text, re.MULTILINE)
        if not languages and row:
            languages = [name.strip() for name in re.split("[;,]", row[1])]
        if languages:
            try:
                return tuple(dict.fromkeys(map(language_code, languages)))
            except ValueError:
                return None
    try:
        source = json.loads(config.read_text(encoding="utf-8"))["source"]["name"]
        return FAMILY[source].languages
    # Other libraries also write a file of this name.
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _front_matter_languages(card: str) -> list[str]:
    """Read `language: hi`, `language: [hi, ta]` or a YAML list from a card's head."""
    front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", card, re.DOTALL)
    if front is None:
        return []
    found = re.search(
        r"^languages?:[ \t]*(.*(?:\n[ \t]*-[ \t]+.*)*)", front[1], re.MULTILINE
    )
    return re.findall(r"[A-Za-z][\w@-]*", found[1]) if found else []


def read_config(directory: Path) -> dict[str, Any]:
    """Read the configuration of a preset and check the hashes of its files.

    Raises:
        ValueError: If the file is not a preset's configuration or has another format
            version, or a file of the preset is missing or was changed.
    """
    path = directory / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    # Invalid UTF-8, invalid JSON or numbers of 5,000 digits; too deeply nested JSON.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON. Received: {error}") from error
    if not isinstance(config, dict) or config.get("format") != _FORMAT:
        received = config.get("format") if isinstance(config, dict) else type(config)
        if isinstance(config, dict) and "model_type" in config:
            received = "a Hugging Face directory, which `labse-tf convert` reads"
        raise ValueError(
            f'{path}: expected "format": "{_FORMAT}". Received: {received!r}'
        )
    if config.get("format_version") != _FORMAT_VERSION:
        raise ValueError(
            f"{path}: expected format version {_FORMAT_VERSION}; a later labse_tf may "
            f"read other versions. Received: {config.get('format_version')!r}"
        )
    missing = [key for key in _SECTIONS if key not in config]
    if missing:
        raise ValueError(
            f"{path}: expected the keys {', '.join(_SECTIONS)}. "
            f"Received: no {', '.join(missing)}"
        )
    for key, kind in _SECTIONS.items():
        if not isinstance(config[key], kind):
            raise ValueError(
                f"{path}: expected {key} to be {'text' if kind is str else 'an object'}"
                f". Received: {config[key]!r:.80}"
            )
    for name, expected in config["sha256"].items():
        if not isinstance(expected, str) or Path(name).name != name:
            raise ValueError(
                f"{path}: expected names of files and their hashes in sha256. "
                f"Received: {name!r:.80}: {expected!r:.80}"
            )
        file = directory / name
        if not file.is_file():
            raise ValueError(
                f"{directory}: expected the file {name} next to {CONFIG}. "
                "Received: no such file"
            )
        received = sha256(file)
        if received != expected:
            raise ValueError(
                f"{file}: expected the SHA-256 {expected[:12]}…; the file is damaged "
                f"or was changed. Received: {received[:12]}…"
            )
    return config


def vocabulary_file(config: Mapping[str, Any]) -> str:
    """Return the name of the vocabulary's file of a preset with this configuration."""
    return SENTENCEPIECE if SENTENCEPIECE in config["sha256"] else VOCABULARY


def size_of(directory: Path) -> int:
    """Return the size in bytes of a preset, without its card and other files."""
    names = [CONFIG, *read_config(directory)["sha256"]]
    return sum((directory / name).stat().st_size for name in names)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_storage(storage: str, hidden_dim: int | None = None) -> None:
    """Raise an error if weights cannot be stored in a storage type.

    Args:
        storage: One of `STORAGES`.
        hidden_dim: Hidden dimension of the model, if it is known.

    Raises:
        ValueError: If the storage type is unknown, or is `"int4"` and the hidden
            dimension is not a multiple of 32.
    """
    if storage not in STORAGES:
        raise ValueError(
            f"`storage` must be one of {', '.join(STORAGES)}. Received: {storage!r}"
        )
    if storage == "int4" and hidden_dim is not None and hidden_dim % GROUP:
        raise ValueError(
            "`storage` can be 'int4' only if the hidden dimension is a multiple of "
            f"{GROUP}. Received: storage='int4', hidden_dim={hidden_dim}"
        )


def write_weights(
    path: Path, weights: Mapping[str, Any], storage: str = "float32"
) -> None:
    """Write weights by their paths, such as `token_embedding/embeddings`.

    Keras's own `.weights.h5` numbers layers by class. Paths identify a weight
    independently of the version of Keras. Large weights are written in blocks of rows,
    without a copy of them.

    Args:
        path: Target HDF5 file, which is replaced.
        weights: Weight path -> float32 Keras variable or array.
        storage: `"float32"`, `"float16"`, `"int8"` or `"int4"`. `"int8"`: matrices as
            int8 with float32 scales in `PATH:scale` (see `labse_tf.quantization`),
            other weights as float16. `"int4"`: the token table in 4 bits, as uint8
            codes with float16 scales in `PATH:scale`; a kernel in 4 bits if all its
            values are restored exactly, otherwise as int8; the position table and
            other weights as float32.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If the storage type is unknown, a value is too large for float16, a
            matrix is not finite and `storage` is `"int8"` or `"int4"`, or the width of
            the token table is not a multiple of 32 and `storage` is `"int4"`.
    """
    import h5py

    check_storage(storage)
    with h5py.File(path, "w") as file:
        for name, weight in weights.items():
            shape = tuple(weight.shape)
            matrix = name.endswith(_BY_CHANNEL.get(storage, ()))
            if storage == "int4" and name.endswith(TOKEN_TABLE):
                _write_packed(file, name, shape, _packed_rows(name, weight))
            elif storage == "int4" and (exact := _exact_groups(name, weight)):
                _write_packed(file, name, shape, [((), *exact)])
            elif matrix and channel_axes(name, shape) is not None:
                _write_channels(file, name, weight)
            else:
                half = storage in ("float16", "int8")
                kind = "float16" if half else "float32"
                dataset = file.create_dataset(name, shape, kind)
                for rows, block in _blocks_of_rows(weight):
                    dataset[rows] = _half(name, block) if half else block


def _write_channels(file: Any, name: str, weight: Any) -> None:
    """Write a matrix as int8 codes and scales."""
    shape = tuple(weight.shape)
    dataset = file.create_dataset(name, shape, "int8")
    scales = file.create_dataset(
        f"{name}:{_SCALE}", scale_shape(name, shape), "float32"
    )
    # The scale of a channel is that of all its rows.
    whole = channel_axes(name, shape) != (0,)
    for rows, block in _blocks_of_rows(weight, whole=whole):
        dataset[rows], scales[() if whole else rows] = quantize(name, block)


def _write_packed(
    file: Any,
    name: str,
    shape: tuple[int, ...],
    parts: Iterable[tuple[Any, np.ndarray, np.ndarray]],
) -> None:
    """Write rows, codes and scales of a weight in 4 bits."""
    shapes = packed_shapes(name, shape)
    if shapes is None:
        raise ValueError(
            "`storage` can be 'int4' only if the width of the token table is a "
            f"multiple of {GROUP}. Received: {name} of shape {shape}"
        )
    dataset = file.create_dataset(name, shapes[0], "uint8")
    scales = file.create_dataset(f"{name}:{_SCALE}", shapes[1], "float16")
    for rows, codes, some in parts:
        dataset[rows], scales[rows] = codes, some


def _packed_rows(name: str, table: Any) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """Yield the rows of a table in 4 bits, with their index in a data set."""
    for rows, block in _blocks_of_rows(table):
        try:
            yield rows, *quantize_groups(block)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def _exact_groups(name: str, weight: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return a kernel in 4 bits; `None` if a value would change."""
    if packed_shapes(name, tuple(weight.shape)) is None:
        return None
    channels = to_channels(name, np.asarray(weight))
    try:
        codes, scales = quantize_groups(channels)
    except ValueError:
        return None
    exact = (dequantize_groups(codes, scales) == channels).all()
    return (codes, scales) if exact else None


def _blocks_of_rows(
    weight: Any, *, whole: bool = False
) -> Iterator[tuple[Any, np.ndarray]]:
    """Yield the rows of a weight with their index in a data set, in blocks."""
    shape = tuple(weight.shape)
    if whole or not shape:
        yield (), np.asarray(weight)
        return
    bounds = block_bounds(shape, "float32")
    for (start, stop), block in zip(bounds, read_blocks(weight), strict=True):
        yield slice(start, stop), block


def _half(name: str, array: np.ndarray) -> np.ndarray:
    """Cast a weight to float16; raise an error if it overflows."""
    with np.errstate(over="ignore"):
        half = np.asarray(array, dtype=np.float16)
    if np.isfinite(array).all() and not np.isfinite(half).all():
        raise ValueError(
            "Weights must not exceed 65,504, the maximum of float16. "
            f"Received: {np.abs(array).max():g} in {name}"
        )
    return half


def assign_weights(path: Path, variables: Mapping[str, Any]) -> None:
    """Assign variables from the weights in a file, of any storage type.

    The file determines the type of each weight: a matrix may be float, int8 with
    scales, or 4 bits with scales. (Version 0.1 stored only the token table as int8.)
    Large weights are read in blocks of rows, without a copy of them.

    Args:
        path: HDF5 file.
        variables: Weight path -> float32 Keras variable.

    Raises:
        ValueError: If the file is not HDF5, or weights are missing, unexpected, of
            another shape or not finite, or the scales of integers are missing. The
            message names the first such weight. Some variables may have been assigned.
    """
    import h5py

    expected = {name: tuple(weight.shape) for name, weight in variables.items()}
    for name, shape in list(expected.items()):
        scales = scale_shape(name, shape)
        if scales is not None:
            expected[f"{name}:{_SCALE}"] = scales
    packed = {
        name: shapes
        for name, weight in variables.items()
        if (shapes := packed_shapes(name, tuple(weight.shape))) is not None
    }
    readable = {name: {shape} for name, shape in expected.items()}
    for name, (codes, scales) in packed.items():
        readable[name].add(codes)
        readable[f"{name}:{_SCALE}"].add(scales)
    found: dict[str, tuple[int, ...]] = {}
    integers: set[str] = set()

    def collect(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        found[name] = item.shape
        # A damaged file may declare terabytes, so only expected shapes are read.
        if item.shape in readable.get(name, ()):
            if item.dtype.kind not in "fiu":
                raise ValueError(f"{name} of type {item.dtype}, which is not numeric")
            if item.dtype.kind != "f":
                if item.shape != expected.get(name) and item.dtype != np.uint8:
                    raise ValueError(f"{name} of type {item.dtype}, not uint8")
                integers.add(name)

    with _reading(path):
        file = h5py.File(path, "r")
    with file:
        with _reading(path):
            file.visititems(collect)
        packed = {
            name: shapes
            for name, shapes in packed.items()
            if found.get(name) == shapes[0]
        }
        for name, (codes, scales) in packed.items():
            expected[name], expected[f"{name}:{_SCALE}"] = codes, scales
        _check_datasets(path, expected, found, integers)
        for name, variable in variables.items():
            if name in packed:
                shape = tuple(variable.shape)
                blocks = _read_packed(path, file, name, shape)
            else:
                blocks = _read_rows(path, file, name, name in integers)
            assign_blocks(variable, blocks)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raise the errors of reading an HDF5 file as errors that name the file."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected an HDF5 file of weights. Received: {error}"
        ) from error


def _read_rows(
    path: Path, file: Any, name: str, has_scales: bool
) -> Iterator[np.ndarray]:
    """Yield a weight as float32, in blocks of rows."""
    dataset, scales = file[name], None
    if has_scales:
        scale = f"{name}:{_SCALE}"
        with _reading(path):
            scales = np.asarray(file[scale][()], dtype=np.float32)
        _check_finite(path, scale, scales)
    for start, stop in block_bounds(dataset.shape, "float32"):
        rows = slice(start, stop) if dataset.shape else ()
        with _reading(path):
            block = np.asarray(dataset[rows], dtype=np.float32)
        _check_finite(path, name, block)
        if scales is not None:
            with np.errstate(over="ignore"):
                block *= scales[rows] if len(scales) == len(dataset) else scales
            _check_finite(path, name, block)
        yield block


def _read_packed(
    path: Path, file: Any, name: str, shape: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """Yield a weight in 4 bits as float32, in blocks of rows."""
    bounds = block_bounds(shape, "float32")

    def values(rows: slice) -> np.ndarray:
        scale = f"{name}:{_SCALE}"
        with _reading(path):
            codes, scales = file[name][rows], file[scale][rows]
        _check_finite(path, scale, scales)
        with np.errstate(over="ignore"):
            found = dequantize_groups(codes, scales)
        _check_finite(path, name, found)
        return found

    if channel_axes(name, shape) == (0,):
        for start, stop in bounds:
            yield values(slice(start, stop))
        return
    # The inputs of a channel are in all rows of a kernel.
    kernel = np.ascontiguousarray(from_channels(name, values(slice(None)), shape))
    for start, stop in bounds:
        yield kernel[start:stop]


def _check_finite(path: Path, name: str, array: np.ndarray) -> None:
    """Raise an error if a weight is not finite."""
    # Unlike `isfinite`, `min` and `max` need no memory of the array's size.
    if not np.isfinite([array.min(), array.max()]).all():
        raise ValueError(
            f"{path}: expected finite numbers. Received: NaN or infinity in {name}"
        )


def _check_datasets(
    path: Path,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    integers: set[str],
) -> None:
    """Raise an error for weights that are missing, unexpected or of another shape."""
    weights = {name for name in expected if not name.endswith(f":{_SCALE}")}
    for problem, names in (
        ("no such weight", sorted(weights - set(found))),
        ("an unexpected weight", sorted(set(found) - set(expected))),
    ):
        if names:
            raise ValueError(
                f"{path}: expected the {len(weights)} weights that {CONFIG} describes. "
                f"Received: {problem}: {names[0]}"
                + (f" and {len(names) - 1} more" if len(names) > 1 else "")
            )
    for name in [name for name in expected if name in found]:
        scale = f"{name}:{_SCALE}"
        has_codes = name in integers
        if has_codes and scale not in expected:
            raise ValueError(
                f"{path}: expected floating-point numbers in {name}. Received: integers"
            )
        if has_codes and found.get(scale) != expected[scale]:
            raise ValueError(
                f"{path}: expected scales of shape {expected[scale]} for {name}, which "
                f"has integers. Received: {found.get(scale)}"
            )
        if scale in found and not has_codes and found[name] == expected[name]:
            raise ValueError(
                f"{path}: expected integers in {name}, which has scales. Received: "
                "floating-point numbers"
            )
        if found[name] != expected[name]:
            raise ValueError(
                f"{path}: expected {name} of shape {expected[name]}. "
                f"Received: {found[name]}"
            )


@contextmanager
def writing(directory: str | Path, config: dict[str, Any]) -> Iterator[Path]:
    """Write a preset atomically.

    The block writes the vocabulary and the weights into a temporary folder next to the
    target. At exit, hashes, card and configuration are added. A new preset is moved
    file by file, the configuration last; an existing preset is exchanged as a whole.
    If the block fails, the target is unchanged.

    Args:
        directory: The target, created if needed. Other files in it are kept.
        config: `backbone`, `pooling`, `preprocessor`, `tokenizer`, `storage`.

    Yields:
        The temporary folder.

    Raises:
        OSError: If the target cannot be written.
    """
    from labse_tf import __version__

    target = directory_of(directory)
    with directory_beside(target) as folder:
        yield folder
        whole = {
            "format": _FORMAT,
            "format_version": _FORMAT_VERSION,
            "labse_tf_version": __version__,
            **config,
            "sha256": {path.name: sha256(path) for path in sorted(folder.iterdir())},
        }
        if not (target / CARD).exists():
            (folder / CARD).write_text(
                _card(Path(directory).name, whole), encoding="utf-8"
            )
        text = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")
        _publish(folder, target)


def _publish(folder: Path, target: Path) -> None:
    """Move a new preset to its target, whose other files are kept."""
    new = sorted(folder.iterdir(), key=lambda path: path.name == CONFIG)
    if is_preset(target):
        # A mount point cannot be renamed, and some systems have no hard links.
        with suppress(OSError):
            # A process keeps its current directory when this is renamed.
            if not Path.cwd().is_relative_to(target.resolve()):
                _exchange(folder, target)
                return
    target.mkdir(exist_ok=True)
    # A directory without a configuration is not a preset, so a power failure between
    # two moves cannot leave a mixture of the old and the new preset.
    (target / CONFIG).unlink(missing_ok=True)
    for path in new:
        os.replace(path, target / path.name)


def _exchange(folder: Path, target: Path) -> None:
    """Exchange a new preset with an existing preset, whose other files are kept."""
    new = {path.name for path in folder.iterdir()}
    kept = [path for path in target.iterdir() if path.name not in new]
    # Hard links, so that the lock of a run stays the same file.
    for path in kept:
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(
                path, folder / path.name, symlinks=True, copy_function=os.link
            )
        else:
            os.link(path, folder / path.name, follow_symlinks=False)
    folder.chmod(stat.S_IMODE(target.stat().st_mode))
    exchange(folder, target)


def record_source(directory: Path, source: Mapping[str, Any]) -> None:
    """Record the source of the weights in a preset's configuration and card.

    `source` has strings, and `sha256` of the converted files.
    """
    config = {**read_config(directory), "source": dict(source)}
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    rows = [
        f"| {key} | {value} |"
        for key, value in source.items()
        if not isinstance(value, Mapping)
    ]
    rows += [f"| sha256 of {n} | `{h}` |" for n, h in source.get("sha256", {}).items()]
    card = (directory / CARD).read_text(encoding="utf-8").rstrip()
    section = "\n".join(["## Source", "", "| property | value |", "|---|---|", *rows])
    write_text(directory / CARD, f"{card}\n\n{section}\n")
    write_text(directory / CONFIG, text)


def _card(name: str, config: dict[str, Any]) -> str:
    """Return a model card that describes the model and its use."""
    backbone, stored = config["backbone"], config.get("storage", "float32")
    weights = _IN_WORDS[stored]
    if "base" in config:
        weights = f"adapters (LoRA) of the preset `{config['base']['preset']}`"
    return f"""# {name}

A sentence encoder saved by labse_tf {config["labse_tf_version"]}.

| property | value |
|---|---|
| layers | {backbone["num_layers"]} |
| hidden dimension | {backbone["hidden_dim"]} |
| vocabulary | {backbone["vocabulary_size"]:,} |
| pooling | {config["pooling"]} |
| sequence length | {config["preprocessor"]["sequence_length"]} |
| weights on disk | {weights} |

```python
import labse_tf

model = labse_tf.LaBSE.from_preset("{name}")  # or the path of this directory
vectors = model.encode(["Hello, world.", "नमस्ते दुनिया"])
```
"""
