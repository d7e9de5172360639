"""Adapters: low-rank weights that are trained beside frozen kernels (LoRA).

A layer with the kernel W computes `x W + (alpha / rank) x A B`. Only A and B are
trained. At the start B is zero, so that the model computes the same function. After
training, `W + (alpha / rank) A B` can replace W (`labse_tf.LaBSE.merged`).

A file of adapters has A and B of all layers by path, in HDF5, and the settings as JSON
in the attribute `lora`.

References:
    Hu et al., 2021 (https://arxiv.org/abs/2106.09685).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labse_tf import presets
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
