"""Training runs: from a recipe and text to a preset, with resume after interruptions.

A run owns a directory:

    run.json              description of the run: recipe, text, vocabulary, start
    run.lock              lock of the process that trains
    training_log.jsonl    one line every few steps: step, loss, accuracy, throughput
    tensorboard/          the same values for TensorBoard
    guide/                vectors of the guide, while the run is going on
    checkpoints/          the two newest checkpoints: all variables and the step
    best/                 the best weights by held-out pairs, while the run is going on
    config.json ...       the preset, after the run has ended

The state of a run is its variables and its step: batch k is a function of the text,
the recipe and k. Run the same command again to resume an interrupted run. With several
workers, only the chief reads and writes the directory. It sends the state to the other
workers.

Modules, each of which imports only from earlier ones: `options` (settings that do not
change the weights of a step), `run` (the directory), `best` (best weights, early
stopping), `summary` (the accuracies of a run), `growing` (deeper models), `reporting`
(the log), `fitting` (training through all stages), `from_recipe` (objects that both
trainers make from a recipe), `guide` (vectors of another encoder for the loss),
`dual_encoder` and `masked_lm` (the trainers).

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
    from labse_tf.training.from_recipe import make_optimizer, shape_of
    from labse_tf.training.guide import Guide
    from labse_tf.training.options import RunOptions
    from labse_tf.training.reporting import Measure
    from labse_tf.training.run import Checkpoint, EndedElsewhere, Interrupted, Run
    from labse_tf.training.summary import RunSummary, summarize

__all__ = [
    "Batches",
    "Checkpoint",
    "EndedElsewhere",
    "Guide",
    "Interrupted",
    "Measure",
    "Run",
    "RunOptions",
    "RunSummary",
    "compile_dual_encoder",
    "fit",
    "make_optimizer",
    "shape_of",
    "summarize",
    "train_dual_encoder",
    "untrained_encoder",
]

_HOME = {
    "Batches": "fitting",
    "Checkpoint": "run",
    "EndedElsewhere": "run",
    "Guide": "guide",
    "Interrupted": "run",
    "Measure": "reporting",
    "Run": "run",
    "RunOptions": "options",
    "RunSummary": "summary",
    "compile_dual_encoder": "dual_encoder",
    "fit": "fitting",
    "make_optimizer": "from_recipe",
    "shape_of": "from_recipe",
    "summarize": "summary",
    "train_dual_encoder": "dual_encoder",
    "untrained_encoder": "dual_encoder",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _HOME:
        module = importlib.import_module(f"labse_tf.training.{_HOME[name]}")
        return getattr(module, name)
    raise AttributeError(f"module 'labse_tf.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List all names, loaded or not."""
    return sorted(set(globals()) | set(__all__))
