"""The memory of variables."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import keras
import numpy as np


def address(variable: keras.Variable) -> int:
    """The address of the memory that a read of a TensorFlow variable has."""
    return np.asarray(variable.value.read_value()).ctypes.data


def share(one: keras.Variable, two: keras.Variable) -> bool:
    """Whether reads of two variables, or of one twice, have the same memory."""
    # Both at once: memory that was freed is used again.
    arrays = [np.asarray(variable.value.read_value()) for variable in (one, two)]
    return arrays[0].ctypes.data == arrays[1].ctypes.data


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
