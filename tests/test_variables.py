"""Large variables: blocks, shared memory, and no copies left behind."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.memory import address, is_empty, share
from labse_tf import variables
from labse_tf.optimizers import LazyAdamW

ROWS, DIM = 40_000, 128  # 20 MB, two blocks


def make(seed: int = 0) -> tuple[keras.Variable, np.ndarray]:
    array = np.random.default_rng(seed).normal(size=(ROWS, DIM)).astype(np.float32)
    return keras.Variable(array), array


@pytest.mark.parametrize(
    ("shape", "dtype", "count"),
    [
        ((), "int64", 1),
        ((0, 7), "float32", 1),
        ((ROWS, DIM), "float32", 2),
        ((ROWS, DIM), np.float16, 1),
        ((3, 5_000_000), "float32", 3),
    ],
)
def test_blocks_cover_all_rows_once(shape, dtype, count) -> None:
    bounds = variables.block_bounds(shape, dtype)
    assert len(bounds) == count
    rows = [row for start, stop in bounds for row in range(start, stop)]
    assert rows == list(range(shape[0] if shape else 1))


def test_a_variable_is_read_in_blocks_that_share_its_memory() -> None:
    variable, array = make()
    blocks = list(variables.read_blocks(variable))
    assert len(blocks) == 2
    np.testing.assert_array_equal(np.concatenate(blocks), array)
    assert blocks[0].ctypes.data == address(variable)
    np.testing.assert_array_equal(next(variables.read_blocks(array[:9])), array[:9])


def test_later_reads_of_a_variable_that_was_read_in_blocks_copy_nothing() -> None:
    """Else all training steps after a checkpoint copy weights and moments."""
    variable, _ = make()
    assert share(variable, variable)
    variable.value.sparse_read([0])  # What sets the mode that copies.
    assert not share(variable, variable)
    for _ in variables.read_blocks(variable):
        pass
    assert share(variable, variable)


def test_blocks_do_not_see_later_changes() -> None:
    variable, array = make()
    blocks = variables.read_blocks(variable)
    first = next(blocks)
    variable.assign_add(np.ones_like(array))
    np.testing.assert_array_equal(np.concatenate([first, *blocks]), array)


def test_a_variable_is_assigned_in_place() -> None:
    variable, _ = make()
    before = address(variable)
    _, array = make(1)
    variables.assign_blocks(variable, (array[a:b] for a, b in bounds(variable)))
    np.testing.assert_array_equal(variable, array)
    assert address(variable) == before
    assert share(variable, variable)
    (first, _) = (array[start:stop] for start, stop in bounds(variable))
    with pytest.raises(ValueError):
        variables.assign_blocks(variable, [first])


def bounds(variable: keras.Variable) -> list[tuple[int, int]]:
    return variables.block_bounds(tuple(variable.shape), variable.dtype)


def test_small_variables_are_assigned_as_a_whole() -> None:
    for value in (np.float32(3), np.ones((2, 3), np.float32)):
        variable = keras.Variable(np.zeros_like(value))
        variables.assign_blocks(variable, [value])
        np.testing.assert_array_equal(variable, value)


def test_all_replicas_are_assigned() -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        variable, _ = make()
    _, array = make(1)
    variables.assign_blocks(variable, (array[a:b] for a, b in bounds(variable)))
    np.testing.assert_array_equal(variable, array)
    blocks = list(variables.read_blocks(variable))
    np.testing.assert_array_equal(np.concatenate(blocks), array)
    variables.release([variable])
    assert np.asarray(variable.value.values[0].read_value()).size == 0


@pytest.mark.parametrize("changed", ["source", "target"])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_copy_shares_memory_until_a_change(changed: str, sparse: bool) -> None:
    (source, array), (target, _) = make(), make(1)
    source.value.sparse_read([0])  # The mode that copies may be set before.
    variables.copy_value(source, target)
    assert share(source, target)
    both = {"source": source, "target": target}
    variable = both[changed]
    if sparse:
        optimizer = LazyAdamW(1.0)
        optimizer.build([variable])
        rows = tf.IndexedSlices(tf.ones((1, DIM)), tf.constant([3]), (ROWS, DIM))
        optimizer.apply([rows])
    else:
        variable.assign_add(np.ones_like(array))
    assert np.abs(variable - array).max() > 0.5
    other = both["target" if changed == "source" else "source"]
    np.testing.assert_array_equal(other, array)


def test_released_variables_are_empty() -> None:
    variable, _ = make()
    variables.release([variable])
    assert is_empty(variable)
