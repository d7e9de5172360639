"""Run: the directory of a training run, with its lock, checkpoints and log.

With several workers, only the chief reads and writes the directory. It sends the
content to the other workers.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import keras

from labse_tf import presets
from labse_tf.distribute import Workers
from labse_tf.files import atomic_file, directory_of, read_json, write_text
from labse_tf.models import LaBSE
from labse_tf.training.card import TrainingFacts, add_training
from labse_tf.training.checkpoint_files import (
    assign_state,
    check_state,
    state_shapes,
    write_state,
)
from labse_tf.variables import release

_KEEP = 2  # ours: the newest checkpoint, and one more in case it is damaged


class Interrupted(Exception):
    """Raised if a signal stopped the run, after a checkpoint was written.

    Attributes:
        signal: Number of the signal, such as 15 for SIGTERM.
        step: Step of the checkpoint.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped by signal {signal_number} at step {step}")
        self.signal = signal_number
        self.step = step


class EndedElsewhere(Exception):
    """Raised on a worker without the model if the run had already ended."""


class Checkpoint(NamedTuple):
    """Checkpoint file of the chief, for `Run.assign`.

    Attributes:
        path: Path of the file.
        step: Number of steps done.
    """

    path: Path
    step: int


class Run:
    """Directory of a training run, which one process at a time can open.

    Args:
        directory: Path. The directory is created if it does not exist.
        description: Everything that determines the result, as nested JSON types. A
            directory with a different description cannot be opened.
        workers: Processes that train together (default: this process only). Only the
            directory of the chief is read and written. The other workers do not need
            the directory, and may share it.
        temporary: Names of further files and folders in the directory that only an
            unfinished run needs.
        implied: Values that a description of an older version has where it lacks a
            name, by dotted name such as `recipe.freeze`. A setting that is new in this
            version then does not end the runs of older versions.
    """

    def __init__(
        self,
        directory: str | Path,
        description: Mapping[str, Any],
        workers: Workers | None = None,
        *,
        temporary: Sequence[str] = (),
        implied: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.description = json.loads(json.dumps(description))
        self._implied = json.loads(json.dumps(dict(implied or {})))
        self.workers = workers or Workers()
        self.temporary = tuple(temporary)
        self._lock: IO[str] | None = None
        self._finished = False

    @property
    def writes(self) -> bool:
        """Whether this process writes to the directory."""
        return self.workers.is_chief

    @property
    def finished(self) -> bool:
        """Whether the preset exists on the disk of the chief."""
        if self.writes:
            return presets.is_preset(self.directory)
        return self._finished

    @property
    def checkpoints(self) -> Path:
        """Directory of the checkpoints."""
        return self.directory / "checkpoints"

    @property
    def best(self) -> Path:
        """Directory of the best weights by held-out pairs."""
        return self.directory / "best"

    @property
    def log(self) -> Path:
        """Path of the training log."""
        return self.directory / "training_log.jsonl"

    @contextmanager
    def open(self) -> Iterator[Run]:
        """Lock the directory and compare its description.

        The chief locks it for all workers.

        Raises:
            ValueError: If another process holds the lock, the directory has another
                description (the message names the first field that differs), a
                worker's description differs from the chief's, or the chief failed.
            OSError: If the directory cannot be written.
        """
        with ExitStack() as stack:
            failure: Exception | None = None
            if self.writes:
                try:
                    stack.enter_context(self._locked())
                except (ValueError, OSError) as error:
                    failure = error
            known = self.workers.share(
                {
                    "failure": None if failure is None else str(failure),
                    "finished": failure is None and self.finished,
                    "description": self.description,
                }
            )
            if failure is not None:
                raise failure
            if known["failure"] is not None:
                raise ValueError(
                    f"The chief could not start the run: {known['failure']}"
                )
            self._finished = known["finished"]
            self._compare(known["description"], "The chief")
            yield self

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the directory in the block."""
        import fcntl

        directory_of(self.directory).mkdir(parents=True, exist_ok=True)
        lock_file = self.directory / "run.lock"
        strangers = self._strangers()
        # A run that another process has just started has a lock before other files.
        if strangers and not lock_file.exists():
            raise self._not_vacant(strangers)
        with lock_file.open("a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                raise ValueError(
                    f"{self.directory}: another process uses this directory. "
                    f"Received: {lock.read().strip() or 'a lock'}"
                ) from error
            # Under the lock, since two processes may start at the same time.
            self._check_description()
            lock.truncate(0)
            lock.write(f"process {os.getpid()}\n")
            lock.flush()
            self._lock = lock
            try:
                yield
            except ValueError:
                self._forget_if_nothing_was_done()
                raise
            finally:
                self._lock = None

    def _forget_if_nothing_was_done(self) -> None:
        """Empty a directory without results, so that a corrected command can use it."""
        if self.finished or self._saved() or any(e["step"] for e in self.entries()):
            return
        shutil.rmtree(self.directory / "tensorboard", ignore_errors=True)
        self._remove_temporary()
        for path in (self.log, self.directory / "run.json"):
            path.unlink(missing_ok=True)

    def _remove_temporary(self) -> None:
        """Remove the files that only an unfinished run needs, except checkpoints."""
        for path in (self.best, *(self.directory / name for name in self.temporary)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _check_description(self) -> None:
        """Write `run.json`, or compare the description with the existing file."""
        path = self.directory / "run.json"
        if not path.exists():
            if strangers := self._strangers():
                raise self._not_vacant(strangers)
            write_text(path, json.dumps(self.description, indent=2) + "\n")
            return
        known = read_json(path)
        hint = ": expected the same command, or another directory"
        self._compare(known, str(self.directory), hint)

    def _strangers(self) -> list[str]:
        """Return the names of the files in a directory that is not that of a run."""
        names = {path.name for path in self.directory.iterdir()}
        return [] if "run.json" in names else sorted(names - {"run.lock"})

    def _not_vacant(self, names: Sequence[str]) -> ValueError:
        return ValueError(
            f"{self.directory}: expected a new or empty directory, or one that "
            f"this command started. Received: {', '.join(names[:5])}"
        )

    def _compare(self, known: Mapping[str, Any], started: str, hint: str = "") -> None:
        """Raise an error if `known` differs from the description of this run."""
        before, now = _flat(known), _flat(self.description)
        for name in now.keys() & self._implied:
            before.setdefault(name, self._implied[name])
        for name in sorted(set(before) | set(now)):
            if before.get(name) != now.get(name):
                raise ValueError(
                    f"{started} was started with {name} = {before.get(name)!r}{hint}. "
                    f"Received: {name} = {now.get(name)!r}"
                )

    def save(self, model: keras.Model, step: int) -> None:
        """Write a checkpoint of a model with a built optimizer, atomically.

        Raises:
            OSError: If the file cannot be written. Older checkpoints are kept.
        """
        if not self.writes:
            return
        path = self.checkpoints / f"step_{step:010d}.npz"
        try:
            with atomic_file(path) as temporary:
                write_state(temporary, step, _state(model))
        except OSError as error:
            raise OSError(
                error.errno, f"{error.strerror}; older checkpoints are kept", str(path)
            ) from error
        for old in self._saved()[_KEEP:]:
            old.unlink()

    def newest_checkpoint(self) -> Checkpoint | None:
        """Return the newest readable checkpoint, or `None` if there are none.

        Warns:
            UserWarning: If a newer checkpoint is damaged and therefore skipped.
        """
        checkpoint = self._newest_whole() if self.writes else None
        found = self.workers.share(
            None if checkpoint is None else [str(checkpoint.path), checkpoint.step]
        )
        if found is None or checkpoint is not None:
            return checkpoint
        return Checkpoint(Path(found[0]), found[1])

    def _newest_whole(self) -> Checkpoint | None:
        """Return the newest readable checkpoint on this disk."""
        for path in self._saved():
            try:
                step = check_state(path)
            except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as e:
                warnings.warn(
                    f"{path} is damaged ({e}); trying the previous checkpoint",
                    stacklevel=2,
                )
                continue
            return Checkpoint(path, step)
        return None

    def assign(self, model: keras.Model, checkpoint: Checkpoint) -> None:
        """Set a model, built like the saved one, to the state of a checkpoint.

        Raises:
            ValueError: If the checkpoint is of another model. Nothing is assigned.
        """
        variables = _state(model)
        shapes = [tuple(v.shape) for v in variables]
        saved = state_shapes(checkpoint.path) if self.writes else shapes
        if shapes != saved:
            different = next(
                (
                    f"{v.path} has {tuple(v.shape)}, the file {shape}"
                    for v, shape in zip(variables, saved, strict=False)
                    if tuple(v.shape) != shape
                ),
                f"{len(variables)} variables, the file {len(saved)}",
            )
            raise ValueError(
                f"{checkpoint.path}: expected the state of this model. "
                f"Received: {different}"
            )
        assign_state(checkpoint.path, variables, self.workers)

    def _saved(self) -> list[Path]:
        """Return the paths of the checkpoints, newest first."""
        return sorted(self.checkpoints.glob("step_*.npz"), reverse=True)

    def oldest_step_to_resume(self) -> int:
        """Return the step of the oldest checkpoint that a run may resume from."""
        saved = self._saved()
        return int(saved[-1].stem.removeprefix("step_")) if len(saved) == _KEEP else 0

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints, which the preset replaces."""
        for path in self._saved():
            path.unlink()
        if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            self.checkpoints.rmdir()

    def finish(
        self,
        train: Callable[[], LaBSE],
        *,
        facts: TrainingFacts,
        storage: str = "float32",
        base: str | Path | None = None,
    ) -> LaBSE:
        """Train, write the preset and remove the files of an unfinished run.

        Args:
            train: Function that returns the trained model. It is not called if the run
                had already ended. The weights of its result are freed before the preset
                is loaded.
            facts: Facts for the card, which is not changed if it already exists.
            storage: See `LaBSE.save_to_preset`.
            base: If given, see `LaBSE.save_adapters`, by which the model is saved.

        Returns:
            The model, loaded from the preset. Workers other than the chief wait until
            the preset is written and return the result of `train`.

        Raises:
            EndedElsewhere: On workers other than the chief, if the run had already
                ended.
        """
        encoder = None if self.finished else train()
        if self.writes:
            if encoder is not None:
                has_card = (self.directory / presets.CARD).exists()
                if base is None:
                    encoder.save_to_preset(self.directory, storage=storage)
                else:
                    encoder.save_adapters(self.directory, base)
                if not has_card:
                    add_training(self.directory, facts, self.log)
            self.drop_checkpoints()
            self._remove_temporary()
        self.workers.share(None)
        if self.writes:
            if encoder is not None:
                release(encoder.variables)
            return LaBSE.from_preset(self.directory)
        if encoder is None:
            raise EndedElsewhere("the run had already ended; the chief has the model")
        return encoder

    def cut_log(self, step: int) -> list[dict[str, Any]]:
        """Remove log entries after `step`, and return the remaining entries.

        A run that resumes from the checkpoint of `step` writes them again.
        """
        if not self.log.exists():
            return []
        kept = [entry for entry in self.entries() if entry["step"] <= step]
        write_text(self.log, "".join(json.dumps(entry) + "\n" for entry in kept))
        return kept

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries of the log."""
        return read_log(self.log)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a training log; an empty list if it does not exist."""
    entries = []
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # An incomplete last line of a killed process.
    return entries


def changing_weights(model: keras.Model) -> list[Any]:
    """Return the weights of a model that steps change.

    With LoRA these are the low-rank weights. All others are those of the preset that
    the run starts from.
    """
    backbone = getattr(getattr(model, "encoder", None), "backbone", None)
    weights = list(model.weights)
    if getattr(backbone, "lora", None) is None:
        return weights
    return [weight for weight in weights if weight.trainable]


def _state(model: keras.Model) -> list[Any]:
    """Return the variables that a step changes: weights, dropout seeds, optimizer."""
    left_out = {id(v) for metric in model.metrics for v in metric.variables}
    left_out |= {id(weight) for weight in model.weights}
    left_out -= {id(weight) for weight in changing_weights(model)}
    own = [v for v in model.variables if id(v) not in left_out]
    return own + list(model.optimizer.variables)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return `{"a.b": 1}` for `{"a": {"b": 1}}`."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}.{key}" if prefix else key))
    return flat
