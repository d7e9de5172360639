"""A training run: from a recipe and pairs to a preset, through interruptions.

A run owns a directory:

    run.json              what is being made: recipe, text, vocabulary, start
    run.lock              held while a process works on it
    training_log.jsonl    a line every few steps: step, loss, accuracy, rate
    tensorboard/          the same for TensorBoard
    checkpoints/          all variables and the step, the newest two
    config.json ...       the preset, when the run has ended

The state of a run is its variables and its step, since batch k is a function of the
text, the recipe and k. The same command again goes on where the last one stopped. Of
several workers the chief alone reads and writes the directory, and tells the others.

`run` is the directory, `session` the steps of one process, `from_recipe` what both
trainers make of a recipe, `dual_encoder` the trainer of sentence encoders; each imports
from those before it only. Pre-training stands on them in `labse_tf.pretraining`.
"""

from __future__ import annotations

from labse_tf.training.dual_encoder import (
    compile_dual_encoder,
    train_dual_encoder,
    untrained_encoder,
)
from labse_tf.training.from_recipe import (
    check_replicas,
    describe_vocabulary,
    make_backbone,
    make_optimizer,
)
from labse_tf.training.run import Checkpoint, EndedElsewhere, Interrupted, Run
from labse_tf.training.session import ON_NAN, Batches, Fit, Measure, Session, fit

__all__ = [
    "ON_NAN",
    "Batches",
    "Checkpoint",
    "EndedElsewhere",
    "Fit",
    "Interrupted",
    "Measure",
    "Run",
    "Session",
    "check_replicas",
    "compile_dual_encoder",
    "describe_vocabulary",
    "fit",
    "make_backbone",
    "make_optimizer",
    "train_dual_encoder",
    "untrained_encoder",
]
