"""Output: tables, JSON, counts."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.files import write_text

if TYPE_CHECKING:
    from labse_tf.data import SkipReport


# For `str.translate`: a text becomes one column of a table.
ON_ONE_LINE = str.maketrans("\t\n", "  ")


def say_skipped(report: SkipReport) -> None:
    """Tells on standard error what could not be read."""
    if report:
        print(report, file=sys.stderr)


@contextmanager
def logged_to_stderr(name: str) -> Iterator[None]:
    """Prints on standard error what a logger of ours reports meanwhile."""
    logger, handler = logging.getLogger(name), logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def print_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: Sequence[str] = (),
) -> None:
    """Prints a table to standard output, the first column and some to the left."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for index, name in enumerate(columns):
        number = index and name not in left
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def write_json(path: str | None, result: dict[str, Any]) -> None:
    """Writes a result, where the user asked for the file."""
    if path is not None:
        write_text(path, json.dumps(result, indent=2, ensure_ascii=False) + "\n")


def load(
    options: argparse.Namespace,
    files: Sequence[Path],
    load: Callable[..., Any],
    report: SkipReport,
) -> Any:
    """Reads text files as the arguments say."""
    return load(
        files,
        language=options.language,
        on_error=options.on_error,
        languages=options.languages,
        skipped=report,
    )


def say_counts(counts: Mapping[str, int], unit: str) -> None:
    """Tells on standard error what was read, by language."""
    print(
        f"{sum(counts.values()):,} {unit} in {len(counts)} languages: "
        + ", ".join(f"{code} {count:,}" for code, count in counts.items()),
        file=sys.stderr,
    )
