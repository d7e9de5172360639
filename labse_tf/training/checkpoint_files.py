"""Checkpoint files: the state of a model as `.npz`, with little extra memory.

Large arrays are written in blocks and read one at a time, so that a checkpoint does not
need a second copy of the weights and the optimizer's moments.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK_BYTES = 1 << 24  # ours: 16 MB; larger blocks are not written faster


def write_state(path: Path, step: int, variables: Sequence[Any]) -> None:
    """Write the number of steps and all variables, as `np.savez` does.

    Args:
        path: Target file.
        step: Number of steps done.
        variables: Keras variables or arrays.

    Raises:
        OSError: If the file cannot be written.
    """
    with zipfile.ZipFile(path, "w") as archive:
        _write(archive, "step", np.asarray(step, np.int64))
        for i, variable in enumerate(variables):
            _write(archive, f"{i:05d}", variable)


def check_state(path: Path) -> int:
    """Return the number of steps in a file after a check of all its contents.

    Raises:
        OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile: If the file is
            damaged.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"wrong checksum of {damaged}")
    with np.load(path, allow_pickle=False) as archive:
        return int(archive["step"])


def state_shapes(path: Path) -> list[tuple[int, ...]]:
    """Return the shapes of the arrays in a file without reading the arrays."""
    shapes = []
    with zipfile.ZipFile(path) as archive:
        for name in _array_names(archive):
            with archive.open(name) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0
                if version != (1, 0):
                    read = np.lib.format.read_array_header_2_0
                shapes.append(read(member)[0])
    return shapes


def read_state(path: Path) -> Iterator[np.ndarray]:
    """Yield the arrays in a file one at a time, in the order of `write_state`."""
    with zipfile.ZipFile(path) as archive:
        for name in _array_names(archive):
            with archive.open(name) as member:
                yield np.lib.format.read_array(member, allow_pickle=False)


def _array_names(archive: zipfile.ZipFile) -> list[str]:
    """Return the sorted names of the arrays, without the number of steps."""
    return sorted(name for name in archive.namelist() if name != "step.npy")


def _write(archive: zipfile.ZipFile, name: str, variable: Any) -> None:
    """Write an array as a member of the archive."""
    blocks = _blocks(variable)
    first = next(blocks)
    header = {
        "descr": np.lib.format.dtype_to_descr(first.dtype),
        "fortran_order": False,
        "shape": tuple(variable.shape),
    }
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        member.write(first.tobytes())
        for block in blocks:
            member.write(block.tobytes())


def _blocks(variable: Any) -> Iterator[np.ndarray]:
    """Yield all rows of a variable, in blocks of at most 16 MB or one row."""
    shape = tuple(variable.shape)
    # `dtype` of a Keras variable is text, that of an array is a NumPy type.
    size = np.dtype(variable.dtype).itemsize * int(np.prod(shape))
    if not shape or size <= _BLOCK_BYTES:
        yield np.asarray(variable)
        return
    rows = max(1, _BLOCK_BYTES * shape[0] // size)
    value = getattr(variable, "value", variable)
    for start in range(0, shape[0], rows):
        stop = min(start + rows, shape[0])
        # A TensorFlow variable with sparse updates is copied as a whole by any other
        # read, also by a slice.
        if hasattr(value, "sparse_read"):
            yield np.asarray(value.sparse_read(np.arange(start, stop)))
        else:
            yield np.asarray(value[start:stop])
