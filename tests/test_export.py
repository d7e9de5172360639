"""SavedModels: moved, loaded without labse_tf, fine-tuned, served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_models import make_model, sentences

from labse_tf.export import export_saved_model

TEXTS = [*sentences(7), "", "a word that is not there", "sun\u200dmoon \x00 नमस्ते"]

# The loader's side: no labse_tf to be found, another folder.
LOAD = """
    import json, sys
    sys.modules["labse_tf"] = None
    import tensorflow as tf
    import tensorflow_text
    path, texts = sys.argv[1], tf.constant(json.loads(sys.argv[2]))
"""

PLAIN = (
    LOAD
    + """
    module = tf.saved_model.load(path)
    outputs = {
        "call": module(texts)["default"],
        "call_false": module(texts, training=False)["default"],
        "signature": module.signatures["serving_default"](inputs=texts)["default"],
        "serve": module.serve(texts)["default"],
    }
    training = [module(texts, training=True)["default"].numpy() for _ in range(2)]
    print(json.dumps({
        "outputs": {name: value.numpy().tolist() for name, value in outputs.items()},
        "dropout_moves": float(abs(training[0] - training[1]).max()),
        "variables": len(module.variables),
        "trainable": len(module.trainable_variables),
        "regularization": len(module.regularization_losses),
        "structured": sorted(
            module.signatures["serving_default"].structured_input_signature[1]
        ),
    }))
"""
)

SESSION = (
    LOAD
    + """
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], path)
        signature = graph.signature_def["serving_default"]
        vectors = session.run(
            signature.outputs["default"].name,
            {signature.inputs["inputs"].name: json.loads(sys.argv[2])},
        )
        definition = session.graph.as_graph_def()
        ops = {node.op for node in definition.node}
        for function in definition.library.function:
            ops |= {node.op for node in function.node_def}
    print(json.dumps({"vectors": vectors.tolist(), "ops": sorted(ops)}))
"""
)

HUB = (
    LOAD
    + """
    import warnings
    warnings.filterwarnings("ignore")
    import numpy as np
    import tensorflow_hub as hub
    import tf_keras
    layer = hub.KerasLayer(path, trainable=True)
    before = [w.numpy() for w in layer.trainable_weights]
    inputs = tf_keras.Input((), dtype=tf.string)
    outputs = tf_keras.layers.Dense(1, activation="sigmoid")(layer(inputs)["default"])
    classifier = tf_keras.Model(inputs, outputs)
    classifier.compile(tf_keras.optimizers.Adam(0.01), "binary_crossentropy")
    words = ["sun", "moon", "star", "sky", "day", "night"]
    rng = np.random.default_rng(0)
    rows = [list(rng.choice(words, 5)) for _ in range(128)]
    labels = np.array([float("sun" in row) for row in rows])[:, None]
    strings = tf.constant([" ".join(row) for row in rows])
    history = classifier.fit(strings, labels, epochs=12, verbose=0).history["loss"]
    predicted = classifier.predict(strings, verbose=0) > 0.5
    moved = [
        bool((a != w.numpy()).any()) for a, w in zip(before, layer.trainable_weights)
    ]
    print(json.dumps({
        "vectors": hub.load(path)(texts)["default"].numpy().tolist(),
        "first": history[0], "last": history[-1],
        "accuracy": float((predicted == labels).mean()),
        "moved": sum(moved), "of": len(moved),
    }))
"""
)

TFSM = (
    LOAD
    + """
    import keras
    layer = keras.layers.TFSMLayer(path, call_endpoint="serve",
                                   call_training_endpoint="serve_training")
    print(json.dumps(layer(texts)["default"].numpy().tolist()))
"""
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A SavedModel, moved from where it was written, and the model's own vectors."""
    folder = tmp_path_factory.mktemp("export")
    model = make_model("pooler", dropout=0.1)
    written = export_saved_model(model, folder / "first" / "1")
    assert written == folder / "first" / "1"
    moved = folder / "elsewhere" / "2"
    moved.parent.mkdir()
    shutil.move(written, moved)
    return moved, model.encode(TEXTS)


def run(run_python, code: str, path: Path, tmp_path: Path) -> dict:
    """Runs a loader's code in a folder and with a path that lack the package."""
    printed = run_python(
        code, path, json.dumps(TEXTS), cwd=tmp_path, env={"PYTHONPATH": None}
    )
    return json.loads(printed.splitlines()[-1])


def test_moved_and_loaded_elsewhere(run_python, exported, tmp_path) -> None:
    path, expected = exported
    result = run(run_python, PLAIN, path, tmp_path)
    for name, vectors in result["outputs"].items():
        np.testing.assert_allclose(vectors, expected, atol=1e-6, err_msg=name)
        norms = np.linalg.norm(vectors, axis=1)
        np.testing.assert_allclose(norms, 1.0, atol=1e-6)
    assert result["dropout_moves"] > 1e-3
    # Three tables, their norm, two blocks of 16 weights, the pooler.
    assert result["variables"] == result["trainable"] == 3 + 2 + 2 * 16 + 2
    assert result["regularization"] == 0
    assert result["structured"] == ["inputs"]


def test_session_loader_and_stock_ops(run_python, exported, tmp_path) -> None:
    path, expected = exported
    result = run(run_python, SESSION, path, tmp_path)
    np.testing.assert_allclose(result["vectors"], expected, atol=1e-6)
    custom = {op for op in result["ops"] if ">" in op}
    assert not custom  # such as TFText>RoundRobinTrim, which TF Serving lacks
    assert {"FastBertNormalize", "FastWordpieceTokenizeWithOffsets"} <= set(
        result["ops"]
    )
    assert not {"PyFunc", "EagerPyFunc", "PyFuncStateless"} & set(result["ops"])


def test_hub_keras_layer_fine_tunes(run_python, exported, tmp_path) -> None:
    pytest.importorskip("tensorflow_hub", reason="the extra `quickstart` is missing")
    pytest.importorskip("tf_keras", reason="the extra `quickstart` is missing")
    path, expected = exported
    result = run(run_python, HUB, path, tmp_path)
    np.testing.assert_allclose(result["vectors"], expected, atol=1e-6)
    assert result["moved"] == result["of"] == 39
    assert result["last"] < 0.5 * result["first"]
    assert result["accuracy"] > 0.95


def test_tfsm_layer(run_python, exported, tmp_path) -> None:
    path, expected = exported
    np.testing.assert_allclose(
        run(run_python, TFSM, path, tmp_path), expected, atol=1e-6
    )


def test_the_vocabulary_is_an_asset(exported) -> None:
    path, _ = exported
    tokens = (path / "assets" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    assert tokens == make_model().preprocessor.tokenizer.vocabulary


def test_an_existing_directory_is_kept_unless_asked(tmp_path) -> None:
    model = make_model(num_layers=0)
    path = export_saved_model(model, tmp_path / "1")
    before = (path / "saved_model.pb").stat().st_mtime_ns
    with pytest.raises(ValueError, match=r"expected a path that does not exist"):
        export_saved_model(model, path)
    assert (path / "saved_model.pb").stat().st_mtime_ns == before
    export_saved_model(model, path, overwrite=True)
    assert (path / "saved_model.pb").stat().st_mtime_ns > before
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_a_failing_export_leaves_nothing(tmp_path, monkeypatch) -> None:
    import tensorflow as tf

    def fail(module: object, folder: str, **kwargs: object) -> None:
        (Path(folder) / "saved_model.pb").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="No space left"):
        export_saved_model(make_model(num_layers=0), tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_named(tmp_path) -> None:
    model = make_model(num_layers=0)
    with pytest.raises(ValueError, match=r"`interface` must be one of.*'onnx'"):
        export_saved_model(model, tmp_path / "1", "onnx")
    bare = type(model)(model.backbone, None, pooling="mean")
    with pytest.raises(ValueError, match=r"preprocessor=None"):
        export_saved_model(bare, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []
