"""Nearest neighbours against a sort of all cosines."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers.errors import Fields, raises
from helpers.vectors import with_ties
from labse_tf.mining import nearest_neighbors, neighbors, neighbors_both_ways


def oracle(queries, candidates, k):
    """Every cosine, sorted; of equals the lower row first."""
    q = queries.astype(np.float64)
    c = candidates.astype(np.float64)
    q /= np.maximum(np.linalg.norm(q, axis=1, keepdims=True), 1e-300)
    c /= np.maximum(np.linalg.norm(c, axis=1, keepdims=True), 1e-300)
    cosines = (q @ c.T).round(7).astype(np.float32)
    rows = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cosines, rows, axis=1), rows


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
        (np.ones((1, 2)), np.ones((1, 2)), {"k": 0}, Fields(argument="k")),
        (
            np.ones((1, 2)),
            np.ones((1, 3)),
            {},
            Fields(2, received="(1, 3)"),
        ),
        (np.ones(2), np.ones((1, 2)), {}, Fields(argument="queries", received="(2,)")),
        (
            np.ones((1, 1)),
            iter([np.ones((3, 1)), np.array([[1.0], [np.nan]])]),
            {},
            Fields(4),
        ),
    ],
)
def test_bad_input(queries, candidates, options, message):
    with raises(ValueError, message):
        nearest_neighbors(queries, candidates, **{"k": 2, **options})


# === Both ways ===


@pytest.mark.parametrize("k", [1, 4, 500])
@pytest.mark.parametrize("block_size", [1, 7, 64, 8192])
def test_both_ways_as_a_sort_of_all_cosines(k, block_size):
    rng = np.random.default_rng(k)
    sources, targets = with_ties(rng, 60, 5), with_ties(rng, 90, 5)
    both = neighbors_both_ways(sources, targets, k, block_size=block_size)
    wanted = (*oracle(sources, targets, k), *oracle(targets, sources, k))
    for ours, theirs in zip(both, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(both.swapped(), wanted[2:] + wanted[:2], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("sizes", [(1, 1), (1, 50), (50, 1), (0, 3), (3, 0)])
def test_both_ways_of_few(sizes):
    rng = np.random.default_rng(0)
    sources, targets = (rng.normal(size=(n, 3)) for n in sizes)
    both = neighbors_both_ways(sources, targets, 4)
    for ours, theirs in zip(
        both, (*oracle(sources, targets, 4), *oracle(targets, sources, 4)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_vectors_of_any_type_and_length(dtype):
    rng = np.random.default_rng(0)
    sources, targets = (rng.integers(-9, 10, size=(40, 8)).astype(dtype) for _ in "ab")
    both = neighbors_both_ways(sources, targets, 3, block_size=16)
    np.testing.assert_array_equal(both.forward_rows, oracle(sources, targets, 3)[1])


def test_rows_that_differ_by_less_than_float32_can_tell_are_ordered_right():
    # 1e-7 apart in cosine: products in float32 alone would order some wrongly.
    rng = np.random.default_rng(0)
    query = rng.normal(size=(1, 256))
    other = rng.normal(size=(1, 256))
    steps = rng.permutation(400)
    candidates = query + other * (0.3 + 3e-7 * steps[:, None])
    _, rows = nearest_neighbors(query, candidates, 200, block_size=32)
    np.testing.assert_array_equal(rows, oracle(query, candidates, 200)[1])
    product = (neighbors.unit_rows(query).astype(np.float32)) @ (
        neighbors.unit_rows(candidates).astype(np.float32).T
    )
    assert (np.argsort(-product[0], kind="stable")[:200] != rows[0]).any()


def test_memory_mapped_vectors(tmp_path):
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=(n, 6)).astype(np.float32) for n in (30, 40)]
    for number, matrix in enumerate(matrices):
        np.save(tmp_path / f"{number}.npy", matrix)
    mapped = [np.load(tmp_path / f"{n}.npy", mmap_mode="r") for n in range(2)]
    for ours, theirs in zip(
        neighbors_both_ways(*mapped, 3, block_size=8),
        neighbors_both_ways(*matrices, 3),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


class Stopped(Exception):
    pass


def test_an_interrupted_search_goes_on_where_it_was(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    sources, targets = with_ties(rng, 100, 5), with_ties(rng, 70, 5)
    whole = neighbors_both_ways(sources, targets, 3)
    monkeypatch.setattr(neighbors, "_SAVE_SECONDS", 0.0)
    path = tmp_path / "search.npz"

    def stop(done, total):
        if done >= 60:
            raise Stopped

    with pytest.raises(Stopped):
        neighbors_both_ways(
            sources, targets, 3, block_size=10, checkpoint=path, progress=stop
        )
    assert path.exists()
    seen = []
    again = neighbors_both_ways(
        sources,
        targets,
        3,
        block_size=10,
        checkpoint=path,
        progress=lambda *step: seen.append(step),
    )
    # The block after the last checkpoint is done again, those before are not.
    assert seen[0] == (50, 100) and seen[-1] == (100, 100)
    for ours, theirs in zip(again, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not path.exists()


def test_a_checkpoint_of_another_search_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(neighbors, "_SAVE_SECONDS", 0.0)
    path = tmp_path / "search.npz"

    def stop():
        raise Stopped

    rng = np.random.default_rng(0)
    sources, targets = rng.normal(size=(2, 30, 4))
    options = {"block_size": 10, "checkpoint": path}
    with pytest.raises(Stopped):
        calls = iter([None, None])
        neighbors_both_ways(
            sources,
            targets,
            3,
            progress=lambda *step: (
                next(calls, None) or stop() if path.exists() else None
            ),
            **options,
        )
    with raises(ValueError, received=True):
        neighbors_both_ways(sources, targets + 1, 3, **options)
    with raises(ValueError, "k=4", "k=3"):
        neighbors_both_ways(sources, targets, 4, **options)
    path.write_bytes(b"PK half a file")
    with raises(ValueError, path="search.npz"):
        neighbors_both_ways(sources, targets, 3, **options)


# === FAISS ===


@pytest.fixture
def approximate(monkeypatch):
    pytest.importorskip("faiss", reason="the extra `mining` is not installed")
    from labse_tf.mining import approximate

    monkeypatch.setattr(approximate, "_SMALLEST_LISTS", 100)
    return approximate


def clustered(rng, rows, dim):
    centres = rng.normal(size=(20, dim))
    return centres[rng.integers(0, 20, rows)] + 0.3 * rng.normal(size=(rows, dim))


@pytest.mark.parametrize(
    "kind",
    ["Flat", "IVF,Flat", "IVF,SQ8", pytest.param("PQ", marks=pytest.mark.slow)],
)
def test_faiss_at_exact_settings_is_the_exact_search(
    approximate, kind, monkeypatch, caplog
):
    if kind == "Flat":
        monkeypatch.setattr(approximate, "_SMALLEST_LISTS", 10**6)
    if kind in ("IVF,SQ8", "PQ"):
        # 500 x 16 numbers do not fit as float32; nor in 8 bits.
        monkeypatch.setattr(approximate, "_MEMORY", 8000 if "SQ" in kind else 1000)
        monkeypatch.setattr(approximate, "_CANDIDATES", 500)
    rng = np.random.default_rng(0)
    sources, targets = clustered(rng, 300, 16), clustered(rng, 500, 16)
    caplog.set_level("INFO", "labse_tf.mining")
    both = approximate.neighbors_both_ways(sources, targets, 3, recall=1.0)
    lines = caplog.messages
    for ours, theirs in zip(
        both, neighbors_both_ways(sources, targets, 3), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert all(part in lines[0] for part in kind.split(",")) and len(lines) == 2


def test_faiss_finds_the_share_that_was_asked_for_and_cosines_are_exact(
    approximate, caplog
):
    caplog.set_level("INFO", "labse_tf.mining")
    rng = np.random.default_rng(0)
    sources, targets = clustered(rng, 2000, 16), clustered(rng, 3000, 16)
    exact_cosines, exact_rows = nearest_neighbors(sources, targets, 4)
    shares = []
    for recall in (0.5, 0.9, 0.99):
        caplog.clear()
        done = []
        cosines, rows = approximate.approximate_neighbors(
            sources,
            targets,
            4,
            recall=recall,
            progress=lambda *step, done=done: done.append(step),
        )
        share = np.mean(
            [len(set(a) & set(b)) / 4 for a, b in zip(rows, exact_rows, strict=True)]
        )
        assert share > recall - 0.03
        shares.append(share)
        found = rows == exact_rows
        np.testing.assert_array_equal(cosines[found], exact_cosines[found])
        assert done[-1] == (2000, 2000)
        assert "recall" in caplog.messages[0]
    assert shares[0] < shares[2]


def test_faiss_refuses_what_the_exact_search_refuses(approximate):
    good, bad = np.ones((200, 4)), np.ones((300, 4))
    bad[250, 2] = np.inf
    with raises(ValueError, 250, argument="candidates"):
        approximate.neighbors_both_ways(good, bad, 2)
    with raises(ValueError, 250, argument="queries"):
        approximate.neighbors_both_ways(bad, good, 2)
    with raises(ValueError, 4, received="(3, 5)"):
        approximate.neighbors_both_ways(good, np.ones((3, 5)), 2)
    with raises(ValueError, argument="k", received=0):
        approximate.neighbors_both_ways(good, good, 0)
    for recall in (0, 1.5, math.nan):
        with raises(ValueError, argument="recall", received=recall):
            approximate.neighbors_both_ways(good, good, 2, recall=recall)


def test_faiss_with_few_and_with_equal_vectors(approximate):
    rng = np.random.default_rng(0)
    few = approximate.neighbors_both_ways(rng.normal(size=(3, 4)), np.ones((1, 4)), 5)
    assert few.forward_rows.tolist() == [[0], [0], [0]]
    assert sorted(few.backward_rows[0].tolist()) == [0, 1, 2]
    # Lists can be empty here, and k more than one holds.
    equal = approximate.neighbors_both_ways(np.ones((300, 4)), np.ones((300, 4)), 5)
    np.testing.assert_array_equal(equal.forward_cosines, 1)
    assert all(len(set(row)) == 5 for row in equal.forward_rows.tolist())


@pytest.mark.parametrize(
    ("count", "dim", "kind"),
    [
        (19_999, 768, "Flat"),
        (100_000, 384, "IVF1264,Flat"),
        (5_000_000, 384, "IVF8944,SQ8"),
        (100_000_000, 384, "OPQ128,IVF40000_HNSW32,PQ128"),
    ],
)
def test_the_index_fits_the_size(count, dim, kind):
    from labse_tf.mining.approximate import index_kind

    assert index_kind(count, dim) == kind


@pytest.mark.parametrize("scale", [1e-35, 1e35])
def test_lengths_that_float32_can_hardly_hold(scale):
    rng = np.random.default_rng(0)
    sources, targets = rng.normal(size=(2, 30, 8))
    wanted = oracle(sources, targets, 3)
    tiny = (sources * scale).astype(np.float32)
    cosines, rows = nearest_neighbors(tiny, targets.astype(np.float32), 3)
    np.testing.assert_array_equal(rows, wanted[1])
    np.testing.assert_allclose(cosines, wanted[0], atol=1e-6)
