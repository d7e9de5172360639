"""Pre-training: masked language models over one and two languages."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from labse_tf.distribute import Workers, get_strategy
from labse_tf.models import (
    LaBSE,
)
from labse_tf.models.masked_lm import MaskedLM
from labse_tf.progress import Progress
from labse_tf.recipes import PretrainingRecipe
from labse_tf.training import (
    Run,
    check_replicas,
    describe_vocabulary,
    make_backbone,
    make_optimizer,
)
from labse_tf.training.growing import fit_progressively

if TYPE_CHECKING:
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
    strategy: str = "auto",
    tpu: str = "local",
    steps_per_execution: int = 1,
    on_nan: str = "stop",
    checkpoint_every: int = 1000,
    log_every: int = 50,
    deterministic: bool = False,
    progress: Progress = None,
) -> LaBSE:
    """Trains a masked language model in stages, into a directory that becomes a preset.

    The preset is an encoder whose vectors mean nothing yet; it is what
    `labse_tf.training.train_dual_encoder` (`labse-tf train --model`) starts from.
    Killed at any moment and called again with the same arguments it goes on from the
    last checkpoint; when it has ended, it loads what it made.

    Args:
        recipe: What to do.
        pairs: Text for TLM, as `labse_tf.data.load_pairs` gives it, or `None`.
        sentences: Text for MLM, as `labse_tf.data.load_sentences` gives it, or
            `None`; the sides of the pairs are added where the recipe says so.
        output: The run's directory.
        vocabulary: A `vocab.txt`.
        lowercase: Whether the tokenizer lower-cases.
        strip_accents: As in `labse_tf.WordPieceTokenizer`.
        strategy: As in `labse_tf.training.train_dual_encoder`.
        tpu: As there.
        steps_per_execution: As there.
        on_nan: As there.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of the log.
        deterministic: Bit-identical results on the same machine, somewhat slower.
        progress: As in `labse_tf.training.Session`.

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
    from labse_tf.data import masked_rows
    from labse_tf.preprocessing import MaskedLMPreprocessor, SentencePreprocessor
    from labse_tf.tokenizers import WordPieceTokenizer

    recipe.check()
    if pairs is None and sentences is None:
        raise ValueError(
            "Give `pairs`, `sentences` or both. Received: pairs=None, sentences=None"
        )
    if deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    description = {
        "recipe": dataclasses.asdict(recipe),
        "text": {
            name: None if text is None else {"size": len(text), "sha256": text.digest()}
            for name, text in (("pairs", pairs), ("sentences", sentences))
        },
        "start": describe_vocabulary(vocabulary, lowercase, strip_accents),
    }
    scope = get_strategy(strategy, tpu=tpu)
    check_replicas(recipe, scope)
    run = Run(output, description, Workers(scope))
    encoder = None
    with run.open():
        if not run.finished:
            tokenizer = WordPieceTokenizer(
                vocabulary, lowercase=lowercase, strip_accents=strip_accents
            )
            preprocessor = MaskedLMPreprocessor(
                tokenizer,
                recipe.sequence_length,
                mask_rate=recipe.mask_rate,
                max_predictions=recipe.max_predictions,
            )
            if pairs is not None and recipe.sentences_from_pairs:
                sentences = (
                    pairs.to_sentences()
                    if sentences is None
                    else sentences.union(pairs)
                )

            def batches(start: int) -> Any:
                return masked_rows(
                    pairs,
                    sentences,
                    preprocessor,
                    batch_size=recipe.batch_size,
                    steps=recipe.train_steps,
                    start_step=start,
                    seed=recipe.seed,
                    smoothing=recipe.smoothing,
                    cap=recipe.cap,
                    tlm_share=recipe.tlm_share,
                    progress=progress,
                )

            keras.utils.set_random_seed(recipe.seed)
            with scope.scope():
                model = MaskedLM(make_backbone(recipe, tokenizer.vocabulary_size))
                optimizer = make_optimizer(recipe, skip_nonfinite=on_nan == "skip")
                model.compile(optimizer)
                optimizer.build(model.trainable_variables)
            model.start_from_frequencies(batches(0))
            model = fit_progressively(
                run,
                model,
                batches,
                recipe,
                checkpoint_every=checkpoint_every,
                log_every=log_every,
                steps_per_execution=steps_per_execution,
                on_nan=on_nan,
                unit="rows",
                progress=progress,
            )
            encoder = LaBSE(
                model.backbone,
                SentencePreprocessor(tokenizer, recipe.sequence_length),
                pooling=recipe.pooling,
            )
        return run.finish(encoder)
