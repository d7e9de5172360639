"""Backbones of KerasHub as encoders: vectors, training, presets, SavedModels."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from helpers import hub_models
from helpers.command_line import run
from helpers.errors import raises
from helpers.hub_models import LENGTH, needs_embedders, pooled, states, unit
from helpers.models import sentences
from labse_tf import encoders, evaluation, mining
from labse_tf.export import check_saved_model, export_saved_model, read_report
from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.models import DualEncoder, KerasHubEncoder, LaBSE, LaBSEBackbone
from labse_tf.optimizers import adamw
from labse_tf.preprocessing import SentencePreprocessor

TEXTS = [*sentences(12), "", "sun, moon! sun", "  sun   moon "]


def deberta(**changes: object) -> tuple[object, object]:
    """A backbone that is not of BERT's form, and its tokenizer of SentencePiece."""
    tokenizer = hub_models.xlm_roberta_tokenizer()
    return hub_models.backbone("DebertaV3Backbone", tokenizer, **changes), tokenizer


def batch(encoder: KerasHubEncoder, rows: int = 6) -> dict[str, dict[str, np.ndarray]]:
    """Features of a batch of pairs, with padding."""
    sides = sentences(rows, seed=1), sentences(rows, seed=2)
    return {
        side: {k: v.numpy() for k, v in encoder.preprocessor(texts).items()}
        for side, texts in zip(("source", "target"), sides, strict=True)
    }


# === Vectors ===


@pytest.mark.parametrize(
    ("kind", "poolings"),
    [
        ("AlbertBackbone", ("mean", "pooler")),
        ("BertBackbone", ("max", "cls")),
        ("DebertaV3Backbone", ("mean", "cls", "max")),
        ("DistilBertBackbone", ("max",)),
        ("ElectraBackbone", ("mean", "cls")),
        ("Qwen3Backbone", ("last", "mean")),
        ("Gemma3Backbone", ("last",)),
    ],
)
def test_vectors_are_the_pooled_states(kind: str, poolings: tuple[str, ...]) -> None:
    tokenizer = hub_models.bert_tokenizer()
    backbone = hub_models.backbone(kind, tokenizer)
    for pooling in poolings:
        encoder = KerasHubEncoder(
            backbone, tokenizer, pooling=pooling, sequence_length=LENGTH
        )
        features = {k: v.numpy() for k, v in encoder.preprocessor(TEXTS).items()}
        assert 0 < features["padding_mask"].mean() < 1
        if pooling == "pooler":
            expected = unit(backbone(features)["pooled_output"])
        else:
            hidden = states(backbone, features)
            expected = pooled(hidden, features["padding_mask"], pooling)
        vectors = encoder.encode(TEXTS)
        assert vectors.shape == (len(TEXTS), encoder.embedding_dim) == (len(TEXTS), 16)
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
        assert np.abs(expected[0] - expected[1]).max() > 1e-3
        # Padding and the other texts of a batch do not matter.
        alone = np.stack([encoder.encode(text) for text in TEXTS])
        np.testing.assert_allclose(vectors, alone, atol=1e-6)
        padded = {k: np.pad(v, ((0, 0), (0, 5))) for k, v in features.items()}
        np.testing.assert_allclose(encoder(padded), vectors, atol=1e-6)
        assert encoder.truncated_texts == 2 * sum(
            len(text.split()) > LENGTH - 2 for text in TEXTS
        )


@needs_embedders
@pytest.mark.parametrize(
    ("kind", "sizes", "pooling"),
    [
        ("Bert", {}, "max"),
        ("XLMRoberta", {}, "mean"),
        ("Qwen3", {}, "last"),
        (
            "Gemma3",
            {
                "is_embedding_model": True,
                "pooling_intermediate_dim": 12,
                "embedding_dim": 10,
            },
            "pooler",
        ),
    ],
)
def test_vectors_of_an_embedder(kind: str, sizes: dict, pooling: str) -> None:
    xlm = kind == "XLMRoberta"
    tokenizer = (
        hub_models.xlm_roberta_tokenizer() if xlm else hub_models.bert_tokenizer()
    )
    settings = {} if pooling == "pooler" else {"pooling_mode": pooling}
    embedder = hub_models.embedder(kind, tokenizer, sizes, normalize=False, **settings)
    encoder = KerasHubEncoder(embedder)
    assert (encoder.pooling, encoder.preprocessor.sequence_length) == (pooling, LENGTH)
    assert encoder.backbone is embedder.backbone
    features = {k: v.numpy() for k, v in encoder.preprocessor(TEXTS).items()}
    expected = unit(embedder({k: features[k] for k in embedder.input}))
    assert expected.shape[1] == encoder.embedding_dim == sizes.get("embedding_dim", 16)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)
    if kind in ("Bert", "XLMRoberta"):
        own = embedder.predict(np.array(TEXTS, object), verbose=0)
        np.testing.assert_allclose(encoder.encode(TEXTS), unit(own), atol=1e-5)


def test_other_settings() -> None:
    backbone, tokenizer = deberta()
    encoder = KerasHubEncoder(backbone, tokenizer, pooling="cls", sequence_length=9)
    vectors = encoder.encode(TEXTS)
    half = encoder.with_dtype("bfloat16")
    assert half.backbone.compute_dtype == "bfloat16"
    assert {w.dtype for w in half.weights} == {"float32"}
    cosines = (half.encode(TEXTS) * vectors).sum(axis=1)
    assert 0.99 < cosines.min() < 1
    np.testing.assert_allclose(
        half.with_dtype("float32").encode(TEXTS), vectors, atol=1e-6
    )
    short = encoder.with_sequence_length(3)
    words = [" ".join(text.split()[:1]) for text in sentences(12)]
    np.testing.assert_allclose(
        short.encode(sentences(12)), encoder.encode(words), atol=1e-6
    )
    prefixed = encoder.with_prefix("sun ")
    np.testing.assert_allclose(
        prefixed.encode(["moon"]), encoder.encode(["sun moon"]), atol=1e-6
    )
    assert prefixed.backbone is encoder.backbone
    # Graphs are traced again for weights that are added later.
    backbone.enable_lora(2)
    for weight in backbone.trainable_weights:
        weight.assign(weight + 0.3)
    assert np.abs(encoder.encode(TEXTS) - vectors).max() > 1e-3
    with raises(ValueError, "LoRA", received=backbone.name):
        encoder.with_dtype("bfloat16")


# === Training ===


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_a_step_is_that_of_the_loss(chunk_size: int | None) -> None:
    backbone, tokenizer = deberta(dropout=0.0)
    encoder = KerasHubEncoder(backbone, tokenizer, sequence_length=LENGTH)
    dual = DualEncoder(encoder, chunk_size)
    loss = AdditiveMarginSoftmax(0.3, 10.0)
    dual.compile(keras.optimizers.SGD(0.1), loss)
    features = batch(encoder)
    before = [w.numpy() for w in backbone.trainable_weights]
    with tf.GradientTape() as tape:
        vectors = []
        for side in features.values():
            inputs = {name: side[name] for name in backbone.input}
            mask = side["padding_mask"][:, :, None].astype("float32")
            mean = tf.reduce_sum(backbone(inputs) * mask, 1) / mask.sum(axis=1)
            vectors.append(tf.math.l2_normalize(mean, axis=1))
        value = loss(*vectors)
    grads = tape.gradient(value, [w.value for w in backbone.trainable_weights])
    logs = dual.train_on_batch(features, return_dict=True)
    np.testing.assert_allclose(logs["loss"], value, rtol=1e-5)
    largest = 0.0
    for old, gradient, new in zip(
        before, grads, backbone.trainable_weights, strict=True
    ):
        step = np.asarray(new) - old
        expected = -0.1 * tf.convert_to_tensor(gradient).numpy()
        np.testing.assert_allclose(step, expected, atol=2e-6, err_msg=new.path)
        largest = max(largest, np.abs(step).max())
    assert largest > 1e-3


@needs_embedders
def test_an_embedder_is_trained_in_place() -> None:
    embedder = hub_models.embedder("Bert", hub_models.bert_tokenizer())
    before = embedder.predict(np.array(TEXTS, object), verbose=0)
    dual = DualEncoder(embedder, chunk_size=4, length_groups=2)
    assert isinstance(dual.encoder, KerasHubEncoder)
    dual.compile(adamw(1e-2, weight_decay=0.1), AdditiveMarginSoftmax(0.3, 10.0))
    features = batch(dual.encoder, 8)
    losses = [dual.train_on_batch(features)[0] for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]
    after = embedder.predict(np.array(TEXTS, object), verbose=0)
    assert np.abs(after - before).max() > 1e-2
    np.testing.assert_allclose(dual.encoder.encode(TEXTS), after, atol=1e-5)
    # Without a gradient, the pooler would cause a warning.
    trained = {weight.path for weight in dual.trainable_weights}
    pooler = {weight.path for weight in embedder.backbone.pooled_dense.weights}
    assert trained == {w.path for w in embedder.backbone.weights} - pooler


def test_a_backbone_is_wrapped_and_saved(tmp_path: Path) -> None:
    backbone, tokenizer = deberta()
    assert DualEncoder(backbone).encoder.pooling == "mean"
    encoder = KerasHubEncoder(backbone, tokenizer, pooling="cls", prefix="sun ")
    dual = DualEncoder(encoder)
    dual.compile(keras.optimizers.SGD(0.1), AdditiveMarginSoftmax())
    dual.train_on_batch(batch(encoder))
    dual.save(tmp_path / "dual.keras")
    again = keras.saving.load_model(tmp_path / "dual.keras").encoder
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    assert again.preprocessor.prefix == "sun "


REPLICAS = """
    import json, sys
    import keras
    import keras_hub
    import numpy as np
    import tensorflow as tf
    from labse_tf import distribute, losses, models

    strategy = distribute.get_strategy(sys.argv[1])
    rng = np.random.default_rng(5)

    def side(length):
        ids = rng.integers(5, 60, size=(24, length)).astype("int32")
        mask = np.arange(length) < rng.integers(2, length + 1, size=(24, 1))
        return {
            "token_ids": ids,
            "segment_ids": np.zeros_like(ids),
            "padding_mask": mask.astype("int32"),
        }

    data = tf.data.Dataset.from_tensor_slices({"source": side(7), "target": side(9)})
    data = data.batch(8, drop_remainder=True)
    keras.utils.set_random_seed(3)
    with strategy.scope():
        backbone = keras_hub.models.DebertaV3Backbone(
            60, 1, 2, 16, 32, dropout=0.0, bucket_size=8
        )
        dual = models.DualEncoder(backbone)
        dual.compile(keras.optimizers.SGD(0.5), losses.AdditiveMarginSoftmax(0.3, 10.0))
    start = [w.numpy() for w in backbone.trainable_weights]
    dual.fit(data, epochs=1, shuffle=False, verbose=0)
    moved = [w.numpy() - s for w, s in zip(backbone.trainable_weights, start)]
    np.savez(sys.argv[2], *moved)
    print(strategy.num_replicas_in_sync)
"""


def test_two_replicas_train_as_one(run_python, tmp_path: Path) -> None:
    steps = []
    for strategy, replicas in (("one_device", "1"), ("cpu:2", "2")):
        path = tmp_path / f"{replicas}.npz"
        assert run_python(REPLICAS, strategy, path).split() == [replicas]
        with np.load(path) as arrays:
            steps.append([arrays[name] for name in arrays.files])
    for one, two in zip(*steps, strict=True):
        np.testing.assert_allclose(two, one, atol=2e-6)
    assert max(np.abs(one).max() for one in steps[0]) > 0.01


# === Presets of KerasHub ===


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A preset of KerasHub, and the vectors of its backbone and tokenizer."""
    path = tmp_path_factory.mktemp("keras_hub") / "deberta"
    backbone, tokenizer = deberta()
    backbone.save_to_preset(path)
    tokenizer.save_to_preset(path)
    encoder = KerasHubEncoder(backbone, tokenizer, sequence_length=LENGTH)
    return path, encoder.encode(TEXTS)


def test_a_preset_is_opened(saved: tuple[Path, np.ndarray]) -> None:
    preset, expected = saved
    assert encoders.layout_of(preset) == "keras_hub"
    encoder = encoders.open_encoder(preset, sequence_length=LENGTH)
    np.testing.assert_allclose(encoder(TEXTS), expected, atol=1e-6)
    assert isinstance(encoder.model, KerasHubEncoder)
    assert (encoder.dimension, encoder.dtype) == (16, "float32")
    cut = encoders.open_encoder(preset, sequence_length=LENGTH, dim=5)
    np.testing.assert_allclose(cut(TEXTS), unit(expected[:, :5]), atol=1e-6)
    half = encoders.open_encoder(preset, "bfloat16", LENGTH)
    assert half.dtype == "bfloat16"
    assert encoders.fingerprint(preset) != encoders.fingerprint(preset, "bfloat16")
    # Only models of BERT's form can be trained and converted.
    with raises(ValueError, path=preset, received="DebertaV3Backbone"):
        encoders.load_model(preset)


@needs_embedders
def test_a_preset_of_berts_form_is_converted(tmp_path: Path) -> None:
    embedder = hub_models.embedder("Bert", hub_models.bert_tokenizer())
    embedder.save_to_preset(tmp_path / "bert")
    expected = unit(embedder.predict(np.array(TEXTS, object), verbose=0))
    encoder = encoders.open_encoder(tmp_path / "bert")
    assert isinstance(encoder.model, LaBSE)
    np.testing.assert_allclose(encoder(TEXTS), expected, atol=1e-5)
    with encoders.as_preset(str(tmp_path / "bert")) as converted:
        again = LaBSE.from_preset(converted)
        np.testing.assert_allclose(again.encode(TEXTS), expected, atol=1e-5)


def test_a_preset_with_another_backbone_is_named(tmp_path: Path) -> None:
    backbone = keras_hub.models.FNetBackbone(17, 1, 16, 32)
    backbone.save_to_preset(tmp_path / "fnet")
    with raises(ValueError, path=tmp_path / "fnet", received="FNetBackbone"):
        encoders.open_encoder(tmp_path / "fnet")


def test_evaluation_and_mining(saved: tuple[Path, np.ndarray]) -> None:
    encode = encoders.open_encoder(saved[0])
    texts = sorted({text for text in sentences(40) if text})
    result = evaluation.retrieval(encode, {"xx": (texts, texts)}, progress=False)
    assert result.mean_accuracy == 1
    found = mining.mine_bitext(encode(texts), encode(texts))
    assert {(i, j) for _, i, j in found[: len(texts)]} == {
        (i, i) for i in range(len(texts))
    }


# === Export ===


def test_saved_models_have_the_vectors(run_python, tmp_path: Path) -> None:
    """In a new process without this package, moved to another place."""
    models = {
        "bert": ("ElectraBackbone", hub_models.bert_tokenizer(), "cls"),
        "xlm_roberta": ("DebertaV3Backbone", hub_models.xlm_roberta_tokenizer(), "max"),
        "roberta": ("Qwen3Backbone", hub_models.roberta_tokenizer(), "last"),
    }
    texts = [text for text in TEXTS if text.isascii()]
    expected = {}
    for name, (kind, tokenizer, pooling) in models.items():
        backbone = hub_models.backbone(kind, tokenizer)
        encoder = KerasHubEncoder(
            backbone, tokenizer, pooling=pooling, sequence_length=LENGTH, prefix="sun "
        )
        expected[name] = encoder.encode(texts)
        path = export_saved_model(encoder, tmp_path / "new" / name, texts=texts)
        report = read_report(path)
        assert (report.pooling, report.interface) == (pooling, "text")
        assert report.parity.largest_difference < 1e-5
        sizes = [np.prod(weight.shape) for weight in encoder.trainable_weights]
        assert report.num_trainable == sum(sizes)
    # Byte pairs need hash tables; the other tokenizers have fewer ops.
    checked = check_saved_model(tmp_path / "new" / "roberta")
    assert checked.passed, str(checked)
    (tmp_path / "new").rename(tmp_path / "moved")
    printed = run_python(
        """
        import json, sys
        import tensorflow as tf
        import tensorflow_text
        folder, texts = sys.argv[1], json.loads(sys.argv[2])
        found = {}
        for name in json.loads(sys.argv[3]):
            model = tf.saved_model.load(f"{folder}/{name}")
            found[name] = model(tf.constant(texts))["default"].numpy().tolist()
        assert "labse_tf" not in sys.modules and "keras_hub" not in sys.modules
        print(json.dumps(found))
        """,
        tmp_path / "moved",
        json.dumps(texts),
        json.dumps(list(models)),
        env={"PYTHONPATH": None},
    )
    for name, vectors in json.loads(printed.splitlines()[-1]).items():
        np.testing.assert_allclose(vectors, expected[name], atol=1e-5, err_msg=name)


def test_commands_take_a_decoder(tmp_path: Path, capsys) -> None:
    preset, text, vectors = (tmp_path / name for name in ("qwen3", "a.txt", "v.npy"))
    tokenizer = hub_models.bert_tokenizer()
    hub_models.backbone("Qwen3Backbone", tokenizer).save_to_preset(preset)
    tokenizer.save_to_preset(preset)
    texts = ["sun moon star sky", "good day", "sun"]
    text.write_text("\n".join(texts), encoding="utf-8")
    length = ("--sequence-length", 5)
    assert run("embed", text, "--model", preset, *length, "--output", vectors) == 0
    # A decoder has no table of positions, so there is no maximum to name.
    assert "1 texts were cut to 5 tokens; --sequence-length" in capsys.readouterr().err
    expected = encoders.open_encoder(preset, sequence_length=5)(texts)
    np.testing.assert_allclose(np.load(vectors), expected, atol=1e-6)
    path = tmp_path / "1"
    assert run("export", "--model", preset, "--texts", text, "--output", path) == 0
    expected = encoders.open_encoder(preset)(texts)
    np.testing.assert_allclose(encoders.open_encoder(path)(texts), expected, atol=1e-5)


@needs_embedders
def test_an_embedder_is_exported(tmp_path: Path) -> None:
    embedder = hub_models.embedder("Bert", hub_models.bert_tokenizer())
    path = export_saved_model(embedder, tmp_path / "1", dtype="float32", texts=TEXTS)
    expected = embedder.predict(np.array(TEXTS, object), verbose=0)
    vectors = encoders.open_encoder(path)(TEXTS)
    np.testing.assert_allclose(vectors, unit(expected), atol=1e-5)


def test_what_cannot_be_exported_is_named(tmp_path: Path) -> None:
    encoder = KerasHubEncoder(*deberta())
    for settings in ({"storage": "int8"}, {"interface": "encoder"}):
        ((name, value),) = settings.items()
        with raises(ValueError, "KerasHubEncoder", argument=name, received=value):
            export_saved_model(encoder, tmp_path / "1", **settings)
    with raises(ValueError, argument="model", received="Sequential"):
        export_saved_model(keras.Sequential(), tmp_path / "1")
    assert list(tmp_path.iterdir()) == []


# === Errors ===


def test_what_is_not_an_encoder_is_named() -> None:
    tokenizer = hub_models.bert_tokenizer()
    bert = hub_models.backbone("BertBackbone", tokenizer)
    classifier = keras_hub.models.BertTextClassifier(bert, 2)
    fnet = keras_hub.models.FNetBackbone(17, 1, 16, 32)
    t5 = keras_hub.models.T5Backbone(17, 1, 2, 16, 32)
    own = LaBSEBackbone(17, 1, 2, 16, 32)
    for wrong, received in (
        (classifier, "BertTextClassifier"),
        (fnet, "segment_ids, token_ids"),
        (t5, "encoder_token_ids"),
        (own, "LaBSEBackbone"),
    ):
        with raises(ValueError, argument="model", received=received):
            KerasHubEncoder(wrong)
        with raises(ValueError, argument="encoder", received=received):
            DualEncoder(wrong)
    for wrong in ("bert", keras.Sequential().call):
        with raises(ValueError, argument="encoder"):
            DualEncoder(wrong)
    with raises(ValueError, argument="pooling", received="weighted_mean"):
        KerasHubEncoder(bert, pooling="weighted_mean")
    distil = hub_models.backbone("DistilBertBackbone", tokenizer)
    with raises(ValueError, argument="pooling", received="pooler"):
        KerasHubEncoder(distil, pooling="pooler")
    with raises(ValueError, argument="sequence_length", received="max_sequence_length"):
        KerasHubEncoder(distil, tokenizer, sequence_length=21)
    few = hub_models.backbone("DistilBertBackbone", tokenizer, rows=9)
    with raises(ValueError, argument="preprocessor", received="9 rows"):
        KerasHubEncoder(few, tokenizer, sequence_length=LENGTH)
    with raises(ValueError, "preprocessor", received="None"):
        KerasHubEncoder(distil).encode(["sun"])


@needs_embedders
def test_an_embedder_has_its_own_pooling() -> None:
    embedder = hub_models.embedder("Bert", hub_models.bert_tokenizer())
    with raises(ValueError, argument="pooling", received="cls"):
        KerasHubEncoder(embedder, pooling="cls")
    longer = KerasHubEncoder(embedder, sequence_length=15)
    assert longer.preprocessor.sequence_length == 15
    given = SentencePreprocessor(longer.preprocessor.tokenizer, 7, prefix="sun ")
    assert KerasHubEncoder(embedder, given).preprocessor.settings() == given.settings()
