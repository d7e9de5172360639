"""Pre-training: masked language models over one and two languages, and stacking.

`pretrain` is the run from text to a preset; `fit_progressively` trains a model in
stages of growing depth, `grow` takes it from one stage to the next, `stack` is what
happens to the backbone then.

Shapes: R = rows of a batch, T = length in tokens, P = predictions a row, D = hidden
dimension.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import numpy as np
from keras import ops

from labse_tf.distribute import Workers, get_strategy, sum_over_replicas
from labse_tf.layers import MaskedLMHead
from labse_tf.models import (
    DualEncoder,
    LaBSE,
    LaBSEBackbone,
    ReplicatedModel,
    resolve_jit_compile,
)
from labse_tf.recipes import BaseRecipe, PretrainingRecipe
from labse_tf.training import (
    Batches,
    Run,
    Session,
    check_replicas,
    describe_vocabulary,
    make_backbone,
    make_optimizer,
)

if TYPE_CHECKING:
    from labse_tf.data import MonolingualCorpus, ParallelCorpus

_LAYER = re.compile(r"transformer_layer_(\d+)(?=/)")


@keras.saving.register_keras_serializable(package="labse_tf")
class MaskedLM(ReplicatedModel):
    """A backbone that learns to restore masked tokens: MLM, and TLM over pairs.

    `fit` takes the feature dicts of `MaskedLMPreprocessor`; a batch may hold rows of
    sentences and rows of pairs. The loss is the mean over the masked tokens of the
    global batch; loss and accuracy of both tasks are also logged apart. The softmax
    over the vocabulary is tied to the token table and computed in chunks.

    Args:
        backbone: A `LaBSEBackbone`; its pooler gets no gradient from this task.
        head: A `MaskedLMHead`, from an earlier stage; made anew where left out.
        chunk_size: Vocabulary entries at a time, of a new head.
        **kwargs: `name`, `trainable`.

    Call arguments:
        inputs: Dict of int32 `(R, T)` features, and `mask_positions`, `mask_ids`
            int32 `(R, P)`, `mask_weights` float32 `(R, P)`.

    Returns:
        Dict of float32 `(R, P)`: `loss` and `correct`, 0 where there is no
        prediction.

    References:
        Devlin et al., 2019 (https://arxiv.org/abs/1810.04805); Conneau and Lample,
        2019 (https://arxiv.org/abs/1901.07291); Feng et al., 2022, section 3.1
        (https://arxiv.org/abs/2007.01852).
    """

    def __init__(
        self,
        backbone: LaBSEBackbone,
        head: MaskedLMHead | None = None,
        *,
        chunk_size: int = 8192,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.backbone = backbone
        self.head = head or MaskedLMHead(
            backbone.vocabulary_size,
            backbone.hidden_dim,
            activation=backbone.activation,
            layer_norm_epsilon=backbone.layer_norm_epsilon,
            initializer_range=backbone.initializer_range,
            chunk_size=chunk_size,
            dtype=backbone.dtype_policy,
            name="masked_lm_head",
        )
        self.task_metrics = {
            f"{task}_{what}": keras.metrics.Mean(name=f"{task}_{what}")
            for task in ("mlm", "tlm")
            for what in ("loss", "accuracy")
        }
        self.built = True

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """All but the pooler's, which no masked token depends on."""
        idle = {id(weight) for weight in self.backbone.pooler.weights}
        return [w for w in super().trainable_weights if id(w) not in idle]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The same; Keras asks for both names."""
        return self.trainable_weights

    def call(
        self, inputs: dict[str, Any], training: bool | None = None
    ) -> dict[str, Any]:
        """See the class."""
        states = self.backbone(inputs, training=training)["sequence_output"]
        return self.head(
            states,
            inputs["mask_positions"],
            inputs["mask_ids"],
            self.backbone.token_embedding.embeddings,
            inputs["mask_weights"],
        )

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "adamw",
        *,
        jit_compile: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        """Sets the optimiser; the loss is the model's own.

        Args:
            optimizer: A Keras optimiser or its name.
            jit_compile: `"auto"` is off on TensorFlow (a TPU compiles always).
            **kwargs: Other arguments of `keras.Model.compile`.
        """
        super().compile(
            optimizer=optimizer,
            loss=None,
            jit_compile=resolve_jit_compile(jit_compile),
            **kwargs,
        )

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Mean over the global batch's masked tokens; this replica's share of it."""
        count = sum_over_replicas(ops.sum(ops.cast(x["mask_weights"], "float32")))
        loss = ops.sum(y_pred["loss"]) / ops.maximum(count, 1.0)
        if training:
            self._note(loss)
        return loss

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Adds a batch to the metrics and returns all their values."""
        # Only pairs have a second segment.
        pairs = ops.cast(ops.any(x["segment_ids"] > 0, axis=1), "float32")[:, None]
        weights = ops.cast(x["mask_weights"], "float32")  # (R, P)
        for task, rows in (("mlm", 1.0 - pairs), ("tlm", pairs)):
            for what, key in (("loss", "loss"), ("accuracy", "correct")):
                self.task_metrics[f"{task}_{what}"].update_state(
                    y_pred[key], sample_weight=weights * rows
                )
        return self.get_metrics_result()

    def start_from_frequencies(self, batches: Iterable[Mapping[str, Any]]) -> None:
        """Sets the head's bias to the logarithm of how often each token occurs.

        For a new model, before its first step. A softmax that knows nothing gives all
        tokens the same share, and to correct this is the first thing it learns: the
        rows of all rare tokens move the same way, which Adam, blind to how small their
        gradients are, makes into as long a way as any. So sentences begin to look
        alike. Here the bias has the answer beforehand (ours, not the paper's).

        Args:
            batches: Features as `fit` takes them; as many of the first ones are read
                as make 32 predictions an entry of the vocabulary, and 256 at most.
        """
        size = self.backbone.vocabulary_size
        counts = np.ones(size)  # What does not occur is rare, not impossible.
        for batch in itertools.islice(batches, 256):
            real = np.asarray(batch["mask_weights"]) > 0
            counts += np.bincount(np.asarray(batch["mask_ids"])[real], minlength=size)
            if counts.sum() > 33 * size:
                break
        self.head.output_bias.assign(np.log(counts / counts.sum()))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "backbone": serialize(self.backbone),
            "head": serialize(self.head),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MaskedLM:
        """Makes the model again from `get_config`."""
        config = dict(config)
        for name in ("backbone", "head"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


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
    progress: bool | None = None,
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


Growing = TypeVar("Growing", bound=keras.Model)


def fit_progressively(
    run: Run, model: Growing, batches: Batches, recipe: BaseRecipe, **options: Any
) -> Growing:
    """Trains a model through the stages of a recipe, each deeper than the one before.

    One run: the learning-rate schedule, the moments, the batches, the log and the bar
    go on from stage to stage. It trains a `MaskedLM` in the paper's three stages, and
    grows a `DualEncoder` from zero layers (ours, not the paper's), where stage 0 is a
    bag of tokens: take a mean for its pooling then.

    Killed at any moment and called again with the same arguments it goes on from the
    last checkpoint, in the stage that this belongs to.

    Args:
        run: An open run.
        model: A compiled `MaskedLM` or `DualEncoder` whose optimiser is built, as deep
            as the first stage, or shallower: then it is grown first (but for a recipe
            of one stage, where it keeps its depth).
        batches: From a step to the `tf.data.Dataset` of the batches from there on,
            which must hold all up to `train_steps`.
        recipe: Its stages, its seed and its batch size are used here.
        **options: Of `labse_tf.training.Session`: `checkpoint_every`, `log_every`,
            `unit`, `progress`.

    Returns:
        The trained model; another object than `model` where it has grown.

    Raises:
        labse_tf.training.Interrupted: On SIGTERM or SIGINT, after a checkpoint.
        ValueError: If the model cannot grow to the first stage's depth, or the loss is
            not finite any more.

    References:
        Feng et al., 2022, section 4.1 (https://arxiv.org/abs/2007.01852).
    """
    stages = recipe.stage_plan()
    checkpoint = run.newest_checkpoint()
    start = 0 if checkpoint is None else checkpoint.step
    with Session(
        run, stages, start=start, batch_size=recipe.batch_size, **options
    ) as session:
        for stage in stages:
            # The checkpoint at a stage's last step is that of the shallower model.
            if start > stage.end:
                continue
            # With one stage a loaded model keeps the depth it has.
            if len(stages) > 1 and _backbone(model).num_layers != stage.num_layers:
                # New layers' weights and the states of dropout come out alike in an
                # undisturbed run and a resumed one.
                keras.utils.set_random_seed(recipe.seed + stage.number)
                model = grow(model, stage.num_layers)
            if checkpoint is not None:
                run.assign(model, checkpoint)
                checkpoint = None
            session.fit(model, batches, stage)
    return model


def grow(model: Growing, num_layers: int) -> Growing:
    """Makes a deeper model out of a compiled one, with the optimiser's state.

    The backbone is stacked (see `stack`), everything else goes along: the masked-LM
    head, the pooling's token weights, the loss, the moments and the step count.

    Args:
        model: A compiled `MaskedLM`, or a `DualEncoder` around a `LaBSE`; its
            optimiser is built.
        num_layers: Of the new one; a multiple of the old one's.

    Returns:
        A compiled model with the same optimiser settings, in the same strategy.

    Raises:
        ValueError: If it is another kind of model, or the depths do not fit.

    Example:
        >>> import labse_tf
        >>> from labse_tf.pretraining import grow
        >>> bag = labse_tf.LaBSEBackbone(9, 0, 2, 8, 16)
        >>> encoder = labse_tf.LaBSE(bag, None, "mean")
        >>> dual = labse_tf.DualEncoder(encoder)
        >>> dual.compile(loss=labse_tf.losses.AdditiveMarginSoftmax())
        >>> dual.optimizer.build(dual.trainable_variables)
        >>> grow(dual, 2).encoder.backbone.num_layers
        2
    """
    old_backbone = _backbone(model)
    settings: dict[str, Any] = {"jit_compile": model.jit_compile}
    with _scope(model):
        backbone = stack(old_backbone, num_layers)
        new: Any
        if isinstance(model, MaskedLM):
            new = MaskedLM(backbone, model.head)
        else:
            old: LaBSE = model.encoder
            encoder = LaBSE(backbone, old.preprocessor, pooling=old.pooling)
            _copy_weights(
                old.sentence_pooling.weights, encoder.sentence_pooling.weights
            )
            new = DualEncoder(
                encoder, model.chunk_size, length_groups=model.length_groups
            )
            settings["loss"] = model.pair_loss
            settings["metrics"] = [
                type(metric).from_config(metric.get_config())
                for metric in model.pair_metrics
            ]
        optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
        new.compile(optimizer, **settings)
        optimizer.build(new.trainable_variables)
        stack_moments(
            model.optimizer,
            model.trainable_variables,
            optimizer,
            new.trainable_variables,
            old_backbone.num_layers,
        )
    return new


def _backbone(model: keras.Model) -> LaBSEBackbone:
    """The part of a model that grows."""
    if isinstance(model, MaskedLM):
        return model.backbone
    if isinstance(model, DualEncoder) and isinstance(model.encoder, LaBSE):
        return model.encoder.backbone
    raise ValueError(
        "Expected a MaskedLM, or a DualEncoder around a LaBSE. "
        f"Received: {type(model).__name__}"
    )


def _scope(model: keras.Model) -> Any:
    """The scope of the strategy that a model was made in."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    return model.distribute_strategy.scope()


def _copy_weights(sources: list[keras.Variable], targets: list[keras.Variable]) -> None:
    """Gives one layer's weights to another of the same kind."""
    for source, target in zip(sources, targets, strict=True):
        target.assign(_copied(source))


def stack(backbone: LaBSEBackbone, num_layers: int) -> LaBSEBackbone:
    """Makes a deeper backbone out of a trained one.

    From L > 0 layers, block i becomes a copy of block `i mod L` and everything else
    is copied, as in progressive stacking.

    From 0 layers (ours, not the paper's) the function stays what it was: the new
    blocks' output projections are zero, so that each block normalises what is
    normalised already; the embedding norm's scale and shift move to the last block's
    norm, where they come last again. Exact but for dropout.

    Args:
        backbone: Trained, with L layers.
        num_layers: Of the new one; a multiple of L.

    Returns:
        A new backbone; the old one is untouched.

    Raises:
        ValueError: If L does not divide `num_layers`.

    References:
        Feng et al., 2022, section 4.1 (https://arxiv.org/abs/2007.01852); Gong et
        al., 2019 (https://proceedings.mlr.press/v97/gong19a.html).
    """
    layers = backbone.num_layers
    if num_layers < layers or (layers and num_layers % layers):
        raise ValueError(
            f"`num_layers` must be a multiple of the backbone's {layers} layers. "
            f"Received: num_layers={num_layers}"
        )
    config = backbone.get_config()
    config.pop("name")
    config["num_layers"] = num_layers
    new = LaBSEBackbone.from_config(config)
    old_weights = {weight.path: weight for weight in backbone.weights}
    for weight in new.weights:
        source = _origin(weight.path, layers)
        if source in old_weights:
            weight.assign(_copied(old_weights[source]))
    if not layers and num_layers:
        _keep_function(new)
    return new


def stack_moments(
    old_optimizer: keras.optimizers.Optimizer,
    old_variables: list[keras.Variable],
    new_optimizer: keras.optimizers.Optimizer,
    new_variables: list[keras.Variable],
    num_layers: int,
) -> None:
    """Carries an optimiser's state over to the stacked model's optimiser.

    The step count goes along, so that a learning-rate schedule runs on; each weight
    gets the moments of the weight it was copied from. Weights that came from nowhere
    (blocks grown from zero layers) keep theirs at zero.

    Args:
        old_optimizer: Built for `old_variables`.
        old_variables: Trainable variables before stacking.
        new_optimizer: Of the same class, built for `new_variables`; changed.
        new_variables: Trainable variables after stacking.
        num_layers: Layers before stacking, L.

    Raises:
        ValueError: If the optimisers differ in class.
    """
    if type(old_optimizer) is not type(new_optimizer):
        raise ValueError(
            "Both optimisers must be of one class. Received: "
            f"{type(old_optimizer).__name__} and {type(new_optimizer).__name__}"
        )
    new_optimizer.iterations.assign(old_optimizer.iterations)
    if isinstance(old_optimizer, keras.optimizers.LossScaleOptimizer):
        for name in ("step_counter", "dynamic_scale"):
            getattr(new_optimizer, name).assign(getattr(old_optimizer, name))
    known = _slots(old_optimizer, old_variables)
    for (path, slot), variable in _slots(new_optimizer, new_variables).items():
        source = known.get((_origin(path, num_layers), slot))
        if source is not None:
            variable.assign(_copied(source))


def _copied(variable: Any) -> np.ndarray:
    """A variable's value in memory of its own.

    Two blocks are copies of one: on JAX they would share its buffer, which a step gives
    away and can give away once only.
    """
    return np.array(ops.convert_to_numpy(variable), copy=True)


def _origin(path: str, layers: int) -> str:
    """The path of the weight that a weight of a stacked model is copied from."""
    if not layers:
        return path
    return _LAYER.sub(lambda m: f"transformer_layer_{int(m[1]) % layers}", path)


def _slots(
    optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]
) -> dict[tuple[str, str], Any]:
    """An optimiser's slot variables by the path of their weight and their kind."""
    found = {}
    # Keras names a slot after its weight, with the slashes replaced. Longest first:
    # one weight's path may begin like another's.
    prefixes = sorted(
        ((v.path.replace("/", "_") + "_", v.path) for v in variables),
        key=lambda pair: -len(pair[0]),
    )
    for slot in optimizer.variables:
        name = slot.path.split("/", 1)[-1]
        for prefix, path in prefixes:
            if name.startswith(prefix):
                found[path, name[len(prefix) :]] = slot
                break
    return found


def _keep_function(backbone: LaBSEBackbone) -> None:
    """Makes new blocks on a backbone without blocks hand on what they are given."""
    weights = {weight.path: weight for weight in backbone.weights}
    for path, weight in weights.items():
        if _LAYER.match(path) and re.search(
            r"/(attention_output|feedforward_output_dense)/(kernel|bias)$", path
        ):
            weight.assign(np.zeros(weight.shape, dtype=np.float32))
    last = f"transformer_layer_{backbone.num_layers - 1}/feedforward_layer_norm"
    for name, neutral in (("gamma", 1.0), ("beta", 0.0)):
        embedding = weights[f"embeddings_layer_norm/{name}"]
        weights[f"{last}/{name}"].assign(embedding)
        embedding.assign(np.full(embedding.shape, neutral, dtype=np.float32))
