"""SavedModels: moved, loaded without labse_tf, fine-tuned, in all storage types."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.errors import Fields, check_message, raises
from helpers.models import make_model, sentences
from labse_tf import cli
from labse_tf.export import STORAGES, export_saved_model, read_report
from labse_tf.export.interfaces import pack_texts
from labse_tf.export.parity import compare, measure, sample_texts
from labse_tf.export.saved_model import CARD, REPORT
from labse_tf.export.storage import StoredEncoder
from labse_tf.layers import l2_normalize
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.quantization import channel_axes, quantize, scale_shape
from labse_tf.tokenizers import WordPieceTokenizer

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
        code,
        path,
        json.dumps(TEXTS),
        timeout=400,
        cwd=tmp_path,
        env={"PYTHONPATH": None},
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
    with raises(ValueError, path=path, received=True):
        export_saved_model(model, path)
    assert (path / "saved_model.pb").stat().st_mtime_ns == before
    export_saved_model(model, path, overwrite=True)
    assert (path / "saved_model.pb").stat().st_mtime_ns > before
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_a_failing_export_leaves_nothing(tmp_path, monkeypatch) -> None:
    def fail(module: object, folder: str, **kwargs: object) -> None:
        (Path(folder) / "saved_model.pb").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError) as caught:
        export_saved_model(make_model(num_layers=0), tmp_path / "1")
    assert caught.value.errno == 28
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_named(tmp_path) -> None:
    model = make_model(num_layers=0)
    for message, arguments in (
        (Fields("'onnx'", argument="interface"), {"interface": "onnx"}),
        (Fields("'int4'", argument="storage"), {"storage": "int4"}),
        (Fields("'fixed'", argument="pad"), {"pad": "fixed"}),
        (Fields(argument="buckets"), {"pad": "buckets", "buckets": []}),
        (Fields(1, 8, argument="buckets"), {"pad": "buckets", "buckets": [1, 8]}),
        (Fields(argument="texts"), {"texts": []}),
        (Fields("'one'", argument="texts"), {"texts": "one"}),
        (
            Fields(argument="storage"),
            {"interface": "preprocessor", "storage": "int8"},
        ),
        (Fields(argument="dtype"), {"interface": "preprocessor", "dtype": "bfloat16"}),
        (Fields(argument="pad"), {"interface": "encoder", "pad": "buckets"}),
    ):
        with raises(ValueError, message):
            export_saved_model(model, tmp_path / "1", **arguments)
    bare = type(model)(model.backbone, None, pooling="mean")
    with raises(ValueError, "preprocessor=None"):
        export_saved_model(bare, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


# === Storage ===


def varied(model: LaBSE) -> LaBSE:
    """Weights that are not all near zero or one: rounding must show."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    return model


def rounded(model: LaBSE, storage: str) -> LaBSE:
    """A copy whose float32 weights are what the storage type can hold."""
    copy = LaBSE.from_config(model.get_config())
    for weight, original in zip(copy.weights, model.weights, strict=True):
        array = np.asarray(original)
        if storage == "float16":
            array = array.astype(np.float16).astype(np.float32)
        elif storage == "bfloat16":
            # To the nearest 16 upper bits, ties to even.
            bits = array.view(np.uint32)
            bits = bits + 0x7FFF + ((bits >> 16) & 1)
            array = (bits & 0xFFFF0000).astype(np.uint32).view(np.float32)
        elif channel_axes(original.path, array.shape) is not None:
            codes, scales = quantize(original.path, array)
            array = codes * scales
        weight.assign(array)
    return copy


@pytest.mark.parametrize(
    ("storage", "pooling", "num_layers"),
    [
        ("bfloat16", "cls", 1),
        ("float16", "pooler", 0),
        ("float16", "mean", 0),
        ("bfloat16", "weighted_mean", 0),
        ("int8", "weighted_mean", 1),
        ("int8", "mean", 0),
    ],
)
def test_smaller_storage_rounds_the_weights_and_nothing_else(
    storage, pooling, num_layers, tmp_path
) -> None:
    model = varied(make_model(pooling, num_layers=num_layers, dropout=0.2))
    expected = rounded(model, storage).encode(TEXTS)
    before = [np.asarray(weight) for weight in model.weights]
    path = export_saved_model(model, tmp_path / "1", storage=storage, texts=TEXTS)
    module = tf.saved_model.load(str(path))
    vectors = module(tf.constant(TEXTS))["default"].numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert np.abs(vectors - model.encode(TEXTS)).max() > 1e-5
    for weight, array in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, array)

    # What is told is what is so.
    report = read_report(path)
    measured = compare(vectors, model.encode(TEXTS))
    assert report.parity.sentences == len(TEXTS)
    np.testing.assert_allclose(report.parity, measured, atol=1e-6)
    assert 0.99 < report.parity.lowest_cosine < report.parity.mean_cosine < 1 - 1e-9
    trainable = module.trainable_variables
    assert report.num_trainable == sum(v.shape.num_elements() for v in trainable)
    assert report.num_weights == sum(v.shape.num_elements() for v in module.variables)

    # Dropout moves its states in the training trace, under every storage type.
    first, second = (
        module(tf.constant(TEXTS), training=True)["default"] for _ in range(2)
    )
    assert float(tf.reduce_max(tf.abs(first - second))) > 1e-3


def test_an_int8_preset_is_exported_as_it_is(tmp_path) -> None:
    varied(make_model()).save_to_preset(tmp_path / "preset", storage="int8")
    model = LaBSE.from_preset(tmp_path / "preset")
    path = export_saved_model(model, tmp_path / "1", storage="int8", texts=TEXTS)
    assert read_report(path).parity.largest_difference < 1e-6


SMALLER = (
    LOAD
    + """
    print(json.dumps({
        name: tf.saved_model.load(path + "/" + name)(texts)["default"].numpy().tolist()
        for name in ("bfloat16", "float16")
    }))
"""
)


@pytest.mark.slow
def test_half_precision_elsewhere(run_python, tmp_path) -> None:
    model = varied(make_model("weighted_mean", num_layers=1))
    for storage in ("bfloat16", "float16"):
        path = tmp_path / "first" / storage
        export_saved_model(model, path, storage=storage, texts=TEXTS)
    moved = Path(shutil.move(tmp_path / "first", tmp_path / "elsewhere"))
    for storage, vectors in run(run_python, SMALLER, moved, tmp_path).items():
        expected = rounded(model, storage).encode(TEXTS)
        np.testing.assert_allclose(vectors, expected, atol=1e-6)


def test_every_pooling_and_depth_equals_the_model() -> None:
    features = make_model().preprocessor(TEXTS)
    for pooling in ("pooler", "cls", "mean", "weighted_mean"):
        for num_layers in (0, 1):
            model = varied(make_model(pooling, num_layers=num_layers))
            outputs = StoredEncoder(model)(features, training=False)
            states = model.backbone(features)
            np.testing.assert_allclose(outputs["default"], model(features), atol=1e-6)
            np.testing.assert_allclose(
                outputs["sequence_output"], states["sequence_output"], atol=1e-6
            )
            assert len(outputs["encoder_outputs"]) == num_layers
            # The vector before it is made one of length 1, and a mean where it is one.
            np.testing.assert_allclose(
                l2_normalize(outputs["pooled_output"]), outputs["default"], atol=1e-6
            )
            pooled = outputs["pooled_output"].numpy()
            mask = features["padding_mask"].numpy()[:, :, None]
            if pooling == "pooler":
                np.testing.assert_allclose(pooled, states["pooled_output"], atol=1e-6)
            elif pooling == "mean":
                mean = (states["sequence_output"].numpy() * mask).sum(1) / mask.sum(1)
                np.testing.assert_allclose(pooled, mean, atol=1e-5)
            elif pooling == "cls":
                np.testing.assert_array_equal(pooled, states["sequence_output"][:, 0])


def test_each_block_is_given_in_order() -> None:
    model = varied(make_model(num_layers=3))
    features = model.preprocessor(TEXTS)
    layers = model.backbone.transformer_layers
    states = keras.Model(model.backbone.input, [layer.output for layer in layers])
    whole = {name: features.get(name) for name in model.backbone.input}
    blocks = StoredEncoder(model)(features, training=False)["encoder_outputs"]
    for block, expected in zip(blocks, states(whole), strict=True):
        np.testing.assert_allclose(block, expected, atol=2e-6)


def wide_model(pooling: str = "weighted_mean") -> LaBSE:
    """A model that, as LaBSE, is its token table for the greater part."""
    tokens = make_model().preprocessor.tokenizer.vocabulary
    tokens = [*tokens, *(f"word{i}" for i in range(4000 - len(tokens)))]
    backbone = LaBSEBackbone(len(tokens), 0, 4, 64, 128)
    preprocessor = SentencePreprocessor(WordPieceTokenizer(tokens), 16)
    return varied(LaBSE(backbone, preprocessor, pooling=pooling))


def all_nodes(path: Path) -> list:
    """The nodes of a SavedModel's graph and of all its functions."""
    graph = tf.compat.v1.saved_model.loader_impl.parse_saved_model(str(path))
    graph = graph.meta_graphs[0].graph_def
    nodes = list(graph.node)
    for function in graph.library.function:
        nodes += function.node_def
    return nodes


def test_files_and_memory_stay_small(tmp_path) -> None:
    model = wide_model()
    table = model.backbone.token_embedding.embeddings
    numbers = sum(int(np.prod(w.shape)) for w in model.weights)
    shapes = {weight.path: tuple(weight.shape) for weight in model.weights}
    matrices = {name for name in shapes if scale_shape(name, shapes[name])}
    small = sum(int(np.prod(shapes[name])) for name in shapes.keys() - matrices)
    scales = sum(int(np.prod(scale_shape(name, shapes[name]))) for name in matrices)
    expected = {
        "float32": 4 * numbers,
        "bfloat16": 2 * numbers,
        "float16": 2 * numbers,
        "int8": numbers - small + 4 * scales + 4 * small,
    }
    for storage in STORAGES:
        path = export_saved_model(
            model, tmp_path / storage, "encoder", storage=storage, texts=TEXTS
        )
        size = sum(file.stat().st_size for file in (path / "variables").iterdir())
        assert expected[storage] <= size < expected[storage] + 30_000
        files = [file for file in path.rglob("*") if file.is_file()]
        others = sum((path / name).stat().st_size for name in (CARD, REPORT))
        assert (
            read_report(path).num_bytes == sum(f.stat().st_size for f in files) - others
        )

        # Rows are gathered first and cast then: no tensor of the whole table.
        module = tf.saved_model.load(str(path))
        for training in (False, True):
            function = module.__call__.get_concrete_function(
                {
                    name: tf.TensorSpec([None, None], tf.int32)
                    for name in ("input_word_ids", "input_mask", "input_type_ids")
                },
                training=training,
            )
            whole = {
                op.outputs[0].dtype
                for graph in graphs(function.graph)
                for op in graph.get_operations()
                if op.outputs and op.outputs[0].shape == table.shape
            }
            assert (tf.float32 in whole) == (storage == "float32")

        types = {variable.dtype for variable in module.variables}
        frozen = [v for v in module.variables if not v.trainable]
        if storage == "int8":
            assert types == {tf.int8, tf.float32}
            assert {v.dtype for v in frozen if v.shape == table.shape} == {tf.int8}
            # Codes and scales, and the pooler's bias, which no mean uses.
            left = len(module.variables) - len(module.trainable_variables)
            assert left == 2 * len(matrices) + 1
            assert {v.dtype for v in module.trainable_variables} == {tf.float32}
        elif storage == "float32":
            assert types == {tf.float32}
            assert len(module.trainable_variables) == len(model.trainable_weights)
        else:
            assert types == {tf.as_dtype(storage)}
            assert module.trainable_variables == []
            assert len(frozen) == len(module.variables) == len(model.weights)


def graphs(graph: tf.Graph) -> list:
    """A function's graph and those of the functions that it calls."""
    found, names = [graph], set()
    todo = [graph]
    while todo:
        for op in todo.pop().get_operations():
            for name in ("f", "then_branch", "else_branch"):
                if name not in op.node_def.attr:
                    continue
                called = op.graph._get_function(op.get_attr(name).name)
                if called is not None and called.name not in names:
                    names.add(called.name)
                    found.append(called.graph)
                    todo.append(called.graph)
    return found


@pytest.mark.parametrize("storage", ["float32", "int8"])
def test_trainable_variables_get_gradients(storage, tmp_path) -> None:
    model = varied(make_model("weighted_mean", num_layers=1))
    path = export_saved_model(model, tmp_path / "1", storage=storage, texts=TEXTS)
    module = tf.saved_model.load(str(path))
    target = tf.random.stateless_normal([len(TEXTS), model.embedding_dim], (0, 0))
    with tf.GradientTape() as tape:
        vectors = module(tf.constant(TEXTS), training=True)["default"]
        loss = tf.reduce_sum(vectors * target)
    gradients = tape.gradient(loss, module.trainable_variables)
    matrices = [
        weight
        for weight in model.trainable_weights
        if channel_axes(weight.path, tuple(weight.shape)) is not None
    ]
    frozen = len(matrices) if storage == "int8" else 0
    assert len(gradients) == len(model.trainable_weights) - frozen
    for variable, gradient in zip(module.trainable_variables, gradients, strict=True):
        assert gradient is not None, variable.name
        size = float(tf.reduce_max(tf.abs(tf.convert_to_tensor(gradient))))
        # Attention does not see what is added to all keys alike.
        assert size > (0 if "key/bias" in variable.name else 1e-9), variable.name


def test_float16_refuses_what_it_cannot_hold(tmp_path) -> None:
    model = make_model(num_layers=0)
    table = model.backbone.token_embedding.embeddings
    table.assign(np.full(table.shape, 70_000.0))
    with raises(ValueError, "65,504", 70000, "token_embedding"):
        export_saved_model(model, tmp_path / "1", storage="float16")
    assert list(tmp_path.iterdir()) == []
    export_saved_model(model, tmp_path / "1", storage="bfloat16", texts=TEXTS)


# === Preprocessor and encoder ===

HALVES = (
    LOAD
    + """
    numbers = lambda outputs: {k: v.numpy().tolist() for k, v in outputs.items()}
    preprocessor = tf.saved_model.load(path + "/preprocessor")
    encoder = tf.saved_model.load(path + "/encoder")
    inputs = preprocessor(texts)
    outputs = encoder(inputs)
    blocks = outputs.pop("encoder_outputs")
    ids = preprocessor.tokenize(texts)
    signature = encoder.signatures["serving_default"](**inputs)
    in_session = {}
    for name, fed in (("preprocessor", {"inputs": texts.numpy()}),
                      ("encoder", {k: v.numpy() for k, v in inputs.items()})):
        with tf.compat.v1.Session(graph=tf.Graph()) as session:
            graph = tf.compat.v1.saved_model.loader.load(
                session, ["serve"], path + "/" + name)
            served = graph.signature_def["serving_default"]
            got = session.run(
                {k: v.name for k, v in served.outputs.items()},
                {served.inputs[k].name: v for k, v in fed.items()})
            in_session[name] = {k: v.tolist() for k, v in got.items()}
    print(json.dumps({
        "inputs": numbers(inputs),
        "training": numbers(preprocessor(texts, training=True)),
        "serve": numbers(preprocessor.serve(texts)),
        "outputs": numbers(outputs),
        "blocks": [block.numpy().tolist() for block in blocks],
        "signature": numbers(signature),
        "dropout_moves": float(abs(encoder.serve_training(inputs)["default"]
                                   - encoder(inputs, training=True)["default"]
                                   ).numpy().max()),
        "text": tf.saved_model.load(path + "/text")(texts)["default"].numpy().tolist(),
        "encoder_int8": tf.saved_model.load(path + "/encoder_int8")(inputs)["default"]
                 .numpy().tolist(),
        "in_session": in_session,
        "ids": ids.to_list(),
        "special": {k: [int(v), v.dtype.name] for k, v in
                    preprocessor.tokenize.get_special_tokens_dict().items()},
        "packed": numbers(preprocessor.bert_pack_inputs([ids, ids], seq_length=9)),
        "variables": [len(preprocessor.variables), len(encoder.variables),
                      len(encoder.trainable_variables),
                      len(preprocessor.regularization_losses)],
    }))
"""
)

COMPOSED = (
    LOAD
    + """
    import warnings
    warnings.filterwarnings("ignore")
    import tensorflow_hub as hub
    import tf_keras
    tf_keras.utils.set_random_seed(0)
    preprocess = hub.KerasLayer(path + "/preprocessor")
    encoder = hub.KerasLayer(path + "/encoder_int8", trainable=True)
    before = [w.numpy() for w in encoder.trainable_weights]
    inputs = tf_keras.Input((), dtype=tf.string)
    outputs = encoder(preprocess(inputs))
    logits = tf_keras.layers.Dense(1, activation="sigmoid")(outputs["pooled_output"])
    classifier = tf_keras.Model(inputs, logits)
    classifier.compile(tf_keras.optimizers.Adam(0.02), "binary_crossentropy")
    words = ["sun", "moon", "star", "sky", "day", "night"]
    import numpy as np
    rng = np.random.default_rng(0)
    rows = [list(rng.choice(words, 5)) for _ in range(128)]
    labels = np.array([float("sun" in row) for row in rows])[:, None]
    strings = tf.constant([" ".join(row) for row in rows])
    history = classifier.fit(strings, labels, epochs=60, verbose=0).history["loss"]
    predicted = classifier.predict(strings, verbose=0) > 0.5
    loaded = hub.load(path + "/preprocessor")
    tokenize = hub.KerasLayer(loaded.tokenize)
    pack = hub.KerasLayer(loaded.bert_pack_inputs, arguments={"seq_length": 9})
    sides = [tf_keras.Input((), dtype=tf.string) for _ in range(2)]
    pairs = tf_keras.Model(sides, pack([tokenize(side) for side in sides]))
    import keras
    endpoint = keras.layers.TFSMLayer(path + "/encoder", call_endpoint="serve")
    print(json.dumps({
        "trained": len(before),
        "moved": sum(bool((a != w.numpy()).any())
                     for a, w in zip(before, encoder.trainable_weights)),
        "frozen": len(encoder.non_trainable_weights),
        "accuracy": float((predicted == labels).mean()),
        "pairs": {k: v.numpy().tolist() for k, v in pairs([texts, texts]).items()},
        "endpoint": endpoint(loaded(texts))["default"].numpy().tolist(),
    }))
"""
)


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> tuple[Path, LaBSE]:
    """Both halves, the whole, and smaller ones, moved from where they were written."""
    folder = tmp_path_factory.mktemp("halves")
    keras.utils.set_random_seed(0)  # the test's own seed comes after this
    model = varied(make_model("pooler", num_layers=1, dropout=0.1))
    for interface, storage, name in (
        ("preprocessor", "float32", "preprocessor"),
        ("encoder", "float32", "encoder"),
        ("text", "float32", "text"),
        ("encoder", "int8", "encoder_int8"),
    ):
        path = folder / "first" / name
        export_saved_model(model, path, interface, storage=storage, texts=TEXTS)
    return Path(shutil.move(folder / "first", folder / "elsewhere")), model


def test_halves_elsewhere(run_python, halves, tmp_path) -> None:
    path, model = halves
    result = run(run_python, HALVES, path, tmp_path)
    features = model.preprocessor(TEXTS)
    names = {
        "input_word_ids": "token_ids",
        "input_mask": "padding_mask",
        "input_type_ids": "segment_ids",
    }
    for key in ("inputs", "training", "serve"):
        assert set(result[key]) == set(names)
        for name, ours in names.items():
            np.testing.assert_array_equal(result[key][name], features[ours], key)
    assert result["in_session"]["preprocessor"] == result["inputs"]

    states = model.backbone(features)
    outputs = result["outputs"]
    assert set(outputs) == {"default", "pooled_output", "sequence_output"}
    for expected, received in (
        (model.encode(TEXTS), outputs["default"]),
        (states["pooled_output"], outputs["pooled_output"]),
        (states["sequence_output"], outputs["sequence_output"]),
        (states["sequence_output"], result["blocks"][-1]),
        (outputs["default"], result["text"]),
        (outputs["default"], result["signature"]["default"]),
        (rounded(model, "int8").encode(TEXTS), result["encoder_int8"]),
    ):
        np.testing.assert_allclose(received, expected, atol=2e-6)
    assert len(result["blocks"]) == 1
    assert set(result["signature"]) == set(outputs)
    for name, values in result["in_session"]["encoder"].items():
        np.testing.assert_allclose(values, outputs[name], atol=2e-6, err_msg=name)
    assert result["dropout_moves"] > 1e-3
    assert result["variables"] == [0, 23, 23, 0]

    tokenizer = model.preprocessor.tokenizer
    assert result["ids"] == tokenizer(TEXTS).to_list()
    assert result["special"] == {
        "vocab_size": [tokenizer.vocabulary_size, "int32"],
        "padding_id": [0, "int32"],
        "start_of_sequence_id": [2, "int32"],
        "end_of_segment_id": [3, "int32"],
        "mask_id": [4, "int32"],
    }
    check_packed(result["packed"], [result["ids"]] * 2, 9)


def test_hub_layers_compose_and_learn(run_python, halves, tmp_path) -> None:
    pytest.importorskip("tensorflow_hub", reason="the extra `quickstart` is missing")
    pytest.importorskip("tf_keras", reason="the extra `quickstart` is missing")
    path, model = halves
    result = run(run_python, COMPOSED, path, tmp_path)
    # 23 weights, of which 9 are matrices; their codes and scales are frozen.
    assert result["moved"] == result["trained"] == 14
    assert result["frozen"] == 18
    assert result["accuracy"] > 0.95
    ids = model.preprocessor.tokenizer(TEXTS).to_list()
    check_packed(result["pairs"], [ids, ids], 9)
    np.testing.assert_allclose(result["endpoint"], model.encode(TEXTS), atol=2e-6)


def pack_by_hand(segments: list[list[int]], length: int) -> tuple[list, list, list]:
    """One row: the segments are dealt tokens in turn until it is full."""
    kept: list[list[int]] = [[] for _ in segments]
    room = length - 1 - len(segments)
    while room and any(len(k) < len(s) for k, s in zip(kept, segments, strict=True)):
        for k, segment in zip(kept, segments, strict=True):
            if room and len(k) < len(segment):
                k.append(segment[len(k)])
                room -= 1
    ids, types = [2], [0]
    for number, tokens in enumerate(kept):
        ids += [*tokens, 3]
        types += [number] * (len(tokens) + 1)
    padding = [0] * (length - len(ids))
    return ids + padding, [1] * len(ids) + padding, types + padding


def check_packed(packed: dict, segments: list, length: int) -> None:
    """Compares what was packed with rows packed by hand."""
    rows = [pack_by_hand(list(row), length) for row in zip(*segments, strict=True)]
    for name, expected in zip(
        ("input_word_ids", "input_mask", "input_type_ids"),
        zip(*rows, strict=True),
        strict=True,
    ):
        np.testing.assert_array_equal(packed[name], np.array(expected), name)


def test_segments_are_dealt_their_tokens_in_turn(halves) -> None:
    path, _ = halves
    pack = tf.saved_model.load(str(path / "preprocessor")).bert_pack_inputs
    lengths = [(a, b) for a in range(9) for b in range(9)]
    sides = [
        [list(range(5 + 10 * side, 5 + 10 * side + row[side])) for row in lengths]
        for side in range(2)
    ]
    ragged = [tf.ragged.constant(side, tf.int32) for side in sides]
    for length in (3, 4, 5, 8, 9, 19, 24):
        for count in (1, 2):
            packed = pack(ragged[:count], seq_length=tf.constant(length))
            check_packed(packed, sides[:count], length)
    # Left out, it is the model's.
    assert pack(ragged)["input_word_ids"].shape == (81, 16)
    with raises(tf.errors.InvalidArgumentError, 2, "`seq_length`"):
        pack(ragged, seq_length=tf.constant(2))
    empty = pack([part[:0] for part in ragged], seq_length=tf.constant(6))
    assert empty["input_mask"].shape == (0, 6)


# === Padding ===


def test_padding_to_buckets(tmp_path) -> None:
    model = make_model(num_layers=0)
    path = export_saved_model(
        model, tmp_path / "1", "preprocessor", pad="buckets", buckets=(4, 100, 8, 4)
    )
    report = read_report(path)
    # 16 is the model's most; longer rows there are none.
    assert (report.pad, report.buckets) == ("buckets", (4, 8, 16))
    module = tf.saved_model.load(str(path))
    for words, length in ((0, 4), (2, 4), (3, 8), (6, 8), (7, 16), (14, 16), (30, 16)):
        outputs = module(tf.constant([" ".join(["sun"] * words), ""]))
        assert outputs["input_word_ids"].shape == (2, length)
        assert outputs["input_mask"].numpy().sum(1).tolist() == [min(words + 2, 16), 2]
        features = model.preprocessor([" ".join(["sun"] * words), ""])
        width = features["token_ids"].shape[1]
        np.testing.assert_array_equal(
            outputs["input_word_ids"][:, :width], features["token_ids"]
        )
        assert not outputs["input_word_ids"].numpy()[:, width:].any()
    assert "4, 8, 16" in (path / CARD).read_text(encoding="utf-8")


def test_buckets_change_no_vector(tmp_path) -> None:
    model = make_model("cls", num_layers=1)
    path = export_saved_model(model, tmp_path / "1", pad="buckets", buckets=(3, 9))
    module = tf.saved_model.load(str(path))
    for text, expected in zip(TEXTS, model.encode(TEXTS), strict=True):
        vectors = module(tf.constant([text]))["default"]
        np.testing.assert_allclose(vectors[0], expected, atol=1e-6)


def test_no_sentence_gives_no_vector(exported) -> None:
    path, _ = exported
    module = tf.saved_model.load(str(path))
    assert module(tf.constant([], tf.string))["default"].shape == (0, 16)


def test_padding_goes_to_the_longest_row_alone() -> None:
    preprocessor = make_model().preprocessor
    for words in (0, 3, 11):
        texts = tf.constant(["", " ".join(["sun"] * words)])
        features = pack_texts(preprocessor, texts)
        assert features["token_ids"].shape == (2, words + 2)


# === What is told about it ===


def test_the_card_says_what_was_exported(exported) -> None:
    path, _ = exported
    card = (path / CARD).read_text(encoding="utf-8")
    for part in ("**length 1**", "| interface | text |", "float32", "lowest 1.000000"):
        assert part in card
    block = card.split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(block.replace('load("1")', f'load("{path}")'), names)
    assert names["vectors"].shape == (2, 16)


def test_parity_is_measured_on_real_text(tmp_path, monkeypatch) -> None:
    model = make_model(num_layers=0)
    texts = sample_texts(model)
    assert "Where is the railway station?" in texts and len(texts) == 500
    path = export_saved_model(model, tmp_path / "1")
    assert read_report(path).parity.sentences == 500
    monkeypatch.setattr(
        "labse_tf.presets.shipped_directory", lambda: tmp_path / "nothing"
    )
    assert sample_texts(model) == model.preprocessor.tokenizer.vocabulary[::7]


def test_the_compute_type_is_the_export_s_own(tmp_path) -> None:
    """Storage and compute type are two things; parity is that with float32."""
    model, texts = make_model(), sentences(40)
    for storage in ("float32", "bfloat16"):
        path = export_saved_model(
            model, tmp_path / storage, storage=storage, dtype="bfloat16", texts=texts
        )
        report = read_report(path)
        assert (report.dtype, report.storage) == ("bfloat16", storage)
        assert 0.999 < report.parity.lowest_cosine < 1 - 1e-7
        assert "| bfloat16 |" in (path / "README.md").read_text()
    vectors = tf.saved_model.load(str(tmp_path / "float32"))(tf.constant(texts))
    assert vectors["default"].dtype == tf.float32
    half = model.with_dtype("bfloat16").encode(texts)
    np.testing.assert_allclose(vectors["default"].numpy(), half, atol=0.02)
    assert model.backbone.compute_dtype == "float32"  # as it was


def test_parity_sees_another_model(tmp_path) -> None:
    model = varied(make_model("mean", num_layers=0))
    path = export_saved_model(model, tmp_path / "1", texts=TEXTS)
    assert measure(path, model, "text", TEXTS).lowest_cosine > 1 - 1e-6
    other = varied(varied(make_model("mean", num_layers=0)))
    assert measure(path, other, "text", TEXTS).mean_cosine < 0.99
    ids = export_saved_model(model, tmp_path / "2", "preprocessor", texts=TEXTS)
    tokens = list(reversed(model.preprocessor.tokenizer.vocabulary))
    other.preprocessor = SentencePreprocessor(WordPieceTokenizer(tokens), 16)
    assert measure(ids, model, "preprocessor", TEXTS) is None
    with raises(RuntimeError, "input_word_ids"):
        measure(ids, other, "preprocessor", TEXTS)


def test_reports_of_others_are_refused(tmp_path) -> None:
    with raises(ValueError, "SavedModel", "labse_tf"):
        read_report(tmp_path)
    (tmp_path / REPORT).parent.mkdir()
    for text in ("[1]", "{}", '{"format": "x"}', '{"format": "labse_tf SavedModel"}'):
        (tmp_path / REPORT).write_text(text)
        with raises(ValueError, path="labse_tf.json"):
            read_report(tmp_path)


# === Command line ===


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("preset") / "model"
    wide_model().save_to_preset(path)
    return path


def test_the_command_prints_and_writes_the_parity(preset, tmp_path, capsys) -> None:
    text = tmp_path / "text.txt"
    text.write_text("sun moon\n\nday and night\n", encoding="utf-8")
    arguments = (
        *("export", "--model", preset, "--output", tmp_path / "1"),
        *("--storage", "int8", "--pad", "buckets", "--buckets", 8, "--texts", text),
        *("--json", tmp_path / "report.json"),
    )
    assert cli.main([str(argument) for argument in arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    report = read_report(tmp_path / "1")
    assert report.buckets == (8, 16)
    assert report.parity.sentences == 2
    assert len(lines) == 3
    check_message(lines[0], tmp_path / "1")
    check_message(lines[1], "text", "int8", f"{report.num_bytes / 1e6:.1f} MB")
    parity = report.parity
    check_message(
        lines[2],
        *(2, f"{parity.mean_cosine:.6f}", f"{parity.lowest_cosine:.6f}"),
        f"{parity.largest_difference:.1e}",
    )
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert written == {"path": str(tmp_path / "1"), **report.to_json()} | {
        "buckets": [8, 16]
    }


def test_the_command_says_what_is_wrong(preset, tmp_path, capsys) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    for arguments, expected in (
        (("--buckets", "8"), "--pad buckets"),
        (("--texts", str(tmp_path / "empty.txt")), "expected sentences"),
        (("--texts", str(tmp_path / "latin.txt")), "latin.txt"),
        (("--texts", str(tmp_path / "none.txt")), "none.txt"),
        (("--interface", "preprocessor", "--storage", "int8"), "`storage`"),
    ):
        target = str(tmp_path / "1")
        common = ("export", "--model", str(preset), "--output", target)
        assert cli.main([*common, *arguments]) == 2
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1, error
        assert not (tmp_path / "1").exists()


FULL_DISK = """
    import resource, sys
    from labse_tf.cli import main
    import tensorflow
    # A file of more than 200 kB does not fit: writing fails as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    sys.stderr = open(sys.argv[3], "w")
    status = main(["export", "--interface", "encoder", "--model", sys.argv[1],
                   "--output", sys.argv[2]])
    sys.stderr.close()
    sys.stderr = sys.__stderr__
    print("status", status)
"""


def test_a_full_disk_leaves_nothing(run_python, preset, tmp_path) -> None:
    target, told = tmp_path / "models" / "1", tmp_path / "told"
    printed = run_python(FULL_DISK, preset, target, told)
    assert printed.splitlines()[-1] == "status 2"
    line = told.read_text(encoding="utf-8")
    assert line.startswith(f"labse-tf: {target}: cannot be written: ")
    assert line.count("\n") == 1
    assert list(target.parent.iterdir()) == []


def test_targets_that_cannot_be_written(preset, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "file").write_text("")
    export = ("export", "--model", str(preset), "--output")
    assert cli.main([*export, str(tmp_path / "file" / "1")]) == 2
    assert capsys.readouterr().err.count("\n") == 1

    def read_only(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system", str(tmp_path))

    monkeypatch.setattr("labse_tf.files.tempfile.mkdtemp", read_only)
    assert cli.main([*export, str(tmp_path / "1")]) == 2
    assert capsys.readouterr().err == f"labse-tf: {tmp_path}: Read-only file system\n"
    assert sorted(os.listdir(tmp_path)) == ["file"]
