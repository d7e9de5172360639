"""The quickstart: all stages on real text, reuse, refusals, own text."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.errors import raises
from labse_tf import data, presets, quickstart
from labse_tf.models import LaBSE

pytest.importorskip("django", reason="the extra `quickstart` is not installed")

LANGUAGES = ["hi", "bn", "ta", "fr"]


@pytest.fixture
def settings() -> dict:
    """What the session's small quickstart was made with."""
    recipe = dataclasses.replace(
        quickstart.RECIPE, num_layers=1, train_steps=60, warmup_steps=6, batch_size=128
    )
    pretraining = dataclasses.replace(
        quickstart.PRETRAINING, train_steps=10, warmup_steps=1
    )
    return {
        "languages": LANGUAGES,
        "recipe": recipe,
        "pretraining": pretraining,
        "vocabulary_size": 3000,
        "progress": False,
    }


@pytest.fixture
def copy(small_quickstart: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_quickstart, tmp_path / "copy"))


def test_everything_is_there(small_quickstart: Path) -> None:
    assert presets.is_preset(small_quickstart / "model")
    assert (small_quickstart / "saved_model" / "1" / "saved_model.pb").is_file()
    assert "BSD" in (small_quickstart / "text" / "SOURCES.md").read_text()
    # Nothing half written, no checkpoints left over.
    hidden = [p for p in small_quickstart.rglob("*") if p.name.startswith(".")]
    assert hidden == []
    assert not (small_quickstart / "model" / "checkpoints").exists()


def test_accuracy_rises_in_every_language(small_quickstart: Path) -> None:
    accuracy = json.loads((small_quickstart / "accuracy.json").read_text())
    assert set(accuracy) == set(LANGUAGES)
    for code, row in accuracy.items():
        assert row["after"] > row["before"] + 0.05, code
        assert row["after"] > 10 / row["pairs"], code  # ten times chance


def test_held_out_english_is_not_trained_on(small_quickstart: Path) -> None:
    train, held_out = (
        data.load_pairs(small_quickstart / "text" / part)
        for part in ("train", "held_out")
    )
    english = [
        {
            bytes(s)
            for code in c.languages
            for s in c.pairs(code, range(c.counts[code]))[0]
        }
        for c in (train, held_out)
    ]
    assert len(english[1]) > 100
    assert not english[0] & english[1]


def test_the_saved_model_is_the_model(small_quickstart: Path) -> None:
    import tensorflow as tf
    import tensorflow_text  # noqa: F401

    texts = ["Please enter a valid date.", "कृपया एक भाषा चुनें।", ""]
    module = tf.saved_model.load(str(small_quickstart / "saved_model" / "1"))
    model = LaBSE.from_preset(small_quickstart / "model")
    np.testing.assert_allclose(
        module(tf.constant(texts))["default"], model.encode(texts), atol=1e-6
    )


def test_run_again_it_reuses(copy: Path, settings: dict, capsys) -> None:
    model = (copy / "model" / "model.weights.h5").stat().st_mtime_ns
    saved = (copy / "saved_model" / "1" / "saved_model.pb").stat().st_mtime_ns
    result = quickstart.quickstart(copy, **settings)
    said = capsys.readouterr().err
    # text, vocabulary, pre-trained model, model, SavedModel
    assert said.count("reused") == 5
    assert (copy / "model" / "model.weights.h5").stat().st_mtime_ns == model
    assert (copy / "saved_model" / "1" / "saved_model.pb").stat().st_mtime_ns == saved
    assert len(result.neighbours) == 4  # one a language, as there are four
    for neighbour in result.neighbours:
        assert -1 <= neighbour.cosine <= 1.0001
    quickstart.print_result(result)
    printed = capsys.readouterr().out
    assert "Hindi" in printed
    assert "chance" in printed


@pytest.mark.slow
def test_other_settings_need_fresh(copy: Path, settings: dict) -> None:
    settings["recipe"] = dataclasses.replace(settings["recipe"], train_steps=4)
    settings["recipe"] = dataclasses.replace(settings["recipe"], warmup_steps=1)
    before = sorted(p.name for p in copy.iterdir())
    with raises(ValueError, argument="--fresh", received="recipe"):
        quickstart.quickstart(copy, **settings)
    assert sorted(p.name for p in copy.iterdir()) == before
    (copy / "mine.txt").write_text("kept")
    result = quickstart.quickstart(copy, fresh=True, **settings)
    log = (copy / "model" / "training_log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["step"] == 4
    assert (copy / "mine.txt").read_text() == "kept"
    assert set(result.accuracy) == set(LANGUAGES)


def test_a_damaged_note_is_named_and_fresh_replaces_it(tmp_path: Path) -> None:
    note = tmp_path / "quickstart.json"
    for content in ("", '{"recipe": ', "[1]", "\udcff"):
        note.write_text(content, encoding="utf-8", errors="surrogateescape")
        with raises(ValueError, path=note, received=True):
            quickstart.quickstart(tmp_path, languages=["hi"])
    (tmp_path / "model").mkdir()
    with raises(ValueError, path=tmp_path / "no.tsv"):
        quickstart.quickstart(tmp_path, fresh=True, pairs=[tmp_path / "no.tsv"])
    assert [path.name for path in tmp_path.iterdir()] == ["quickstart.json"]
    assert isinstance(json.loads(note.read_text()), dict)


def test_own_pairs(tmp_path: Path) -> None:
    words = "one two three four five six seven eight nine ten".split()
    file = tmp_path / "en-xx.tsv"
    rng = np.random.default_rng(0)
    rows = {" ".join(rng.choice(words, 4)) for _ in range(400)}
    file.write_text("".join(f"{r}\t{r[::-1].upper()}\n" for r in sorted(rows)))
    recipe = dataclasses.replace(
        quickstart.RECIPE, num_layers=0, train_steps=30, warmup_steps=3, batch_size=64
    )
    result = quickstart.quickstart(
        tmp_path / "out",
        pairs=[file],
        recipe=recipe,
        vocabulary_size=400,
        progress=False,
    )
    assert set(result.accuracy) == {"xx"}
    assert result.accuracy["xx"].after > result.accuracy["xx"].before


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with raises(ValueError, received="letter.txt"):
        quickstart.quickstart(tmp_path)
    with raises(ValueError, received=True):
        quickstart.quickstart(tmp_path / "letter.txt")
