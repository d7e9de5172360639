"""Text encoder behind `encode` of models: text -> batches by length -> vectors.

Shapes: n = sentences, D = hidden dimension.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from labse_tf.cpu_kernels import cpu_kernels
from labse_tf.models.padding import batches_by_length
from labse_tf.models.text_inputs import windows
from labse_tf.nested import cut_vectors
from labse_tf.progress import Progress, progress_bar

if TYPE_CHECKING:
    from labse_tf.preprocessing import SentencePreprocessor

# Measured with `benchmarks/encode.py`: number of batches computed at a time.
_BATCHES_AT_ONCE = 3
# ours: up to this number of tokens, one batch in one call costs less than sorting.
_FEW_TOKENS = 512
# For tracing graphs and counting.
_LOCK = threading.Lock()


class TextEncoder:
    """Encoder of sentences with a model and its preprocessor; traces its graphs once.

    Args:
        model: A `SentenceEncoder`.
        preprocessor: A `SentencePreprocessor`.

    Attributes:
        truncated: Number of texts that were truncated so far.
    """

    def __init__(self, model: keras.Model, preprocessor: SentencePreprocessor) -> None:
        self._model, self._preprocessor = model, preprocessor
        self._rows: Callable[..., np.ndarray] | None = None
        self._texts: Callable[..., Any] | None = None
        self.truncated = 0

    def encode(
        self,
        texts: Iterable[str],
        batch_tokens: int,
        progress: Progress,
        dim: int | None = None,
    ) -> np.ndarray:
        """Encode strings, float32 `(n, D)`; see `SentenceEncoder.encode`.

        With `dim` the result is `(n, dim)`.
        """
        total = len(texts) if isinstance(texts, Sized) else None
        width = self._model.embedding_dim if dim is None else dim
        vectors = [np.zeros((0, width), dtype=np.float32)]
        with progress_bar("Encoding", total, "sentences", show=progress) as advance:
            for window in windows(texts):
                most = len(window) * self._preprocessor.sequence_length
                few = most <= min(_FEW_TOKENS, batch_tokens)
                if few and keras.backend.backend() == "tensorflow":
                    found = self._encode_few(window)
                    advance(len(window))
                else:
                    found = self._encode_window(window, batch_tokens, advance)
                vectors.append(found if dim is None else cut_vectors(found, dim))
        return np.concatenate(vectors)

    def encode_in_graph(self, texts: Any, dim: int | None = None) -> Any:
        """Encode a string tensor as one batch with ops of TensorFlow.

        Args:
            texts: String tensor `(n,)`, or `()` for one string.
            dim: See `SentenceEncoder.encode`.

        Returns:
            float32 tensor `(n, D)`, or `(D,)`; with `dim`, `(n, dim)` or `(dim,)`.
        """
        import tensorflow as tf

        if texts.shape.rank == 0:
            return self.encode_in_graph(tf.reshape(texts, [1]), dim)[0]
        vectors = self._vectors_and_truncated(texts)[0]
        return vectors if dim is None else cut_vectors(vectors, dim)

    def _vectors_and_truncated(self, texts: Any) -> tuple[Any, Any]:
        """Return the vectors `(n, D)` and the number of truncated texts."""
        rows, truncated = self._rows_and_truncated(texts)
        features = self._preprocessor.pack(rows)
        return self._model(features, training=False), truncated

    def _rows_and_truncated(self, texts: Any) -> tuple[Any, Any]:
        """Return the token rows and the number of truncated texts."""
        import tensorflow as tf

        ids = self._preprocessor.tokenize(texts)
        truncated = tf.math.count_nonzero(ids.row_lengths() > self._preprocessor.room)
        return self._preprocessor.frame(ids), truncated

    def _count(self, truncated: Any) -> None:
        if count := int(truncated):
            with _LOCK:
                self.truncated += count

    def _encode_few(self, texts: list[bytes]) -> np.ndarray:
        """Encode a few sentences as one batch in one graph: `(len(texts), D)`."""
        import tensorflow as tf

        with _LOCK:
            if self._texts is None:
                strings = [tf.TensorSpec([None], tf.string)]
                graph = tf.function(
                    self._vectors_and_truncated,
                    input_signature=strings,
                    autograph=False,
                )
                self._texts = graph.get_concrete_function()
        vectors, truncated = self._texts(tf.constant(texts, dtype=tf.string))
        self._count(truncated)
        return vectors.numpy()

    def _encode_window(
        self, texts: list[bytes], batch_tokens: int, advance: Callable[[int], None]
    ) -> np.ndarray:
        """Encode one window of sentences, in its order: `(len(texts), D)`."""
        import tensorflow as tf

        with _LOCK:
            if self._rows is None:
                on_tensorflow = keras.backend.backend() == "tensorflow"
                self._rows = (
                    self._traced() if on_tensorflow else self._encode_with_backend
                )
        encode = self._rows
        strings = tf.constant(texts, dtype=tf.string)
        rows, truncated = self._rows_and_truncated(strings)
        self._count(truncated)
        vectors = np.empty((len(texts), self._model.embedding_dim), dtype=np.float32)

        def encode_batch(chosen: np.ndarray) -> int:
            vectors[chosen] = encode(rows.values, rows.row_splits, chosen)
            return len(chosen)

        batches = list(batches_by_length(rows.row_lengths().numpy(), batch_tokens))
        for count in _side_by_side(encode_batch, batches):
            advance(count)
        return vectors

    def _features(self, values: Any, splits: Any, chosen: Any) -> dict[str, Any]:
        """Return the padded features of the chosen rows of a ragged tensor."""
        import tensorflow as tf

        rows = tf.RaggedTensor.from_row_splits(values, splits, validate=False)
        return self._preprocessor.pack(tf.gather(rows, chosen))

    def _traced(self) -> Callable[..., np.ndarray]:
        """Return a graph from ragged rows and the indices of chosen rows to vectors."""
        import tensorflow as tf

        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.int32),
                tf.TensorSpec([None], tf.int64),
                tf.TensorSpec([None], tf.int64),
            ],
            autograph=False,
        )
        def encode(values: Any, splits: Any, chosen: Any) -> Any:
            with cpu_kernels("inference"):
                features = self._features(values, splits, chosen)
                return self._model(features, training=False)

        # Trace now, before several threads call the graph.
        graph = encode.get_concrete_function()

        def encode_rows(values: Any, splits: Any, chosen: Any) -> np.ndarray:
            return graph(values, splits, tf.constant(chosen, tf.int64)).numpy()

        return encode_rows

    def _encode_with_backend(self, values: Any, splits: Any, chosen: Any) -> np.ndarray:
        """Encode the chosen rows on JAX."""
        # XLA compiles once per shape, so sizes are padded to multiples of 16.
        features = self._features(values, splits, chosen)
        arrays = {name: tensor.numpy() for name, tensor in features.items()}
        count, length = arrays["token_ids"].shape
        padded = min(-(-length // 16) * 16, self._model.max_sequence_length or math.inf)
        room = ((0, -count % 16), (0, padded - length))
        arrays = {name: np.pad(array, room) for name, array in arrays.items()}
        # For a mask with only zeros, the softmax would divide zero by zero.
        arrays["padding_mask"][count:, 0] = 1
        return np.asarray(self._model.predict_on_batch(arrays))[:count]


def _side_by_side(
    function: Callable[[Any], int], batches: Sequence[Any]
) -> Iterator[int]:
    """Call a function on all batches, on TensorFlow several at a time.

    One batch then uses the cores that another batch leaves idle.
    """
    if len(batches) < 2 or keras.backend.backend() != "tensorflow":
        yield from map(function, batches)
        return
    with ThreadPoolExecutor(_BATCHES_AT_ONCE, "labse-tf-encode") as pool:
        futures = [pool.submit(function, batch) for batch in batches]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
