"""Log, TensorBoard events and progress bar of a training run."""

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
from labse_tf.progress import live_bar
from labse_tf.recipes import Stage
from labse_tf.training.best import BestWeights
from labse_tf.training.options import RunOptions
from labse_tf.training.run import Run

Measure = Callable[[keras.Model], Mapping[str, float]]


class Reporter(keras.callbacks.Callback):
    """Callback that logs and shows means, and stops if the loss is not finite.

    It is also a context manager around all stages of a run. With several workers, only
    the chief writes and shows anything.

    Args:
        run: Open run.
        stages: All stages of the recipe.
        start: Step of the checkpoint that the run resumes from; `None` at the start.
        options: Run options; `log_every`, `dev_every`, `on_nan` and `progress` are
            used.
        measure: See `fit`.
        best: Best weights of the run, which gets the measurements.
        unit: See `fit`.
        batch_size: Number of these units in a batch.
    """

    def __init__(
        self,
        run: Run,
        stages: Sequence[Stage],
        start: int | None,
        options: RunOptions,
        *,
        measure: Measure | None,
        best: BestWeights,
        unit: str,
        batch_size: int,
    ) -> None:
        super().__init__()
        self.run = run
        self.stages = stages
        self.stage = stages[0]
        self.train_steps = stages[-1].end
        self.resumed = start is not None
        self.step = start or 0
        self.options = options
        self.measure = measure
        self.best = best
        self.unit = unit
        self.batch_size = batch_size
        self.skipped = 0
        shown = options.progress if run.writes else False
        self.advance = shown if callable(shown) else None
        self.quiet = shown is False or self.advance is not None
        self.with_bar = shown is True or (shown is None and sys.stderr.isatty())
        self.bar: Any = None
        # Step and time of the last log line, and time of the last printed line.
        self.marked = (self.step, time.perf_counter())
        self.printed = 0.0

    def __enter__(self) -> Reporter:
        """Open the log, the TensorBoard events and the progress bar."""
        if self.run.writes:
            self._open()
        self.best.share_decision()
        return self

    def _open(self) -> None:
        """Open the files and the progress bar of the chief."""
        entries = self.run.cut_log(self.step if self.resumed else -1)
        self.best.resume(self.step, entries)
        if self.resumed and not self.quiet:
            print(
                f"resuming from step {self.step:,} of {self.train_steps:,}",
                file=sys.stderr,
            )
        self.file = self.run.log.open("a", encoding="utf-8")
        self.events = _Events(self.run.directory / "tensorboard")
        for entry in entries:
            self.events.write(entry)
        if self.with_bar:
            self.bar = _training_bar(self.step, self.train_steps)
            self.bar.start()

    def __exit__(self, *details: object) -> None:
        """Close all that `__enter__` opened."""
        if not self.run.writes:
            return
        if self.bar is not None:
            self.bar.stop()
        self.events.close()
        self.file.close()

    def begin(self, stage: Stage, model: keras.Model) -> None:
        """Begin or resume a stage with its model."""
        self.stage = stage
        self.skipped = _skipped(model)
        if len(self.stages) > 1:
            self._say_stage(stage)
        if not self.resumed and not stage.start:
            self._log_measure(model)
        self.marked = (self.step, time.perf_counter())

    def _say_stage(self, stage: Stage) -> None:
        """Show the stage."""
        name = f"Stage {stage.number} of {len(self.stages)}, {stage.num_layers} layers"
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], description=name)
        elif not self.quiet:
            print(f"{name}, to step {stage.end}", file=sys.stderr)

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Count the steps; log and measure when it is due."""
        before, self.step = self.step, self.step + self.model.steps_per_execution
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.step)
        if self.advance is not None:
            self.advance(self.step, self.train_steps)
        due = reached(before, self.step, self.options.log_every)
        if due or self.step == self.stage.end:
            self._log_window(logs or {})
        due = reached(before, self.step, self.options.dev_every)
        if due or self.step == self.train_steps:
            self._log_measure(self.model)
            self.best.share_decision()
            self.model.stop_training = self.best.stopped

    def _log_window(self, logs: Mapping[str, Any]) -> None:
        """Log the means since the last line, and the throughput."""
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
        """Return the means; a loss that is not finite stops the run or is omitted."""
        values = {name: float(value) for name, value in logs.items()}
        if self.options.on_nan == "stop":
            check_finite(self.model, values, f"steps {since + 1} to {self.step}")
            return values
        # A skipped step makes the mean of its window NaN.
        values = {name: x for name, x in values.items() if np.isfinite(x)}
        skipped = _skipped(self.model)
        if skipped > self.skipped:
            values["skipped_steps"] = skipped - self.skipped
            self.skipped = skipped
        return values

    def _log_measure(self, model: keras.Model) -> None:
        """Log a measurement on its own line; the throughput excludes its time."""
        if self.measure is None or not self.run.writes:
            return
        began = time.perf_counter()
        values = {name: round(float(x), 5) for name, x in self.measure(model).items()}
        self.best.note(model, self.step, values)
        took = time.perf_counter() - began
        step, then = self.marked
        self.marked = step, then + took
        self._write({"step": self.step, **values, "seconds": round(took, 1)})
        if self.bar is not None:
            self.bar.console.print(f"step {self.step}  {_line(values)}")
        else:
            self._print(_line(values))

    def _print(self, line: str) -> None:
        """Print a line with the step to standard error."""
        if not self.quiet:
            print(f"step {self.step}/{self.train_steps}  {line}", file=sys.stderr)

    def _write(self, entry: Mapping[str, Any]) -> None:
        """Write a line to the log, and the same values to TensorBoard."""
        if not self.run.writes:
            return
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()
        self.events.write(entry)


def reached(before: int, step: int, every: int) -> bool:
    """Return whether a multiple of `every` is greater than `before` and at most `step`.

    All three are numbers of steps.
    """
    return step // every > before // every


def check_finite(model: keras.Model, means: Mapping[str, Any], steps: str) -> None:
    """Wait for the running steps of a model and check their losses.

    Args:
        model: The model. A `ReplicatedModel` knows the first step that was not finite.
        means: Means over the steps, by name; `loss` is checked for all other models.
        steps: The steps, as text for the message.

    Raises:
        ValueError: If a loss was not finite.
    """
    if isinstance(model, ReplicatedModel) and model.first_nonfinite_step():
        raise _not_finite(f"step {model.first_nonfinite_step()}")
    if not np.isfinite(float(means.get("loss", 0.0))):
        raise _not_finite(steps)


def _not_finite(steps: str) -> ValueError:
    return ValueError(
        f"The loss of {steps} is not finite. Resume from the last checkpoint with "
        "`on_nan` (--on-nan) skip, or start a run with a lower learning rate. "
        "Received: loss=nan"
    )


def _skipped(model: keras.Model) -> int:
    """Return the number of steps that the optimizer has skipped."""
    return getattr(model.optimizer, "skipped", 0)


def _line(values: Mapping[str, float]) -> str:
    """Return names and values on one line, without the values of languages."""
    return "  ".join(
        f"{name} {value:.4f}" for name, value in values.items() if "/" not in name
    )


class _Events:
    """Copy of the log for TensorBoard: one run, also after a restart.

    Each process rewrites the directory from the log, since events of repeated steps
    cannot be removed. On Keras backends other than TensorFlow, nothing is written.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.writer: Any = None
        if keras.backend.backend() != "tensorflow":
            return
        import tensorflow as tf

        self.writer = tf.summary.create_file_writer(str(folder))
        # The same as `tf.summary.scalar`, which needs the package tensorboard.
        metadata = tf.compat.v1.SummaryMetadata
        self.metadata = metadata(
            plugin_data=metadata.PluginData(plugin_name="scalars"), data_class=1
        )

    def write(self, entry: Mapping[str, Any]) -> None:
        """Add the values of a log line."""
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
        """Close the file."""
        if self.writer is not None:
            self.writer.close()


def _training_bar(done: int, total: int) -> Any:
    """Return a bar with the steps, the remaining time and the latest values."""
    bar = live_bar(lambda task: task.fields["values"])
    bar.add_task("Training", total=total, completed=done, values="")
    return bar
