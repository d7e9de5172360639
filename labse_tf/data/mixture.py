"""Mixture: the share of each language in the batches. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


def mixture(
    counts: Mapping[str, int], *, smoothing: float = 0.3, cap: int | None = None
) -> dict[str, float]:
    """Share of each language in the batches.

    p(language) = min(pairs, cap) ** smoothing / sum of the same over all languages.

    Args:
        counts: language -> number of pairs or sentences.
        smoothing: 1 keeps the proportions of the text, 0 gives all languages the same.
        cap: pairs or sentences of a language beyond this number do not raise its share.

    Returns:
        Language -> probability, sorted by language.

    Example:
        >>> mixture({"hi": 400, "or": 100}, smoothing=0.5)
        {'hi': 0.6666666666666666, 'or': 0.3333333333333333}

    References:
        arXiv 2007.01852: exponent 0.3, there for the text of the vocabulary.
    """
    if not counts or min(counts.values()) < 1:
        raise ValueError(
            "`counts` must give every language at least one pair. "
            f"Received: {dict(counts)}"
        )
    check_mixture(smoothing, cap)
    codes = sorted(counts)
    capped = np.array([min(counts[code], cap or counts[code]) for code in codes])
    weights = capped.astype(np.float64) ** smoothing
    return dict(zip(codes, (weights / weights.sum()).tolist(), strict=True))


def check_mixture(smoothing: float, cap: int | None) -> None:
    """Checks the options of a mixture.

    Args:
        smoothing: As in `mixture`.
        cap: As in `mixture`.

    Raises:
        ValueError: If one is out of range.
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"`smoothing` must lie in 0 to 1. Received: {smoothing}")
    if cap is not None and cap < 1:
        raise ValueError(f"`cap` must be positive. Received: {cap}")


class Share(NamedTuple):
    """What a language gets, in `balance`.

    Attributes:
        language: its code.
        pairs: how many there are.
        before: its share of all pairs.
        after: its share of the batches.
        passes: how often each of its pairs is drawn in the time in question.
    """

    language: str
    pairs: int
    before: float
    after: float
    passes: float


def balance(
    counts: Mapping[str, int],
    *,
    smoothing: float = 0.3,
    cap: int | None = None,
    draws: int | None = None,
) -> list[Share]:
    """Tells what each language gets, before and after `mixture`.

    Args:
        counts: language -> number of pairs or sentences.
        smoothing: as in `mixture`.
        cap: as in `mixture`.
        draws: pairs drawn in all, steps times batch size; None for as many as there
            are.

    Returns:
        A `Share` a language, those with most pairs first.

    Example:
        >>> for share in balance({"hi": 400, "or": 100}, smoothing=0.5):
        ...     print(share.language, share.before, round(share.after, 3))
        hi 0.8 0.667
        or 0.2 0.333
    """
    shares = mixture(counts, smoothing=smoothing, cap=cap)
    total = sum(counts.values())
    draws = total if draws is None else draws
    return [
        Share(code, n, n / total, shares[code], draws * shares[code] / n)
        for code, n in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
