"""Resumable embedding: texts -> vectors on disk."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from labse_tf.files import write_text
from labse_tf.progress import Progress, progress_bar
from labse_tf.text import DistinctLines

_SAVE_SECONDS = 30.0

# The vector of this sentence identifies the model.
_PROBE = "The quick brown fox jumps over the lazy dog. 0123456789"


def embed_to_disk(
    texts: DistinctLines,
    encode: Callable[[list[str]], Any],
    path: str | Path,
    *,
    progress: Progress = None,
) -> np.ndarray:
    """Embed the texts of a file into a `.npy` file, and resume if interrupted.

    Progress is saved every 30 seconds in a `.json` file next to the vectors. Vectors of
    other texts or of another model are recomputed.

    Args:
        texts: Texts to embed.
        encode: Callable from a list of strings to `(n, D)`.
        path: Path of the `.npy` file.
        progress: See `labse_tf.progress`. Counts texts.

    Returns:
        float32 `(n, D)`, memory-mapped.

    Raises:
        ValueError: If `encode` does not return `(n, D)`.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    note = path.with_suffix(".json")
    probe = np.asarray(encode([_PROBE]), dtype=np.float32)
    if probe.ndim != 2 or len(probe) != 1:
        raise ValueError(f"`encode` must return (1, D). Received: {probe.shape}")
    made_of = {"texts": texts.digest, "probe": [round(float(x), 3) for x in probe[0]]}
    done = 0
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if {key: known.get(key) for key in made_of} == made_of and path.exists():
            done = int(known["done"])
    shape = (len(texts), probe.shape[1])
    if done:
        vectors = np.lib.format.open_memmap(path, mode="r+")
        if vectors.shape != shape:
            done = 0
    if not done:
        path.parent.mkdir(parents=True, exist_ok=True)
        vectors = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.float32, shape=shape
        )

    def save() -> None:
        vectors.flush()
        write_text(note, json.dumps({**made_of, "done": done}))

    saved = time.monotonic()
    try:
        with progress_bar("Encoding", len(texts), "texts", show=progress) as advance:
            if done:
                advance(done)
            for block in texts.blocks(done):
                vectors[done : done + len(block)] = encode(block)
                done += len(block)
                advance(len(block))
                if time.monotonic() - saved >= _SAVE_SECONDS:
                    save()
                    saved = time.monotonic()
    finally:
        save()
    return vectors
