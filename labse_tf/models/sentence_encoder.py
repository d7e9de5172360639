"""What all sentence encoders share: models from features or text to unit vectors.

Shapes: B = batch, T = length in tokens, D = dimension of the vectors, n = sentences.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import keras
import numpy as np

from labse_tf.layers import SentencePooling
from labse_tf.models.padding import BATCH_TOKENS
from labse_tf.models.text_encoder import TextEncoder
from labse_tf.models.text_inputs import check_texts, is_symbolic, refuse_arguments
from labse_tf.nested import check_dim
from labse_tf.precision import compute_policy
from labse_tf.processes import check_not_forked
from labse_tf.progress import Progress

if TYPE_CHECKING:
    from typing_extensions import Self

    from labse_tf.preprocessing import SentencePreprocessor


class SentenceEncoder(keras.Model):
    """Base of the sentence encoders: a backbone, its pooling and a preprocessor.

    A call takes features, a dict of int32 `(B, T)`: `token_ids`, `segment_ids` and
    `padding_mask`, and returns float32 `(B, D)`, unit length. `encode` takes text.

    A subclass is a functional model. It sets the attributes, takes `backbone`,
    `preprocessor` and `pooling` as first arguments, and defines the method that raises
    `NotImplementedError` here.

    Attributes:
        backbone: The model from features to the states of the tokens.
        preprocessor: A `SentencePreprocessor`; `None` for a model that only takes
            features.
        pooling: Name of the pooling.
        sentence_pooling: The layer of the pooling.
    """

    backbone: Any
    preprocessor: SentencePreprocessor | None
    pooling: str
    sentence_pooling: SentencePooling

    _text_encoder: TextEncoder | None = None
    _traced_with: Any = None

    @property
    def embedding_dim(self) -> int:
        """Dimension D of the vectors."""
        return self.outputs[0].shape[-1]

    @property
    def max_sequence_length(self) -> int | None:
        """Maximum number of tokens per text; `None` if the backbone has no maximum."""
        return getattr(self.backbone, "max_sequence_length", None)

    def text_preprocessor(self) -> SentencePreprocessor:
        """Return the preprocessor.

        Raises:
            ValueError: If the model has no preprocessor.
        """
        if self.preprocessor is None:
            raise ValueError(
                "Text needs a preprocessor: create the model with one, or call the "
                "model on features. Received: preprocessor=None"
            )
        return self.preprocessor

    @property
    def truncated_texts(self) -> int:
        """Number of texts that `encode` has cut to `sequence_length` tokens so far."""
        return 0 if self._text_encoder is None else self._text_encoder.truncated

    def encode(
        self,
        texts: Iterable[str] | str,
        *,
        dim: int | None = None,
        batch_tokens: int = BATCH_TOKENS,
        progress: Progress = None,
        **unknown: NoReturn,
    ) -> np.ndarray:
        """Encode sentences as unit vectors.

        Sentences are sorted by length within windows of 8,192, and each batch has a
        limited number of tokens, so that there is little padding. Texts with more than
        `preprocessor.sequence_length` tokens are cut and counted in `truncated_texts`.
        Several threads can call the method at the same time.

        Args:
            texts: One string, or any iterable of strings: a list, a NumPy array, a
                pandas Series, a string tensor. `bytes` are decoded as UTF-8. Invalid
                UTF-8, and lone surrogates in a `str`, are deleted, as in the tokenizer
                and in a SavedModel. In `tf.data.Dataset.map` or a `tf.function`, a
                string tensor is encoded as one batch.
            dim: d, from 1 to D: only the first d components of each vector, normalized
                again. For models that are trained with nested sizes (`train --dims`);
                `None` for whole vectors.
            batch_tokens: Maximum number of tokens per batch, including padding.
            progress: See `labse_tf.progress`; counts sentences.
            **unknown: Must be empty. The error tells what replaces an argument of
                sentence-transformers.

        Returns:
            float32 `(n, D)`, unit length, in the order of the texts; `(D,)` for one
            string. With `dim`, `(n, d)` or `(d,)`. A tensor if `texts` is a tensor of a
            graph.

        Raises:
            ValueError: If the model has no preprocessor, `dim` is not an integer from 1
                to D, `batch_tokens` is not positive, or an element is not a string (the
                message has its index).
            TypeError: If an argument is unknown.
            RuntimeError: If this process was forked after a model was created.
        """
        refuse_arguments(unknown)
        preprocessor = self.text_preprocessor()
        if batch_tokens < 1:
            raise ValueError(
                f"`batch_tokens` must be positive. Received: {batch_tokens}"
            )
        if dim is not None:
            check_dim(dim, self.embedding_dim)
        check_not_forked()
        weights = self._weights_of_graphs()
        if self._text_encoder is None or self._traced_with != weights:
            self._text_encoder = TextEncoder(self, preprocessor)
            self._traced_with = weights
        if is_symbolic(texts):
            import tensorflow as tf

            encode = self._text_encoder.encode_in_graph
            return tf.autograph.experimental.do_not_convert(encode)(texts, dim)
        strings, alone = check_texts(texts)
        if alone:
            progress = False
        vectors = self._text_encoder.encode(strings, batch_tokens, progress, dim)
        return vectors[0] if alone else vectors

    def with_dtype(self, dtype: str | keras.DTypePolicy) -> Self:
        """Return the model with another compute type.

        bfloat16 is about twice as fast on processors with instructions for it. The
        cosine between its vectors and the float32 vectors is at least 0.999.

        Args:
            dtype: Compute type; see `labse_tf.precision.compute_policy`.

        Returns:
            This model if it has this compute type, else a new model with a copy of the
            float32 weights, in which LoRA weights are merged.

        Raises:
            ValueError: If `dtype` is unknown, or the model has quantized weights.
        """
        policy = compute_policy(dtype)
        if policy.compute_dtype == self.backbone.compute_dtype:
            return self
        return self._copy(policy)

    def merged(self) -> Self:
        """Return a model in which LoRA weights of this package are merged."""
        return self

    def _copy(self, policy: keras.DTypePolicy) -> Self:
        """Return a model with a copy of the weights and another compute type."""
        raise NotImplementedError

    def _weights_of_graphs(self) -> Any:
        """Return what differs if graphs of `encode` lack weights of the backbone."""
        return len(self.backbone.weights)

    def with_sequence_length(self, sequence_length: int) -> Self:
        """Return a model with the same backbone and another maximum length.

        Args:
            sequence_length: Maximum number of tokens per text, including [CLS] and
                [SEP].

        Returns:
            The new model. It shares the backbone with this model.

        Raises:
            ValueError: If the model has no preprocessor, or `sequence_length` is less
                than 3 or longer than the position table.
        """
        old = self.text_preprocessor()
        return self._with(old.copy(sequence_length=sequence_length))

    def with_prefix(self, prefix: str) -> Self:
        """Return a model with the same backbone and another prefix of each text.

        Args:
            prefix: See `labse_tf.preprocessing.SentencePreprocessor`; empty for none.

        Returns:
            The new model. It shares the backbone with this model.

        Raises:
            ValueError: If the model has no preprocessor.
        """
        return self._with(self.text_preprocessor().copy(prefix=prefix))

    def _with(self, preprocessor: SentencePreprocessor) -> Self:
        """Return a model with this backbone and another preprocessor."""
        model = type(self)(
            self.backbone, preprocessor, pooling=self.pooling, name=self.name
        )
        model.sentence_pooling.set_weights(self.sentence_pooling.get_weights())
        return model

    def similarity(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return all pairwise cosines; see `cosine_similarity`."""
        return cosine_similarity(first, second)


def cosine_similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of one matrix with each row of another.

    Args:
        first: Float `(n, D)`.
        second: Float `(m, D)`.

    Returns:
        float32 `(n, m)`. A row of zeros has cosine 0 with all rows.

    Raises:
        ValueError: If the arguments are not matrices of the same width.

    Example:
        >>> from labse_tf.models import cosine_similarity
        >>> cosine_similarity([[3.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]]).tolist()
        [[1.0, 0.0]]
    """
    matrices = [np.asarray(x, dtype=np.float32) for x in (first, second)]
    if any(x.ndim != 2 for x in matrices) or len({x.shape[-1] for x in matrices}) != 1:
        raise ValueError(
            "`first` and `second` must be matrices (n, D) and (m, D). "
            f"Received: shapes {matrices[0].shape} and {matrices[1].shape}"
        )
    unit = [
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        for x in matrices
    ]
    return unit[0] @ unit[1].T
