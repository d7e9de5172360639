"""Layout of a prepared directory: its files, its description, where it may lie.

    dataset.json                     what is there, written last
    preparing.json                   what is being made, until then
    vocab.txt
    arrays/hi-00000-of-00003.npz         lengths uint16 (n, 2), tokens of sources and
    arrays/...                           targets end to end, uint16 or int32
    tfrecord/hi-00000-of-00003.tfrecord  an Example a pair: int64 lists `source` and
    tfrecord/...                         `target`, bytes `language`

A language's pairs are in random order; shard i holds the same pairs in both formats.
Token ids are without [CLS] and [SEP].

Paths may be local, or anything that `tf.io.gfile` opens, as `gs://bucket/folder`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
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
    """What a prepared directory holds.

    Attributes:
        formats: of `FORMATS`.
        sequence_length: tokens of a sentence at most, [CLS] and [SEP] among them.
        shard_size: pairs of a shard; a language's last one may have fewer.
        seed: of the order of the pairs.
        counts: language -> pairs, sorted, as the shards are named; a directory of an
            earlier version may have `hin` or `hi-IN`.
        tokenizer: as `describe_tokenizer` has it.
        text: a digest of the pairs.
    """

    formats: tuple[str, ...]
    sequence_length: int
    shard_size: int
    seed: int
    counts: dict[str, int]
    tokenizer: dict[str, Any]
    text: str

    def shards(self, language: str) -> list[tuple[str, range]]:
        """The shards of a language: their names, without suffix, and their rows.

        Args:
            language: A canonical code.

        Returns:
            (such as `hi-00000-of-00003`, rows in the language's random order).
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
        """As it stands in `dataset.json`."""
        values = {"version": _VERSION, **dataclasses.asdict(self)}
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, path: str) -> Description:
        """Reads `dataset.json`.

        Args:
            text: its content.
            path: where it is from, for the error.

        Raises:
            ValueError: it is no such file.
        """
        try:
            values = json.loads(text)
            if values.pop("version") != _VERSION:
                raise ValueError("another version")
            return cls(**{**values, "formats": tuple(values["formats"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(
                f"{path}: expected the description of a directory that `labse-tf "
                f"prepare` made, version {_VERSION}. Received: {error!r}"
            ) from None


def describe_tokenizer(tokenizer: WordPieceTokenizer) -> dict[str, Any]:
    """Tells tokenizers apart by what they do.

    Args:
        tokenizer: any.

    Returns:
        The options, and SHA-256 of the vocabulary.
    """
    digest = hashlib.sha256()
    for token in tokenizer.vocabulary:
        digest.update(token.encode() + b"\n")
    return {
        "vocabulary": digest.hexdigest(),
        "vocabulary_size": tokenizer.vocabulary_size,
        "lowercase": tokenizer.lowercase,
        "strip_accents": tokenizer.strip_accents,
        "compat": tokenizer.compat,
    }


# === Files, near and far ===


def is_remote(path: PathLike) -> bool:
    """Whether a path is a URL such as `gs://bucket/folder`."""
    return "://" in os.fspath(path)


def join(path: PathLike, *parts: str) -> str:
    """A path inside a directory, near or far."""
    if is_remote(path):
        return "/".join([os.fspath(path).rstrip("/"), *parts])
    return str(Path(path, *parts))


def read_bytes(path: PathLike) -> bytes:
    """A file's content.

    Args:
        path: local or remote.

    Raises:
        OSError: it is not there or cannot be read.
    """
    if not is_remote(path):
        return Path(path).read_bytes()
    import tensorflow as tf

    try:
        with tf.io.gfile.GFile(os.fspath(path), "rb") as file:
            return file.read()
    except tf.errors.OpError as error:
        raise OSError(f"{path}: expected a file that can be read. {error}") from error


def names_in(path: PathLike) -> set[str]:
    """Names of the files in a directory; none if it is not there."""
    if not is_remote(path):
        return {p.name for p in Path(path).iterdir()} if Path(path).is_dir() else set()
    import tensorflow as tf

    if not tf.io.gfile.isdir(os.fspath(path)):
        return set()
    return {name.rstrip("/") for name in tf.io.gfile.listdir(os.fspath(path))}


@contextmanager
def new_file(path: PathLike) -> Iterator[str]:
    """Gives a temporary path whose file becomes `path` at the end.

    Args:
        path: local or remote; its directory is made if needed.

    Yields:
        A path to write to.

    Raises:
        OSError: it cannot be written.
    """
    if not is_remote(path):
        with atomic_file(path) as temporary:
            yield str(temporary)
        return
    import tensorflow as tf

    name = os.fspath(path)
    try:
        tf.io.gfile.makedirs(name.rpartition("/")[0])
        yield name + ".tmp"
        tf.io.gfile.rename(name + ".tmp", name, overwrite=True)
    except tf.errors.OpError as error:
        raise OSError(f"{path}: expected a path to write to. {error}") from error


def write_bytes(path: PathLike, content: bytes) -> None:
    """Writes a file atomically.

    Args:
        path: local or remote.
        content: all of it.

    Raises:
        OSError: it cannot be written.
    """
    with new_file(path) as temporary:
        if not is_remote(path):
            Path(temporary).write_bytes(content)
            return
        import tensorflow as tf

        with tf.io.gfile.GFile(temporary, "wb") as file:
            file.write(content)


def remove(path: PathLike) -> None:
    """Deletes a file, if it is there."""
    if not is_remote(path):
        Path(path).unlink(missing_ok=True)
        return
    import tensorflow as tf

    if tf.io.gfile.exists(os.fspath(path)):
        tf.io.gfile.remove(os.fspath(path))
