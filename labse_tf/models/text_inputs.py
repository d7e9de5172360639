"""Texts for `encode`: lists, arrays, Series, tensors or streams of strings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np

# Number of sentences that are sorted by length together.
WINDOW = 8192

# Arguments of `SentenceTransformer.encode`, and what replaces them here.
_REPLACEMENTS = {
    "batch_size": "use `batch_tokens`, the number of tokens per batch; batches are "
    "formed by length",
    "show_progress_bar": "use `progress=True` or `progress=False`",
    "normalize_embeddings": "leave it out; vectors always have unit length",
    "convert_to_numpy": "leave it out; the result is a NumPy array",
    "convert_to_tensor": "leave it out and convert the result, a NumPy array, with "
    "`tf.convert_to_tensor`",
    "precision": "use `labse_tf.LaBSE.from_preset(..., dtype=)` or `with_dtype`",
    "truncate_dim": "use `dim`",
    "device": "use `tf.device`; a GPU is used if TensorFlow has one",
    "sentences": "use `texts`, or give the sentences as the first argument",
}


def refuse_arguments(names: Iterable[str]) -> None:
    """Raise an error that tells what replaces arguments of sentence-transformers.

    Args:
        names: Names of unknown arguments; the first one is reported.

    Raises:
        TypeError: If there is a name.
    """
    for name in names:
        advice = _REPLACEMENTS.get(name, "expected `dim`, `batch_tokens` or `progress`")
        raise TypeError(f"`encode` has no argument `{name}`: {advice}")


def is_symbolic(texts: Any) -> bool:
    """Return whether the texts are a tensor of a graph, without values yet."""
    import tensorflow as tf

    return tf.is_tensor(texts) and not hasattr(texts, "numpy")


def check_texts(texts: Any) -> tuple[Iterable[Any], bool]:
    """Check the container of texts.

    Args:
        texts: One string, or strings in a list, an array, a Series, a tensor or any
            other iterable.

    Returns:
        An iterable of strings, and whether `texts` was one string.

    Raises:
        ValueError: If there cannot be one text per element, or a container of more than
            one window has an element that is not a string: before the first vector is
            computed, not hours later.
    """
    if isinstance(texts, (str, bytes)):
        return [texts], True
    shape = getattr(texts, "shape", (None,))  # Arrays, Series, tensors.
    if len(shape) > 1 or not _is_iterable(texts):
        what = f"shape {tuple(shape)} of type " if len(shape) > 1 else ""
        raise ValueError(
            "`texts` must be a string or a sequence of strings `(n,)`. "
            f"Received: {what}{type(texts).__name__}"
        )
    if hasattr(texts, "numpy"):
        texts = texts.numpy()
    if not len(shape):
        return [texts.item() if isinstance(texts, np.ndarray) else texts], True
    if isinstance(texts, Collection) and len(texts) > WINDOW:
        for index, text in enumerate(texts):
            _utf8(text, index)
    return texts, False


def windows(texts: Iterable[Any]) -> Iterator[list[bytes]]:
    """Cut an iterable of strings into lists of UTF-8 bytes, at most `WINDOW` each.

    A lone surrogate is encoded as invalid UTF-8, which the tokenizer deletes.

    Raises:
        ValueError: If an element is not a string.
    """
    window: list[bytes] = []
    for index, text in enumerate(texts):
        window.append(_utf8(text, index))
        if len(window) == WINDOW:
            yield window
            window = []
    if window:
        yield window


def _is_iterable(texts: Any) -> bool:
    # An array without dimensions has `__iter__`, but is one string.
    return hasattr(texts, "__iter__") or hasattr(texts, "__getitem__")


def _utf8(text: Any, index: int) -> bytes:
    """Return a string as UTF-8."""
    if isinstance(text, str):
        return text.encode("utf-8", "surrogatepass")
    if isinstance(text, bytes):
        return text
    if hasattr(text, "numpy") and isinstance(value := text.numpy(), bytes):
        return value  # A string tensor without dimensions.
    missing = text is None or isinstance(text, float) or type(text).__name__ == "NAType"
    advice = " (a missing value: remove or replace it)" if missing else ""
    raise ValueError(
        f"`texts` must be strings, but element {index} is not a string{advice}. "
        f"Received: {text!r:.200} of type {type(text).__name__}"
    )
