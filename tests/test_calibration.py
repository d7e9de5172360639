"""Probabilities from marked pairs, and what a threshold is said to give."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.errors import raises
from labse_tf import mining
from labse_tf.mining import calibration


def marked(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of which the higher ones are good more often, to two decimals."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0, 1, count).round(2)
    return scores, rng.uniform(size=count) < 1 / (1 + np.exp(-8 * (scores - 0.5)))


def isotonic_oracle(scores: np.ndarray, good: np.ndarray) -> dict[float, float]:
    """The min-max formula: largest over starts of the smallest mean over ends."""
    levels = np.unique(scores)

    def mean(low: float, high: float) -> float:
        return float(good[(scores >= low) & (scores <= high)].mean())

    return {
        level: max(
            min(mean(low, high) for high in levels[levels >= level])
            for low in levels[levels <= level]
        )
        for level in levels
    }


@pytest.mark.parametrize("seed", range(5))
def test_isotonic_equals_the_min_max_formula(seed):
    scores, good = marked(60, seed)
    fitted = mining.fit_calibration(scores, good, "isotonic")
    for level, probability in isotonic_oracle(scores, good).items():
        assert fitted(level) == pytest.approx(probability, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_logistic_is_at_the_minimum_of_its_loss(seed):
    scores, good = marked(80, seed)
    scores = 1000 + 0.01 * scores  # Far from 0 and close together.
    fitted = mining.fit_calibration(scores, good)
    count = int(good.sum())
    targets = np.where(good, (count + 1) / (count + 2), 1 / (len(good) - count + 2))

    def loss(slope: float, intercept: float) -> float:
        logits = slope * (scores - 1000) + intercept
        return float(np.mean(np.log1p(np.exp(logits)) - targets * logits))

    best = fitted.slope, fitted.intercept + 1000 * fitted.slope
    for change in (-1e-2, 1e-2):
        assert loss(best[0] * (1 + change), best[1]) > loss(*best)
        assert loss(best[0], best[1] * (1 + change)) > loss(*best)
    # The gradient of both parameters is zero.
    errors = fitted(scores) - targets
    assert errors.sum() == pytest.approx(0, abs=1e-6)
    assert (errors * (scores - 1000)).sum() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("method", calibration.METHODS)
def test_a_calibration_never_decreases_and_is_a_probability(method):
    for scores, good in (
        marked(50),
        (np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])),  # Separated.
        (np.array([0.1, 0.2, 0.8, 0.9]), np.array([1, 1, 0, 0])),  # The wrong way.
        (np.array([0.5, 0.5]), np.array([0, 1])),
        (np.array([0.5]), np.array([1])),
        (np.array([0.1, 0.9]), np.array([1, 1])),
    ):
        fitted = mining.fit_calibration(scores, good, method)
        found = fitted(np.linspace(-5, 5, 101))
        assert np.isfinite(found).all()
        assert (np.diff(found) >= 0).all()
        assert 0 <= found.min() <= found.max() <= 1
    worse = mining.fit_calibration([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], method)
    assert worse([0.1, 0.9]).tolist() == [0.5, 0.5]


def test_the_order_of_the_marks_does_not_matter():
    scores, good = marked(70)
    order = np.random.default_rng(1).permutation(70)
    first = mining.calibrate(scores, good)
    second = mining.calibrate(scores[order], good[order])
    assert first.brier == pytest.approx(second.brier, abs=1e-8)
    estimates = mining.threshold_estimates(scores, good)
    assert estimates == mining.threshold_estimates(scores[order], good[order])


def test_cross_validation_leaves_out_what_it_measures():
    """Random marks: on the pairs themselves isotonic learns, on others it does not."""
    rng = np.random.default_rng(0)
    scores, good = rng.uniform(size=200), rng.uniform(size=200) < 0.5
    result = mining.calibrate(scores, good, "isotonic")
    own = float(np.mean((result.calibration(scores) - good) ** 2))
    assert own < result.base_brier < result.brier
    with_signal = mining.calibrate(*marked(200))
    assert with_signal.brier < with_signal.base_brier
    both = [mining.calibrate(*marked(200), m).brier for m in calibration.METHODS]
    assert with_signal.brier == min(both)


def test_parts_cover_every_pair_once_with_the_same_share_of_good():
    scores, good = marked(103)
    parts = list(calibration._parts(scores, good, 10))
    assert (np.sum(parts, axis=0) == 1).all()
    sizes = [int(part.sum()) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    counts = [int(good[part].sum()) for part in parts]
    assert max(counts) - min(counts) <= 1


def test_estimates_of_thresholds_hold_for_new_pairs():
    scores, good = marked(400)
    others, truth = marked(20_000, seed=9)
    estimates = mining.threshold_estimates(scores, good, (0.5, 0.7, 0.9))
    assert [e.share for e in estimates] == [0.5, 0.7, 0.9]
    for each in estimates:
        assert each.threshold == mining.quality_threshold(scores, good, each.share)
        kept = others >= each.threshold
        low, high = each.interval
        assert low < each.precision < high
        assert low - 0.03 < truth[kept].mean() < high + 0.03
        assert each.recall == pytest.approx(truth[kept].sum() / truth.sum(), abs=0.06)
    thresholds = [e.threshold for e in estimates]
    assert thresholds == sorted(thresholds)


def test_shares_that_no_threshold_reaches_are_left_out():
    scores, good = [0.9, 0.8, 0.7], [False, True, True]
    assert [e.share for e in mining.threshold_estimates(scores, good, (0.6, 0.9))] == [
        0.6
    ]


def test_wilson_interval_by_hand():
    # 8 of 10, from Wilson's formula with z = 1.96: 0.4902 to 0.9433.
    assert calibration._interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert calibration._interval(0, 5)[0] == 0 and calibration._interval(5, 5)[1] == 1


def test_bad_arguments():
    with raises(ValueError, argument="method", received="'spline'"):
        mining.fit_calibration([0.1], [True], "spline")
    with raises(ValueError, argument="folds", received=1):
        mining.calibrate([0.1, 0.2], [True, False], folds=1)
    with raises(ValueError, argument="scores", received=True):
        mining.calibrate([0.1, 0.2], [True])
    with raises(ValueError, argument="scores", received=True):
        mining.calibrate([0.1, np.nan], [True, False])
    with raises(ValueError, argument="shares", received=0):
        mining.threshold_estimates([0.1, 0.2], [True, False], [0])
    with raises(ValueError, argument="count", received=-1):
        mining.best_rows([0.1], -1)


def test_best_rows_equals_sorting_pairs():
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 5, 50) / 4
    for count in (0, 1, 7, 50, 60):
        wanted = sorted(range(50), key=lambda row: (-scores[row], row))[:count]
        assert np.flatnonzero(mining.best_rows(scores, count)).tolist() == sorted(
            wanted
        )


# === Margins of given pairs ===


def margins_oracle(x, y, rows, columns, k, margin, share):
    """Artetxe and Schwenk, section 3.1, one pair at a time, with a floor of means."""
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    means = [
        [np.sort(cosines)[::-1][:k].mean() for cosines in side]
        for side in (x @ y.T, y @ x.T)
    ]
    floor = np.quantile(np.concatenate(means), share)
    found = []
    for i, j in zip(rows, columns, strict=True):
        near = [max(means[0][i], floor), max(means[1][j], floor)]
        cosine, mean = x[i] @ y[j], np.mean(near)
        found.append({"ratio": cosine / mean, "distance": cosine - mean}[margin])
    return np.array(found)


@pytest.mark.parametrize("margin", ["ratio", "distance"])
@pytest.mark.parametrize("k, share", [(1, 0), (4, 0), (4, 0.5), (100, 0)])
def test_margins_of_pairs_equal_the_paper_and_do_not_depend_on_blocks(margin, k, share):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 8)) + 1, rng.normal(size=(50, 8)) + 1
    rows, columns = rng.integers(0, 40, 90), rng.integers(0, 50, 90)
    options = {"k": k, "margin": margin, "mean_floor": share}
    whole = mining.pair_margins(x, y, rows, columns, **options)
    wanted = margins_oracle(x, y, rows, columns, k, margin, share)
    np.testing.assert_allclose(whole.scores, wanted, rtol=1e-5, atol=1e-6)
    parts = mining.pair_margins(x, y, rows, columns, **options, block_size=7)
    np.testing.assert_array_equal(whole.scores, parts.scores)
    np.testing.assert_array_equal(whole.cosines, parts.cosines)


def test_margins_agree_with_mining():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 8)), rng.normal(size=(35, 8))
    mined = mining.mine_pairs(x, y, k=3, mean_floor=0.2)
    rows = mined.sources, mined.targets
    found = mining.pair_margins(x, y, *rows, k=3, mean_floor=0.2)
    np.testing.assert_array_equal(found.scores, mined.scores)


def test_bad_rows_of_pairs():
    eye = np.eye(3)
    with raises(ValueError, argument="source_rows", received=True):
        mining.pair_margins(eye, eye, [0, 3], [0, 1])
    with raises(ValueError, argument="target_rows", received=True):
        mining.pair_margins(eye, eye, [0, 1], [[0], [1]])
    with raises(ValueError, "source_rows", "target_rows", received=True):
        mining.pair_margins(eye, eye, [0, 1], [0])
    empty = mining.pair_margins(eye, eye, [], [])
    assert empty.scores.shape == (0,)
