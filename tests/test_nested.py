"""Smaller sizes of vectors: of `encode`, encoders, commands and SavedModels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from helpers.command_line import run
from helpers.errors import raises, refuses
from helpers.models import make_model, sentences
from labse_tf.encoders import fingerprint, open_encoder
from labse_tf.export import export_saved_model, read_report
from labse_tf.export.parity import measure
from labse_tf.models import LaBSE
from labse_tf.nested import cut_vectors

TEXTS = sentences(40)


def by_hand(vectors: np.ndarray, dim: int) -> np.ndarray:
    short = vectors[:, :dim].astype(np.float64)
    return short / np.linalg.norm(short, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def model() -> LaBSE:
    return make_model(num_layers=1, dropout=0.0)


@pytest.fixture(scope="module")
def preset(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("preset") / "model"
    model.save_to_preset(path)
    return path


def test_arrays_and_tensors_are_cut_alike() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float16)
    vectors[3] = 0
    for dim in (1, 4, 7):
        cut = cut_vectors(vectors, dim)
        assert isinstance(cut, np.ndarray) and cut.dtype == np.float32
        known = np.arange(5) != 3
        np.testing.assert_allclose(cut[known], by_hand(vectors[known], dim), atol=1e-6)
        assert not cut[3].any()
        tensor = cut_vectors(tf.constant(vectors), dim)
        assert tf.is_tensor(tensor) and tensor.dtype == tf.float32
        np.testing.assert_allclose(tensor.numpy(), cut, atol=1e-6)
    for dim in (0, 8, -1, 2.0, True):
        with raises(ValueError, argument="dim", received=dim):
            cut_vectors(vectors, dim)


@pytest.mark.parametrize("dim", [1, 5, 16])
def test_encode_returns_the_first_components(model, dim) -> None:
    whole = model.encode(TEXTS)
    found = model.encode(TEXTS, dim=dim)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(whole, dim), atol=1e-6)
    np.testing.assert_allclose(model.encode(TEXTS[0], dim=dim), found[0], atol=1e-6)
    assert model.encode([], dim=dim).shape == (0, dim)
    # Many batches, and the graph of few texts.
    long = model.encode(TEXTS * 20, dim=dim)
    np.testing.assert_allclose(long, np.tile(found, (20, 1)), atol=1e-6)

    graph = tf.function(lambda texts: model.encode(texts, dim=dim))
    np.testing.assert_allclose(graph(tf.constant(TEXTS)), found, atol=1e-6)
    one = graph(tf.constant(TEXTS[0]))
    np.testing.assert_allclose(one, found[0], atol=1e-6)


@pytest.mark.parametrize("dim", [0, 17, -3, 4.0, True])
def test_sizes_out_of_range_are_named(model, preset, tmp_path, dim) -> None:
    with raises(ValueError, argument="dim", received=dim):
        model.encode(["sun"], dim=dim)
    with raises(ValueError, argument="dim", received=dim):
        open_encoder(preset, dim=dim)
    with raises(ValueError, argument="dim", received=dim):
        export_saved_model(model, tmp_path / "1", dim=dim)
    assert not (tmp_path / "1").exists()


def test_encoders_of_a_smaller_size(model, preset, tmp_path) -> None:
    saved = export_saved_model(model, tmp_path / "1")
    expected = by_hand(model.encode(TEXTS), 5)
    for path in (preset, saved):
        encoder = open_encoder(path, dim=5)
        assert encoder.dimension == 5
        np.testing.assert_allclose(encoder(TEXTS), expected, atol=1e-6)
        assert encoder([]).shape == (0, 5)
        smaller = encoder.cut(3)(TEXTS)
        np.testing.assert_allclose(smaller, by_hand(expected, 3), atol=1e-6)
        with raises(ValueError, "5", argument="dim", received=6):
            encoder.cut(6)
    # Vectors on disk are those of one size.
    known = {fingerprint(preset, dim=dim) for dim in (None, 5, 16)}
    assert len(known) == 3


def test_commands_take_a_smaller_size(model, preset, tmp_path, capsys) -> None:
    path, output = tmp_path / "text.txt", tmp_path / "vectors.npy"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    options = (path, "--model", preset, "--output", output)
    assert run("embed", *options, "--dim", 5, "--json", tmp_path / "told.json") == 0
    expected = by_hand(model.encode(TEXTS), 5)
    np.testing.assert_allclose(np.load(output), expected, atol=1e-6)
    assert json.loads((tmp_path / "told.json").read_text())["dimension"] == 5
    told = tmp_path / "found.json"
    query = (TEXTS[3], path, "--model", preset, "--top", 1, "--json", told)
    assert run("search", *query, "--dim", 5) == 0
    (line,) = json.loads(told.read_text(encoding="utf-8"))["lines"]
    assert line["cosine"] == pytest.approx(1, abs=1e-4)
    refuses(capsys, ("embed", *options, "--dim", 17), "16", argument="dim", received=17)


def test_mining_keeps_no_vectors_of_another_size(preset, tmp_path) -> None:
    """Rows that were embedded at one size are not used for another."""
    sides = []
    for name in ("hi", "en"):
        sides.append(tmp_path / f"news.{name}.txt")
        sides[-1].write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    work = tmp_path / "work"
    for dim, width in ((5, 5), (3, 3)):
        mine = ("mine", *sides, "--model", preset, "--work", work, "--dim", dim)
        assert run(*mine, "--output", tmp_path / f"{dim}.tsv") == 0
        assert np.load(work / "source.npy").shape[1] == width


# === SavedModels ===


@pytest.mark.parametrize("interface", ["text", "encoder"])
def test_a_saved_model_of_a_smaller_size(model, tmp_path, interface) -> None:
    path = export_saved_model(model, tmp_path / "1", interface, dim=5, texts=TEXTS)
    report = read_report(path)
    assert (report.embedding_dim, report.cut_from) == (5, 16)
    assert report.parity.lowest_cosine > 1 - 1e-6
    assert "| vector | 5 dimensions, the first of 16, " in (
        (path / "README.md").read_text(encoding="utf-8")
    )
    inputs = tf.constant(TEXTS)
    if interface == "encoder":
        parts = export_saved_model(model, tmp_path / "2", "preprocessor", texts=TEXTS)
        inputs = tf.saved_model.load(str(parts))(inputs)
    loaded = tf.saved_model.load(str(path))
    expected = by_hand(model.encode(TEXTS), 5)
    signature = loaded.signatures["serving_default"]
    assert signature.structured_outputs["default"].shape[1] == 5
    given = inputs if isinstance(inputs, dict) else {"inputs": inputs}
    for found in (
        *(loaded(inputs, training=training)["default"] for training in (False, True)),
        *(loaded.serve(inputs)["default"], signature(**given)["default"]),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    if interface == "encoder":
        assert loaded(inputs)["pooled_output"].shape[1] == 16


def test_parity_knows_the_size(model, tmp_path) -> None:
    path = export_saved_model(model, tmp_path / "1", dim=5, texts=TEXTS)
    assert measure(path, model, "text", TEXTS, 5).lowest_cosine > 1 - 1e-6
    whole = export_saved_model(model, tmp_path / "2", texts=TEXTS)
    assert read_report(whole).cut_from is None
    # Another part of the vectors is not the first one.
    other = shutil.copytree(whole, tmp_path / "3")
    with raises(ValueError):
        measure(other, model, "text", TEXTS, 5)
    with raises(ValueError, argument="dim", received=5):
        export_saved_model(model, tmp_path / "4", "preprocessor", dim=5)


def test_the_export_command_takes_a_smaller_size(preset, tmp_path, capsys) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    common = ("export", "--model", preset, "--output", tmp_path / "1", "--texts", text)
    refuses(capsys, (*common, "--dim", 0), argument="dim", received=0)
    assert run(*common, "--dim", 5, "--storage", "int8") == 0
    assert "vectors of 5" in capsys.readouterr().out
    report = read_report(tmp_path / "1")
    assert (report.embedding_dim, report.storage) == (5, "int8")
    assert report.parity.lowest_cosine > 0.99
    assert run("export", "--check", tmp_path / "1") == 0
