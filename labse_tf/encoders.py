"""Encoders: a name, a preset, a directory or a SavedModel -> an encoder."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from labse_tf.models import LaBSE


Encode = Callable[[list[str]], "np.ndarray"]


def encoder(name: str, dtype: str = "float32") -> Encode:
    """A model's `encode` from whatever the user has named, in a compute type.

    What another type than float32 costs is said on standard error.
    """
    if (Path(name) / "saved_model.pb").is_file():
        if dtype != "float32":
            raise ValueError(
                "--dtype is for models that are no SavedModel yet: export one with "
                f"--dtype. Received: --dtype {dtype} with {name}"
            )
        return _saved_model_encoder(name)
    model = load_model(name)
    fast = model.with_dtype(dtype)
    if fast is not model:
        from labse_tf.export import parity

        texts = parity.sample_texts(model)
        vectors = [m.encode(texts, progress=False) for m in (fast, model)]
        print(
            f"{fast.backbone.compute_dtype}: {parity.compare(*vectors).in_words()}",
            file=sys.stderr,
        )
    return fast.encode


def load_model(name: str) -> LaBSE:
    """A model from whatever the user has named, to train, export or convert."""
    from labse_tf import checkpoints

    return checkpoints.load(name)


@contextmanager
def as_preset(name: str | None) -> Iterator[str | None]:
    """A preset for what the user has named: converted for as long as it is needed.

    Converting gives the same bytes each time, so that a run knows its start again.
    """
    from labse_tf import checkpoints

    if name is None or checkpoints.layout_of(name) in (None, "preset"):
        yield name
        return
    with tempfile.TemporaryDirectory(prefix="labse_tf.") as folder:
        preset = Path(folder) / "model"
        checkpoints.load(name).save_to_preset(preset)
        yield str(preset)


def _saved_model_encoder(path: str) -> Encode:
    """`encode` of a SavedModel by the TF Hub text contract."""
    import numpy as np
    import tensorflow as tf
    import tensorflow_text  # noqa: F401 (registers the ops of the tokenizer)

    module = tf.saved_model.load(path)
    # Whatever a SavedModel raises that takes something else, several kinds of errors.
    try:
        first = module(tf.constant([""]))
    except Exception as error:
        raise ValueError(
            f"{path}: expected a SavedModel that takes strings and gives vectors; of a "
            "BERT that takes token ids, as LaBSE on TF Hub, `labse-tf convert` makes a "
            f"model that can be used here. Received: {str(error).strip()[:120]}"
        ) from error

    def vectors_of(output: Any) -> Any:
        return output.get("default") if isinstance(output, Mapping) else output

    vectors = vectors_of(first)
    if not (tf.is_tensor(vectors) and vectors.dtype.is_floating and vectors.ndim == 2):
        keys = sorted(first) if isinstance(first, Mapping) else type(first).__name__
        raise ValueError(
            f"{path}: expected a SavedModel that gives vectors (n, D), as such or as "
            f"`default`. Received: {keys}"
        )

    def encode(texts: list[str]) -> np.ndarray:
        # By length, so that a batch is not padded for one long sentence in it.
        order = np.argsort([len(text) for text in texts], kind="stable")
        parts = []
        for start in range(0, len(order), 128):
            batch = tf.constant([texts[i] for i in order[start : start + 128]])
            parts.append(vectors_of(module(batch)).numpy())
        result = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
        restored = np.empty_like(result)
        restored[order] = result
        return restored

    return encode
