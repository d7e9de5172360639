"""What the encoder needs and KerasHub lacks: packed attention and pooling.

Shapes: B = batch, T = length in tokens, D = hidden dimension. Everything here is
`keras.ops` and runs on any Keras backend.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

POOLINGS = ("pooler", "cls", "mean")


def compute_policy(
    dtype: str | keras.DTypePolicy | None,
) -> keras.DTypePolicy:
    """Turns a compute type into a policy that keeps variables in float32.

    Args:
        dtype: `"float32"`, `"bfloat16"` or `"float16"` (also their `mixed_` names,
            or a policy, which is returned as it is). `None` is float32.

    Returns:
        A `keras.DTypePolicy` whose variables are float32.

    Raises:
        ValueError: If the name is none of these.

    Example:
        >>> from labse_tf.layers import compute_policy
        >>> compute_policy("bfloat16").compute_dtype
        'bfloat16'
        >>> compute_policy("bfloat16").variable_dtype
        'float32'
    """
    if dtype is None:
        return keras.DTypePolicy("float32")
    if not isinstance(dtype, str):
        return dtype
    names = {
        "float32": "float32",
        "bfloat16": "mixed_bfloat16",
        "mixed_bfloat16": "mixed_bfloat16",
        "float16": "mixed_float16",
        "mixed_float16": "mixed_float16",
    }
    if dtype not in names:
        raise ValueError(
            "`dtype` is the compute type: expected 'float32', 'bfloat16' or "
            f"'float16'. Received: dtype={dtype!r}"
        )
    return keras.DTypePolicy(names[dtype])


@keras.saving.register_keras_serializable(package="labse_tf")
class PackedAttentionMask(keras.layers.Layer):
    """Lets a token attend only to tokens of its own sequence in a packed row.

    Without `sequence_ids` (rows that hold one sequence) the answer is `None` and
    the padding mask alone decides, which is cheaper by a factor of T.

    Call arguments:
        padding_mask: int `(B, T)`, 1 for a token and 0 for padding.
        sequence_ids: int `(B, T)` or `None`; equal numbers belong together.

    Returns:
        Bool `(B, T, T)`, true where the row's query may see the column's key, or
        `None`.
    """

    def call(self, padding_mask: Any, sequence_ids: Any | None = None) -> Any | None:
        """See the class."""
        if sequence_ids is None:
            return None
        same = ops.equal(
            ops.expand_dims(sequence_ids, 2), ops.expand_dims(sequence_ids, 1)
        )  # (B, T, T)
        real = ops.cast(ops.expand_dims(padding_mask, 1), "bool")  # (B, 1, T)
        return ops.logical_and(same, real)

    def compute_output_spec(
        self, padding_mask: Any, sequence_ids: Any | None = None
    ) -> keras.KerasTensor:
        """The mask's shape; the symbolic graph always has the packed case."""
        batch, length = padding_mask.shape
        return keras.KerasTensor((batch, length, length), dtype="bool")


@keras.saving.register_keras_serializable(package="labse_tf")
class SentencePooling(keras.layers.Layer):
    """One unit vector a sentence from the encoder's outputs.

    Args:
        pooling: `"pooler"`: BERT's dense + tanh on [CLS], as in the released
            LaBSE weights; `"cls"`: [CLS] of the last layer, as the paper's text
            says (section 2); `"mean"`: the mean over all tokens that are no padding,
            [CLS] and [SEP] among them, so that an empty text has a vector too.
        **kwargs: `name` and other arguments of `keras.layers.Layer`.

    Call arguments:
        sequence_output: float `(B, T, D)`.
        pooled_output: float `(B, D)`.
        padding_mask: int `(B, T)`.

    Returns:
        float32 `(B, D)` of length 1, whatever the compute type.

    Raises:
        ValueError: If `pooling` is none of the three.

    References:
        Feng et al., 2022, section 2 (https://arxiv.org/abs/2007.01852).
    """

    def __init__(self, pooling: str = "pooler", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if pooling not in POOLINGS:
            raise ValueError(
                f"`pooling` must be one of {POOLINGS}. Received: pooling={pooling!r}"
            )
        self.pooling = pooling

    def call(self, sequence_output: Any, pooled_output: Any, padding_mask: Any) -> Any:
        """See the class."""
        if self.pooling == "pooler":
            vectors = ops.cast(pooled_output, "float32")
        elif self.pooling == "cls":
            vectors = ops.cast(sequence_output[:, 0, :], "float32")
        else:
            states = ops.cast(sequence_output, "float32")
            weights = ops.cast(padding_mask, "float32")[:, :, None]  # (B, T, 1)
            # The sum points where the mean does; the length is divided out below.
            vectors = ops.sum(states * weights, axis=1)
        return l2_normalize(vectors)

    def compute_output_spec(
        self, sequence_output: Any, pooled_output: Any, padding_mask: Any
    ) -> keras.KerasTensor:
        """Float32 `(B, D)`."""
        return keras.KerasTensor(pooled_output.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "pooling": self.pooling}


def l2_normalize(vectors: Any) -> Any:
    """Scales rows to length 1.

    Args:
        vectors: float `(..., D)`.

    Returns:
        The same shape. A row of zeros stays zeros and its gradient is finite.

    Example:
        >>> import numpy as np
        >>> from labse_tf.layers import l2_normalize
        >>> vectors = np.array([[3.0, 4.0]], dtype="float32")
        >>> [round(float(x), 4) for x in l2_normalize(vectors)[0]]
        [0.6, 0.8]
    """
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(squares, 1e-24))


@keras.saving.register_keras_serializable(package="labse_tf")
def gelu_approximate(x: Any) -> Any:
    """GELU by tanh, as the official BERT code computes it.

    It differs from the exact one, which `activation="gelu"` means, by up to
    5e-4 a unit.
    """
    return keras.activations.gelu(x, approximate=True)


def sentence_fingerprints(token_ids: Any, padding_mask: Any) -> Any:
    """Hashes each row of token ids, so that equal sentences are found as equal.

    Padding does not count, so a sentence has one fingerprint whatever the batch
    it is padded with. Two 32-bit sums of a mixed (token, position) pair: two
    different sentences collide once in about 2 ** 64 pairs.

    Args:
        token_ids: int32 `(B, T)`.
        padding_mask: int32 `(B, T)`, 1 for a token and 0 for padding.

    Returns:
        int32 `(B, 2)`.

    Example:
        >>> import numpy as np
        >>> from labse_tf.layers import sentence_fingerprints
        >>> ids = np.array([[2, 7, 3, 0], [2, 7, 3, 9]], "int32")
        >>> mask = np.array([[1, 1, 1, 0], [1, 1, 1, 0]], "int32")
        >>> first, second = np.asarray(sentence_fingerprints(ids, mask)).tolist()
        >>> first == second
        True
    """
    token_ids = ops.cast(token_ids, "int32")
    padding_mask = ops.cast(padding_mask, "int32")
    positions = ops.arange(ops.shape(token_ids)[1], dtype="int32")[None, :] + 1
    columns = []
    # Odd multipliers with no pattern in their bits; int32 arithmetic wraps around.
    for token_factor, position_factor in (
        (-1640531527, 668265263),
        (-2048144789, 374761393),
    ):
        mixed = _mix_bits(token_ids * token_factor + positions * position_factor)
        columns.append(_mix_bits(ops.sum(mixed * padding_mask, axis=1)))
    return ops.stack(columns, axis=1)


def _mix_bits(x: Any) -> Any:
    """Spreads each bit of an int32 over all 32 (MurmurHash3's finaliser)."""
    x = ops.bitwise_xor(x, ops.right_shift(x, 16)) * -2048144789
    x = ops.bitwise_xor(x, ops.right_shift(x, 13)) * -1028477387
    return ops.bitwise_xor(x, ops.right_shift(x, 16))
