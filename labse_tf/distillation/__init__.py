"""Distillation: a small student that returns the vectors of a large teacher.

    teacher, texts -labse_tf.data.TextVectors-> vectors on disk -make_targets-> unit
          vectors
    teacher, vocabulary -make_student, make_student_of_states-> student to start from
    pairs, targets -distillation_batches-> batches -Distiller-> student; `distill` runs
    all steps, from a recipe and pairs to a preset

Modules, each of which imports only from earlier ones: `recipe` (settings), `teacher`
(the vectors to learn), `losses`, `states` (the teacher's token states),
`student` (the model that is trained), `batches`, `bag` and `starting` (the student to
start from), `training` (the run).

The names below are loaded on first use, so that the command line can read the recipe
without importing Keras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labse_tf.distillation.bag import make_bag
    from labse_tf.distillation.batches import distillation_batches
    from labse_tf.distillation.losses import DistillationLoss
    from labse_tf.distillation.recipe import (
        DISTILLATION_RECIPES,
        DistillationRecipe,
        get_distillation_recipe,
    )
    from labse_tf.distillation.starting import make_student, make_student_of_states
    from labse_tf.distillation.student import Distiller
    from labse_tf.distillation.teacher import Targets, make_targets
    from labse_tf.distillation.training import distill

__all__ = ["DISTILLATION_RECIPES", "DistillationLoss", "DistillationRecipe"]
__all__ += ["Distiller", "Targets", "distill"]
__all__ += [
    "distillation_batches",
    "get_distillation_recipe",
    "make_bag",
    "make_student",
    "make_student_of_states",
]
__all__ += ["make_targets"]

_HOME = {
    "DISTILLATION_RECIPES": "recipe",
    "DistillationLoss": "losses",
    "DistillationRecipe": "recipe",
    "Distiller": "student",
    "Targets": "teacher",
    "distill": "training",
    "distillation_batches": "batches",
    "get_distillation_recipe": "recipe",
    "make_bag": "bag",
    "make_student": "starting",
    "make_student_of_states": "starting",
    "make_targets": "teacher",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _HOME:
        module = importlib.import_module(f"labse_tf.distillation.{_HOME[name]}")
        return getattr(module, name)
    raise AttributeError(f"module 'labse_tf.distillation' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List all names, loaded or not."""
    return sorted(set(globals()) | set(__all__))
