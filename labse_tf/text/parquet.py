"""Parquet tables -> rows, with the columns that are the keys of JSON Lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labse_tf.extras import require
from labse_tf.text.jsonl import entry_rows, entry_texts
from labse_tf.text.problems import InputFile, Row


def parquet_rows(file: InputFile) -> Iterator[Row]:
    """Yield pairs; see `labse_tf.text.jsonl.json_rows`."""
    return entry_rows(file, _rows(file))


def parquet_texts(file: InputFile) -> Iterator[Row]:
    """Yield single sentences; see `labse_tf.text.jsonl.json_texts`."""
    return entry_texts(file, _rows(file))


def _rows(file: InputFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield numbered rows as dicts."""
    require("parquet", str(file.path))
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(file.path) as table:
            for batch in table.iter_batches(batch_size=1 << 13):
                for entry in batch.to_pylist():
                    number += 1
                    yield number, entry
    except OSError as error:  # Includes damage that Arrow finds in pages.
        file.problem(number + 1, "a readable Parquet file", str(error).split("\n")[0])
    except pyarrow.ArrowException as error:
        file.problem(number + 1, "an undamaged Parquet file", str(error).split("\n")[0])
