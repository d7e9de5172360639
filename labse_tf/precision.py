"""Precision: the types that a model computes in."""

from __future__ import annotations

from pathlib import Path

import keras


def computes_bfloat16() -> bool:
    """Whether what computes here has instructions for bfloat16.

    That is a TPU, a GPU (from NVIDIA's Ampere on), or a processor of the x86 kind with
    AVX-512 BF16 or AMX; others would take longer than for float32.
    """
    if keras.backend.backend() == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return True
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.config.list_logical_devices("TPU"):
            return True
        if gpus := tf.config.list_physical_devices("GPU"):
            details = tf.config.experimental.get_device_details(gpus[0])
            return details.get("compute_capability", (0, 0)) >= (8, 0)
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def compute_policy(
    dtype: str | keras.DTypePolicy | None,
) -> keras.DTypePolicy:
    """Turns a compute type into a policy that keeps variables in float32.

    Args:
        dtype: `"float32"`, `"bfloat16"` or `"float16"` (also their `mixed_` names,
            or a policy, which is returned as it is). `"auto"` is bfloat16 where this
            machine has instructions for it, and float32 elsewhere. `None` is float32.

    Returns:
        A `keras.DTypePolicy` whose variables are float32.

    Raises:
        ValueError: If the name is none of these.

    Example:
        >>> from labse_tf.precision import compute_policy
        >>> compute_policy("bfloat16").compute_dtype
        'bfloat16'
        >>> compute_policy("bfloat16").variable_dtype
        'float32'
    """
    if dtype is None:
        return keras.DTypePolicy("float32")
    if not isinstance(dtype, str):
        return dtype
    if dtype == "auto":
        dtype = "bfloat16" if computes_bfloat16() else "float32"
    names = {
        "float32": "float32",
        "bfloat16": "mixed_bfloat16",
        "mixed_bfloat16": "mixed_bfloat16",
        "float16": "mixed_float16",
        "mixed_float16": "mixed_float16",
    }
    if dtype not in names:
        raise ValueError(
            "`dtype` is the compute type: expected 'float32', 'bfloat16', 'float16' "
            f"or 'auto'. Received: dtype={dtype!r}"
        )
    return keras.DTypePolicy(names[dtype])
