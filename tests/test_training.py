"""Runs: resumed = undisturbed, one process at a time, refusals, the log."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import signal
import subprocess
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.command_line import run as run_command
from helpers.errors import raises, warns
from helpers.memory import is_empty, peak_of, share
from helpers.paths import ROOT
from helpers.runs import (
    OTHER,
    RECIPE,
    TOKENS,
    WORDS,
    command,
    log_of,
    make_pairs,
    start,
    train,
    wait_for_step,
    weights,
)
from labse_tf import presets
from labse_tf.data import ParallelCorpus
from labse_tf.distribute import Workers
from labse_tf.losses import MatryoshkaLoss
from labse_tf.models import LaBSE
from labse_tf.recipes import Recipe
from labse_tf.training import (
    Interrupted,
    Run,
    RunOptions,
    dual_encoder,
    fit,
    train_dual_encoder,
    untrained_encoder,
)
from labse_tf.training import run as run_module
from labse_tf.training.checkpoint_files import (
    assign_state,
    read_state,
    state_shapes,
    write_state,
)
from labse_tf.training.fitting import Keeper

# === In one process ===


def test_a_run_becomes_a_preset_and_learns(tmp_path, corpus, text) -> None:
    output = tmp_path / "run"
    model = train(corpus, output, text[1], train_steps=40)
    assert presets.is_preset(output)
    assert not (output / "checkpoints").exists()
    log = log_of(output)
    assert [entry["step"] for entry in log] == list(range(2, 41, 2))
    assert log[-1]["loss"] < log[0]["loss"] - 2
    assert log[-1]["ranking_accuracy"] > 2 * log[0]["ranking_accuracy"]
    names = {"step", "loss", "ranking_accuracy", "learning_rate", "pairs_per_second"}
    assert set(log[0]) == names
    untrained = untrained_encoder(RECIPE, text[1])
    before, after = (
        np.trace(m.similarity(m.encode(WORDS), m.encode(OTHER)))
        for m in (untrained, model)
    )
    assert after > before  # words have come nearer to their translations


@pytest.mark.parametrize(
    ("frozen", "chunk_size"), [(("table",), None), (("table", "blocks:1"), 4)]
)
def test_frozen_parts_do_not_change(tmp_path, corpus, text, frozen, chunk_size) -> None:
    recipe = dataclasses.replace(RECIPE, num_layers=2, freeze=frozen)
    keras.utils.set_random_seed(recipe.seed)
    dual = dual_encoder.compile_dual_encoder(untrained_encoder(recipe, text[1]), recipe)
    idle = {w.path for w in dual.weights} - {w.path for w in dual.trainable_weights}
    moments = {v.path for v in dual.optimizer.variables}
    assert any("token_embedding/embeddings" in path for path in idle)
    assert any("transformer_layer_0/" in path for path in idle) == (len(frozen) == 2)
    assert not any("transformer_layer_1/" in path for path in idle)
    assert not any("token_embedding" in path for path in moments)
    before = {w.path: w.numpy() for w in untrained_encoder(recipe, text[1]).weights}
    model = train(
        corpus, tmp_path / "run", text[1], num_layers=2, freeze=frozen,
        train_steps=6, chunk_size=chunk_size,
    )  # fmt: skip
    for weight in model.weights:
        first = "transformer_layer_0/" in weight.path and len(frozen) == 2
        same = np.array_equal(before[weight.path], weight.numpy())
        if "token_embedding" in weight.path or first:
            assert same, weight.path
        elif "transformer_layer_1/" in weight.path and weight.path.endswith("kernel"):
            assert not same, weight.path
    # What is loaded from the preset can be trained as a whole.
    assert LaBSE.from_preset(tmp_path / "run").backbone.token_embedding.trainable


def test_flags_are_compared_with_the_shape_of_the_model(tmp_path, text, capsys) -> None:
    """Not with that of the recipe, which has 2 blocks of 256 dimensions."""
    start = tmp_path / "start"
    recipe = dataclasses.replace(RECIPE, num_layers=3)
    untrained_encoder(recipe, text[1]).save_to_preset(start)
    quick = "--batch-size 16 --train-steps 1 --sequence-length 16".split()
    command = ["train", text[0], *quick, "--output", tmp_path / "run"]
    small = ["--dims", 17, "--model", start]
    assert "`dims`" in fails_to_run(capsys, *command, *small)
    new = ["--freeze", "blocks:3", "--vocab", text[1]]
    assert "`freeze`" in fails_to_run(capsys, *command, *new)
    flags = ["--freeze", "blocks:3", "--dims", 16, "--model", start]
    assert run_command(*command, *flags) == 0


def fails_to_run(capsys, *arguments: object) -> str:
    """Runs a command that must end with 2, and returns its message."""
    capsys.readouterr()
    assert run_command(*arguments) == 2
    return capsys.readouterr().err


def test_nested_sizes_are_trained(tmp_path, corpus, text) -> None:
    recipe = dataclasses.replace(RECIPE, dims=(2, 4))
    dual = dual_encoder.compile_dual_encoder(untrained_encoder(recipe, text[1]), recipe)
    assert isinstance(dual.pair_loss, MatryoshkaLoss)
    assert dual.pair_loss.dims == (2, 4)
    assert dual.pair_loss.loss.margin == recipe.margin

    train(corpus, tmp_path / "run", text[1], train_steps=40, dims=(8,))
    log = log_of(tmp_path / "run")
    assert log[-1]["loss"] < log[0]["loss"] - 2
    # The loss of a vector has two sizes here.
    train(corpus, tmp_path / "plain", text[1], train_steps=40)
    assert log[0]["loss"] > 1.5 * log_of(tmp_path / "plain")[0]["loss"]


def test_dev_accuracy_is_logged_and_changes_nothing(tmp_path, corpus, text) -> None:
    from labse_tf.evaluation import retrieval

    dev = ParallelCorpus(make_pairs(300)[200:])
    recipe = dataclasses.replace(RECIPE, train_steps=14)
    calls: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        calls.append((done, total))

    models = [
        train_dual_encoder(
            recipe,
            corpus,
            tmp_path / name,
            vocabulary=text[1],
            dev=pairs,
            options=RunOptions(
                log_every=3,
                dev_every=5,
                keep_best=None if pairs is None else False,
                progress=note,
            ),
        )
        for name, pairs in (("plain", None), ("dev", dev))
    ]
    for ours, theirs in zip(*map(weights, models), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert calls[-14:] == [(step, 14) for step in range(1, 15)]
    log = log_of(tmp_path / "dev")
    measured = [entry for entry in log if "dev_accuracy" in entry]
    assert [entry["step"] for entry in measured] == [0, 5, 10, 14]
    accuracy = retrieval(models[1].encode, dev.lists()).mean_accuracy
    assert all(e["dev_accuracy/es"] == e["dev_accuracy"] for e in measured)
    assert measured[-1]["dev_accuracy"] == pytest.approx(accuracy, abs=1e-5)
    assert 0.1 < accuracy < 1
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert losses == [entry["loss"] for entry in log_of(tmp_path / "plain")]


def test_a_finished_run_does_nothing(tmp_path, corpus, text) -> None:
    output = tmp_path / "run"
    first = train(corpus, output, text[1])
    before = {p.name: p.stat().st_mtime_ns for p in output.iterdir()}
    again = train(corpus, output, text[1])
    after = {p.name: p.stat().st_mtime_ns for p in output.iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"run.lock"}
    for one, two in zip(weights(first), weights(again), strict=True):
        np.testing.assert_array_equal(one, two)


def test_another_recipe_text_or_vocabulary_is_refused(tmp_path, corpus, text) -> None:
    output = tmp_path / "run"
    train(corpus, output, text[1])
    with raises(ValueError, "recipe.margin", "0.3", "0.1"):
        train(corpus, output, text[1], margin=0.1)
    with raises(ValueError, "text.pairs", 200, 199):
        train(ParallelCorpus(make_pairs(199)), output, text[1])
    other = tmp_path / "other.txt"
    other.write_text("\n".join([*TOKENS, "sea"]) + "\n")
    with raises(ValueError, "start.vocabulary"):
        train(corpus, output, other)
    assert presets.is_preset(output)


def test_a_run_of_an_older_version_is_resumed(tmp_path, corpus, text) -> None:
    """A setting that its `run.json` lacks had the default, and no other value."""
    output = tmp_path / "run"
    first = train(corpus, output, text[1])
    known = json.loads((output / "run.json").read_text())
    for name in ("freeze", "dims"):
        del known["recipe"][name]
    (output / "run.json").write_text(json.dumps(known))
    again = train(corpus, output, text[1])
    for one, two in zip(weights(first), weights(again), strict=True):
        np.testing.assert_array_equal(one, two)
    with raises(ValueError, "recipe.dims = []", received="recipe.dims"):
        train(corpus, output, text[1], dims=(4, 16))
    del known["text"]
    (output / "run.json").write_text(json.dumps(known))
    with raises(ValueError, "text.pairs = None"):
        train(corpus, output, text[1])


def test_a_directory_with_braces_in_its_name(tmp_path) -> None:
    folder = tmp_path / "{run}"
    with Run(folder, {"a": 1}).open():
        pass
    with raises(ValueError, "a = 1", path=folder, received="a = 2"):
        with Run(folder, {"a": 2}).open():
            pass


def test_a_directory_of_something_else_is_refused(tmp_path, corpus, text) -> None:
    output = tmp_path / "mine"
    output.mkdir()
    (output / "letter.txt").write_text("dear")
    with raises(ValueError, received="letter.txt"):
        train(corpus, output, text[1])
    assert [p.name for p in output.iterdir()] == ["letter.txt"]


def test_two_runs_at_once_are_refused(tmp_path) -> None:
    first, second = (Run(tmp_path / "run", {"a": 1}) for _ in range(2))
    with first.open():
        with raises(ValueError, os.getpid(), path=tmp_path / "run"):
            with second.open():
                pass
    with second.open():
        pass  # The lock is free again.


def test_a_process_without_the_lock_writes_nothing(tmp_path) -> None:
    """Of two processes that start at once, the other may not describe its run."""
    folder = tmp_path / "run"
    folder.mkdir()
    with (folder / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with raises(ValueError, path=folder, received=True):
            with Run(folder, {"a": 2}).open():
                pass
        assert [path.name for path in folder.iterdir()] == ["run.lock"]
        # The files of the process that has the lock are not those of something else.
        (folder / ".run.1234.json").write_text("half")
        with raises(ValueError, "another process", path=folder):
            with Run(folder, {"a": 2}).open():
                pass


def test_another_description_leaves_the_first(tmp_path) -> None:
    """Also if nothing was done yet."""
    folder = tmp_path / "run"
    with Run(folder, {"a": 1}).open():
        pass
    with raises(ValueError, "a = 1", received="a = 2"):
        with Run(folder, {"a": 2}).open():
            pass
    assert json.loads((folder / "run.json").read_text()) == {"a": 1}


def test_tuning_starts_from_a_preset(tmp_path, corpus, text) -> None:
    first = train(corpus, tmp_path / "first", text[1], train_steps=30)
    recipe = dataclasses.replace(RECIPE, learning_rate=1e-9, sequence_length=8)
    tuned = train_dual_encoder(
        recipe,
        corpus,
        tmp_path / "second",
        model=tmp_path / "first",
        options=RunOptions(progress=False),
    )
    # Nothing to speak of has been learned, so it is still the model it began as.
    for one, two in zip(weights(first), weights(tuned), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    assert tuned.preprocessor.sequence_length == 8
    with raises(ValueError, "`vocabulary`", argument="model"):
        train_dual_encoder(recipe, corpus, tmp_path / "third")


def test_the_shape_of_a_loaded_model_is_described(tmp_path, corpus, text) -> None:
    """Not that of a recipe which it ignores."""
    train(corpus, tmp_path / "first", text[1], num_layers=0, dropout=0.0)
    tuned = train_dual_encoder(
        Recipe(train_steps=2, batch_size=8, sequence_length=16),
        corpus,
        tmp_path / "second",
        model=tmp_path / "first",
        options=RunOptions(progress=False),
    )
    written = json.loads((tmp_path / "second" / "run.json").read_text())["recipe"]
    assert (written["num_layers"], written["hidden_dim"]) == (0, 16)
    assert (written["dropout"], written["max_sequence_length"]) == (0.0, 16)
    assert written["pooling"] == tuned.pooling == "mean"
    for flags in ({"lowercase": True}, {"strip_accents": False}):
        with raises(ValueError, "`vocabulary`", argument=next(iter(flags))):
            train_dual_encoder(
                RECIPE,
                corpus,
                tmp_path / "third",
                model=tmp_path / "first",
                **flags,
            )
    assert not (tmp_path / "third").exists()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, corpus, text) -> None:
    with raises(ValueError, "loss", "step"):
        train(corpus, tmp_path / "run", text[1], learning_rate=1e30)
    assert not presets.is_preset(tmp_path / "run")


def any_model() -> keras.Model:
    """A model that does not record the steps whose loss is not finite."""
    model = keras.Sequential([keras.layers.Dense(1)])
    model.build((None, 2))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_no_model_gets_a_checkpoint_of_nan(tmp_path) -> None:
    """Also before the next log line is due."""

    def batches(start: int) -> tf.data.Dataset:
        rows = np.ones((6, 4, 2), np.float32)
        rows[3] = np.nan
        steps = tf.data.Dataset.from_tensor_slices((rows, rows[..., :1]))
        return steps.skip(start)

    run = Run(tmp_path / "run", {})
    recipe = dataclasses.replace(RECIPE, train_steps=6)
    options = RunOptions(checkpoint_every=2, log_every=100, progress=False)
    with run.open():
        with raises(ValueError, "loss", 4):
            fit(run, any_model(), batches, recipe, options)
        names = [path.name for path in run.checkpoints.iterdir()]
        assert names == ["step_0000000002.npz"]


def test_a_signal_writes_no_checkpoint_of_nan(tmp_path) -> None:
    run = Run(tmp_path / "run", {})
    keeper = Keeper(run, 0, RunOptions())
    keeper.set_model(any_model())
    keeper.received = signal.SIGTERM
    with raises(ValueError, "loss", 1):
        keeper.on_train_batch_end(0, {"loss": float("nan")})
    with pytest.raises(Interrupted):
        keeper.on_train_batch_end(1, {"loss": 0.5})
    names = [path.name for path in run.checkpoints.iterdir()]
    assert names == ["step_0000000002.npz"]


# === Checkpoints ===


def dual_of(text: tuple[Path, Path]):
    from labse_tf.training import compile_dual_encoder

    return compile_dual_encoder(untrained_encoder(RECIPE, text[1]), RECIPE)


def restore(run: Run, model) -> int:
    checkpoint = run.newest_checkpoint()
    assert checkpoint is not None
    run.assign(model, checkpoint)
    return checkpoint.step


def test_a_damaged_checkpoint_falls_back_with_a_warning(tmp_path, text) -> None:
    dual = dual_of(text)
    run = Run(tmp_path / "run", {})
    for step in (4, 8, 12):
        dual.encoder.weights[0].assign(dual.encoder.weights[0] * 0 + step)
        run.save(dual, step)
    names = sorted(p.name for p in run.checkpoints.iterdir())
    assert names == ["step_0000000008.npz", "step_0000000012.npz"]
    newest = run.checkpoints / names[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    for damaged in (bytes(data), bytes(data[: len(data) // 3]), b""):
        newest.write_bytes(damaged)
        with warns(UserWarning, path="step_0000000012.npz"):
            assert restore(run, dual) == 8
        assert float(np.asarray(dual.encoder.weights[0]).max()) == 8.0


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path, text, monkeypatch) -> None:
    dual = dual_of(text)
    run = Run(tmp_path / "run", {})
    run.save(dual, 4)

    def full(path: Path, *state: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "write_state", full)
    with pytest.raises(OSError) as caught:
        run.save(dual, 8)
    assert caught.value.errno == 28
    assert [p.name for p in run.checkpoints.iterdir()] == ["step_0000000004.npz"]
    assert restore(run, dual) == 4


def test_a_checkpoint_holds_dropout_states_and_moments(tmp_path, text) -> None:
    dual = dual_of(text)
    run = Run(tmp_path / "run", {})
    run.save(dual, 4)
    with zipfile.ZipFile(next(run.checkpoints.iterdir())) as archive:
        saved = len(archive.namelist()) - 1
    seeds = [v for v in dual.variables if "seed" in v.path]
    assert len(seeds) >= 3
    trainable = len(dual.trainable_variables)
    assert saved >= len(dual.weights) + len(seeds) + 2 * trainable


def test_another_model_does_not_take_a_checkpoint(tmp_path, text) -> None:
    run = Run(tmp_path / "run", {})
    run.save(dual_of(text), 4)
    from labse_tf.training import compile_dual_encoder

    other = dataclasses.replace(RECIPE, hidden_dim=8)
    dual = compile_dual_encoder(untrained_encoder(other, text[1]), other)
    with raises(ValueError, "token_embedding", "(17, 8)"):
        restore(run, dual)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_large_variable_is_written_in_blocks(tmp_path, sparse: bool) -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(70_001, 128)).astype(np.float32)  # 36 MB, three blocks
    variable: object = keras.Variable(table) if sparse else table
    path = tmp_path / "state.npz"
    write_state(path, 7, [variable, np.zeros((0, 3)), np.uint32(5)])
    with np.load(path) as archive:
        assert int(archive["step"]) == 7
        np.testing.assert_array_equal(archive["00000"], table)
    assert state_shapes(path) == [table.shape, (0, 3), ()]
    blocks = [list(array) for array in read_state(path)][0]
    assert len(blocks) == 3
    np.testing.assert_array_equal(np.concatenate(blocks), table)


def test_a_checkpoint_is_written_without_a_copy_of_the_state(tmp_path) -> None:
    table = np.ones((1_000_000, 16), np.float32)  # 64 MB
    path, names = tmp_path / "state.npz", [keras.Variable(table) for _ in range(3)]
    assert peak_of(lambda: write_state(path, 1, names)) < table.nbytes
    assert peak_of(lambda: assign_state(path, names, Workers())) < table.nbytes


def test_checkpoints_leave_no_copies_in_later_steps(tmp_path, text) -> None:
    """Writing and reading leave variables whose reads share their memory."""
    dual = dual_of(text)
    run = Run(tmp_path / "run", {})
    table = dual.encoder.backbone.token_embedding.embeddings
    dual.optimizer.build(dual.trainable_variables)
    variables = [table, *dual.optimizer.variables[2:]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("labse_tf.variables._BLOCK_BYTES", 64)
        before = [np.asarray(v).copy() for v in variables]
        run.save(dual, 4)
        for variable in variables:
            assert share(variable, variable)
            variable.assign(np.zeros(variable.shape))
        restore(run, dual)
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
        assert share(variable, variable)


def test_only_one_model_is_in_memory_at_the_end(
    tmp_path, corpus, text, monkeypatch
) -> None:
    """When the preset is loaded, weights and moments of the trained one are freed."""
    trained, loaded = [], []
    compiled = dual_encoder.compile_dual_encoder
    from_preset = LaBSE.from_preset

    def compile_dual_encoder(*args: object, **options: object) -> object:
        trained.append(compiled(*args, **options))
        return trained[-1]

    def load(*args: object, **options: object) -> LaBSE:
        (dual,) = trained
        old = [*dual.encoder.weights, *dual.optimizer.variables]
        loaded.append(all(map(is_empty, old)))
        return from_preset(*args, **options)

    monkeypatch.setattr(dual_encoder, "compile_dual_encoder", compile_dual_encoder)
    monkeypatch.setattr(LaBSE, "from_preset", load)
    model = train(corpus, tmp_path / "run", text[1])
    assert loaded == [True]
    assert not any(map(is_empty, model.weights))


@pytest.mark.parametrize("storage", ["float32", "int8", "int4"])
def test_a_run_keeps_the_storage_of_its_start(
    tmp_path, corpus, text, storage: str
) -> None:
    recipe = dataclasses.replace(RECIPE, hidden_dim=32, train_steps=2, warmup_steps=1)
    untrained_encoder(recipe, text[1]).save_to_preset(
        tmp_path / "start", storage=storage
    )
    options = RunOptions(progress=False)
    for _ in range(2):  # The second call loads the finished run.
        train_dual_encoder(
            recipe, corpus, tmp_path / "run", model=tmp_path / "start", options=options
        )
    assert presets.read_config(tmp_path / "run")["storage"] == storage


def test_a_trained_model_has_a_card(tmp_path, corpus, text) -> None:
    recipe = dataclasses.replace(RECIPE, train_steps=2, warmup_steps=1)
    options = RunOptions(progress=False)
    first, second = tmp_path / "first", tmp_path / "second"
    train_dual_encoder(
        recipe, corpus, first, vocabulary=text[1], dev=corpus, options=options
    )
    card = (first / "README.md").read_text()
    front = card.split("---\n")[1]
    assert card.startswith("---\n") and "license: unknown\n" in front
    assert "language:\n- 'en'\n- 'es'\n" in front and "base_model" not in front
    assert f"| data | {len(corpus):,} pairs |" in card and corpus.digest() in card
    assert "| steps | 2 of batch size 16 |" in card
    assert re.search(r"\| loss \| [\d.]+ at step 2 \|", card)
    assert re.search(r"\| dev accuracy, last \| [\d.]+% at step 2 \|", card)
    assert presets.stated_languages(first) == ("en", "es")
    # A fine-tuned model also knows the languages and the license of its base.
    (first / "README.md").write_text(
        card.replace("- 'es'", "- 'no'\n- 'hi'").replace("unknown", "Apache-2.0")
    )
    train_dual_encoder(recipe, corpus, second, model=first, options=options)
    card = (second / "README.md").read_text()
    assert presets.stated_languages(second) == ("en", "no", "hi", "es")
    assert "\nlicense: apache-2.0\n" in card and '\nbase_model: "first"\n' in card


def test_evaluate_knows_the_languages_of_a_trained_model(
    tmp_path, corpus, text, capsys
) -> None:
    """From its card; the other languages are zero-shot."""
    run_command(
        "train",
        text[0],
        "--vocab",
        text[1],
        "--output",
        tmp_path / "run",
        *"--num-layers 0 --hidden-dim 8 --num-heads 2 --intermediate-dim 8".split(),
        *"--batch-size 16 --train-steps 2 --warmup-steps 0".split(),
    )
    tests = tmp_path / "tests"
    tests.mkdir()
    for code in ("es", "pt"):
        (tests / f"en-{code}.tsv").write_text("sun moon\tsol luna\nday\tdia\n")
    scores = tmp_path / "scores.json"
    command = ["retrieval", tests, "--model", tmp_path / "run", "--json", scores]
    capsys.readouterr()
    assert run_command("evaluate", *command) == 0
    assert re.search(r"\b1 zero-shot\b", capsys.readouterr().out)
    values = json.loads(scores.read_text())
    assert values["trained"] == ["en", "es"]
    zero_shot = {code: row["zero_shot"] for code, row in values["languages"].items()}
    assert zero_shot == {"es": False, "pt": True}


# === Killed and resumed ===


@pytest.mark.slow
def test_killed_and_resumed_is_undisturbed(tmp_path, text) -> None:
    steps = 1500
    quiet = tmp_path / "quiet"
    done = subprocess.run(
        command(text, quiet, steps), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    disturbed = tmp_path / "disturbed"
    rng = np.random.default_rng()
    for kill_at in sorted(rng.integers(5, 900, 2).tolist()):
        process = start(command(text, disturbed, steps))
        wait_for_step(process, disturbed, kill_at)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not presets.is_preset(disturbed)
    process = start(command(text, disturbed, steps))
    wait_for_step(process, disturbed, 950)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate()
    assert process.returncode == 143, stderr
    assert re.search(r"\bstep \d+", stderr.splitlines()[-1])
    done = subprocess.run(
        command(text, disturbed, steps), cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    one, two = (LaBSE.from_preset(folder) for folder in (quiet, disturbed))
    for first, second in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(first, second)
    # The log tells every step once, whatever was done twice.
    assert [e["step"] for e in log_of(disturbed)] == [e["step"] for e in log_of(quiet)]
    assert [e["loss"] for e in log_of(disturbed)][-5:] == [
        e["loss"] for e in log_of(quiet)
    ][-5:]


def test_resumed_in_process_is_undisturbed(tmp_path, corpus, text, monkeypatch) -> None:
    """The same without processes: stopped after a checkpoint, then gone on with."""
    quiet = train(corpus, tmp_path / "quiet", text[1])
    saved = Run.save

    def stop_at_eight(self: Run, model: object, step: int) -> None:
        saved(self, model, step)
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "save", stop_at_eight)
    with pytest.raises(Interrupted) as stop:
        train(corpus, tmp_path / "disturbed", text[1])
    assert stop.value.signal == signal.SIGTERM
    assert stop.value.step == 9
    monkeypatch.setattr(Run, "save", saved)
    # The options are not part of what is made, so other ones resume the same run.
    description = json.loads((tmp_path / "disturbed" / "run.json").read_text())
    assert set(description) == {"recipe", "text", "start"}
    assert set(description["recipe"]) == {f.name for f in dataclasses.fields(Recipe)}
    resumed = train_dual_encoder(
        RECIPE,
        corpus,
        tmp_path / "disturbed",
        vocabulary=text[1],
        options=RunOptions(steps_per_execution=3, log_every=1, progress=False),
    )
    for one, two in zip(weights(quiet), weights(resumed), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    steps = [entry["step"] for entry in log_of(tmp_path / "disturbed")]
    assert steps == sorted(set(steps))
