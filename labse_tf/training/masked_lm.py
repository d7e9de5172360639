"""Pre-training: masked language models over one and two languages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.models import LaBSE
from labse_tf.models.masked_lm import MaskedLM
from labse_tf.recipes import PretrainingRecipe
from labse_tf.training.fitting import fit
from labse_tf.training.from_recipe import (
    NewTokenizer,
    make_backbone,
    make_optimizer,
    open_run,
)
from labse_tf.training.options import RunOptions
from labse_tf.training.run import Run

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.data import MonolingualCorpus, ParallelCorpus


def pretrain(
    recipe: PretrainingRecipe,
    pairs: ParallelCorpus | None,
    sentences: MonolingualCorpus | None,
    output: str | Path,
    *,
    vocabulary: str | Path,
    lowercase: bool = False,
    strip_accents: bool | None = None,
    options: RunOptions | None = None,
) -> LaBSE:
    """Trains a masked language model in stages, into a directory that becomes a preset.

    The preset is an encoder whose vectors are not useful yet;
    `labse_tf.training.train_dual_encoder` (`labse-tf train --model`) starts from it.
    If interrupted, rerun with the same arguments to resume from the last checkpoint.
    A finished run only loads its model.

    Args:
        recipe: What to make.
        pairs: Text for TLM, from `labse_tf.data.load_pairs`, or `None`.
        sentences: Text for MLM, from `labse_tf.data.load_sentences`, or `None`; both
            sides of the pairs are added if the recipe has `sentences_from_pairs`.
        output: The run's directory.
        vocabulary: A `vocab.txt`.
        lowercase: Whether the tokenizer lower-cases.
        strip_accents: As in `labse_tf.WordPieceTokenizer`.
        options: How to train; see `labse_tf.training.train_dual_encoder`.

    Returns:
        The encoder, as loaded from the preset; on workers other than the chief as
        trained.

    Raises:
        ValueError: If there is no text, the arguments do not fit together or the
            directory is taken.
        labse_tf.training.Interrupted: On SIGTERM or SIGINT, after a checkpoint; on all
            workers at once.
        labse_tf.training.EndedElsewhere: As in `train_dual_encoder`.
        labse_tf.distribute.WorkerLostError: If another worker has ended.

    References:
        Feng et al., 2022, sections 3.1 and 4.1 (https://arxiv.org/abs/2007.01852).
    """
    options = options or RunOptions()
    recipe.check()
    if pairs is None and sentences is None:
        raise ValueError(
            "Expected `pairs`, `sentences` or both. Received: pairs=None, "
            "sentences=None"
        )
    tokenizer = NewTokenizer(vocabulary, lowercase, strip_accents)
    with open_run(
        output,
        recipe,
        options,
        text={"pairs": _describe(pairs), "sentences": _describe(sentences)},
        start=tokenizer.describe(),
    ) as (run, strategy):
        encoder = None
        if not run.finished:
            encoder = _train(
                run, strategy, recipe, pairs, sentences, tokenizer, options
            )
        return run.finish(encoder)


def _describe(text: ParallelCorpus | MonolingualCorpus | None) -> dict[str, Any] | None:
    """Describes a corpus by content."""
    return None if text is None else {"size": len(text), "sha256": text.digest()}


def _train(
    run: Run,
    strategy: tf.distribute.Strategy,
    recipe: PretrainingRecipe,
    pairs: ParallelCorpus | None,
    sentences: MonolingualCorpus | None,
    new_tokenizer: NewTokenizer,
    options: RunOptions,
) -> LaBSE:
    """Trains the masked language model and returns its encoder."""
    from labse_tf.data import MaskedPlan, masked_rows
    from labse_tf.preprocessing import MaskedLMPreprocessor, SentencePreprocessor

    tokenizer = new_tokenizer.make()
    preprocessor = MaskedLMPreprocessor(
        tokenizer,
        recipe.sequence_length,
        mask_rate=recipe.mask_rate,
        max_predictions=recipe.max_predictions,
    )
    if pairs is not None and recipe.sentences_from_pairs:
        sentences = (
            pairs.to_sentences() if sentences is None else sentences.union(pairs)
        )

    def batches(start: int) -> tf.data.Dataset:
        plan = MaskedPlan(
            recipe.batch_size,
            steps=recipe.train_steps,
            start_step=start,
            seed=recipe.seed,
            smoothing=recipe.smoothing,
            cap=recipe.cap,
            tlm_share=recipe.tlm_share,
        )
        return masked_rows(
            pairs, sentences, preprocessor, plan, progress=options.progress
        )

    with strategy.scope():
        model = MaskedLM(make_backbone(recipe, tokenizer.vocabulary_size))
        optimizer = make_optimizer(recipe, skip_nonfinite=options.on_nan == "skip")
        model.compile(optimizer)
        optimizer.build(model.trainable_variables)
    model.start_from_frequencies(batches(0))
    model = fit(run, model, batches, recipe, options, unit="rows")
    return LaBSE(
        model.backbone,
        SentencePreprocessor(tokenizer, recipe.sequence_length),
        pooling=recipe.pooling,
    )
