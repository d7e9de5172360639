"""Int8 weights: the quantizer against an oracle, and the presets that hold them."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from helpers.errors import raises
from helpers.models import make_model, sentences
from labse_tf import presets
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.quantization import (
    channel_axes,
    quantize,
    quantize_rows,
    scale_shape,
)

BLOCK = "transformer_layer_3/self_attention_layer"
# Path, shape, axes of the channels.
WEIGHTS = [
    ("token_embedding/embeddings", (20, 8), (0,)),
    ("position_embedding/embeddings", (6, 8), (1,)),
    (f"{BLOCK}/query/kernel", (8, 2, 4), (1, 2)),
    (f"{BLOCK}/key/kernel", (8, 2, 4), (1, 2)),
    (f"{BLOCK}/value/kernel", (8, 2, 4), (1, 2)),
    (f"{BLOCK}/attention_output/kernel", (2, 4, 8), (2,)),
    ("transformer_layer_3/feedforward_intermediate_dense/kernel", (8, 16), (1,)),
    ("pooler/kernel", (8, 8), (1,)),
    # One scale per value would save nothing, and these are few values.
    (f"{BLOCK}/query/bias", (2, 4), None),
    ("segment_embedding/embeddings", (2, 8), None),
    ("token_weights/embeddings", (20, 1), None),
    ("embeddings_layer_norm/gamma", (8,), None),
    ("pooler/bias", (8,), None),
]


def oracle(array: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Rounds channel by channel to multiples of 1/127 of the largest value."""
    result = np.zeros(array.shape)
    for index in itertools.product(*(range(array.shape[axis]) for axis in axes)):
        where: list[object] = [slice(None)] * array.ndim
        for axis, place in zip(axes, index, strict=True):
            where[axis] = place
        channel = array[tuple(where)].astype(np.float64)
        scale = np.abs(channel).max() / 127
        if scale:
            result[tuple(where)] = np.rint(channel / scale) * scale
    return result


# === The quantizer ===


@pytest.mark.parametrize(("path", "shape", "axes"), WEIGHTS)
def test_channels_and_scales(path, shape, axes) -> None:
    assert channel_axes(path, shape) == axes
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    if axes is None:
        assert scale_shape(path, shape) is None
        with raises(ValueError, argument="path", received=path):
            quantize(path, array)
        return
    codes, scales = quantize(path, array)
    assert (codes.dtype, codes.shape, scales.dtype) == (np.int8, shape, np.float32)
    assert scales.shape == scale_shape(path, shape)
    assert [axis for axis, size in enumerate(scales.shape) if size > 1] == list(axes)
    found, expected = codes * scales, oracle(array, axes)
    # Only values half way between two codes may be rounded to the other side.
    difference = np.abs(found - expected) / scales
    assert difference.max() < 1.01
    assert (difference > 1e-4).mean() < 0.02
    others = tuple(axis for axis in range(len(shape)) if axis not in axes)
    assert (np.abs(codes).max(axis=others) == 127).all()


def test_every_matrix_of_a_model_is_quantized() -> None:
    model = make_model("weighted_mean")
    large = {w.path for w in model.weights if len(w.shape) > 1}
    small = {path for path in large if path.endswith("/bias")}
    small |= {"segment_embedding/embeddings", "token_weights/embeddings"}
    for weight in model.weights:
        quantized = channel_axes(weight.path, tuple(weight.shape)) is not None
        assert quantized == (weight.path in large - small)


def test_rows_are_within_half_a_step() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(50, 16)) * 10.0 ** rng.integers(-6, 6, (50, 1))
    table[7] = 0
    codes, scale = quantize_rows(table)
    assert codes.dtype == np.int8 and codes.min() == -127 and codes.max() == 127
    largest = np.abs(table).max(axis=1, keepdims=True)
    assert (np.abs(codes * scale - table) <= largest / 254 * (1 + 1e-5)).all()
    assert not codes[7].any() and scale[7] == 0
    for value in (np.nan, np.inf):
        table[3, 3] = value
        with raises(ValueError, argument="table"):
            quantize_rows(table)
        with raises(ValueError, argument="array", received="pooler/kernel"):
            quantize("pooler/kernel", table)


def test_extreme_rows() -> None:
    limits = np.finfo(np.float32)
    table = np.zeros((5, 3), np.float32)
    table[:, 0] = [limits.max / 2, limits.tiny, 190 * limits.smallest_subnormal, 0, -1]
    codes, scale = quantize_rows(table)
    assert codes[:, 0].tolist() == [127, 127, 127, 0, -127]
    np.testing.assert_allclose((codes * scale)[[0, 4]], table[[0, 4]], rtol=1e-6)
    assert quantize_rows(np.zeros((0, 3)))[0].shape == (0, 3)
    assert quantize_rows(np.zeros((3, 0)))[1].tolist() == [[0]] * 3


def test_quantized_rows_are_restored() -> None:
    rng = np.random.default_rng(1)
    table = rng.normal(size=(3000, 24)) * 10.0 ** rng.integers(-9, 9, (3000, 1))
    codes, scale = quantize_rows(table)
    again = quantize_rows(codes * scale)
    np.testing.assert_array_equal(again[0], codes)
    np.testing.assert_array_equal(again[1], scale)


def test_every_scale_is_restored() -> None:
    """All mantissas of the largest value, of which 65,020 are not restored."""
    largest = np.arange(2**23, 2**24, dtype=np.uint32).astype(np.float32)
    scale = largest / np.float32(127)
    product = np.float32(127) * scale
    assert (product != largest).sum() == 65_020
    np.testing.assert_array_equal(product / np.float32(127), scale)


def test_blocks_of_rows_equal_the_whole(monkeypatch) -> None:
    table = np.random.default_rng(3).normal(size=(31, 6))
    whole = quantize_rows(table)
    monkeypatch.setattr("labse_tf.quantization._BLOCK", 13)
    for found, expected in zip(quantize_rows(table), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


# === Presets ===


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    model = LaBSE.from_preset(folder)
    return {weight.path: np.asarray(weight) for weight in model.weights}


@pytest.mark.parametrize("pooling", ["pooler", "weighted_mean"])
def test_a_saved_int8_preset_is_saved_again_bit_for_bit(tmp_path, pooling) -> None:
    make_model(pooling).save_to_preset(tmp_path / "first", storage="int8")
    again = LaBSE.from_preset(tmp_path / "first")
    again.save_to_preset(tmp_path / "second", storage="int8")
    first, second = (tmp_path / name / presets.WEIGHTS for name in ("first", "second"))
    with h5py.File(first) as old, h5py.File(second) as new:
        names: list[str] = []
        old.visit(names.append)
        sets = [name for name in names if isinstance(old[name], h5py.Dataset)]
        assert sum(name.endswith(":scale") for name in sets) == 15
        for name in sets:
            assert old[name].dtype == new[name].dtype
            np.testing.assert_array_equal(old[name][()], new[name][()])
    assert first.read_bytes() == second.read_bytes()


def test_an_int8_preset_holds_the_oracle_of_every_matrix(tmp_path) -> None:
    model = make_model()
    model.save_to_preset(tmp_path, storage="int8")
    found = weights_of(tmp_path)
    with h5py.File(tmp_path / presets.WEIGHTS) as file:
        for weight in model.weights:
            array = np.asarray(weight)
            axes = channel_axes(weight.path, array.shape)
            stored = file[weight.path].dtype
            assert stored == (np.float16 if axes is None else np.int8)
            scale = np.abs(array).max() / 127
            expected = array if axes is None else oracle(array, axes)
            np.testing.assert_allclose(
                found[weight.path], expected, rtol=1e-3, atol=1.01 * scale
            )
            assert found[weight.path].dtype == np.float32
    card = (tmp_path / presets.CARD).read_text(encoding="utf-8")
    assert "int8" in card and "channel" in card


def test_files_with_only_the_table_in_int8_load(tmp_path) -> None:
    """As version 0.1 wrote them, with the other weights as float16."""
    model = make_model()
    model.save_to_preset(tmp_path / "old", storage="float16")
    table = np.asarray(model.backbone.token_embedding.embeddings)
    scale = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
    codes = np.rint(table / scale).astype(np.int8)
    name = "token_embedding/embeddings"
    with h5py.File(tmp_path / "old" / presets.WEIGHTS, "a") as file:
        del file[name]
        file[name], file[f"{name}:scale"] = codes, scale
    path = tmp_path / "old" / presets.CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["storage"] = "int8"
    config["sha256"][presets.WEIGHTS] = presets.sha256(path.parent / presets.WEIGHTS)
    path.write_text(json.dumps(config), encoding="utf-8")
    old = weights_of(tmp_path / "old")
    np.testing.assert_array_equal(old[name], codes * scale)
    np.testing.assert_array_equal(
        old["pooler/kernel"], np.float16(np.asarray(model.backbone.pooler.kernel))
    )
    # Saved again, all matrices are int8; the table keeps its values.
    again = LaBSE.from_preset(tmp_path / "old")
    again.save_to_preset(tmp_path / "new", storage="int8")
    with h5py.File(tmp_path / "new" / presets.WEIGHTS) as file:
        assert file["pooler/kernel"].dtype == np.int8
    np.testing.assert_array_equal(weights_of(tmp_path / "new")[name], codes * scale)
    texts = sentences(10)
    new = LaBSE.from_preset(tmp_path / "new").encode(texts)
    assert (again.encode(texts) * new).sum(axis=1).min() > 0.999


def test_tables_of_shipped_models_keep_their_codes() -> None:
    for name in presets.shipped_names():
        folder = presets.find(name)
        if presets.read_config(folder).get("storage") == "int8":
            with h5py.File(folder / presets.WEIGHTS) as file:
                table = "token_embedding/embeddings"
                codes, scale = file[table][:2000], file[f"{table}:scale"][:2000]
            again = quantize_rows(codes * scale)
            np.testing.assert_array_equal(again[0], codes)
            np.testing.assert_array_equal(again[1], scale)


def damage(path: Path, name: str, array: np.ndarray | None) -> None:
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if array is not None:
            file[name] = array


@pytest.mark.parametrize(
    ("name", "array", "fields", "received"),
    [
        ("pooler/kernel:scale", None, ("pooler/kernel", "(1, 3)"), "None"),
        ("pooler/kernel:scale", np.ones((3, 1), "f"), ("(1, 3)",), "(3, 1)"),
        ("pooler/kernel:scale", np.ones((1, 3), "i"), ("scale",), "integers"),
        ("pooler/kernel:scale", np.full((1, 3), 3e37, "f"), (), "pooler/kernel"),
        ("pooler/kernel:scale", np.full((1, 3), np.nan, "f"), (), "kernel:scale"),
        ("pooler/kernel", np.ones((3, 3), "f"), ("integers",), "floating"),
        ("pooler/kernel", None, (), "no such weight"),
        ("pooler/kernel", np.ones((2, 3), "i1"), ("(3, 3)",), "(2, 3)"),
        ("pooler/bias", np.ones(3, "i1"), ("pooler/bias",), "integers"),
        ("pooler/bias:scale", np.ones(1, "f"), (), "pooler/bias:scale"),
    ],
)
def test_damaged_weights_are_named(tmp_path, name, array, fields, received) -> None:
    path = tmp_path / presets.WEIGHTS
    arrays = {"pooler/kernel": np.eye(3, dtype="f"), "pooler/bias": np.ones(3, "f")}
    variables = {name: keras.Variable(array * 0) for name, array in arrays.items()}
    presets.write_weights(path, arrays, "int8")
    presets.assign_weights(path, variables)
    for variable, expected in zip(variables.values(), arrays.values(), strict=True):
        np.testing.assert_allclose(variable, expected, atol=1e-6)
    damage(path, name, array)
    with raises(ValueError, *fields, path=presets.WEIGHTS, received=received):
        presets.assign_weights(path, variables)


def test_a_matrix_that_is_not_finite_writes_no_preset(tmp_path) -> None:
    model = make_model()
    kernel = model.backbone.pooler.kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    with raises(ValueError, received="pooler/kernel"):
        model.save_to_preset(tmp_path / "preset", storage="int8")
    assert not list(tmp_path.iterdir())


def test_the_size_on_disk_is_a_byte_per_weight(tmp_path) -> None:
    backbone = LaBSEBackbone(2000, 4, 4, 64, 256)
    arrays = {weight.path: np.asarray(weight) for weight in backbone.weights}
    sizes = {}
    for storage in presets.STORAGES:
        path = tmp_path / f"{storage}.h5"
        presets.write_weights(path, arrays, storage)
        sizes[storage] = path.stat().st_size
    numbers = sum(array.size for array in arrays.values())
    matrices = scales = 0
    for name, array in arrays.items():
        shape = scale_shape(name, array.shape)
        if shape is not None:
            matrices += array.size
            scales += int(np.prod(shape))
    assert matrices > 0.98 * numbers
    expected = matrices + 4 * scales + 2 * (numbers - matrices)
    # HDF5 takes up to 1 kB per dataset for names, types and places.
    assert expected <= sizes["int8"] < expected + 1000 * (len(arrays) + 30)
    assert sizes["int8"] < 0.35 * sizes["float32"]
    # The kernels of this model are in int8, too.
    saved = 2000 * 64 * (1 - 4.5 / 8) + 4 * 2000
    added = 3 * 512 * 64 + 2 * (numbers - matrices)
    assert abs(sizes["int8"] - saved + added - sizes["int4"]) < 4000


def test_the_files_of_a_preset_need_no_configuration_of_the_storage(tmp_path) -> None:
    """The storage type in the configuration only tells what to write next time."""
    make_model().save_to_preset(tmp_path / "int8", storage="int8")
    shutil.copytree(tmp_path / "int8", tmp_path / "unnamed")
    path = tmp_path / "unnamed" / presets.CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["storage"]
    path.write_text(json.dumps(config), encoding="utf-8")
    for name, array in weights_of(tmp_path / "int8").items():
        np.testing.assert_array_equal(array, weights_of(tmp_path / "unnamed")[name])
