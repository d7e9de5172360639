"""Objects that both trainers make from a recipe, such as the run and the optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import keras

from labse_tf import presets
from labse_tf.adapters import check_base
from labse_tf.distribute import Workers, get_strategy, is_tpu
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.optimizers import LossScaleOptimizer, WarmupLinearDecay, adamw
from labse_tf.pipes import spooled
from labse_tf.recipes import BaseRecipe, Recipe, shape_fields, with_shape
from labse_tf.training.options import RunOptions
from labse_tf.training.run import Run

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from labse_tf.data import SamplingPlan
    from labse_tf.tokenizers import WordPieceTokenizer

# Value in the recipe -> argument `length_buckets` of `SamplingPlan`.
_LENGTH_BUCKETS: dict[str, bool | Literal["tokens"]] = {
    "characters": True,
    "tokens": "tokens",
    "none": False,
}


def shape_of(preset: str | Path) -> dict[str, Any]:
    """Return the shape of a preset, by name of the recipe's field.

    Raises:
        ValueError: If there is no such preset, or it is damaged.
    """
    config = presets.read_config(presets.find(preset))
    return shape_fields({**config["backbone"], "pooling": config["pooling"]})


def with_shape_of(recipe: Recipe, preset: str | Path) -> Recipe:
    """Return the recipe with the shape of a preset; see `with_shape`."""
    return with_shape(recipe, shape_of(preset))


@contextmanager
def open_run(
    output: str | Path,
    recipe: BaseRecipe,
    options: RunOptions,
    *,
    text: Mapping[str, Any],
    start: Mapping[str, Any],
    choice: Mapping[str, Any] | None = None,
    guide: Mapping[str, Any] | None = None,
    temporary: Sequence[str] = (),
) -> Iterator[tuple[Run, tf.distribute.Strategy]]:
    """Open the run of a recipe in a directory.

    Args:
        output: Directory of the run.
        recipe: Recipe; its seed is set for all random numbers.
        options: Run options; `strategy`, `tpu` and `deterministic` are used.
        text: Description of the text by content, in JSON types.
        start: Description of the start of the run by content, in JSON types.
        choice: Description of how held-out pairs choose the weights, in JSON types.
        guide: Description of the guide by content, in JSON types.
        temporary: See `labse_tf.training.Run`.

    Yields:
        The open run, and the strategy in whose scope models must be created.

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
    for name, part in (("dev", choice), ("guide", guide)):
        if part is not None:
            description[name] = dict(part)
    implied = {
        f"recipe.{field.name}": field.default for field in dataclasses.fields(recipe)
    }
    run = Run(
        output, description, Workers(strategy), temporary=temporary, implied=implied
    )
    with run.open():
        if not run.finished:
            keras.utils.set_random_seed(recipe.seed)
        yield run, strategy


def make_optimizer(
    recipe: BaseRecipe, *, lazy: bool = False, skip_nonfinite: bool = False
) -> keras.optimizers.Optimizer:
    """Create AdamW with the recipe's learning-rate schedule over all its steps.

    Args:
        recipe: Settings of the optimizer. With the compute type float16 the loss is
            scaled.
        lazy: See `labse_tf.optimizers.adamw`.
        skip_nonfinite: See `labse_tf.optimizers.adamw`.
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


def make_plan(
    recipe: Recipe, start: int, vectors: np.ndarray | None = None
) -> SamplingPlan:
    """Create the plan of a recipe's batches after step `start`.

    Args:
        recipe: Recipe; the fields of the group "data", the batch size, the number of
            steps and the seed are used.
        start: Number of finished steps.
        vectors: See `labse_tf.data.SamplingPlan`.
    """
    from labse_tf.data import SamplingPlan

    return SamplingPlan(
        recipe.batch_size,
        steps=recipe.train_steps,
        start_step=start,
        seed=recipe.seed,
        smoothing=recipe.smoothing,
        cap=recipe.cap,
        batches=recipe.batches,  # type: ignore[arg-type]
        length_buckets=_LENGTH_BUCKETS[recipe.length_buckets],
        vectors=vectors,
        group_size=recipe.hard_negatives or 1,
    )


def make_backbone(recipe: BaseRecipe, vocabulary_size: int) -> LaBSEBackbone:
    """Create a backbone with random weights, as deep as the recipe's first stage.

    Args:
        recipe: Recipe; the fields of the group "model", the stages and `dtype` are
            used.
        vocabulary_size: Number of rows of the token table.
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


def freeze(encoder: LaBSE, recipe: Recipe) -> None:
    """Freeze the parts of a model that the recipe names, or add its LoRA weights.

    Frozen weights get no gradients and no moments. With LoRA, all weights that the
    model had are frozen. Call it before the optimizer is built, in the scope of the
    strategy.

    Args:
        encoder: Model to train.
        recipe: Recipe; `freeze`, `lora` and `lora_alpha` are used.
    """
    table, blocks = recipe.frozen_parts()
    if recipe.lora is not None:
        encoder.enable_lora(recipe.lora, alpha=recipe.lora_alpha, first_block=blocks)
        return
    backbone = encoder.backbone
    backbone.token_embedding.trainable = not table
    for block in backbone.transformer_layers[:blocks]:
        block.trainable = False


def kept_base(
    recipe: Recipe, options: RunOptions, model: str | Path | None
) -> str | Path | None:
    """Return the preset that saved adapters refer to; `None` if they are merged.

    Raises:
        ValueError: If `keep_adapters` is set without `lora`, or the run does not start
            from a preset with all weights.
    """
    if not options.keep_adapters:
        return None
    if recipe.lora is None or model is None:
        raise ValueError(
            "`keep_adapters` requires `lora` and a preset to start from. Received: "
            f"keep_adapters=True, lora={recipe.lora}, model={model}"
        )
    check_base(model)
    return model


class NewTokenizer(NamedTuple):
    """Settings of the tokenizer of a new model.

    Attributes:
        vocabulary: Path of a `vocab.txt`.
        lowercase: Whether the tokenizer converts text to lower case.
        strip_accents: Whether the tokenizer deletes non-spacing marks; `None` for the
            value of `lowercase`.
    """

    vocabulary: str | Path
    lowercase: bool = False
    strip_accents: bool | None = None

    def describe(self) -> dict[str, Any]:
        """Return a description by content, in JSON types.

        Raises:
            ValueError: If the vocabulary file does not exist.
        """
        path = spooled(self.vocabulary)
        if not path.is_file():
            raise ValueError(f"{path}: expected a vocab.txt. Received: no such file")
        description = {"vocabulary": presets.sha256(path), "lowercase": self.lowercase}
        if self.strip_accents not in (None, self.lowercase):
            description["strip_accents"] = self.strip_accents
        return description

    def make(self) -> WordPieceTokenizer:
        """Create the tokenizer."""
        from labse_tf.tokenizers import WordPieceTokenizer

        return WordPieceTokenizer(
            self.vocabulary, lowercase=self.lowercase, strip_accents=self.strip_accents
        )


def check_replicas(recipe: BaseRecipe, strategy: tf.distribute.Strategy) -> None:
    """Raise an error if a strategy cannot run a recipe.

    Raises:
        ValueError: If the number of replicas does not divide the global batch, or the
            recipe requires variable shapes on a TPU.
    """
    replicas = strategy.num_replicas_in_sync
    if recipe.batch_size % replicas:
        raise ValueError(
            "`batch_size`, the global batch, must be a multiple of the number of "
            f"replicas. Received: batch_size={recipe.batch_size} with {replicas} "
            "replicas"
        )
    if is_tpu(strategy) and isinstance(recipe, Recipe):
        for name, value in (("length_groups", 1), ("optimizer", "adamw")):
            if getattr(recipe, name) != value:
                raise ValueError(
                    f"`{name}` must be {value!r} on a TPU, which needs fixed shapes. "
                    f"Received: {getattr(recipe, name)!r}"
                )
