"""Trainer of the masked language model (MLM and TLM)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labse_tf.models import LaBSE
from labse_tf.models.masked_lm import MaskedLM
from labse_tf.recipes import PretrainingRecipe
from labse_tf.training.card import TrainingFacts
from labse_tf.training.fitting import fit
from labse_tf.training.from_recipe import (
    NewTokenizer,
    make_backbone,
    make_optimizer,
    open_run,
)
from labse_tf.training.options import RunOptions
from labse_tf.training.run import Run
from labse_tf.variables import release

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
    """Train a masked language model in stages and write its encoder as a preset.

    The embeddings of this preset are not useful yet. It is the starting model of
    `labse_tf.training.train_dual_encoder` (`labse-tf train --model`).
    If interrupted, rerun with the same arguments to resume from the last checkpoint.
    If the run has already ended, its model is loaded.

    Args:
        recipe: Model and training settings.
        pairs: Text for TLM, from `labse_tf.data.load_pairs`, or `None`.
        sentences: Text for MLM, from `labse_tf.data.load_sentences`, or `None`. Both
            sides of the pairs are added if the recipe has `sentences_from_pairs`.
        output: Directory of the run, which becomes the preset.
        vocabulary: Path of a `vocab.txt`.
        lowercase: Whether the tokenizer converts text to lower case.
        strip_accents: See `labse_tf.WordPieceTokenizer`.
        options: Run options; see `labse_tf.training.train_dual_encoder`.

    Returns:
        The encoder; see `train_dual_encoder`.

    Raises:
        ValueError: If there is no text, the arguments contradict each other, or the
            directory belongs to another run.
        labse_tf.training.Interrupted: See `train_dual_encoder`.
        labse_tf.training.EndedElsewhere: See `train_dual_encoder`.
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

        def train() -> LaBSE:
            return _train(run, strategy, recipe, pairs, sentences, tokenizer, options)

        return run.finish(train, facts=_facts(recipe, pairs, sentences))


def _facts(
    recipe: PretrainingRecipe,
    pairs: ParallelCorpus | None,
    sentences: MonolingualCorpus | None,
) -> TrainingFacts:
    """Return the facts for the card: sentences, and both sides of the pairs."""
    counts = Counter({} if sentences is None else sentences.counts)
    if pairs is not None:
        counts.update(pairs.counts)
        counts["en"] += len(pairs)
    return TrainingFacts(recipe, counts, "sentences")


def _describe(text: ParallelCorpus | MonolingualCorpus | None) -> dict[str, Any] | None:
    """Return a description of a corpus by content."""
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
    """Train the masked language model and return its encoder."""
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
    release(model.optimizer.variables)
    return LaBSE(
        model.backbone,
        SentencePreprocessor(tokenizer, recipe.sequence_length),
        pooling=recipe.pooling,
    )
