"""Less padding: batches and groups of sentences with similar lengths.

Shapes: n and B = sentences, T = length in tokens, D = hidden dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

# Function from features `(n, T)` to vectors `(n, D)`.
Encode = Callable[[dict[str, Any]], Any]
# Measured with `benchmarks/encode.py`: tokens per batch, and the number of padding
# tokens whose computation takes as long as an additional batch.
BATCH_TOKENS = 4096
_BATCH_PADDING = 64


def batches_by_length(
    lengths: np.ndarray, batch_tokens: int = BATCH_TOKENS
) -> Iterator[np.ndarray]:
    """Cut sentences into batches of similar lengths.

    Args:
        lengths: Number of tokens of each sentence, int `(n,)`.
        batch_tokens: Maximum number of tokens per batch, including padding. A longer
            sentence becomes a separate batch.

    Yields:
        Indices of the sentences of one batch, int `(rows,)`. Sentences are in
        descending order of length, within and across batches.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        # The first row is the longest: the batch is padded to its length.
        count = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        batch = order[start : start + count]
        # If the next sentences are much shorter, a new batch costs less than padding.
        padding = np.cumsum(lengths[batch[0]] - lengths[batch])
        batch = batch[: np.searchsorted(padding, _BATCH_PADDING, side="right")]
        yield batch
        start += len(batch)


def encode_by_length(encode: Encode, features: Mapping[str, Any], groups: int) -> Any:
    """Encode sentences in groups of similar length, each cut to its longest sentence.

    Args:
        encode: Function from features `(n, T)` to vectors `(n, D)`.
        features: A feature dict of `(B, T)`.
        groups: Number of groups.

    Returns:
        Vectors `(B, D)`, in the order of the features.
    """
    import tensorflow as tf

    lengths = token_lengths(features)
    count = tf.size(lengths)
    order = tf.argsort(lengths, stable=True)
    vectors = []
    for group in range(groups):
        start, stop = count * group // groups, count * (group + 1) // groups
        # With fewer sentences than groups, an empty group encodes one sentence whose
        # vector is dropped, because not all kernels accept an empty batch.
        first = tf.minimum(start, count - 1)
        rows = order[first : tf.maximum(stop, first + 1)]
        longest = tf.reduce_max(tf.gather(lengths, rows))
        encoded = encode(
            {k: tf.gather(x[:, :longest], rows) for k, x in features.items()}
        )
        vectors.append(encoded[: stop - start])
    return tf.gather(tf.concat(vectors, axis=0), tf.argsort(order))


def token_lengths(features: Mapping[str, Any]) -> Any:
    """Return the length of each row up to its last token, int32 `(B,)`.

    Args:
        features: A feature dict of `(B, T)`; the mask may have zeros anywhere.
    """
    import tensorflow as tf

    mask = tf.cast(features["padding_mask"], tf.int32)
    return tf.reduce_max(mask * tf.range(1, tf.shape(mask)[1] + 1), axis=1)
