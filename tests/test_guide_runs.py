"""Training with a guide: its vectors on disk, in the batches, in runs and commands."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import zlib
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from helpers import reference
from helpers.command_line import run as run_command
from helpers.errors import check_message, raises, refuses
from helpers.runs import OTHER, RECIPE, WORDS, log_of, make_pairs, weights
from labse_tf import presets
from labse_tf.data import (
    ParallelCorpus,
    SamplingPlan,
    TextVectors,
    open_prepared,
    sentence_pairs,
    text_vectors,
)
from labse_tf.data.batches import lengths_to_sort
from labse_tf.data.sampling import RowBatches
from labse_tf.distillation import DistillationRecipe
from labse_tf.models import LaBSE
from labse_tf.training import (
    Guide,
    Interrupted,
    Run,
    RunOptions,
    train_dual_encoder,
    untrained_encoder,
)
from labse_tf.training.from_recipe import make_plan

STILL = dataclasses.replace(RECIPE, dropout=0.0, epsilon=1e-3)


def of_words(texts: list[str]) -> np.ndarray:
    """A guide: the words, which have equal translations, and a noise of the text."""
    table = np.random.default_rng(3).normal(size=(6, 12))
    found = []
    for text in texts:
        noise = np.random.default_rng(zlib.crc32(text.encode())).normal(size=12)
        rows = [table[(WORDS + OTHER).index(word) % 6] for word in text.split()]
        found.append(np.mean(rows, axis=0) + 0.3 * noise)
    return np.asarray(found)


def make_guide(folder: Path) -> Guide:
    return Guide(TextVectors(folder, "words"), lambda: of_words)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def base(tmp_path, text) -> Path:
    """A preset to start from."""
    untrained_encoder(STILL, text[1]).save_to_preset(tmp_path / "base")
    return tmp_path / "base"


def train(corpus, base: Path, output: Path, guide=None, options=None, **changes):
    settings = {"checkpoint_every": 4, "log_every": 2, "progress": False}
    return train_dual_encoder(
        dataclasses.replace(STILL, **changes),
        corpus,
        output,
        model=base,
        guide=guide,
        options=RunOptions(**settings | (options or {})),
    )


# === Batches ===


def test_batches_have_the_vectors_of_their_texts(tmp_path, corpus, text) -> None:
    guide = make_guide(tmp_path / "v").vectors
    guide.add([text for _, text in corpus.texts()], of_words, progress=False)
    known = guide.of(corpus)
    preprocessor = untrained_encoder(STILL, text[1]).text_preprocessor()
    plan = SamplingPlan(16, steps=5, start_step=2)
    rows = RowBatches(plan, corpus, lengths_to_sort(plan, corpus, preprocessor))
    plain = sentence_pairs(corpus, preprocessor, plan)
    guided = sentence_pairs(corpus, preprocessor, plan, guide=known)
    assert guided.cardinality() == plain.cardinality() == 3
    for chosen, features, (x, y) in zip(rows, plain, guided, strict=True):
        for side, texts in zip(("source", "target"), corpus.take(chosen), strict=True):
            for name, tensor in features[side].items():
                np.testing.assert_array_equal(x[side][name], tensor)
            wanted = unit(of_words([text.decode() for text in texts]))
            np.testing.assert_allclose(y[side], wanted, atol=2e-3)
            norms = np.linalg.norm(y[side], axis=1)
            np.testing.assert_allclose(norms, 1, atol=1e-6)
    with raises(ValueError, argument="guide", received=[200, 200]):
        half = corpus.subset(np.arange(100))
        sentence_pairs(half, preprocessor, plan, guide=known)


# === Runs ===


@pytest.mark.parametrize("margin", [0.0, 0.2])
def test_the_first_loss_is_that_of_numpy(tmp_path, corpus, base, margin) -> None:
    recipe = dataclasses.replace(STILL, guide_margin=margin)
    model = LaBSE.from_preset(base)
    plan = make_plan(recipe, 0)
    lengths = lengths_to_sort(plan, corpus, model.text_preprocessor())
    texts = [
        [text.decode() for text in side]
        for side in corpus.take(next(iter(RowBatches(plan, corpus, lengths))))
    ]
    numbers = [np.unique(side, return_inverse=True)[1] for side in texts]
    settings = {
        "margin": recipe.margin,
        "scale": recipe.scale,
        "source_ids": np.stack([numbers[0]] * 2, axis=1),
        "target_ids": np.stack([numbers[1]] * 2, axis=1),
    }
    vectors = [model.encode(side, progress=False) for side in texts]
    plain = reference.additive_margin_softmax(*vectors, **settings)
    known = [of_words(side).astype(np.float16).astype(np.float64) for side in texts]
    guided = reference.additive_margin_softmax(
        *vectors, **settings, guide=[unit(side) for side in known], guide_margin=margin
    )
    assert abs(plain - guided) > 0.1
    once = {"train_steps": 1, "warmup_steps": 0, "options": {"log_every": 1}}
    guide = make_guide(tmp_path / "v")
    train(corpus, base, tmp_path / "with", guide, guide_margin=margin, **once)
    train(corpus, base, tmp_path / "without", **once)
    first = [log_of(tmp_path / name)[0]["loss"] for name in ("with", "without")]
    assert first == pytest.approx([guided, plain], rel=1e-5)
    # Only the texts of the batch are computed.
    assert len(TextVectors(tmp_path / "v")) == len({*texts[0], *texts[1]})


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_size": 5, "loss_block_size": 6, "lora": 2},
        {"chunk_size": 4, "length_groups": 3, "dims": (8,)},
    ],
    ids=str,
)
def test_chunks_train_as_the_whole_batch(tmp_path, corpus, base, changes) -> None:
    guide = make_guide(tmp_path / "v")
    whole = {key: changes[key] for key in ("dims", "lora") if key in changes}
    one = train(corpus, base, tmp_path / "whole", guide, **whole)
    two = train(corpus, base, tmp_path / "chunks", guide, **changes)
    for first, second in zip(weights(one), weights(two), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_a_resumed_run_is_undisturbed(tmp_path, corpus, base, monkeypatch) -> None:
    """Stopped while the guide's vectors are computed, and again between steps."""
    options = {"deterministic": True}
    monkeypatch.setattr(text_vectors, "_BLOCK", 64)
    quiet = train(
        corpus, base, tmp_path / "quiet", make_guide(tmp_path / "v"), options,
        dropout=0.2,
    )  # fmt: skip
    folder = tmp_path / "disturbed"
    seen: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        if len(seen) == 128:
            seen.append("stopped")
            raise KeyboardInterrupt
        seen.extend(texts)
        return of_words(texts)

    def opened() -> Callable[[list[str]], np.ndarray]:
        keras.random.normal((2,))  # A model that is opened draws random numbers.
        return encode

    def disturbed() -> LaBSE:
        guide = Guide(TextVectors(folder / "guide", "words"), opened)
        return train(corpus, base, folder, guide, options, dropout=0.2)

    with pytest.raises(KeyboardInterrupt):
        disturbed()
    assert len(TextVectors(folder / "guide")) == 128
    saved = Run.save

    def stop_at_eight(self: Run, model: object, step: int) -> None:
        saved(self, model, step)
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "save", stop_at_eight)
    with pytest.raises(Interrupted):
        disturbed()
    monkeypatch.setattr(Run, "save", saved)
    count = len(seen)
    resumed = disturbed()
    # Each text once, and none again when the run is resumed.
    assert len(seen) == count == len(set(seen))
    for one, two in zip(weights(quiet), weights(resumed), strict=True):
        np.testing.assert_array_equal(one, two)
    # Only the vectors outside the run's directory are kept.
    assert not (folder / "guide").exists()
    assert len(TextVectors(tmp_path / "v")) == count - 1


def test_a_guide_belongs_to_its_run(tmp_path, corpus, base) -> None:
    train(corpus, base, tmp_path / "run", make_guide(tmp_path / "v"))
    description = json.loads((tmp_path / "run" / "run.json").read_text())
    assert description["guide"] == {"model": "words", "prefix": ""}
    assert "| guide | `words` |" in (tmp_path / "run" / presets.CARD).read_text()
    other = Guide(TextVectors(tmp_path / "w", "others"))
    for guide, received in ((other, "others"), (None, "None")):
        with raises(ValueError, "guide.model", "words", received=received):
            train(corpus, base, tmp_path / "run", guide)
    # All vectors are there, so the encoder is not needed.
    guide = Guide(TextVectors(tmp_path / "v"))
    train(corpus, base, tmp_path / "again", guide)


def test_groups_of_neighbors_have_a_guide(tmp_path, corpus, base) -> None:
    train(
        corpus, base, tmp_path / "run", make_guide(tmp_path / "v"),
        batches="one_language", hard_negatives=4,
    )  # fmt: skip
    # Of all pairs, since the groups are not searched twice.
    texts = {text for _, text in corpus.texts()}
    assert len(TextVectors(tmp_path / "v")) == len(texts)


def test_what_is_refused_before_a_run_starts(tmp_path, corpus, base, text) -> None:
    output = tmp_path / "run"
    with raises(ValueError, argument="guide_margin", received="0.1"):
        train(corpus, base, output, guide_margin=0.1)
    command = ["prepare", text[0], "--vocab", text[1], "--output", tmp_path / "ids"]
    assert run_command(*command) == 0
    prepared = open_prepared(tmp_path / "ids", progress=False)
    with raises(ValueError, argument="guide", received="TokenCorpus"):
        train(prepared, base, output, make_guide(tmp_path / "v"))
    assert not output.exists()
    guide = make_guide(tmp_path / "v").vectors
    guide.add(["sun"], of_words, progress=False)
    with raises(ValueError, path=tmp_path / "v", received=True):
        train(corpus, base, output, Guide(guide))
    assert [path.name for path in output.iterdir()] == ["run.lock"]
    with raises(ValueError, argument="guide_margin", received="0.1"):
        DistillationRecipe(guide_margin=0.1).check()
    model = LaBSE.from_preset(base)
    vectors = TextVectors(tmp_path / "v").of(corpus, used=np.arange(0))
    with raises(ValueError, argument="guide", received="TokenCorpus"):
        sentence_pairs(prepared, model.text_preprocessor(), batch_size=4, guide=vectors)


REPLICAS = """
    import json, sys
    sys.path.insert(0, "tests")
    from pathlib import Path
    import numpy as np
    from helpers.runs import log_of, make_pairs, weights
    from labse_tf import distribute
    from labse_tf.data import ParallelCorpus
    from test_guide_runs import make_guide, train

    folder, base = map(Path, sys.argv[1:])
    distribute.get_strategy("cpu:2")
    corpus, models, losses = ParallelCorpus(make_pairs()), [], []
    for name, changes in (
        ("cpu:2", {"chunk_size": 3, "loss_block_size": 5}),
        ("one_device", {}),
    ):
        models.append(
            train(
                corpus, base, folder / name, make_guide(folder / "v"),
                {"strategy": name}, train_steps=6, **changes,
            )
        )
        losses.append(log_of(folder / name)[0]["loss"])
    print(json.dumps({
        "losses": losses,
        "difference": max(
            float(np.abs(a - b).max())
            for a, b in zip(*map(weights, models), strict=True)
        ),
    }))
"""


def test_replicas_train_as_one_device(run_python, tmp_path, base) -> None:
    printed = run_python(REPLICAS, tmp_path, base, timeout=600)
    result = json.loads(printed.splitlines()[-1])
    two, one = result["losses"]
    assert two == pytest.approx(one, rel=1e-5)
    assert result["difference"] < 1e-5


# === The command ===

QUICK = "--batch-size 16 --sequence-length 16 --train-steps 3 --warmup-steps 0".split()


def test_the_command_has_a_guide(tmp_path, text, base, capsys) -> None:
    guide = tmp_path / "guide"
    untrained_encoder(dataclasses.replace(STILL, seed=1), text[1]).save_to_preset(guide)
    command = ["train", text[0], "--model", base, "--guide", guide, *QUICK]
    assert run_command(*command, "--output", tmp_path / "one") == 0
    described = json.loads((tmp_path / "one" / "run.json").read_text())["guide"]
    assert described["model"].startswith("guide ") and described["prefix"] == ""
    assert not (tmp_path / "one" / "guide").exists()
    command += ["--guide-vectors", tmp_path / "v", "--guide-margin", -0.1]
    assert run_command(*command, "--output", tmp_path / "two") == 0
    store = TextVectors(tmp_path / "v")
    assert (store.model, store.prefix) == (described["model"], "")
    texts = [text.decode() for _, text in ParallelCorpus(make_pairs()).texts()]
    known = [text for text in texts if store.find([text])[0] >= 0]
    assert len(set(known)) == len(store) > 16
    wanted = LaBSE.from_preset(guide).with_dtype("auto").encode(known, progress=False)
    np.testing.assert_allclose(store.vectors[store.rows(known)], wanted, atol=1e-2)
    recipe = json.loads((tmp_path / "two" / "run.json").read_text())["recipe"]
    assert recipe["guide_margin"] == -0.1
    command += ["--guide-prefix", "sun ", "--output", tmp_path / "three"]
    refuses(capsys, command, "prefix 'sun '", path=tmp_path / "v", received="''")


def test_bad_commands(tmp_path, text, base, capsys) -> None:
    command = ["train", text[0], "--model", base, *QUICK, "-o", tmp_path / "run"]
    for flag, value in (
        ("--guide-prefix", "query: "),
        ("--guide-vectors", "v"),
        ("--guide-margin", 0.1),
    ):
        refuses(capsys, [*command, flag, value], argument="--guide", received=flag)
    refuses(capsys, [*command, "--guide", "labse-nan"], "labse-nan")
    (tmp_path / "letter.txt").write_text("dear")
    refuses(capsys, [*command, "--guide", tmp_path / "letter.txt"], "letter.txt")
    own = tmp_path / "own"
    LaBSE.from_preset(base).with_prefix("moon ").save_to_preset(own)
    TextVectors(tmp_path / "v", "words").add(["sun"], of_words, progress=False)
    refuses(
        capsys, [*command, "--guide", base, "--guide-vectors", tmp_path / "v"],
        path=tmp_path / "v", received="'words'",
    )  # fmt: skip
    assert not (tmp_path / "run").exists()
    capsys.readouterr()
    assert run_command(*command, "--guide", own, "--guide-prefix", "sun ") == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    check_message(line, argument="--guide-prefix", received="'sun '")
