"""NumPy oracles, written from the paper and from no line of the package.

float64 and plain loops: slow, and easy to compare with the formulas.
"""

from __future__ import annotations

import math

import numpy as np


def additive_margin_softmax(
    source: np.ndarray,
    target: np.ndarray,
    *,
    margin: float,
    scale: float,
    bidirectional: bool = True,
    source_ids: np.ndarray | None = None,
    target_ids: np.ndarray | None = None,
    guide: tuple[np.ndarray, np.ndarray] | None = None,
    guide_margin: float = 0.0,
    guide_margin_strategy: str = "absolute",
) -> float:
    """Equations 1 to 3 of Feng et al. (2022) over one global batch.

    Pair j is no negative of pair i if their sources or their targets are equal; nor, as
    in Solatorio (2024), if a guide, given by its vectors of both sides, holds the query
    of i and the candidate of j for nearer than pair i, less a margin.
    """
    n = len(source)

    def guided(i: int, j: int, forward: bool) -> bool:
        if guide is None:
            return False
        x, y = (np.asarray(side, np.float64) for side in guide)
        positive = float(x[i] @ y[i])
        cosine = float(x[i] @ y[j]) if forward else float(y[i] @ x[j])
        if guide_margin_strategy == "relative":
            return cosine > positive - guide_margin * abs(positive)
        return cosine > positive - guide_margin

    def duplicate(i: int, j: int) -> bool:
        if source_ids is None or target_ids is None:
            return False
        return bool(
            np.array_equal(source_ids[i], source_ids[j])
            or np.array_equal(target_ids[i], target_ids[j])
        )

    def direction(queries: np.ndarray, candidates: np.ndarray, forward: bool) -> float:
        total = 0.0
        for i in range(n):
            correct = scale * (float(queries[i] @ candidates[i]) - margin)
            denominator = math.exp(correct)
            for j in range(n):
                if j != i and not duplicate(i, j) and not guided(i, j, forward):
                    denominator += math.exp(scale * float(queries[i] @ candidates[j]))
            total -= math.log(math.exp(correct) / denominator)
        return total / n

    source = np.asarray(source, dtype=np.float64)
    target = np.asarray(target, dtype=np.float64)
    loss = direction(source, target, forward=True)
    if bidirectional:
        loss += direction(target, source, forward=False)
    return loss


def additive_margin_softmax_gradients(
    source: np.ndarray, target: np.ndarray, **settings: object
) -> tuple[np.ndarray, np.ndarray]:
    """Central differences of the loss above with respect to both matrices."""
    step = 1e-5
    gradients = []
    for side in (0, 1):
        matrices = [np.array(source, np.float64), np.array(target, np.float64)]
        gradient = np.zeros_like(matrices[side])
        for index in np.ndindex(gradient.shape):
            kept = matrices[side][index]
            values = []
            for sign in (1, -1):
                matrices[side][index] = kept + sign * step
                values.append(additive_margin_softmax(*matrices, **settings))  # type: ignore[arg-type]
            matrices[side][index] = kept
            gradient[index] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients[0], gradients[1]


def ranking_accuracy(source: np.ndarray, target: np.ndarray) -> float:
    """Share of rows, over both directions, whose nearest row is their own pair."""
    hits = 0
    for queries, candidates in ((source, target), (target, source)):
        for i, query in enumerate(queries):
            cosines = [float(query @ candidate) for candidate in candidates]
            hits += int(np.argmax(cosines)) == i
    return hits / (2 * len(source))


def unit_rows(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Random unit vectors, float32 `(rows, dim)`."""
    vectors = rng.normal(size=(rows, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def linear_schedule(
    step: int, *, learning_rate: float, warmup_steps: int, train_steps: int
) -> float:
    """Linear warm-up from 0, then linear decay to 0 at `train_steps`."""
    if step < warmup_steps:
        return learning_rate * step / warmup_steps
    left = max(train_steps - step, 0)
    return learning_rate * left / max(train_steps - warmup_steps, 1)
