"""The models that ship load by name, are small, and as good as their cards say."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from helpers.errors import raises
from labse_tf import data, evaluation, presets
from labse_tf.models import LaBSE

NAMES = presets.shipped_names()
SAMPLE = presets.shipped_directory() / "sample"
QUERY = "Where is the railway station?"


@pytest.fixture(scope="module", params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name) -> LaBSE:
    return LaBSE.from_preset(name)


@pytest.fixture(scope="module")
def sample() -> dict[str, tuple[list[str], list[str]]]:
    """English and translation by language."""
    pairs = {}
    for path in data.find_pair_files(SAMPLE):
        rows = list(data.read_pairs(path))
        pairs[data.file_language(path)] = (
            [row.source for row in rows],
            [row.target for row in rows],
        )
    return pairs


def test_there_are_models_and_the_default_is_one_of_them():
    from labse_tf.cli.arguments import DEFAULT_MODEL

    assert DEFAULT_MODEL in NAMES


def test_the_sample_is_whole(sample):
    assert len(sample) >= 24
    english = sample["hi"][0]
    assert len(english) == len(set(english)) == 20
    for code, (source, target) in sample.items():
        assert source == english, code
        assert len(set(target)) == len(target), code


def test_small_and_described(name):
    folder = presets.find(name)
    files = {path.name for path in folder.iterdir()}
    assert {"README.md", "LOG.md", "scores.json", "train.sh", "run.json"} <= files
    assert {"accuracy.png", "similarity.png", "curve.png"} <= files
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 60e6
    card = (folder / "README.md").read_text(encoding="utf-8")
    zoo = (presets.shipped_directory() / "README.md").read_text(encoding="utf-8")
    scores = json.loads((folder / "scores.json").read_text())
    for text in ("License", "Limits", "train.sh", "accuracy.png"):
        assert text in card, text
    (row,) = [line for line in zoo.splitlines() if f"[{name}]({name}/README" in line]
    assert row.split("|")[-2].strip() == presets.LICENSES[name]
    assert presets.LICENSES[name] in card
    # The tables say what the file says.
    for group in ("all", "indian", "of_36"):
        assert f"{scores['means']['tatoeba'][group]:.1%}" in card
    assert f"{scores['means']['tatoeba']['of_36']:.1%}".rstrip("%") in zoo


def test_scores_on_the_sample_are_those_of_the_card(name, model, sample):
    scores = json.loads((presets.find(name) / "scores.json").read_text())
    result = evaluation.retrieval(model.encode, sample)
    expected = scores["accuracy"]["sample"]
    assert set(result.accuracy) == set(expected)
    # 20 sentences both ways: one answer more or less is 2.5 %, and other processors
    # round differently.
    for code, accuracy in result.accuracy.items():
        assert accuracy == pytest.approx(expected[code], abs=0.051), code
    assert result.mean_accuracy == pytest.approx(
        scores["means"]["sample"]["all"], abs=0.011
    )


def test_a_sentence_finds_itself_in_ten_languages(model, sample):
    lines = [line for _, target in sample.values() for line in target]
    vectors = model.encode(lines)
    query = model.encode(QUERY)
    nearest = np.argsort(-(vectors @ query))[:10]
    right = [target[0] for _, target in sample.values()]
    assert sum(lines[i] in right for i in nearest) >= 9
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # The order of words, and a name unknown to it, leave a unit vector too.
    odd = model.encode(["", " ", "🙂🙂", "x" * 10_000, "qwxz"])
    np.testing.assert_allclose(np.linalg.norm(odd, axis=1), 1, atol=1e-5)


def test_search_with_the_shipped_model(name, tmp_path, sample, capsys):
    from labse_tf import cli

    file = tmp_path / "phrases.txt"
    lines = [line for _, target in sample.values() for line in target]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert cli.main(["search", QUERY, str(file), "--model", name]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.split("  ", 2)[2] in [target[0] for _, target in sample.values()]


def test_the_first_command_of_a_user_says_nothing_but_the_answer(tmp_path):
    file = tmp_path / "phrases.txt"
    file.write_text("Où est la gare ?\nLe livre est sur la table.\n", encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "labse_tf", "search", QUERY, str(file)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        check=True,
        env=environment,
    )
    assert done.stderr == ""
    assert [line.split("  ")[2] for line in done.stdout.splitlines()] == [
        "Où est la gare ?",
        "Le livre est sur la table.",
    ]


@pytest.mark.slow
def test_the_saved_model_of_a_shipped_model(name, model, tmp_path):
    import tensorflow as tf

    from labse_tf import cli

    folder = tmp_path / "1"
    assert cli.main(["export", "--model", name, "--output", str(folder)]) == 0
    texts = ["नमस्ते दुनिया", "Hello, world.", ""]
    vectors = tf.saved_model.load(str(folder))(tf.constant(texts))["default"]
    np.testing.assert_allclose(vectors, model.encode(texts), atol=1e-5)


def test_a_damaged_model_is_refused(name, tmp_path):
    import shutil

    copy = tmp_path / name
    shutil.copytree(presets.find(name), copy)
    weights = copy / presets.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with raises(ValueError, path=weights, received=True):
        LaBSE.from_preset(copy)
