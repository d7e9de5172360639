"""Files near and far: what is read, each element with its position, and publishing."""

from __future__ import annotations

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
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics

from labse_tf.data import (
    DataError,
    Files,
    OnError,
    SentencePair,
    SkipReport,
    find_pair_files,
    read_files,
    read_sentences,
)
from labse_tf.data.shards.layout import is_remote
from labse_tf.languages import language_code
from labse_tf.text import read_numbered

POSITION_PREFIX = 10  # bytes that up to 65,536 neighbours share

Pair = tuple[str, str, str]  # a `SentencePair`, which plain tuples stand for


def position(file: int, index: int) -> bytes:
    """Where an element stands; positions sort as files and their elements do.

    Args:
        file: number of its file.
        index: its number in the file.

    Returns:
        12 bytes.
    """
    return struct.pack(">IQ", file, index)


def find_files(files: Files, find: Callable[[Files], list[Path]]) -> list[str]:
    """Lists files in the order in which they are read.

    Args:
        files: local paths, as `find` takes them, and remote ones, also as `XX=PATH`,
            in which `*` stands for characters but a slash, `**` for any.
        find: lists local ones, such as `find_pair_files`.

    Returns:
        The local files as `find` sorts them, then the remote ones, sorted.

    Raises:
        ValueError: there are no files, or none of a remote name.
        DataError: as `find`.
    """
    paths = [files] if isinstance(files, (str, os.PathLike)) else list(files)
    remote = [_split(os.fspath(path)) for path in paths if is_remote(path)]
    near = [path for path in paths if not is_remote(path)]
    found = [str(path) for path in find(near)] if near or not remote else []
    far: set[str] = set()
    matches = FileSystems.match([pattern for _, pattern in remote])
    for (code, pattern), match in zip(remote, matches, strict=True):
        if not match.metadata_list:
            raise ValueError(f"{pattern}: expected files. Received: none of that name")
        far.update(code + metadata.path for metadata in match.metadata_list)
    return found + sorted(far)


def _split(path: str) -> tuple[str, str]:
    """`XX=`, where a language is given, and the path behind it."""
    code, mark, place = path.partition("=")
    return (code + mark, place) if mark and "://" not in code else ("", path)


@contextmanager
def local_copy(path: str) -> Iterator[str]:
    """Gives a local path of a file, a copy where the file is remote.

    The copy has the file's name and that of its folder, which may say the language.

    Args:
        path: local or remote.

    Yields:
        A path to read from.

    Raises:
        OSError: it cannot be read.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, *path.split("/")[-2:])
        download(path, local)
        yield str(local)


def download(path: str, local: Path) -> None:
    """Copies a remote file as it is.

    Args:
        path: the remote file.
        local: where to; its folder is made if needed.

    Raises:
        OSError: it cannot be read.
    """
    local.parent.mkdir(parents=True, exist_ok=True)
    plain = CompressionTypes.UNCOMPRESSED
    with FileSystems.open(path, compression_type=plain) as source:
        with local.open("wb") as file:
            shutil.copyfileobj(source, file)


def publish(local: str | Path, target: str) -> None:
    """Copies a local file to its target atomically.

    Run twice, as runners may, it leaves the same file.

    Args:
        local: the file.
        target: a local or remote path.

    Raises:
        OSError: it cannot be written.
    """
    temporary = f"{target}.{uuid.uuid4().hex}"
    plain = CompressionTypes.UNCOMPRESSED
    with open(local, "rb") as file:
        with FileSystems.create(temporary, compression_type=plain) as copy:
            shutil.copyfileobj(file, copy)
    if FileSystems.exists(target):
        FileSystems.delete([target])
    FileSystems.rename([temporary], [target])


def publish_text(target: str, text: str) -> None:
    """Writes a small text file atomically.

    Args:
        target: a local or remote path.
        text: all of it.

    Raises:
        OSError: it cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, "text")
        local.write_text(text, encoding="utf-8", newline="\n")
        publish(local, target)


# `read(path, skipped=report)` gives the elements of a file.
_Read = Callable[..., Iterable[Any]]


class _ReadFiles(beam.PTransform):
    """Reads files, each on one worker, as (position, element)."""

    def __init__(self, paths: list[str], read: _Read) -> None:
        super().__init__()
        self.paths, self._read = paths, read

    def expand(self, begin: Any) -> Any:
        """Applies it."""
        return (
            begin
            | "Name files" >> beam.Create(list(enumerate(self.paths)))
            | "Deal files" >> beam.Reshuffle()
            | "Read files" >> beam.FlatMap(_numbered, self._read)
        )


def _numbered(file: tuple[int, str], read: _Read) -> Iterator[tuple[bytes, Any]]:
    """The elements of a file with their positions."""
    number, given = file
    code, path = _split(given)
    skipped = SkipReport()
    with local_copy(path) as local:
        # What is said has the file's name and not that of its copy.
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
    """Reads pair files, by `labse_tf.data.read_files`.

    Gives (position, (source, target, language)); positions sort as `read_files` reads.

    Args:
        files: local paths as in `load_pairs`, remote names and patterns
            (`gs://bucket/pairs/**.tsv.gz`), also after `XX=`. Moses' two files belong
            together and are read locally only.
        language: as in `read_pairs`, for all files.
        languages: only these.
        on_error: as in `read_pairs`; what is skipped is in the workers' logs and in
            Beam's counter "skipped lines".

    Raises:
        ValueError: there are no such files.
        DataError: (in the pipeline) as in `read_pairs`.
    """

    def __init__(
        self,
        files: Files,
        *,
        language: str | None = None,
        languages: Iterable[str] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        """Lists the files."""
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
        """Applies it."""
        return begin | self._read.with_output_types(tuple[bytes, Pair])


class ReadSentences(beam.PTransform):
    """Reads the sentences of pair files and texts, by `labse_tf.data.read_sentences`.

    Gives (language, sentence), both sides of a pair.

    Args:
        files: as in `ReadPairs`.
        language: as in `read_sentences`, for all files.
        languages: only these; `"en"` for the sources of pairs.
        on_error: as in `ReadPairs`.

    Raises:
        ValueError: there are no such files.
        DataError: (in the pipeline) as in `read_sentences`.
    """

    def __init__(
        self,
        files: Files,
        *,
        language: str | None = None,
        languages: Iterable[str] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        """Lists the files."""
        super().__init__()
        paths = find_files(files, find_pair_files)
        self._languages = (
            None if languages is None else frozenset(map(language_code, languages))
        )
        read = functools.partial(read_sentences, language=language, on_error=on_error)
        self._read = _ReadFiles(paths, read)

    def expand(self, begin: Any) -> Any:
        """Applies it."""
        chosen = self._languages
        return (
            begin
            | self._read.with_output_types(tuple[bytes, tuple[str, str]])
            | beam.Values().with_output_types(tuple[str, str])
            | beam.Filter(lambda pair: chosen is None or pair[0] in chosen)
        )


class ReadLines(beam.PTransform):
    """Reads single sentences as `labse-tf embed` does: blank lines of a text count.

    Gives (position, sentence).

    Args:
        files: Local and remote paths of text, one sentence per line, or of pair files.

    Raises:
        ValueError: If there are no such files.
        DataError: (in the pipeline) As in `labse_tf.text.read_numbered`.
    """

    def __init__(self, files: Files) -> None:
        """Lists the files."""
        super().__init__()
        self._read = _ReadFiles(find_files(files, _as_given), _texts)

    def expand(self, begin: Any) -> Any:
        """Applies it."""
        return begin | self._read.with_output_types(tuple[bytes, str])


def _as_given(files: Files) -> list[Path]:
    return [Path(path) for path in files]  # type: ignore[union-attr]


def _texts(path: str, *, skipped: SkipReport) -> Iterator[str]:
    """The sentences of a file."""
    found = read_numbered(path, blank_lines=True, skipped=skipped)
    return (text for _, text in found)


def as_pair(pair: Pair) -> SentencePair:
    """A pair that came through a coder, which knows plain tuples only."""
    return SentencePair(*pair)
