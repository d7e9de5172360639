"""Session: one process's work on a run: steps, signals, log, TensorBoard, one bar."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from labse_tf.distribute import told_as_lost
from labse_tf.models import ReplicatedModel
from labse_tf.recipes import BaseRecipe, Stage
from labse_tf.training.run import Interrupted, Run

Batches = Callable[[int], Any]
Measure = Callable[[keras.Model], Mapping[str, float]]

ON_NAN = ("stop", "skip")
# ours: seconds of steps between two looks at what signals other workers have had
_LISTEN = 1.0


class Session:
    """One process's work on a run: checkpoints, signals, log, TensorBoard, one bar.

    A context manager around one or more calls of `fit`; more than one where a run has
    several stages, each with a model of its own.

    Args:
        run: An open run.
        stages: Of the recipe, `Recipe.stage_plan`.
        start: The step it begins after, that of the checkpoint.
        checkpoint_every: Steps from a checkpoint to the next; a stage ends with one
            too.
        log_every: Steps a line of the log is the mean of.
        unit: What a batch holds, for the rate.
        batch_size: How many of them.
        measure: From the model to values for the log, at every `measure_every` steps
            and at the end; the time that it takes is not the training's.
        measure_every: Steps.
        steps_per_execution: Steps that TensorFlow does before Python looks again:
            checkpoints, lines of the log and measurements come at the first execution's
            end that has reached their step. The last steps of a stage that fill no
            execution are done one at a time. The weights are those of 1.
        on_nan: `"stop"` at a loss that is not finite. `"skip"` goes on; that such
            steps change nothing is the optimiser's `skip_nonfinite`.
        progress: A bar on standard error; `None` for one on a terminal, and a line
            now and then elsewhere.
    """

    def __init__(
        self,
        run: Run,
        stages: Sequence[Stage],
        *,
        start: int,
        checkpoint_every: int = 1000,
        log_every: int = 50,
        unit: str = "pairs",
        batch_size: int = 1,
        measure: Measure | None = None,
        measure_every: int = 1000,
        steps_per_execution: int = 1,
        on_nan: str = "stop",
        progress: bool | None = None,
    ) -> None:
        if steps_per_execution < 1 or on_nan not in ON_NAN:
            raise ValueError(
                f"`steps_per_execution` must be positive and `on_nan` one of {ON_NAN}. "
                f"Received: {steps_per_execution}, {on_nan!r}"
            )
        self._steps_per_execution = steps_per_execution
        self._keeper = _Keeper(
            run, start=start, every=checkpoint_every, stops=on_nan == "stop"
        )
        self._reporter = _Reporter(
            run,
            stages,
            start=start,
            log_every=log_every,
            unit=unit,
            batch_size=batch_size,
            measure=measure,
            measure_every=measure_every,
            stops=on_nan == "stop",
            progress=progress,
        )
        self._inside = ExitStack()

    def __enter__(self) -> Session:
        """Opens the log and catches signals."""
        self._inside.enter_context(self._keeper.signals())
        self._inside.enter_context(self._reporter)
        return self

    def __exit__(self, *details: Any) -> None:
        """Closes the log and lets signals go where they went before."""
        self._inside.__exit__(*details)

    def fit(self, model: keras.Model, batches: Batches, stage: Stage) -> None:
        """Trains to the end of a stage.

        Args:
            model: Compiled and built, with the state of the step the session is at;
                its metrics go into the log.
            batches: From a step to the `tf.data.Dataset` of the batches from there
                on, which must hold all up to the end of the stage.
            stage: The one that the step is in.

        Raises:
            Interrupted: On SIGTERM or SIGINT, after a checkpoint.
            ValueError: If the loss is not finite any more; no checkpoint has been
                written since.
            labse_tf.distribute.WorkerLostError: If another worker has ended.
        """
        if self._keeper.step >= stage.end:
            return
        self._keeper.last = stage.end
        self._reporter.begin(stage, model)
        if isinstance(model, ReplicatedModel):
            model.start_counting_at(self._keeper.step)
        for size in dict.fromkeys((self._steps_per_execution, 1)):
            start = self._keeper.step
            steps = (stage.end - start) // size * size
            if not steps:
                continue
            model.steps_per_execution = size
            model.train_function = None
            with self._told_as_lost():
                model.fit(
                    batches(start),
                    steps_per_epoch=steps,
                    epochs=1,
                    verbose=0,
                    # The batches have their order; Keras warns otherwise.
                    shuffle=False,
                    callbacks=[self._reporter, self._keeper],
                )

    def _told_as_lost(self) -> AbstractContextManager[None]:
        several = self._keeper.run.workers.count > 1
        return told_as_lost() if several else nullcontext()


class Fit(Protocol):
    """How `train_dual_encoder` trains: `fit`, or another with the same arguments."""

    def __call__(
        self,
        run: Run,
        model: keras.Model,
        batches: Batches,
        recipe: BaseRecipe,
        **options: Any,
    ) -> keras.Model:
        """See `fit`."""


def fit(
    run: Run,
    model: keras.Model,
    batches: Batches,
    recipe: BaseRecipe,
    **options: Any,
) -> keras.Model:
    """Trains a compiled model to its last step, from the run's last checkpoint.

    Args:
        run: An open run.
        model: Compiled and built; its metrics go into the log.
        batches: From a step to the `tf.data.Dataset` of the batches from there on,
            which must hold all up to `train_steps`.
        recipe: Has one stage.
        **options: Of `Session`: `checkpoint_every`, `log_every`, `unit`, `progress`.

    Returns:
        The model.

    Raises:
        Interrupted: On SIGTERM or SIGINT, after a checkpoint.
        ValueError: If the recipe has several stages, or the loss is not finite any
            more.
    """
    stages = recipe.stage_plan()
    if len(stages) > 1:
        raise ValueError(
            "A recipe with `stages` needs `fit_progressively`. "
            f"Received: stages={recipe.stages}"
        )
    start = run.restore(model)
    with Session(
        run, stages, start=start, batch_size=recipe.batch_size, **options
    ) as session:
        session.fit(model, batches, stages[0])
    return model


class _Keeper(keras.callbacks.Callback):
    """Writes checkpoints, and ends a run that a signal has asked to stop."""

    def __init__(self, run: Run, *, start: int, every: int, stops: bool) -> None:
        super().__init__()
        self.run = run
        self.step = start
        self.every = every
        self.stops = stops
        self.last = start
        self.received: int | None = None
        self.listens_at = start
        self.heard = (start, time.perf_counter())

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Catches SIGTERM and SIGINT while the block runs (in the main thread)."""

        def note(number: int, frame: object) -> None:
            self.received = number

        before = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, note)
        except ValueError:
            pass  # Not the main thread: signals go elsewhere.
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Counts the steps and saves when it is time."""
        before, self.step = self.step, self.step + self.model.steps_per_execution
        signal_number = self._signal()
        if signal_number is not None:
            self._save()
            raise Interrupted(signal_number, self.step)
        if _reached(before, self.step, self.every) or self.step == self.last:
            self._save()

    def _save(self) -> None:
        """A checkpoint, but not of weights that a loss has spoiled."""
        if self.stops:
            _check_finite(self.model)
        self.run.save(self.model, self.step)

    def _signal(self) -> int | None:
        """The signal that this worker or another one has had, if it is time to ask.

        Asking waits for the steps that are under way, so it is done every second
        or so, at steps that the workers agree on.
        """
        if self.run.workers.count == 1:
            return self.received
        if self.step < self.listens_at:
            return None
        step, then = self.heard
        now = time.perf_counter()
        rate = (self.step - step) / max(now - then, 1e-6)
        pause = max(1, min(int(rate * _LISTEN), 1000))
        # The first steps are slow for other reasons; the slowest worker decides.
        told = self.run.workers.gather(self.received or 0, pause)
        self.heard = self.step, time.perf_counter()
        self.listens_at = self.step + int(told[:, 1].min())
        return int(told[:, 0].max()) or None


class _Reporter(keras.callbacks.Callback):
    """Shows and logs the means of the last steps, and stops at a loss that is none."""

    def __init__(
        self,
        run: Run,
        stages: Sequence[Stage],
        *,
        start: int,
        log_every: int,
        unit: str,
        batch_size: int,
        measure: Measure | None,
        measure_every: int,
        stops: bool,
        progress: bool | None,
    ) -> None:
        super().__init__()
        self.run = run
        self.step = start
        self.measure = measure
        self.measure_every = measure_every
        self.stages = stages
        self.stage = stages[0]
        self.train_steps = stages[-1].end
        self.log_every = log_every
        self.unit = unit
        self.batch_size = batch_size
        self.stops = stops
        self.skipped = 0
        progress = progress if run.writes else False
        self.progress = sys.stderr.isatty() if progress is None else progress
        self.quiet = progress is False
        self.marked = (start, time.perf_counter())
        self.said = 0.0
        self.bar: Any = None

    def __enter__(self) -> _Reporter:
        """Opens log, events and bar; the chief's, where there are several workers."""
        if not self.run.writes:
            return self
        entries = self.run.cut_log(self.step)
        self.file = self.run.log.open("a", encoding="utf-8")
        self.events = _Events(self.run.directory / "tensorboard")
        for entry in entries:
            self.events.write(entry)
        if self.progress:
            self.bar = _training_bar(self.step, self.train_steps)
            self.bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        """Closes them."""
        if not self.run.writes:
            return
        if self.bar is not None:
            self.bar.stop()
        self.events.close()
        self.file.close()

    def begin(self, stage: Stage, model: keras.Model) -> None:
        """A stage begins, or goes on: another model, the same bar."""
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
        """Logs when a window of steps is full."""
        before, self.step = self.step, self.step + self.model.steps_per_execution
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.step)
        if _reached(before, self.step, self.log_every) or self.step == self.stage.end:
            self._log_window(logs or {})
        if (
            self.measure is not None
            and self.run.writes
            and (
                _reached(before, self.step, self.measure_every)
                or self.step == self.train_steps
            )
        ):
            self._log_measure(self.measure)

    def _log_window(self, logs: Mapping[str, Any]) -> None:
        """Logs the means since the last time, and the rate."""
        now = time.perf_counter()
        since, then = self.marked
        values = {name: float(value) for name, value in logs.items()}
        if self.stops:
            _check_finite(self.model)
            if not np.isfinite(values.get("loss", 0.0)):
                raise _not_finite(f"steps {since + 1} to {self.step}")
        else:
            # The mean of a window with such a step in it.
            values = {name: x for name, x in values.items() if np.isfinite(x)}
            skipped = _skipped(self.model)
            if skipped > self.skipped:
                values["skipped_steps"] = skipped - self.skipped
                self.skipped = skipped
        rate = (self.step - since) * self.batch_size / (now - then)
        entry = {
            "step": self.step,
            **({"stage": self.stage.number} if len(self.stages) > 1 else {}),
            **{name: round(value, 5) for name, value in values.items()},
            "learning_rate": float(f"{float(self.model.optimizer.learning_rate):.4g}"),
            f"{self.unit}_per_second": round(rate, 1),
        }
        self._write(entry)
        self.marked = (self.step, now)
        self.model.reset_metrics()
        said = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        said = f"{said}  {rate:,.0f} {self.unit}/s"
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], values=said)
        elif not self.quiet and (now - self.said > 30 or self.step == self.train_steps):
            self.said = now
            print(f"step {self.step}/{self.train_steps}  {said}", file=sys.stderr)

    def _log_measure(self, measure: Measure) -> None:
        """Logs a measurement in a line of its own, and leaves its time out."""
        began = time.perf_counter()
        values = {name: round(float(x), 5) for name, x in measure(self.model).items()}
        took = time.perf_counter() - began
        step, then = self.marked
        self.marked = step, then + took
        self._write({"step": self.step, **values, "seconds": round(took, 1)})
        said = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        if self.bar is not None:
            self.bar.console.print(f"step {self.step}  {said}")
        elif not self.quiet:
            print(f"step {self.step}/{self.train_steps}  {said}", file=sys.stderr)

    def _write(self, entry: Mapping[str, Any]) -> None:
        """A line of the log, and the same for TensorBoard."""
        if not self.run.writes:
            return
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()
        self.events.write(entry)


def _reached(before: int, step: int, every: int) -> bool:
    """Whether a multiple of `every` lies after `before` and not after `step`."""
    return step // every > before // every


def _check_finite(model: keras.Model) -> None:
    """Stops at a loss that is not finite, with the number of its step."""
    if isinstance(model, ReplicatedModel) and model.first_nonfinite_step():
        raise _not_finite(f"step {model.first_nonfinite_step()}")


def _not_finite(steps: str) -> ValueError:
    return ValueError(
        f"The loss of {steps} is not finite: a lower learning rate may help, or "
        "`on_nan` (--on-nan) skip; the run goes on from its last checkpoint. "
        "Received: loss=nan"
    )


def _skipped(model: keras.Model) -> int:
    """How many steps the optimiser has left out."""
    return getattr(model.optimizer, "skipped", 0)


class _Events:
    """The log as TensorBoard reads it: one run, also after a restart.

    The folder is written anew from the log by each process, since events of steps that
    are done again could not be taken back. Without TensorFlow there is none.
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
