"""Progress of long work: a progress bar on standard error, or calls of a function.

Every public function with a `progress` argument takes a `Progress`:

- `None`, the default: a progress bar if standard error is a terminal and the work takes
  longer than a second.
- `True`: a progress bar, on a terminal or not.
- `False`: no output.
- A callable: called with `(done, total)` after each part of the work. `total` is 0 if
  it is unknown. A function with several steps counts each step separately from 0.

Nested progress bars are not shown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Progress = bool | None | Callable[[int, int], None]

_DELAY_SECONDS = 1.0

# Whether a progress bar is active.
_taken = False


def announce(
    description: str, total: int, unit: str, *, show: Progress = None
) -> Progress:
    """Print one line at the start of a long step if there is no terminal for a bar.

    The arguments are those of `progress_bar`; the line is printed for `show=None` only.

    Returns:
        The value of `show` for `progress_bar`.

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
    description: str, total: int | None, unit: str, *, show: Progress = None
) -> Iterator[Callable[[int], None]]:
    """Report progress while the block runs.

    Args:
        description: Name of the step, "Encoding".
        total: Number of units; `None` if unknown.
        unit: Name of a unit, "sentences".
        show: The caller's `progress`; see the module.

    Yields:
        A function to call with the number of units done since its last call.

    Example:
        >>> from labse_tf.progress import progress_bar
        >>> with progress_bar("Counting", 3, "words", show=print) as advance:
        ...     advance(1)
        ...     advance(2)
        1 3
        3 3
    """
    global _taken
    if callable(show):
        yield _counter(show, total or 0)
    elif show is False or _taken or not (show or sys.stderr.isatty()):
        yield lambda count: None
    else:
        _taken = True
        bar = _Bar(description, total, unit)
        try:
            if show:
                bar.start()
            yield bar.advance
        finally:
            _taken = False
            bar.stop()


def _counter(report: Callable[[int, int], None], total: int) -> Callable[[int], None]:
    """Return a function that adds up its arguments and reports the sum."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        report(done, total)

    return advance


class _Bar:
    """Progress bar with rate and remaining time, shown after a second or by `start`."""

    def __init__(self, description: str, total: int | None, unit: str) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._began = time.monotonic()
        self._done = 0
        self._bar: Any = None

    def advance(self, count: int) -> None:
        """Add finished units."""
        self._done += count
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], count)
        elif time.monotonic() - self._began >= _DELAY_SECONDS:
            self.start()

    def start(self) -> None:
        """Show the bar."""
        unit = self._unit

        def rate(task: Any) -> str:
            speed = task.finished_speed or task.speed
            return f"{speed:,.0f} {unit}/s" if speed else f"- {unit}/s"

        self._bar = live_bar(rate)
        self._bar.add_task(self._description, total=self._total, completed=self._done)
        self._bar.tasks[0].start_time = self._began
        self._bar.start()

    def stop(self) -> None:
        """Freeze the bar if it was shown."""
        if self._bar is not None:
            self._bar.stop()


def live_bar(details: Callable[[Any], str]) -> Any:
    """Create a `rich.progress.Progress` whose counts and times fit narrow terminals.

    If a terminal has too few columns, first the bar and then the details are cut.

    Args:
        details: Function from a `rich.progress.Task` to text, such as a rate.
    """
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
    from rich.table import Column
    from rich.text import Text

    class Details(ProgressColumn):
        """Details on one line, cut if they do not fit."""

        def render(self, task: Task) -> Text:
            return Text(details(task), no_wrap=True, overflow="ellipsis")

    # Only columns that may wrap are made narrower than their content.
    whole = [Column(no_wrap=True) for _ in range(4)]
    return Progress(
        TextColumn("{task.description}", table_column=whole[0]),
        BarColumn(bar_width=20),
        MofNCompleteColumn(table_column=whole[1]),
        TimeRemainingColumn(table_column=whole[2]),
        Details(),
        TimeElapsedColumn(table_column=whole[3]),
        console=Console(stderr=True),
    )
