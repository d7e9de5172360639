"""Streams as inputs and outputs: `-`, pipes, FIFOs and devices.

A stream is `-` (standard input or output), or a path that exists and is neither a file
nor a directory, such as `/dev/stdin`, `/dev/fd/63` of a shell's `<(...)`, or a FIFO. It
can be read only once and cannot be replaced by a rename: `spooled` copies an input to a
temporary file, `send` copies a complete output into the stream.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO

PathLike = str | os.PathLike[str]

_MOST_LINKS = 40  # as in Linux

_reserved: TextIO | None = None
_copies: dict[tuple[int, int], IO[bytes]] = {}
_lock = threading.Lock()


def is_stream(path: PathLike) -> bool:
    """Return whether a path is a stream.

    Raises:
        OSError: If this cannot be determined, as for links in a circle.
    """
    if os.fspath(path) == "-":
        return True
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISREG(mode):
        # Another open of a redirected file would not see its position.
        return _descriptor(path) is not None
    return not stat.S_ISDIR(mode)


def is_stdout(path: PathLike) -> bool:
    """Return whether an output path is `-` or another name of standard output."""
    return os.fspath(path) == "-" or _descriptor(path) == 1


def _descriptor(path: PathLike) -> int | None:
    """Return the file descriptor that a path such as `/dev/stdout` names, or None."""
    place = os.fspath(path)
    own = re.compile(rf"/dev/fd|/proc/{os.getpid()}(?:/task/\d+)?/fd")
    for _ in range(_MOST_LINKS):
        folder, name = os.path.split(os.path.abspath(place))
        folder = os.path.realpath(folder)
        if name.isdigit() and own.fullmatch(folder):
            return int(name)
        place = os.path.join(folder, name)
        if not os.path.islink(place):
            return None
        place = os.path.join(folder, os.readlink(place))
    return None


# === Outputs ===


@contextmanager
def reserve_stdout() -> Iterator[None]:
    """Reserve standard output for `send`; printed text goes to standard error."""
    global _reserved
    before, _reserved = _reserved, _reserved or sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _reserved = before


def send(content: Path, path: PathLike) -> None:
    """Copy a file to a stream.

    Raises:
        OSError: If the stream cannot be written.
    """
    with content.open("rb") as source:
        if not is_stdout(path):
            descriptor = _descriptor(path)
            place = path if descriptor is None else os.dup(descriptor)
            with open(place, "wb") as target:
                shutil.copyfileobj(source, target)
            return
        stdout: Any = _reserved or sys.stdout
        stdout.flush()
        if hasattr(stdout, "buffer"):
            shutil.copyfileobj(source, stdout.buffer)
        else:  # Replaced by an object for text only, as in notebooks.
            stdout.write(source.read().decode("utf-8", "backslashreplace"))
        stdout.flush()


# === Inputs ===


def spooled(path: PathLike) -> Path:
    """Return a path whose content can be read repeatedly.

    A stream is copied to a temporary file when it is first read. Later calls return
    the same file, until `forget_spooled`.

    Args:
        path: Path of an input, or `-` for standard input.

    Raises:
        OSError: If the stream cannot be read.
    """
    descriptor = 0 if os.fspath(path) == "-" else _descriptor(path)
    if descriptor is None and not is_stream(path):
        return Path(path)
    found = os.stat(path) if descriptor is None else os.fstat(descriptor)
    if os.fspath(path) != "-" and stat.S_ISREG(found.st_mode):
        return Path(path)
    key = found.st_dev, found.st_ino
    with _lock:
        if key not in _copies:
            place = path if descriptor is None else os.dup(descriptor)
            with open(place, "rb") as source:
                copy = tempfile.NamedTemporaryFile(prefix="labse-tf-")
                shutil.copyfileobj(source, copy)
                copy.flush()
            _copies[key] = copy
        return Path(_copies[key].name)


def forget_spooled() -> None:
    """Delete the temporary files of `spooled`."""
    with _lock:
        while _copies:
            _copies.popitem()[1].close()
