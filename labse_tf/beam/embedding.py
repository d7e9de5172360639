"""Embedding: texts -> vectors by an exported model, in arrays that NumPy maps."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io.filesystems import FileSystems
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference

from labse_tf.beam.files import POSITION_PREFIX, download, publish
from labse_tf.beam.ordering import AssignShards, Shard, in_order
from labse_tf.data.shards.layout import PathLike, is_remote, join
from labse_tf.encoders import Encode, open_encoder

SHARD_SIZE = 1 << 16  # ours: 100 MB of 384 dimensions


class SavedModelHandler(ModelHandler[str, np.ndarray, Encode]):
    """A model for Beam's `RunInference`: from texts to vectors, float32 `(D,)`.

    Loaded once a process. Texts of a batch are sorted by length, as `labse-tf embed`
    does.

    Args:
        model: directory of an exported SavedModel, local or remote; locally also what
            else `--model` of the commands takes.
        dtype: compute type, as in `labse_tf.encoders.open_encoder`.
        max_batch_size: texts of a batch.
    """

    def __init__(
        self, model: str, *, dtype: str = "float32", max_batch_size: int = 2048
    ) -> None:
        super().__init__()
        self._model, self._dtype = model, dtype
        self._max_batch_size = max_batch_size

    def load_model(self) -> Encode:
        """Loads it; a remote one is copied first."""
        if not is_remote(self._model):
            return open_encoder(self._model, self._dtype)
        root = self._model.rstrip("/") + "/"
        with tempfile.TemporaryDirectory() as folder:
            for file in FileSystems.match([root + "**"])[0].metadata_list:
                download(file.path, Path(folder, file.path.removeprefix(root)))
            return open_encoder(folder, self._dtype)

    def run_inference(
        self,
        batch: Sequence[str],
        model: Encode,
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterable[np.ndarray]:
        """Vectors of a batch of texts."""
        return np.asarray(model(list(batch)), np.float32)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """For Beam's `BatchElements`."""
        return {"min_batch_size": 32, "max_batch_size": self._max_batch_size}


class EmbedTexts(beam.PTransform):
    """Embeds texts, by Beam's `RunInference`.

    From (key, text), with keys of any kind, to ((key, text), vector): float32 `(D,)`,
    of length 1 where the model makes them so.

    Args:
        model: as in `SavedModelHandler`.
        **options: as in `SavedModelHandler`.
    """

    def __init__(self, model: str, **options: Any) -> None:
        super().__init__()
        self._handler = SavedModelHandler(model, **options)

    def expand(self, texts: Any) -> Any:
        """Applies it."""
        return (
            texts
            | "Keep text" >> beam.MapTuple(lambda key, text: ((key, text), text))
            | "Embed" >> RunInference(KeyedModelHandler(self._handler))
        )


class EmbedLines(beam.PTransform):
    """Embeds lines and writes the vectors and the texts, in the order of the lines.

    From (position, text), as `ReadLines` gives them, to
    `vectors-00000-of-00003.npy`, float32 (n, D), and `texts-00000-of-00003.txt`, whose
    line i has the text of row i. The arrays one after another are the array that
    `labse-tf embed` makes of the files one after another. A worker holds the vectors of
    a shard.

    Args:
        model: as in `SavedModelHandler`.
        output: a directory, local or remote.
        shard_size: texts of a shard.
        **options: as in `SavedModelHandler`.
    """

    def __init__(
        self,
        model: str,
        output: PathLike,
        *,
        shard_size: int = SHARD_SIZE,
        **options: Any,
    ) -> None:
        """Checks the size."""
        super().__init__()
        self._output = output
        self._assign = AssignShards(shard_size, POSITION_PREFIX)
        self._embed = EmbedTexts(model, **options)

    def expand(self, lines: Any) -> Any:
        """Applies it."""
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
    """Writes a shard; returns the number of its texts."""
    (_, number, total), rows = group
    texts, vectors = zip(*in_order(rows), strict=True)
    name = f"{number:05d}-of-{total:05d}"
    with tempfile.TemporaryDirectory() as folder:
        array = np.frombuffer(b"".join(vectors), np.float32)
        np.save(Path(folder, "vectors.npy"), array.reshape(len(texts), -1))
        # Bytes, because a text may have carriage returns inside; that of a pair may
        # have line feeds too.
        text = "".join(text.replace("\n", " ") + "\n" for text in texts)
        Path(folder, "texts.txt").write_bytes(text.encode())
        publish(Path(folder, "vectors.npy"), join(output, f"vectors-{name}.npy"))
        publish(Path(folder, "texts.txt"), join(output, f"texts-{name}.txt"))
    return len(texts)
