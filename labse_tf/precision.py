"""Precision: compute types of a model."""

from __future__ import annotations

from pathlib import Path

import keras


def computes_bfloat16() -> bool:
    """Return whether this machine has instructions for bfloat16.

    These are TPUs, NVIDIA GPUs since Ampere, and x86 processors with AVX-512 BF16 or
    AMX. On other devices bfloat16 is slower than float32. On JAX, every accelerator is
    assumed to have these instructions.
    """
    if keras.backend.backend() == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return True
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Not the logical devices, whose list starts TensorFlow's runtime: a strategy of
        # several devices or hosts must be created before that.
        if tf.config.list_physical_devices("TPU"):
            return True
        if gpus := tf.config.list_physical_devices("GPU"):
            details = tf.config.experimental.get_device_details(gpus[0])
            return details.get("compute_capability", (0, 0)) >= (8, 0)
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def compute_policy(dtype: str | keras.DTypePolicy | None) -> keras.DTypePolicy:
    """Return the mixed-precision policy of a compute type.

    Args:
        dtype: `"float32"`, `"bfloat16"`, `"float16"`, `"mixed_bfloat16"` or
            `"mixed_float16"`. `"auto"` means bfloat16 if this machine has instructions
            for it, else float32. `None` means float32. A policy is returned unchanged.

    Returns:
        A `keras.DTypePolicy` with float32 variables.

    Raises:
        ValueError: If the name is unknown.

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
            "`dtype` must be 'float32', 'bfloat16', 'float16' or 'auto'. "
            f"Received: dtype={dtype!r}"
        )
    return keras.DTypePolicy(names[dtype])
