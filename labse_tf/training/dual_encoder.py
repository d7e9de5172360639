"""Trainer of the dual encoder: from a recipe and pairs to a preset."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from labse_tf import presets
from labse_tf.distribute import is_tpu
from labse_tf.evaluation import retrieval
from labse_tf.files import atomic_file
from labse_tf.losses import AdditiveMarginSoftmax, MatryoshkaLoss
from labse_tf.mining import unit_rows
from labse_tf.mining.projection import principal_axes
from labse_tf.models import DualEncoder, LaBSE
from labse_tf.progress import Progress, progress_bar
from labse_tf.recipes import Recipe
from labse_tf.training.best import SCORE
from labse_tf.training.card import TrainingFacts
from labse_tf.training.fitting import fit
from labse_tf.training.from_recipe import (
    NewTokenizer,
    freeze,
    kept_base,
    make_backbone,
    make_optimizer,
    make_plan,
    open_run,
    with_shape_of,
)
from labse_tf.training.guide import DIRECTORY, Guide, check_guide, guide_vectors
from labse_tf.training.options import RunOptions, check_measured
from labse_tf.training.reporting import Measure
from labse_tf.training.run import Run
from labse_tf.variables import release

if TYPE_CHECKING:
    import tensorflow as tf

    from labse_tf.data import PairStream, ParallelCorpus, TokenCorpus
    from labse_tf.data.text_vectors import CorpusVectors
    from labse_tf.preprocessing import SentencePreprocessor

NEIGHBORS = "neighbors.npy"
NEIGHBOR_DIMENSIONS = 128  # ours: half a gigabyte for two million pairs


def train_dual_encoder(
    recipe: Recipe,
    pairs: ParallelCorpus | TokenCorpus | PairStream,
    output: str | Path,
    *,
    model: str | Path | None = None,
    vocabulary: str | Path | None = None,
    lowercase: bool = False,
    strip_accents: bool | None = None,
    dev: ParallelCorpus | None = None,
    guide: Guide | None = None,
    options: RunOptions | None = None,
) -> LaBSE:
    """Train a sentence encoder on pairs and write it as a preset.

    If interrupted, rerun with the same arguments to resume from the last checkpoint.
    If the run has already ended, its model is loaded.

    Args:
        recipe: Model and training settings. The shape of `model` replaces the values
            of the recipe; only `stages` can deepen it, to `num_layers`.
        pairs: Text from `labse_tf.data.load_pairs`, or prepared pairs from
            `open_prepared` or `PairStream`.
        output: Directory of the run, which becomes the preset.
        model: Preset to start from. Give either this or `vocabulary`.
        vocabulary: Path of the `vocab.txt` of a new model of the recipe's shape.
        lowercase: Whether the tokenizer of a new model converts text to lower case.
        strip_accents: See `labse_tf.WordPieceTokenizer`.
        dev: Held-out pairs. Their nearest-translation accuracy, the mean over the
            languages, is written to the log, and the model gets the weights with the
            highest accuracy unless `options.keep_best` is false.
        guide: Encoder that decides which negatives of a batch are ignored, since they
            are nearer than the pair itself. Its vectors of the texts in the batches are
            computed before the first step, each once. Requires pairs as text.
        options: Run options. With the strategy "multi_worker", call this function with
            the same arguments and text on all hosts; only the chief writes to its
            `output`. On a TPU all sentences are padded to the recipe's
            `sequence_length`, since XLA would compile every other length separately.

    Returns:
        The trained model, loaded from the preset, which has the storage type of
        `model` (float32 for a new model); or with `options.keep_adapters` only the
        low-rank weights and a reference to `model`. Workers other than the chief return
        it without loading.

    Raises:
        ValueError: If the arguments contradict each other, or the directory belongs to
            another run.
        Interrupted: On SIGTERM or SIGINT, after a checkpoint; on all workers at once.
        EndedElsewhere: On workers other than the chief, if the run had already ended.
        labse_tf.distribute.WorkerLostError: If another worker has ended.
    """
    options = options or RunOptions()
    recipe.check()
    if (model is None) == (vocabulary is None):
        raise ValueError(
            "Expected either `model`, to continue its training, or `vocabulary`, for a "
            f"new model. Received: model={model!r}, vocabulary={vocabulary!r}"
        )
    if recipe.lora is not None and model is None:
        raise ValueError(
            "`lora` requires `model`, since all weights that a model starts with are "
            f"frozen. Received: lora={recipe.lora}, model=None"
        )
    if model is not None:
        if lowercase or strip_accents is not None:
            raise ValueError(
                "`lowercase` and `strip_accents` require `vocabulary`, since `model` "
                f"has its own tokenizer. Received: lowercase={lowercase}, "
                f"strip_accents={strip_accents}"
            )
        recipe = with_shape_of(recipe, model)
    recipe.check_shape()
    check_measured(options, dev is not None)
    check_guide(guide, recipe, pairs)
    base = kept_base(recipe, options, model)
    texts = _texts_with_neighbors(recipe, pairs, model)
    tokenizer = None
    if vocabulary is not None:
        tokenizer = NewTokenizer(vocabulary, lowercase, strip_accents)
    with open_run(
        output,
        recipe,
        options,
        text={"pairs": len(pairs), "sha256": pairs.digest()},
        start=_describe_start(model, tokenizer),
        choice=describe_choice(dev, options),
        guide=None if guide is None else guide.describe(),
        temporary=(NEIGHBORS,) if guide is None else (NEIGHBORS, DIRECTORY),
    ) as (run, strategy):

        def train() -> LaBSE:
            with strategy.scope():
                encoder = _make_encoder(recipe, model, tokenizer)
                dual = compile_dual_encoder(
                    encoder, recipe, skip_nonfinite=options.on_nan == "skip"
                )
            preprocessor = encoder.text_preprocessor()
            if is_tpu(strategy):
                preprocessor = fixed_shapes(preprocessor)
            # The starting model encodes the text, so encode before `fit` restores
            # a checkpoint.
            vectors = None
            if texts is not None:
                vectors = _neighbor_vectors(run, encoder, texts, options.progress)
            known = None
            if guide is not None:
                known = guide_vectors(
                    run, guide, recipe, pairs, preprocessor, options.progress
                )
            trained = fit(
                run,
                dual,
                functools.partial(
                    _batches, recipe, pairs, preprocessor, vectors, known
                ),
                recipe,
                options,
                measure=None if dev is None else dev_accuracy(dev),
            )
            release(trained.optimizer.variables)
            return trained.encoder

        facts = TrainingFacts(
            recipe,
            pairs.counts,
            "pairs",
            pairs.digest(),
            model,
            guide="" if guide is None else str(guide.vectors.model),
        )
        return run.finish(train, facts=facts, storage=_storage(model), base=base)


def _texts_with_neighbors(
    recipe: Recipe, pairs: Any, model: str | Path | None
) -> ParallelCorpus | None:
    """Return the text to search for hard negatives; `None` if the recipe has none."""
    from labse_tf.data import ParallelCorpus

    if not recipe.hard_negatives:
        return None
    if model is None:
        raise ValueError(
            "`hard_negatives` requires `model`, which defines which sentences are "
            f"near. Received: hard_negatives={recipe.hard_negatives}, model=None"
        )
    if not isinstance(pairs, ParallelCorpus):
        raise ValueError(
            "`hard_negatives` requires pairs as text, not prepared pairs. Received: "
            f"hard_negatives={recipe.hard_negatives}, pairs={type(pairs).__name__}"
        )
    return pairs


def _describe_start(
    model: str | Path | None, tokenizer: NewTokenizer | None
) -> dict[str, Any]:
    """Describe the start of a run by content, not by path."""
    if tokenizer is not None:
        return tokenizer.describe()
    return {"model": presets.read_config(presets.find(str(model)))["sha256"]}


def _storage(model: str | Path | None) -> str:
    """Return the storage type of the preset that a run starts from."""
    if model is None:
        return "float32"
    return presets.read_config(presets.find(model)).get("storage", "float32")


def describe_choice(
    dev: ParallelCorpus | None, options: RunOptions
) -> dict[str, Any] | None:
    """Describe how held-out pairs choose the weights; `None` if they do not."""
    if dev is None or (options.keep_best is False and options.patience is None):
        return None
    return {
        "pairs": len(dev),
        "sha256": dev.digest(),
        "measure_every": options.dev_every,
        "keep_best": options.keep_best is not False,
        "patience": options.patience,
    }


def _make_encoder(
    recipe: Recipe, model: str | Path | None, tokenizer: NewTokenizer | None
) -> LaBSE:
    """Create the encoder that a run starts from, with the recipe's sequence length."""
    from labse_tf.preprocessing import SentencePreprocessor

    if tokenizer is None:
        return LaBSE.from_preset(
            str(model), sequence_length=recipe.sequence_length, dtype=recipe.dtype
        )
    made = tokenizer.make()
    backbone = make_backbone(recipe, made.vocabulary_size)
    preprocessor = SentencePreprocessor(made, recipe.sequence_length)
    return LaBSE(backbone, preprocessor, pooling=recipe.pooling)


def _batches(
    recipe: Recipe,
    pairs: ParallelCorpus | TokenCorpus | PairStream,
    preprocessor: SentencePreprocessor,
    vectors: np.ndarray | None,
    guide: CorpusVectors | None,
    start: int,
) -> tf.data.Dataset:
    """Return the recipe's batches after step `start`."""
    from labse_tf.data import PairStream, sentence_pairs, stream_pairs

    plan = make_plan(recipe, start, vectors)
    if isinstance(pairs, PairStream):
        return stream_pairs(pairs, preprocessor, plan)
    return sentence_pairs(pairs, preprocessor, plan, guide=guide)


def dev_accuracy(dev: ParallelCorpus) -> Measure:
    """Return a function that measures a dual encoder on held-out pairs."""
    pairs = dev.lists()

    def measure(model: keras.Model) -> dict[str, float]:
        encode = functools.partial(model.encoder.encode, progress=False)
        result = retrieval(encode, pairs, progress=False)
        return {
            SCORE: result.mean_accuracy,
            **{f"{SCORE}/{code}": value for code, value in result.accuracy.items()},
        }

    return measure


def _neighbor_vectors(
    run: Run, encoder: LaBSE, pairs: ParallelCorpus, progress: Progress
) -> np.ndarray:
    """Return the embeddings of the sources on their principal axes, `(N, d)`.

    They are kept on disk for a resumed run. The chief computes them for all workers,
    since different embeddings would give different batches.
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
                # Many English sentences have translations in several languages.
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
    """Return a copy of a preprocessor that pads all rows to `sequence_length`."""
    return type(preprocessor).from_config({**preprocessor.get_config(), "pad": "fixed"})


def compile_dual_encoder(
    encoder: LaBSE, recipe: Recipe, *, skip_nonfinite: bool = False
) -> DualEncoder:
    """Create a dual encoder with the recipe's loss and optimizer.

    Args:
        encoder: Encoder created in the same strategy scope.
        recipe: Settings of the loss and the optimizer.
        skip_nonfinite: See `labse_tf.optimizers.adamw`.

    Returns:
        A compiled `DualEncoder` with a built optimizer.
    """
    freeze(encoder, recipe)
    dual = DualEncoder(encoder, recipe.chunk_size, length_groups=recipe.length_groups)
    optimizer = make_optimizer(
        recipe, lazy=recipe.optimizer == "lazy_adamw", skip_nonfinite=skip_nonfinite
    )
    loss: keras.losses.Loss = AdditiveMarginSoftmax(
        recipe.margin,
        recipe.scale,
        block_size=recipe.loss_block_size,
        guide_margin=recipe.guide_margin,
    )
    if recipe.dims:
        loss = MatryoshkaLoss(loss, recipe.dims)
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
    """Create the encoder that a run with this recipe and vocabulary starts from.

    For the arguments see `train_dual_encoder`.
    """
    keras.utils.set_random_seed(recipe.seed)
    tokenizer = NewTokenizer(vocabulary, lowercase, strip_accents)
    return _make_encoder(recipe, None, tokenizer)
