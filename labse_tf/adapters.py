"""Adapters: low-rank weights that are trained beside frozen kernels (LoRA).

A layer with the kernel W computes `x W + (alpha / rank) x A B`. Only A and B are
trained. At the start B is zero, so that the model computes the same function. After
training, `W + (alpha / rank) A B` can replace W (`labse_tf.LaBSE.merged`).

A file of adapters has A and B of all layers by path, in HDF5, and the settings as JSON
in the attribute `lora`. A preset of adapters has such a file instead of vocabulary and
weights:

    config.json        as in any preset, and `base`: the place of the preset that the
                       adapters were trained on, and the SHA-256 of its files
    adapters.lora.h5   A and B
    README.md          the model card

References:
    Hu et al., 2021 (https://arxiv.org/abs/2106.09685).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labse_tf import presets
from labse_tf.files import directory_of
from labse_tf.settings import check_integer

# Names of the layers of a transformer block that can have low-rank weights.
LAYERS = (
    "query",
    "key",
    "value",
    "attention_output",
    "feedforward_intermediate_dense",
    "feedforward_output_dense",
)
KERNEL_A, KERNEL_B = "lora_kernel_a", "lora_kernel_b"
FILE = "adapters.lora.h5"


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Settings of the low-rank weights of a backbone.

    Args:
        rank: Rank of the products A B.
        alpha: The products are multiplied by `alpha / rank` (default: twice the rank).
        target_layer_names: Names in `LAYERS` of the layers of each block that have such
            weights (default: all of them).
        first_block: Number of blocks, from the first, that have no such weights.

    Raises:
        ValueError: If `rank` or `alpha` is not positive, `target_layer_names` is empty
            or has an unknown name, or `first_block` is negative.

    Example:
        >>> from labse_tf.adapters import LoRA
        >>> LoRA(8).scale
        2.0
    """

    rank: int
    alpha: float | None = None
    target_layer_names: tuple[str, ...] = LAYERS
    first_block: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        check_integer("rank", self.rank, smallest=1)
        check_integer("first_block", self.first_block, smallest=0)
        alpha = 2.0 * self.rank if self.alpha is None else self.alpha
        if not (isinstance(alpha, (int, float)) and 0 < alpha < math.inf):
            raise ValueError(f"`alpha` must be positive. Received: alpha={alpha!r}")
        names = tuple(self.target_layer_names)
        if not names or set(names) - set(LAYERS):
            raise ValueError(
                f"`target_layer_names` must be some of {', '.join(LAYERS)}. "
                f"Received: {', '.join(map(str, names)) or 'none'}"
            )
        object.__setattr__(self, "rank", int(self.rank))
        object.__setattr__(self, "alpha", float(alpha))
        object.__setattr__(self, "target_layer_names", names)

    @property
    def scale(self) -> float:
        """Factor of the products A B."""
        return float(self.alpha or 0.0) / self.rank

    def count_parameters(self, sizes: Mapping[str, Any]) -> int:
        """Return the number of low-rank parameters.

        Args:
            sizes: `num_layers`, `hidden_dim` and `intermediate_dim` of the backbone.

        Example:
            >>> from labse_tf.adapters import LoRA
            >>> from labse_tf.presets import FAMILY
            >>> LoRA(8).count_parameters(FAMILY["labse"].backbone)
            1327104
        """
        width, inner = sizes["hidden_dim"], sizes["intermediate_dim"]
        both = [
            width + (inner if name.startswith("feedforward") else width)
            for name in self.target_layer_names
        ]
        blocks = max(0, sizes["num_layers"] - self.first_block)
        return blocks * self.rank * sum(both)


def write_adapters(path: Path, lora: LoRA, weights: Mapping[str, Any]) -> None:
    """Write a file of adapters.

    Args:
        path: Target file, which is replaced.
        lora: Settings of the weights.
        weights: Weight path -> Keras variable or array.

    Raises:
        OSError: If the file cannot be written.
    """
    import h5py

    presets.write_weights(path, weights)
    with h5py.File(path, "a") as file:
        file.attrs["lora"] = json.dumps(dataclasses.asdict(lora))


def read_settings(path: Path) -> LoRA:
    """Return the settings in a file of adapters.

    The weights are read by `labse_tf.presets.assign_weights`.

    Raises:
        ValueError: If the file is missing or not a file of adapters.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            values = json.loads(file.attrs["lora"])
        return LoRA(**values)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected an HDF5 file of adapters. Received: {error}"
        ) from error


# === Presets of adapters ===


@contextmanager
def writing(
    directory: str | Path, config: Mapping[str, Any], base: str | Path
) -> Iterator[Path]:
    """Write a preset of adapters atomically.

    The block writes `FILE` into a temporary folder; see `labse_tf.presets.writing`.

    Args:
        directory: The target. Other files in it are kept.
        config: `backbone`, `pooling`, `preprocessor` and `tokenizer` of the model.
        base: Preset that the adapters were trained on. The reference to a directory is
            relative to the target, so that both can be moved together.

    Yields:
        The temporary folder.

    Raises:
        ValueError: If the base does not exist, has another shape or tokenizer, is
            itself a preset of adapters, or is the target.
        OSError: If the target cannot be written.
    """
    place, known = _read_base(base)
    for section in ("backbone", "pooling", "tokenizer"):
        ours, theirs = (_without_dropout(c[section]) for c in (config, known))
        if ours != theirs:
            raise ValueError(
                f"`base` must be a preset with {section} {ours}. "
                f"Received: {theirs} in {place}"
            )
    target = os.path.realpath(directory_of(directory))
    if os.path.realpath(place) == target:
        raise ValueError(
            "`directory` must not be `base`, which the adapters need. "
            f"Received: {directory}"
        )
    reference = str(base)
    if presets.is_preset(reference):
        reference = Path(os.path.relpath(os.path.realpath(place), target)).as_posix()
    whole = {
        **config,
        "storage": known.get("storage", "float32"),
        "base": {"preset": reference, "sha256": known["sha256"]},
    }
    with presets.writing(directory, whole) as folder:
        yield folder


def with_base(
    directory: Path, config: Mapping[str, Any], base: str | Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """Find the vocabulary and the weights of a preset that may be one of adapters.

    Args:
        directory: The preset.
        config: Its configuration, from `labse_tf.presets.read_config`.
        base: Preset that the adapters were trained on, if it is not where the
            configuration specifies.

    Returns:
        The directory with vocabulary and weights: that of the base, or `directory` for
        a preset without adapters. And the configuration with the hashes of its files.

    Raises:
        ValueError: If the base is missing, damaged or another preset than the one that
            the adapters were trained on.
    """
    if "base" not in config:
        if base is not None:
            raise ValueError(
                "`base` must be None for a preset that has all weights. Received: "
                f"base={str(base)!r} for {directory}"
            )
        return directory, dict(config)
    path = directory / presets.CONFIG
    reference = config["base"]
    place = reference.get("preset") if isinstance(reference, dict) else None
    if not isinstance(place, str) or not isinstance(reference.get("sha256"), dict):
        raise ValueError(
            f"{path}: expected base to be an object with preset and sha256. "
            f"Received: {reference!r:.80}"
        )
    if base is None:
        beside = directory / place
        base = beside if presets.is_preset(beside) else place
    try:
        found, known = _read_base(base)
    except ValueError as error:
        raise ValueError(
            f"{path}: expected the preset {place} that the adapters were trained on; "
            "if it was moved, give its place as `base` of `LaBSE.from_preset`, or as "
            f'"preset" of "base" in this file. Received: {error}'
        ) from error
    for name, digest in reference["sha256"].items():
        received = known["sha256"].get(name, "no such file")
        if received != digest:
            raise ValueError(
                f"{found}: expected the preset that the adapters in {directory} were "
                f"trained on, with {name} of the SHA-256 {digest!s:.12}…. "
                f"Received: {received:.12}…"
            )
    return found, {**config, "sha256": known["sha256"]}


def check_base(base: str | Path) -> None:
    """Check that adapters of a preset can be saved apart.

    Raises:
        ValueError: If the preset does not exist or is a preset of adapters.
    """
    _read_base(base)


def _read_base(base: str | Path) -> tuple[Path, dict[str, Any]]:
    """Return the directory and the configuration of a preset without adapters."""
    place = presets.find(base)
    config = presets.read_config(place)
    if "base" in config:
        raise ValueError(
            f"{place}: expected a preset with all weights; `labse-tf convert {place} "
            "--output DIR` merges adapters. Received: a preset of adapters"
        )
    return place, config


def _without_dropout(section: Any) -> Any:
    """Return a section of a configuration without what training may change."""
    if not isinstance(section, Mapping):
        return section
    return {name: value for name, value in section.items() if name != "dropout"}
