"""Mixture: the share of each language in the batches. No TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


def mixture(
    counts: Mapping[str, int], *, smoothing: float = 0.3, cap: int | None = None
) -> dict[str, float]:
    """Return the share of each language in the batches.

    p(language) = min(pairs, cap) ** smoothing / sum of the same over all languages.

    Args:
        counts: Language -> number of pairs or sentences.
        smoothing: 1 keeps the proportions of the text, 0 gives equal shares.
        cap: Greatest number of pairs or sentences per language that counts.

    Returns:
        Language -> probability, sorted by language.

    Example:
        >>> mixture({"hi": 400, "or": 100}, smoothing=0.5)
        {'hi': 0.6666666666666666, 'or': 0.3333333333333333}

    References:
        arXiv 2007.01852: exponent 0.3, which the paper uses for the vocabulary's text.
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
    """Raise `ValueError` if an option of `mixture` is out of range."""
    if not 0 <= smoothing <= 1:
        raise ValueError(f"`smoothing` must be from 0 to 1. Received: {smoothing}")
    if cap is not None and cap < 1:
        raise ValueError(f"`cap` must be positive. Received: {cap}")


class Share(NamedTuple):
    """Share of a language, from `balance`.

    Attributes:
        language: Language code.
        pairs: Number of pairs.
        before: Share of all pairs.
        after: Share of the batches.
        passes: Number of times that each pair is drawn, on average.
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
    """Return the share of each language before and after `mixture`.

    Args:
        counts: Language -> number of pairs or sentences.
        smoothing: See `mixture`.
        cap: See `mixture`.
        draws: Number of pairs drawn in total, steps times batch size; `None` for one
            draw per pair.

    Returns:
        One `Share` per language, by number of pairs, descending.

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
