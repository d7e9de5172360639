"""Local and remote files: reading elements with their positions, and writing."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import shutil
import struct
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics

from labse_tf.data import (
    DataError,
    Files,
    OnError,
    SentencePair,
    SkipReport,
    find_pair_files,
    find_sentence_files,
    read_files,
    read_sentences,
)
from labse_tf.data.shards.layout import is_remote
from labse_tf.files import atomic_file
from labse_tf.languages import language_code
from labse_tf.pipes import is_stream
from labse_tf.text import Side, read_numbered, split_language

POSITION_PREFIX = 10  # bytes that up to 65,536 adjacent positions share

Pair = tuple[str, str, str]  # a `SentencePair` as a plain tuple


def position(file: int, index: int) -> bytes:
    """Return the position of an element: 12 bytes that sort by file, then element."""
    return struct.pack(">IQ", file, index)


def find_files(files: Files, find: Callable[[Files], list[Path]]) -> list[str]:
    """Return files in the order in which they are read.

    Args:
        files: Local paths that `find` accepts, and remote paths, also as `XX=PATH`. In
            remote paths `*` matches all characters except slashes, `**` all.
        find: Function that lists local files, such as `find_pair_files`.

    Returns:
        The local files as sorted by `find`, then the remote files, sorted.

    Raises:
        ValueError: If there are no files, no file matches a remote path, or a path is
            a stream, which workers cannot read.
        DataError: See `find`.
    """
    paths = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    remote = [_split(os.fspath(path)) for path in paths if is_remote(path)]
    near = [path for path in paths if not is_remote(path)]
    for path in near:
        if is_stream(split_language(path)[1]):
            raise ValueError(
                "Pipelines read files that all workers can open; copy a stream to a "
                f"file first. Received: {path}"
            )
    found = [str(path) for path in find(near)] if near or not remote else []
    far: set[str] = set()
    matches = FileSystems.match([pattern for _, pattern in remote])
    for (code, pattern), match in zip(remote, matches, strict=True):
        if not match.metadata_list:
            raise ValueError(f"{pattern}: expected files. Received: no matching files")
        far.update(code + metadata.path for metadata in match.metadata_list)
    return found + sorted(far)


def _split(path: str) -> tuple[str, str]:
    """Split a path into `XX=` (or "") and the path itself."""
    code, mark, place = path.partition("=")
    return (code + mark, place) if mark and "://" not in code else ("", path)


@contextmanager
def local_copy(path: str) -> Iterator[str]:
    """Yield a local path of a file, which is a copy if the file is remote.

    The copy has the names of the file and its directory, which may contain the
    language.

    Raises:
        OSError: If the file cannot be read.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, *path.split("/")[-2:])
        download(path, local)
        yield str(local)


def download(path: str, local: Path) -> None:
    """Copy a remote file without decompressing it; create the directory if needed.

    Raises:
        OSError: If the file cannot be read.
    """
    local.parent.mkdir(parents=True, exist_ok=True)
    plain = CompressionTypes.UNCOMPRESSED
    with FileSystems.open(path, compression_type=plain) as source:
        with local.open("wb") as file:
            shutil.copyfileobj(source, file)


def publish(local: str | Path, target: str) -> None:
    """Copy a local file to a local or remote target atomically.

    Idempotent, because runners may run it twice.

    Raises:
        OSError: If the file cannot be written.
    """
    if not is_remote(target):
        with atomic_file(target) as copy_path:
            shutil.copyfile(local, copy_path)
        return
    temporary = f"{target}.{uuid.uuid4().hex}"
    plain = CompressionTypes.UNCOMPRESSED
    try:
        with open(local, "rb") as file:
            with FileSystems.create(temporary, compression_type=plain) as copy:
                shutil.copyfileobj(file, copy)
        try:
            FileSystems.rename([temporary], [target])
        except BeamIOError:
            # HDFS does not replace files. Others do, and then readers never find none.
            if not FileSystems.exists(target):
                raise
            FileSystems.delete([target])
            FileSystems.rename([temporary], [target])
    except BaseException:
        with contextlib.suppress(OSError, BeamIOError):
            FileSystems.delete([temporary])
        raise


def read_text(path: str) -> str:
    """Return the text of a small local or remote file.

    Raises:
        OSError: If the file cannot be read.
    """
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return file.read().decode()


def names_in(folder: str) -> set[str]:
    """Return the paths of all files in a directory, relative to it."""
    found = FileSystems.match([f"{folder.rstrip('/')}/**"])[0].metadata_list
    start = len(folder.rstrip("/")) + 1
    return {metadata.path[start:].replace("\\", "/") for metadata in found}


def publish_text(target: str, text: str) -> None:
    """Write a small local or remote text file atomically.

    Raises:
        OSError: If the file cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, "text")
        local.write_text(text, encoding="utf-8", newline="\n")
        publish(local, target)


# `read(path, skipped=report)` returns the elements of a file.
_Read = Callable[..., Iterable[Any]]


class _ReadFiles(beam.PTransform):
    """Read files as (position, element), each file on one worker."""

    def __init__(self, paths: list[str], read: _Read) -> None:
        super().__init__()
        self.paths, self._read = paths, read

    def expand(self, begin: Any) -> Any:
        """Apply the transform."""
        return (
            begin
            | "Name files" >> beam.Create(list(enumerate(self.paths)))
            | "Deal files" >> beam.Reshuffle()
            | "Read files" >> beam.FlatMap(_numbered, self._read)
        )


def _numbered(file: tuple[int, str], read: _Read) -> Iterator[tuple[bytes, Any]]:
    """Iterate over (position, element) of a file."""
    number, given = file
    code, path = _split(given)
    skipped = SkipReport()
    with local_copy(path) as local:
        # Errors and warnings name the remote file, not its local copy.
        try:
            for index, element in enumerate(read(code + local, skipped=skipped)):
                yield position(number, index), element
        except DataError as error:
            if local == path:
                raise
            raise DataError(path, *error.args[1:]) from error
        if skipped:
            Metrics.counter("labse_tf", "skipped lines").inc(skipped.total)
            logging.getLogger(__name__).warning(str(skipped).replace(local, path))


class ReadPairs(beam.PTransform):
    """Read pair files by `labse_tf.data.read_files`.

    Returns (position, (source, target, language)). Positions sort in the order in which
    `read_files` reads.

    Args:
        files: Local paths (see `load_pairs`), and remote paths and patterns
            (`gs://bucket/pairs/**.tsv.gz`), also as `XX=PATH`. Moses files must be
            local, because two files belong together.
        language: See `read_pairs`; for all files.
        languages: Languages to keep; `None` for all.
        on_error: See `read_pairs`. Skipped lines are reported in the workers' logs and
            in Beam's counter "skipped lines".

    Raises:
        ValueError: If there are no such files.
        DataError: In the pipeline, see `read_pairs`.
    """

    def __init__(
        self,
        files: Files,
        *,
        language: str | None = None,
        languages: Iterable[str] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        """List the files."""
        super().__init__()
        paths = find_files(files, find_pair_files)
        read = functools.partial(
            read_files,
            language=language,
            languages=None if languages is None else list(languages),
            on_error=on_error,
        )
        self._read = _ReadFiles(paths, read)

    def expand(self, begin: Any) -> Any:
        """Apply the transform."""
        return begin | self._read.with_output_types(tuple[bytes, Pair])


class ReadSentences(beam.PTransform):
    """Read the sentences of pair files and texts by `labse_tf.data.read_sentences`.

    Returns (language, sentence), for both sides of a pair.

    Args:
        files: See `ReadPairs`; directories also stand for their text files, see
            `find_sentence_files`.
        language: See `read_sentences`; for all files.
        languages: Languages to keep; `None` for all. Sources of pairs are `"en"`.
        on_error: See `ReadPairs`.

    Raises:
        ValueError: If there are no such files.
        DataError: In the pipeline, see `read_sentences`.
    """

    def __init__(
        self,
        files: Files,
        *,
        language: str | None = None,
        languages: Iterable[str] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        """List the files."""
        super().__init__()
        paths = find_files(files, find_sentence_files)
        self._languages = (
            None if languages is None else frozenset(map(language_code, languages))
        )
        read = functools.partial(read_sentences, language=language, on_error=on_error)
        self._read = _ReadFiles(paths, read)

    def expand(self, begin: Any) -> Any:
        """Apply the transform."""
        chosen = self._languages
        return (
            begin
            | self._read.with_output_types(tuple[bytes, tuple[str, str]])
            | beam.Values().with_output_types(tuple[str, str])
            | beam.Filter(lambda pair: chosen is None or pair[0] in chosen)
        )


class ReadLines(beam.PTransform):
    """Read single sentences as `labse-tf embed` does, including blank lines of texts.

    Returns (position, sentence).

    Args:
        files: Local and remote paths of text, one sentence per line, or of pair files.
        side: Sides of the pairs to read; a text file has only one side.

    Raises:
        ValueError: If there are no such files.
        DataError: In the pipeline, see `labse_tf.text.read_numbered`.
    """

    def __init__(self, files: Files, *, side: Side = "both") -> None:
        """List the files."""
        super().__init__()
        read = functools.partial(_texts, side=side)
        self._read = _ReadFiles(find_files(files, _as_given), read)

    def expand(self, begin: Any) -> Any:
        """Apply the transform."""
        return begin | self._read.with_output_types(tuple[bytes, str])


def _as_given(files: Files) -> list[Path]:
    return [Path(path) for path in files]  # type: ignore[union-attr]


def _texts(path: str, *, side: Side, skipped: SkipReport) -> Iterator[str]:
    """Iterate over the sentences of a file."""
    found = read_numbered(path, side=side, blank_lines=True, skipped=skipped)
    return (text for _, text in found)


def as_pair(pair: Pair) -> SentencePair:
    """Return a plain tuple, the type that Beam's coder returns, as `SentencePair`."""
    return SentencePair(*pair)
