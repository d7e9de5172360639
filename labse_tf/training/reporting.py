"""Reporting: the log, TensorBoard and the progress bar of a training run."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from labse_tf.models import ReplicatedModel
from labse_tf.recipes import Stage
from labse_tf.training.options import RunOptions
from labse_tf.training.run import Run

Measure = Callable[[keras.Model], Mapping[str, float]]


class Reporter(keras.callbacks.Callback):
    """Logs and shows the means of the last steps; stops at a loss that is not finite.

    A context manager around all stages of a run. Of several workers only the chief
    writes and shows anything.

    Args:
        run: An open run.
        stages: All stages of the recipe.
        start: The step of the checkpoint that the run resumes from.
        options: `log_every`, `dev_every`, `on_nan` and `progress`.
        measure: As in `fit`.
        unit: What a batch holds, for the rate.
        batch_size: How many of these a batch holds.
    """

    def __init__(
        self,
        run: Run,
        stages: Sequence[Stage],
        start: int,
        options: RunOptions,
        *,
        measure: Measure | None,
        unit: str,
        batch_size: int,
    ) -> None:
        super().__init__()
        self.run = run
        self.stages = stages
        self.stage = stages[0]
        self.train_steps = stages[-1].end
        self.step = start
        self.options = options
        self.measure = measure
        self.unit = unit
        self.batch_size = batch_size
        self.skipped = 0
        shown = options.progress if run.writes else False
        self.advance = shown if callable(shown) else None
        self.quiet = shown is False or self.advance is not None
        self.with_bar = shown is True or (shown is None and sys.stderr.isatty())
        self.bar: Any = None
        # Step and time at the last line of the log, and time of the last printed line.
        self.marked = (start, time.perf_counter())
        self.printed = 0.0

    def __enter__(self) -> Reporter:
        """Opens the log, TensorBoard's events and the bar."""
        if not self.run.writes:
            return self
        entries = self.run.cut_log(self.step)
        self.file = self.run.log.open("a", encoding="utf-8")
        self.events = _Events(self.run.directory / "tensorboard")
        for entry in entries:
            self.events.write(entry)
        if self.with_bar:
            self.bar = _training_bar(self.step, self.train_steps)
            self.bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        """Closes what `__enter__` opened."""
        if not self.run.writes:
            return
        if self.bar is not None:
            self.bar.stop()
        self.events.close()
        self.file.close()

    def begin(self, stage: Stage, model: keras.Model) -> None:
        """Begins or resumes a stage: another model, the same bar.

        Args:
            stage: The stage.
            model: Its model.
        """
        self.stage = stage
        self.skipped = _skipped(model)
        self.marked = (self.step, time.perf_counter())
        if len(self.stages) == 1:
            return
        name = f"Stage {stage.number} of {len(self.stages)}, {stage.num_layers} layers"
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], description=name)
        elif not self.quiet:
            print(f"{name}, to step {stage.end}", file=sys.stderr)

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Counts the steps, and logs and measures when it is time."""
        before, self.step = self.step, self.step + self.model.steps_per_execution
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.step)
        if self.advance is not None:
            self.advance(self.step, self.train_steps)
        due = reached(before, self.step, self.options.log_every)
        if due or self.step == self.stage.end:
            self._log_window(logs or {})
        if self.measure is not None and self.run.writes:
            due = reached(before, self.step, self.options.dev_every)
            if due or self.step == self.train_steps:
                self._log_measure(self.measure)

    def _log_window(self, logs: Mapping[str, Any]) -> None:
        """Logs the means since the last line, and the rate."""
        now = time.perf_counter()
        since, then = self.marked
        values = self._finite_means(logs, since)
        rate = (self.step - since) * self.batch_size / (now - then)
        self._write(
            {
                "step": self.step,
                **({"stage": self.stage.number} if len(self.stages) > 1 else {}),
                **{name: round(value, 5) for name, value in values.items()},
                "learning_rate": float(
                    f"{float(self.model.optimizer.learning_rate):.4g}"
                ),
                f"{self.unit}_per_second": round(rate, 1),
            }
        )
        self.marked = (self.step, now)
        self.model.reset_metrics()
        line = f"{_line(values)}  {rate:,.0f} {self.unit}/s"
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], values=line)
        elif now - self.printed > 30 or self.step == self.train_steps:
            self.printed = now
            self._print(line)

    def _finite_means(self, logs: Mapping[str, Any], since: int) -> dict[str, float]:
        """Returns the means; a loss that is not finite stops the run or is left out."""
        values = {name: float(value) for name, value in logs.items()}
        if self.options.on_nan == "stop":
            check_finite(self.model)
            if not np.isfinite(values.get("loss", 0.0)):
                raise _not_finite(f"steps {since + 1} to {self.step}")
            return values
        # A skipped step makes the mean of its window NaN.
        values = {name: x for name, x in values.items() if np.isfinite(x)}
        skipped = _skipped(self.model)
        if skipped > self.skipped:
            values["skipped_steps"] = skipped - self.skipped
            self.skipped = skipped
        return values

    def _log_measure(self, measure: Measure) -> None:
        """Logs a measurement on its own line, and excludes its time from the rate."""
        began = time.perf_counter()
        values = {name: round(float(x), 5) for name, x in measure(self.model).items()}
        took = time.perf_counter() - began
        step, then = self.marked
        self.marked = step, then + took
        self._write({"step": self.step, **values, "seconds": round(took, 1)})
        if self.bar is not None:
            self.bar.console.print(f"step {self.step}  {_line(values)}")
        else:
            self._print(_line(values))

    def _print(self, line: str) -> None:
        """Prints a line with the step to standard error."""
        if not self.quiet:
            print(f"step {self.step}/{self.train_steps}  {line}", file=sys.stderr)

    def _write(self, entry: Mapping[str, Any]) -> None:
        """Writes a line of the log, and the same for TensorBoard."""
        if not self.run.writes:
            return
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()
        self.events.write(entry)


def reached(before: int, step: int, every: int) -> bool:
    """Tells whether a multiple of a number has been passed.

    Args:
        before: Steps done before.
        step: Steps done now.
        every: The number.

    Returns:
        Whether a multiple lies after `before` and not after `step`.
    """
    return step // every > before // every


def check_finite(model: keras.Model) -> None:
    """Stops if a step's loss was not finite.

    Args:
        model: In training; waits for its running steps.

    Raises:
        ValueError: If a loss was not finite; the message has the number of the step.
    """
    if isinstance(model, ReplicatedModel) and model.first_nonfinite_step():
        raise _not_finite(f"step {model.first_nonfinite_step()}")


def _not_finite(steps: str) -> ValueError:
    return ValueError(
        f"The loss of {steps} is not finite: a lower learning rate may help, or "
        "`on_nan` (--on-nan) skip; the run resumes from its last checkpoint. "
        "Received: loss=nan"
    )


def _skipped(model: keras.Model) -> int:
    """Returns how many steps the optimizer has skipped."""
    return getattr(model.optimizer, "skipped", 0)


def _line(values: Mapping[str, float]) -> str:
    """Returns names and values on one line."""
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())


class _Events:
    """The log as TensorBoard reads it: one run, also after a restart.

    Each process rewrites the folder from the log, since events of repeated steps could
    not be removed. Under another Keras backend nothing is written.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.writer: Any = None
        if keras.backend.backend() != "tensorflow":
            return
        import tensorflow as tf

        self.writer = tf.summary.create_file_writer(str(folder))
        # What `tf.summary.scalar` would write, which the package tensorboard has.
        metadata = tf.compat.v1.SummaryMetadata
        self.metadata = metadata(
            plugin_data=metadata.PluginData(plugin_name="scalars"), data_class=1
        )

    def write(self, entry: Mapping[str, Any]) -> None:
        """Adds the values of a line of the log."""
        if self.writer is None:
            return
        import tensorflow as tf

        with self.writer.as_default(step=entry["step"]):
            for name, value in entry.items():
                if name != "step":
                    tf.summary.write(
                        name, tf.constant(value, tf.float32), metadata=self.metadata
                    )
        self.writer.flush()

    def close(self) -> None:
        """Closes the file."""
        if self.writer is not None:
            self.writer.close()


def _training_bar(done: int, total: int) -> Any:
    """A bar with steps, the latest values and the time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[values]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    bar.add_task("Training", total=total, completed=done, values="")
    return bar
