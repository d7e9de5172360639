"""Outputs that appear whole or not at all.

Each function writes beside the target under a hidden name and renames at the end, so
that a full disk, an error or Ctrl-C leaves the old file, or none, and never a half.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path whose file takes the place of `path` at the end.

    Args:
        path: The target; its directory is made if needed.

    Yields:
        A path in the same directory, with the same suffix, to write to.

    Raises:
        OSError: If the directory cannot be written.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            # Renamed before its bytes are on the disk, a file can survive a power cut
            # with its name alone.
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text: the file is the old one or the new one.

    Args:
        path: The target.
        text: All of it.

    Raises:
        OSError: If it cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def check_vacant(path: str | os.PathLike[str], name: str) -> None:
    """Refuses a target that would hide or mix with what is there.

    Args:
        path: The target.
        name: What the user calls it.

    Raises:
        ValueError: If it is a file, or a directory that holds something.
    """
    target = Path(path)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{name} must be a new or empty directory. Received: {target}")


@contextmanager
def whole_directory(
    path: str | os.PathLike[str], *, overwrite: bool = False
) -> Iterator[Path]:
    """Gives an empty folder that becomes `path` at the end.

    Args:
        path: The target.
        overwrite: Whether an existing one is replaced.

    Yields:
        A folder beside it, to fill.

    Raises:
        ValueError: If the target exists and `overwrite` is false.
        OSError: If it cannot be written.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise ValueError(
            f"{target}: expected a path that does not exist, or leave to overwrite it "
            "(`overwrite=True`, `--overwrite`). Received: an existing one"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(
        tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    )
    try:
        yield folder
        # mkdtemp keeps others out, but a server runs as another user.
        folder.chmod(0o755)
        if target.exists():
            old = folder.with_suffix(".old")
            os.replace(target, old)
            os.replace(folder, target)
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        else:
            os.replace(folder, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
