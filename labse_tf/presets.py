"""Presets: a model as a directory of four files, found by name or by path.

Models come with the package (`shipped_names`) or are published elsewhere (`FAMILY`) and
become presets by `labse-tf convert NAME`.

    config.json        constructor arguments, and the sha256 of the files below
    vocab.txt          one token a line
    model.weights.h5   weights by path, in float32 or a smaller storage type
    README.md          the model card

`config.json` is moved into place last, so a directory that has it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labse_tf.files import directory_beside, write_text
from labse_tf.languages import LABSE_LANGUAGES, language_code

CONFIG = "config.json"
VOCABULARY = "vocab.txt"
WEIGHTS = "model.weights.h5"
CARD = "README.md"

# How weights lie on the disk; variables are float32 whatever this is.
STORAGES = ("float32", "float16", "int8")

_FORMAT = "labse_tf preset"
_FORMAT_VERSION = 1
# What a configuration must have, and as what.
_SECTIONS = {
    "backbone": dict,
    "pooling": str,
    "preprocessor": dict,
    "tokenizer": dict,
    "sha256": dict,
}
# The one weight that `int8` stores so; in LaBSE it is 82 % of all.
_TABLE = "token_embedding/embeddings"
_SCALE = "scale"

# === The family ===


@dataclass(frozen=True)
class Origin:
    """A place that a published model can be downloaded from.

    Attributes:
        hub: `"huggingface"` or `"kaggle"`, where the models of TF Hub are now.
        handle: Name of the model there.
        vocabulary: Handle of the preprocessing SavedModel that has the vocabulary,
            where the model's own has none.
    """

    hub: str
    handle: str
    vocabulary: str | None = None

    @property
    def url(self) -> str:
        """The page of the model, for people."""
        return _page(self.hub, self.handle)

    @property
    def vocabulary_url(self) -> str | None:
        """The page of the preprocessing SavedModel."""
        return None if self.vocabulary is None else _page(self.hub, self.vocabulary)


def _page(hub: str, handle: str) -> str:
    """The address of a model's page."""
    if hub == "huggingface":
        return f"https://huggingface.co/{handle}"
    owner, model, framework, variation = handle.split("/")
    return f"https://www.kaggle.com/models/{owner}/{model}/{framework}/{variation}"


@dataclass(frozen=True)
class PublishedModel:
    """A model of the LaBSE family that others have published.

    Attributes:
        backbone: Shape, as arguments of `labse_tf.LaBSEBackbone`.
        sequence_length: Most tokens a sentence, as its origin has it.
        languages: Codes of those that it was trained on.
        licence: SPDX name.
        origins: Where to get it, the best first.
        paper: Address.
    """

    backbone: dict[str, Any]
    sequence_length: int
    languages: tuple[str, ...]
    licence: str
    origins: tuple[Origin, ...]
    paper: str

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return count_parameters(self.backbone)


def count_parameters(sizes: Mapping[str, Any]) -> int:
    """Count the numbers of an encoder of some shape, without making it.

    Args:
        sizes: Arguments of `labse_tf.LaBSEBackbone`.

    Returns:
        As `LaBSEBackbone(**sizes).count_params()`.
    """
    width, inner = sizes["hidden_dim"], sizes["intermediate_dim"]
    tables = sizes["vocabulary_size"] + sizes["max_sequence_length"]
    tables += sizes["num_segments"]
    block = 4 * width * (width + 1) + 2 * width * inner + inner + width + 4 * width
    pooler = width * (width + 1)
    return tables * width + 2 * width + sizes["num_layers"] * block + pooler


def _shape(width: int, layers: int, heads: int, vocabulary: int) -> dict[str, Any]:
    """A BERT of this size: all of the family have four times as wide inner layers."""
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
    """A LEALLA: 24 narrow layers that were taught by LaBSE."""
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
    # LaBSE with the tokens of 15 languages (arXiv 2010.05609 says how).
    "smaller-labse": PublishedModel(
        backbone=_shape(768, 12, 12, 173_347),
        sequence_length=512,
        languages=tuple("ar de en es fr it ja ko nl pl pt ru th tr zh".split()),
        licence="Apache-2.0",
        origins=(Origin("huggingface", "setu4993/smaller-LaBSE"),),
        paper=_LABSE_PAPER,
    ),
}

# === Presets on the disk ===


def shipped_directory() -> Path:
    """Return the folder of the models that come with the package.

    In a checkout it is `saved_models/` beside the package, in an installed wheel
    `labse_tf/saved_models/`.
    """
    package = Path(__file__).resolve().parent
    installed = package / "saved_models"
    return installed if installed.is_dir() else package.parent / "saved_models"


def shipped_names() -> list[str]:
    """Return the names of the models that come with the package, sorted."""
    folder = shipped_directory()
    if not folder.is_dir():
        return []
    return sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))


def find(preset: str | Path) -> Path:
    """Find a preset by name or path.

    Args:
        preset: A directory that holds `config.json`, or a name in
            `shipped_names()`. A directory goes first.

    Returns:
        The preset's directory.

    Raises:
        ValueError: If it is neither; the message lists the names there are, and for
            a name in `FAMILY` says how to fetch it.
    """
    directory = Path(preset)
    if is_preset(directory):
        return directory
    if directory.is_dir():
        raise ValueError(
            f"{directory}: expected a preset, which holds {CONFIG}. "
            f"Received: a directory without it ({preset!s})"
        )
    if str(preset) in shipped_names():
        return shipped_directory() / str(preset)
    if str(preset) in FAMILY:
        raise ValueError(
            f"{preset} does not come with the package: fetch it once with `labse-tf "
            f"convert {preset} --output DIR` and load DIR. Received: {str(preset)!r}, "
            "a published model, and no directory of this name"
        )
    names = ", ".join(shipped_names()) or "none in this version"
    raise ValueError(
        "Expected a preset directory or the name of a shipped model "
        f"({names}). Received: {str(preset)!r}"
    )


def is_preset(directory: str | Path) -> bool:
    """Return whether a directory holds a complete preset."""
    return (Path(directory) / CONFIG).is_file()


def stated_languages(directory: str | Path) -> tuple[str, ...] | None:
    """Look up the languages that a model was trained on, where its files say it.

    Args:
        directory: A preset, or a Hugging Face directory.

    Returns:
        Canonical codes, from the front matter of its card (`language:`, as on Hugging
        Face), else from the row `| languages | ... |` of the card, else those of the
        model in `FAMILY` that it was converted from. None if nothing specifies them,
        or the card has anything but languages there, such as "multilingual".

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
    # Other files of this name have other things in them.
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _front_matter_languages(card: str) -> list[str]:
    """`language: hi`, `language: [hi, ta]` or a list below it, heading a card."""
    front = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", card, re.DOTALL)
    if front is None:
        return []
    found = re.search(
        r"^languages?:[ \t]*(.*(?:\n[ \t]*-[ \t]+.*)*)", front[1], re.MULTILINE
    )
    return re.findall(r"[A-Za-z][\w@-]*", found[1]) if found else []


def read_config(directory: Path) -> dict[str, Any]:
    """Read a preset's configuration and checks its files against their hashes.

    Args:
        directory: As `find` returns it.

    Returns:
        The configuration, with `backbone`, `pooling`, `preprocessor`, `tokenizer`.

    Raises:
        ValueError: If the file is no preset's, of a later format, or another file
            of the preset is missing or is not the one that was saved.
    """
    path = directory / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    # No UTF-8, no JSON, a number of 5,000 digits; brackets without end.
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
            f"{path}: expected format version {_FORMAT_VERSION}, a later labse_tf may "
            f"read this one. Received: {config.get('format_version')!r}"
        )
    missing = [key for key in _SECTIONS if key not in config]
    if missing:
        raise ValueError(
            f"{path}: expected the keys {', '.join(_SECTIONS)}. "
            f"Received: none for {', '.join(missing)}"
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
                f"{path}: expected names of files and their hashes under sha256. "
                f"Received: {name!r:.80}: {expected!r:.80}"
            )
        file = directory / name
        if not file.is_file():
            raise ValueError(
                f"{directory}: expected the file {name} beside {CONFIG}. "
                "Received: no such file"
            )
        received = sha256(file)
        if received != expected:
            raise ValueError(
                f"{file}: expected the file that was saved (sha256 "
                f"{expected[:12]}…); it is damaged or was changed. "
                f"Received: {received[:12]}…"
            )
    return config


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_weights(
    path: Path, arrays: Mapping[str, np.ndarray], storage: str = "float32"
) -> None:
    """Write weights under their paths, such as `token_embedding/embeddings`.

    Keras's own `.weights.h5` numbers layers by class; paths say what a weight is, to
    people and to other versions of Keras.

    Args:
        path: An HDF5 file, made anew.
        arrays: Weight path -> float32 array.
        storage: `"float32"`, `"float16"`, or `"int8"`: the token table as int8 with a
            float32 scale a row (the largest value of a row becomes 127), everything
            else as float16.

    Raises:
        OSError: If it cannot be written.
        ValueError: If there is no such storage type, or a value is beyond what
            float16 can hold.
    """
    import h5py

    if storage not in STORAGES:
        raise ValueError(
            f"`storage` must be one of {', '.join(STORAGES)}. Received: {storage!r}"
        )
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            if storage == "int8" and name.endswith(_TABLE):
                codes, scale = quantize_rows(array)
                file.create_dataset(name, data=codes)
                file.create_dataset(f"{name}:{_SCALE}", data=scale)
            elif storage == "float32":
                file.create_dataset(name, data=array)
            else:
                file.create_dataset(name, data=_half(name, array))


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round each row to 255 steps between its largest value and its negative.

    Args:
        table: float `(V, D)`.

    Returns:
        int8 `(V, D)` from -127 to 127, and float32 `(V, 1)`, whose product is the
        table to within half a step, 1/254 of the row's largest value. A row of zeros
        stays one.

    Raises:
        ValueError: If the table is not finite.

    Example:
        >>> import numpy as np
        >>> from labse_tf.presets import quantize_rows
        >>> codes, scale = quantize_rows(np.array([[1.0, -0.5, 0.25]]))
        >>> codes.tolist(), scale.shape
        ([[127, -64, 32]], (1, 1))
    """
    table = np.asarray(table, dtype=np.float32)
    if not np.isfinite(table).all():
        raise ValueError("`table` must be finite. Received: NaN or infinity in it")
    scale = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
    codes = np.rint(table / np.where(scale == 0, 1, scale)).astype(np.int8)
    return codes, scale


def _half(name: str, array: np.ndarray) -> np.ndarray:
    """Float16, unless that makes an infinity of a number."""
    with np.errstate(over="ignore"):
        half = np.asarray(array, dtype=np.float16)
    if np.isfinite(array).all() and not np.isfinite(half).all():
        raise ValueError(
            f"Weights up to 65,504 fit into float16. Received: {np.abs(array).max():g} "
            f"in {name}"
        )
    return half


def read_weights(
    path: Path, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Read the weights that a model has room for, whatever their storage type.

    Args:
        path: As `write_weights` made it.
        shapes: Weight path -> shape, of all weights of the model.

    Returns:
        Weight path -> float32 array.

    Raises:
        ValueError: If the file is no HDF5, or weights are missing, surplus, of
            another shape or not finite; the message names the first of them.
    """
    import h5py

    scales = {
        f"{name}:{_SCALE}": (shape[0], 1)
        for name, shape in shapes.items()
        if name.endswith(_TABLE)
    }
    expected = {**{name: tuple(shape) for name, shape in shapes.items()}, **scales}
    found: dict[str, tuple[int, ...]] = {}
    arrays: dict[str, np.ndarray] = {}
    integers: set[str] = set()

    def collect(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        found[name] = item.shape
        # A file may claim a shape of terabytes: only what has room is read.
        if item.shape == expected.get(name):
            if item.dtype.kind not in "fiu":
                raise ValueError(f"{name} of type {item.dtype}, no numbers")
            if item.dtype.kind != "f":
                integers.add(name)
            arrays[name] = np.asarray(item[()], dtype=np.float32)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected an HDF5 file of weights. Received: {error}"
        ) from error
    _check_datasets(path, expected, found, integers)
    for name, array in arrays.items():
        # Neither needs memory of its own, as `isfinite` would.
        if not np.isfinite([array.min(), array.max()]).all():
            raise ValueError(
                f"{path}: expected finite numbers. Received: NaN or infinity in {name}"
            )
    for name in scales.keys() & arrays.keys():
        arrays[name.removesuffix(f":{_SCALE}")] *= arrays.pop(name)
    return arrays


def _check_datasets(
    path: Path,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    integers: set[str],
) -> None:
    """Raise weights that are missing, surplus or of another shape."""
    weights = {name for name in expected if not name.endswith(f":{_SCALE}")}
    for problem, names in (
        ("no such weight", sorted(weights - set(found))),
        ("a weight that the model lacks", sorted(set(found) - set(expected))),
    ):
        if names:
            raise ValueError(
                f"{path}: expected the {len(weights)} weights that {CONFIG} describes. "
                f"Received: {problem}: {names[0]}"
                + (f" and {len(names) - 1} more" if len(names) > 1 else "")
            )
    for name in [name for name in expected if name in found]:
        scale = f"{name}:{_SCALE}"
        if name in integers and found.get(scale) != expected.get(scale, ()):
            raise ValueError(
                f"{path}: expected {name}, integers, with a scale a row. "
                f"Received: scales of shape {found.get(scale)}"
            )
        if found[name] != expected[name]:
            raise ValueError(
                f"{path}: expected {name} of shape {expected[name]}. "
                f"Received: {found[name]}"
            )


@contextmanager
def writing(directory: str | Path, config: dict[str, Any]) -> Iterator[Path]:
    """Write a preset atomically.

    The block fills an empty folder beside the target with the vocabulary and the
    weights. When it ends well, hashes, card and configuration are added and the
    files moved, the configuration last. When it fails, the target is untouched.

    Args:
        directory: The target; made if needed. Files that are not the preset's stay.
        config: `backbone`, `pooling`, `preprocessor`, `tokenizer`, `storage`.

    Yields:
        The folder to fill.

    Raises:
        OSError: If the target cannot be written.
    """
    from labse_tf import __version__

    target = Path(directory)
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
            (folder / CARD).write_text(_card(target.name, whole), encoding="utf-8")
        text = json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
        (folder / CONFIG).write_text(text, encoding="utf-8")
        target.mkdir(exist_ok=True)
        # A preset without its configuration is not read, so a power failure between
        # two moves cannot leave a mixture of the old and the new preset.
        (target / CONFIG).unlink(missing_ok=True)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == CONFIG):
            os.replace(path, target / path.name)


def record_source(directory: Path, source: Mapping[str, Any]) -> None:
    """Write into a preset where its weights are from.

    Args:
        directory: A preset.
        source: What `config.json` shall hold under `source`: strings, and `sha256` of
            the files that were converted.

    Raises:
        ValueError: If it is no preset.
        OSError: If it cannot be written.
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
    section = "\n".join(["## Source", "", "| | |", "|---|---|", *rows])
    write_text(directory / CARD, f"{card}\n\n{section}\n")
    write_text(directory / CONFIG, text)


def _card(name: str, config: dict[str, Any]) -> str:
    """A first model card: what the files are and how to use them."""
    backbone = config["backbone"]
    return f"""# {name}

A sentence encoder made with labse_tf {config["labse_tf_version"]}.

| | |
|---|---|
| layers | {backbone["num_layers"]} |
| hidden dimension | {backbone["hidden_dim"]} |
| vocabulary | {backbone["vocabulary_size"]:,} |
| pooling | {config["pooling"]} |
| sequence length | {config["preprocessor"]["sequence_length"]} |
| weights on disk | {config.get("storage", "float32")} |

```python
import labse_tf

model = labse_tf.LaBSE.from_preset("{name}")  # or the path of this directory
vectors = model.encode(["Hello, world.", "नमस्ते दुनिया"])
```
"""
