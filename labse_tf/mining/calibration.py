"""Calibration: scores of pairs marked by a person -> probability of being good.

A calibration is a function that never decreases, from a score to a probability.
Cross-validation estimates what a threshold chosen from the marks achieves on pairs that
were not marked.

References:
    - Platt, "Probabilistic Outputs for Support Vector Machines and Comparisons to
      Regularized Likelihood Methods", 1999 (targets of logistic calibration)
    - Lin, Lin and Weng, "A Note on Platt's Probabilistic Outputs for Support Vector
      Machines", https://doi.org/10.1007/s10994-007-5018-6
    - Zadrozny and Elkan, "Transforming Classifier Scores into Accurate Multiclass
      Probability Estimates" (isotonic calibration),
      https://doi.org/10.1145/775047.775151
    - Wilson, "Probable Inference, the Law of Succession, and Statistical Inference"
      (interval of a share), https://doi.org/10.1080/01621459.1927.10502953
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from labse_tf.mining.quality import checked_marks, quality_threshold

METHODS = ("logistic", "isotonic")

SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Shares of good pairs for which `threshold_estimates` chooses thresholds."""

_FOLDS = 10  # ours: the usual number
_STEPS = 100  # of Newton's method, which needs about 10
_TINY = 1e-15  # bounds of a probability inside a logarithm
_Z = 1.959964  # of a normal distribution, for an interval of 95 %


@dataclass(frozen=True)
class Calibration:
    """A function from scores to probabilities that never decreases.

    Attributes:
        method: `"logistic"` or `"isotonic"`.
        scores: For `isotonic`, scores at which the probability is known, ascending
            `(n,)`; linear between them and constant outside. For `logistic` empty.
        probabilities: Probabilities at `scores`, `(n,)`.
        slope: For `logistic`, the probability is 1 / (1 + exp(-(slope * score +
            intercept))).
        intercept: See `slope`.

    Example:
        >>> from labse_tf.mining import fit_calibration
        >>> good = [False, False, True, True]
        >>> calibration = fit_calibration([0.1, 0.2, 0.7, 0.9], good, "isotonic")
        >>> calibration([0.0, 0.45, 1.0]).round(2).tolist()
        [0.0, 0.5, 1.0]
    """

    method: str
    scores: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()
    slope: float = 0.0
    intercept: float = 0.0

    def __call__(self, scores: Any) -> np.ndarray:
        """Return the probability of each score, float64 of the same shape."""
        values = np.asarray(scores, dtype=np.float64)
        if self.method == "isotonic":
            return np.interp(values, self.scores, self.probabilities)
        return _sigmoid(self.slope * values + self.intercept)


class CalibrationResult(NamedTuple):
    """A calibration of all marked pairs, and its cross-validated errors.

    Attributes:
        calibration: The calibration, made from all marked pairs.
        brier: Mean squared difference of probability and mark on pairs that were left
            out, lower is better; `None` for a single pair.
        log_loss: Mean negative log-likelihood of these marks, in nats.
        base_brier: `brier` of the share of good pairs as the probability of all pairs.
            A calibration that is not better has learned nothing from the scores.
    """

    calibration: Calibration
    brier: float | None
    log_loss: float | None
    base_brier: float


class ThresholdEstimate(NamedTuple):
    """A threshold for a required share of good pairs, and what to expect of it.

    Attributes:
        share: Required share of good pairs among the kept.
        threshold: Lowest score to keep, chosen from all marked pairs.
        precision: Cross-validated share of good pairs among the kept, or `None` if none
            is kept.
        interval: 95 % interval of `precision` (Wilson), or `None`.
        recall: Cross-validated share of the good pairs that is kept.
    """

    share: float
    threshold: float
    precision: float | None
    interval: tuple[float, float] | None
    recall: float


def fit_calibration(scores: Any, good: Any, method: str = "logistic") -> Calibration:
    """Fit a calibration to marked pairs.

    `logistic` has two parameters and suits few marks; the marks count as 1 - 1 / (g +
    2) and 1 / (b + 2) for g good and b bad pairs, so that the result is finite also if
    the scores separate them. `isotonic` is the function that never decreases with the
    smallest squared error; it suits hundreds of marks. If higher scores are worse, both
    are constant.

    Args:
        scores: Scores of the marked pairs, `(p,)`.
        good: bool `(p,)`, whether each pair is a good translation.
        method: `"logistic"` or `"isotonic"`.

    Raises:
        ValueError: If there are no pairs, the arguments differ in length or are not
            finite, or `method` is unknown.

    Example:
        >>> from labse_tf.mining import fit_calibration
        >>> calibration = fit_calibration([0.2, 0.4, 0.6, 0.8], [0, 1, 0, 1])
        >>> calibration([0.3, 0.7]).round(2).tolist()
        [0.4, 0.6]
    """
    values, marks = checked_marks(scores, good)
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}. Received: {method!r}")
    if method == "isotonic":
        return _isotonic(values, marks)
    return _logistic(values, marks)


def calibrate(
    scores: Any, good: Any, method: str = "auto", *, folds: int = _FOLDS
) -> CalibrationResult:
    """Fit a calibration and measure it by cross-validation.

    Args:
        scores: See `fit_calibration`.
        good: See `fit_calibration`.
        method: `"logistic"`, `"isotonic"`, or `"auto"` for the one with the lower
            cross-validated Brier score.
        folds: Maximum number of parts of the cross-validation, at least 2. The parts
            have the same share of good pairs and do not depend on the order of the
            pairs.

    Raises:
        ValueError: See `fit_calibration`; if `folds` is less than 2.
    """
    values, marks = checked_marks(scores, good)
    methods = METHODS if method == "auto" else (method,)
    results = [_cross_validated(values, marks, name, folds) for name in methods]
    return min(results, key=lambda result: result.brier or 0.0)


def threshold_estimates(
    scores: Any,
    good: Any,
    shares: Sequence[float] = SHARES,
    *,
    folds: int = _FOLDS,
) -> list[ThresholdEstimate]:
    """Estimate precision and recall of the thresholds that `quality_threshold` chooses.

    The threshold is chosen without one part of the marked pairs and tried on this part,
    for each part. On the pairs from which it is chosen, a threshold seems better than
    it is.

    Args:
        scores: See `fit_calibration`.
        good: See `fit_calibration`.
        shares: Required shares of good pairs, each in (0, 1].
        folds: See `calibrate`.

    Returns:
        One estimate for each share that a threshold reaches on the marked pairs.

    Raises:
        ValueError: See `calibrate`.

    Example:
        >>> from labse_tf.mining import threshold_estimates
        >>> scores = [0.9, 0.8, 0.7, 0.6, 0.3, 0.2]
        >>> good = [True, True, True, True, False, False]
        >>> [(e.threshold, e.precision) for e in threshold_estimates(scores, good, [1])]
        [(0.6, 1.0)]
    """
    values, marks = checked_marks(scores, good)
    parts = list(_parts(values, marks, folds))
    found = []
    for share in shares:
        threshold = _reached(values, marks, share)
        if threshold is None:
            continue
        kept = np.zeros(len(values), dtype=bool)
        for part in parts:
            limit = _reached(values[~part], marks[~part], share)
            if limit is not None:
                kept[part] = values[part] >= limit
        count, right = int(kept.sum()), int((kept & marks).sum())
        found.append(
            ThresholdEstimate(
                float(share),
                threshold,
                right / count if count else None,
                _interval(right, count) if count else None,
                right / max(int(marks.sum()), 1),
            )
        )
    return found


def _sigmoid(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1, small) / (1 + small)


def _logistic(values: np.ndarray, marks: np.ndarray) -> Calibration:
    """Fit slope and intercept by Newton's method with step halving."""
    good = int(marks.sum())
    targets = np.where(marks, 1 - 1 / (good + 2), 1 / (len(marks) - good + 2))
    center, width = values.mean(), values.std() or 1.0
    inputs = np.stack([(values - center) / width, np.ones_like(values)], axis=1)

    def loss(weights: np.ndarray) -> float:
        logits = inputs @ weights
        return float(np.sum(np.logaddexp(0, logits) - targets * logits))

    weights = np.zeros(2)
    for _ in range(_STEPS):
        chances = _sigmoid(inputs @ weights)
        slope = inputs.T @ (chances - targets)
        curve = (inputs.T * (chances * (1 - chances))) @ inputs + 1e-12 * np.eye(2)
        step = np.linalg.solve(curve, slope)
        before, size = loss(weights), 1.0
        while size > 1e-10 and loss(weights - size * step) > before:
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-12:
            break
    if weights[0] < 0:
        mean = float(targets.mean())
        return Calibration("logistic", intercept=float(np.log(mean / (1 - mean))))
    scale = float(weights[0] / width)
    return Calibration(
        "logistic", slope=scale, intercept=float(weights[1] - scale * center)
    )


def _isotonic(values: np.ndarray, marks: np.ndarray) -> Calibration:
    """Pool adjacent scores whose shares of good pairs decrease."""
    scores, places = np.unique(values, return_inverse=True)
    counts = np.bincount(places).astype(np.float64)
    shares = np.bincount(places, weights=marks) / counts
    # Each block: share of good pairs, number of pairs, number of scores.
    blocks: list[tuple[float, float, int]] = []
    for share, count in zip(shares.tolist(), counts.tolist(), strict=True):
        size = 1
        while blocks and blocks[-1][0] >= share:
            other, others, sizes = blocks.pop()
            share = (share * count + other * others) / (count + others)
            count, size = count + others, size + sizes
        blocks.append((share, count, size))
    fitted = [share for share, _, size in blocks for _ in range(size)]
    return Calibration("isotonic", tuple(scores.tolist()), tuple(fitted))


def _parts(values: np.ndarray, marks: np.ndarray, folds: int) -> Iterator[np.ndarray]:
    """Yield the parts of a cross-validation, bool `(p,)`; none for a single pair."""
    if folds < 2:
        raise ValueError(f"`folds` must be at least 2. Received: {folds}")
    count = min(folds, len(values))
    if count < 2:
        return
    # Sorted first: the parts must not depend on the order of the pairs.
    order = np.lexsort((values, marks))
    random = np.random.default_rng(0)
    bad = int((~marks).sum())
    order = np.concatenate(
        [random.permutation(order[:bad]), random.permutation(order[bad:])]
    )
    numbers = np.empty(len(values), dtype=np.int64)
    numbers[order] = np.arange(len(values)) % count
    for number in range(count):
        yield numbers == number


def _cross_validated(
    values: np.ndarray, marks: np.ndarray, method: str, folds: int
) -> CalibrationResult:
    """Fit with all pairs, and measure the error of fits that leave out one part."""
    chances = np.full(len(values), np.nan)
    for part in _parts(values, marks, folds):
        chances[part] = fit_calibration(values[~part], marks[~part], method)(
            values[part]
        )
    found = fit_calibration(values, marks, method)
    base = float(marks.mean() * (1 - marks.mean()))
    if np.isnan(chances).any():
        return CalibrationResult(found, None, None, base)
    likelihood = np.where(marks, chances, 1 - chances).clip(_TINY)
    return CalibrationResult(
        found,
        float(np.mean((chances - marks) ** 2)),
        float(-np.log(likelihood).mean()),
        base,
    )


def _reached(values: np.ndarray, marks: np.ndarray, share: float) -> float | None:
    """Return the threshold of a share, or `None` if no threshold reaches it."""
    if not 0 < share <= 1:
        raise ValueError(f"`shares` must be in (0, 1]. Received: {share}")
    try:
        return quality_threshold(values, marks, share)
    except ValueError:
        return None


def _interval(right: int, count: int) -> tuple[float, float]:
    """Return the Wilson interval of a share at 95 %."""
    share, square = right / count, _Z**2 / count
    middle = (share + square / 2) / (1 + square)
    half = _Z * np.sqrt(share * (1 - share) / count + square / 4 / count) / (1 + square)
    return max(float(middle - half), 0.0), min(float(middle + half), 1.0)
