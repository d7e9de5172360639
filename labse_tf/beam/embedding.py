"""Embedding pipeline: texts -> vectors of an exported model, in `.npy` arrays."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference

from labse_tf.beam.files import POSITION_PREFIX, download, publish
from labse_tf.beam.ordering import AssignShards, Shard, in_order
from labse_tf.data.shards.layout import PathLike, is_remote, join
from labse_tf.encoders import Encoder, open_encoder

SHARD_SIZE = 1 << 16  # ours: 100 MB with 384 dimensions
TRUNCATED = "truncated texts"
"""Name of Beam's counter of texts that were cut, in the namespace `labse_tf`."""


class LoadedEncoder:
    """Encoder of a worker, which several threads may use, with a count.

    Args:
        encoder: The encoder.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()
        self._reported = 0

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Embed `n` texts, float32 `(n, D)`."""
        return np.asarray(self._encoder(texts), np.float32)

    def newly_truncated(self) -> int:
        """Return the number of texts that were cut since the last call."""
        model = self._encoder.model
        if model is None:  # A SavedModel does not count.
            return 0
        with self._lock:
            total = model.truncated_texts
            new, self._reported = total - self._reported, total
        return new


class SavedModelHandler(ModelHandler[str, np.ndarray, LoadedEncoder]):
    """Model for Beam's `RunInference`: from texts to vectors, float32 `(D,)`.

    Loaded once per process. The texts of a batch are sorted by length, as in
    `labse-tf embed`. Beam's counter "truncated texts" counts the texts that were cut to
    the maximum length, except by a SavedModel.

    Args:
        model: Directory of an exported SavedModel, local or remote, or any other local
            model that `labse_tf.encoders.open_encoder` accepts.
        dtype: Compute type, see `labse_tf.encoders.open_encoder`.
        sequence_length: Maximum number of tokens per text, see
            `labse_tf.encoders.open_encoder`.
        dim: Number of components of each vector, see `labse_tf.encoders.open_encoder`.
        max_batch_size: Greatest number of texts per batch.
    """

    def __init__(
        self,
        model: str,
        *,
        dtype: str = "float32",
        sequence_length: int | None = None,
        dim: int | None = None,
        max_batch_size: int = 2048,
    ) -> None:
        super().__init__()
        self._model, self._dtype = model, dtype
        self._sequence_length, self._dim = sequence_length, dim
        self._max_batch_size = max_batch_size

    def load_model(self) -> LoadedEncoder:
        """Load the model; a remote model is copied first."""
        if not is_remote(self._model):
            return self._open(self._model)
        root = self._model.rstrip("/") + "/"
        with tempfile.TemporaryDirectory() as folder:
            for file in FileSystems.match([root + "**"])[0].metadata_list:
                download(file.path, Path(folder, file.path.removeprefix(root)))
            return self._open(folder)

    def _open(self, path: str) -> LoadedEncoder:
        encoder = open_encoder(path, self._dtype, self._sequence_length, self._dim)
        return LoadedEncoder(encoder)

    def run_inference(
        self,
        batch: Sequence[str],
        model: LoadedEncoder,
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterable[np.ndarray]:
        """Return the vectors of a batch of texts."""
        vectors = model(list(batch))
        Metrics.counter("labse_tf", TRUNCATED).inc(model.newly_truncated())
        return vectors

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """Return the options of Beam's `BatchElements`."""
        return {"min_batch_size": 32, "max_batch_size": self._max_batch_size}


class EmbedTexts(beam.PTransform):
    """Embed texts by Beam's `RunInference`. See `SavedModelHandler` for the arguments.

    From (key, text), with keys of any type, to ((key, text), vector). Vectors are
    float32 `(D,)`, of unit length if the model normalizes them.
    """

    def __init__(self, model: str, **options: Any) -> None:
        super().__init__()
        self._handler = SavedModelHandler(model, **options)

    def expand(self, texts: Any) -> Any:
        """Apply the transform."""
        return (
            texts
            | "Keep text" >> beam.MapTuple(lambda key, text: ((key, text), text))
            | "Embed" >> RunInference(KeyedModelHandler(self._handler))
        )


class EmbedLines(beam.PTransform):
    """Embed lines and write vectors and texts, in the order of the lines.

    From (position, text), such as `ReadLines` returns, to `vectors-00000-of-00003.npy`,
    float32 (n, D), and `texts-00000-of-00003.txt`, whose line i is the text of row i.
    The concatenated arrays equal the array that `labse-tf embed` writes for the
    concatenated files. A worker holds the vectors of one shard.

    Args:
        model: See `SavedModelHandler`.
        output: Local or remote directory.
        shard_size: Number of texts per shard.
        **options: See `SavedModelHandler`.
    """

    def __init__(
        self,
        model: str,
        output: PathLike,
        *,
        shard_size: int = SHARD_SIZE,
        **options: Any,
    ) -> None:
        """Check the size."""
        super().__init__()
        self._output = output
        self._assign = AssignShards(shard_size, POSITION_PREFIX)
        self._embed = EmbedTexts(model, **options)

    def expand(self, lines: Any) -> Any:
        """Apply the transform."""
        return (
            lines
            | "In one group"
            >> beam.MapTuple(
                lambda position, text: ("", position, text)
            ).with_output_types(tuple[str, bytes, str])
            | "Assign shards"
            >> self._assign.with_output_types(tuple[Shard, tuple[bytes, str]])
            | "Key" >> beam.MapTuple(lambda shard, row: ((shard, row[0]), row[1]))
            | "Embed texts" >> self._embed
            | "By shard"
            >> beam.MapTuple(_by_shard).with_output_types(
                tuple[Shard, tuple[bytes, tuple[str, bytes]]]
            )
            | "Group shards" >> beam.GroupByKey()
            | "Write shards" >> beam.Map(_write_vectors, self._output)
        )


def _by_shard(
    key: tuple[tuple[Shard, bytes], str], vector: np.ndarray
) -> tuple[Shard, tuple[bytes, tuple[str, bytes]]]:
    (shard, position), text = key
    return shard, (position, (text, vector.tobytes()))


def _write_vectors(
    group: tuple[Shard, Iterable[tuple[bytes, tuple[str, bytes]]]], output: PathLike
) -> int:
    """Write a shard and return the number of its texts."""
    (_, number, total), rows = group
    texts, vectors = zip(*in_order(rows), strict=True)
    name = f"{number:05d}-of-{total:05d}"
    with tempfile.TemporaryDirectory() as folder:
        array = np.frombuffer(b"".join(vectors), np.float32)
        np.save(Path(folder, "vectors.npy"), array.reshape(len(texts), -1))
        # Written as bytes, because a text may contain carriage returns. The texts of
        # pairs may contain line feeds too.
        text = "".join(text.replace("\n", " ") + "\n" for text in texts)
        Path(folder, "texts.txt").write_bytes(text.encode())
        publish(Path(folder, "vectors.npy"), join(output, f"vectors-{name}.npy"))
        publish(Path(folder, "texts.txt"), join(output, f"texts-{name}.txt"))
    return len(texts)
