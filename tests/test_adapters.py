"""LoRA: low-rank weights beside frozen kernels, apart and merged."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.command_line import run as run_command
from helpers.errors import raises
from helpers.models import TOKENS, make_model, sentences
from labse_tf import presets
from labse_tf.adapters import FILE, LAYERS, LoRA
from labse_tf.checkpoints import from_huggingface, to_huggingface
from labse_tf.encoders import layout_of, open_encoder
from labse_tf.export import export_saved_model
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.pretraining import stack
from labse_tf.trimming import keep_positions

TEXTS = sentences(20)


def randomize(model: LaBSE) -> None:
    """Gives the weights that are trained, B among them, values of their own."""
    rng = np.random.default_rng(7)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(scale=0.3, size=weight.shape))


def adapted(pooling: str = "mean", rank: int = 3, **options: object) -> LaBSE:
    model = make_model(pooling)
    model.enable_lora(rank, **options)
    randomize(model)
    return model


def oracle(model: LaBSE) -> dict[str, np.ndarray]:
    """Kernels W + alpha / rank * A B by path, and the other weights."""
    values = {weight.path: np.asarray(weight) for weight in model.weights}
    lora = model.backbone.lora
    for path in [path for path in values if path.endswith("lora_kernel_a")]:
        a, b = values.pop(path), values.pop(path[:-1] + "b")
        kernel = path.replace("lora_kernel_a", "kernel")
        product = np.einsum("ir,ro->io", a, b) * lora.alpha / lora.rank
        values[kernel] = values[kernel] + product.reshape(values[kernel].shape)
    return values


# === The model ===


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 1.5},
        {"rank": 1, "target_layer_names": ["query", "feedforward_output_dense"]},
        {"rank": 16, "first_block": 1},
    ],
)
def test_the_product_is_added_to_the_kernels(options: dict) -> None:
    model = adapted(**options)
    plain = make_model()
    expected = oracle(model)
    assert [weight.path for weight in plain.weights] == list(expected)
    for weight in plain.weights:
        weight.assign(expected[weight.path])
    features = plain.preprocessor(TEXTS)
    np.testing.assert_allclose(model(features), plain(features), atol=2e-6)
    np.testing.assert_allclose(model.encode(TEXTS), plain.encode(TEXTS), atol=2e-6)
    merged = model.merged()
    for weight in merged.weights:
        np.testing.assert_allclose(weight, expected[weight.path], atol=1e-6)
    assert merged.backbone.lora is None and merged.merged() is merged
    assert len(merged.trainable_weights) == len(plain.trainable_weights)


@pytest.mark.parametrize("pooling", ["pooler", "weighted_mean"])
def test_it_starts_as_the_same_model(pooling: str) -> None:
    model = make_model(pooling)
    features = model.preprocessor(TEXTS)
    before, vectors = np.asarray(model(features)), model.encode(TEXTS)
    model.enable_lora(4)
    np.testing.assert_array_equal(model(features), before)
    np.testing.assert_allclose(model.encode(TEXTS), vectors, atol=1e-6)
    randomize(model)
    # The graph of an earlier `encode` is not used again.
    assert np.abs(model.encode(TEXTS) - vectors).max() > 0.1


@pytest.mark.parametrize("pooling", ["pooler", "weighted_mean"])
def test_only_low_rank_weights_are_trained(pooling: str) -> None:
    model = make_model(pooling)
    plain = len(model.weights)
    model.enable_lora(4)
    trained = [weight.path for weight in model.trainable_weights]
    assert len(trained) == len(set(trained)) == 2 * 6 * 2  # A and B, layers, blocks
    assert all("/lora_kernel_" in path for path in trained)
    assert len(model.non_trainable_weights) == plain
    assert trained[0] == "transformer_layer_0/self_attention_layer/query/lora_kernel_a"
    size = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    # Per block: 4 projections 16 x 16, two layers 16 x 32.
    assert size == 2 * 4 * (4 * (16 + 16) + 2 * (16 + 32))
    assert LoRA(4).count_parameters(model.backbone.get_config()) == size
    # A model that shares the backbone trains nothing else either.
    shorter = model.with_sequence_length(8)
    assert len(shorter.trainable_weights) == len(trained)


def test_blocks_and_layers_may_be_chosen() -> None:
    model = make_model()
    model.backbone.enable_lora(2, ["value", "query"], first_block=1)
    layers = {weight.path.rsplit("/", 1)[0] for weight in model.trainable_weights}
    attention = "transformer_layer_1/self_attention_layer"
    assert layers == {f"{attention}/query", f"{attention}/value"}
    lora = model.backbone.lora
    assert (lora.rank, lora.alpha, lora.scale) == (2, 4.0, 2.0)
    assert lora.count_parameters(model.backbone.get_config()) == 2 * 2 * (16 + 16)


def test_no_gradient_of_a_frozen_matrix_is_computed() -> None:
    """Of all that leads to the gradients, nothing has the shape of a kernel."""
    backbone = LaBSEBackbone(len(TOKENS), 2, 2, 24, 40, dropout=0.1)
    model = LaBSE(backbone, make_model().preprocessor, "mean")
    features = {
        name: tf.ensure_shape(values[:, :7], (5, 7))
        for name, values in model.preprocessor(["sun moon star sky day"] * 5).items()
    }
    target = np.random.default_rng(0).normal(size=(5, 24)).astype(np.float32)

    def shapes_of_gradients() -> set[tuple[int, ...]]:
        @tf.function(autograph=False)
        def gradients() -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(features, training=True) * target)
            found = tape.gradient(loss, [w.value for w in model.trainable_weights])
            return [tf.convert_to_tensor(gradient) for gradient in found]

        graph = gradients.get_concrete_function().graph
        needed, todo = set(), [tensor.op for tensor in graph.outputs]
        while todo:  # TensorFlow runs only these.
            op = todo.pop()
            if op.name not in needed:
                needed.add(op.name)
                todo += [*op.control_inputs, *(tensor.op for tensor in op.inputs)]
        return {
            tuple(tensor.shape)
            for name in needed
            if name.startswith("gradient_tape")
            for tensor in graph.get_operation_by_name(name).outputs
            if tensor.shape.rank is not None
        }

    frozen = {(24, 24), (24, 40), (40, 24), (len(TOKENS), 24), (40,)}
    assert frozen - {(len(TOKENS), 24)} <= shapes_of_gradients()
    model.enable_lora(3)
    shapes = shapes_of_gradients()
    assert {(24, 3), (3, 24), (3, 40), (40, 3)} <= shapes
    assert not frozen & shapes


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("rank", {"rank": 0}),
        ("rank", {"rank": 2.5}),
        ("rank", {"rank": 17}),
        ("alpha", {"alpha": 0}),
        ("alpha", {"alpha": float("nan")}),
        ("target_layer_names", {"target_layer_names": []}),
        ("target_layer_names", {"target_layer_names": ["query", "pooler"]}),
        ("first_block", {"first_block": -1}),
        ("first_block", {"first_block": 2}),
    ],
)
def test_bad_arguments_are_named(argument: str, changes: dict) -> None:
    model = make_model()
    with raises(ValueError, argument=argument, received=True):
        model.enable_lora(**{"rank": 2} | changes)
    assert len(model.trainable_weights) == len(make_model().trainable_weights)


def test_it_can_be_enabled_once() -> None:
    model = adapted()
    with raises(ValueError, received="lora_kernel_a"):
        model.enable_lora(3)
    (layer,) = model.backbone.transformer_layers[0].kernel_layers(["query"])
    with raises(ValueError, received="query"):
        layer.enable_lora(3)
    (layer,) = model.backbone.transformer_layers[0].kernel_layers([LAYERS[-1]])
    with raises(ValueError, received=LAYERS[-1]):
        layer.quantize("int8")


# === Files ===


@pytest.mark.parametrize(
    ("storage", "bound"),
    [("float32", 2e-6), ("float16", 3e-3), ("int8", 3e-2), ("int4", 0.1)],
)
def test_a_preset_has_the_merged_weights(
    tmp_path: Path, storage: str, bound: float
) -> None:
    plain = make_model("weighted_mean", hidden_dim=32)
    model = make_model("weighted_mean", hidden_dim=32)
    model.enable_lora(3)
    randomize(model)
    vectors = model.encode(TEXTS)
    model.save_to_preset(tmp_path, storage=storage)
    loaded = LaBSE.from_preset(tmp_path)
    np.testing.assert_allclose(loaded.encode(TEXTS), vectors, atol=bound)
    assert [w.path for w in loaded.weights] == [w.path for w in plain.weights]
    assert len(loaded.trainable_weights) == len(plain.trainable_weights)
    assert "lora" not in presets.read_config(tmp_path)["backbone"]
    # What was saved is still in training.
    np.testing.assert_array_equal(model.encode(TEXTS), vectors)
    assert len(model.trainable_weights) == 24


def test_copies_have_the_merged_weights(tmp_path: Path) -> None:
    model = adapted()
    vectors = model.encode(TEXTS)
    short = [text for text in TEXTS if len(text.split()) < 6]
    lower = model.with_dtype("bfloat16")
    assert lower.backbone.lora is None
    assert (lower.encode(TEXTS) * vectors).sum(axis=1).min() > 0.999
    fewer = keep_positions(model, 8)
    np.testing.assert_allclose(fewer.encode(short), model.encode(short), atol=2e-6)
    to_huggingface(model, tmp_path / "huggingface")
    foreign = from_huggingface(tmp_path / "huggingface")
    np.testing.assert_allclose(foreign.encode(TEXTS), vectors, atol=2e-6)
    with raises(ValueError, received="lora_kernel_a"):
        stack(model.backbone, 4)


def test_an_export_has_the_merged_weights(tmp_path: Path) -> None:
    model = adapted()
    export_saved_model(model, tmp_path / "1")
    module = tf.saved_model.load(str(tmp_path / "1"))
    vectors = module(tf.constant(TEXTS))["default"]
    np.testing.assert_allclose(vectors, model.encode(TEXTS), atol=2e-6)
    names = [variable.name for variable in module.variables]
    assert len(names) == len(make_model().weights)
    assert not any("lora" in name for name in names)


@pytest.mark.parametrize("pooling", ["pooler", "weighted_mean"])
def test_keras_saves_them_apart(tmp_path: Path, pooling: str) -> None:
    model = adapted(pooling, alpha=7)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.backbone.lora == model.backbone.lora
    np.testing.assert_array_equal(loaded.encode(TEXTS), model.encode(TEXTS))
    paths = [weight.path for weight in model.trainable_weights]
    assert [weight.path for weight in loaded.trainable_weights] == paths


def test_a_file_of_adapters_is_loaded_or_merged(tmp_path: Path) -> None:
    path = tmp_path / "hindi.lora.h5"
    model = adapted(alpha=7, first_block=1)
    model.backbone.save_lora_weights(path)
    assert list(tmp_path.iterdir()) == [path]
    with h5py.File(path) as file:
        assert list(file) == ["transformer_layer_1"]
    for use in ("load_lora_weights", "merge_lora_weights"):
        other = make_model()
        weights = {weight.path: weight for weight in model.weights}
        for weight in other.weights:
            weight.assign(weights[weight.path])
        getattr(other.backbone, use)(path)
        np.testing.assert_allclose(
            other.encode(TEXTS), model.encode(TEXTS), atol=2e-6, err_msg=use
        )
        trained = len(other.trainable_weights)
        assert trained == (12 if use == "load_lora_weights" else 37), use
    randomize(model)
    model.backbone.load_lora_weights(path)  # The settings are equal.


def test_unfit_files_of_adapters_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.lora.h5"
    plain = make_model().backbone
    with raises(ValueError, received="none"):
        plain.save_lora_weights(path)
    model = adapted(rank=2)
    with raises(ValueError, argument="filepath", received="a.h5"):
        model.backbone.save_lora_weights(tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())
    model.backbone.save_lora_weights(path)
    with raises(ValueError, "rank=3", path=path, received="rank=2"):
        adapted(rank=3).backbone.load_lora_weights(path)
    with raises(ValueError, received="lora_kernel_a"):
        model.backbone.merge_lora_weights(path)
    wider = make_model(hidden_dim=32).backbone
    before = [np.asarray(weight) for weight in wider.weights]
    with raises(ValueError, "query/lora_kernel_a", path=path, received="(16, 2)"):
        wider.merge_lora_weights(path)
    for weight, value in zip(wider.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    with h5py.File(path, "a") as file:
        file.attrs["lora"] = '{"rank": 1000000000}'
    with raises(ValueError, argument="rank", received="1000000000"):
        plain.merge_lora_weights(path)
    with h5py.File(path, "a") as file:
        file.attrs["lora"] = '{"colour": 1}'
    with raises(ValueError, path=path, received="colour"):
        plain.load_lora_weights(path)
    for content in (b"", b"\x89HDF"):
        path.write_bytes(content)
        with raises(ValueError, path=path, received=True):
            plain.load_lora_weights(path)
    assert plain.lora is None


# === Presets of adapters ===


@pytest.fixture
def base(tmp_path: Path) -> Path:
    make_model("weighted_mean").save_to_preset(tmp_path / "base", storage="int8")
    return tmp_path / "base"


def tuned(base: Path, directory: Path) -> LaBSE:
    """A model from `base` with LoRA weights, which are saved apart."""
    model = LaBSE.from_preset(base, sequence_length=12)
    model.enable_lora(3, alpha=5)
    randomize(model)
    model.save_adapters(directory, base)
    return model


def test_adapters_are_saved_apart_and_read(tmp_path: Path, base: Path) -> None:
    folder = tmp_path / "adapters"
    model = tuned(base, folder)
    names = {path.name for path in folder.iterdir()}
    assert names == {presets.CONFIG, presets.CARD, FILE}
    assert "| adapters (LoRA) of the preset `../base` |" in (
        folder / presets.CARD
    ).read_text(encoding="utf-8")
    vectors = model.encode(TEXTS)
    loaded = LaBSE.from_preset(folder)
    np.testing.assert_allclose(loaded.encode(TEXTS), vectors, atol=2e-6)
    assert loaded.backbone.lora is None
    assert loaded.text_preprocessor().sequence_length == 12
    apart = LaBSE.from_preset(folder, merge_adapters=False)
    np.testing.assert_array_equal(apart.encode(TEXTS), vectors)
    assert len(apart.trainable_weights) == len(model.trainable_weights) == 24
    for ours, theirs in zip(apart.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Both directories may be moved together; `base` is given otherwise.
    (tmp_path / "new").mkdir()
    for path in (folder, base):
        path.rename(tmp_path / "new" / path.name)
    moved = tmp_path / "new" / "adapters"
    np.testing.assert_array_equal(
        LaBSE.from_preset(moved).encode(TEXTS), loaded.encode(TEXTS)
    )
    moved.rename(folder)
    with raises(ValueError, "../base", "`base`", path=folder / presets.CONFIG):
        LaBSE.from_preset(folder)
    again = LaBSE.from_preset(folder, base=tmp_path / "new" / "base")
    np.testing.assert_array_equal(again.encode(TEXTS), loaded.encode(TEXTS))


def test_every_command_reads_adapters(tmp_path: Path, base: Path) -> None:
    folder, whole = tmp_path / "adapters", tmp_path / "whole"
    vectors = tuned(base, folder).encode(TEXTS)
    assert layout_of(folder) == "preset"
    encoder = open_encoder(folder, sequence_length=16)
    assert encoder(["sun " * 13]).shape == (1, 16)
    assert run_command("convert", folder, "--output", whole) == 0
    assert {presets.WEIGHTS, presets.VOCABULARY} <= {p.name for p in whole.iterdir()}
    np.testing.assert_allclose(
        LaBSE.from_preset(whole).encode(TEXTS), vectors, atol=2e-6
    )


def test_a_shipped_model_is_named(tmp_path: Path) -> None:
    name = "labse-mini"
    model = LaBSE.from_preset(name)
    model.enable_lora(1, ["query"])
    model.save_adapters(tmp_path / "a", name)
    config = presets.read_config(tmp_path / "a")
    assert config["base"]["preset"] == name
    assert config["base"]["sha256"] == presets.read_config(presets.find(name))["sha256"]
    assert config["storage"] == presets.read_config(presets.find(name))["storage"]
    loaded = LaBSE.from_preset(tmp_path / "a")
    np.testing.assert_allclose(loaded.encode("sun"), model.encode("sun"), atol=2e-6)


def test_unfit_bases_are_refused(tmp_path: Path, base: Path) -> None:
    folder = tmp_path / "adapters"
    model = tuned(base, folder)
    with raises(ValueError, received="none"):
        make_model("weighted_mean").save_adapters(tmp_path / "new", base)
    with raises(ValueError, argument="directory", received=base):
        model.save_adapters(base, base)
    with raises(ValueError, path=folder, received="adapters"):
        model.save_adapters(tmp_path / "new", folder)
    with raises(ValueError, received="nowhere"):
        model.save_adapters(tmp_path / "new", "nowhere")
    other = make_model("weighted_mean")
    for change, expected in (({"num_layers": 1}, "num_layers"), ({}, "mean")):
        pooling = "weighted_mean" if change else "mean"
        make_model(pooling, **change).save_to_preset(tmp_path / "other")
        with raises(ValueError, argument="base", received=expected):
            model.save_adapters(tmp_path / "new", tmp_path / "other")
    assert not (tmp_path / "new").exists()
    # A preset of the same shape in the place of the base.
    other.save_to_preset(tmp_path / "other", storage="int8")
    expected = presets.sha256(base / presets.WEIGHTS)[:12]
    received = presets.sha256(tmp_path / "other" / presets.WEIGHTS)[:12]
    with raises(ValueError, expected, path=tmp_path / "other", received=received):
        LaBSE.from_preset(folder, base=tmp_path / "other")
    with raises(ValueError, argument="base", received=base):
        LaBSE.from_preset(base, base=base)
    # Damaged files.
    config = json.loads((folder / presets.CONFIG).read_text())
    for value in ("../base", {"preset": 3, "sha256": {}}, {"preset": "../base"}):
        (folder / presets.CONFIG).write_text(json.dumps(config | {"base": value}))
        with raises(ValueError, path=folder / presets.CONFIG, received=True):
            LaBSE.from_preset(folder)
    (folder / presets.CONFIG).write_text(json.dumps(config))
    data = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with raises(ValueError, path=folder / FILE, received=True):
        LaBSE.from_preset(folder)


def test_a_failed_save_leaves_the_old_adapters(
    tmp_path: Path, base: Path, monkeypatch
) -> None:
    folder = tmp_path / "adapters"
    model = tuned(base, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(path: Path, *rest: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(presets, "write_weights", full)
    with pytest.raises(OSError):
        model.save_adapters(folder, base)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"adapters", "base"}
