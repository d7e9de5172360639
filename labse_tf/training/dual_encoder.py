"""The dual encoder's training: from a recipe and pairs to a preset."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from labse_tf import presets
from labse_tf.data.sampling import principal_axes
from labse_tf.distribute import Workers, get_strategy, is_tpu
from labse_tf.evaluation import retrieval
from labse_tf.files import atomic_file
from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.mining import unit_rows
from labse_tf.models import DualEncoder, LaBSE
from labse_tf.progress import Progress, progress_bar
from labse_tf.recipes import Recipe
from labse_tf.training.from_recipe import (
    check_replicas,
    describe_vocabulary,
    make_backbone,
    make_optimizer,
)
from labse_tf.training.run import Run
from labse_tf.training.session import Fit, Measure, fit

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.data import PairStream, ParallelCorpus, TokenCorpus
    from labse_tf.preprocessing import SentencePreprocessor

NEIGHBORS = "neighbors.npy"
NEIGHBOR_DIMENSIONS = 128  # ours: half a gigabyte for two million pairs

# Names of the recipe -> the argument of `sentence_pairs`.
_LENGTH_BUCKETS: dict[str, bool | Literal["tokens"]] = {
    "characters": True,
    "tokens": "tokens",
    "none": False,
}


def train_dual_encoder(
    recipe: Recipe,
    pairs: ParallelCorpus | TokenCorpus | PairStream,
    output: str | Path,
    *,
    model: str | Path | None = None,
    vocabulary: str | Path | None = None,
    lowercase: bool = False,
    strip_accents: bool | None = None,
    strategy: str = "auto",
    tpu: str = "local",
    steps_per_execution: int = 1,
    on_nan: str = "stop",
    checkpoint_every: int = 1000,
    log_every: int = 50,
    dev: ParallelCorpus | None = None,
    dev_every: int = 1000,
    deterministic: bool = False,
    progress: Progress = None,
    fit: Fit = fit,
) -> LaBSE:
    """Trains a sentence encoder on pairs, into a directory that becomes a preset.

    Killed at any moment and called again with the same arguments it goes on from
    the last checkpoint; when it has ended, it loads what it made.

    Args:
        recipe: What to do.
        pairs: The text, as `labse_tf.data.load_pairs` gives it, or prepared pairs
            from `open_prepared` or of `PairStream`.
        output: The run's directory.
        model: A preset to start from; or
        vocabulary: a `vocab.txt` for a new model of the recipe's shape.
        lowercase: Whether a new model's tokenizer lower-cases.
        strip_accents: As in `labse_tf.WordPieceTokenizer`.
        strategy: A name for `labse_tf.distribute.get_strategy`. With "multi_worker" all
            hosts are called with the same arguments and text; `output` is the chief's,
            and the others write nothing.
        tpu: As in `get_strategy`. On a TPU all sentences are padded to the recipe's
            `sequence_length`, since each other length would be compiled anew.
        steps_per_execution: As in `Session`.
        on_nan: What a loss that is not finite does: `"stop"` the run, or `"skip"`: the
            step changes nothing and is counted in the log.
        checkpoint_every: Steps between checkpoints.
        log_every: Steps between lines of the log.
        dev: Pairs to measure on while training: the mean over the languages of the
            accuracy of the nearest translation goes into the log. They change nothing.
        dev_every: Steps between measurements; the last step has one too.
        deterministic: Bit-identical results on the same machine, somewhat slower.
        progress: As in `Session`.
        fit: How: the function of this module, or
            `labse_tf.training.growing.fit_progressively` for a recipe with stages.

    Returns:
        The trained model, as loaded from the preset; on workers other than the chief
        as trained.

    Raises:
        ValueError: If the arguments do not fit together or the directory is taken.
        Interrupted: On SIGTERM or SIGINT, after a checkpoint; on all workers at once.
        EndedElsewhere: On workers other than the chief, if the run had ended before.
        labse_tf.distribute.WorkerLostError: If another worker has ended.
    """
    from labse_tf.data import ParallelCorpus

    recipe.check()
    if (model is None) == (vocabulary is None):
        raise ValueError(
            "Give `model` to go on from, or `vocabulary` for a new one, and not both. "
            f"Received: model={model!r}, vocabulary={vocabulary!r}"
        )
    if recipe.hard_negatives and model is None:
        raise ValueError(
            "`hard_negatives` needs `model`: neighbours are found by its vectors. "
            f"Received: hard_negatives={recipe.hard_negatives}, model=None"
        )
    texts = None
    if recipe.hard_negatives:
        if not isinstance(pairs, ParallelCorpus):
            raise ValueError(
                "`hard_negatives` needs pairs as text, which the model encodes. "
                f"Received: hard_negatives={recipe.hard_negatives} with a "
                f"{type(pairs).__name__}"
            )
        texts = pairs
    if deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    description = {
        "recipe": dataclasses.asdict(recipe),
        "text": {"pairs": len(pairs), "sha256": pairs.digest()},
        "start": _start(model, vocabulary, lowercase, strip_accents),
    }
    scope = get_strategy(strategy, tpu=tpu)
    check_replicas(recipe, scope)
    run = Run(output, description, Workers(scope))
    encoder = None
    with run.open():
        if not run.finished:
            keras.utils.set_random_seed(recipe.seed)
            with scope.scope():
                encoder = _make_encoder(
                    recipe, model, vocabulary, lowercase, strip_accents
                )
                dual = compile_dual_encoder(
                    encoder, recipe, skip_nonfinite=on_nan == "skip"
                )
            preprocessor = encoder.text_preprocessor()
            if is_tpu(scope):
                preprocessor = fixed_shapes(preprocessor)
            # Of the starting model: before the fit, which goes on from a checkpoint.
            vectors = None
            if texts is not None:
                vectors = _neighbor_vectors(run, encoder, texts, progress)
            dual = fit(
                run,
                dual,
                functools.partial(_batches, recipe, pairs, preprocessor, vectors),
                recipe,
                checkpoint_every=checkpoint_every,
                log_every=log_every,
                measure=None if dev is None else _dev_accuracy(dev),
                measure_every=dev_every,
                steps_per_execution=steps_per_execution,
                on_nan=on_nan,
                progress=progress,
            )
            encoder = dual.encoder
        return run.finish(encoder, also=(NEIGHBORS,))


def _batches(
    recipe: Recipe,
    pairs: ParallelCorpus | TokenCorpus | PairStream,
    preprocessor: SentencePreprocessor,
    vectors: np.ndarray | None,
    start: int,
) -> tf.data.Dataset:
    """The recipe's batches from a step on."""
    from labse_tf.data import PairStream, sentence_pairs, stream_pairs

    options: dict[str, Any] = {
        "batch_size": recipe.batch_size,
        "steps": recipe.train_steps,
        "start_step": start,
        "seed": recipe.seed,
        "smoothing": recipe.smoothing,
        "cap": recipe.cap,
        "batches": recipe.batches,
    }
    buckets = _LENGTH_BUCKETS[recipe.length_buckets]
    if isinstance(pairs, PairStream):
        return stream_pairs(
            pairs, preprocessor, length_buckets=bool(buckets), **options
        )
    return sentence_pairs(
        pairs,
        preprocessor,
        length_buckets=buckets,
        vectors=vectors,
        group_size=recipe.hard_negatives or 1,
        **options,
    )


def _dev_accuracy(dev: ParallelCorpus) -> Measure:
    """Measures a dual encoder on held-out pairs."""
    pairs = dev.lists()

    def measure(model: keras.Model) -> dict[str, float]:
        encode = functools.partial(model.encoder.encode, progress=False)
        result = retrieval(encode, pairs, progress=False)
        return {"dev_accuracy": result.mean_accuracy}

    return measure


def _neighbor_vectors(
    run: Run, encoder: LaBSE, pairs: ParallelCorpus, progress: Progress
) -> np.ndarray:
    """The English side's vectors on a few axes, `(N, d)`, kept for a resumed run.

    The chief makes them: elsewhere they might differ, and with them the batches.
    """
    path = run.directory / NEIGHBORS
    count, dim = len(pairs), min(NEIGHBOR_DIMENSIONS, encoder.embedding_dim)
    if run.writes and not path.exists():
        sample = np.random.default_rng(0).integers(count, size=min(count, 1 << 15))
        axes = principal_axes(encoder.encode(pairs.sources(sample)), dim)
        with (
            atomic_file(path) as temporary,
            progress_bar("Embedding", count, "pairs", show=progress) as advance,
        ):
            rows = np.lib.format.open_memmap(
                temporary, mode="w+", dtype=np.float16, shape=(count, dim)
            )
            for start in range(0, count, 1 << 16):
                chosen = np.arange(start, min(start + (1 << 16), count))
                # Much English is there in many languages.
                texts, places = np.unique(pairs.sources(chosen), return_inverse=True)
                short = unit_rows(encoder.encode(texts, progress=False) @ axes)
                rows[chosen] = short[places]
                advance(len(chosen))
            rows.flush()
            del rows
    if run.writes:
        vectors = np.load(path, mmap_mode="r")
    else:
        vectors = np.zeros((count, dim), np.float16)
    return run.workers.share_arrays([vectors])[0]


def fixed_shapes(preprocessor: SentencePreprocessor) -> SentencePreprocessor:
    """Makes a preprocessor whose rows all have the same length, for a TPU.

    Args:
        preprocessor: Any.

    Returns:
        One with the same tokens, which pads to its `sequence_length`.
    """
    return type(preprocessor).from_config({**preprocessor.get_config(), "pad": "fixed"})


def compile_dual_encoder(
    encoder: LaBSE, recipe: Recipe, *, skip_nonfinite: bool = False
) -> DualEncoder:
    """Puts an encoder under the recipe's loss and optimiser.

    Args:
        encoder: Made in the same strategy scope.
        recipe: Margin, scale, learning rate and the rest.
        skip_nonfinite: As in `labse_tf.optimizers.adamw`.

    Returns:
        A compiled `DualEncoder` whose optimiser is built.
    """
    dual = DualEncoder(encoder, recipe.chunk_size, length_groups=recipe.length_groups)
    optimizer = make_optimizer(
        recipe,
        lazy=recipe.optimizer == "lazy_adamw",
        skip_nonfinite=skip_nonfinite,
    )
    loss = AdditiveMarginSoftmax(
        recipe.margin, recipe.scale, block_size=recipe.loss_block_size
    )
    dual.compile(optimizer=optimizer, loss=loss)
    optimizer.build(dual.trainable_variables)
    return dual


def untrained_encoder(
    recipe: Recipe,
    vocabulary: str | Path,
    *,
    lowercase: bool = False,
    strip_accents: bool | None = None,
) -> LaBSE:
    """Makes the encoder that a run with this recipe and vocabulary starts from.

    Args:
        recipe: Shape, seed and sequence length.
        vocabulary: A `vocab.txt`.
        lowercase: Whether the tokenizer lower-cases.
        strip_accents: As in `labse_tf.WordPieceTokenizer`.

    Returns:
        The model before its first step.
    """
    keras.utils.set_random_seed(recipe.seed)
    return _make_encoder(recipe, None, vocabulary, lowercase, strip_accents)


def _make_encoder(
    recipe: Recipe,
    model: str | Path | None,
    vocabulary: str | Path | None,
    lowercase: bool,
    strip_accents: bool | None,
) -> LaBSE:
    """The encoder a run starts from, with the recipe's sequence length."""
    from labse_tf.preprocessing import SentencePreprocessor
    from labse_tf.tokenizers import WordPieceTokenizer

    if model is not None:
        return LaBSE.from_preset(
            model, sequence_length=recipe.sequence_length, dtype=recipe.dtype
        )
    if vocabulary is None:
        raise ValueError("`vocabulary` is needed for a new model. Received: None")
    tokenizer = WordPieceTokenizer(
        vocabulary, lowercase=lowercase, strip_accents=strip_accents
    )
    backbone = make_backbone(recipe, tokenizer.vocabulary_size)
    preprocessor = SentencePreprocessor(tokenizer, recipe.sequence_length)
    return LaBSE(backbone, preprocessor, pooling=recipe.pooling)


def _start(
    model: str | Path | None,
    vocabulary: str | Path | None,
    lowercase: bool,
    strip_accents: bool | None,
) -> dict[str, Any]:
    """What a run starts from, by content and not by name."""
    if model is not None:
        hashes = presets.read_config(presets.find(model))["sha256"]
        return {"model": hashes}
    return describe_vocabulary(str(vocabulary), lowercase, strip_accents)
