"""Pre-training runs: from text to a preset, in stages, killed and resumed."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.errors import raises
from helpers.paths import ROOT
from helpers.runs import files, start, wait_for_step
from labse_tf import presets
from labse_tf.cli import main
from labse_tf.data import MonolingualCorpus, ParallelCorpus, SentencePair
from labse_tf.pretraining import pretrain
from labse_tf.recipes import PretrainingRecipe, Recipe
from labse_tf.training import RunOptions, train_dual_encoder

WORDS = "sun moon star sky day night".split()
OTHER = "sol luna astro cielo dia noche".split()
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *OTHER]

RECIPE = PretrainingRecipe(
    num_layers=2,
    num_heads=2,
    hidden_dim=16,
    intermediate_dim=32,
    max_sequence_length=32,
    dropout=0.1,
    pooling="mean",
    sequence_length=32,
    batch_size=8,
    train_steps=60,
    stages=((1, 30),),
    learning_rate=1e-2,
    warmup_steps=2,
    max_predictions=7,
)


def sides() -> list[tuple[str, str]]:
    """One word, some times, and its translation: a masked one is easily restored."""
    rng = np.random.default_rng(0)
    rows = [[rng.integers(0, 6)] * rng.integers(3, 9) for _ in range(300)]
    return [
        (" ".join(WORDS[i] for i in row), " ".join(OTHER[i] for i in row))
        for row in rows
    ]


@pytest.fixture(scope="module")
def pairs() -> ParallelCorpus:
    return ParallelCorpus(SentencePair(*pair, "es") for pair in sides())


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(TOKENS) + "\n")
    return path


def run(
    output: Path,
    vocabulary: Path,
    pairs: ParallelCorpus | None,
    sentences: MonolingualCorpus | None = None,
    **changes: object,
):
    return pretrain(
        dataclasses.replace(RECIPE, **changes),
        pairs,
        sentences,
        output,
        vocabulary=vocabulary,
        options=RunOptions(checkpoint_every=20, log_every=10, progress=False),
    )


def log_of(folder: Path) -> list[dict]:
    lines = (folder / "training_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def finished(pairs, vocabulary, tmp_path_factory) -> Path:
    """The folder of a run over pairs; read only."""
    folder = tmp_path_factory.mktemp("pretrain") / "run"
    run(folder, vocabulary, pairs)
    return folder


def test_a_run_becomes_a_preset_and_its_losses_fall(finished) -> None:
    assert presets.is_preset(finished)
    assert not (finished / "checkpoints").exists()
    log = log_of(finished)
    assert [(e["step"], e["stage"]) for e in log] == [
        *((10, 1), (20, 1), (30, 1), (40, 2), (50, 2), (60, 2))
    ]
    for task in ("mlm", "tlm"):
        losses = [entry[f"{task}_loss"] for entry in log]
        assert losses[-1] < losses[0] - 0.1, (task, losses)
        # Both kinds of rows are there in every window.
        assert all(0 < entry[f"{task}_accuracy"] < 1 for entry in log)
    assert all(entry["rows_per_second"] > 0 for entry in log)


def test_tuning_starts_from_it(finished, pairs, tmp_path) -> None:
    from labse_tf.models import LaBSE

    first = LaBSE.from_preset(finished)
    assert first.backbone.num_layers == 2
    assert first.pooling == "mean"
    recipe = Recipe(
        sequence_length=16, batch_size=16, train_steps=2, learning_rate=1e-9
    )
    tuned = train_dual_encoder(
        recipe,
        pairs,
        tmp_path / "tuned",
        model=finished,
        options=RunOptions(progress=False),
    )
    for one, two in zip(first.weights, tuned.weights, strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(two), atol=1e-6)


def test_a_finished_run_does_nothing_and_another_one_is_refused(
    finished, pairs, vocabulary, tmp_path
) -> None:
    before = files(finished)
    run(finished, vocabulary, pairs)
    assert files(finished) == before
    with raises(ValueError, "recipe.mask_rate", "0.2", "mask_rate", "0.15"):
        run(finished, vocabulary, pairs, mask_rate=0.15)
    with raises(ValueError, "recipe.stages", received="recipe.stages"):
        run(finished, vocabulary, pairs, stages=())
    with raises(ValueError, "text.sentences"):
        run(finished, vocabulary, pairs, MonolingualCorpus([("en", "sun")]))
    other = tmp_path / "vocab.txt"
    other.write_text("\n".join([*TOKENS, "sea"]) + "\n")
    with raises(ValueError, "start.vocabulary"):
        run(finished, other, pairs)
    with raises(ValueError, "`sentences`", argument="pairs"):
        run(tmp_path / "none", vocabulary, None)
    assert not (tmp_path / "none").exists()


def test_sentences_alone_and_pairs_alone(vocabulary, pairs, tmp_path) -> None:
    short = {"train_steps": 2, "stages": (), "warmup_steps": 0, "num_layers": 1}
    sentences = MonolingualCorpus(("en", source) for source, _ in sides())
    run(tmp_path / "mlm", vocabulary, None, sentences, **short)
    (entry,) = log_of(tmp_path / "mlm")
    assert entry["mlm_loss"] > 0 and entry["tlm_loss"] == 0
    only = {**short, "sentences_from_pairs": False}
    run(tmp_path / "tlm", vocabulary, pairs, **only)
    (entry,) = log_of(tmp_path / "tlm")
    assert entry["tlm_loss"] > 0 and entry["mlm_loss"] == 0


# === The command ===


@pytest.fixture
def text(tmp_path, vocabulary) -> tuple[Path, Path, Path]:
    """Pairs, sentences, vocabulary."""
    pairs, sentences = tmp_path / "en-es.tsv", tmp_path / "news.es.txt"
    pairs.write_text("".join(f"{s}\t{t}\n" for s, t in sides()))
    sentences.write_text("".join(f"{t} {t}\n" for _, t in sides()))
    return pairs, sentences, vocabulary


def command(text: tuple[Path, Path, Path], output: Path, steps: int) -> list[str]:
    flags = {
        "num-layers": 4,
        "num-heads": 2,
        "hidden-dim": 16,
        "intermediate-dim": 32,
        "max-sequence-length": 32,
        "sequence-length": 32,
        "max-predictions": 7,
        "dropout": 0.2,
        "batch-size": 8,
        "train-steps": steps,
        "warmup-steps": 5,
        "checkpoint-every": 7,
        "log-every": 5,
        "learning-rate": 0.005,
    }
    return [
        *("pretrain", "--pairs", str(text[0]), "--mono", str(text[1])),
        *("--vocab", str(text[2]), "--output", str(output), "--deterministic"),
        *(part for name, value in flags.items() for part in (f"--{name}", str(value))),
    ]


def test_bad_input_is_told_in_one_line(text, tmp_path, capsys) -> None:
    output = tmp_path / "out"
    arguments = command(text, output, 20)
    bare = [*arguments[:1], *arguments[5:]]
    for wrong, message in (
        (bare, "--mono"),
        ([*arguments, "--stages", "3-5"], "LAYERS:STEPS"),
        ([*arguments, "--stages", "3:5"], "`stages`"),
        ([*arguments, "--tlm-share", "1.5"], "`tlm_share`"),
        ([*arguments, "--tlm-share", "0.01"], "`batch_size`"),
        ([*arguments, "--max-sequence-length", "8"], "`sequence_length`"),
        ([*arguments, "--vocab", "none.txt"], "none.txt: "),
    ):
        assert main(wrong) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert message in error and "Received: " in error, error
        assert not presets.is_preset(output)
    text[1].write_bytes(b"sol\n\xff\n")
    assert main(arguments) == 2
    assert "news.es.txt:2" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_five_times_and_resumed_is_undisturbed(text, tmp_path) -> None:
    """`kill -9` at random moments in all three stages: the same bits in the end."""
    steps = 600
    python = (sys.executable, "-m", "labse_tf")
    quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
    done = subprocess.run(
        [*python, *command(text, quiet, steps)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rng = np.random.default_rng()
    stops = sorted(rng.choice(np.arange(5, 560), 5, replace=False).tolist())
    print("killed at", stops)
    for stop in stops:
        process = start([*python, *command(text, disturbed, steps)])
        wait_for_step(process, disturbed, stop)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not presets.is_preset(disturbed)
    done = subprocess.run(
        [*python, *command(text, disturbed, steps)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert files(disturbed) == files(quiet)
    logs = [log_of(folder) for folder in (quiet, disturbed)]
    for log in logs:
        for entry in log:
            entry.pop("rows_per_second")
    # Windows of the log begin anew where a process does, so they are fewer or shorter.
    assert logs[0][-1]["step"] == logs[1][-1]["step"] == steps
    assert [e["stage"] for e in logs[1]] == sorted(e["stage"] for e in logs[1])
