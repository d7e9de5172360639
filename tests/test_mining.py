"""Nearest neighbours against a sort of all cosines."""

from __future__ import annotations

import numpy as np
import pytest

from labse_tf.mining import nearest_neighbors


def oracle(queries, candidates, k):
    """Every cosine, sorted; of equals the lower row first."""
    q = queries.astype(np.float64)
    c = candidates.astype(np.float64)
    q /= np.maximum(np.linalg.norm(q, axis=1, keepdims=True), 1e-300)
    c /= np.maximum(np.linalg.norm(c, axis=1, keepdims=True), 1e-300)
    cosines = (q @ c.T).round(7).astype(np.float32)
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cosines, rows, axis=1), rows


def with_ties(rng, rows, dim):
    """Vectors of which many are equal, some zero, none of unit length."""
    base = rng.integers(-2, 3, (max(1, rows // 3), dim)).astype(np.float32)
    return base[rng.integers(0, len(base), rows)] * rng.choice([0.5, 1, 3], (rows, 1))


@pytest.mark.parametrize("k", [1, 3, 10, 500])
@pytest.mark.parametrize("block_size", [1, 7, 64, 8192])
def test_as_a_sort_of_all_cosines_in_blocks_of_any_size(k, block_size):
    rng = np.random.default_rng(k)
    queries, candidates = with_ties(rng, 20, 5), with_ties(rng, 200, 5)
    cosines, rows = nearest_neighbors(queries, candidates, k, block_size=block_size)
    wanted_cosines, wanted_rows = oracle(queries, candidates, k)
    np.testing.assert_array_equal(rows, wanted_rows)
    np.testing.assert_array_equal(cosines, wanted_cosines)
    assert cosines.dtype == np.float32 and rows.dtype == np.int64


def test_a_stream_of_uneven_blocks_is_the_matrix():
    rng = np.random.default_rng(0)
    queries, candidates = with_ties(rng, 4, 6), with_ties(rng, 100, 6)
    cuts = [0, 1, 1, 40, 99, 100]
    blocks = (candidates[a:b] for a, b in zip(cuts, cuts[1:], strict=False))
    streamed = nearest_neighbors(queries, blocks, 5)
    for ours, whole in zip(
        streamed, nearest_neighbors(queries, candidates, 5), strict=True
    ):
        np.testing.assert_array_equal(ours, whole)


def test_nothing_to_find():
    cosines, rows = nearest_neighbors(np.ones((2, 3)), np.ones((0, 3)), 4)
    assert cosines.shape == rows.shape == (2, 0)
    assert nearest_neighbors(np.ones((0, 3)), np.ones((5, 3)), 4)[0].shape == (0, 4)
    assert nearest_neighbors(np.ones((1, 3)), iter(()), 4)[0].shape == (1, 0)


@pytest.mark.parametrize(
    ("queries", "candidates", "options", "message"),
    [
        (np.ones((1, 2)), np.ones((1, 2)), {"k": 0}, "`k` must be positive"),
        (
            np.ones((1, 2)),
            np.ones((1, 3)),
            {},
            r"shape \(rows, 2\). Received: \(1, 3\)",
        ),
        (np.ones(2), np.ones((1, 2)), {}, r"`queries` .* Received: \(2,\)"),
        (
            np.ones((1, 1)),
            iter([np.ones((3, 1)), np.array([[1.0], [np.nan]])]),
            {},
            "the first is row 4",
        ),
    ],
)
def test_bad_input(queries, candidates, options, message):
    with pytest.raises(ValueError, match=message):
        nearest_neighbors(queries, candidates, **{"k": 2, **options})
