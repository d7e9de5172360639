"""ONNX graphs: the model's vectors from the files alone, in all storage types."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from helpers import unigram
from helpers.command_line import fails, run
from helpers.errors import check_message, raises
from helpers.models import make_model, sentences
from labse_tf import LaBSE, extras
from labse_tf.checkpoints import from_huggingface
from labse_tf.export import ONNX_STORAGES, encoder_graph, export_onnx
from labse_tf.models import LaBSEBackbone
from labse_tf.models.backbone import merged_weights
from labse_tf.quantization import (
    channel_axes,
    dequantize_groups,
    quantize,
    quantize_groups,
)

TEXTS = [*sentences(9), "", "a word that is not there", "sun\u200dmoon \x00 नमस्ते"]


def with_random_weights(model: LaBSE, seed: int = 0) -> LaBSE:
    """Weights far from zero, so that no part of the graph can be left out."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = rng.normal(0, 0.5, weight.shape)
        weight.assign(1 + value / 5 if weight.path.endswith("gamma") else value)
    return model


def outputs(graph: Path | bytes, model: LaBSE, texts: list[str]) -> list[np.ndarray]:
    """States and vectors of ONNX Runtime for the model's features."""
    source = graph if isinstance(graph, bytes) else str(graph)
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    features = model.text_preprocessor()(texts)
    inputs = {
        "input_ids": features["token_ids"],
        "attention_mask": features["padding_mask"],
        "token_type_ids": features["segment_ids"],
    }
    arrays = {name: np.asarray(value, np.int64) for name, value in inputs.items()}
    return session.run(["last_hidden_state", "sentence_embedding"], arrays)


def rounded(model: LaBSE, storage: str) -> LaBSE:
    """A copy of the model with the weights that a graph of this storage has."""
    values = {}
    for path, weight in merged_weights(model).items():
        value = np.asarray(weight)
        if storage == "int4" and path.startswith("token_embedding"):
            value = dequantize_groups(*quantize_groups(value))
        elif path.endswith("kernel") or path.startswith("token_embedding"):
            if storage != "float32" and channel_axes(path, value.shape):
                codes, scales = quantize(path, value)
                value = codes * scales
        values[path] = value
    copy = LaBSE(
        LaBSEBackbone.from_config(model.backbone.get_config()),
        model.preprocessor,
        pooling=model.pooling,
    )
    for weight in copy.weights:
        weight.assign(values[weight.path])
    return copy


@pytest.mark.parametrize("storage", ONNX_STORAGES)
@pytest.mark.parametrize(
    ("pooling", "layers", "activation"),
    [
        ("mean", 2, "gelu"),
        ("pooler", 1, "gelu_approximate"),
        ("cls", 1, "relu"),
        ("weighted_mean", 0, "gelu"),
        ("weighted_mean", 1, "gelu"),
    ],
)
def test_the_graph_is_the_model(pooling, layers, activation, storage) -> None:
    model = with_random_weights(
        make_model(pooling, num_layers=layers, activation=activation, hidden_dim=32)
    )
    expected = rounded(model, storage)
    assert (storage == "float32") == bool(
        np.array_equal(expected.encode(TEXTS), model.encode(TEXTS))
    )
    graph = encoder_graph(model, storage).SerializeToString()
    states, vectors = outputs(graph, model, TEXTS)
    np.testing.assert_allclose(vectors, expected.encode(TEXTS), atol=2e-6)
    features = model.text_preprocessor()(TEXTS)
    real = np.asarray(features["padding_mask"], bool)
    theirs = np.asarray(expected.backbone(features)["sequence_output"])
    np.testing.assert_allclose(states[real], theirs[real], atol=2e-5)
    # Padding and the rest of the batch do not matter.
    for row in (0, 5):
        _, alone = outputs(graph, model, [TEXTS[row]])
        np.testing.assert_allclose(alone[0], vectors[row], atol=2e-6)


@pytest.mark.parametrize("storage", ONNX_STORAGES)
def test_only_standard_operators_and_small_types(storage) -> None:
    model = make_model(hidden_dim=32)
    made = encoder_graph(model, storage)
    onnx.checker.check_model(made, full_check=True)  # also the shapes
    assert [(o.domain, o.version) for o in made.opset_import] == [("", 18)]
    assert {node.domain for node in made.graph.node} == {""}
    kinds = {w.name: w.data_type for w in made.graph.initializer}
    types = onnx.TensorProto
    table = {"float32": types.FLOAT, "int8": types.INT8, "int4": types.UINT8}
    assert kinds["token_embedding/embeddings"] == table[storage]
    kernel = "transformer_layer_1/feedforward_output_dense/kernel"
    assert kinds[kernel] == (types.FLOAT if storage == "float32" else types.INT8)
    names = [[x.name for x in side] for side in (made.graph.input, made.graph.output)]
    assert names == [
        ["input_ids", "attention_mask", "token_type_ids"],
        ["last_hidden_state", "sentence_embedding"],
    ]


def test_low_rank_weights_are_merged() -> None:
    model = with_random_weights(make_model())
    model.enable_lora(2)
    with_random_weights(model, 1)
    graph = encoder_graph(model).SerializeToString()
    _, vectors = outputs(graph, model, TEXTS)
    np.testing.assert_allclose(vectors, model.encode(TEXTS), atol=2e-6)


def run_card(folder: Path, monkeypatch) -> dict[str, object]:
    """Runs the code in the card of a directory, from the directory around it."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(folder.parent)
    names: dict[str, object] = {}
    exec(code, names)
    return names


def test_the_directory_needs_no_labse_tf(tmp_path, monkeypatch, capsys) -> None:
    """The code of the card: `tokenizers` and ONNX Runtime give the model's vectors."""
    model = with_random_weights(make_model(hidden_dim=32)).with_prefix("sun ")
    report = export_onnx(model, tmp_path / "out", storage="float32", texts=TEXTS)
    assert report.same_ids == len(TEXTS)
    assert report.parity.lowest_cosine > 0.999999
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert report.num_bytes == sum(
        path.stat().st_size
        for path in files
        if path.name in ("model.onnx", "tokenizer.json")
    )
    assert not [path for path in files if path.suffix == ".safetensors"]
    encode = run_card(tmp_path / "out", monkeypatch)["encode"]
    np.testing.assert_allclose(encode(TEXTS), model.encode(TEXTS), atol=2e-6)


def test_sentencepiece(tmp_path, monkeypatch) -> None:
    model = from_huggingface(unigram.write(tmp_path / "hf")).with_prefix("query ")
    texts = ["sunny day", "moon  sun", "", "दिन a", "x y z " * 20]
    report = export_onnx(model, tmp_path / "out", storage="float32", texts=texts)
    assert report.same_ids == len(texts)
    encode = run_card(tmp_path / "out", monkeypatch)["encode"]
    np.testing.assert_allclose(encode(texts), model.encode(texts), atol=2e-6)


def test_other_ids_are_counted(tmp_path) -> None:
    """A word of over 100 characters is one of the known differences."""
    model = make_model()
    long = "sun" * 40
    report = export_onnx(model, tmp_path / "out", texts=["sun", "[MASK] moon", long])
    assert report.same_ids < 3


def test_large_graphs_have_their_weights_beside_them(tmp_path, monkeypatch) -> None:
    from labse_tf.export import onnx_directory

    monkeypatch.setattr(onnx_directory, "_LARGEST", 1000)
    model = with_random_weights(make_model())
    report = export_onnx(model, tmp_path / "out", storage="float32", texts=TEXTS)
    assert report.parity.lowest_cosine > 0.999999
    data = tmp_path / "out" / "onnx" / "model.onnx_data"
    assert data.stat().st_size < report.num_bytes


def test_bad_arguments(tmp_path, monkeypatch) -> None:
    model = make_model()
    with raises(ValueError, argument="storage", received="'int2'"):
        export_onnx(model, tmp_path / "out", storage="int2")
    with raises(ValueError, "32", received="16"):
        encoder_graph(model, "int4")
    with raises(ValueError, argument="texts", received=True):
        export_onnx(model, tmp_path / "out", texts=[])
    with raises(ValueError, argument="model", received="'tanh'"):
        encoder_graph(make_model(activation="tanh"))
    (tmp_path / "there").mkdir()
    with raises(ValueError, "--overwrite", received=True):
        export_onnx(model, tmp_path / "there", texts=TEXTS)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(extras, "_installed", lambda module: module != "onnxruntime")
    with pytest.raises(ImportError) as error:
        export_onnx(model, tmp_path / "out", texts=TEXTS)
    check_message(str(error.value), "onnxruntime", "labse-tf[onnx]")
    assert {path.name for path in tmp_path.iterdir()} == {"there"}


def test_command(tmp_path, capsys) -> None:
    make_model(hidden_dim=32).save_to_preset(tmp_path / "model")
    command = ["export", "--model", tmp_path / "model", "--format", "onnx"]
    out = tmp_path / "out"
    assert run(*command, "--output", out, "--json", tmp_path / "a.json") == 0
    said = capsys.readouterr().out
    assert "int8" in said and "tokenizer.json" in said
    result = json.loads((tmp_path / "a.json").read_text())
    assert result["storage"] == "int8" and result["same_ids"] > 0
    for flag, value in (("--pad", "buckets"), ("--dim", "8"), ("--interface", "text")):
        arguments = [*command, "--output", tmp_path / "b", flag, value]
        if value == "text":  # the default
            assert run(*arguments) == 0
        else:
            check_message(fails(capsys, *arguments), flag, "onnx", received=value)
        capsys.readouterr()
    message = fails(capsys, *command, "--output", out, "--storage", "float16")
    check_message(message, "--storage", "onnx", received="float16")
    command[-1] = "saved_model"
    message = fails(capsys, *command, "--output", out, "--storage", "int4")
    check_message(message, "--storage", "saved_model", received="int4")
