"""Training of a student: from a recipe, pairs and a teacher to a preset."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from labse_tf import presets
from labse_tf.data import ParallelCorpus, TextVectors
from labse_tf.data.batches import rows_in_batches
from labse_tf.data.text_vectors import Encode, texts_to_embed
from labse_tf.distillation.batches import distillation_batches
from labse_tf.distillation.losses import DistillationLoss
from labse_tf.distillation.recipe import DistillationRecipe
from labse_tf.distillation.states import TeacherStates
from labse_tf.distillation.student import Distiller
from labse_tf.distillation.teacher import make_targets
from labse_tf.distribute import is_tpu
from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.models import LaBSE
from labse_tf.training.card import TrainingFacts
from labse_tf.training.dual_encoder import (
    describe_choice,
    dev_accuracy,
    fixed_shapes,
)
from labse_tf.training.fitting import fit
from labse_tf.training.from_recipe import (
    freeze,
    kept_base,
    make_optimizer,
    make_plan,
    open_run,
    with_shape_of,
)
from labse_tf.training.options import RunOptions, check_measured
from labse_tf.trimming.rebuilding import rebuild
from labse_tf.variables import release

if TYPE_CHECKING:
    import tensorflow as tf


def distill(
    recipe: DistillationRecipe,
    pairs: ParallelCorpus,
    output: str | Path,
    *,
    student: str | Path,
    teacher: TextVectors,
    encode: Encode | None = None,
    teacher_model: LaBSE | None = None,
    dev: ParallelCorpus | None = None,
    options: RunOptions | None = None,
    storage: str | None = None,
) -> LaBSE:
    """Train a student to return a teacher's vectors, and write it as a preset.

    First the teacher's vectors of the texts in the recipe's batches are computed, each
    once; they stay in the store of `teacher` for other runs. If interrupted, rerun with
    the same arguments to resume. If the run has already ended, its model is loaded.

    Args:
        recipe: Settings. The shape of `student` replaces the values of the recipe,
            except the dropout rate.
        pairs: Pairs of translations.
        output: Directory of the run, which becomes the preset.
        student: Preset to start from, such as `labse-tf shrink` writes.
        teacher: The teacher's vectors; those that are missing are added.
        encode: The teacher: a callable from a list of strings to `(n, D)`. `None` if
            `teacher` has all vectors.
        teacher_model: The teacher as a model, for `states_weight` of the recipe.
        dev: Held-out pairs; see `labse_tf.training.train_dual_encoder`.
        options: Run options.
        storage: Storage type of the preset (default: that of `student`).

    Returns:
        The student, loaded from the preset.

    Raises:
        ValueError: If the arguments contradict each other, the student is wider than
            the teacher's vectors, a vector is missing without `encode`, the student
            cannot learn the teacher's states, or the directory belongs to another run.
        labse_tf.training.Interrupted: On SIGTERM or SIGINT, after a checkpoint.
    """
    options = options or RunOptions()
    # A student needs no dropout of its own shape: it sees few texts twice.
    shaped = with_shape_of(recipe, student)
    recipe = dataclasses.replace(shaped, dropout=recipe.dropout)  # type: ignore[assignment]
    recipe.check()
    recipe.check_shape()
    check_measured(options, dev is not None)
    learned = teacher_model if recipe.states_weight else None
    if recipe.states_weight and learned is None:
        raise ValueError(
            "`teacher_model` is required with `states_weight`: a teacher that is a "
            f"model of this package. Received: states_weight={recipe.states_weight} "
            "and vectors only"
        )
    base = kept_base(recipe, options, student)
    if base is not None and storage is not None:
        raise ValueError(
            "`storage` must be None with `keep_adapters`, since the weights are those "
            f"of `student`. Received: storage={storage!r}"
        )
    config = presets.read_config(presets.find(str(student)))
    storage = storage or config.get("storage", "float32")
    presets.check_storage(storage, config["backbone"].get("hidden_dim"))
    with open_run(
        output,
        recipe,
        options,
        text={"pairs": len(pairs), "sha256": pairs.digest()},
        start={
            "model": config["sha256"],
            "teacher": teacher.model,
            "prefix": teacher.prefix,
        },
        choice=describe_choice(dev, options),
    ) as (run, strategy):

        def train() -> LaBSE:
            with strategy.scope():
                encoder = _load(student, recipe)
                distiller = compile_distiller(
                    encoder, recipe, skip_nonfinite=options.on_nan == "skip"
                )
            preprocessor = encoder.text_preprocessor()
            if learned is not None:
                with strategy.scope():
                    states = TeacherStates(
                        _in_scope(learned, recipe, strategy), encoder
                    )
                states.fit(_sample(pairs, recipe.seed), preprocessor)
                distiller.learn_states(states, recipe.states_weight)
            if is_tpu(strategy):
                preprocessor = fixed_shapes(preprocessor)
            used = rows_in_batches(make_plan(recipe, 0), pairs, preprocessor)
            if encode is not None:
                texts = texts_to_embed(pairs.subset(used), recipe.teacher_side)
                teacher.add(texts, encode, progress=options.progress)
            targets = make_targets(
                teacher,
                pairs,
                encoder.embedding_dim,
                used=used,
                center=recipe.center,
                side=recipe.teacher_side,
            )

            def batches(start: int) -> tf.data.Dataset:
                return distillation_batches(
                    pairs,
                    targets,
                    preprocessor,
                    make_plan(recipe, start),
                    source_share=recipe.source_share,
                )

            trained = fit(
                run,
                distiller,
                batches,
                recipe,
                options,
                measure=None if dev is None else dev_accuracy(dev),
            )
            release(trained.optimizer.variables)
            return trained.encoder

        facts = TrainingFacts(
            recipe, pairs.counts, "pairs", pairs.digest(), student, teacher.model
        )
        return run.finish(train, facts=facts, storage=storage, base=base)


def _load(student: str | Path, recipe: DistillationRecipe) -> LaBSE:
    """Return the student with the recipe's sequence length, type and dropout."""
    model = LaBSE.from_preset(
        str(student), sequence_length=recipe.sequence_length, dtype=recipe.dtype
    )
    if model.backbone.dropout == recipe.dropout:
        return model
    return rebuild(
        model,
        {"dropout": recipe.dropout},
        model.preprocessor,
        lambda path, old: old[path],
    )


def _in_scope(
    teacher: LaBSE, recipe: DistillationRecipe, strategy: tf.distribute.Strategy
) -> LaBSE:
    """Return the teacher with the recipe's type, on all replicas."""
    model = teacher.with_dtype(recipe.dtype)
    if strategy.num_replicas_in_sync == 1:
        return model
    return rebuild(model, {}, model.preprocessor, lambda path, old: old[path])


def _sample(pairs: ParallelCorpus, seed: int, most: int = 256) -> list[str]:
    """Return both texts of some pairs, at random."""
    random = np.random.default_rng(seed)
    rows = random.permutation(len(pairs))[:most]
    return [text.decode() for side in pairs.take(rows) for text in side.tolist()]


def compile_distiller(
    student: LaBSE, recipe: DistillationRecipe, *, skip_nonfinite: bool = False
) -> Distiller:
    """Create a distiller with the recipe's loss and optimizer.

    Args:
        student: Encoder created in the same strategy scope.
        recipe: Settings of the loss and the optimizer.
        skip_nonfinite: See `labse_tf.optimizers.adamw`.

    Returns:
        A compiled `Distiller` with a built optimizer.
    """
    freeze(student, recipe)
    distiller = Distiller(
        student, recipe.chunk_size, length_groups=recipe.length_groups
    )
    optimizer = make_optimizer(
        recipe, lazy=recipe.optimizer == "lazy_adamw", skip_nonfinite=skip_nonfinite
    )
    ranking = AdditiveMarginSoftmax(
        recipe.margin, recipe.scale, block_size=recipe.loss_block_size
    )
    loss = DistillationLoss(
        feature=recipe.feature_weight,
        logit=recipe.logit_weight,
        contrastive=recipe.contrastive_weight,
        margin=0.0 if recipe.source_share is not None else recipe.margin_weight,
        temperature=recipe.temperature,
        logit_temperature=recipe.logit_temperature,
        pair_loss=ranking,
    )
    distiller.compile(optimizer=optimizer, loss=loss)
    optimizer.build(distiller.trainable_variables)
    return distiller
