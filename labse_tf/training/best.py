"""Best weights of a run by the accuracy on held-out pairs, and early stopping.

The state of both is on disk: the accuracies are in the log, and `best/step_*.npz` holds
the weights of each improvement that a resumed run may need. A run that is killed and
resumed therefore keeps the same weights and stops at the same step.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from labse_tf.files import atomic_file
from labse_tf.recipes import Stage
from labse_tf.training.checkpoint_files import assign_state, check_state, write_state
from labse_tf.training.options import RunOptions
from labse_tf.training.run import Run, changing_weights

SCORE = "dev_accuracy"


def first_counted_step(stages: Sequence[Stage]) -> int:
    """Return the first step whose weights a run may keep.

    It is the start of a run with one stage. Otherwise it is the first step of the last
    stage, since earlier models have fewer layers.
    """
    return stages[-1].start + 1 if len(stages) > 1 else 0


def scores_of(
    entries: Iterable[Mapping[str, Any]], first: int = 0
) -> list[tuple[int, float]]:
    """Return step and accuracy of the measurements in a log, from step `first`."""
    return [(e["step"], e[SCORE]) for e in entries if SCORE in e and e["step"] >= first]


def best_step(scores: Iterable[tuple[int, float]]) -> int | None:
    """Return the earliest step with the highest accuracy, or `None`."""
    best: tuple[int, float] | None = None
    for step, score in scores:
        if np.isfinite(score) and (best is None or score > best[1]):
            best = step, score
    return None if best is None else best[0]


class BestWeights:
    """Best weights of a run, and the decision to stop early.

    Only the chief measures and writes. All workers must call `share_decision` and
    `restore` at the same steps.

    Args:
        run: Open run.
        options: Run options; `keep_best` and `patience` are used.
        stages: All stages of the recipe.

    Attributes:
        stopped: Whether the run has stopped early, equal on all workers.
    """

    def __init__(self, run: Run, options: RunOptions, stages: Sequence[Stage]) -> None:
        self.run = run
        self.required = bool(options.keep_best) or options.patience is not None
        self.keeps = options.keep_best is not False
        self.patience = options.patience
        self.first = first_counted_step(stages)
        self.scores: list[tuple[int, float]] = []
        self.stopped = False

    def resume(self, step: int, entries: Iterable[Mapping[str, Any]]) -> None:
        """Continue at a checkpoint, with the log up to its step."""
        self.scores = scores_of(entries, self.first)
        for path in self._saved():
            if _step_of(path) > step or not self.scores:
                path.unlink()

    def note(self, model: keras.Model, step: int, values: Mapping[str, float]) -> None:
        """Note a measurement, and write the weights if they are the best."""
        if SCORE not in values:
            if self.required:
                raise ValueError(
                    f"`measure` must return {SCORE!r} for `keep_best` and `patience`. "
                    f"Received: {', '.join(values)}"
                )
            return
        if step < self.first:
            return
        self.scores.append((step, values[SCORE]))
        if self.keeps and best_step(self.scores) == step:
            with atomic_file(self.run.best / f"step_{step:010d}.npz") as path:
                write_state(path, step, changing_weights(model))
            self._prune()

    def share_decision(self) -> None:
        """Decide on the chief whether to stop early, and tell all workers."""
        if self.patience is None:
            return
        best = best_step(self.scores)
        steps = [step for step, _ in self.scores]
        since = len(steps) - 1 - steps.index(best) if best is not None else 0
        self.stopped = self.run.workers.share(since >= self.patience)

    def restore(self, model: keras.Model, step: int) -> None:
        """Give a model at `step` the best weights of the run."""
        best = best_step(self.scores) if self.keeps else None
        path = self.run.best / f"step_{best or 0:010d}.npz"
        if best is not None and best != step and not _is_whole(path):
            warnings.warn(
                f"{path} is missing or damaged; keeping the weights of step {step} "
                f"instead of step {best}",
                stacklevel=2,
            )
            best = None
        best = self.run.workers.share(best)
        if best in (None, step):
            return
        assign_state(path, changing_weights(model), self.run.workers)

    def _saved(self) -> list[Path]:
        """Return the paths of the weights, oldest first."""
        return sorted(self.run.best.glob("step_*.npz"))

    def _prune(self) -> None:
        """Remove weights that no checkpoint needs, which a run may resume from."""
        oldest = self.run.oldest_step_to_resume()
        passed = [path for path in self._saved() if _step_of(path) <= oldest]
        for path in passed[:-1]:
            path.unlink()


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step_"))


def _is_whole(path: Path) -> bool:
    """Return whether a file of weights can be read."""
    try:
        check_state(path)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return False
    return True
