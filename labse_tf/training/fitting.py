"""Fitting: a run through all stages of its recipe, from its last checkpoint.

`fit` trains; `Keeper` writes the checkpoints and listens for signals. The log and the
bar are in `reporting`, the step from one stage to the next in `growing`.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import keras

from labse_tf.distribute import told_as_lost
from labse_tf.models import ReplicatedModel
from labse_tf.recipes import BaseRecipe, Stage
from labse_tf.training.growing import backbone_of, grow
from labse_tf.training.options import RunOptions
from labse_tf.training.reporting import Measure, Reporter, check_finite, reached
from labse_tf.training.run import Interrupted, Run

Batches = Callable[[int], Any]
Model = TypeVar("Model", bound=keras.Model)

# ours: seconds of training between two exchanges of signals among the workers
_LISTEN = 1.0


def fit(
    run: Run,
    model: Model,
    batches: Batches,
    recipe: BaseRecipe,
    options: RunOptions | None = None,
    *,
    measure: Measure | None = None,
    unit: str = "pairs",
) -> Model:
    """Trains a compiled model through all stages of a recipe.

    The learning-rate schedule, the optimizer's moments, the batches, the log and the
    bar continue from stage to stage. A `MaskedLM` is trained in the paper's three
    stages. A `DualEncoder` grows from zero layers (ours, not the paper's): its first
    stage is a bag of tokens, which needs a mean for its pooling.

    If interrupted, rerun with the same arguments to resume from the last checkpoint,
    in the stage of that checkpoint.

    Args:
        run: An open run.
        model: Compiled, with a built optimizer; its metrics go into the log. With
            several stages it is a `MaskedLM` or a `DualEncoder` as deep as the first
            stage, or shallower and grown first. With one stage it can be any model and
            keeps its depth.
        batches: A function from a step to the `tf.data.Dataset` of the batches after
            that step. The dataset must reach `train_steps`.
        recipe: Its stages, seed and batch size are used.
        options: How to train.
        measure: A function from the model to values for the log. It is called every
            `options.dev_every` steps and at the last step; its time is not counted in
            the log's rate.
        unit: What a batch holds, for the log's rate.

    Returns:
        The trained model; another object than `model` if it has grown.

    Raises:
        labse_tf.training.Interrupted: On SIGTERM or SIGINT, after a checkpoint.
        ValueError: If the model cannot grow to the depth of a stage, or the loss is
            not finite; no checkpoint has been written since.
        labse_tf.distribute.WorkerLostError: If another worker has ended.

    References:
        Feng et al., 2022, section 4.1 (https://arxiv.org/abs/2007.01852).
    """
    options = options or RunOptions()
    stages = recipe.stage_plan()
    checkpoint = run.newest_checkpoint()
    start = 0 if checkpoint is None else checkpoint.step
    keeper = Keeper(run, start, options)
    reporter = Reporter(
        run,
        stages,
        start,
        options,
        measure=measure,
        unit=unit,
        batch_size=recipe.batch_size,
    )
    with keeper.signals(), reporter:
        for stage in stages:
            # The checkpoint at a stage's last step is that of the shallower model.
            if start > stage.end:
                continue
            # With one stage a loaded model keeps the depth it has.
            if len(stages) > 1 and backbone_of(model).num_layers != stage.num_layers:
                # New layers' weights and dropout states are then the same in an
                # undisturbed run and a resumed one.
                keras.utils.set_random_seed(recipe.seed + stage.number)
                model = grow(model, stage.num_layers)
            if checkpoint is not None:
                run.assign(model, checkpoint)
                checkpoint = None
            if keeper.step < stage.end:
                _fit_stage(model, batches, stage, options, keeper, reporter)
    return model


def _fit_stage(
    model: keras.Model,
    batches: Batches,
    stage: Stage,
    options: RunOptions,
    keeper: Keeper,
    reporter: Reporter,
) -> None:
    """Trains to the end of a stage.

    The last steps of a stage that do not fill an execution are run one at a time.
    """
    keeper.last = stage.end
    reporter.begin(stage, model)
    if isinstance(model, ReplicatedModel):
        model.start_counting_at(keeper.step)
    several = keeper.run.workers.count > 1
    for size in dict.fromkeys((options.steps_per_execution, 1)):
        start = keeper.step
        steps = (stage.end - start) // size * size
        if not steps:
            continue
        model.steps_per_execution = size
        model.train_function = None
        with told_as_lost() if several else nullcontext():
            model.fit(
                batches(start),
                steps_per_epoch=steps,
                epochs=1,
                verbose=0,
                # The batches have their order; Keras warns otherwise.
                shuffle=False,
                callbacks=[reporter, keeper],
            )


class Keeper(keras.callbacks.Callback):
    """Writes checkpoints, and ends a run that a signal has asked to stop.

    Args:
        run: An open run.
        start: The step of the checkpoint that the run resumes from.
        options: `checkpoint_every` and `on_nan`.

    Attributes:
        step: Steps done.
        last: The last step of the stage, which has a checkpoint too.
    """

    def __init__(self, run: Run, start: int, options: RunOptions) -> None:
        super().__init__()
        self.run = run
        self.step = start
        self.every = options.checkpoint_every
        self.stops = options.on_nan == "stop"
        self.last = start
        self.received: int | None = None
        self.listens_at = start
        self.heard = (start, time.perf_counter())

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Catches SIGTERM and SIGINT in the block, if this is the main thread."""

        def note(number: int, frame: object) -> None:
            self.received = number

        before = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, note)
        except ValueError:
            pass  # Not the main thread: signals are handled elsewhere.
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Counts the steps and saves when a checkpoint is due."""
        before, self.step = self.step, self.step + self.model.steps_per_execution
        signal_number = self._signal()
        if signal_number is not None:
            self._save()
            raise Interrupted(signal_number, self.step)
        if reached(before, self.step, self.every) or self.step == self.last:
            self._save()

    def _save(self) -> None:
        """Writes a checkpoint, unless a loss that is not finite spoiled the weights."""
        if self.stops:
            check_finite(self.model)
        self.run.save(self.model, self.step)

    def _signal(self) -> int | None:
        """Returns the signal that any worker has received, if it is time to ask.

        Asking waits for the running steps, so it is done about once per second, at
        steps that the workers agree on.
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
        answers = self.run.workers.gather(self.received or 0, pause)
        self.heard = self.step, time.perf_counter()
        self.listens_at = self.step + int(answers[:, 1].min())
        return int(answers[:, 0].max()) or None
