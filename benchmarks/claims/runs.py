"""A run: from a plan and a seed to scores, and what it starts from."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

from claims import text
from claims.settings import (
    FEED_FORWARD,
    HEADS,
    LANGUAGES,
    LAYERS,
    PREDICTIONS,
    ROW_LENGTH,
    ROWS,
    SENTENCE_LENGTH,
    UNSPACED,
    WIDTH,
    Plan,
    Pretraining,
    Scale,
)
from labse_tf.files import write_text


class Place(NamedTuple):
    """Where text comes from and results go.

    Attributes:
        data: Has `corpus/`, `tatoeba/` and `dev/tico19/`.
        work: The output folder.
        scale: How large everything is.
        threads: Of a process.
    """

    data: Path
    work: Path
    scale: Scale
    threads: int


class Job(NamedTuple):
    """What a process does, and goes on with where it was stopped.

    Attributes:
        name: For a person.
        seed: Of weights, batches and noise.
        plan: Of a run; or
        pretraining: of a masked language model.
        keep: Whether others go on from the run's encoder.
    """

    name: str
    seed: int
    plan: Plan | None = None
    pretraining: Pretraining | None = None
    keep: bool = False

    def cost(self) -> float:
        """About how many seconds of a core it takes, for the progress bar."""
        if self.plan is not None:
            return self.plan.cost()
        assert self.pretraining is not None
        parts = self.pretraining.parts()
        return 10 + sum(steps * (0.03 + 0.025 * layers) for layers, steps in parts)

    def is_done(self, work: Path) -> bool:
        """Whether there is nothing left to do."""
        if self.plan is not None:
            return result_path(work, self.plan, self.seed).exists()
        assert self.pretraining is not None
        folder = pretrained_folder(work, self.pretraining, self.seed)
        return (folder / "model.weights.h5").exists()


def result_path(work: Path, plan: Plan, seed: int) -> Path:
    """Where a run's result stands, when it has ended."""
    return work / "runs" / f"{plan.key(seed)}.json"


def pretrained_folder(work: Path, pretraining: Pretraining, seed: int) -> Path:
    """The preset of a masked language model."""
    stages = "_".join(f"{layers}x{steps}" for layers, steps in pretraining.stages)
    name = f"tlm{pretraining.tlm_share:g}_{stages or 'whole'}_{pretraining.steps}"
    return work / "pretrained" / f"{name}_seed{seed}"


def do(job: Job, place: Place) -> dict[str, Any]:
    """Does a job in a process of its own.

    Returns:
        A run's result; nothing for a pre-training.
    """
    import tensorflow as tf

    # The collectives of several replicas wait for each other: a thread each.
    if job.plan is None or job.plan.replicas == 1:
        tf.config.threading.set_intra_op_parallelism_threads(place.threads)
        tf.config.threading.set_inter_op_parallelism_threads(place.threads)
    if job.pretraining is not None:
        pretrained(job.pretraining, job.seed, place)
        return {}
    assert job.plan is not None
    if job.keep:
        bag(job.plan, job.seed, place)
        return read_result(place.work, job.plan, job.seed)
    return run(job.plan, job.seed, place)


def read_result(work: Path, plan: Plan, seed: int) -> dict[str, Any]:
    """What `run` wrote."""
    return json.loads(result_path(work, plan, seed).read_text(encoding="utf-8"))


def run(
    plan: Plan, seed: int, place: Place, keep: Path | None = None
) -> dict[str, Any]:
    """Trains and measures an encoder; the result is written when all is done.

    Args:
        plan: What.
        seed: Of weights, batches and noise.
        place: Where.
        keep: A folder to save the encoder in.

    Returns:
        The plan, the seed, the scores by set and language, the share of [UNK] by
        language, notes (the mean loss and others), and seconds.
    """
    started = time.perf_counter()
    corpus, notes = training_corpus(plan, seed, place)
    dual = compiled(plan, seed, place)
    encoder = dual.encoder
    prepared = time.perf_counter()
    if plan.steps:
        notes["loss"] = fit(dual, corpus, plan, seed)
    trained = time.perf_counter()
    scores, unknown = measure(plan, encoder, place)
    if plan.pretraining is not None:
        notes["pretraining_loss"] = pretraining_loss(plan.pretraining, seed, place)
    result = {
        "key": plan.key(seed),
        "plan": dataclasses.asdict(plan),
        "seed": seed,
        "scores": scores,
        "unknown": unknown,
        "notes": {name: round(value, 4) for name, value in notes.items()},
        "seconds": {
            "training": round(trained - prepared, 1),
            "all": round(time.perf_counter() - started, 1),
        },
    }
    if keep is not None:
        encoder.save_to_preset(keep)
    path = result_path(place.work, plan, seed)
    write_text(path, json.dumps(result) + "\n")
    return result


def fit(dual: Any, corpus: Any, plan: Plan, seed: int) -> float:
    """Trains for a plan's steps; returns the mean loss."""
    from labse_tf.data import SamplingPlan, sentence_pairs

    sampling = SamplingPlan(
        plan.batch_size,
        steps=plan.steps,
        seed=seed,
        batches=plan.batches,  # type: ignore[arg-type]
    )
    batches = sentence_pairs(corpus, dual.encoder.text_preprocessor(), sampling)
    history = dual.fit(batches, shuffle=False, verbose=0).history
    return float(history["loss"][-1])


def training_corpus(
    plan: Plan, seed: int, place: Place
) -> tuple[Any, dict[str, float]]:
    """The pairs of a plan, and what there is to say of them."""
    from labse_tf.data import ParallelCorpus

    pairs = text.training_pairs(plan, seed, place.work, place.scale)
    notes: dict[str, float] = {}
    if plan.filtered:
        clean = dataclasses.replace(plan, shuffled=0.0)
        pairs, notes = text.filtered(
            pairs,
            text.training_pairs(clean, seed, place.work, place.scale),
            scorer(place),
            place.work / "filter" / plan.key(seed),
            seed,
        )
    return ParallelCorpus(row for rows in pairs.values() for row in rows), notes


def compiled(plan: Plan, seed: int, place: Place) -> Any:
    """The dual encoder of a plan before its first step."""
    import keras

    from labse_tf.distribute import get_strategy
    from labse_tf.losses import AdditiveMarginSoftmax
    from labse_tf.models import DualEncoder
    from labse_tf.recipes import Recipe
    from labse_tf.training import make_optimizer

    recipe = Recipe(
        learning_rate=plan.learning_rate,
        train_steps=max(1, plan.steps),
        warmup_steps=plan.steps // 10,
    )
    several = plan.replicas > 1
    strategy = get_strategy(f"cpu:{plan.replicas}" if several else "one_device")
    keras.utils.set_random_seed(seed)
    with strategy.scope():
        dual = DualEncoder(starting_encoder(plan, seed, place))
        optimizer = make_optimizer(recipe, lazy=True)
        loss = AdditiveMarginSoftmax(
            plan.margin,
            plan.scale,
            cross_replica=plan.cross_replica,
            mask_duplicates=plan.mask_duplicates,
        )
        dual.compile(optimizer=optimizer, loss=loss)
        optimizer.build(dual.trainable_variables)
    return dual


def starting_encoder(plan: Plan, seed: int, place: Place) -> Any:
    """New, pre-trained, or an encoder without layers that has grown."""
    from labse_tf.models import LaBSE, LaBSEBackbone
    from labse_tf.preprocessing import SentencePreprocessor
    from labse_tf.tokenizers import WordPieceTokenizer

    if plan.pretraining is not None:
        model = pretrained(plan.pretraining, seed, place)
        return LaBSE(model.backbone, model.preprocessor, pooling=plan.pooling)
    if plan.bag is not None:
        model = bag(plan.bag, seed, place)
        grown = with_layers(model.backbone, plan.num_layers, plan.keep_function)
        return LaBSE(grown, model.preprocessor, pooling=plan.pooling)
    vocabulary = text.vocabulary(plan, place.work, place.scale)
    tokenizer = WordPieceTokenizer(vocabulary, compat=plan.compat)
    backbone = LaBSEBackbone(
        tokenizer.vocabulary_size,
        plan.num_layers,
        HEADS,
        WIDTH,
        FEED_FORWARD,
        dropout=0.0,
        max_sequence_length=SENTENCE_LENGTH,
    )
    preprocessor = SentencePreprocessor(tokenizer, SENTENCE_LENGTH)
    return LaBSE(backbone, preprocessor, pooling=plan.pooling)


def with_layers(backbone: Any, num_layers: int, keep_function: bool) -> Any:
    """A deeper backbone out of one without layers."""
    from labse_tf.pretraining import stack

    if keep_function or not num_layers:
        return stack(backbone, num_layers)
    config = backbone.get_config()
    config.pop("name")
    new = type(backbone).from_config({**config, "num_layers": num_layers})
    known = {weight.path: weight for weight in backbone.weights}
    for weight in new.weights:
        if weight.path in known:
            weight.assign(known[weight.path])
    return new


def bag(plan: Plan, seed: int, place: Place) -> Any:
    """The trained encoder of a plan, run for it where it is not there yet."""
    from labse_tf.models import LaBSE

    folder = place.work / "models" / plan.key(seed)
    with text.made_once(folder) as missing:
        if missing:
            run(plan, seed, place, keep=folder)
    return LaBSE.from_preset(folder)


def scorer(place: Place) -> Path:
    """The encoder that pairs are filtered by; its pairs are nobody else's."""
    import keras

    from labse_tf.data import ParallelCorpus

    plan = Plan(steps=place.scale.bag_steps)
    folder = place.work / "models" / "scorer"
    with text.made_once(folder) as missing:
        if missing:
            dual = compiled(plan, 0, place)
            pairs = ParallelCorpus(
                row
                for language in LANGUAGES
                for row in text.read_text(
                    place.work, "scorer", language, place.scale.scorer_pairs
                )
            )
            fit(dual, pairs, plan, 0)
            dual.encoder.save_to_preset(folder)
            del dual
            keras.backend.clear_session()
    return folder


def pretrained(pretraining: Pretraining, seed: int, place: Place) -> Any:
    """The masked language model's encoder, trained where it is not there yet."""
    from labse_tf.data import ParallelCorpus
    from labse_tf.pretraining import pretrain
    from labse_tf.recipes import PretrainingRecipe
    from labse_tf.training import RunOptions

    folder = pretrained_folder(place.work, pretraining, seed)
    with text.made_once(folder):
        plan = Plan()
        pairs = ParallelCorpus(
            row
            for rows in text.training_pairs(
                plan, seed, place.work, place.scale
            ).values()
            for row in rows
        )
        both = pretraining.tlm_share > 0
        recipe = PretrainingRecipe(
            num_layers=LAYERS,
            num_heads=HEADS,
            hidden_dim=WIDTH,
            intermediate_dim=FEED_FORWARD,
            dropout=0.0,
            max_sequence_length=SENTENCE_LENGTH,
            sequence_length=ROW_LENGTH,
            batch_size=ROWS,
            train_steps=pretraining.steps,
            warmup_steps=pretraining.steps // 20,
            stages=pretraining.stages,
            learning_rate=1e-3,
            max_predictions=PREDICTIONS,
            tlm_share=pretraining.tlm_share,
            seed=seed,
        )
        return pretrain(
            recipe,
            pairs if both else None,
            None if both else pairs.to_sentences(),
            folder,
            vocabulary=text.vocabulary(plan, place.work, place.scale),
            options=RunOptions(checkpoint_every=200, progress=False),
        )


def pretraining_loss(pretraining: Pretraining, seed: int, place: Place) -> float:
    """Mean over the last tenth of the steps."""
    log = pretrained_folder(place.work, pretraining, seed) / "training_log.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    last = [e["loss"] for e in entries if e["step"] > pretraining.steps * 0.9]
    return statistics.mean(last)


def measure(
    plan: Plan, encoder: Any, place: Place
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Accuracy by set and language, and the share of [UNK] by language."""
    from labse_tf import evaluation
    from labse_tf.tokenizers import unk_rate

    scores, unknown = {}, {}
    tokenizer = encoder.preprocessor.tokenizer
    # Languages that were left out, too.
    languages = UNSPACED if plan.languages == UNSPACED else LANGUAGES
    sets = test_sets(place, languages)
    for name, pairs in sets.items():
        result = evaluation.retrieval(encoder.encode, pairs)
        scores[name] = {code: round(x, 4) for code, x in result.accuracy.items()}
    for code in languages:
        sides = [pairs[code][1] for pairs in sets.values() if code in pairs]
        rates = unk_rate(
            sides, tokenizer, reader=lambda side, code=code: ((code, x) for x in side)
        )
        unknown[code] = round(rates[code], 5)
    return scores, unknown


def test_sets(
    place: Place, languages: tuple[str, ...]
) -> dict[str, dict[str, tuple[list[str], list[str]]]]:
    """TICO-19 and Tatoeba, those of the languages that they have."""
    from labse_tf import data, evaluation

    count = place.scale.sentences
    tico19 = {}
    for code in languages:
        path = place.data / "dev" / "tico19" / f"en-{code}.tsv.gz"
        if path.exists():
            rows = list(data.read_pairs(path, on_error="skip"))[:count]
            tico19[code] = [x.source for x in rows], [x.target for x in rows]
    there = evaluation.tatoeba_pairs(place.data / "tatoeba")
    tatoeba = {
        code: (there[code][0][:count], there[code][1][:count])
        for code in languages
        if code in there
    }
    return {"tico19": tico19, "tatoeba": tatoeba}
