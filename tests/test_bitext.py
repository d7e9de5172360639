"""Pairs of translations against a walk over every pair, one at a time."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.errors import Fields, raises
from helpers.vectors import with_ties
from labse_tf import mining


def cosines_of(sources, targets):
    unit = [
        x / np.where(n == 0, 1, n)
        for x in (sources.astype(np.float64), targets.astype(np.float64))
        for n in (np.linalg.norm(x, axis=1, keepdims=True),)
    ]
    return (unit[0] @ unit[1].T).round(7).astype(np.float32)


def oracle(sources, targets, k, margin, retrieval, one_to_one):
    """The definition, pair by pair."""
    cosines = cosines_of(sources, targets).astype(np.float64)

    def nearest(row, count):
        return sorted(range(len(row)), key=lambda i: (-row[i], i))[:count]

    near = [nearest(row, k) for row in cosines]
    far = [nearest(column, k) for column in cosines.T]
    s_mean = [np.mean([cosines[i, j] for j in js]) for i, js in enumerate(near)]
    t_mean = [np.mean([cosines[i, j] for i in js]) for j, js in enumerate(far)]

    def score(i, j):
        mean = (s_mean[i] + t_mean[j]) / 2
        value = {
            "ratio": cosines[i, j] / max(mean, 1e-6),
            "distance": cosines[i, j] - mean,
            "cosine": cosines[i, j],
        }[margin]
        return np.float32(value)

    forward = {
        (i, max(js, key=lambda j: (score(i, j), -j))) for i, js in enumerate(near)
    }
    backward = {
        (max(js, key=lambda i: (score(i, j), -i)), j) for j, js in enumerate(far)
    }
    pairs = {
        "forward": forward,
        "backward": backward,
        "intersection": forward & backward,
        "max": forward | backward,
    }[retrieval]
    ranked = sorted((-score(i, j), i, j) for i, j in pairs)
    found, used = [], (set(), set())
    for value, i, j in ranked:
        if one_to_one and (i in used[0] or j in used[1]):
            continue
        used[0].add(i)
        used[1].add(j)
        found.append((float(-value), i, j))
    return found


@pytest.mark.parametrize("margin", mining.MARGINS)
@pytest.mark.parametrize("retrieval", mining.RETRIEVALS)
@pytest.mark.parametrize("one_to_one", [True, False])
@pytest.mark.parametrize("sizes", [(30, 45), (1, 7), (40, 1)])
def test_equals_the_definition_pair_by_pair(margin, retrieval, one_to_one, sizes):
    rng = np.random.default_rng(sum(sizes))
    for ties, k in [(True, 4), (False, 1), (False, 60)]:
        sources, targets = (
            with_ties(rng, n, 5) if ties else rng.normal(size=(n, 5)) for n in sizes
        )
        found = mining.mine_bitext(
            sources,
            targets,
            # Without a margin the nearest is the best: k has no part in it.
            k=k,
            margin=margin,
            retrieval=retrieval,
            one_to_one=one_to_one,
            block_size=7,
        )
        wanted = oracle(sources, targets, k, margin, retrieval, one_to_one)
        assert [pair[1:] for pair in found] == [pair[1:] for pair in wanted]
        np.testing.assert_allclose(
            [pair[0] for pair in found], [pair[0] for pair in wanted], rtol=1e-6
        )


def test_threshold_and_top_cut_the_list():
    rng = np.random.default_rng(0)
    sources, targets = rng.normal(size=(2, 50, 6))
    every = mining.mine_bitext(sources, targets)
    assert mining.mine_bitext(sources, targets, top=7) == every[:7]
    limit = every[10][0]
    kept = mining.mine_bitext(sources, targets, threshold=limit)
    assert kept == every[:11]
    # A sentence whose best pair is under the threshold is in no other for that.
    assert mining.mine_bitext(sources, targets, threshold=9.0) == []


@pytest.mark.parametrize("margin", ["ratio", "distance"])
def test_small_means_are_raised_to_their_quantile(margin):
    """And to nothing by default: the scores of evaluation are the paper's."""
    rng = np.random.default_rng(3)
    sources, targets = rng.normal(size=(30, 8)) + 1, rng.normal(size=(20, 8)) + 1
    both = mining.neighbors_both_ways(sources, targets, 4)
    plain = mining.mine_from_neighbors(both, margin=margin)
    zero = mining.mine_from_neighbors(both, margin=margin, mean_floor=0.0)
    assert all(map(np.array_equal, plain, zero))
    found = mining.mine_from_neighbors(both, margin=margin, mean_floor=0.5)
    means = [c.mean(axis=1, dtype=float) for c in (both[0], both[2])]
    floor = np.quantile(np.concatenate(means), 0.5)
    cosines = cosines_of(sources, targets)
    for score, source, target in zip(*found, strict=True):
        m = (max(means[0][source], floor) + max(means[1][target], floor)) / 2
        cosine = cosines[source, target]
        expected = cosine / m if margin == "ratio" else cosine - m
        assert score == pytest.approx(expected, abs=1e-6)
    for wrong in (-0.1, 1):
        with raises(ValueError, argument="mean_floor", received=wrong):
            mining.mine_from_neighbors(both, mean_floor=wrong)


def test_a_margin_finds_what_cosines_alone_do_not():
    # Target 0 is near to all sources: a hub.
    sources = np.array([[1.0, 0.0, 0.9], [0.0, 1.0, 0.9]])
    targets = np.array([[0.45, 0.45, 0.9], [1.0, -0.3, 0.2], [-0.3, 1.0, 0.2]])
    options = {"k": 2, "retrieval": "forward", "one_to_one": False}
    by_cosine = mining.mine_bitext(sources, targets, margin="cosine", **options)
    by_ratio = mining.mine_bitext(sources, targets, margin="ratio", **options)
    assert {pair[2] for pair in by_cosine} == {0}
    assert {pair[1:] for pair in by_ratio} == {(0, 1), (1, 2)}


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0)])
def test_nothing_to_mine(sizes):
    assert mining.mine_bitext(*(np.ones((n, 4)) for n in sizes)) == []


def test_a_long_chain_of_better_pairs_is_walked_as_one_would():
    # Each pair is taken only because the one before it was.
    count = 300
    scores = np.arange(2 * count, 0, -1, dtype=np.float32)
    sources = np.repeat(np.arange(count), 2)
    targets = np.stack([np.arange(count), np.arange(1, count + 1)], axis=1).ravel()
    used, wanted = (set(), set()), []
    for place, pair in enumerate(zip(sources.tolist(), targets.tolist(), strict=True)):
        if pair[0] in used[0] or pair[1] in used[1]:
            continue
        used[0].add(pair[0])
        used[1].add(pair[1])
        wanted.append(place)
    from labse_tf.mining.bitext import select_one_to_one

    assert len(scores) == len(sources)
    assert np.flatnonzero(select_one_to_one(sources, targets)).tolist() == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": "rate"}, Fields(argument="margin", received="'rate'")),
        ({"retrieval": "both"}, Fields(argument="retrieval", received="'both'")),
        ({"index": "annoy"}, Fields(argument="index", received="'annoy'")),
        ({"top": 0}, Fields(argument="top", received=0)),
        ({"k": 0}, Fields(argument="k", received=0)),
        ({"recall": 1.5}, Fields(0, argument="recall", received="1.5")),
    ],
)
def test_bad_options_are_named(options, message):
    with raises(ValueError, message):
        mining.mine_bitext(np.ones((2, 3)), np.ones((2, 3)), **options)


def test_bad_vectors_are_named():
    bad = np.ones((6, 3))
    bad[4, 1] = np.nan
    with raises(ValueError, 4, argument="targets"):
        mining.mine_bitext(np.ones((2, 3)), bad)
    with raises(ValueError, 3, argument="targets", received="(2, 4)"):
        mining.mine_bitext(np.ones((2, 3)), np.ones((2, 4)))


def test_faiss_that_is_not_installed_is_named(monkeypatch):
    from labse_tf.mining import bitext

    monkeypatch.setattr(bitext.importlib.util, "find_spec", lambda name: None)
    with raises(ImportError, "'labse_tf[mining]'"):
        mining.mine_bitext(np.ones((2, 3)), np.ones((2, 3)), index="faiss")


# === The threshold of quality ===


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 1.0])
def test_quality_threshold_equals_a_try_of_every_score(share):
    rng = np.random.default_rng(1)
    for size in (1, 2, 7, 40):
        scores = rng.integers(0, 8, size) / 8
        good = rng.random(size) < scores
        fitting = [t for t in set(scores) if np.mean(good[scores >= t]) >= share]
        if fitting:
            assert mining.quality_threshold(scores, good, share) == min(fitting)
        else:
            with raises(ValueError, f"{share:.0%}"):
                mining.quality_threshold(scores, good, share)


@pytest.mark.parametrize(
    ("scores", "good", "share", "message"),
    [
        ([], [], 0.8, Fields(received="(0,)")),
        ([1.0], [True, False], 0.8, Fields("(1,)", "(2,)")),
        ([1.0, np.nan], [True, False], 0.8, Fields(1, argument="scores")),
        ([1.0], [True], 0.0, Fields(0, argument="share", received="0.0")),
        ([0.9, 0.8], [False, True], 0.8, Fields("50.0", 2)),
    ],
)
def test_quality_threshold_refuses(scores, good, share, message):
    with raises(ValueError, message):
        mining.quality_threshold(scores, good, share)
