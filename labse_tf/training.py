"""A training run: from a recipe and pairs to a preset, through interruptions.

A run owns a directory:

    run.json              what is being made: recipe, text, vocabulary, start
    run.lock              held while a process works on it
    training_log.jsonl    a line every few steps: step, loss, accuracy, rate
    checkpoints/          all variables and the step, the newest two
    config.json ...       the preset, when the run has ended

The state of a run is its variables and its step, since batch k is a function of the
text, the recipe and k. The same command again goes on where the last one stopped.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import keras
import numpy as np

from labse_tf import presets
from labse_tf.distribute import get_strategy
from labse_tf.files import whole_file, write_text
from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.models import DualEncoder, LaBSE, LaBSEBackbone
from labse_tf.optimizers import WarmupLinearDecay, adamw
from labse_tf.recipes import Recipe

if TYPE_CHECKING:
    from labse_tf.data import ParallelCorpus
    from labse_tf.preprocessing import SentencePreprocessor

_KEEP = 2  # checkpoints: the newest, and one to fall back to


class Interrupted(Exception):
    """A signal asked the run to stop, and a checkpoint was written.

    Attributes:
        signal: The signal's number, 15 for SIGTERM.
        step: The step of the checkpoint.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped by signal {signal_number} at step {step}")
        self.signal = signal_number
        self.step = step


class Run:
    """A run's directory: one process at a time, checkpoints, the log.

    Args:
        directory: Made if needed.
        description: What decides the result, JSON types only, one level deep or
            more. A directory that was started with another one is refused.

    Raises:
        ValueError: From `open`, if another process works on the directory, or it
            belongs to something else.
    """

    def __init__(self, directory: str | Path, description: Mapping[str, Any]) -> None:
        self.directory = Path(directory)
        self.description = json.loads(json.dumps(description))
        self._lock: IO[str] | None = None

    @property
    def finished(self) -> bool:
        """Whether the preset is there."""
        return presets.is_preset(self.directory)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.directory / "checkpoints"

    @property
    def log(self) -> Path:
        """The file of the training log."""
        return self.directory / "training_log.jsonl"

    @contextmanager
    def open(self) -> Iterator[Run]:
        """Takes the directory for this process.

        Raises:
            ValueError: If another process has it, or it was started with another
                description; the message names the first field that differs.
            OSError: If it cannot be written.
        """
        import fcntl

        self.directory.mkdir(parents=True, exist_ok=True)
        self._check_description()
        with (self.directory / "run.lock").open("a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                raise ValueError(
                    f"{self.directory}: another run works on this directory. "
                    f"Received: {lock.read().strip() or 'a lock'}"
                ) from error
            lock.truncate(0)
            lock.write(f"process {os.getpid()}\n")
            lock.flush()
            self._lock = lock
            try:
                yield self
            finally:
                self._lock = None

    def _check_description(self) -> None:
        """Writes `run.json`, or compares with the one that is there."""
        path = self.directory / "run.json"
        if not path.exists():
            others = [p.name for p in self.directory.iterdir() if p.name != "run.lock"]
            if others:
                raise ValueError(
                    f"{self.directory}: expected a new or empty directory, or one that "
                    f"this command started. Received: {', '.join(sorted(others)[:5])}"
                )
            write_text(path, json.dumps(self.description, indent=2) + "\n")
            return
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path}: expected JSON. Received: {error}") from error
        before, now = _flat(known), _flat(self.description)
        for name in sorted(set(before) | set(now)):
            if before.get(name) != now.get(name):
                raise ValueError(
                    f"{self.directory} was started with {name} = {before.get(name)!r}; "
                    "the same command goes on with it, another one needs another "
                    f"directory. Received: {name} = {now.get(name)!r}"
                )

    def save(self, model: keras.Model, step: int) -> None:
        """Writes a checkpoint: all of it or nothing.

        Args:
            model: Compiled and built.
            step: Steps done.

        Raises:
            OSError: If it cannot be written; older checkpoints stay.
        """
        path = self.checkpoints / f"step_{step:010d}.npz"
        arrays = {
            f"{i:05d}": np.asarray(variable) for i, variable in enumerate(_state(model))
        }
        with whole_file(path) as temporary:
            np.savez(temporary, step=np.int64(step), **arrays)  # type: ignore[arg-type]
        for old in self._saved()[_KEEP:]:
            old.unlink()

    def restore(self, model: keras.Model) -> int:
        """Puts the newest readable checkpoint into a model.

        Args:
            model: As it was saved: compiled and built.

        Returns:
            The step; 0 if there is no checkpoint.

        Warns:
            UserWarning: If a newer checkpoint is damaged, and is passed over.

        Raises:
            ValueError: If a checkpoint is whole and fits another model.
        """
        for path in self._saved():
            try:
                with np.load(path, allow_pickle=False) as archive:
                    arrays = [archive[name] for name in sorted(archive.files)]
                    names = sorted(archive.files)
            except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as e:
                warnings.warn(
                    f"{path} is damaged ({e}); the checkpoint before it is used",
                    stacklevel=2,
                )
                continue
            step = int(arrays.pop(names.index("step")))
            _assign(model, arrays, path)
            return step
        return 0

    def _saved(self) -> list[Path]:
        """Checkpoints, newest first."""
        return sorted(self.checkpoints.glob("step_*.npz"), reverse=True)

    def drop_checkpoints(self) -> None:
        """Removes the checkpoints, when the preset has taken their place."""
        for path in self._saved():
            path.unlink()
        if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            self.checkpoints.rmdir()

    def cut_log(self, step: int) -> None:
        """Drops what the log tells of steps after `step`, which will be done again."""
        if not self.log.exists():
            return
        kept = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # The last line of a process that was killed.
            if entry["step"] <= step:
                kept.append(line + "\n")
        write_text(self.log, "".join(kept))


def fit(
    run: Run,
    model: keras.Model,
    batches: Callable[[int], Any],
    *,
    train_steps: int,
    checkpoint_every: int = 1000,
    log_every: int = 50,
    unit: str = "pairs",
    batch_size: int = 1,
    progress: bool | None = None,
) -> None:
    """Trains a compiled model to `train_steps`, from the run's last checkpoint.

    Args:
        run: An open run.
        model: Compiled and built; its metrics go into the log.
        batches: From a step to the `tf.data.Dataset` of the batches from there on,
            which must hold all up to `train_steps`.
        train_steps: Steps in all, those of earlier processes included.
        checkpoint_every: Steps from a checkpoint to the next.
        log_every: Steps a line of the log is the mean of.
        unit: What a batch holds, for the rate.
        batch_size: How many of them.
        progress: A bar on standard error; `None` for one on a terminal, and a line
            now and then elsewhere.

    Raises:
        Interrupted: On SIGTERM or SIGINT, after a checkpoint.
        ValueError: If the loss is not finite any more.
    """
    start = run.restore(model)
    run.cut_log(start)
    if start >= train_steps:
        return
    reporter = _Reporter(
        run.log,
        start=start,
        train_steps=train_steps,
        log_every=log_every,
        unit=unit,
        batch_size=batch_size,
        progress=progress,
    )
    keeper = _Keeper(run, start=start, every=checkpoint_every, last=train_steps)
    with keeper.signals(), reporter:
        model.fit(
            batches(start),
            steps_per_epoch=train_steps - start,
            epochs=1,
            verbose=0,
            shuffle=False,  # The batches have their order; Keras warns otherwise.
            callbacks=[reporter, keeper],
        )


def train_dual_encoder(
    recipe: Recipe,
    pairs: ParallelCorpus,
    output: str | Path,
    *,
    model: str | Path | None = None,
    vocabulary: str | Path | None = None,
    lowercase: bool = False,
    strategy: str = "auto",
    checkpoint_every: int = 1000,
    log_every: int = 50,
    deterministic: bool = False,
    progress: bool | None = None,
) -> LaBSE:
    """Trains a sentence encoder on pairs, into a directory that becomes a preset.

    Killed at any moment and called again with the same arguments it goes on from
    the last checkpoint; when it has ended, it loads what it made.

    Args:
        recipe: What to do.
        pairs: The text, as `labse_tf.data.load_pairs` gives it.
        output: The run's directory.
        model: A preset to start from; or
        vocabulary: a `vocab.txt` for a new model of the recipe's shape.
        lowercase: Whether a new model's tokenizer lower-cases.
        strategy: A name for `labse_tf.distribute.get_strategy`.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of the log.
        deterministic: Bit-identical results on the same machine, somewhat slower.
        progress: As in `fit`.

    Returns:
        The trained model, as loaded from the preset.

    Raises:
        ValueError: If the arguments do not fit together or the directory is taken.
        Interrupted: On SIGTERM or SIGINT, after a checkpoint.
    """
    from labse_tf.data import sentence_pairs

    recipe.check()
    if (model is None) == (vocabulary is None):
        raise ValueError(
            "Give `model` to go on from, or `vocabulary` for a new one, and not both. "
            f"Received: model={model!r}, vocabulary={vocabulary!r}"
        )
    if deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    description = {
        "recipe": dataclasses.asdict(recipe),
        "text": {"pairs": len(pairs), "sha256": pairs.digest()},
        "start": _start(model, vocabulary, lowercase),
    }
    run = Run(output, description)
    with run.open():
        if not run.finished:
            scope = get_strategy(strategy)
            _check_replicas(recipe.batch_size, scope.num_replicas_in_sync)
            keras.utils.set_random_seed(recipe.seed)
            with scope.scope():
                encoder = _make_encoder(recipe, model, vocabulary, lowercase)
                dual = compile_dual_encoder(encoder, recipe)
            preprocessor = encoder.text_preprocessor()
            fit(
                run,
                dual,
                lambda start: sentence_pairs(
                    pairs,
                    preprocessor,
                    batch_size=recipe.batch_size,
                    steps=recipe.train_steps,
                    start_step=start,
                    seed=recipe.seed,
                    smoothing=recipe.smoothing,
                    cap=recipe.cap,
                    batches=recipe.batches,  # type: ignore[arg-type]
                ),
                train_steps=recipe.train_steps,
                checkpoint_every=checkpoint_every,
                log_every=log_every,
                batch_size=recipe.batch_size,
                progress=progress,
            )
            encoder.save_to_preset(output)
        run.drop_checkpoints()
    return LaBSE.from_preset(output)


def compile_dual_encoder(encoder: LaBSE, recipe: Recipe) -> DualEncoder:
    """Puts an encoder under the recipe's loss and optimiser.

    Args:
        encoder: Made in the same strategy scope.
        recipe: Margin, scale, learning rate and the rest.

    Returns:
        A compiled `DualEncoder` whose optimiser is built.
    """
    dual = DualEncoder(encoder)
    schedule = WarmupLinearDecay(
        recipe.learning_rate, recipe.train_steps, warmup_steps=recipe.warmup_steps
    )
    optimizer = adamw(
        schedule,
        weight_decay=recipe.weight_decay,
        clip_norm=recipe.clip_norm,
        epsilon=recipe.epsilon,
    )
    loss = AdditiveMarginSoftmax(margin=recipe.margin, scale=recipe.scale)
    dual.compile(optimizer=optimizer, loss=loss)
    optimizer.build(dual.trainable_variables)
    return dual


def untrained_encoder(
    recipe: Recipe, vocabulary: str | Path, *, lowercase: bool = False
) -> LaBSE:
    """Makes the encoder that a run with this recipe and vocabulary starts from.

    Args:
        recipe: Shape, seed and sequence length.
        vocabulary: A `vocab.txt`.
        lowercase: Whether the tokenizer lower-cases.

    Returns:
        The model before its first step.
    """
    keras.utils.set_random_seed(recipe.seed)
    return _make_encoder(recipe, None, vocabulary, lowercase)


def _make_encoder(
    recipe: Recipe,
    model: str | Path | None,
    vocabulary: str | Path | None,
    lowercase: bool,
) -> LaBSE:
    """The encoder a run starts from, with the recipe's sequence length."""
    from labse_tf.preprocessing import SentencePreprocessor
    from labse_tf.tokenizers import WordPieceTokenizer

    def preprocessor(tokenizer: WordPieceTokenizer) -> SentencePreprocessor:
        return SentencePreprocessor(tokenizer, recipe.sequence_length)

    if model is not None:
        known = LaBSE.from_preset(model, dtype=recipe.dtype)
        tokenizer = known.text_preprocessor().tokenizer
        return LaBSE(known.backbone, preprocessor(tokenizer), pooling=known.pooling)
    if vocabulary is None:
        raise ValueError("`vocabulary` is needed for a new model. Received: None")
    tokenizer = WordPieceTokenizer(vocabulary, lowercase=lowercase)
    backbone = LaBSEBackbone(
        vocabulary_size=tokenizer.vocabulary_size,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
        hidden_dim=recipe.hidden_dim,
        intermediate_dim=recipe.intermediate_dim,
        activation=recipe.activation,
        dropout=recipe.dropout,
        max_sequence_length=recipe.max_sequence_length,
        dtype=recipe.dtype,
    )
    return LaBSE(backbone, preprocessor(tokenizer), pooling=recipe.pooling)


def _start(
    model: str | Path | None, vocabulary: str | Path | None, lowercase: bool
) -> dict[str, Any]:
    """What a run starts from, by content and not by name."""
    if model is not None:
        hashes = presets.read_config(presets.find(model))["sha256"]
        return {"model": hashes}
    if not Path(str(vocabulary)).is_file():
        raise ValueError(f"{vocabulary}: expected a vocab.txt. Received: no such file")
    return {
        "vocabulary": presets.sha256(Path(str(vocabulary))),
        "lowercase": lowercase,
    }


def _check_replicas(batch_size: int, replicas: int) -> None:
    """Refuses a global batch that the replicas cannot share evenly."""
    if batch_size % replicas:
        raise ValueError(
            "`batch_size` is the global batch, which the replicas share evenly. "
            f"Received: batch_size={batch_size} for {replicas} replicas"
        )


def _state(model: keras.Model) -> list[Any]:
    """All that a step changes: weights, dropout's seeds, the optimiser's moments."""
    metrics = {id(v) for metric in model.metrics for v in metric.variables}
    own = [v for v in model.variables if id(v) not in metrics]
    return own + list(model.optimizer.variables)


def _assign(model: keras.Model, arrays: list[np.ndarray], path: Path) -> None:
    """Sets the state of a model, or nothing at all if a shape differs."""
    variables = _state(model)
    shapes = [tuple(v.shape) for v in variables], [a.shape for a in arrays]
    if shapes[0] != shapes[1]:
        different = next(
            (
                f"{v.path} has {tuple(v.shape)}, the file {a.shape}"
                for v, a in zip(variables, arrays, strict=False)
                if tuple(v.shape) != a.shape
            ),
            f"{len(variables)} variables, the file {len(arrays)}",
        )
        raise ValueError(
            f"{path}: expected the state of this model. Received: {different}"
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}.{key}" if prefix else key))
    return flat


class _Keeper(keras.callbacks.Callback):
    """Writes checkpoints, and ends a run that a signal has asked to stop."""

    def __init__(self, run: Run, *, start: int, every: int, last: int) -> None:
        super().__init__()
        self.run = run
        self.step = start
        self.every = every
        self.last = last
        self.received: int | None = None

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
        """Counts the step and saves when it is time."""
        self.step += 1
        if self.received is not None:
            self.run.save(self.model, self.step)
            raise Interrupted(self.received, self.step)
        if self.step % self.every == 0 or self.step == self.last:
            self.run.save(self.model, self.step)


class _Reporter(keras.callbacks.Callback):
    """Shows and logs the means of the last steps, and stops at a loss that is none."""

    def __init__(
        self,
        log: Path,
        *,
        start: int,
        train_steps: int,
        log_every: int,
        unit: str,
        batch_size: int,
        progress: bool | None,
    ) -> None:
        super().__init__()
        self.log = log
        self.step = start
        self.train_steps = train_steps
        self.log_every = log_every
        self.unit = unit
        self.batch_size = batch_size
        self.progress = sys.stderr.isatty() if progress is None else progress
        self.quiet = progress is False
        self.marked = (start, time.perf_counter())
        self.said = 0.0
        self.bar: Any = None

    def __enter__(self) -> _Reporter:
        """Opens log and bar."""
        self.file = self.log.open("a", encoding="utf-8")
        if self.progress:
            self.bar = _training_bar(self.step, self.train_steps)
            self.bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        """Closes both."""
        if self.bar is not None:
            self.bar.stop()
        self.file.close()

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Logs when a window of steps is full."""
        self.step += 1
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.step)
        if self.step % self.log_every and self.step != self.train_steps:
            return
        now = time.perf_counter()
        since, then = self.marked
        values = {name: float(value) for name, value in (logs or {}).items()}
        if not np.isfinite(values.get("loss", 0.0)):
            raise ValueError(
                f"The loss of steps {since + 1} to {self.step} is not finite: a lower "
                f"learning rate may help. Received: loss={values['loss']}"
            )
        rate = (self.step - since) * self.batch_size / (now - then)
        entry = {
            "step": self.step,
            **{name: round(value, 5) for name, value in values.items()},
            f"{self.unit}_per_second": round(rate, 1),
        }
        self.file.write(json.dumps(entry) + "\n")
        self.file.flush()
        self.marked = (self.step, now)
        self.model.reset_metrics()
        said = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        said = f"{said}  {rate:,.0f} {self.unit}/s"
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], values=said)
        elif not self.quiet and (now - self.said > 30 or self.step == self.train_steps):
            self.said = now
            print(f"step {self.step}/{self.train_steps}  {said}", file=sys.stderr)


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
        TextColumn("Training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[values]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    bar.add_task("Training", total=total, completed=done, values="")
    return bar
