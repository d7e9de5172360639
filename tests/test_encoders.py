"""Encoders: opened by a name or a path of any kind; the loader of SavedModels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from helpers.errors import raises
from helpers.models import make_model, sentences
from labse_tf.encoders import load_saved_model, open_encoder
from labse_tf.export import export_saved_model


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("preset") / "model"
    make_model(num_layers=1).save_to_preset(path)
    return path


@pytest.fixture(scope="module")
def saved(preset) -> Path:
    model = open_encoder(preset).model
    assert model is not None
    return export_saved_model(model, preset.parent / "versions" / "1")


def test_an_encoder_knows_what_it_is(preset, saved) -> None:
    encoder = open_encoder(preset)
    assert encoder.name == str(preset)
    assert (encoder.dtype, encoder.dimension) == ("float32", 16)
    vectors = encoder(sentences(150))
    np.testing.assert_array_equal(vectors, encoder.model.encode(sentences(150)))
    exported = open_encoder(str(saved))
    assert (exported.dtype, exported.dimension) == (None, 16)
    assert exported.model is None
    np.testing.assert_allclose(exported(sentences(150)), vectors, atol=1e-6)
    for each in (encoder, exported):
        assert each([]).shape == (0, 16)


def test_a_compute_type(preset, saved) -> None:
    encoder = open_encoder(preset, "bfloat16")
    assert encoder.dtype == "bfloat16"
    exact = open_encoder(preset)(sentences(9))
    cosines = (encoder(sentences(9)) * exact).sum(axis=1)
    assert 0.99 < cosines.min() < 1
    with raises(ValueError, argument="dtype", received="bfloat16"):
        open_encoder(saved, "bfloat16")


def test_what_is_no_saved_model(saved, tmp_path) -> None:
    (tmp_path / "file").write_text("no model", encoding="utf-8")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "words").write_text("no model", encoding="utf-8")
    broken = shutil.copytree(saved, tmp_path / "broken")
    (broken / "saved_model.pb").write_bytes(b"\xff" * 40)
    for path, received in (
        (tmp_path / "missing", True),
        (tmp_path / "file", True),
        (tmp_path / "foreign", "['words']"),
        (saved.parent, "'1'"),
        (broken, True),
    ):
        with raises(ValueError, path=path, received=received) as caught:
            load_saved_model(path)
        assert "\n" not in str(caught.value)
    with raises(ValueError, "the model:"):
        load_saved_model(tmp_path / "missing", name="the model")
