"""Checkpoint files: the state of a model as `.npz`, with little extra memory.

Large arrays are written and read in blocks, so that a checkpoint needs no copy of the
weights and the optimizer's moments, and not even one of the token table.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from labse_tf.distribute import Workers
from labse_tf.variables import assign_blocks, block_bounds, read_blocks


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
                shapes.append(_read_header(member)[0])
    return shapes


def read_state(path: Path) -> Iterator[Iterator[np.ndarray]]:
    """Yield the arrays in a file, in the order of `write_state`.

    Each array is an iterator of the blocks of `labse_tf.variables.block_bounds`, which
    must be read before the next array.
    """
    with zipfile.ZipFile(path) as archive:
        for name in _array_names(archive):
            with archive.open(name) as member:
                yield _read_blocks(member)


def assign_state(path: Path, variables: Sequence[Any], workers: Workers) -> None:
    """Assign variables from a file that only the chief reads, on all workers.

    Args:
        path: File of `write_state`, with arrays of the shapes of the variables.
        variables: Keras variables.
        workers: Processes that train together.
    """
    arrays: Iterable[Iterator[np.ndarray]] = (
        read_state(path) if workers.is_chief else map(_zero_blocks, variables)
    )
    for variable, blocks in zip(variables, arrays, strict=True):
        shared = (workers.share_arrays([block])[0] for block in blocks)
        assign_blocks(variable, shared)


def _zero_blocks(variable: Any) -> Iterator[np.ndarray]:
    """Yield blocks of zeros, of the shapes of the variable's blocks."""
    shape, dtype = tuple(variable.shape), np.dtype(variable.dtype)
    for start, stop in block_bounds(shape, dtype):
        yield np.zeros((stop - start, *shape[1:]) if shape else (), dtype)


def _array_names(archive: zipfile.ZipFile) -> list[str]:
    """Return the sorted names of the arrays, without the number of steps."""
    return sorted(name for name in archive.namelist() if name != "step.npy")


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Read the shape and the type of an array."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(member)
    if fortran_order and len(shape) > 1:
        raise ValueError("Expected arrays in C order. Received: Fortran order")
    return shape, dtype


def _read_blocks(member: IO[bytes]) -> Iterator[np.ndarray]:
    """Yield the rows of an array, in blocks."""
    shape, dtype = _read_header(member)
    for start, stop in block_bounds(shape, dtype):
        block = np.empty((stop - start, *shape[1:]) if shape else (), dtype)
        data = member.read(block.nbytes)
        yield np.frombuffer(data, dtype).reshape(block.shape)


def _write(archive: zipfile.ZipFile, name: str, variable: Any) -> None:
    """Write an array as a member of the archive."""
    blocks = read_blocks(variable)
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
