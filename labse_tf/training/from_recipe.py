"""From a recipe: what both trainers make of its values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from labse_tf import presets
from labse_tf.models import LaBSEBackbone
from labse_tf.optimizers import WarmupLinearDecay, adamw
from labse_tf.recipes import BaseRecipe


def make_optimizer(
    recipe: BaseRecipe, *, lazy: bool = False
) -> keras.optimizers.Optimizer:
    """Makes AdamW with the recipe's schedule over all its steps.

    Args:
        recipe: Learning rate, warm-up, decay, clipping.
        lazy: As in `labse_tf.optimizers.adamw`.

    Returns:
        A Keras optimiser.
    """
    schedule = WarmupLinearDecay(
        recipe.learning_rate, recipe.train_steps, warmup_steps=recipe.warmup_steps
    )
    return adamw(
        schedule,
        weight_decay=recipe.weight_decay,
        clip_norm=recipe.clip_norm,
        epsilon=recipe.epsilon,
        lazy=lazy,
    )


def make_backbone(recipe: BaseRecipe, vocabulary_size: int) -> LaBSEBackbone:
    """Makes a new backbone of the recipe's shape, as deep as its first stage.

    Args:
        recipe: Its fields of the group "model", and the stages.
        vocabulary_size: Rows of the token table.

    Returns:
        The backbone with random weights.
    """
    return LaBSEBackbone(
        vocabulary_size=vocabulary_size,
        num_layers=recipe.stage_plan()[0].num_layers,
        num_heads=recipe.num_heads,
        hidden_dim=recipe.hidden_dim,
        intermediate_dim=recipe.intermediate_dim,
        activation=recipe.activation,
        dropout=recipe.dropout,
        max_sequence_length=recipe.max_sequence_length,
        dtype=recipe.dtype,
    )


def describe_vocabulary(
    path: str | Path, lowercase: bool, strip_accents: bool | None
) -> dict[str, Any]:
    """Tells by content what a new model's tokenizer is, for a run's description.

    Args:
        path: A `vocab.txt`.
        lowercase: Whether the tokenizer lower-cases.
        strip_accents: Whether it strips accents; `None` for as `lowercase`.

    Returns:
        JSON types.

    Raises:
        ValueError: If there is no such file.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: expected a vocab.txt. Received: no such file")
    description = {"vocabulary": presets.sha256(Path(path)), "lowercase": lowercase}
    if strip_accents not in (None, lowercase):
        description["strip_accents"] = strip_accents
    return description


def check_replicas(batch_size: int, replicas: int) -> None:
    """Refuses a global batch that the replicas cannot share evenly.

    Args:
        batch_size: Of all replicas together.
        replicas: How many.

    Raises:
        ValueError: If it does not come out even.
    """
    if batch_size % replicas:
        raise ValueError(
            "`batch_size` is the global batch, which the replicas share evenly. "
            f"Received: batch_size={batch_size} for {replicas} replicas"
        )
