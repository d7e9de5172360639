"""Progress bars with rate and time left, on standard error.

One place decides when a bar is shown: on a terminal, when asked, never into a pipe.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A bar for work of less than this many units would flash by.
_LONG = 20_000


def announce(
    description: str, total: int, unit: str, *, show: bool | None = None
) -> bool:
    """Says what is going on in one line where there is no terminal for a bar.

    Args:
        description: What is going on, "Counting words".
        total: Units in all.
        unit: What is counted, "files".
        show: `True` and `False` decide and keep the line back; `None` leaves it to
            whether standard error is a terminal.

    Returns:
        Whether to show a bar, for `progress_bar`'s `show`.

    Example:
        >>> from labse_tf.progress import announce
        >>> announce("Counting words", 3, "files", show=False)
        False
    """
    if show is not None:
        return show
    terminal = sys.stderr.isatty()
    if not terminal:
        print(f"{description} ({total:,} {unit})", file=sys.stderr, flush=True)
    return terminal


@contextmanager
def progress_bar(
    description: str,
    total: int | None,
    unit: str,
    *,
    show: bool | None = None,
) -> Iterator[Callable[[int], None]]:
    """Shows a bar while the block runs.

    Args:
        description: What is going on, "Encoding".
        total: Units in all; `None` if nobody knows.
        unit: What is counted, "sentences".
        show: `True` and `False` decide; `None` shows the bar when standard error
            is a terminal and there is much to do.

    Yields:
        A function that takes how many units have been done since its last call.

    Example:
        >>> from labse_tf.progress import progress_bar
        >>> with progress_bar("Counting", 3, "words", show=False) as advance:
        ...     advance(3)
    """
    if show is None:
        long = total is None or total >= _LONG
        show = long and sys.stderr.isatty()
    if not show:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units a second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {unit}/s" if speed else f"- {unit}/s")

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)
