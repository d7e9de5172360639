"""Atomic writes of files and directories; reading of JSON objects.

Each function that writes uses a hidden temporary name in the target's directory and
renames it when the write is complete. A full disk, an error or Ctrl-C leaves the target
unchanged.

Links are followed: the file that a link names is replaced, not the link. Streams, such
as `-` for standard output (see `labse_tf.pipes`), receive the complete content.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labse_tf.pipes import is_stdout, is_stream, send, spooled


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path that replaces `path` at exit.

    The temporary path has the same suffix and directory, which is created if needed.
    For a stream it is elsewhere, and its content is copied at exit.

    Raises:
        OSError: If the file cannot be written.
    """
    if is_stream(path):
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder, f"output{Path(path).suffix}")
            yield temporary
            send(temporary, path)
        return
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    name = f".{target.stem}.{os.urandom(4).hex()}{target.suffix}"
    temporary = target.with_name(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            # Without this, a power failure after the rename can leave an empty file.
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: If the file is missing, or its content is not a JSON object.
        OSError: If the file cannot be read.
    """
    try:
        value = json.loads(spooled(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a JSON file. Received: no file") from None
    # Invalid UTF-8, invalid JSON or numbers of 5,000 digits; too deeply nested JSON.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON. Received: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(
            f"{path}: expected a JSON object. Received: {type(value).__name__}"
        )
    return value


def check_vacant(path: str | os.PathLike[str], name: str) -> None:
    """Raise `ValueError` unless a path is new or an empty directory."""
    target = directory_of(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{name} must be a new or empty directory. Received: {target}")


def directory_of(path: str | os.PathLike[str]) -> Path:
    """Return the directory that an output path names, with a link followed.

    Raises:
        ValueError: If the path is a stream.
    """
    if is_stream(path):
        kind = "standard output" if is_stdout(path) else "not a file or directory"
        raise ValueError(f"{path}: expected a directory to write. Received: {kind}")
    return Path(os.path.realpath(path)) if os.path.islink(path) else Path(path)


@contextmanager
def atomic_directory(
    path: str | os.PathLike[str], *, overwrite: bool = False
) -> Iterator[Path]:
    """Write a directory atomically: yield a new one that becomes `path` at exit.

    Raises:
        ValueError: If the target exists and `overwrite` is false, or is a stream.
    """
    target = directory_of(path)
    if target.exists() and not overwrite:
        raise ValueError(
            f"{target}: expected a path that does not exist; to overwrite it, use "
            "`overwrite=True` or `--overwrite`. Received: an existing path"
        )
    with directory_beside(target) as folder:
        yield folder
        # `mkdtemp` allows only its owner, but a server may run as another user.
        folder.chmod(0o755)
        if target.exists():
            exchange(folder, target)
        else:
            os.replace(folder, target)


def exchange(folder: Path, target: Path) -> None:
    """Exchange two paths of one file system, atomically where the system can.

    Raises:
        OSError: If they cannot be exchanged. Both are unchanged.
    """
    if _exchange(folder, target):
        return
    old = folder.with_suffix(".old")
    os.replace(target, old)
    try:
        os.replace(folder, target)
    except OSError:
        os.replace(old, target)
        raise
    os.replace(old, folder)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step, and return whether this system could (Linux)."""
    import ctypes  # Imported late: it takes a tenth of the time of `--help`.

    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    here, exchanged = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    names = os.fsencode(one), os.fsencode(other)
    return not renameat2(here, names[0], here, names[1], exchanged)


@contextmanager
def directory_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a hidden temporary directory next to a target, deleted at exit.

    Both are on the same file system. The parent directory is created if needed.

    Raises:
        ValueError: If the target is a stream.
    """
    target = directory_of(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(
        tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    )
    try:
        yield folder
    finally:
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
        else:  # A file that the directory replaced.
            folder.unlink(missing_ok=True)
