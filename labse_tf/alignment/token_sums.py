"""Vectors of runs for a bag of tokens: sentences -> sums over the tokens of each run.

Shapes: R = runs, S = sentences with which runs begin, n = sentences of the longest run,
T = length in tokens, D = dimension of the vectors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from labse_tf.nested import cut_vectors
from labse_tf.text import join_sentences

Run = Sequence[int]  # index of the first sentence, number of sentences


def is_bag_of_tokens(encode: Any) -> bool:
    """Return whether `TokenSums` has the vectors of an encoder.

    This is the case for an `Encoder` of a model without blocks whose pooling is a mean
    and whose tokenizer splits text at spaces first.
    """
    model: Any = getattr(encode, "model", None)
    if getattr(getattr(model, "backbone", None), "num_layers", None) != 0:
        return False
    import keras

    from labse_tf.tokenizers import WordPieceTokenizer

    preprocessor = model.text_preprocessor()
    return (
        model.pooling in ("mean", "weighted_mean")
        and isinstance(preprocessor.tokenizer, WordPieceTokenizer)
        and not preprocessor.prefix
        and keras.backend.backend() == "tensorflow"
    )


class TokenSums:
    """Vectors of the joined text of runs, from one row of tokens per sentence.

    In a model without blocks, such as labse-nano, the vector of a token depends only on
    the token and its position, and the vector of a text is their weighted sum. Runs
    that begin with the same sentence have the same tokens at the same positions, so
    each is a sum over the first tokens of the longest. The vectors equal those of
    `encode` except for rounding. Weighted sums of sentence vectors would not: in each
    sentence the positions begin at 0.

    Args:
        encode: An encoder for which `is_bag_of_tokens` is true.
    """

    def __init__(self, encode: Any) -> None:
        self._encode = encode
        self._preprocessor = encode.model.text_preprocessor()
        self._sums = _traced_sums(encode.model)

    def __call__(self, sentences: Sequence[str], runs: Sequence[Run]) -> np.ndarray:
        """Return the vectors of runs.

        Args:
            sentences: Sentences of a document.
            runs: R runs, at least one.

        Returns:
            float32 `(R, D)`, unit vectors.
        """
        starts, lengths = np.array(runs, np.int64).T
        used = np.unique(np.concatenate([np.arange(i, i + n) for i, n in runs]))
        texts = [sentences[i] for i in used]
        ids, edges = self._tokens(texts)
        # The sentences of a run are next to each other in `texts`.
        first = np.searchsorted(used, starts)
        counts = edges[first + lengths] - edges[first]
        vectors = self._vectors(ids, edges, first, lengths, counts)

        room = self._preprocessor.room
        seams = np.cumsum(self._changes(texts, ids, edges))
        as_text = seams[first + lengths - 1] > seams[first]
        as_text |= (lengths == 1) & (counts > room)  # `encode` counts these.
        if as_text.any():
            vectors[as_text] = self._encode(
                [
                    join_sentences(texts[k : k + n])
                    for k, n in zip(first[as_text], lengths[as_text], strict=True)
                ]
            )
        return vectors

    def _tokens(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the token ids of all texts, and where each text begins and ends."""
        rows = self._preprocessor.tokenize(texts)
        return rows.values.numpy(), rows.row_splits.numpy()

    def _vectors(
        self,
        ids: np.ndarray,
        edges: np.ndarray,
        first: np.ndarray,
        lengths: np.ndarray,
        counts: np.ndarray,
    ) -> np.ndarray:
        """Return the vectors of runs by their tokens, `(R, D)`."""
        preprocessor = self._preprocessor
        start_ids = preprocessor.tokenizer.start_token_ids
        begins, rows = np.unique(first, return_inverse=True)
        ends = np.zeros((len(begins), lengths.max()), np.int32)
        ends[rows, lengths - 1] = len(start_ids) + np.minimum(counts, preprocessor.room)
        last = preprocessor.tokenizer.sep_token_id
        token_ids = np.full((len(begins) + 1, ends.max() + 1), last, np.int32)
        token_ids[:-1, : len(start_ids)] = start_ids
        # Tokens after the end of a run are not in its sum.
        places = edges[begins, None] + np.arange(ends.max() - len(start_ids))
        token_ids[:-1, len(start_ids) : -1] = np.append(ids, last)[
            np.minimum(places, len(ids))
        ]
        found = self._sums(token_ids, ends).numpy()
        return cut_vectors(found[rows, lengths - 1], self._encode.dimension)

    def _changes(
        self, texts: list[str], ids: np.ndarray, edges: np.ndarray
    ) -> np.ndarray:
        """Return which texts have other tokens after the text before, bool.

        No token crosses a space, but a token may cross a seam without a space, such as
        between two Japanese words.
        """
        changes = np.zeros(len(texts), bool)
        seams = [
            k
            for k, (one, other) in enumerate(pairwise(texts))
            if join_sentences((one, other)) == one + other
        ]
        joined, joined_edges = self._tokens([texts[k] + texts[k + 1] for k in seams])
        for k, (start, stop) in zip(seams, pairwise(joined_edges), strict=True):
            apart = ids[edges[k] : edges[k + 2]]
            changes[k + 1] = not np.array_equal(joined[start:stop], apart)
        return changes


# Traced once for all documents of a model.
@functools.lru_cache(maxsize=1)
def _traced_sums(model: Any) -> Callable[[np.ndarray, np.ndarray], Any]:
    """Return a graph from tokens to sums.

    Its arguments are int32: token ids `(S + 1, T)`, in the last row the token that ends
    a text at all positions, and numbers of tokens `(S, n)`. It returns, float32
    `(S, n, D)`, the weighted sum of the first tokens of a row and the last token.
    """
    import tensorflow as tf

    from labse_tf.cpu_kernels import cpu_kernels

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.int32)] * 2, autograph=False
    )
    def sums(token_ids: Any, ends: Any) -> Any:
        features = {
            "token_ids": token_ids,
            "segment_ids": tf.zeros_like(token_ids),
            "padding_mask": tf.ones_like(token_ids),
        }
        with cpu_kernels("inference"):
            outputs = model.backbone(features, training=False)
        states = tf.cast(outputs["sequence_output"], tf.float32)  # (S + 1, T, D)
        _, weights = model.sentence_pooling.pool(
            states, outputs["pooled_output"], features["padding_mask"], token_ids
        )  # (S + 1, T, 1)
        first = tf.sequence_mask(ends, tf.shape(token_ids)[1], tf.float32)
        first *= tf.transpose(weights[:-1], [0, 2, 1])  # (S, n, T)
        return first @ states[:-1] + tf.gather(states[-1] * weights[-1], ends)

    return sums
