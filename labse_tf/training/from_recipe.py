"""From a recipe: what both trainers make of its values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import keras

from labse_tf import presets
from labse_tf.distribute import Workers, get_strategy, is_tpu
from labse_tf.models import LaBSEBackbone
from labse_tf.optimizers import LossScaleOptimizer, WarmupLinearDecay, adamw
from labse_tf.recipes import BaseRecipe, Recipe
from labse_tf.training.options import RunOptions
from labse_tf.training.run import Run

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.tokenizers import WordPieceTokenizer


@contextmanager
def open_run(
    output: str | Path,
    recipe: BaseRecipe,
    options: RunOptions,
    *,
    text: Mapping[str, Any],
    start: Mapping[str, Any],
) -> Iterator[tuple[Run, tf.distribute.Strategy]]:
    """Opens the run that a recipe describes, in a directory, on a strategy.

    Args:
        output: The run's directory.
        recipe: What to make; its seed becomes that of all random numbers.
        options: The strategy, and whether results are deterministic.
        text: A description of the text by content, in JSON types.
        start: A description of what the run starts from, in the same way.

    Yields:
        The open run, and the strategy in whose scope models are made.

    Raises:
        ValueError: If the strategy cannot run the recipe, or the directory belongs to
            another run.
    """
    if options.deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    strategy = get_strategy(options.strategy, tpu=options.tpu)
    check_replicas(recipe, strategy)
    description = {"recipe": dataclasses.asdict(recipe), "text": text, "start": start}
    run = Run(output, description, Workers(strategy))
    with run.open():
        if not run.finished:
            keras.utils.set_random_seed(recipe.seed)
        yield run, strategy


def make_optimizer(
    recipe: BaseRecipe, *, lazy: bool = False, skip_nonfinite: bool = False
) -> keras.optimizers.Optimizer:
    """Makes AdamW with the recipe's schedule over all its steps.

    Args:
        recipe: Learning rate, warm-up, decay, clipping; with the compute type float16
            the loss is scaled.
        lazy: As in `labse_tf.optimizers.adamw`.
        skip_nonfinite: As there.

    Returns:
        A Keras optimiser.
    """
    schedule = WarmupLinearDecay(
        recipe.learning_rate, recipe.train_steps, warmup_steps=recipe.warmup_steps
    )
    optimizer = adamw(
        schedule,
        weight_decay=recipe.weight_decay,
        clip_norm=recipe.clip_norm,
        epsilon=recipe.epsilon,
        lazy=lazy,
        skip_nonfinite=skip_nonfinite,
    )
    return LossScaleOptimizer(optimizer) if recipe.dtype == "float16" else optimizer


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


class NewTokenizer(NamedTuple):
    """The tokenizer of a new model.

    Attributes:
        vocabulary: A `vocab.txt`.
        lowercase: Whether it lower-cases.
        strip_accents: Whether it deletes non-spacing marks; `None` for the value of
            `lowercase`.
    """

    vocabulary: str | Path
    lowercase: bool = False
    strip_accents: bool | None = None

    def describe(self) -> dict[str, Any]:
        """Describes it by content, for a run's description.

        Returns:
            JSON types.

        Raises:
            ValueError: If there is no such file.
        """
        path = Path(self.vocabulary)
        if not path.is_file():
            raise ValueError(f"{path}: expected a vocab.txt. Received: no such file")
        description = {"vocabulary": presets.sha256(path), "lowercase": self.lowercase}
        if self.strip_accents not in (None, self.lowercase):
            description["strip_accents"] = self.strip_accents
        return description

    def make(self) -> WordPieceTokenizer:
        """Makes the tokenizer."""
        from labse_tf.tokenizers import WordPieceTokenizer

        return WordPieceTokenizer(
            self.vocabulary,
            lowercase=self.lowercase,
            strip_accents=self.strip_accents,
        )


def check_replicas(recipe: BaseRecipe, strategy: tf.distribute.Strategy) -> None:
    """Refuses a recipe that a strategy cannot do.

    Args:
        recipe: Its `batch_size` is that of all replicas together.
        strategy: As `labse_tf.distribute.get_strategy` gives it.

    Raises:
        ValueError: If the replicas do not share the batch evenly, or the recipe needs
            shapes that vary on a TPU.
    """
    replicas = strategy.num_replicas_in_sync
    if recipe.batch_size % replicas:
        raise ValueError(
            "`batch_size` is the global batch, which the replicas share evenly. "
            f"Received: batch_size={recipe.batch_size} for {replicas} replicas"
        )
    if is_tpu(strategy) and isinstance(recipe, Recipe):
        for name, value in (("length_groups", 1), ("optimizer", "adamw")):
            if getattr(recipe, name) != value:
                raise ValueError(
                    f"`{name}` must be {value!r} on a TPU, whose shapes do not vary. "
                    f"Received: {getattr(recipe, name)!r}"
                )
