"""Training loop: all stages of a recipe, from the last checkpoint.

`fit` trains; `Keeper` writes checkpoints and handles signals. The log and the progress
bar are in `reporting`. The model grows between stages in `growing`.
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
from labse_tf.training.best import BestWeights
from labse_tf.training.growing import backbone_of, grow
from labse_tf.training.memory import MemoryPlan, explaining_out_of_memory, plan_memory
from labse_tf.training.options import RunOptions, check_measured
from labse_tf.training.reporting import Measure, Reporter, check_finite, reached
from labse_tf.training.run import Interrupted, Run
from labse_tf.variables import release

Batches = Callable[[int], Any]
Model = TypeVar("Model", bound=keras.Model)

# ours: seconds between two exchanges of signals among the workers, which cost time
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
    """Train a compiled model through all stages of a recipe.

    The learning-rate schedule, the optimizer's moments, the batches, the log and the
    progress bar continue from stage to stage. A `MaskedLM` is trained in the paper's
    three stages. A `DualEncoder` can grow from zero layers (ours, not the paper's): its
    first stage is a bag of tokens, which requires mean pooling.

    If interrupted, rerun with the same arguments to resume from the last checkpoint.

    Args:
        run: Open run.
        model: Compiled model with a built optimizer. Its metrics are written to the
            log. If the recipe has several stages, the model is a `MaskedLM` or a
            `DualEncoder`, and grows if it is shallower than the first stage. If the
            recipe has one stage, any model is allowed and keeps its depth.
        batches: Function from a step to the `tf.data.Dataset` of the batches after
            that step. The dataset must reach `train_steps`.
        recipe: Recipe; its stages, seed and batch size are used.
        options: Run options.
        measure: Function from the model to values for the log. It is called at the
            start, every `options.dev_every` steps and at the last step. Its time is
            not counted in the throughput. The value `dev_accuracy` decides which
            weights are kept (`options.keep_best`) and whether to stop early
            (`options.patience`).
        unit: Unit of the throughput: the items of a batch.

    Returns:
        The trained model, with its best weights if it was measured and
        `options.keep_best` is not false. If the model has grown, this is a new object,
        and the memory of `model` is freed.

    Raises:
        labse_tf.training.Interrupted: On SIGTERM or SIGINT, after a checkpoint.
        ValueError: If the model cannot grow to the depth of a stage, or if the loss is
            not finite. No checkpoint is written after such a loss.
        MemoryError: If the memory is full. The message names the flag that saves most.
        labse_tf.distribute.WorkerLostError: If another worker has ended.

    References:
        Feng et al., 2022, section 4.1 (https://arxiv.org/abs/2007.01852).
    """
    options = options or RunOptions()
    check_measured(options, measure is not None)
    stages = recipe.stage_plan()
    checkpoint = run.newest_checkpoint()
    start = 0 if checkpoint is None else checkpoint.step
    keeper = Keeper(run, start, options)
    best = BestWeights(run, options, stages)
    reporter = Reporter(
        run,
        stages,
        None if checkpoint is None else start,
        options,
        measure=measure,
        best=best,
        unit=unit,
        batch_size=recipe.batch_size,
    )

    def plan(changed: BaseRecipe) -> MemoryPlan:
        return _plan(model, changed, options, measured=measure is not None)

    new = "model" not in run.description.get("start", {})
    with keeper.signals(), reporter, explaining_out_of_memory(recipe, plan, new=new):
        for stage in stages:
            # The checkpoint at the last step of a stage holds the model of that
            # stage, before it grows.
            if start > stage.end:
                continue
            # If there is one stage, a loaded model keeps its depth.
            if len(stages) > 1 and backbone_of(model).num_layers != stage.num_layers:
                # Weights and dropout states of new layers must be equal in
                # uninterrupted and resumed runs.
                keras.utils.set_random_seed(recipe.seed + stage.number)
                model = grown(model, stage.num_layers)
            if checkpoint is not None:
                run.assign(model, checkpoint)
                checkpoint = None
            if keeper.step < stage.end and not best.stopped:
                _fit_stage(model, batches, stage, options, keeper, reporter)
        best.restore(model, keeper.step)
    return model


def _plan(
    model: keras.Model, recipe: BaseRecipe, options: RunOptions, *, measured: bool
) -> MemoryPlan:
    """Return the memory that the training of a model needs."""
    gpus, replicas = [], 1
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_logical_devices("GPU")
        replicas = model.distribute_strategy.num_replicas_in_sync
    return plan_memory(
        recipe,
        backbone_of(model).vocabulary_size,
        device="gpu" if gpus else "cpu",
        replicas=replicas,
        deterministic=options.deterministic,
        measured=measured,
    )


def grown(model: Model, num_layers: int) -> Model:
    """Return a deeper model, and free the memory of the model that it replaces.

    For the arguments see `labse_tf.training.growing.grow`.
    """
    new = grow(model, num_layers)
    # The head of a masked language model belongs to both.
    kept = {id(variable) for variable in new.variables}
    old = [*model.variables, *model.optimizer.variables]
    release(variable for variable in old if id(variable) not in kept)
    return new


def _fit_stage(
    model: keras.Model,
    batches: Batches,
    stage: Stage,
    options: RunOptions,
    keeper: Keeper,
    reporter: Reporter,
) -> None:
    """Train to the end of a stage; steps that do not fill an execution run singly."""
    keeper.last = stage.end
    reporter.begin(stage, model)
    if isinstance(model, ReplicatedModel):
        model.start_counting_at(keeper.step)
    several = keeper.run.workers.count > 1
    for size in dict.fromkeys((options.steps_per_execution, 1)):
        start = keeper.step
        steps = (stage.end - start) // size * size
        if not steps or reporter.best.stopped:
            continue
        model.steps_per_execution = size
        model.train_function = None
        with told_as_lost() if several else nullcontext():
            model.fit(
                batches(start),
                steps_per_epoch=steps,
                epochs=1,
                verbose=0,
                # The batches are already in their order; without this Keras warns.
                shuffle=False,
                callbacks=[reporter, keeper],
            )


class Keeper(keras.callbacks.Callback):
    """Callback that writes checkpoints and stops the run on a signal.

    Args:
        run: Open run.
        start: Step of the checkpoint that the run resumes from.
        options: Run options; `checkpoint_every` and `on_nan` are used.

    Attributes:
        step: Number of steps done.
        last: Last step of the stage, which also has a checkpoint.
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
        """Catch SIGTERM and SIGINT in the block if this is the main thread."""

        def note(number: int, frame: object) -> None:
            self.received = number

        before = {}
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                before[number] = signal.signal(number, note)
        except ValueError:
            pass  # Only the main thread may handle signals.
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Count the steps and save a checkpoint when it is due."""
        before, self.step = self.step, self.step + self.model.steps_per_execution
        signal_number = self._signal()
        if signal_number is not None:
            self._save(logs or {})
            raise Interrupted(signal_number, self.step)
        if reached(before, self.step, self.every) or self.step == self.last:
            self._save(logs or {})

    def _save(self, logs: Mapping[str, Any]) -> None:
        """Write a checkpoint, unless a loss that is not finite made the weights NaN."""
        if self.stops:
            # The mean over all steps since the last log line.
            check_finite(self.model, logs, f"a step up to {self.step}")
        self.run.save(self.model, self.step)

    def _signal(self) -> int | None:
        """Return the number of a signal that any worker has received.

        The exchange between workers waits for the running steps. It therefore happens
        about once per second, at steps that all workers agree on.
        """
        if self.run.workers.count == 1:
            return self.received
        if self.step < self.listens_at:
            return None
        step, then = self.heard
        now = time.perf_counter()
        rate = (self.step - step) / max(now - then, 1e-6)
        pause = max(1, min(int(rate * _LISTEN), 1000))
        # The workers measure different rates, so the smallest pause is used by all.
        answers = self.run.workers.gather(self.received or 0, pause)
        self.heard = self.step, time.perf_counter()
        self.listens_at = self.step + int(answers[:, 1].min())
        return int(answers[:, 0].max()) or None
