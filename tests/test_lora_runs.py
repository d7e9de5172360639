"""Training with LoRA: what is trained, resumed, in chunks, refused."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.command_line import fails
from helpers.command_line import run as run_command
from helpers.errors import raises
from helpers.paths import ROOT
from helpers.runs import RECIPE, log_of, make_pairs, start, wait_for_step, weights
from labse_tf import presets
from labse_tf.adapters import FILE
from labse_tf.checkpoints import to_huggingface
from labse_tf.data import ParallelCorpus, TextVectors
from labse_tf.distillation import DistillationRecipe, distill
from labse_tf.models import LaBSE
from labse_tf.training import (
    Interrupted,
    Run,
    RunOptions,
    compile_dual_encoder,
    train_dual_encoder,
    untrained_encoder,
)
from labse_tf.training.checkpoint_files import state_shapes

DEV = ParallelCorpus(make_pairs(300)[200:])
BASE = dataclasses.replace(RECIPE, num_layers=2)
ADAPT = dataclasses.replace(BASE, lora=3, learning_rate=2e-2)


@pytest.fixture
def base(tmp_path, text) -> Path:
    """A preset to start from."""
    untrained_encoder(BASE, text[1]).save_to_preset(tmp_path / "base")
    return tmp_path / "base"


def train(corpus, base: Path, output: Path, dev=None, options=None, **changes) -> LaBSE:
    settings = {"checkpoint_every": 4, "log_every": 2, "progress": False}
    return train_dual_encoder(
        dataclasses.replace(ADAPT, **changes),
        corpus,
        output,
        model=base,
        dev=dev,
        options=RunOptions(**settings | (options or {})),
    )


def by_path(model: LaBSE) -> dict[str, np.ndarray]:
    return {weight.path: np.asarray(weight) for weight in model.weights}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"chunk_size": 4, "optimizer": "lazy_adamw", "freeze": ("table", "blocks:1")},
    ],
)
def test_kernels_change_by_a_matrix_of_the_rank(
    tmp_path, corpus, base, changes
) -> None:
    model = train(corpus, base, tmp_path / "run", train_steps=30, **changes)
    log = log_of(tmp_path / "run")
    assert log[-1]["loss"] < log[0]["loss"] - 1
    before, after = by_path(LaBSE.from_preset(base)), by_path(model)
    assert list(before) == list(after)
    first = 1 if "freeze" in changes else 0
    for path, old in before.items():
        block = path.startswith("transformer_layer_")
        trained = block and int(path[len("transformer_layer_")]) >= first
        if not (trained and path.endswith("kernel")):
            np.testing.assert_array_equal(after[path], old, err_msg=path)
            continue
        outputs = before[path.replace("kernel", "bias")].size
        change = (after[path] - old).reshape(-1, outputs)
        sizes = np.linalg.svd(change, compute_uv=False)
        assert sizes[0] > 1e-2 and sizes[3] < 1e-5 * sizes[0], path
    # What is loaded is an ordinary model, all of which can be trained.
    assert model.backbone.lora is None
    assert model.backbone.token_embedding.trainable


def test_only_trained_weights_have_moments(text) -> None:
    dual = compile_dual_encoder(untrained_encoder(BASE, text[1]), ADAPT)
    trained = dual.trainable_variables
    assert len(trained) == 2 * 6 * 2
    lora = dual.encoder.backbone.lora
    assert (lora.rank, lora.alpha) == (3, 6.0)
    # The step count and two moments per weight.
    assert len(dual.optimizer.variables) == 1 + 2 * len(trained)
    moments = dual.optimizer.variables[1:]
    assert all("lora_kernel_" in variable.path for variable in moments)
    stronger = dataclasses.replace(ADAPT, lora_alpha=12.0)
    dual = compile_dual_encoder(untrained_encoder(BASE, text[1]), stronger)
    assert dual.encoder.backbone.lora.scale == 4.0


def test_the_start_of_a_run_is_the_base(tmp_path, corpus, text) -> None:
    """Its first loss is that of a run that trains everything."""
    start = tmp_path / "start"
    still = dataclasses.replace(BASE, dropout=0.0)
    untrained_encoder(still, text[1]).save_to_preset(start)
    once = {"train_steps": 1, "warmup_steps": 0, "options": {"log_every": 1}}
    for name, rank in (("lora", 3), ("full", None)):
        train(corpus, start, tmp_path / name, lora=rank, **once)
    first, second = (log_of(tmp_path / name)[0]["loss"] for name in ("lora", "full"))
    assert first == pytest.approx(second, rel=1e-6)


def test_chunks_train_as_the_whole_batch(tmp_path, corpus, text) -> None:
    still = dataclasses.replace(BASE, dropout=0.0)
    untrained_encoder(still, text[1]).save_to_preset(tmp_path / "start")
    whole, chunks = (
        train(
            corpus, tmp_path / "start", tmp_path / f"run {size}",
            chunk_size=size, epsilon=1e-3, dims=(8,),
        )
        for size in (None, 5)
    )  # fmt: skip
    for one, two in zip(weights(whole), weights(chunks), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    losses = [[e["loss"] for e in log_of(tmp_path / f"run {n}")] for n in (None, 5)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_resumed_run_is_undisturbed(tmp_path, corpus, base, monkeypatch) -> None:
    """With the best weights by held-out pairs; checkpoints hold what is trained."""
    options = {"dev_every": 2, "deterministic": True}
    quiet = train(corpus, base, tmp_path / "quiet", DEV, options)
    saved, shapes = Run.save, []

    def stop_at_eight(self: Run, model: object, step: int) -> None:
        saved(self, model, step)
        shapes.append(state_shapes(next(self.checkpoints.glob(f"*{step}.npz"))))
        best = next(self.best.iterdir())
        shapes.append(state_shapes(best))
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "save", stop_at_eight)
    with pytest.raises(Interrupted):
        train(corpus, base, tmp_path / "disturbed", DEV, options)
    monkeypatch.setattr(Run, "save", saved)
    state, best = shapes[:2]
    assert (17, 16) not in state and (17, 16) not in best  # The token table.
    assert len(best) == 24 and len(state) > 3 * 24
    resumed = train(corpus, base, tmp_path / "disturbed", DEV, options)
    for one, two in zip(weights(quiet), weights(resumed), strict=True):
        np.testing.assert_array_equal(one, two)
    logs = [log_of(tmp_path / name) for name in ("quiet", "disturbed")]
    for values in zip(*logs, strict=True):
        for key in ("step", "dev_accuracy"):
            assert len({entry.get(key) for entry in values}) == 1, values
    # The line at step 10 has the mean of one step only in the resumed run.
    losses = [[e["loss"] for e in log if "loss" in e] for log in logs]
    assert losses[0][-1] == losses[1][-1]
    again = train(corpus, base, tmp_path / "again", DEV, options)
    for one, two in zip(weights(quiet), weights(again), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_student_is_trained_with_lora(tmp_path, corpus, base) -> None:
    vectors = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)

    def encode(texts: list[str]) -> np.ndarray:
        return vectors[[len(text) for text in texts]]

    recipe = DistillationRecipe(
        lora=2, train_steps=4, batch_size=16, warmup_steps=1, sequence_length=16,
        feature_weight=1.0, margin_weight=0.5, chunk_size=8,
    )  # fmt: skip
    store = TextVectors(tmp_path / "vectors", "lengths")
    student = distill(
        recipe, corpus, tmp_path / "run", student=base, teacher=store, encode=encode,
        options=RunOptions(progress=False),
    )  # fmt: skip
    before, after = by_path(LaBSE.from_preset(base)), by_path(student)
    changed = {p for p in before if not np.array_equal(before[p], after[p])}
    assert len(changed) == 12 and all(path.endswith("kernel") for path in changed)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_adapters_are_kept_apart(tmp_path, corpus, base, chunk_size) -> None:
    options = {"keep_adapters": True, "deterministic": True}
    merged = train(corpus, base, tmp_path / "merged", chunk_size=chunk_size,
                   options={"deterministic": True})  # fmt: skip
    kept = train(corpus, base, tmp_path / "kept", chunk_size=chunk_size,
                 options=options)  # fmt: skip
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert {FILE, presets.CONFIG, presets.CARD} <= names
    assert not {presets.WEIGHTS, presets.VOCABULARY} & names
    for one, two in zip(weights(merged), weights(kept), strict=True):
        np.testing.assert_array_equal(one, two)
    # The finished run does nothing, and its model can be trained further.
    train(corpus, base, tmp_path / "kept", chunk_size=chunk_size, options=options)
    train(corpus, tmp_path / "kept", tmp_path / "more", train_steps=2, warmup_steps=0)
    assert (tmp_path / "more" / presets.WEIGHTS).exists()
    with raises(ValueError, path=tmp_path / "kept", received="adapters"):
        train(corpus, tmp_path / "kept", tmp_path / "no", options=options)
    with raises(ValueError, argument="keep_adapters", received="lora=None"):
        train(corpus, base, tmp_path / "no", lora=None, options=options)
    assert not (tmp_path / "no").exists()


# === Refusals and commands ===


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("lora", {"lora": 0}),
        ("lora", {"lora": 4, "stages": ((1, 5),)}),
        ("lora_alpha", {"lora": 4, "lora_alpha": 0.0}),
        ("lora_alpha", {"lora": None, "lora_alpha": 8.0}),
        ("lora", {"lora": 17}),
        ("lora", {"lora": 4, "freeze": ("blocks:2",)}),
        ("lora", {"lora": 4, "num_layers": 0}),
    ],
)
def test_bad_recipes_are_named(argument: str, changes: dict) -> None:
    recipe = dataclasses.replace(ADAPT, **changes)
    with raises(ValueError, argument=argument, received=True):
        recipe.check()
        recipe.check_shape()


QUICK = "--batch-size 16 --sequence-length 16 --warmup-steps 0 --log-every 1".split()


def test_a_new_model_has_no_weights_to_freeze(tmp_path, text, capsys) -> None:
    command = ["train", text[0], "--output", tmp_path / "run", "--lora", 4, *QUICK]
    capsys.readouterr()
    assert run_command(*command, "--vocab", text[1]) == 2
    assert "`lora` requires `model`" in capsys.readouterr().err
    pretrain = ["pretrain", "--pairs", text[0], "--vocab", text[1], "--lora", 4]
    with pytest.raises(SystemExit) as end:
        run_command(*pretrain, "--output", tmp_path / "run")
    assert end.value.code == 2 and "--lora" in capsys.readouterr().err


def test_the_command_writes_an_ordinary_preset(tmp_path, text, base) -> None:
    output = tmp_path / "run"
    command = ["train", text[0], "--model", base, "--output", output, *QUICK]
    flags = ["--lora", 4, "--lora-alpha", 4, "--train-steps", 2]
    assert run_command(*command, *flags) == 0
    config = presets.read_config(output)
    assert set(config["sha256"]) == {presets.WEIGHTS, presets.VOCABULARY}
    assert "| LoRA | rank 4, alpha 4 |" in (output / presets.CARD).read_text()
    recipe = json.loads((output / "run.json").read_text())["recipe"]
    assert (recipe["lora"], recipe["lora_alpha"]) == (4, 4.0)


def test_the_command_keeps_adapters(tmp_path, text, base, capsys) -> None:
    output = tmp_path / "run"
    command = ["train", text[0], "--output", output, "--keep-adapters", *QUICK]
    assert "--lora" in fails(capsys, *command, "--model", base)
    foreign = tmp_path / "huggingface"
    to_huggingface(LaBSE.from_preset(base), foreign)
    command += ["--lora", 4, "--train-steps", 2]
    assert "convert" in fails(capsys, *command, "--model", foreign)
    assert run_command(*command, "--model", base) == 0
    config = presets.read_config(output)
    assert set(config["sha256"]) == {FILE}
    assert config["base"]["preset"] == "../base"
    card = (output / presets.CARD).read_text()
    assert "| LoRA | rank 4, alpha 8 |" in card and 'base_model: "base"' in card


@pytest.mark.slow
def test_killed_and_resumed_is_undisturbed(tmp_path, text, base) -> None:
    def command(name: str) -> list[str]:
        return [
            *(sys.executable, "-m", "labse_tf", "train", str(text[0])),
            *("--model", str(base), "--output", str(tmp_path / name)),
            *("--lora", "4", "--chunk-size", "8", "--deterministic"),
            *("--train-steps", "600", "--checkpoint-every", "5"),
            *("--dev", str(text[0]), "--dev-every", "100", *QUICK),
        ]

    def finish(name: str) -> None:
        done = subprocess.run(command(name), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    finish("quiet")
    process = start(command("disturbed"))
    wait_for_step(process, tmp_path / "disturbed", 150)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not presets.is_preset(tmp_path / "disturbed")
    finish("disturbed")
    one, two = (LaBSE.from_preset(tmp_path / n) for n in ("quiet", "disturbed"))
    for first, second in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(first, second)
