"""Hashing: 64-bit keys of text that are equal in all processes and on all machines.

Python's own `hash` of a string differs between processes.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def hash_bytes(data: bytes) -> int:
    """Return a 64-bit hash of bytes, an integer from 0 to 2 ** 64 - 1."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def mix_bits(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread close numbers over all 64 bits by a one-to-one function.

    References:
        Steele et al., 2014, the finalizer of SplitMix64.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
