"""Two processes over real sockets: equal to one device, killed, stopped, resumed.

Each worker has a folder of its own, as on two hosts that share no disk.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.errors import check_message, raises
from helpers.paths import ROOT
from helpers.runs import (
    TOKENS,
    command,
    log_of,
    wait_for_step,
    weights,
    write_text,
)
from labse_tf import distribute, presets
from labse_tf.cli import main
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer

slow = pytest.mark.slow


def tf_configs() -> list[str]:
    """TF_CONFIG of two workers on ports that are free now."""
    with socket.socket() as one, socket.socket() as two:
        ports = []
        for sock in (one, two):
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    return [
        json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        for index in range(2)
    ]


def start_both(arguments: list[list[str]]) -> list[subprocess.Popen]:
    """A process a worker; the first is the chief."""
    return [
        subprocess.Popen(
            own,
            cwd=ROOT,
            env={**os.environ, "TF_CONFIG": config},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own, config in zip(arguments, tf_configs(), strict=True)
    ]


def ended(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of each; none outlives the test."""
    try:
        said = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *s) for p, s in zip(processes, said, strict=True)]


def commands(
    text: tuple[Path, Path],
    folder: Path,
    steps: int,
    *more: str,
    dropout: float = 0.2,
) -> list[list[str]]:
    """The command of each worker; the text and the vocabulary lie on both."""
    return [
        [
            *command(text, folder / name, steps),
            *("--strategy", "multi_worker", "--dropout", str(dropout)),
            # Far from 0, or Adam's division makes much of the sums' order.
            *("--epsilon", "0.1", *more),
        ]
        for name in ("chief", "other")
    ]


def in_process(own: list[str], output: Path) -> list[str]:
    """Arguments of `main` that do the same on one device."""
    arguments = [*own[3:], "--strategy", "one_device"]
    arguments[arguments.index("--output") + 1] = str(output)
    return arguments


def test_two_workers_train_as_one_device(tmp_path, text, capsys) -> None:
    both = commands(text, tmp_path, 8, dropout=0.0)
    results = ended(start_both(both))
    assert [code for code, *_ in results] == [0, 0], results
    alone = in_process(both[0], tmp_path / "alone")
    assert main(alone) == 0
    pair = [LaBSE.from_preset(tmp_path / name) for name in ("chief", "alone")]
    difference = max(
        np.abs(a - b).max() for a, b in zip(*map(weights, pair), strict=True)
    )
    logs = [log_of(tmp_path / name) for name in ("chief", "alone")]
    print(f"largest difference of a weight after 8 steps {difference:.1e}")
    print("losses", *([entry["loss"] for entry in log] for log in logs))
    assert difference < 1e-5
    for two, one in zip(*logs, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)
        assert two["ranking_accuracy"] == pytest.approx(one["ranking_accuracy"])
    # Only the chief writes, and says so.
    assert not (tmp_path / "other").exists()
    assert "model: " in results[0][1]
    assert "model: " not in results[1][1]


@slow
def test_two_workers_have_the_guide_of_the_chief(tmp_path, text) -> None:
    backbone = LaBSEBackbone(len(TOKENS), 1, 2, 8, 16, max_sequence_length=16)
    tokenizer = WordPieceTokenizer(text[1])
    guide = LaBSE(backbone, SentencePreprocessor(tokenizer, 16), pooling="mean")
    guide.save_to_preset(tmp_path / "asked")
    more = ("--guide", str(tmp_path / "asked"), "--guide-margin", "0.05")
    both = commands(text, tmp_path, 8, *more, dropout=0.0)
    results = ended(start_both(both))
    assert [code for code, *_ in results] == [0, 0], results
    assert main(in_process(both[0], tmp_path / "alone")) == 0
    plain = commands(text, tmp_path, 8, dropout=0.0)[0]
    assert main(in_process(plain, tmp_path / "plain")) == 0
    two, one, other = (
        weights(LaBSE.from_preset(tmp_path / name))
        for name in ("chief", "alone", "plain")
    )
    for first, second in zip(two, one, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)
    assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) > 1e-3
    # The other worker has computed nothing.
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "{",
        '{"cluster": {}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
    ],
)
def test_workers_without_tf_config_are_told_how(monkeypatch, value) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if value is not None:
        monkeypatch.setenv("TF_CONFIG", value)
    with raises(ValueError, "TF_CONFIG=", received=True) as error:
        distribute.get_strategy("multi_worker")
    example = str(error.value).split("TF_CONFIG='")[1].split("'")[0]
    distribute._check_tf_config(example)  # The example is one that is taken.


def test_one_process_is_its_own_chief() -> None:
    workers = distribute.Workers()
    assert workers.is_chief and workers.count == 1
    assert workers.share({"a": [1, None]}) == {"a": [1, None]}
    assert workers.gather(3, 4).tolist() == [[3, 4]]


# === Slow: disturbed ===

STEPS = 200


@pytest.fixture(scope="module")
def lasting(tmp_path_factory) -> tuple[Path, Path]:
    """Pairs and vocabulary, as `text`, for the whole module."""
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def quiet(lasting, tmp_path_factory) -> Path:
    """The chief's folder of a run that nothing disturbed; read only."""
    folder = tmp_path_factory.mktemp("quiet")
    results = ended(start_both(commands(lasting, folder, STEPS)))
    assert [code for code, *_ in results] == [0, 0], results
    return folder / "chief"


def assert_resumes(lasting, folder: Path, quiet: Path) -> None:
    assert not presets.is_preset(folder / "chief")
    assert list((folder / "chief" / "checkpoints").iterdir())
    results = ended(start_both(commands(lasting, folder, STEPS)))
    assert [code for code, *_ in results] == [0, 0], results
    one, two = (LaBSE.from_preset(path) for path in (quiet, folder / "chief"))
    for first, second in zip(weights(one), weights(two), strict=True):
        np.testing.assert_array_equal(first, second)


@slow
@pytest.mark.parametrize("victim", [1, 0])
def test_a_worker_is_killed_and_the_run_goes_on(
    lasting, quiet, tmp_path, victim
) -> None:
    processes = start_both(commands(lasting, tmp_path, STEPS))
    wait_for_step(processes[0], tmp_path / "chief", 10)
    processes[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    try:
        processes[1 - victim].wait(timeout=300)
    finally:
        took = time.monotonic() - killed
        results = ended(processes)
    code, _, errors = results[1 - victim]
    print(f"worker {victim} killed: the other ended after {took:.1f} s with {code}")
    print(errors.splitlines()[-1])
    assert code == 1
    assert errors.splitlines()[-1].startswith("labse-tf: ")
    assert "Traceback" not in errors
    if victim == 1:
        assert_resumes(lasting, tmp_path, quiet)


@slow
@pytest.mark.parametrize("asked", [1, 0])
def test_a_signal_to_one_worker_stops_both_at_one_step(
    lasting, quiet, tmp_path, asked
) -> None:
    processes = start_both(commands(lasting, tmp_path, STEPS))
    wait_for_step(processes[0], tmp_path / "chief", 10)
    processes[asked].send_signal(signal.SIGTERM)
    results = ended(processes)
    assert [code for code, *_ in results] == [143, 143], results
    last = [errors.splitlines()[-1] for *_, errors in results]
    print(last)
    assert last[0] == last[1]
    check_message(last[0], 15)
    step = int(re.search(r"\bstep (\d+)", last[0])[1])
    saved = sorted((tmp_path / "chief" / "checkpoints").iterdir())
    assert saved[-1].name == f"step_{step:010d}.npz"
    if asked == 1:
        assert_resumes(lasting, tmp_path, quiet)


@slow
def test_workers_that_disagree_or_cannot_begin_all_stop(lasting, tmp_path) -> None:
    both = commands(lasting, tmp_path, 8)
    both[1] += ["--margin", "0.1"]
    results = ended(start_both(both))
    assert results[1][0] == 2
    check_message(results[1][2], "recipe.margin", "0.3", received="0.1")
    assert results[0][0] != 0
    (tmp_path / "chief" / "run.json").unlink()
    (tmp_path / "chief" / "letter.txt").write_text("dear")
    results = ended(start_both(commands(lasting, tmp_path, 8)))
    assert [code for code, *_ in results] == [2, 2]
    check_message(results[0][2], path=tmp_path / "chief", received="letter.txt")
    check_message(results[1][2], "chief", received="letter.txt")


@slow
def test_a_finished_run_is_none_for_both(lasting, quiet, tmp_path) -> None:
    both = commands(lasting, tmp_path, STEPS)
    both[0][both[0].index("--output") + 1] = str(quiet)
    results = ended(start_both(both))
    assert [code for code, *_ in results] == [0, 0], results
    assert "chief" in results[1][2]


@slow
def test_stages_by_threes_on_two_workers_as_on_one_device(lasting, tmp_path) -> None:
    """From no layers to one, three steps an execution, as one device by ones."""
    more = ("--pooling", "weighted_mean", "--stages", "0:4")
    both = commands(lasting, tmp_path, 12, *more, dropout=0.0)
    alone = in_process(both[0], tmp_path / "alone")
    for own in both:
        own += ["--steps-per-execution", "3"]
    results = ended(start_both(both))
    assert [code for code, *_ in results] == [0, 0], results
    assert main(alone) == 0
    pair = [weights(LaBSE.from_preset(tmp_path / name)) for name in ("chief", "alone")]
    for first, second in zip(*pair, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


@slow
def test_the_chief_decides_to_stop_early_and_which_weights_are_kept(
    lasting, tmp_path
) -> None:
    """Nothing is learned, so that both stop after two measurements."""
    more = ("--dev", str(lasting[0]), "--dev-every", "2", "--patience", "2")
    both = commands(lasting, tmp_path, STEPS, *more, "--learning-rate", "1e-9")
    results = ended(start_both(both))
    assert [code for code, *_ in results] == [0, 0], results
    assert log_of(tmp_path / "chief")[-1]["step"] == 4
    check_message(results[0][1], 4, STEPS, "stopped early", "step 0 (kept)")
    assert not (tmp_path / "chief" / "best").exists()
    model = LaBSE.from_preset(tmp_path / "chief")
    fresh = tmp_path / "fresh"
    alone = in_process(both[0], fresh)
    assert main(alone) == 0
    for one, two in zip(*map(weights, (model, LaBSE.from_preset(fresh))), strict=True):
        np.testing.assert_array_equal(one, two)


# A user's own script: Keras's fit, callbacks, validation and evaluate.
SCRIPT = """
    import json, sys
    import keras
    import numpy as np
    import tensorflow as tf
    from labse_tf import distribute, losses, models, optimizers, pretraining

    strategy = distribute.get_strategy(sys.argv[1])
    rng = np.random.default_rng(5)

    def side(count, length):
        ids = rng.integers(5, 60, size=(count, length)).astype("int32")
        return {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}

    def pairs(count):
        data = {"source": side(count, 7), "target": side(count, 9)}
        return tf.data.Dataset.from_tensor_slices(data).batch(16, drop_remainder=True)

    def rows(count):
        data = {
            **side(count, 9),
            "mask_positions": rng.integers(0, 9, (count, 3)).astype("int32"),
            "mask_ids": rng.integers(5, 60, (count, 3)).astype("int32"),
            "mask_weights": rng.integers(0, 2, (count, 3)).astype("float32"),
        }
        return tf.data.Dataset.from_tensor_slices(data).batch(16, drop_remainder=True)

    result = {}
    for kind, train, test in (
        ("dual", pairs(64), pairs(32)), ("masked", rows(64), rows(32))
    ):
        keras.utils.set_random_seed(3)
        with strategy.scope():
            backbone = models.LaBSEBackbone(60, 1, 2, 16, 32, dropout=0.0)
            optimizer = optimizers.adamw(1e-2, clip_norm=1.0, epsilon=0.1)
            if kind == "dual":
                model = models.DualEncoder(models.LaBSE(backbone, pooling="mean"))
                model.compile(optimizer, losses.AdditiveMarginSoftmax(0.3, 10.0))
            else:
                model = pretraining.MaskedLM(backbone, chunk_size=17)
                model.compile(optimizer)
        steps = []
        note = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: steps.append(float(logs["loss"]))
        )
        stop = keras.callbacks.EarlyStopping(
            "val_loss", patience=0, min_delta=1e9, restore_best_weights=True
        )
        history = model.fit(
            train, epochs=5, shuffle=False, verbose=0, validation_data=test,
            callbacks=[note, stop],
        ).history
        result[kind] = {
            "steps": steps,
            "history": history,
            "evaluate": model.evaluate(test, return_dict=True, verbose=0),
            "weights": [float(np.abs(np.asarray(w)).sum()) for w in model.weights],
        }
    print(json.dumps(result))
"""


@slow
def test_fit_with_callbacks_on_two_workers(run_python) -> None:
    import textwrap

    one = json.loads(run_python(SCRIPT, "one_device").splitlines()[-1])
    code = textwrap.dedent(SCRIPT)
    arguments = [[sys.executable, "-c", code, "multi_worker"]] * 2
    results = ended(start_both(arguments))
    assert [status for status, *_ in results] == [0, 0], results
    first, second = (json.loads(out.splitlines()[-1]) for _, out, _ in results)
    assert first == second
    for kind in ("dual", "masked"):
        assert len(one[kind]["steps"]) == 8  # Four an epoch; the second was no better.
        for name in ("steps", "weights"):
            assert first[kind][name] == pytest.approx(one[kind][name], abs=1e-4), name
        for name in ("history", "evaluate"):
            for key, value in one[kind][name].items():
                assert first[kind][name][key] == pytest.approx(value, abs=1e-4), key
    print("losses", first["dual"]["steps"], first["masked"]["steps"])
