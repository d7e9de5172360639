"""A training run: from a recipe and text to a preset, through interruptions.

A run owns a directory:

    run.json              what is being made: recipe, text, vocabulary, start
    run.lock              held while a process works on it
    training_log.jsonl    a line every few steps: step, loss, accuracy, rate
    tensorboard/          the same for TensorBoard
    checkpoints/          all variables and the step, the newest two
    config.json ...       the preset, when the run has ended

The state of a run is its variables and its step, since batch k is a function of the
text, the recipe and k. The same command resumes a run that was stopped. Of several
workers only the chief reads and writes the directory, and shares it with the others.

`options` holds how a run is carried out, `run` the directory, `growing` makes models
deeper, `reporting` writes the log, `fitting` trains through the stages, `from_recipe`
is what both trainers make of a recipe, `dual_encoder` and `masked_lm` are the trainers.
Each imports only from those before it.

The names below are loaded on first use, so that the command line can read `RunOptions`
without importing Keras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labse_tf.training.dual_encoder import (
        compile_dual_encoder,
        train_dual_encoder,
        untrained_encoder,
    )
    from labse_tf.training.fitting import Batches, fit
    from labse_tf.training.from_recipe import make_optimizer
    from labse_tf.training.options import RunOptions
    from labse_tf.training.reporting import Measure
    from labse_tf.training.run import Checkpoint, EndedElsewhere, Interrupted, Run

__all__ = [
    "Batches",
    "Checkpoint",
    "EndedElsewhere",
    "Interrupted",
    "Measure",
    "Run",
    "RunOptions",
    "compile_dual_encoder",
    "fit",
    "make_optimizer",
    "train_dual_encoder",
    "untrained_encoder",
]

_HOME = {
    "Batches": "fitting",
    "Checkpoint": "run",
    "EndedElsewhere": "run",
    "Interrupted": "run",
    "Measure": "reporting",
    "Run": "run",
    "RunOptions": "options",
    "compile_dual_encoder": "dual_encoder",
    "fit": "fitting",
    "make_optimizer": "from_recipe",
    "train_dual_encoder": "dual_encoder",
    "untrained_encoder": "dual_encoder",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name in _HOME:
        module = importlib.import_module(f"labse_tf.training.{_HOME[name]}")
        return getattr(module, name)
    raise AttributeError(f"module 'labse_tf.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Lists the lazy names beside the loaded ones."""
    return sorted(set(globals()) | set(__all__))
