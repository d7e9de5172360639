"""Layout of a prepared directory: its files, their formats, local and remote paths.

    dataset.json                     the description, written last
    preparing.json                   the description while shards are being written
    vocab.txt
    arrays/hi-00000-of-00003.npz         lengths uint16 (n, 2); concatenated tokens of
    arrays/...                           the sources, then targets: uint16 or int32
    tfrecord/hi-00000-of-00003.tfrecord  one Example per pair: int64 lists `source` and
    tfrecord/...                         `target`, bytes `language`

The pairs of a language are in random order. Shard i holds the same pairs in both
formats. Token ids do not include [CLS] and [SEP].

Paths may be local or anything that `tf.io.gfile` opens, such as `gs://bucket/folder`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.files import atomic_file
from labse_tf.languages import language_code
from labse_tf.text import PathLike

if TYPE_CHECKING:
    from labse_tf.tokenizers import WordPieceTokenizer

FORMATS = {"arrays": ".npz", "tfrecord": ".tfrecord"}
DATASET, UNFINISHED, VOCABULARY = "dataset.json", "preparing.json", "vocab.txt"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Description:
    """Description of a prepared directory.

    Attributes:
        formats: Names from `FORMATS`.
        sequence_length: Greatest number of tokens per sentence, with [CLS] and [SEP].
        shard_size: Number of pairs per shard. A language's last shard may have fewer.
        seed: Seed of the order of the pairs.
        counts: Language -> number of pairs, sorted. Codes are those of the shards'
            names; directories of earlier versions may have `hin` or `hi-IN`.
        tokenizer: See `describe_tokenizer`.
        text: Digest of the pairs.
    """

    formats: tuple[str, ...]
    sequence_length: int
    shard_size: int
    seed: int
    counts: dict[str, int]
    tokenizer: dict[str, Any]
    text: str

    def shards(self, language: str) -> list[tuple[str, range]]:
        """Return the names and rows of a language's shards.

        Args:
            language: A canonical code.

        Returns:
            List of (name without suffix, such as `hi-00000-of-00003`; rows in the
            language's random order).
        """
        found, first, size = [], 0, self.shard_size
        for label, count in self.counts.items():
            if language_code(label) != language:
                continue
            total = -(-count // size)
            for i in range(total):
                rows = range(first + i * size, first + min((i + 1) * size, count))
                found.append((f"{label}-{i:05d}-of-{total:05d}", rows))
            first += count
        return found

    def to_json(self) -> str:
        """Return the content of `dataset.json`."""
        values = {"version": _VERSION, **dataclasses.asdict(self)}
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, path: str) -> Description:
        """Read the content of `dataset.json`; `path` is for the error.

        Raises:
            ValueError: If the text is not a valid description.
        """
        try:
            values = json.loads(text)
            if values.pop("version") != _VERSION:
                raise ValueError("unsupported version")
            return cls(**{**values, "formats": tuple(values["formats"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path}: expected the description of a directory that `labse-tf "
                f"prepare` wrote, version {_VERSION}. Received: {error!r}"
            ) from None


def describe_tokenizer(tokenizer: WordPieceTokenizer) -> dict[str, Any]:
    """Return the options of a tokenizer and the SHA-256 of its vocabulary."""
    return tokenizer.describe()


# === Local and remote files ===


def is_remote(path: PathLike) -> bool:
    """Return whether a path is a URL such as `gs://bucket/folder`."""
    return "://" in os.fspath(path)


def join(path: PathLike, *parts: str) -> str:
    """Return a path inside a local or remote directory."""
    if is_remote(path):
        return "/".join([os.fspath(path).rstrip("/"), *parts])
    return str(Path(path, *parts))


def read_bytes(path: PathLike) -> bytes:
    """Return the content of a local or remote file.

    Raises:
        OSError: If the file does not exist or cannot be read.
    """
    if not is_remote(path):
        return Path(path).read_bytes()
    import tensorflow as tf

    try:
        with tf.io.gfile.GFile(os.fspath(path), "rb") as file:
            return file.read()
    except tf.errors.OpError as error:
        raise OSError(f"{path}: expected a readable file. {error}") from error


def names_in(path: PathLike) -> set[str]:
    """Return the names of the files in a directory; none if it does not exist."""
    if not is_remote(path):
        return {p.name for p in Path(path).iterdir()} if Path(path).is_dir() else set()
    import tensorflow as tf

    if not tf.io.gfile.isdir(os.fspath(path)):
        return set()
    return {name.rstrip("/") for name in tf.io.gfile.listdir(os.fspath(path))}


@contextmanager
def new_file(path: PathLike) -> Iterator[str]:
    """Create a local or remote file atomically, and its directory if needed.

    Yields:
        A temporary path to write to, which is renamed to `path` at the end.

    Raises:
        OSError: If the file cannot be written.
    """
    if not is_remote(path):
        with atomic_file(path) as temporary:
            yield str(temporary)
        return
    import tensorflow as tf

    name = os.fspath(path)
    # Two writers of one file must not write into each other's.
    unfinished = f"{name}.{uuid.uuid4().hex}.tmp"
    try:
        tf.io.gfile.makedirs(name.rpartition("/")[0])
        yield unfinished
        tf.io.gfile.rename(unfinished, name, overwrite=True)
    except BaseException as error:
        with contextlib.suppress(tf.errors.OpError):
            tf.io.gfile.remove(unfinished)
        if isinstance(error, tf.errors.OpError):
            raise OSError(f"{path}: expected a writable path. {error}") from error
        raise


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write a local or remote file atomically.

    Raises:
        OSError: If the file cannot be written.
    """
    with new_file(path) as temporary:
        if not is_remote(path):
            Path(temporary).write_bytes(content)
            return
        import tensorflow as tf

        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(content)


def remove(path: PathLike) -> None:
    """Delete a file if it exists."""
    if not is_remote(path):
        Path(path).unlink(missing_ok=True)
        return
    import tensorflow as tf

    if tf.io.gfile.exists(os.fspath(path)):
        tf.io.gfile.remove(os.fspath(path))
