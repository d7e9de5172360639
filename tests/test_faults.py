"""Losses that are no numbers, full disks, several steps an execution, callbacks."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.errors import raises
from helpers.runs import (
    RECIPE,
    TOKENS,
    command,
    log_of,
    make_pairs,
    start,
    wait_for_step,
    weights,
)
from labse_tf import presets
from labse_tf.cli import main
from labse_tf.data import ParallelCorpus, SamplingPlan, sentence_pairs
from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.models import DualEncoder, LaBSE, LaBSEBackbone
from labse_tf.optimizers import LossScaleOptimizer, adamw
from labse_tf.pretraining import grow
from labse_tf.training import (
    Interrupted,
    Run,
    RunOptions,
    compile_dual_encoder,
    train_dual_encoder,
    untrained_encoder,
)

slow = pytest.mark.slow


def run(corpus, output: Path, vocabulary: Path, **options) -> LaBSE:
    settings = {"checkpoint_every": 4, "log_every": 2, "progress": False}
    changes = options.pop("recipe", {})
    return train_dual_encoder(
        dataclasses.replace(RECIPE, **changes),
        corpus,
        output,
        vocabulary=vocabulary,
        options=RunOptions(**{**settings, **options}),
    )


def assert_equal(one: LaBSE, two: LaBSE) -> None:
    for first, second in zip(weights(one), weights(two), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


# === Several steps an execution ===


def test_several_steps_an_execution_are_the_same_steps(
    tmp_path,
    corpus,
    text,
    monkeypatch,
) -> None:
    """Fourteen steps by fives: two executions and four single ones, once interrupted.

    The signal comes in the second execution, which ends at step 10.
    """
    changes = {"train_steps": 14}
    one = run(corpus, tmp_path / "one", text[1], recipe=changes)
    saved, original = [], Run.save

    def note(self: Run, model: keras.Model, step: int) -> None:
        original(self, model, step)
        saved.append(step)
        if saved == [5]:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "save", note)
    several = {"recipe": changes, "steps_per_execution": 5, "log_every": 3}
    with pytest.raises(Interrupted) as stop:
        run(corpus, tmp_path / "five", text[1], **several)
    assert stop.value.step == 10
    five = run(corpus, tmp_path / "five", text[1], **several)
    assert_equal(one, five)
    # Every fourth step, or the end of the execution that reached it.
    assert saved == [5, 10, 12, 14]
    log = log_of(tmp_path / "five")
    assert [entry["step"] for entry in log] == [5, 10, 12, 14]
    # A window's mean is over all its steps.
    losses = {entry["step"]: entry["loss"] for entry in log_of(tmp_path / "one")}
    assert log[-1]["loss"] == pytest.approx(losses[14], abs=1e-4)


# === A loss that is no number ===


def features(count: int, length: int, seed: int = 0) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(seed).integers(5, len(TOKENS), (count, length))
    ids = ids.astype(np.int32)
    return {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}


class Poisoned(keras.layers.Layer):
    """An encoder whose vectors are no numbers where a sentence begins with token 5."""

    def __init__(self, encoder: LaBSE) -> None:
        super().__init__()
        self.encoder = encoder
        self.built = True

    def call(self, inputs, training=None):
        vectors = self.encoder(inputs, training=training)
        bad = keras.ops.equal(inputs["token_ids"][:, :1], 5)
        return keras.ops.where(bad, np.nan, 1.0) * vectors


def poisoned_dual(**options) -> DualEncoder:
    keras.utils.set_random_seed(1)
    chunk_size = options.pop("chunk_size", None)
    backbone = LaBSEBackbone(len(TOKENS), 1, 2, 16, 32, dropout=0.0)
    dual = DualEncoder(Poisoned(LaBSE(backbone, pooling="mean")), chunk_size)
    optimizer = adamw(0.01, weight_decay=0.1, clip_norm=1.0, **options)
    dual.compile(optimizer, AdditiveMarginSoftmax())
    optimizer.build(dual.trainable_variables)
    return dual


def batches(bad: int | None, without: bool = False) -> tf.data.Dataset:
    """Six batches of eight; token 5 stands in one of them only."""
    both = {"source": features(48, 6, 1), "target": features(48, 7, 2)}
    for side in both.values():
        side["token_ids"] = np.maximum(side["token_ids"], 6)
    if bad is not None:
        both["target"]["token_ids"][8 * bad + 3, 0] = 5
    dataset = tf.data.Dataset.from_tensor_slices(both).batch(8, drop_remainder=True)
    if without:
        return dataset.take(bad).concatenate(dataset.skip(bad + 1))
    return dataset


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"lazy": True}, marks=slow),
        pytest.param({"chunk_size": 4}, marks=slow),
    ],
)
def test_a_skipped_step_is_as_if_its_batch_had_not_been(options) -> None:
    skips, spared = (poisoned_dual(skip_nonfinite=True, **options) for _ in range(2))
    spoiled = poisoned_dual(**options)
    for dual, dataset in (
        (skips, batches(2)),
        (spared, batches(2, without=True)),
        (spoiled, batches(2)),
    ):
        dual.start_counting_at(100)
        dual.fit(dataset, shuffle=False, verbose=0)
    state = [
        [np.asarray(v) for v in (*d.weights, *d.optimizer.variables)]
        for d in (skips, spared, spoiled)
    ]
    for one, two in zip(*state[:2], strict=True):
        np.testing.assert_array_equal(one, two)
    assert any(np.isnan(x).any() for x in state[2])
    assert skips.optimizer.skipped == 1
    # The third step after the hundredth, whoever looks, and when.
    assert skips.first_nonfinite_step() == spoiled.first_nonfinite_step() == 103
    assert spared.first_nonfinite_step() == 0


# Replicas decide alike: only the second one's rows have a bad sentence.
REPLICAS = """
    import sys
    sys.path.insert(0, "tests")
    import keras
    import numpy as np
    from labse_tf import distribute
    strategy = distribute.get_strategy("cpu:2")
    from labse_tf.optimizers import LossScaleOptimizer
    import test_faults
    with strategy.scope():
        skips, spared = (
            test_faults.poisoned_dual(skip_nonfinite=True) for _ in range(2)
        )
        scaled = test_faults.poisoned_dual()
        scaled.optimizer = LossScaleOptimizer(scaled.optimizer)
        scaled.optimizer.build(scaled.trainable_variables)
    both = test_faults.batches(2), test_faults.batches(2, without=True)
    skips.fit(both[0], shuffle=False, verbose=0)
    spared.fit(both[1], shuffle=False, verbose=0)
    scaled.fit(both[0], shuffle=False, verbose=0)
    def print_difference(one, two):
        print(max(
            float(np.abs(np.asarray(a) - np.asarray(b)).max())
            for a, b in zip(one.weights, two.weights)
        ))

    print_difference(skips, spared)
    print(skips.optimizer.skipped, skips.first_nonfinite_step())
    # The loop of the graph that a TPU gets: with static shapes it can be run here.
    models = []
    with strategy.scope():
        for size in (1, 3):
            model = test_faults.poisoned_dual()
            model.steps_per_execution = size
            model._loops_in_graph = lambda: True
            models.append(model)
    for model in models:
        seen = []
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: seen.append(float(logs["loss"]))
        )
        model.fit(
            test_faults.batches(None), shuffle=False, verbose=0, callbacks=[note]
        )
        print(len(seen), seen[-1])
    print_difference(*models)
    print(float(np.asarray(scaled.optimizer.dynamic_scale)), *(
        bool(np.isfinite(np.asarray(w)).all()) for w in scaled.weights
    ))
"""


@slow
def test_replicas_skip_together(run_python) -> None:
    said = run_python(REPLICAS).splitlines()[-6:]
    difference, counts, singly, looped, between, scaled = said
    assert singly.split()[0] == "6" and looped.split()[0] == "2"
    assert float(singly.split()[1]) == pytest.approx(float(looped.split()[1]), rel=1e-6)
    assert float(between) < 1e-6
    assert float(difference) < 1e-6
    assert counts.split() == ["1", "3"]
    assert scaled.split()[0] == str(2.0**14) and "False" not in scaled


def test_a_run_says_at_which_step_and_keeps_good_checkpoints(
    tmp_path,
    corpus,
    text,
    monkeypatch,
) -> None:
    """Step 6 spoils the weights; the next line of the log would be that of step 12."""

    def spoiled(self, *sides, **ids):
        value = original(self, *sides, **ids)
        return tf.where(tf.equal(duals[-1]._watch.step.value, 5), np.nan, 1.0) * value

    duals, make = [], compile_dual_encoder
    original = AdditiveMarginSoftmax.__call__
    monkeypatch.setattr(AdditiveMarginSoftmax, "__call__", spoiled)
    monkeypatch.setattr(
        "labse_tf.training.dual_encoder.compile_dual_encoder",
        lambda *a, **k: duals.append(make(*a, **k)) or duals[-1],
    )
    output = tmp_path / "run"
    with raises(ValueError, 6):
        run(corpus, output, text[1], log_every=12)
    names = [path.name for path in (output / "checkpoints").iterdir()]
    assert names == ["step_0000000004.npz"]
    # The same command with the other flag goes on from there.
    model = run(corpus, output, text[1], log_every=4, on_nan="skip")
    assert all(np.isfinite(w).all() for w in weights(model))
    log = log_of(output)
    assert [e.get("skipped_steps") for e in log] == [1.0, None]
    assert "loss" not in log[0] and log[1]["loss"] > 0


# === float16 ===


@slow
@pytest.mark.parametrize("chunk_size", [None, 4])
def test_float16_scales_the_loss_in_every_kind_of_step(text, chunk_size) -> None:
    """An overflow leaves the step out and halves the scale; else Keras's arithmetic."""
    recipe = dataclasses.replace(
        RECIPE, dtype="float16", chunk_size=chunk_size, dropout=0.0, warmup_steps=0
    )
    keras.utils.set_random_seed(1)
    dual = compile_dual_encoder(untrained_encoder(recipe, text[1]), recipe)
    plain_recipe = dataclasses.replace(recipe, dtype="float32", chunk_size=None)
    plain = compile_dual_encoder(untrained_encoder(plain_recipe, text[1]), plain_recipe)
    assert isinstance(dual.optimizer, LossScaleOptimizer)
    assert dual.encoder.backbone.compute_dtype == "float16"
    both = {"source": features(8, 6, 1), "target": features(8, 7, 2)}
    scale = dual.optimizer.dynamic_scale
    scale.assign(1024.0)
    before = weights(dual.encoder)
    dual.train_on_batch(both)
    plain.train_on_batch(both)
    # Seen by the inner optimiser: gradients without the scale.
    moments = [
        np.concatenate([np.asarray(m).ravel() for m in optimizer._momentums])
        for optimizer in (dual.optimizer.inner_optimizer, plain.optimizer)
    ]
    assert np.linalg.norm(moments[0] - moments[1]) < 0.05 * np.linalg.norm(moments[1])
    assert int(dual.optimizer.step_counter) == 1
    after = weights(dual.encoder)
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    scale.assign(2.0**60)
    dual.train_on_batch(both)
    assert float(scale) == 2.0**59 and int(dual.optimizer.iterations) == 1
    for one, two in zip(after, weights(dual.encoder), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_scale_goes_along_where_a_model_grows() -> None:
    backbone = LaBSEBackbone(len(TOKENS), 0, 2, 16, 32, dtype="float16")
    dual = DualEncoder(LaBSE(backbone, pooling="mean"))
    dual.compile(LossScaleOptimizer(adamw(0.01)), AdditiveMarginSoftmax())
    dual.optimizer.build(dual.trainable_variables)
    dual.optimizer.dynamic_scale.assign(8.0)
    dual.fit(batches(None), shuffle=False, verbose=0)
    new = grow(dual, 2).optimizer
    assert float(new.dynamic_scale) == 8.0 and int(new.iterations) == 6
    moments = [
        {v.path: np.asarray(v) for v in optimizer.inner_optimizer.variables}
        for optimizer in (dual.optimizer, new)
    ]
    (path,) = (p for p in moments[0] if "token_embedding" in p and "momentum" in p)
    np.testing.assert_array_equal(moments[0][path], moments[1][path])
    assert np.abs(moments[1][path]).max() > 0


# === A full disk ===

FULL = """
    import resource, signal, sys
    import labse_tf.cli
    sys.stderr = sys.stdout
    # Writing more than this fails, as on a disk that is full: no file is so large but
    # a checkpoint.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = int(sys.argv[1])
    from labse_tf.training import Run
    save = Run.save

    def fill_up_after_four(self, model, step):
        if step > 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        save(self, model, step)

    Run.save = fill_up_after_four
    print(labse_tf.cli.main(sys.argv[2:]))
"""


@slow
def test_a_disk_that_fills_up_keeps_the_old_checkpoint(
    tmp_path,
    text,
    run_python,
) -> None:
    output = tmp_path / "run"
    arguments = command(text, output, 12)[3:]
    arguments[arguments.index("--checkpoint-every") + 1] = "4"
    arguments[arguments.index("--log-every") + 1] = "4"
    said = run_python(FULL, "20000", *arguments).splitlines()
    assert said[-1] == "2"
    assert "step_0000000008.npz" in said[-2] and "File too large" in said[-2]
    left = [path.name for path in (output / "checkpoints").iterdir()]
    assert left == ["step_0000000004.npz"]
    assert main(arguments) == 0
    assert presets.is_preset(output)


# === Keras's own callbacks ===


@slow
def test_keras_callbacks_stop_early_and_keep_the_best(tmp_path, text, capsys) -> None:
    recipe = dataclasses.replace(RECIPE, train_steps=100)  # its rate is not 0 so soon
    encoder = untrained_encoder(recipe, text[1])
    dual = compile_dual_encoder(encoder, recipe)
    pairs = make_pairs(300)
    train, dev = (
        sentence_pairs(
            ParallelCorpus(part),
            encoder.preprocessor,
            SamplingPlan(16, shuffle=shuffle),
        )
        for part, shuffle in ((pairs[:200], True), (pairs[200:], False))
    )

    class DevScore(keras.callbacks.Callback):
        """A score of one's own; the second epoch's is the best."""

        def on_epoch_end(self, epoch, logs=None):
            logs["dev_score"] = (0.3, 0.5, 0.4, 0.2)[epoch]
            kept.append(np.asarray(dual.encoder.weights[0]).copy())

    kept: list[np.ndarray] = []
    best = tmp_path / "best.weights.h5"
    history = dual.fit(
        train,
        epochs=4,
        validation_data=dev,
        shuffle=False,
        verbose=1,
        callbacks=[
            DevScore(),
            keras.callbacks.ModelCheckpoint(
                best,
                monitor="dev_score",
                mode="max",
                save_best_only=True,
                save_weights_only=True,
            ),
            keras.callbacks.EarlyStopping("dev_score", mode="max", patience=1),
            keras.callbacks.EarlyStopping("val_loss", patience=10),
        ],
    ).history
    # One epoch that was no better, and it stops; the bar shows our metrics.
    assert history["dev_score"] == [0.3, 0.5, 0.4]
    shown = capsys.readouterr().out
    assert "12/12" in shown and "val_ranking_accuracy" in shown
    last = dual.evaluate(dev, return_dict=True, verbose=0)
    for name in ("loss", "ranking_accuracy"):
        assert last[name] == pytest.approx(history[f"val_{name}"][-1], abs=1e-5)
    dual.load_weights(best)
    np.testing.assert_array_equal(np.asarray(dual.encoder.weights[0]), kept[1])
    assert not np.array_equal(kept[1], kept[2])


@slow
def test_replicas_from_the_command_line_stopped_and_resumed(tmp_path, text) -> None:
    """Two replicas, three steps an execution, SIGTERM: the weights of a quiet run."""
    steps = 300

    def arguments(name: str, size: int) -> list[str]:
        more = ("--strategy", "cpu:2", "--steps-per-execution", str(size))
        return [*command(text, tmp_path / name, steps), *more]

    def end(process) -> tuple[int, str]:
        _, errors = process.communicate(timeout=300)
        return process.returncode, errors

    assert end(start(arguments("quiet", 1)))[0] == 0
    process = start(arguments("disturbed", 3))
    wait_for_step(process, tmp_path / "disturbed", 10)
    process.send_signal(signal.SIGTERM)
    code, errors = end(process)
    assert code == 143, errors
    step = int(errors.split("stopped by signal 15 at step ")[1].split(";")[0])
    assert step % 3 == 0 and step < steps
    assert end(start(arguments("disturbed", 3)))[0] == 0
    one, two = (LaBSE.from_preset(tmp_path / name) for name in ("quiet", "disturbed"))
    for first, second in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(first, second)
