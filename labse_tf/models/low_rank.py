"""Layers whose kernel can have low-rank weights beside it; see `labse_tf.adapters`.

Shapes: N = rows, I = inputs, O = outputs, R = rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any

import keras
import numpy as np
from keras import ops

from labse_tf.adapters import KERNEL_A, KERNEL_B, LoRA


class LowRankLayer(keras.layers.Layer):
    """Base class of the layers with `kernel` and `bias` that support LoRA.

    The product `x A B` is computed from left to right, with R numbers per row between
    A and B. The layer has no matrix of the kernel's size but the kernel, neither for
    the outputs nor for the gradients.

    Attributes:
        lora_scale: Factor of `x A B`, or `None` without low-rank weights.
    """

    lora_scale: float | None = None

    def enable_lora(
        self,
        rank: int,
        lora_alpha: float | None = None,
        a_initializer: Any = "he_uniform",
        b_initializer: Any = "zeros",
    ) -> None:
        """Freeze kernel and bias, and add low-rank weights that are trained.

        Args:
            rank: R.
            lora_alpha: See `labse_tf.adapters.LoRA`.
            a_initializer: Initializer of A `(I, R)`.
            b_initializer: Initializer of B `(R, O)`.

        Raises:
            ValueError: If the layer has low-rank weights already.
        """
        self._check_plain()
        lora = LoRA(rank, lora_alpha)
        shape_a, shape_b = self.low_rank_shapes(rank).values()
        # Keras allows no new weights after `build`; its own layers do the same.
        self._tracker.unlock()
        self.lora_kernel_a = self.add_weight(
            name=KERNEL_A, shape=shape_a, initializer=a_initializer
        )
        self.lora_kernel_b = self.add_weight(
            name=KERNEL_B, shape=shape_b, initializer=b_initializer
        )
        self._tracker.lock()
        self.kernel.trainable = self.bias.trainable = False
        self.lora_scale = lora.scale

    def _check_plain(self) -> None:
        """Raise an error if the layer has low-rank weights."""
        if self.lora_scale is not None:
            raise ValueError(
                "Expected a layer without low-rank weights. "
                f"Received: {self.kernel.path}, which has them"
            )

    def low_rank_product(self, rows: Any) -> Any:
        """Return the scaled product of rows `(N, I)` with A and B, `(N, O)`."""
        short = ops.matmul(rows, self.lora_kernel_a) * self.lora_scale  # (N, R)
        return ops.matmul(short, self.lora_kernel_b)

    def merged_kernel(self) -> np.ndarray:
        """Return the kernel with the low-rank product added, float32."""
        weights = list(self.low_rank_weights().values())
        return merge(self.kernel, *weights, scale=self.lora_scale or 0.0)

    def low_rank_shapes(self, rank: int) -> dict[str, tuple[int, int]]:
        """Return the shapes of A and B by their paths, next to that of the kernel."""
        folder = self.kernel.path.removesuffix("kernel")
        outputs = prod(self.bias.shape)
        inputs = prod(self.kernel.shape) // outputs
        return {
            f"{folder}{KERNEL_A}": (inputs, rank),
            f"{folder}{KERNEL_B}": (rank, outputs),
        }

    def low_rank_weights(self) -> dict[str, Any]:
        """Return A and B by path."""
        weights = self.lora_kernel_a, self.lora_kernel_b
        return dict(zip(self.low_rank_shapes(0), weights, strict=True))


def merge(kernel: Any, a: Any, b: Any, *, scale: float) -> np.ndarray:
    """Return a kernel of any shape with `scale` times A B added, float32.

    Args:
        kernel: Kernel with I x O numbers.
        a: A, `(I, R)`.
        b: B, `(R, O)`.
        scale: Factor.

    Example:
        >>> import numpy as np
        >>> from labse_tf.models.low_rank import merge
        >>> a, b = np.array([[1.0], [2.0]]), np.array([[0.0, 3.0]])
        >>> merge(np.ones((2, 2), "float32"), a, b, scale=0.5).tolist()
        [[1.0, 2.5], [1.0, 4.0]]
    """
    matrix, a, b = (np.asarray(x, np.float32) for x in (kernel, a, b))
    return matrix + (a @ (b * np.float32(scale))).reshape(matrix.shape)


class LowRankDense(LowRankLayer, keras.layers.Dense):
    """Keras's dense layer, in which `x A B` is computed from left to right."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Apply the layer to rows `(N, I)`: `(N, O)`."""
        if self.lora_scale is None:
            return super().call(inputs, training=training)
        x = ops.matmul(inputs, self.kernel) + self.bias
        return self.activation(x + self.low_rank_product(inputs))

    def quantize(
        self, mode: str | None = None, type_check: bool = True, **kwargs: Any
    ) -> None:
        """Quantize the kernel; see `keras.layers.Dense.quantize`.

        Raises:
            ValueError: If the layer has low-rank weights.
        """
        self._check_plain()
        # Keras does not quantize subclasses, which may have another `call`. Without
        # low-rank weights this class has that of Keras.
        super().quantize(mode, type_check=False, **kwargs)

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Save all weights; Keras's own layer would not save A and B."""
        if self.lora_scale is None:
            super().save_own_variables(store)
        else:
            keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: dict[str, Any]) -> None:
        """Load the weights of `save_own_variables`."""
        if self.lora_scale is None:
            super().load_own_variables(store)
        else:
            keras.layers.Layer.load_own_variables(self, store)


class MergedWeights(Mapping[str, Any]):
    """Weights by path, in which low-rank weights are merged into the kernels.

    A kernel is merged when it is looked up, so that there is one at a time.

    Args:
        weights: Weights, without the low-rank ones.
        layers: Layers with low-rank weights.
    """

    def __init__(self, weights: Iterable[Any], layers: Iterable[LowRankLayer]) -> None:
        self._weights = {weight.path: weight for weight in weights}
        self._layers = {layer.kernel.path: layer for layer in layers}

    def __getitem__(self, path: str) -> Any:
        """Return a Keras variable, or the array of a merged kernel."""
        if path in self._layers:
            return self._layers[path].merged_kernel()
        return self._weights[path]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the paths."""
        return iter(self._weights)

    def __len__(self) -> int:
        """Return the number of weights."""
        return len(self._weights)
