"""Hashing: numbers from text that are the same in every process and on every machine.

Python's own `hash` of a string differs from process to process.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def hash_bytes(data: bytes) -> int:
    """Hashes bytes to 64 bits.

    Args:
        data: Any bytes.

    Returns:
        An integer from 0 to 2 ** 64 - 1.
    """
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def mix_bits(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spreads close numbers over all 64 bits, one to one.

    Args:
        values: uint64, any shape.

    Returns:
        uint64 of the same shape.

    References:
        Steele et al., 2014, the finaliser of SplitMix64.
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
