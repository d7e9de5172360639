"""Output of commands: tables, JSON, counts."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.files import write_text
from labse_tf.pipes import is_stream

if TYPE_CHECKING:
    from labse_tf.data import SkipReport


def say_skipped(report: SkipReport) -> None:
    """Print the skipped problems to standard error."""
    if report:
        print(report, file=sys.stderr)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print warnings about input on one line, without a line of source code."""
    show = warnings.showwarning

    def show_plainly(
        message: Warning | str, category: type[Warning], *place: Any, **more: Any
    ) -> None:
        # Imported late: `doctor` must run without NumPy.
        from labse_tf.text import DataWarning

        if issubclass(category, DataWarning):
            print(f"warning: {message}", file=sys.stderr)
        else:
            show(message, category, *place, **more)

    warnings.showwarning = show_plainly
    try:
        yield
    finally:
        warnings.showwarning = show


@contextmanager
def logged_to_stderr(name: str) -> Iterator[None]:
    """Print the messages of a logger to standard error while the block runs."""
    import logging  # Imported late: it takes a tenth of the time of `--help`.

    logger, handler = logging.getLogger(name), logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def work_folder(given: str | None, output: str | Path) -> Iterator[Path]:
    """Yield the folder for the state of a command that can resume.

    Args:
        given: Folder that the user chose, which is kept, or `None` for `OUTPUT.work`,
            which is removed if the command succeeds.
        output: Output of the command.
    """
    if given is None and is_stream(output):
        # There is no place next to it.
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    folder = Path(given or f"{output}.work")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
    if given is None:
        shutil.rmtree(folder)


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[str] = ()
) -> None:
    """Print a table; the first column and the columns in `left` align left."""
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
    """Write a result as JSON if a path is given; `-` is standard output."""
    if path is not None:
        text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        # Names of files may contain bytes that are not UTF-8.
        write_text(path, text.encode("utf-8", "backslashreplace").decode())


def load(
    options: argparse.Namespace,
    files: Sequence[Path],
    load: Callable[..., Any],
    report: SkipReport,
) -> Any:
    """Call `load` for the files with the options of `add_text`."""
    return load(
        files,
        language=options.language,
        on_error=options.on_error,
        languages=options.languages,
        skipped=report,
    )


def say_counts(counts: Mapping[str, int], unit: str) -> None:
    """Print the counts by language to standard error."""
    print(
        f"{sum(counts.values()):,} {unit} in {len(counts)} languages: "
        + ", ".join(f"{code} {count:,}" for code, count in counts.items()),
        file=sys.stderr,
    )
