"""The memory of variables."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import keras
import numpy as np


def address(variable: keras.Variable) -> int:
    """The address of the memory that a read of a TensorFlow variable has."""
    return np.asarray(variable.value.read_value()).ctypes.data


def is_empty(variable: keras.Variable) -> bool:
    """Whether the memory of a TensorFlow variable was freed."""
    return not np.asarray(variable.value.read_value()).size


def peak_of(work: Callable[[], object]) -> int:
    """The highest number of bytes that Python and NumPy had allocated in a call."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
