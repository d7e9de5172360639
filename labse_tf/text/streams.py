"""Streams: a file, plain or compressed, -> chunks of bytes -> lines of text.

The first bytes of a file give its compression. Content before any damage is read.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from labse_tf.pipes import spooled
from labse_tf.text.problems import InputFile

_CHUNK = 1 << 17
_KINDS = {
    "gzip": re.compile(rb"\x1f\x8b"),
    # With the mark of the first block or of the end: text may begin with "BZh1".
    "bzip2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
}
COMPRESSED = r"(?:\.(?:gz|bz2|xz|zst))?"
"""Regular expression of the optional ending of a compressed file."""

_OPENERS: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}


class _Damage(Exception):
    """A compressed stream is truncated or corrupt."""


DAMAGE = (_Damage, OSError)


def damage(error: Exception) -> tuple[str, str]:
    """Return what was expected and received, for an error that `chunks` raised."""
    if isinstance(error, OSError):
        return "a readable file", error.strerror or str(error)
    kind, received = error.args
    return f"an undamaged {kind} file", received


def chunks(path: Path) -> Iterator[bytes]:
    """Yield the content of a plain or compressed file or stream, up to any damage.

    Raises:
        ImportError: If the file is compressed with zstd and zstandard is missing.
        Exception: One of `DAMAGE`, if the file cannot be read or is damaged.
    """
    with open(spooled(path), "rb") as file:
        head = file.peek(10)
        kind = next((name for name, mark in _KINDS.items() if mark.match(head)), "")
        unpacked: Iterator[bytes]
        if kind == "zstd":
            unpacked = _zstd(file, path)
        elif kind:
            unpacked = _read(_OPENERS[kind](file))
        else:
            unpacked = _read(file)
        while True:
            try:
                chunk = next(unpacked, b"")
            except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
                if not kind or getattr(error, "strerror", None):
                    raise
                raise _Damage(kind, str(error)) from error
            if not chunk:
                return
            yield chunk


def _read(stream: Any) -> Iterator[bytes]:
    # read1, because read discards the content before any damage.
    while chunk := stream.read1(_CHUNK):
        yield chunk


def _zstd(file: IO[bytes], path: Path) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError(
            f"{path} is compressed with zstd, which needs zstandard: "
            "pip install 'labse-tf[text]'"
        ) from error
    new = zstandard.ZstdDecompressor().decompressobj
    frame = new()
    try:
        # Small reads, because all of their decompressed content is in memory.
        while packed := file.read(1 << 12):
            while packed:
                if frame.eof:
                    frame = new()
                if chunk := frame.decompress(packed):
                    yield chunk
                packed = frame.unused_data
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from error
    if not frame.eof:
        raise EOFError("the file ends before the end of a frame")


def lines(
    file: InputFile, *, may_be_empty: bool = False
) -> Iterator[tuple[int, bytes]]:
    """Yield numbered lines without their line feed."""
    line, pending = 0, [b""]
    try:
        for chunk in chunks(file.path):
            *whole, last = chunk.split(b"\n")
            if whole:
                whole[0] = b"".join([*pending, whole[0]])
                pending = []
            pending.append(last)
            for content in whole:
                line += 1
                yield line, content
    except DAMAGE as error:
        file.problem(line + 1, *damage(error))  # Drops the unfinished line.
    else:
        if any(pending):
            yield line + 1, b"".join(pending)
        elif line == 0 and not may_be_empty:
            file.problem(1, "text", "an empty file")


def text_lines(
    file: InputFile,
    charset: str = "utf-8",
    numbered: Iterable[tuple[int, bytes]] | None = None,
    *,
    may_be_empty: bool = False,
    keep_returns: bool = False,
) -> Iterator[tuple[int, str | None]]:
    """Yield line numbers and lines without their end, None if not decodable.

    Args:
        file: File to read.
        charset: Encoding of the file, a superset of ASCII.
        numbered: Lines of the file, if they are read already.
        may_be_empty: Whether to accept an empty file.
        keep_returns: Whether to keep the CR of a CRLF.
    """
    if numbered is None:
        numbered = lines(file, may_be_empty=may_be_empty)
    for line, content in numbered:
        try:
            text = content.decode(charset)
        except UnicodeDecodeError as error:
            bad = content[error.start : error.start + 4]
            file.problem(line, f"{charset.upper()} text", f"the bytes {bad!r}")
            yield line, None
            continue
        if line == 1:
            text = text.removeprefix("\ufeff")
        yield line, text if keep_returns else text.removesuffix("\r")
