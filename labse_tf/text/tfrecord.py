"""TFRecord files of `tf.train.Example` -> rows.

References:
    - https://www.tensorflow.org/tutorials/load_data/tfrecord for the records
    - official/nlp/data/dual_encoder_dataloader.py of TensorFlow's Model Garden for
      the names of the features
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from labse_tf.text.problems import InputFile, Row, shorten
from labse_tf.text.streams import DAMAGE, chunks, damage

_SIDES = ("src_raw", "tgt_raw")


def tfrecord_rows(file: InputFile) -> Iterator[Row]:
    """Yield the features `src_raw` (English) and `tgt_raw` of each example."""
    from google.protobuf.message import DecodeError
    from tensorflow.train import Example

    for number, record in _records(file):
        try:
            features = Example.FromString(record).features.feature
        except DecodeError as error:
            file.problem(number, "a tf.train.Example", str(error))
            continue
        values: list[Sequence[bytes]] = [
            features[side].bytes_list.value if side in features else ()
            for side in _SIDES
        ]
        if [len(value) for value in values] != [1, 1]:
            received = ", ".join(sorted(features)) or "none"
            file.problem(number, "one text in each of src_raw and tgt_raw", received)
            continue
        try:
            source, target = [value[0].decode().strip() for value in values]
        except UnicodeDecodeError as error:
            bad = error.object[error.start : error.start + 4]
            file.problem(number, "UTF-8 text", f"the bytes {bad!r}")
            continue
        if source and target:
            yield Row(number, source, target, "")
        else:
            file.problem(number, "text on both sides", shorten((source, target)))


def _records(file: InputFile) -> Iterator[tuple[int, bytes]]:
    """Yield numbered records with correct checksums.

    TensorFlow's own reader takes only plain or gzipped files.
    """
    stream = chunks(file.path)
    buffer = bytearray()

    def take(size: int) -> bytes:
        while len(buffer) < size and (chunk := next(stream, b"")):
            buffer.extend(chunk)
        taken = bytes(buffer[:size])
        del buffer[:size]
        return taken

    number = 0
    try:
        while head := take(12):
            number += 1
            if len(head) < 12 or not _whole(head):
                file.problem(number, "an undamaged length of a record", shorten(head))
                return
            size = struct.unpack("<Q", head[:8])[0] + 4
            record = take(size)
            if len(record) < size:
                file.problem(number, f"{size} bytes of a record", f"{len(record)}")
                return
            if _whole(record):
                yield number, record[:-4]
            else:
                file.problem(number, "an undamaged record", "a wrong checksum")
    except DAMAGE as error:
        file.problem(number + 1, *damage(error))
    else:
        if not number:
            file.problem(1, "records", "an empty file")


def _whole(content: bytes) -> bool:
    """Return whether the last four bytes are the checksum of the bytes before."""
    found = _crc32c(content[:-4])
    found = ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return content[-4:] == struct.pack("<I", found)


_BLOCK = 256


def _tables() -> Any:
    """Return what each byte value adds to the CRC, by position in a block."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ np.uint32(0x82F63B78), table >> 1)
    tables = [table]
    for _ in range(_BLOCK - 1):
        tables.append(tables[-1] >> 8 ^ table[tables[-1] & 0xFF])
    return np.stack(tables[::-1])


_TABLES = _tables()  # (block, 256)
_ROWS = np.arange(_BLOCK)
# Zero padding keeps the register at zero; these bytes set all of its bits.
_START = bytes.fromhex("54641f64")


def _crc32c(content: bytes) -> int:
    """Return the CRC-32C of some bytes, computed by blocks."""
    padded = _START + content
    padded = bytes(-len(padded) % _BLOCK) + padded
    blocks = np.frombuffer(padded, np.uint8).reshape(-1, _BLOCK)
    state = 0
    for block in np.bitwise_xor.reduce(_TABLES[_ROWS, blocks], axis=1).tolist():
        carried = _TABLES[_ROWS[:4], list(state.to_bytes(4, "little"))]
        state = int(np.bitwise_xor.reduce(carried)) ^ block
    return state ^ 0xFFFFFFFF
