"""Resumable embedding: texts -> vectors on disk."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labse_tf.files import write_text
from labse_tf.progress import Progress, progress_bar
from labse_tf.text import DistinctTexts

_SAVE_SECONDS = 30.0

# The vector of this sentence gives D, and identifies a model that has no name.
_PROBE = "The quick brown fox jumps over the lazy dog. 0123456789"


def embed_to_disk(
    texts: DistinctTexts,
    encode: Callable[[list[str]], Any],
    path: str | Path,
    *,
    model: str = "",
    progress: Progress = None,
) -> np.ndarray:
    """Embed the texts of a file into a `.npy` file, and resume if interrupted.

    See `rows_on_disk`. Vectors of other texts or of another model are recomputed.

    Args:
        texts: Texts to embed.
        encode: Callable from a list of strings to `(n, D)`.
        path: Path of the `.npy` file.
        model: Identifier of the model and its compute type, such as
            `labse_tf.encoders.fingerprint` returns. Without it, only a change of a
            probe's vector by about 0.001 shows that the model is another one.
        progress: See `labse_tf.progress`. Counts texts.

    Returns:
        float32 `(n, D)`, memory-mapped.

    Raises:
        ValueError: If `encode` does not return `(n, D)`.
        OSError: If the file cannot be written.
    """
    probe = np.asarray(encode([_PROBE]), dtype=np.float32)
    if probe.ndim != 2 or len(probe) != 1:
        raise ValueError(f"`encode` must return (1, D). Received: {probe.shape}")
    return rows_on_disk(
        texts.blocks,
        encode,
        path,
        shape=(len(texts), probe.shape[1]),
        made_of={
            "texts": texts.digest,
            "model": model,
            "probe": [round(float(x), 3) for x in probe[0]],
        },
        progress=progress,
    )


def rows_on_disk(
    blocks: Callable[[int], Iterable[list[Any]]],
    compute: Callable[[list[Any]], Any],
    path: str | Path,
    *,
    shape: tuple[int, ...],
    made_of: Mapping[str, Any],
    what: tuple[str, str] = ("Encoding", "texts"),
    progress: Progress = None,
) -> np.ndarray:
    """Compute one row per element into a `.npy` file, and resume if interrupted.

    Progress is saved every 30 seconds in a `.json` file next to the rows, with
    `made_of`. Rows that were made of something else are recomputed.

    Args:
        blocks: Function from an index to an iterable of lists: the elements from this
            index on. It is called with an index at which a list ended before.
        compute: Callable from a list of n elements to their rows, `(n, *shape[1:])`.
        path: Path of the `.npy` file.
        shape: Shape of the result.
        made_of: Everything that the rows depend on, as JSON values.
        what: Label and unit of the progress bar.
        progress: See `labse_tf.progress`. Counts elements.

    Returns:
        float32 of the shape, memory-mapped.

    Raises:
        ValueError: If `compute` returns a wrong shape, or there are not `shape[0]`
            elements.
        OSError: If the file cannot be written.
    """
    path = Path(path)
    note = path.with_suffix(".json")
    # As read from the note, where tuples are lists.
    known = json.loads(json.dumps(dict(made_of)))
    rows, done = _opened(path, note, shape, known)

    def save() -> None:
        rows.flush()
        write_text(note, json.dumps({**known, "done": done}))

    saved = time.monotonic()
    try:
        with progress_bar(what[0], len(rows), what[1], show=progress) as advance:
            if done:
                advance(done)
            for block in blocks(done):
                _check_count(rows, max(len(rows), done + len(block)))
                found = np.asarray(compute(block))
                expected = (len(block), *shape[1:])
                # A single row would be broadcast to all rows of the block.
                if found.shape != expected:
                    raise ValueError(
                        f"one row per text must be returned, {expected}. "
                        f"Received: {found.shape}"
                    )
                rows[done : done + len(block)] = found
                done += len(block)
                advance(len(block))
                if time.monotonic() - saved >= _SAVE_SECONDS:
                    save()
                    saved = time.monotonic()
    finally:
        save()
    _check_count(rows, done)
    return rows


def _check_count(rows: np.ndarray, count: int) -> None:
    """Raise an error if the input has not one element per row."""
    if count != len(rows):
        raise ValueError(
            f"the input must not change while it is read: expected {len(rows)} "
            f"elements. Received: {count}"
        )


def _opened(
    path: Path, note: Path, shape: tuple[int, ...], made_of: Mapping[str, Any]
) -> tuple[np.memmap, int]:
    """Return the rows on disk, new or resumed, and the number of finished rows."""
    with contextlib.suppress(OSError, ValueError, KeyError, AttributeError):
        known = json.loads(note.read_text(encoding="utf-8"))
        if {key: known.get(key) for key in made_of} == made_of:
            rows = np.lib.format.open_memmap(path, mode="r+")
            if rows.shape == shape and rows.dtype == np.float32:
                return rows, int(known["done"])
    path.parent.mkdir(parents=True, exist_ok=True)
    # Else a note of other rows would be next to the new ones.
    note.unlink(missing_ok=True)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    return rows, 0
