"""Run: a directory that one training at a time works on, and its checkpoints.

Of several workers the chief alone reads and writes the directory; the others are told.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import keras
import numpy as np

from labse_tf import presets
from labse_tf.distribute import Workers
from labse_tf.files import atomic_file, write_text
from labse_tf.models import LaBSE

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


class EndedElsewhere(Exception):
    """The run had ended before, and its model is on the chief's disk, not on ours."""


class Checkpoint(NamedTuple):
    """What a checkpoint's file holds.

    Attributes:
        path: The file.
        step: Steps done.
        arrays: The state of the model, as `Run.assign` takes it; empty on workers
            other than the chief, who are told in `assign`.
    """

    path: Path
    step: int
    arrays: list[np.ndarray]


class Run:
    """A run's directory: one training at a time, checkpoints, the log.

    Args:
        directory: Made if needed.
        description: What decides the result, JSON types only, one level deep or
            more. A directory that was started with another one is refused.
        workers: Who train together; one process where left out. Only the chief's
            directory is read or written; the others need none, and may share it.

    Attributes:
        workers: The same.

    Raises:
        ValueError: From `open`, if another process works on the directory, or it
            belongs to something else.
    """

    def __init__(
        self,
        directory: str | Path,
        description: Mapping[str, Any],
        workers: Workers | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.description = json.loads(json.dumps(description))
        self.workers = workers or Workers()
        self._lock: IO[str] | None = None
        self._finished = False

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self.workers.is_chief

    @property
    def finished(self) -> bool:
        """Whether the preset is there, on the chief's disk."""
        if self.writes:
            return presets.is_preset(self.directory)
        return self._finished

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
        """Takes the directory for this process; the chief does, for all workers.

        Raises:
            ValueError: If another process has it, or it was started with another
                description; the message names the first field that differs. Also if a
                worker's description is not the chief's, or the chief could not open it.
            OSError: If it cannot be written.
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
                raise ValueError(f"The chief could not begin: {known['failure']}")
            self._finished = known["finished"]
            self._compare(known["description"], "The chief works with {}")
            yield self

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Takes the directory's lock."""
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
                yield
            except ValueError:
                self._forget_if_nothing_was_done()
                raise
            finally:
                self._lock = None

    def _forget_if_nothing_was_done(self) -> None:
        """Leaves the directory to the mended command, where one was refused."""
        logged = self.log.exists() and self.log.stat().st_size > 0
        if logged or self.finished or self._saved():
            return
        shutil.rmtree(self.directory / "tensorboard", ignore_errors=True)
        for path in (self.log, self.directory / "run.json"):
            path.unlink(missing_ok=True)

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
        self._compare(
            known,
            f"{self.directory} was started with {{}}; the same command goes on with "
            "it, another one needs another directory",
        )

    def _compare(self, known: Mapping[str, Any], message: str) -> None:
        """Refuses a description that differs from ours."""
        before, now = _flat(known), _flat(self.description)
        for name in sorted(set(before) | set(now)):
            if before.get(name) != now.get(name):
                raise ValueError(
                    message.format(f"{name} = {before.get(name)!r}")
                    + f". Received: {name} = {now.get(name)!r}"
                )

    def save(self, model: keras.Model, step: int) -> None:
        """Writes a checkpoint: all of it or nothing.

        Args:
            model: Compiled and built.
            step: Steps done.

        Raises:
            OSError: If it cannot be written; older checkpoints stay.
        """
        if not self.writes:
            return
        path = self.checkpoints / f"step_{step:010d}.npz"
        arrays = {
            f"{i:05d}": np.asarray(variable) for i, variable in enumerate(_state(model))
        }
        try:
            with atomic_file(path) as temporary:
                np.savez(temporary, step=np.int64(step), **arrays)  # type: ignore[arg-type]
        except OSError as error:
            raise OSError(
                error.errno, f"{error.strerror}; older checkpoints stay", str(path)
            ) from error
        for old in self._saved()[_KEEP:]:
            old.unlink()

    def newest_checkpoint(self) -> Checkpoint | None:
        """Reads the newest checkpoint that is whole.

        Returns:
            Its content, or `None` if there is none.

        Warns:
            UserWarning: If a newer checkpoint is damaged, and is passed over.
        """
        checkpoint = self._newest_whole() if self.writes else None
        found = self.workers.share(
            None if checkpoint is None else [str(checkpoint.path), checkpoint.step]
        )
        if found is None or checkpoint is not None:
            return checkpoint
        return Checkpoint(Path(found[0]), found[1], [])

    def _newest_whole(self) -> Checkpoint | None:
        """The newest checkpoint on this disk that can be read."""
        for path in self._saved():
            try:
                with np.load(path, allow_pickle=False) as archive:
                    names = sorted(archive.files)
                    arrays = [archive[name] for name in names]
                step = int(arrays.pop(names.index("step")))
            except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as e:
                warnings.warn(
                    f"{path} is damaged ({e}); the checkpoint before it is used",
                    stacklevel=2,
                )
                continue
            return Checkpoint(path, step, arrays)
        return None

    def assign(self, model: keras.Model, checkpoint: Checkpoint) -> None:
        """Gives a model the state that a checkpoint holds, all of it or nothing.

        Args:
            model: As it was saved: compiled and built.
            checkpoint: As `newest_checkpoint` gives it.

        Raises:
            ValueError: If it is another model's.
        """
        variables = _state(model)
        shapes = [tuple(v.shape) for v in variables]
        if self.writes and shapes != [a.shape for a in checkpoint.arrays]:
            different = next(
                (
                    f"{v.path} has {tuple(v.shape)}, the file {a.shape}"
                    for v, a in zip(variables, checkpoint.arrays, strict=False)
                    if tuple(v.shape) != a.shape
                ),
                f"{len(variables)} variables, the file {len(checkpoint.arrays)}",
            )
            raise ValueError(
                f"{checkpoint.path}: expected the state of this model. "
                f"Received: {different}"
            )
        arrays = checkpoint.arrays
        if not self.writes:
            arrays = [np.zeros(v.shape, v.dtype) for v in variables]
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(self.workers.share_arrays([array])[0])

    def _saved(self) -> list[Path]:
        """Checkpoints, newest first."""
        return sorted(self.checkpoints.glob("step_*.npz"), reverse=True)

    def drop_checkpoints(self) -> None:
        """Removes the checkpoints, when the preset has taken their place."""
        for path in self._saved():
            path.unlink()
        if self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            self.checkpoints.rmdir()

    def finish(self, encoder: LaBSE | None, *, also: Sequence[str] = ()) -> LaBSE:
        """Writes the preset and removes what only an unfinished run needs.

        Args:
            encoder: The trained model; `None` if the run had ended before.
            also: Names of more files of the directory to remove.

        Returns:
            The model, as loaded from the preset; on workers other than the chief, who
            wait until it is written, `encoder`.

        Raises:
            EndedElsewhere: On such a worker, if the run had ended before.
        """
        if self.writes:
            if encoder is not None:
                encoder.save_to_preset(self.directory)
            self.drop_checkpoints()
            for name in also:
                (self.directory / name).unlink(missing_ok=True)
        self.workers.share(None)
        if self.writes:
            return LaBSE.from_preset(self.directory)
        if encoder is None:
            raise EndedElsewhere("the run had ended before; the chief has the model")
        return encoder

    def cut_log(self, step: int) -> list[dict[str, Any]]:
        """Drops what the log tells of steps after `step`, which will be done again.

        Args:
            step: Of the checkpoint that the run goes on from.

        Returns:
            The entries that are left.
        """
        if not self.log.exists():
            return []
        kept = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # The last line of a process that was killed.
            if entry["step"] <= step:
                kept.append(entry)
        write_text(self.log, "".join(json.dumps(entry) + "\n" for entry in kept))
        return kept


def _state(model: keras.Model) -> list[Any]:
    """All that a step changes: weights, dropout's seeds, the optimiser's moments."""
    metrics = {id(v) for metric in model.metrics for v in metric.variables}
    own = [v for v in model.variables if id(v) not in metrics]
    return own + list(model.optimizer.variables)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}.{key}" if prefix else key))
    return flat
