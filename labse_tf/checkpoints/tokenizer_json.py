"""Encoders whose `tokenizer.json` only the package tokenizers can run, such as BPE.

The blocks, the pooling and the batches are those of this package; only the splitting of
text is not part of a graph. Such an encoder can be a teacher or be measured. It cannot
be exported.
"""

from __future__ import annotations

import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from labse_tf.checkpoints.huggingface import from_huggingface
from labse_tf.checkpoints.unigram import check_unigram
from labse_tf.cpu_kernels import cpu_kernels
from labse_tf.models import LaBSE
from labse_tf.models.padding import BATCH_TOKENS, batches_by_length
from labse_tf.models.text_inputs import check_texts, windows

_BATCHES_AT_ONCE = 3  # see labse_tf.models.text_encoder


def needs_tokenizer_json(directory: str | Path) -> bool:
    """Return whether only the package tokenizers can run a directory's tokenizer.

    That is the case unless it is WordPiece, or a Unigram model that `read_unigram`
    supports.

    Raises:
        ValueError: If its `tokenizer.json` is not a JSON object.
    """
    path = Path(directory) / "tokenizer.json"
    if not path.is_file():
        return False
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind = content["model"].get("type", "WordPiece")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path}: expected a JSON object with a "model". Received: {error!r}'
        ) from error
    if kind != "Unigram":
        return kind != "WordPiece"
    try:
        check_unigram(directory)
    except ValueError:
        return True
    return False


class TokenizerJsonEncoder:
    """Encoder of a Hugging Face directory with any `tokenizer.json`.

    Args:
        directory: Directory with the weights of a BERT, and `tokenizer.json`.
        dtype: Compute type.
        sequence_length: Maximum number of tokens per text (default: the size of the
            position table, at most 512).

    Attributes:
        model: The `LaBSE` model, without a preprocessor.
        truncated: Number of texts that were cut so far.

    Raises:
        ValueError: If a file is missing or not supported.
    """

    def __init__(
        self,
        directory: str | Path,
        dtype: str = "float32",
        sequence_length: int | None = None,
    ) -> None:
        """Load the weights and the tokenizer."""
        from tokenizers import Tokenizer

        path = Path(directory) / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        # `tokenizers` raises plain exceptions.
        except Exception as error:
            raise ValueError(
                f"{path}: expected a tokenizer of the package tokenizers. "
                f"Received: {error}"
            ) from error
        loaded = from_huggingface(directory, preprocessor=None)
        self.model: LaBSE = loaded.with_dtype(dtype)
        most = self.model.backbone.max_sequence_length
        length = min(most, 512) if sequence_length is None else sequence_length
        if not 3 <= length <= most:
            raise ValueError(
                f"`sequence_length` must be from 3 to {most}, the size of the position "
                f"table. Received: {sequence_length}"
            )
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(length)
        self.truncated = 0
        self._graph: Any = None
        self._lock = threading.Lock()

    def encode(self, texts: list[str]) -> np.ndarray:
        """Embed n texts, float32 `(n, D)`, unit vectors in their order."""
        strings = itertools.chain.from_iterable(windows(check_texts(texts)[0]))
        rows = self._tokenizer.encode_batch([text.decode() for text in strings])
        self.truncated += sum(bool(row.overflowing) for row in rows)
        ids = [np.asarray(row.ids, np.int32) for row in rows]
        vectors = np.zeros((len(ids), self.model.embedding_dim), np.float32)

        def encode_batch(chosen: np.ndarray) -> None:
            lengths = np.asarray([len(ids[i]) for i in chosen])
            mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int32)
            tokens = np.zeros(mask.shape, np.int32)
            tokens[mask.astype(bool)] = np.concatenate([ids[i] for i in chosen])
            vectors[chosen] = self._vectors(tokens, mask)

        lengths = np.asarray([len(row) for row in ids])
        with ThreadPoolExecutor(_BATCHES_AT_ONCE, "labse-tf-encode") as pool:
            list(pool.map(encode_batch, batches_by_length(lengths, BATCH_TOKENS)))
        return vectors

    def _vectors(self, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Return the vectors of padded rows of token ids, float32 `(B, D)`."""
        import tensorflow as tf

        with self._lock:
            if self._graph is None:

                @tf.function(
                    input_signature=[tf.TensorSpec([None, None], tf.int32)] * 2,
                    autograph=False,
                )
                def encode(tokens: Any, mask: Any) -> Any:
                    with cpu_kernels("inference"):
                        features = {
                            "token_ids": tokens,
                            "segment_ids": tf.zeros_like(tokens),
                            "padding_mask": mask,
                        }
                        return self.model(features, training=False)

                self._graph = encode.get_concrete_function()
        return self._graph(tf.constant(tokens), tf.constant(mask)).numpy()
