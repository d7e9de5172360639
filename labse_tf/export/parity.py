"""Parity: similarity of a SavedModel's vectors to those of the original model.

Parity is measured with the files on disk, on the user's sentences or on the shipped
sample in 25 languages.

Shapes: n = sentences, D = hidden dimension.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from labse_tf import presets
from labse_tf.export.interfaces import HUB_NAMES, pack_texts, to_hub_names
from labse_tf.models import SentenceEncoder
from labse_tf.saved_model import load_saved_model

BATCH = 64


class Parity(NamedTuple):
    """Similarity of a SavedModel's vectors to the model's.

    Attributes:
        sentences: Number of sentences compared.
        mean_cosine: Mean cosine of new and old vectors.
        lowest_cosine: Lowest cosine.
        largest_difference: Largest absolute difference of any element.
    """

    sentences: int
    mean_cosine: float
    lowest_cosine: float
    largest_difference: float

    def in_words(self) -> str:
        """Describe the parity in one line."""
        return (
            f"cosine with the model's vectors of {self.sentences:,} sentences: "
            f"mean {self.mean_cosine:.6f}, lowest {self.lowest_cosine:.6f}"
        )


def sample_texts(model: SentenceEncoder) -> list[str]:
    """Return the shipped sample's sentences or, without it, tokens of the model."""
    texts: dict[str, None] = {}
    for file in sorted((presets.shipped_directory() / "sample").glob("*.tsv")):
        with file.open(encoding="utf-8", newline="") as lines:
            for row in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                texts.update(dict.fromkeys(row))
    return list(texts) or model.text_preprocessor().tokenizer.vocabulary[::7][:2000]


def measure(
    path: str | Path,
    model: SentenceEncoder,
    interface: str,
    texts: Sequence[str],
    dim: int | None = None,
) -> Parity | None:
    """Compare the outputs of a SavedModel with those of its model.

    Args:
        path: Directory of the SavedModel.
        model: The model it was exported from.
        interface: One of `labse_tf.export.interfaces.INTERFACES`.
        texts: Sentences to compare.
        dim: Dimension of the SavedModel's vectors, if they are cut.

    Returns:
        The parity of the vectors. `None` for a preprocessor, whose features must be
        equal to the model's.

    Raises:
        RuntimeError: If the features of a preprocessor differ from the model's.
    """
    import tensorflow as tf

    loaded = load_saved_model(path)
    if interface == "preprocessor":
        _same_ids(loaded, model, texts)
        return None

    def encode(batch: list[str]) -> np.ndarray:
        inputs: Any = tf.constant(batch)
        if interface == "encoder":
            inputs = to_hub_names(pack_texts(model.text_preprocessor(), inputs))
        return loaded(inputs)["default"].numpy()

    new = encode_by_length(encode, texts)
    return compare(new, model.encode(texts, dim=dim, progress=False))


def encode_by_length(
    encode: Callable[[list[str]], np.ndarray], texts: Sequence[str]
) -> np.ndarray:
    """Return vectors of texts, embedded in batches of similar length.

    Args:
        encode: Callable from a list of strings to `(n, D)`.
        texts: One or more sentences.

    Returns:
        `(n, D)`, in the order of the texts.
    """
    order = np.argsort([len(text) for text in texts], kind="stable")
    parts = [
        encode([texts[i] for i in order[start : start + BATCH]])
        for start in range(0, len(order), BATCH)
    ]
    return np.concatenate(parts)[np.argsort(order)]


def compare(new: np.ndarray, old: np.ndarray) -> Parity:
    """Compare two matrices `(n, D)` row by row. Rows need not have unit length.

    Example:
        >>> import numpy as np
        >>> from labse_tf.export.parity import compare
        >>> compare(np.array([[1.0, 0.0], [3.0, 4.0]]), np.eye(2)).lowest_cosine
        0.8
    """
    new, old = np.asarray(new, np.float64), np.asarray(old, np.float64)
    lengths = np.linalg.norm(new, axis=1) * np.linalg.norm(old, axis=1)
    cosines = (new * old).sum(axis=1) / np.maximum(lengths, np.finfo(np.float64).tiny)
    return Parity(
        len(new),
        float(cosines.mean()),
        float(cosines.min()),
        float(np.abs(new - old).max()),
    )


def _same_ids(loaded: Any, model: SentenceEncoder, texts: Sequence[str]) -> None:
    """Raise an error unless a loaded preprocessor returns the model's features."""
    import tensorflow as tf

    for start in range(0, len(texts), BATCH):
        batch = tf.constant(texts[start : start + BATCH])
        outputs = loaded(batch)
        for ours, expected in model.text_preprocessor()(batch).items():
            received = outputs[HUB_NAMES[ours]]
            # The padding may differ, but the shorter output has all tokens.
            length = min(received.shape[1], expected.shape[1])
            if bool(tf.reduce_any(received[:, :length] != expected[:, :length])):
                raise RuntimeError(
                    f"The exported preprocessor's {HUB_NAMES[ours]} differ from the "
                    f"model's. Received: texts {start} to {start + BATCH}"
                )
