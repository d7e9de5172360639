"""Summary of a run that has ended: its steps and its accuracies on held-out pairs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labse_tf.recipes import BaseRecipe
from labse_tf.training.best import SCORE, best_step, first_counted_step, scores_of
from labse_tf.training.run import read_log


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """Summary of a run.

    Attributes:
        steps: Number of steps done.
        train_steps: Number of steps of the recipe; more than `steps` if the run has
            stopped early.
        kept_step: Step whose weights the preset has.
        loss: Last mean of the loss in the log, or `None`.
        measured: Step -> language -> accuracy on held-out pairs, for the start, the
            kept and the last step. The mean over the languages is called `"mean"`.
    """

    steps: int
    train_steps: int
    kept_step: int
    loss: float | None
    measured: Mapping[int, Mapping[str, float]]

    def columns(self) -> Sequence[str]:
        """Return the column names of a table of the accuracies."""
        names = {step: f"step {step:,}" for step in self.measured}
        names[self.kept_step] += " (kept)"
        return ("language", *names.values())

    def rows(self) -> Sequence[Sequence[str]]:
        """Return the rows of a table of the accuracies, one per language."""
        languages = list(dict.fromkeys(n for m in self.measured.values() for n in m))
        return [
            (
                name,
                *(f"{m.get(name, float('nan')):.1%}" for m in self.measured.values()),
            )
            for name in sorted(languages, key=lambda name: (name == "mean", name))
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the summary in JSON types."""
        return {
            "steps": self.steps,
            "train_steps": self.train_steps,
            "kept_step": self.kept_step,
            "loss": self.loss,
            "dev_accuracy": {str(s): dict(m) for s, m in self.measured.items()},
        }

    def __str__(self) -> str:
        """Return the summary on one line."""
        done = f"{self.steps:,} steps"
        if self.steps < self.train_steps:
            done += f" of {self.train_steps:,}, stopped early"
        if self.loss is not None:
            done += f"; loss {self.loss:.4f}"
        if self.kept_step == 0:
            return f"{done}; no step was better than the start, whose weights are kept"
        return f"{done}; the model has the weights of step {self.kept_step:,}"


def summarize(directory: str | Path) -> RunSummary:
    """Summarize the run of a dual encoder from its `run.json` and its log.

    Args:
        directory: Directory of a run that has ended.

    Returns:
        The summary. Without held-out pairs, it has no accuracies.

    Raises:
        OSError: If the directory has no `run.json`.
    """
    folder = Path(directory)
    described = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    # The fields that all recipes have.
    names = {field.name for field in dataclasses.fields(BaseRecipe)}
    values = described["recipe"].items()
    recipe = BaseRecipe(**{name: value for name, value in values if name in names})
    entries = read_log(folder / "training_log.jsonl")
    steps = max((entry["step"] for entry in entries), default=recipe.train_steps)
    kept = steps
    if described.get("dev", {}).get("keep_best"):
        first = first_counted_step(recipe.stage_plan())
        best = best_step(scores_of(entries, first))
        kept = steps if best is None else best
    by_step = {entry["step"]: entry for entry in entries if SCORE in entry}
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    return RunSummary(
        steps=steps,
        train_steps=recipe.train_steps,
        kept_step=kept,
        loss=losses[-1] if losses else None,
        measured={
            step: _accuracies(by_step[step])
            for step in sorted({0, kept, steps})
            if step in by_step
        },
    )


def _accuracies(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return language -> accuracy of a log entry, with the mean."""
    languages = {
        name.removeprefix(f"{SCORE}/"): value
        for name, value in entry.items()
        if name.startswith(f"{SCORE}/")
    }
    return {**languages, "mean": entry[SCORE]}
