"""Best weights by held-out pairs, early stopping, and the summary of a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from helpers.command_line import run as run_command
from helpers.errors import raises, warns
from helpers.runs import RECIPE, log_of, make_pairs, weights
from labse_tf import presets
from labse_tf.data import ParallelCorpus
from labse_tf.models import LaBSE
from labse_tf.training import (
    Interrupted,
    Run,
    RunOptions,
    dual_encoder,
    summarize,
    train_dual_encoder,
)

# Accuracy by step; the best of the first twelve steps is at 4.
SCORES = {0: 0.1, 2: 0.3, 4: 0.8, 6: 0.5, 8: 0.8, 10: 0.2, 12: 0.9}
DEV = ParallelCorpus(make_pairs(300)[200:])


@pytest.fixture
def measured(monkeypatch) -> dict[int, list[np.ndarray]]:
    """Measurements are those of SCORES; the weights of each are noted."""
    seen: dict[int, list[np.ndarray]] = {}

    def measure(model) -> dict[str, float]:
        step = int(model.optimizer.iterations)
        seen[step] = [np.array(w) for w in model.encoder.weights]
        return {"dev_accuracy": SCORES[step], "dev_accuracy/es": SCORES[step]}

    monkeypatch.setattr(dual_encoder, "dev_accuracy", lambda dev: measure)
    return seen


def train(corpus, text, output: Path, **options: object) -> LaBSE:
    changes = options.pop("recipe", {})
    settings = {"checkpoint_every": 3, "dev_every": 2, "log_every": 3}
    return train_dual_encoder(
        dataclasses.replace(RECIPE, **changes),
        corpus,
        output,
        vocabulary=text[1],
        dev=DEV,
        options=RunOptions(**{**settings, "progress": False, **options}),
    )


def assert_equal(ours, theirs) -> None:
    for one, two in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_preset_has_the_best_weights(tmp_path, corpus, text, measured) -> None:
    changes = {"train_steps": 10, "warmup_steps": 2}
    best = train(corpus, text, tmp_path / "best", recipe=changes)
    assert_equal(weights(best), measured[4])  # The first of equals.
    last = train(corpus, text, tmp_path / "last", recipe=changes, keep_best=False)
    assert_equal(weights(last), measured[10])
    assert np.abs(measured[4][0] - measured[10][0]).max() > 0
    for name in ("best", "last"):
        log = log_of(tmp_path / name)
        steps = [entry["step"] for entry in log if "dev_accuracy" in entry]
        assert steps == [0, 2, 4, 6, 8, 10]
        assert not (tmp_path / name / "best").exists()
    # The same command again does nothing; other ways to choose are refused.
    again = train(corpus, text, tmp_path / "best", recipe=changes)
    assert_equal(weights(again), weights(best))
    with raises(ValueError, "dev.keep_best"):
        train(corpus, text, tmp_path / "best", recipe=changes, keep_best=False)
    with raises(ValueError, "dev.measure_every", 2, received=5):
        train(corpus, text, tmp_path / "best", recipe=changes, dev_every=5)


def test_a_start_that_nothing_improves_is_kept(
    tmp_path, corpus, text, monkeypatch
) -> None:
    monkeypatch.setattr(
        dual_encoder, "dev_accuracy", lambda dev: lambda model: {"dev_accuracy": 0.5}
    )
    model = train(corpus, text, tmp_path / "run")
    from labse_tf.training import untrained_encoder

    assert_equal(weights(model), weights(untrained_encoder(RECIPE, text[1])))
    assert summarize(tmp_path / "run").kept_step == 0


def test_early_stopping(tmp_path, corpus, text, measured) -> None:
    model = train(corpus, text, tmp_path / "run", patience=2)
    assert max(measured) == 8  # 6 and 8 were not higher than 4.
    assert_equal(weights(model), measured[4])
    patient = train(corpus, text, tmp_path / "patient", patience=4)
    assert_equal(weights(patient), measured[12])
    last = train(corpus, text, tmp_path / "last", patience=2, keep_best=False)
    assert_equal(weights(last), measured[8])


@pytest.mark.parametrize(("stop_at", "patience"), [(3, None), (6, 2), (8, 2)])
def test_killed_and_resumed_is_undisturbed(
    tmp_path, corpus, text, measured, monkeypatch, stop_at, patience
) -> None:
    """Also where the best weights are older than the checkpoint, or newer."""
    options = {"patience": patience, "checkpoint_every": stop_at}
    quiet = train(corpus, text, tmp_path / "quiet", **options)
    saved = Run.save

    def killed(self: Run, model: object, step: int) -> None:
        saved(self, model, step)
        raise Interrupted(15, step)

    # Killed without a checkpoint: all of it is done again.
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", lambda *args: (_ for _ in ()).throw(KeyError))
        with pytest.raises(KeyError):
            train(corpus, text, tmp_path / "killed", **options)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", killed)
        with pytest.raises(Interrupted):
            train(corpus, text, tmp_path / "killed", **options)
    # What was measured after the checkpoint, by a process that was killed.
    folder = tmp_path / "killed"
    late = {"step": stop_at + 1, "dev_accuracy": 1.0}
    with (folder / "training_log.jsonl").open("a") as file:
        file.write(json.dumps(late) + "\n")
    (folder / "best" / f"step_{stop_at + 1:010d}.npz").write_bytes(b"late")
    resumed = train(corpus, text, folder, **options)
    assert_equal(weights(resumed), weights(quiet))
    both = [
        [(e["step"], e.get("dev_accuracy"), e.get("loss")) for e in log_of(path)]
        for path in (folder, tmp_path / "quiet")
    ]
    assert both[0] == both[1]


def test_the_weights_that_older_checkpoints_need_are_there(
    tmp_path, corpus, text, measured, monkeypatch
) -> None:
    """The newest checkpoint is damaged, after another best step."""
    monkeypatch.setitem(SCORES, 10, 0.85)
    recipe = {"train_steps": 12}
    quiet = train(corpus, text, tmp_path / "quiet", recipe=recipe)
    saved = Run.save

    def killed(self: Run, model: object, step: int) -> None:
        saved(self, model, step)
        if step == 12:
            raise Interrupted(15, step)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", killed)
        with pytest.raises(Interrupted):
            train(corpus, text, folder, recipe=recipe)
    names = sorted(path.name for path in (folder / "best").iterdir())
    assert names == [f"step_{step:010d}.npz" for step in (4, 10, 12)]
    (folder / "checkpoints" / "step_0000000012.npz").write_bytes(b"")
    with warns(UserWarning, path="step_0000000012.npz"):
        resumed = train(corpus, text, folder, recipe=recipe)
    assert_equal(weights(resumed), weights(quiet))
    assert_equal(weights(resumed), measured[12])


def test_damaged_best_weights_are_reported(
    tmp_path, corpus, text, measured, monkeypatch
) -> None:
    monkeypatch.setattr("labse_tf.training.best._is_whole", lambda path: False)
    with warns(UserWarning, 10, 4, path="step_0000000004.npz"):
        model = train(corpus, text, tmp_path / "run", recipe={"train_steps": 10})
    assert_equal(weights(model), measured[10])


def test_with_stages_only_the_last_one_counts(
    tmp_path, corpus, text, measured, monkeypatch
) -> None:
    """The best of all is a bag of tokens, which is not what was asked for."""
    monkeypatch.setitem(SCORES, 2, 0.99)
    recipe = {"num_layers": 1, "stages": ((0, 4),), "train_steps": 10}
    model = train(corpus, text, tmp_path / "run", recipe=recipe, patience=1)
    assert model.backbone.num_layers == 1
    # 4 belongs to the first stage; 8 is the best, 10 the last.
    assert_equal(weights(model), measured[8])
    assert summarize(tmp_path / "run").kept_step == 8


def test_without_held_out_pairs_there_is_nothing_to_choose_by(
    tmp_path, corpus, text
) -> None:
    for option in ({"keep_best": True}, {"patience": 1}):
        with raises(ValueError, "--dev", argument=next(iter(option))):
            train_dual_encoder(
                RECIPE,
                corpus,
                tmp_path / "run",
                vocabulary=text[1],
                options=RunOptions(**option),
            )
    assert not (tmp_path / "run").exists()


def test_a_run_that_could_not_begin_frees_its_directory(
    tmp_path, corpus, text, measured
) -> None:
    """Although its start was measured."""
    with raises(ValueError, argument="batch_size"):
        train(corpus, text, tmp_path / "run", recipe={"batch_size": 512})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]
    train(corpus, text, tmp_path / "run")


# === What is said ===


def test_a_resumed_run_says_from_which_step(
    tmp_path, corpus, text, measured, monkeypatch, capsys
) -> None:
    saved = Run.save

    def killed(self: Run, model: object, step: int) -> None:
        saved(self, model, step)
        raise Interrupted(15, step)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save", killed)
        with pytest.raises(Interrupted):
            train(corpus, text, tmp_path / "run", progress=None)
    begun = capsys.readouterr().err
    assert "step 0/12" in begun and "resuming" not in begun
    train(corpus, text, tmp_path / "run", progress=None)
    assert "resuming from step 3 of 12" in capsys.readouterr().err


def test_the_command_ends_with_a_table_and_json(
    tmp_path, text, measured, capsys
) -> None:
    output, report = tmp_path / "run", tmp_path / "summary.json"
    flags = "--num-layers 0 --hidden-dim 8 --num-heads 2 --intermediate-dim 8"
    flags += " --batch-size 16 --train-steps 10 --dev-every 2 --patience 2"
    files = [text[0], "--vocab", text[1], "--output", output, "--dev", text[0]]
    command = ["train", *files, *flags.split(), "--json", report]
    for _ in range(2):  # The second time, nothing is trained.
        assert run_command(*command) == 0
        out = capsys.readouterr().out
        assert "step 4 (kept)" in out and "80.0%" in out and "10.0%" in out
        assert "8 steps of 10, stopped early" in out
        summary = json.loads(report.read_text())
        assert (summary["steps"], summary["kept_step"]) == (8, 4)
        assert summary["dev_accuracy"]["4"] == {"es": 0.8, "mean": 0.8}
        assert summary["model"] == str(output)
        assert presets.is_preset(output)
        report.unlink()
