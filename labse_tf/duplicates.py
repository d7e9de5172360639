"""Duplicates: equal sentences in a batch, found by fingerprints.

Shapes: B = sentences or pairs, T = length in tokens, b = local batch (one replica's
pairs), n = candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops


def sentence_fingerprints(token_ids: Any, padding_mask: Any) -> Any:
    """Hash each row of token ids, so that equal sentences have equal fingerprints.

    A fingerprint is two 32-bit sums over mixed (token, position) pairs. Padding does
    not count. Two different sentences collide with a probability of about 2 ** -64.

    Args:
        token_ids: int32 `(B, T)`.
        padding_mask: int32 `(B, T)`, 1 for a token and 0 for padding.

    Returns:
        int32 `(B, 2)`.

    Example:
        >>> import numpy as np
        >>> from labse_tf.duplicates import sentence_fingerprints
        >>> ids = np.array([[2, 7, 3, 0], [2, 7, 3, 9]], "int32")
        >>> mask = np.array([[1, 1, 1, 0], [1, 1, 1, 0]], "int32")
        >>> first, second = np.asarray(sentence_fingerprints(ids, mask)).tolist()
        >>> first == second
        True
    """
    token_ids = ops.cast(token_ids, "int32")
    padding_mask = ops.cast(padding_mask, "int32")
    positions = ops.arange(ops.shape(token_ids)[1], dtype="int32")[None, :] + 1
    columns = []
    # Odd multipliers without a pattern in their bits; int32 arithmetic wraps around.
    for token_factor, position_factor in (
        (-1640531527, 668265263),
        (-2048144789, 374761393),
    ):
        mixed = _mix_bits(token_ids * token_factor + positions * position_factor)
        columns.append(_mix_bits(ops.sum(mixed * padding_mask, axis=1)))
    return ops.stack(columns, axis=1)


def pair_fingerprints(pairs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Hash the sentences of both sides of a batch.

    Args:
        pairs: Dict with `source` and `target`, feature dicts of int32 `(B, T)`.

    Returns:
        Dict with `source_ids` and `target_ids`, int32 `(B, 2)`, the arguments of losses
        and metrics.
    """
    return {
        f"{side}_ids": sentence_fingerprints(
            pairs[side]["token_ids"], pairs[side]["padding_mask"]
        )
        for side in ("source", "target")
    }


def joined_ids(source_ids: Any | None, target_ids: Any | None) -> Any | None:
    """Return the fingerprints of both sides as `pair_masks` takes them.

    Args:
        source_ids: int32 `(b, 2)`, or `None`.
        target_ids: The same for the targets.

    Returns:
        int32 `(b, 4)`, or `None` without ids.

    Raises:
        ValueError: If only one of them is `None`.
    """
    if (source_ids is None) != (target_ids is None):
        raise ValueError(
            "`source_ids` and `target_ids` require each other: expected both or "
            f"neither. Received: source_ids={source_ids}, target_ids={target_ids}"
        )
    if source_ids is None:
        return None
    return ops.concatenate([source_ids, target_ids], axis=1)


def same_sentences(pair_ids: Any, other_pair_ids: Any) -> Any:
    """Return which pairs share their source or their target, bool `(b, n)`.

    Args:
        pair_ids: int32 `(b, 4)`, the fingerprints of source and target concatenated.
        other_pair_ids: int32 `(n, 4)`, the same for the pairs to compare with.

    Example:
        >>> import numpy as np
        >>> from labse_tf.duplicates import same_sentences
        >>> pairs = np.array([[1, 1, 5, 5], [1, 1, 6, 6], [1, 2, 7, 7]])
        >>> np.asarray(same_sentences(pairs[:1], pairs)).tolist()
        [[True, True, False]]
    """
    same = ops.equal(pair_ids[:, None, :], other_pair_ids[None, :, :])  # (b, n, 4)
    same_source = ops.logical_and(same[:, :, 0], same[:, :, 1])
    same_target = ops.logical_and(same[:, :, 2], same[:, :, 3])
    return ops.logical_or(same_source, same_target)


def pair_masks(
    labels: Any, columns: Any, pair_ids: Any | None, other_pair_ids: Any | None
) -> tuple[Any, Any | None]:
    """Return masks of the positives and of the duplicates in pairs x candidates.

    Args:
        labels: int32 `(b,)`, index of each pair in the global batch.
        columns: int32 `(n,)`, indices of the candidates.
        pair_ids: int32 `(b, 4)`; see `same_sentences`. `None` to ignore duplicates.
        other_pair_ids: int32 `(n, 4)`, the same for the candidates.

    Returns:
        Two bool `(b, n)`: true where the candidate is the pair itself; and true where
        it is another pair with the same source or target, or `None` without ids.
    """
    own = ops.equal(labels[:, None], columns[None, :])
    if pair_ids is None:
        return own, None
    shared = same_sentences(pair_ids, other_pair_ids)
    return own, ops.logical_and(shared, ops.logical_not(own))


def _mix_bits(x: Any) -> Any:
    """Spread each bit of an int32 over all 32 bits (MurmurHash3's finalizer)."""
    x = ops.bitwise_xor(x, ops.right_shift(x, 16)) * -2048144789
    x = ops.bitwise_xor(x, ops.right_shift(x, 13)) * -1028477387
    return ops.bitwise_xor(x, ops.right_shift(x, 16))
