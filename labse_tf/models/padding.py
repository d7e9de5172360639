"""Less padding: sentences of like length are computed together.

Shapes: n and B = sentences, T = length in tokens, D = hidden dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

# From features `(n, T)` to vectors `(n, D)`.
Encode = Callable[[dict[str, Any]], Any]
# Measured with `benchmarks/encode.py`: tokens per batch, and the padding that an
# additional batch is worth.
BATCH_TOKENS = 4096
_BATCH_PADDING = 64


def batches_by_length(
    lengths: np.ndarray, batch_tokens: int = BATCH_TOKENS
) -> Iterator[np.ndarray]:
    """Cuts sentences into batches of like length and about as many tokens.

    Args:
        lengths: Tokens of each sentence, int `(n,)`.
        batch_tokens: Most tokens a batch, padding included; a longer sentence is a
            batch of its own.

    Yields:
        Which sentences go together, int `(rows,)`, the longest first, in the batch and
        of the batches.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        # Longest first, so the first row is as long as the batch is padded to.
        count = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        batch = order[start : start + count]
        # Where sentences soon become shorter, a new batch costs less than padding.
        padding = np.cumsum(lengths[batch[0]] - lengths[batch])
        batch = batch[: np.searchsorted(padding, _BATCH_PADDING, side="right")]
        yield batch
        start += len(batch)


def encode_by_length(encode: Encode, features: Mapping[str, Any], groups: int) -> Any:
    """Encodes sentences in groups of like length, each cut to its own longest.

    Args:
        encode: From features `(n, T)` to vectors `(n, D)`.
        features: A feature dict of `(B, T)`.
        groups: How many.

    Returns:
        Vectors `(B, D)`.
    """
    import tensorflow as tf

    lengths = token_lengths(features)
    count = tf.size(lengths)
    order = tf.argsort(lengths, stable=True)
    vectors = []
    for group in range(groups):
        start, stop = count * group // groups, count * (group + 1) // groups
        # A group without sentences, where groups are more than those, encodes one for
        # nothing: not all kernels take an empty batch.
        first = tf.minimum(start, count - 1)
        rows = order[first : tf.maximum(stop, first + 1)]
        longest = tf.reduce_max(tf.gather(lengths, rows))
        encoded = encode(
            {k: tf.gather(x[:, :longest], rows) for k, x in features.items()}
        )
        vectors.append(encoded[: stop - start])
    return tf.gather(tf.concat(vectors, axis=0), tf.argsort(order))


def token_lengths(features: Mapping[str, Any]) -> Any:
    """Returns how many places each row needs, up to its last token.

    Args:
        features: A feature dict of `(B, T)`, whose mask may have zeros anywhere.

    Returns:
        int32 `(B,)`.
    """
    import tensorflow as tf

    mask = tf.cast(features["padding_mask"], tf.int32)
    return tf.reduce_max(mask * tf.range(1, tf.shape(mask)[1] + 1), axis=1)
