"""A training run of seconds, in this process and as a command of its own."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.paths import ROOT
from labse_tf import presets
from labse_tf.data import ParallelCorpus, SentencePair
from labse_tf.models import LaBSE
from labse_tf.recipes import Recipe
from labse_tf.training import RunOptions, train_dual_encoder

WORDS = "sun moon star sky day night".split()
OTHER = "sol luna astro cielo dia noche".split()
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *OTHER]

RECIPE = Recipe(
    num_layers=1,
    num_heads=2,
    hidden_dim=16,
    intermediate_dim=32,
    max_sequence_length=16,
    dropout=0.2,  # its random states belong to a checkpoint
    pooling="mean",
    sequence_length=16,
    batch_size=16,
    train_steps=12,
    learning_rate=5e-3,
    warmup_steps=2,
)


def make_pairs(count: int = 200) -> list[SentencePair]:
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 6, rng.integers(3, 9)) for _ in range(count)]
    return [
        SentencePair(
            " ".join(WORDS[i] for i in row), " ".join(OTHER[i] for i in row), "es"
        )
        for row in rows
    ]


def write_text(folder: Path) -> tuple[Path, Path]:
    """Writes pairs as TSV and a vocabulary, and returns both paths."""
    pairs, vocabulary = folder / "en-es.tsv", folder / "vocab.txt"
    pairs.write_text("".join(f"{p.source}\t{p.target}\n" for p in make_pairs()))
    vocabulary.write_text("\n".join(TOKENS) + "\n")
    return pairs, vocabulary


def train(
    corpus: ParallelCorpus, output: Path, vocabulary: Path, **changes: object
) -> LaBSE:
    recipe = dataclasses.replace(RECIPE, **changes)
    return train_dual_encoder(
        recipe,
        corpus,
        output,
        vocabulary=vocabulary,
        options=RunOptions(checkpoint_every=4, log_every=2, progress=False),
    )


def weights(model: LaBSE) -> list[np.ndarray]:
    return [np.asarray(w) for w in model.weights]


def log_of(folder: Path) -> list[dict]:
    lines = (folder / "training_log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def command(text: tuple[Path, Path], output: Path, steps: int) -> list[str]:
    flags = {
        "num-layers": 1,
        "num-heads": 2,
        "hidden-dim": 16,
        "intermediate-dim": 32,
        "max-sequence-length": 16,
        "sequence-length": 16,
        "pooling": "mean",
        "dropout": 0.2,
        "batch-size": 16,
        "train-steps": steps,
        "checkpoint-every": 5,
        "log-every": 5,
        "learning-rate": 0.005,
    }
    return [
        *(sys.executable, "-m", "labse_tf", "train", str(text[0])),
        *("--vocab", str(text[1]), "--output", str(output), "--deterministic"),
        *(part for name, value in flags.items() for part in (f"--{name}", str(value))),
    ]


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_step(process: subprocess.Popen, output: Path, step: int) -> None:
    """Waits until the log has come to a step."""
    log = output / "training_log.jsonl"
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"it ended by itself: {process.communicate()}")
        lines = log.read_text().splitlines() if log.exists() else []
        if lines and json.loads(lines[-1])["step"] >= step:
            return
        time.sleep(0.02)
    process.kill()
    pytest.fail("no progress in two minutes")


def files(folder: Path) -> dict[str, bytes]:
    return {
        name: (folder / name).read_bytes()
        for name in (presets.WEIGHTS, presets.VOCABULARY)
    }
