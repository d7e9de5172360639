"""Weights in 4 bits: the quantizer against an oracle, and presets that hold them."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from helpers.command_line import run
from helpers.errors import raises
from helpers.models import make_model, sentences
from labse_tf import presets, trimming
from labse_tf.data import TextVectors
from labse_tf.distillation import DistillationRecipe, distill
from labse_tf.export import export_saved_model
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.quantization import (
    dequantize_groups,
    from_channels,
    packed_shapes,
    quantize,
    quantize_groups,
    to_channels,
)
from labse_tf.tokenizers import WordPieceTokenizer
from labse_tf.variables import TOKEN_TABLE

ATTENTION = "transformer_layer_3/self_attention_layer"
POSITIONS = "position_embedding/embeddings"


def oracle(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes `(N, I)`, not packed, and scales by the definition of Q4_0."""
    codes = np.zeros(table.shape, int)
    scales = np.zeros((len(table), table.shape[1] // 32), np.float16)
    for row in range(len(table)):
        for group in range(scales.shape[1]):
            values = table[row, 32 * group : 32 * group + 32].astype(np.float64)
            largest = max(values, key=abs)
            scale = np.float16(largest / -8)
            scales[row, group] = scale
            for i, value in enumerate(values):
                code = int(np.floor(value / float(scale) + 8.5)) if scale else 8
                codes[row, 32 * group + i] = min(max(code, 0), 15)
    return codes, scales


def unpack(codes: np.ndarray) -> np.ndarray:
    """One code per value, from two per byte."""
    rows = []
    for row in codes:
        unpacked: list[int] = []
        for start in range(0, len(row), 16):
            group = [int(byte) for byte in row[start : start + 16]]
            unpacked += [byte % 16 for byte in group] + [byte // 16 for byte in group]
        rows.append(unpacked)
    return np.array(rows)


def published(
    rng: np.random.Generator, rows: int, inputs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, bytes and scales as a file of Q4_0 blocks has them."""
    block = np.dtype([("scale", "<f2"), ("two", "u1", 16)])
    blocks = np.zeros(rows * inputs // 32, block)
    blocks["scale"] = rng.normal(scale=0.05, size=len(blocks))
    codes = rng.integers(0, 16, (len(blocks), 32))
    codes[np.arange(len(blocks)), rng.integers(0, 32, len(blocks))] = 0
    blocks["two"] = codes[:, :16] + 16 * codes[:, 16:]
    blocks = np.frombuffer(blocks.tobytes(), block)
    values = np.concatenate([blocks["two"] & 15, blocks["two"] >> 4], axis=1)
    scaled = (values.astype("f4") - 8) * blocks["scale"].astype("f4")[:, None]
    shape = (rows, -1)
    return (
        scaled.reshape(shape),
        blocks["two"].reshape(shape),
        blocks["scale"].reshape(shape),
    )


# === The quantizer ===


def test_codes_and_scales_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(40, 96)) * 10.0 ** rng.integers(-3, 4, (40, 1))
    table[5, 32:64] = 0
    table = table.astype(np.float32)
    codes, scales = quantize_groups(table)
    assert (codes.dtype, codes.shape) == (np.uint8, (40, 48))
    assert (scales.dtype, scales.shape) == (np.float16, (40, 3))
    expected, expected_scales = oracle(table)
    np.testing.assert_array_equal(scales, expected_scales)
    # Values half way between two codes may be rounded to the other side.
    difference = np.abs(unpack(codes) - expected)
    assert difference.max() <= 1 and difference.mean() < 1e-3
    restored = dequantize_groups(codes, scales)
    assert restored.dtype == np.float32
    by_value = scales.astype(np.float32).repeat(32, axis=1)
    np.testing.assert_array_equal(restored, (unpack(codes) - 8) * by_value)
    # Half a step, or a step at the end of the range that has only 7 codes.
    assert (np.abs(restored - table) <= np.abs(by_value) * 1.01).all()
    assert (np.abs(restored - table) <= np.abs(by_value) * 0.501).mean() > 0.97
    assert not restored[5, 32:64].any() and not np.signbit(scales[5, 1])


def test_published_values_keep_their_bytes() -> None:
    values, two, scales = published(np.random.default_rng(1), 500, 64)
    found = quantize_groups(values)
    np.testing.assert_array_equal(found[0], two)
    np.testing.assert_array_equal(found[1], scales)
    np.testing.assert_array_equal(
        dequantize_groups(*found).view(np.uint32), values.view(np.uint32)
    )


@pytest.mark.parametrize("largest", range(-8, 8))
def test_every_multiple_of_a_scale_is_exact(largest) -> None:
    """Also where the value of the largest magnitude is not -8 times the scale."""
    rng = np.random.default_rng(largest + 8)
    bound = abs(largest)
    codes = rng.integers(-bound, min(bound, 7) + 1, (200, 32))
    codes[:, 0] = largest
    scales = np.float16(rng.normal(size=(200, 1)) * 10.0 ** rng.integers(-7, 5))
    values = np.float32(codes) * np.float32(scales)
    np.testing.assert_array_equal(dequantize_groups(*quantize_groups(values)), values)


def test_restored_values_are_restored() -> None:
    """For all magnitudes, also where the scale is subnormal or zero."""
    rng = np.random.default_rng(2)
    table = rng.normal(size=(4000, 32)) * 10.0 ** rng.uniform(-11, 5, (4000, 1))
    codes, scales = quantize_groups(table)
    assert (scales == 0).any() and (np.abs(scales) > 1000).any()
    again = quantize_groups(dequantize_groups(codes, scales))
    np.testing.assert_array_equal(again[0], codes)
    np.testing.assert_array_equal(again[1], scales)


def test_values_outside_of_the_range() -> None:
    table = np.ones((3, 64), np.float32)
    table[1, 40] = -524_032
    assert quantize_groups(table)[1][1, 1] == 65_504
    for value in (np.nan, np.inf, -np.inf, 530_000):
        table[2, 7] = value
        with raises(ValueError, argument="table", received=f"{value:g}"):
            quantize_groups(table)
    with raises(ValueError, 32, argument="table", received=48):
        quantize_groups(np.ones((2, 48)))
    assert quantize_groups(np.ones((0, 64)))[0].shape == (0, 32)


def test_blocks_of_rows_equal_the_whole(monkeypatch) -> None:
    table = np.random.default_rng(3).normal(size=(31, 64))
    whole = quantize_groups(table)
    monkeypatch.setattr("labse_tf.quantization._BLOCK", 300)
    for found, expected in zip(quantize_groups(table), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("path", "shape", "codes"),
    [
        (TOKEN_TABLE, (20, 64), (20, 32)),
        (f"labse/{TOKEN_TABLE}", (20, 64), (20, 32)),
        (f"{ATTENTION}/query/kernel", (64, 2, 5), (10, 32)),
        (f"{ATTENTION}/attention_output/kernel", (4, 16, 7), (7, 32)),
        ("pooler/kernel", (64, 5), (5, 32)),
        ("pooler/kernel", (48, 64), None),
        (TOKEN_TABLE, (64, 48), None),
        (POSITIONS, (64, 64), None),
        ("pooler/bias", (64,), None),
        ("segment_embedding/embeddings", (2, 64), None),
    ],
)
def test_groups_are_along_the_inputs(path, shape, codes) -> None:
    if codes is None:
        assert packed_shapes(path, shape) is None
        return
    assert packed_shapes(path, shape) == (codes, (codes[0], codes[1] // 16))
    array = np.random.default_rng(0).normal(size=shape)
    channels = to_channels(path, array)
    assert channels.shape == (codes[0], 2 * codes[1])
    np.testing.assert_array_equal(from_channels(path, channels, shape), array)
    # An input is a sum over the first axes of a kernel, so one channel is the kernel
    # with the last axes at one place.
    one = array[3] if path.endswith("embeddings") else array[..., -1].reshape(-1)
    if path.endswith("query/kernel"):
        one = array[:, 1, 4]
    np.testing.assert_array_equal(channels[3 if "embeddings" in path else -1], one)


# === Presets ===


def published_model(pooling: str = "weighted_mean") -> LaBSE:
    """A model whose token table and kernels were published in 4 bits."""
    model = make_model(pooling, hidden_dim=64, num_layers=1)
    rng = np.random.default_rng(4)
    for weight in model.weights:
        shapes = packed_shapes(weight.path, tuple(weight.shape))
        value = rng.normal(size=weight.shape)
        if shapes is not None:
            rows = published(rng, shapes[0][0], 2 * shapes[0][1])[0]
            value = from_channels(weight.path, rows, tuple(weight.shape))
        weight.assign(value)
    return model


def kinds_of(folder: Path) -> dict[str, str]:
    """The type of each data set, by its path."""
    kinds: dict[str, str] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            kinds[name] = str(item.dtype)

    with h5py.File(folder / presets.WEIGHTS) as file:
        file.visititems(note)
    return kinds


def values_of(model: LaBSE) -> dict[str, np.ndarray]:
    return {weight.path: np.asarray(weight) for weight in model.weights}


@pytest.mark.parametrize("pooling", ["pooler", "weighted_mean"])
def test_a_model_published_in_four_bits_loses_nothing(tmp_path, pooling) -> None:
    model = published_model(pooling)
    model.save_to_preset(tmp_path / "first", storage="int4")
    loaded = LaBSE.from_preset(tmp_path / "first")
    for path, value in values_of(loaded).items():
        np.testing.assert_array_equal(
            value.view(np.uint32), values_of(model)[path].view(np.uint32)
        )
    kinds = kinds_of(tmp_path / "first")
    matrices = {p for p, kind in kinds.items() if kind == "uint8"}
    assert {p for p in kinds if p.endswith("kernel")} | {TOKEN_TABLE} == matrices
    for path in matrices:
        assert kinds.pop(path) == "uint8" and kinds.pop(f"{path}:scale") == "float16"
    assert set(kinds.values()) == {"float32"} and POSITIONS in kinds
    card = (tmp_path / "first" / presets.CARD).read_text(encoding="utf-8")
    assert "4 bits" in card and "int8" in card
    assert presets.read_config(tmp_path / "first")["storage"] == "int4"
    loaded.save_to_preset(tmp_path / "second", storage="int4")
    first, second = (tmp_path / n / presets.WEIGHTS for n in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_only_kernels_that_lose_nothing_are_in_four_bits(tmp_path) -> None:
    model = published_model("pooler")
    kernel = model.backbone.pooler.kernel
    changed = np.asarray(kernel).copy()
    changed[3, 5] += 1e-4
    kernel.assign(changed)
    table = model.backbone.token_embedding.embeddings
    trained = np.asarray(table) + np.random.default_rng(0).normal(size=table.shape)
    table.assign(trained)
    model.save_to_preset(tmp_path, storage="int4")
    kinds, found = kinds_of(tmp_path), values_of(LaBSE.from_preset(tmp_path))
    assert kinds.pop("pooler/kernel") == "int8"
    assert kinds["pooler/kernel:scale"] == "float32"
    assert {kind for p, kind in kinds.items() if p.endswith("kernel")} == {"uint8"}
    # The table is always in 4 bits.
    assert kinds[TOKEN_TABLE] == "uint8"
    codes, scales = quantize("pooler/kernel", changed)
    expected = values_of(model) | {
        "pooler/kernel": codes * scales,
        TOKEN_TABLE: dequantize_groups(*quantize_groups(np.asarray(table))),
    }
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value)
    again = LaBSE.from_preset(tmp_path)
    again.save_to_preset(tmp_path / "again", storage="int4")
    assert (tmp_path / "again" / presets.WEIGHTS).read_bytes() == (
        tmp_path / presets.WEIGHTS
    ).read_bytes()


def test_inputs_that_do_not_fill_groups_are_int8(tmp_path) -> None:
    arrays = {
        TOKEN_TABLE: np.ones((3, 32), np.float32),
        "feedforward_output_dense/kernel": np.ones((48, 32), np.float32),
    }
    presets.write_weights(tmp_path / presets.WEIGHTS, arrays, "int4")
    kinds = kinds_of(tmp_path)
    assert kinds["feedforward_output_dense/kernel"] == "int8"
    variables = {name: keras.Variable(array * 0) for name, array in arrays.items()}
    presets.assign_weights(tmp_path / presets.WEIGHTS, variables)
    for name, array in arrays.items():
        np.testing.assert_allclose(variables[name], array, rtol=1e-6)


def test_half_a_byte_per_weight(tmp_path) -> None:
    """More weights than bytes, which the check of the file's size must accept."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += [f"w{i}" for i in range(20_000)]
    backbone = LaBSEBackbone(len(tokens), 0, 2, 64, 64, max_sequence_length=16)
    preprocessor = SentencePreprocessor(WordPieceTokenizer(tokens), 16)
    model = LaBSE(backbone, preprocessor, pooling="mean")
    model.save_to_preset(tmp_path / "model", storage="int4")
    size = (tmp_path / "model" / presets.WEIGHTS).stat().st_size
    table = len(tokens) * 64
    assert table * 4.5 / 8 < size < table * 4.5 / 8 + 40_000 < 0.6 * table
    again = LaBSE.from_preset(tmp_path / "model")
    assert again.count_params() > size
    texts = ["w1 w2", "w19999"]
    assert (again.encode(texts) * model.encode(texts)).sum(axis=1).min() > 0.98
    config = tmp_path / "model" / presets.CONFIG
    damaged = json.loads(config.read_text(encoding="utf-8"))
    damaged["backbone"]["hidden_dim"] = 128
    config.write_text(json.dumps(damaged), encoding="utf-8")
    with raises(ValueError, path=presets.CONFIG, received=128):
        LaBSE.from_preset(tmp_path / "model")


def test_kernels_larger_than_a_block_of_rows(tmp_path, monkeypatch) -> None:
    model = published_model("pooler")
    model.save_to_preset(tmp_path, storage="int4")
    monkeypatch.setattr("labse_tf.variables._BLOCK_BYTES", 4 * 64 * 7)
    for path, value in values_of(LaBSE.from_preset(tmp_path)).items():
        np.testing.assert_array_equal(value, values_of(model)[path])
    model.save_to_preset(tmp_path / "again", storage="int4")
    assert (tmp_path / "again" / presets.WEIGHTS).read_bytes() == (
        tmp_path / presets.WEIGHTS
    ).read_bytes()


@pytest.mark.parametrize("name", [TOKEN_TABLE, "pooler/kernel"])
@pytest.mark.parametrize(
    ("part", "array", "fields", "received"),
    [
        (":scale", None, ("(64, 2)",), "None"),
        (":scale", np.ones((64, 1), "f2"), ("(64, 2)",), "(64, 1)"),
        (":scale", np.ones((64, 2), "u1"), ("scale",), "integers"),
        (":scale", np.ones((64, 2), "i1"), ("scale",), "int8"),
        (":scale", np.full((64, 2), 1e38, "f4"), (), "NaN or infinity"),
        (":scale", np.full((64, 2), np.nan, "f2"), (), "NaN or infinity"),
        (":scale", np.full((64, 2), np.inf, "f2"), (), "NaN or infinity"),
        ("", None, (), "no such weight"),
        ("", np.ones((64, 32), "f2"), ("integers",), "floating"),
        ("", np.ones((64, 32), "i2"), ("uint8",), "int16"),
        ("", np.ones((64, 16), "u1"), ("(64, 64)",), "(64, 16)"),
        ("", np.ones((63, 32), "u1"), ("(64, 64)",), "(63, 32)"),
        ("", np.ones((64, 64), "u1"), ("scales",), "(64, 2)"),
        ("", np.array([["a"] * 32] * 64, "S1"), (), "|S1"),
    ],
)
def test_damaged_weights_are_named(
    tmp_path, name, part, array, fields, received
) -> None:
    path = tmp_path / presets.WEIGHTS
    value = published(np.random.default_rng(0), 64, 64)[0]
    presets.write_weights(path, {name: from_channels(name, value, (64, 64))}, "int4")
    variable = keras.Variable(np.zeros((64, 64), np.float32))
    presets.assign_weights(path, {name: variable})
    np.testing.assert_array_equal(to_channels(name, np.asarray(variable)), value)
    with h5py.File(path, "a") as file:
        del file[name + part]
        if array is not None:
            file[name + part] = array
    with raises(ValueError, name, *fields, path=presets.WEIGHTS, received=received):
        presets.assign_weights(path, {name: variable})


def test_the_width_must_be_a_multiple_of_32(tmp_path) -> None:
    model = make_model(hidden_dim=48)
    target = tmp_path / "target"
    with raises(ValueError, 32, argument="storage", received=48):
        model.save_to_preset(target, storage="int4")
    with raises(ValueError, 32, argument="storage", received=48):
        presets.write_weights(target, {TOKEN_TABLE: np.ones((3, 48), "f")}, "int4")
    target.unlink()
    source = tmp_path / "source"
    model.save_to_preset(source)
    # Before the work, not at its end.
    with raises(ValueError, 32, argument="storage", received=48):
        trimming.trim_preset(source, target, languages=["fr"], storage="int4")
    with raises(ValueError, 32, argument="storage", received=48):
        trimming.shrink_preset(source, target, layers=1, storage="int4")
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("zebra\n", encoding="utf-8")
    with raises(ValueError, 32, argument="storage", received=48):
        trimming.extend_preset(source, target, tokens=tokens, storage="int4")
    with raises(ValueError, 32, argument="storage", received=48):
        distill(
            DistillationRecipe(),
            None,
            target,
            student=source,
            teacher=TextVectors(tmp_path / "store", model="x", prefix=""),
            storage="int4",
        )
    assert not target.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_a_table_that_cannot_be_stored_writes_no_preset(tmp_path, value) -> None:
    model = published_model()
    table = np.asarray(model.backbone.token_embedding.embeddings).copy()
    table[2, 2] = value
    model.backbone.token_embedding.embeddings.assign(table)
    with raises(ValueError, TOKEN_TABLE, received=f"{value:g}"):
        model.save_to_preset(tmp_path / "preset", storage="int4")
    assert not list(tmp_path.iterdir())


def test_unknown_storages_and_those_of_saved_models(tmp_path) -> None:
    model = published_model()
    for storage in ("int2", "INT4", "bfloat16", ""):
        with raises(ValueError, "int4", argument="storage", received=repr(storage)):
            model.save_to_preset(tmp_path / "preset", storage=storage)
    with raises(ValueError, "int8", argument="storage", received="'int4'"):
        export_saved_model(model, tmp_path / "1", storage="int4")
    assert not list(tmp_path.iterdir())


def test_converted_and_trimmed_by_commands(tmp_path, capsys) -> None:
    model = published_model()
    model.save_to_preset(tmp_path / "source")
    small, trimmed = tmp_path / "small", tmp_path / "trimmed"
    report = tmp_path / "report.json"
    command = ("convert", tmp_path / "source", "--storage", "int4", "--output", small)
    assert run(*command, "--json", report) == 0
    assert "int4: " in capsys.readouterr().out
    found = json.loads(report.read_text())
    assert found["storage"] == "int4"
    np.testing.assert_allclose(found["cosine"]["lowest"], 1, atol=1e-6)
    texts = [text for text in sentences(40) if text]
    np.testing.assert_array_equal(
        LaBSE.from_preset(small).encode(texts), model.encode(texts)
    )
    # The storage type stays, and so do the rows of the tokens that stay.
    text = tmp_path / "en.txt"
    text.write_text("sun moon star\nsun sky\n", encoding="utf-8")
    kept = ("--corpus", text, "--held-out", text, "--no-keep-characters")
    assert run("trim", small, *kept, "--output", trimmed, "--json", report) == 0
    parity = json.loads(report.read_text())["parity"]["en"]
    assert parity["same"] == 1 and parity["same_difference"] < 1e-6
    assert presets.read_config(trimmed)["storage"] == "int4"
    old, new = (LaBSE.from_preset(folder) for folder in (small, trimmed))
    tokens = [m.text_preprocessor().tokenizer.vocabulary for m in (old, new)]
    rows = [tokens[0].index(token) for token in tokens[1]]
    assert 5 < len(rows) < len(tokens[0])
    np.testing.assert_array_equal(
        np.asarray(new.backbone.token_embedding.embeddings),
        np.asarray(old.backbone.token_embedding.embeddings)[rows],
    )
