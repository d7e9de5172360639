"""Scores of an alignment against a reference: strict and lax precision and recall.

References:
    - Thompson and Koehn, section 4 (strict and lax scores),
      https://aclanthology.org/D19-1136/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

Indices = Sequence[int]


class AlignmentScore(NamedTuple):
    """Precision, recall and F1 of beads, 0 to 1.

    Attributes:
        precision: Share of the found beads that are correct.
        recall: Share of the reference beads that are found.
        f1: Harmonic mean of both; 0 if both are 0.
    """

    precision: float
    recall: float
    f1: float


def score_alignment(
    found: Iterable[tuple[Indices, Indices]],
    reference: Iterable[tuple[Indices, Indices]],
    *,
    lax: bool = False,
) -> AlignmentScore:
    """Score the beads of an alignment. Deletions do not count.

    Args:
        found: (source indices, target indices) of each bead.
        reference: The correct beads.
        lax: Whether a bead is correct if it has a sentence in common with a reference
            bead on each side. Otherwise both must be equal.

    Returns:
        The scores; 1 if both have no beads.

    Example:
        >>> from labse_tf.alignment import score_alignment
        >>> found = [((0,), (0,)), ((1,), (1,))]
        >>> reference = [((0,), (0,)), ((1,), (1, 2))]
        >>> score_alignment(found, reference).f1
        0.5
        >>> score_alignment(found, reference, lax=True).f1
        1.0
    """
    sides = [
        {(tuple(s), tuple(t)) for s, t in beads if len(s) and len(t)}
        for beads in (found, reference)
    ]
    if not any(sides):
        return AlignmentScore(1.0, 1.0, 1.0)
    shares = []
    for own, other in (sides, sides[::-1]):
        if lax:
            common = {(s, t) for ss, ts in other for s in ss for t in ts}
            correct = sum(
                any((s, t) in common for s in ss for t in ts) for ss, ts in own
            )
        else:
            correct = len(own & other)
        shares.append(correct / max(len(own), 1))
    precision, recall = shares
    total = precision + recall
    return AlignmentScore(
        precision, recall, 2 * precision * recall / total if total else 0.0
    )
