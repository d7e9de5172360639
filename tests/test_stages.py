"""Runs in stages: growth keeps the function, resumed = undisturbed, one schedule."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.errors import Fields, raises, warns
from helpers.memory import is_empty, share
from labse_tf.data import ParallelCorpus, SentencePair
from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.models import DualEncoder, LaBSE, LaBSEBackbone
from labse_tf.models.masked_lm import MaskedLM
from labse_tf.optimizers import WarmupLinearDecay, adamw
from labse_tf.pretraining import grow
from labse_tf.recipes import PretrainingRecipe, Recipe
from labse_tf.training import (
    Interrupted,
    Run,
    RunOptions,
    fitting,
    train_dual_encoder,
)

WORDS = "sun moon star sky day night".split()
OTHER = "sol luna astro cielo dia noche".split()
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *OTHER]

slow = pytest.mark.slow

RECIPE = Recipe(
    num_layers=1,
    num_heads=2,
    hidden_dim=16,
    intermediate_dim=32,
    max_sequence_length=16,
    dropout=0.2,
    pooling="weighted_mean",
    sequence_length=16,
    batch_size=16,
    train_steps=8,
    stages=((0, 4),),
    optimizer="lazy_adamw",
    learning_rate=5e-3,
    warmup_steps=2,
)


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(TOKENS) + "\n")
    return path


@pytest.fixture(scope="module")
def corpus() -> ParallelCorpus:
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 6, rng.integers(3, 9)) for _ in range(200)]
    return ParallelCorpus(
        SentencePair(
            " ".join(WORDS[i] for i in row), " ".join(OTHER[i] for i in row), "es"
        )
        for row in rows
    )


def train(
    corpus: ParallelCorpus, output: Path, vocabulary: Path, **changes: object
) -> LaBSE:
    return train_dual_encoder(
        dataclasses.replace(RECIPE, **changes),
        corpus,
        output,
        vocabulary=vocabulary,
        options=RunOptions(checkpoint_every=3, log_every=3, progress=False),
    )


@pytest.fixture(scope="module")
def quiet(corpus, vocabulary, tmp_path_factory) -> Path:
    """The folder of a run that nothing disturbed; read only."""
    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("stages") / "quiet"
    train(corpus, folder, vocabulary)
    return folder


def log_of(folder: Path) -> list[dict]:
    lines = (folder / "training_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def assert_same_weights(one: LaBSE, two: LaBSE) -> None:
    values = [{w.path: np.asarray(w) for w in model.weights} for model in (one, two)]
    assert values[0].keys() == values[1].keys()
    for path, value in values[0].items():
        np.testing.assert_allclose(values[1][path], value, atol=1e-6, err_msg=path)


def events(folder: Path) -> list[tuple[int, str, float]]:
    (path,) = folder.glob("events.out.tfevents.*")
    found = []
    for record in tf.data.TFRecordDataset([str(path)]):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            number = float(tf.make_ndarray(value.tensor))
            found.append((event.step, value.tag, number))
    return found


# === Growing ===


def compiled(kind: str, num_layers: int, pooling: str = "weighted_mean") -> keras.Model:
    """A model whose weights, moments and step count are all random."""
    backbone = LaBSEBackbone(len(TOKENS), num_layers, 2, 16, 32, dropout=0.0)
    optimizer = adamw(0.01, weight_decay=0.1, clip_norm=1.0)
    model: keras.Model
    if kind == "masked":
        model = MaskedLM(backbone, chunk_size=7)
        model.compile(optimizer)
    else:
        model = DualEncoder(LaBSE(backbone, pooling=pooling))
        model.compile(optimizer, AdditiveMarginSoftmax(0.2, 7.0))
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    for variable in [*model.weights, *optimizer.variables[2:]]:
        variable.assign(rng.normal(0.5, 0.3, size=variable.shape))
    optimizer.iterations.assign(17)
    return model


def features(rng: np.random.Generator) -> dict[str, np.ndarray]:
    mask = np.arange(9) < np.array([[9], [5], [2], [1]])
    ids = rng.integers(1, len(TOKENS), (4, 9)) * mask
    return {
        "token_ids": ids.astype(np.int32),
        "segment_ids": np.zeros((4, 9), np.int32),
        "padding_mask": mask.astype(np.int32),
    }


def both_sides() -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    return {"source": features(rng), "target": features(rng)}


@pytest.mark.parametrize("pooling", ["mean", "weighted_mean"])
def test_a_dual_encoder_grown_from_zero_layers_is_the_same_function(pooling) -> None:
    old = compiled("dual", 0, pooling)
    new = grow(old, 3)
    assert new.encoder.backbone.num_layers == 3
    one, two = old(both_sides()), new(both_sides())
    for side in ("source", "target"):
        np.testing.assert_allclose(one[side], two[side], atol=1e-5)
    losses = [
        m.test_on_batch(both_sides(), return_dict=True)["loss"] for m in (old, new)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("kind", ["masked", "dual"])
def test_growing_takes_everything_along(kind) -> None:
    old = compiled(kind, 1)
    before = {w.path: np.asarray(w) for w in old.weights}
    slots = {
        v.path.split("/", 1)[1]: np.asarray(v) for v in old.optimizer.variables[2:]
    }
    new = grow(old, 2)
    for weight in new.weights:
        path = weight.path.replace("transformer_layer_1", "transformer_layer_0")
        np.testing.assert_array_equal(np.asarray(weight), before[path], err_msg=path)
    for slot in new.optimizer.variables[2:]:
        name = slot.path.split("/", 1)[1]
        name = name.replace("transformer_layer_1", "transformer_layer_0")
        np.testing.assert_array_equal(np.asarray(slot), slots[name], err_msg=name)
    assert int(new.optimizer.iterations) == 17
    settings = [m.optimizer.get_config() for m in (old, new)]
    assert settings[0] == settings[1]
    if kind == "masked":
        assert new.head is old.head
    else:
        assert new.pair_loss is old.pair_loss
        assert [type(m) for m in new.pair_metrics] == [
            type(m) for m in old.pair_metrics
        ]
        assert new.encoder.pooling == "weighted_mean"
    # It trains: another step moves the weights of both blocks.
    if kind == "dual":
        blocks = [w for w in new.trainable_weights if "transformer_layer" in w.path]
        moved = [np.asarray(w) for w in blocks]
        new.train_on_batch(both_sides())
        assert not any(
            np.array_equal(np.asarray(w), b) for w, b in zip(blocks, moved, strict=True)
        )


@pytest.mark.parametrize(("kind", "layers"), [("masked", 1), ("dual", 0)])
def test_growing_copies_no_table_and_leaves_the_old_model(kind, layers) -> None:
    old = compiled(kind, layers)
    values = [np.asarray(v).copy() for v in old.variables + old.optimizer.variables]
    new = grow(old, 2)
    tables = [
        [v for v in m.weights + m.optimizer.variables if "token_embedding" in v.path]
        for m in (old, new)
    ]
    assert [len(found) for found in tables] == [3, 3]  # With two moments.
    for one, two in zip(*tables, strict=True):
        assert share(one, two)
    # Memory is shared only until a step changes it.
    for variable in [*new.trainable_variables, *new.optimizer.variables]:
        variable.assign_add(np.ones(variable.shape, variable.dtype))
    kept = {id(v) for v in new.variables}
    for variable, value in zip(
        old.variables + old.optimizer.variables, values, strict=True
    ):
        if id(variable) not in kept:
            np.testing.assert_array_equal(variable, value, err_msg=variable.path)


def test_only_our_models_grow() -> None:
    other = keras.Sequential([keras.layers.Dense(2)])
    dual = DualEncoder(other)
    dual.compile(loss=AdditiveMarginSoftmax())
    for model in (other, dual):
        with raises(ValueError, "MaskedLM", "DualEncoder", received=True):
            grow(model, 2)


# === A run in stages ===


def test_a_model_that_has_grown_is_freed(
    tmp_path, corpus, vocabulary, monkeypatch
) -> None:
    grown = []

    def note(model: keras.Model, num_layers: int) -> keras.Model:
        grown.append((model, grow(model, num_layers)))
        return grown[-1][1]

    monkeypatch.setattr(fitting, "grow", note)
    train(corpus, tmp_path / "run", vocabulary)
    ((old, _),) = grown
    assert all(map(is_empty, [*old.weights, *old.optimizer.variables]))


def test_a_head_that_the_deeper_model_has_is_not_freed() -> None:
    old = compiled("masked", 1)
    new = fitting.grown(old, 2)
    head = {id(v) for v in new.head.variables}
    assert head
    for variable in old.variables:
        assert is_empty(variable) != (id(variable) in head), variable.path


def test_stages_in_the_log_and_the_schedule(quiet) -> None:
    assert LaBSE.from_preset(quiet).backbone.num_layers == 1
    log = log_of(quiet)
    # Every third step, and where a stage ends.
    steps = [(entry["step"], entry["stage"]) for entry in log]
    assert steps == [(3, 1), (4, 1), (6, 2), (8, 2)]
    schedule = WarmupLinearDecay(5e-3, 8, warmup_steps=2)
    for entry in log:
        rate = float(schedule(entry["step"]))
        assert entry["learning_rate"] == pytest.approx(rate, rel=1e-3)


@slow
def test_a_run_in_three_stages_learns(tmp_path, corpus, vocabulary) -> None:
    train(
        corpus,
        tmp_path / "run",
        vocabulary,
        num_layers=2,
        train_steps=90,
        stages=((0, 30), (1, 30)),
        learning_rate=1e-2,
    )
    log = log_of(tmp_path / "run")
    ends = [next(e for e in log if e["step"] == step) for step in (3, 30, 60, 90)]
    losses = [entry["loss"] for entry in ends]
    assert losses == sorted(losses, reverse=True)
    # Deeper by a block, it goes on where it was.
    after = next(e for e in log if e["step"] == 33)
    assert after["loss"] < (losses[0] + losses[1]) / 2


@pytest.mark.parametrize("stop", [*(pytest.param(k, marks=slow) for k in (2, 6)), 4])
def test_resumed_in_any_stage_is_undisturbed(
    tmp_path, corpus, vocabulary, quiet, monkeypatch, stop
) -> None:
    """Step 4 is the last one of a stage: the checkpoint is that of the shallower."""

    def stop_here(self, batch: int, logs: object = None) -> None:
        original(self, batch, logs)
        if self.step == stop:
            os.kill(os.getpid(), signal.SIGTERM)

    from labse_tf.training.reporting import Reporter

    original = Reporter.on_train_batch_end
    monkeypatch.setattr(Reporter, "on_train_batch_end", stop_here)
    with pytest.raises(Interrupted) as caught:
        train(corpus, tmp_path / "disturbed", vocabulary)
    assert caught.value.step == stop
    monkeypatch.setattr(Reporter, "on_train_batch_end", original)
    keras.utils.set_random_seed(2)  # A new process begins with other random numbers.
    resumed = train(corpus, tmp_path / "disturbed", vocabulary)
    assert_same_weights(LaBSE.from_preset(quiet), resumed)
    log = log_of(tmp_path / "disturbed")
    steps = [entry["step"] for entry in log]
    assert steps == sorted(set(steps))
    # TensorBoard sees one run, over all stages and processes.
    expected = [
        (entry["step"], name, value)
        for entry in log
        for name, value in entry.items()
        if name != "step"
    ]
    found = events(tmp_path / "disturbed" / "tensorboard")
    assert [(step, name) for step, name, _ in found] == [
        (step, name) for step, name, _ in expected
    ]
    np.testing.assert_allclose([f[2] for f in found], [e[2] for e in expected], 1e-6)


@slow
def test_a_damaged_checkpoint_falls_back_to_an_earlier_stage(
    tmp_path, corpus, vocabulary, quiet, monkeypatch
) -> None:
    saved = Run.save

    def crash(self: Run, model: keras.Model, step: int) -> None:
        saved(self, model, step)
        if step == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", crash)
    output = tmp_path / "disturbed"
    with pytest.raises(KeyboardInterrupt):
        train(corpus, output, vocabulary)
    monkeypatch.setattr(Run, "save", saved)
    newest = output / "checkpoints" / "step_0000000006.npz"
    newest.write_bytes(newest.read_bytes()[:1000])
    with warns(UserWarning, path="step_0000000006.npz"):
        resumed = train(corpus, output, vocabulary)
    assert_same_weights(LaBSE.from_preset(quiet), resumed)


@pytest.mark.slow
def test_a_preset_is_grown(tmp_path, corpus, vocabulary) -> None:
    """A loaded bag of tokens gets its layers in a later run."""
    bag = train(corpus, tmp_path / "bag", vocabulary, num_layers=0, stages=())
    # As many layers as in the end, so none is copied, which would change something.
    recipe = dataclasses.replace(
        RECIPE, num_layers=2, stages=((2, 1),), train_steps=3, learning_rate=1e-9
    )
    grown = train_dual_encoder(
        recipe,
        corpus,
        tmp_path / "grown",
        model=tmp_path / "bag",
        options=RunOptions(progress=False),
    )
    assert grown.backbone.num_layers == 2
    texts = [" ".join(WORDS[:k]) for k in range(6)]
    np.testing.assert_allclose(grown.encode(texts), bag.encode(texts), atol=1e-4)


def test_a_preset_keeps_its_depth_where_there_are_no_stages(
    tmp_path, corpus, vocabulary
) -> None:
    train(corpus, tmp_path / "bag", vocabulary, num_layers=0, stages=(), train_steps=3)
    recipe = dataclasses.replace(RECIPE, stages=(), train_steps=3)  # of one layer
    tuned = train_dual_encoder(
        recipe,
        corpus,
        tmp_path / "tuned",
        model=tmp_path / "bag",
        options=RunOptions(progress=False),
    )
    assert tuned.backbone.num_layers == 0


# === The recipe's stages ===


def test_the_papers_stages_by_hand() -> None:
    plan = PretrainingRecipe(num_layers=12, train_steps=3_000_000).stage_plan()
    assert [tuple(stage) for stage in plan] == [
        (1, 3, 0, 400_000),
        (2, 6, 400_000, 1_200_000),
        (3, 12, 1_200_000, 3_000_000),
    ]
    # However few the steps, each stage has one.
    ends = [s.end for s in PretrainingRecipe(train_steps=3).stage_plan()]
    assert ends == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stages": ((2, 5), (3, 5))},
            Fields(12, argument="stages", received=True),
        ),
        ({"stages": ((5, 5),)}, Fields("stages=5", 5, argument="stages")),
        ({"stages": ((24, 5),)}, Fields("stages=24", 5, argument="stages")),
        ({"stages": ((3, 0),)}, Fields("stages=3", 0, argument="stages")),
        ({"stages": ((3, 100),)}, Fields("train_steps=100", argument="train_steps")),
        ({"stages": None, "num_layers": 6}, Fields(4, 6, argument="stages")),
    ],
)
def test_stages_that_make_no_sense(changes, message) -> None:
    recipe = Recipe(**{"num_layers": 12, "train_steps": 100} | changes)
    with raises(ValueError, message):
        recipe.check()
