"""Progress means the same in every function: a bar, silence, or `(done, total)`."""

from __future__ import annotations

import sys

import pytest

from labse_tf import progress
from labse_tf.progress import live_bar, progress_bar


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


def shown(capsys: pytest.CaptureFixture[str], **options: object) -> str:
    with progress_bar("Working", 3, "steps", **options) as advance:
        advance(1)
        advance(2)
    return capsys.readouterr().err


@pytest.mark.parametrize("width", [60, 80, 200])
def test_steps_and_time_left_stay_on_a_narrow_terminal(
    width, capsys, monkeypatch
) -> None:
    """What is cut is the bar and the values, on one line."""
    monkeypatch.setenv("COLUMNS", str(width))
    values = "loss 1.2345  ranking_accuracy 0.4567  1,234 pairs/s"
    bar = live_bar(lambda task: values)
    bar.add_task("Stage 2 of 3, 12 layers", total=1_000_000, completed=123_456)
    task = bar.tasks[0]
    task.start_time = 0.0
    monkeypatch.setattr(type(task), "time_remaining", 3725.0)
    bar.console.print(bar.make_tasks_table([task]))
    line = capsys.readouterr().err.rstrip("\n")
    assert "\n" not in line and len(line) <= width
    assert "123456/1000000" in line and "1:02:05" in line
    assert ("pairs/s" in line) == (width == 200)


def test_a_callable_gets_done_and_total(capsys) -> None:
    told = []
    assert shown(capsys, show=lambda *step: told.append(step)) == ""
    assert told == [(1, 3), (3, 3)]
    with progress_bar("x", None, "x", show=lambda *step: told.append(step)) as advance:
        advance(5)
    assert told[-1] == (5, 0)


def test_none_is_a_bar_on_a_terminal_after_a_while(capsys, monkeypatch) -> None:
    on_a_terminal(monkeypatch)
    assert shown(capsys) == ""
    monkeypatch.setattr(progress, "_DELAY_SECONDS", 0.0)
    assert "Working" in shown(capsys)
    assert shown(capsys, show=False) == ""


def test_none_is_silent_without_a_terminal_and_true_is_not(capsys, monkeypatch) -> None:
    monkeypatch.setattr(progress, "_DELAY_SECONDS", 0.0)
    assert shown(capsys) == ""
    assert "Working" in shown(capsys, show=True)


def test_a_bar_within_a_bar_is_not_shown(capsys, monkeypatch) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setattr(progress, "_DELAY_SECONDS", 0.0)
    with progress_bar("Outer", 2, "steps") as advance:
        advance(1)
        for show in (None, True):
            with progress_bar("Inner", 2, "steps", show=show) as inner:
                inner(1)
        told = []
        with progress_bar("x", 2, "x", show=lambda *step: told.append(step)) as inner:
            inner(2)
    assert told == [(2, 2)]
    err = capsys.readouterr().err
    assert "Outer" in err and "Inner" not in err
    assert "Working" in shown(capsys)
