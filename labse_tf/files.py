"""Atomic writes of files and directories.

Each function writes to a hidden temporary name in the target's directory and renames it
when the write is complete. A full disk, an error or Ctrl-C leaves the target unchanged.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file atomically: yield a temporary path that replaces `path` at exit.

    The temporary path has the same suffix and directory, which is created if needed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
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


def check_vacant(path: str | os.PathLike[str], name: str) -> None:
    """Raise `ValueError` unless a path is new or an empty directory."""
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{name} must be a new or empty directory. Received: {target}")


@contextmanager
def atomic_directory(
    path: str | os.PathLike[str], *, overwrite: bool = False
) -> Iterator[Path]:
    """Write a directory atomically: yield a new one that becomes `path` at exit.

    Raises:
        ValueError: If the target exists and `overwrite` is false.
    """
    target = Path(path)
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
            old = folder.with_suffix(".old")
            os.replace(target, old)
            os.replace(folder, target)
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        else:
            os.replace(folder, target)


@contextmanager
def directory_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a hidden temporary directory next to a target, deleted at exit.

    Both are on the same file system. The parent directory is created if needed.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(
        tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    )
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
