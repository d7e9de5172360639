"""The family of published models: sizes, names, origins, and what loading one says."""

from __future__ import annotations

import json
import re

import keras
import numpy as np
import pytest

from helpers.errors import raises
from helpers.memory import peak_of
from helpers.models import make_model
from labse_tf import presets
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.quantization import (
    dequantize_groups,
    quantize_groups,
    quantize_rows,
)
from labse_tf.variables import TOKEN_TABLE


def test_sizes_are_those_of_the_papers() -> None:
    """LaBSE 470.9 M, of which 384.9 M the table; LEALLA 69, 107 and 147 M."""
    millions = {n: round(m.parameters / 1e6, 1) for n, m in presets.FAMILY.items()}
    assert millions["labse"] == 470.9
    assert round(millions["lealla-small"]) == 69
    assert round(millions["lealla-base"]) == 107
    assert round(millions["lealla-large"]) == 147
    shape = presets.FAMILY["labse"].backbone
    table = shape["vocabulary_size"] * shape["hidden_dim"]
    assert round(table / 1e6, 1) == 384.9


def test_parameters_are_counted_as_keras_does() -> None:
    small = presets._shape(24, 3, 4, 50)
    known = presets.PublishedModel(small, 16, (), "", (), "")
    assert known.parameters == LaBSEBackbone(**small).count_params()


def test_every_name_says_where_it_is_from() -> None:
    assert not set(presets.FAMILY) & set(presets.shipped_names())
    for name, model in presets.FAMILY.items():
        assert model.licence == "Apache-2.0", name
        assert model.paper.startswith("https://arxiv.org/abs/"), name
        assert model.origins, name
        for origin in model.origins:
            parts = origin.handle.split("/")
            assert len(parts) == {"huggingface": 2, "kaggle": 4}[origin.hub]
            assert origin.url.startswith("https://")
            assert (origin.vocabulary is None) == (origin.vocabulary_url is None)
    assert len(set(presets.FAMILY["labse"].languages)) == 109
    assert len(presets.FAMILY["smaller-labse"].languages) == 15


@pytest.mark.parametrize("name", presets.FAMILY)
def test_loading_one_that_is_not_there_says_how_to_get_it(
    name, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with raises(ValueError, f"labse-tf convert {name} --output DIR"):
        LaBSE.from_preset(name)
    # A directory of that name goes first.
    make_model().save_to_preset(name)
    assert LaBSE.from_preset(name).pooling == "mean"


def test_the_source_stands_in_configuration_and_card(tmp_path) -> None:
    make_model().save_to_preset(tmp_path / "model")
    source = {"hub": "https://example.org", "sha256": {"a.bin": "abc"}}
    presets.record_source(tmp_path / "model", source)
    assert presets.read_config(tmp_path / "model")["source"] == source
    card = (tmp_path / "model" / presets.CARD).read_text(encoding="utf-8")
    assert card.startswith("# model\n")
    assert "| hub | https://example.org |" in card
    assert re.search(r"\|.*sha256.*a\.bin.*\| `abc` \|", card)
    assert LaBSE.from_preset(tmp_path / "model").pooling == "mean"
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with raises(ValueError, received=True):
        LaBSE.from_preset(tmp_path / "model")


@pytest.mark.parametrize("storage", presets.STORAGES)
def test_large_weights_are_written_and_read_without_a_copy(tmp_path, storage) -> None:
    """In blocks, with the values that the whole table would have."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(525_001, 32)).astype(np.float32)  # 67 MB, five blocks
    names = (TOKEN_TABLE, "pooler/kernel")
    weights = {
        name: keras.Variable(array)
        for name, array in zip(names, (table, table[:3]), strict=True)
    }
    path = tmp_path / presets.WEIGHTS
    peak = peak_of(lambda: presets.write_weights(path, weights, storage))
    assert peak < table.nbytes * 0.75
    for variable in weights.values():
        variable.assign(np.full(variable.shape, np.nan))
    assert peak_of(lambda: presets.assign_weights(path, weights)) < table.nbytes * 0.75
    expected = table
    if storage == "float16":
        expected = table.astype(np.float16)
    if storage == "int8":
        codes, scale = quantize_rows(table)
        expected = codes * scale
    if storage == "int4":
        expected = dequantize_groups(*quantize_groups(table))
    np.testing.assert_array_equal(weights[names[0]], expected)


def test_a_table_that_is_loaded_gets_no_random_values(tmp_path, monkeypatch) -> None:
    model = make_model()
    model.save_to_preset(tmp_path / "model")
    shapes = []
    random = keras.initializers.TruncatedNormal.__call__

    def note(self: object, shape: tuple[int, ...], dtype: object = None) -> object:
        shapes.append(tuple(shape))
        return random(self, shape, dtype)

    monkeypatch.setattr(keras.initializers.TruncatedNormal, "__call__", note)
    table = (model.backbone.vocabulary_size, model.backbone.hidden_dim)
    again = LaBSE.from_preset(tmp_path / "model")
    assert shapes and table not in shapes
    for one, two in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one, two)
    make_model()
    assert table in shapes
