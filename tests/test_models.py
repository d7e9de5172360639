"""The encoder: parity with BERT, padding, order, saving, the dual encoder's fit."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers import peers
from helpers.errors import Fields, raises
from helpers.models import TOKENS, make_model, pairs, sentences
from labse_tf import precision, presets
from labse_tf.checkpoints import to_huggingface
from labse_tf.duplicates import sentence_fingerprints
from labse_tf.layers import POOLINGS
from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.models import (
    FEATURES,
    DualEncoder,
    LaBSE,
    LaBSEBackbone,
    cosine_similarity,
)
from labse_tf.models.padding import batches_by_length
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.pretraining import stack
from labse_tf.recipes import POOLINGS as RECIPE_POOLINGS
from labse_tf.tokenizers import WordPieceTokenizer


def bert_like(activation: str) -> LaBSEBackbone:
    backbone = LaBSEBackbone(**peers.SHAPE, activation=activation)
    peers.assign(backbone, peers.bert_state())
    return backbone


# === Parity with BERT ===


def check_outputs(activation: str, expected: dict[str, np.ndarray]) -> None:
    peers.check_outputs(bert_like(activation), expected)


@pytest.mark.parametrize("activation", list(peers.ACTIVATIONS))
def test_encoder_equals_golden_bert_outputs(activation: str) -> None:
    with np.load(peers.GOLDEN) as golden:
        expected = {
            name: golden[f"{activation}.{name}"]
            for name in ("sequence_output", "pooled_output")
        }
    check_outputs(activation, expected)


@pytest.mark.parity
@pytest.mark.parametrize("activation", list(peers.ACTIVATIONS))
def test_encoder_equals_transformers(activation: str) -> None:
    pytest.importorskip("torch", reason="the extra `parity` is not installed")
    pytest.importorskip("transformers", reason="the extra `parity` is not installed")
    check_outputs(activation, peers.hugging_face_outputs(activation))


def test_the_two_gelus_differ() -> None:
    with np.load(peers.GOLDEN) as golden:
        exact, tanh = (golden[f"{a}.pooled_output"] for a in peers.ACTIVATIONS)
    assert np.abs(exact - tanh).max() > 1e-4


# === The backbone ===


def test_token_embeddings_may_come_from_elsewhere() -> None:
    backbone = bert_like("gelu")
    features = {
        "token_ids": np.array([[2, 9, 8, 3, 7, 3, 0], [2, 5, 3, 0, 0, 0, 0]]),
        "segment_ids": np.array([[0, 0, 0, 0, 1, 1, 0], [0] * 7]),
        "padding_mask": np.array([[1] * 6 + [0], [1] * 3 + [0] * 4]),
        "position_ids": np.array([[0, 1, 2, 3, 0, 1, 0], [0, 1, 2, 0, 0, 0, 0]]),
        "sequence_ids": np.array([[1] * 4 + [2] * 2 + [0], [1] * 3 + [0] * 4]),
    }
    for names in (FEATURES, tuple(features)):
        given = {name: features[name].astype("int32") for name in names}
        expected = backbone(given)
        tokens = backbone.token_embedding(given.pop("token_ids"))
        outputs = backbone.call_with_embeddings(tokens, **given)
        for name in expected:
            np.testing.assert_array_equal(outputs[name], expected[name])
        assert len(outputs["encoder_outputs"]) == backbone.num_layers
        np.testing.assert_array_equal(
            outputs["encoder_outputs"][-1], expected["sequence_output"]
        )


def test_packed_row_equals_rows_alone() -> None:
    backbone = bert_like("gelu")
    features = peers.batch()
    first, second = features["token_ids"][0, :6], features["token_ids"][1, :5]
    segments = np.array([0, 0, 0, 1, 1, 1, 0, 1, 1, 0, 0], np.int32)
    packed = backbone(
        {
            "token_ids": np.concatenate([first, second, [0]])[None],
            "segment_ids": np.concatenate([segments, [0]])[None],
            "padding_mask": np.array([[1] * 11 + [0]], np.int32),
            "position_ids": np.array([[*range(6), *range(5), 0]], np.int32),
            "sequence_ids": np.array([[1] * 6 + [2] * 5 + [0]], np.int32),
        }
    )["sequence_output"].numpy()[0]
    for ids, part, rows in (
        (first, segments[:6], packed[:6]),
        (second, segments[6:], packed[6:11]),
    ):
        alone = backbone(
            {
                "token_ids": ids[None],
                "segment_ids": part[None],
                "padding_mask": np.ones_like(ids)[None],
            }
        )["sequence_output"].numpy()[0]
        np.testing.assert_allclose(rows, alone, atol=1e-5)


def test_a_backbone_without_blocks_is_its_embeddings() -> None:
    backbone = LaBSEBackbone(20, 0, 2, 8, 16)
    features = {
        "token_ids": np.array([[3, 4]]),
        "segment_ids": np.zeros((1, 2), int),
        "padding_mask": np.ones((1, 2), int),
    }
    output = backbone(features)["sequence_output"].numpy()
    weights = [w.numpy() for w in backbone.weights]
    summed = weights[0][[3, 4]] + weights[1][:2] + weights[2][0]
    mean, std = summed.mean(-1, keepdims=True), summed.std(-1, keepdims=True)
    np.testing.assert_allclose(output[0], (summed - mean) / std, atol=1e-4)


def test_bfloat16_keeps_float32_variables_and_is_near() -> None:
    model = make_model()
    half = make_model(dtype="bfloat16")
    half.set_weights(model.get_weights())
    assert {w.dtype for w in half.weights} == {"float32"}
    assert half.backbone.compute_dtype == "bfloat16"
    texts = sentences(20)
    cosines = np.sum(model.encode(texts) * half.encode(texts), axis=1)
    assert cosines.min() > 0.999
    assert cosines.min() < 1 - 1e-7  # it really computed in another precision


def test_with_dtype_is_the_same_model() -> None:
    model = make_model()
    assert model.with_dtype("float32") is model
    half = model.with_dtype("bfloat16")
    assert half.backbone.compute_dtype == "bfloat16"
    assert half.backbone.dropout == model.backbone.dropout == 0.1
    for old, new in zip(model.get_weights(), half.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    texts = sentences(20)
    vectors = [m.encode(texts) for m in (model, half, half.with_dtype("float32"))]
    assert 0.999 < np.sum(vectors[0] * vectors[1], axis=1).min() < 1 - 1e-7
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)
    # They share no weights.
    half.backbone.pooler.kernel.assign_add(half.backbone.pooler.kernel)
    np.testing.assert_allclose(model.encode(texts), vectors[0], atol=1e-6)
    with raises(ValueError, "'auto'", received="dtype='int8'"):
        model.with_dtype("int8")


@pytest.mark.parametrize("has", [False, True])
def test_auto_is_what_the_machine_can_do(has, monkeypatch) -> None:
    monkeypatch.setattr(precision, "computes_bfloat16", lambda: has)
    expected = "bfloat16" if has else "float32"
    assert precision.compute_policy("auto").compute_dtype == expected
    assert precision.compute_policy("auto").variable_dtype == "float32"


@pytest.mark.parametrize("budget", [1, 40, 4096])
def test_batches_hold_every_sentence_once_in_like_lengths(budget) -> None:
    rng = np.random.default_rng(0)
    lengths = np.concatenate([rng.integers(2, 30, 700), [100, 256, 255, 0]])
    batches = list(batches_by_length(lengths, budget))
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(704))
    for batch in batches:
        longest = lengths[batch].max()
        assert lengths[batch[0]] == longest
        assert len(batch) == 1 or longest * len(batch) <= budget
        assert np.sum(longest - lengths[batch]) <= 64
    if budget == 4096:
        assert len(batches) < 40  # and are not cut for nothing


def test_default_shapes_are_bert() -> None:
    backbone = LaBSEBackbone(30, 1, 2, 8, 16)
    config = backbone.get_config()
    assert config["activation"] == "gelu"
    assert config["layer_norm_epsilon"] == 1e-12
    assert (config["max_sequence_length"], config["num_segments"]) == (512, 2)
    paths = [w.path for w in backbone.weights]
    assert any(p.startswith("transformer_layer_0/") for p in paths)


# === Pooling and encode ===


@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings_by_hand(pooling: str) -> None:
    model = make_model(pooling)
    features = model.preprocessor(sentences(5))
    outputs = model.backbone(features)
    hidden = outputs["sequence_output"].numpy()
    mask = features["padding_mask"].numpy()[:, :, None]
    w = np.zeros((len(TOKENS), 1))
    if pooling == "weighted_mean":
        w = np.random.default_rng(0).normal(size=w.shape)
        model.sentence_pooling.weights[0].assign(w)
    weights = mask * np.exp(w[features["token_ids"].numpy()])
    expected = {
        "pooler": outputs["pooled_output"].numpy(),
        "cls": hidden[:, 0],
        "mean": (hidden * mask).sum(1) / mask.sum(1),
        "weighted_mean": (hidden * weights).sum(1) / weights.sum(1),
    }[pooling]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(model(features).numpy(), expected, atol=1e-6)


def test_recipes_and_layers_offer_the_same_poolings() -> None:
    assert RECIPE_POOLINGS == POOLINGS


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_changes_nothing(pooling: str) -> None:
    model = make_model(pooling)
    texts = sentences(8)
    longest = model(model.preprocessor(texts)).numpy()
    fixed = SentencePreprocessor(model.preprocessor.tokenizer, 16, pad="fixed")
    assert fixed(texts)["token_ids"].shape == (8, 16)
    np.testing.assert_allclose(model(fixed(texts)).numpy(), longest, atol=1e-6)


def test_encode_keeps_the_order_whatever_the_batches() -> None:
    model = make_model()
    texts = sentences(50)
    alone = np.stack([model.encode(text) for text in texts])
    assert alone.dtype == np.float32
    for budget in (1, 40, 100_000):
        np.testing.assert_allclose(
            model.encode(texts, batch_tokens=budget), alone, atol=1e-6
        )
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1.0, atol=1e-6)
    # Different texts have different vectors, so a wrong order would have shown.
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_encode_over_several_windows() -> None:
    model = make_model(num_layers=0)
    texts = sentences(40) * 500  # 20,000: three windows
    vectors = model.encode(iter(texts))
    np.testing.assert_allclose(vectors[-40:], model.encode(texts[:40]), atol=1e-6)
    assert len(vectors) == len(texts)


def test_encode_takes_any_iterable_and_nothing() -> None:
    model = make_model()
    texts = ["sun", "", "moon"]
    expected = model.encode(texts)
    assert np.isfinite(expected).all()
    for other in (tuple(texts), iter(texts), np.array(texts), dict.fromkeys(texts)):
        np.testing.assert_array_equal(model.encode(other), expected)
    assert model.encode([]).shape == (0, 16)
    assert model.encode("sun").shape == (16,)
    surrogate = model.encode(["sun \ud800 moon", b"sun \xff\xfe moon"])
    assert np.isfinite(surrogate).all()


def test_encode_names_what_is_no_string() -> None:
    model = make_model()
    with raises(ValueError, 7, 1, received=True):
        model.encode(["sun", 7])
    with raises(ValueError, "preprocessor=None"):
        LaBSE(model.backbone, pooling="mean").encode(["sun"])
    with raises(ValueError, argument="batch_tokens"):
        model.encode(["sun"], batch_tokens=0)


def test_dropout_is_on_in_training_only() -> None:
    model = make_model(dropout=0.5)
    features = model.preprocessor(sentences(4))
    still = [model(features, training=False).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*still)
    moving = [model(features, training=True).numpy() for _ in range(2)]
    assert np.abs(moving[0] - moving[1]).max() > 1e-3


def test_similarity() -> None:
    first = np.array([[1.0, 0.0], [3.0, 4.0]])
    second = np.array([[0.0, 2.0], [1.0, 0.0], [0.0, 0.0]])
    expected = [[0.0, 1.0, 0.0], [0.8, 0.6, 0.0]]
    np.testing.assert_allclose(cosine_similarity(first, second), expected, atol=1e-6)
    with raises(ValueError, "(2, 2)", "(2, 3)", received=True):
        cosine_similarity(first, np.ones((2, 3)))


# === Saving ===


def test_keras_saving_round_trip(tmp_path: Path) -> None:
    for original in (make_model("cls"), make_model("mean").backbone):
        path = tmp_path / "model.keras"
        original.save(path)
        again = keras.saving.load_model(path)
        assert type(again) is type(original)
        features = make_model().preprocessor(sentences(4))
        one, two = original(features), again(features)
        if isinstance(original, LaBSE):
            np.testing.assert_array_equal(one, two)
            assert again.encode(["sun"]).shape == (1, 16)
        else:
            np.testing.assert_array_equal(*(o["pooled_output"] for o in (one, two)))


def test_keras_saving_in_a_new_process(run_python, tmp_path: Path) -> None:
    model = make_model()
    model.save(tmp_path / "model.keras")
    code = """
        import sys, json
        import keras
        import labse_tf.models
        model = keras.saving.load_model(sys.argv[1])
        print(json.dumps(model.encode(["sun and moon", ""]).tolist()))
    """
    printed = run_python(code, tmp_path / "model.keras").splitlines()[-1]
    expected = model.encode(["sun and moon", ""])
    np.testing.assert_allclose(json.loads(printed), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_preset_round_trip(tmp_path: Path, pooling: str) -> None:
    model = make_model(pooling, activation="gelu_approximate")
    model.save_to_preset(tmp_path / "preset")
    files = {path.name for path in (tmp_path / "preset").iterdir()}
    assert files == {"config.json", "vocab.txt", "model.weights.h5", "README.md"}
    assert not [p for p in tmp_path.iterdir() if p.name != "preset"]
    again = LaBSE.from_preset(tmp_path / "preset")
    assert again.backbone.activation == "gelu_approximate"
    texts = sentences(10)
    np.testing.assert_array_equal(again.encode(texts), model.encode(texts))
    bare = LaBSE.from_preset(str(tmp_path / "preset"), preprocessor=None)
    assert bare.preprocessor is None
    half = LaBSE.from_preset(tmp_path / "preset", dtype="bfloat16")
    assert half.backbone.compute_dtype == "bfloat16"


def test_saving_over_a_preset_replaces_it_and_keeps_other_files(tmp_path: Path) -> None:
    first, second = make_model(), make_model(num_layers=1)
    first.save_to_preset(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    second.save_to_preset(tmp_path)
    again = LaBSE.from_preset(tmp_path)
    assert again.backbone.num_layers == 1
    np.testing.assert_array_equal(again.encode(["sun"]), second.encode(["sun"]))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_failing_save_leaves_the_old_preset(tmp_path: Path, monkeypatch) -> None:
    first = make_model()
    first.save_to_preset(tmp_path / "preset")
    second = make_model()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(presets, "write_weights", full)
    with pytest.raises(OSError) as caught:
        second.save_to_preset(tmp_path / "preset")
    assert caught.value.errno == 28
    again = LaBSE.from_preset(tmp_path / "preset")
    np.testing.assert_array_equal(again.encode(["sun"]), first.encode(["sun"]))
    assert [p.name for p in tmp_path.iterdir()] == ["preset"]


def damage(preset: Path, kind: str) -> Fields:
    """Spoils a preset in one way and returns what the error must say."""
    config = preset / "config.json"
    if kind == "weights":
        data = bytearray((preset / "model.weights.h5").read_bytes())
        data[len(data) // 2] ^= 1
        (preset / "model.weights.h5").write_bytes(data)
        return Fields(path=preset / "model.weights.h5", received=True)
    if kind == "vocabulary":
        (preset / "vocab.txt").unlink()
        return Fields("vocab.txt", received=True)
    if kind == "json":
        config.write_text("{")
        return Fields("JSON", path=config, received=True)
    if kind == "format":
        config.write_text('{"format": "something"}')
        return Fields("labse_tf preset", path=config, received="'something'")
    if kind == "version":
        known = json.loads(config.read_text())
        config.write_text(json.dumps(known | {"format_version": 99}))
        return Fields(1, path=config, received=99)
    known = json.loads(config.read_text())
    if kind == "layers":
        known["backbone"]["num_layers"] = 3
        config.write_text(json.dumps(known))
        return Fields("transformer_layer_2", path=preset / "model.weights.h5")
    known["backbone"]["hidden_dim"] = 32
    config.write_text(json.dumps(known))
    return Fields("position_embedding/embeddings", "(512, 32)", path="model.weights.h5")


@pytest.mark.parametrize(
    "kind", ["weights", "vocabulary", "json", "format", "version", "shape", "layers"]
)
def test_damaged_presets_are_named(tmp_path: Path, kind: str) -> None:
    make_model().save_to_preset(tmp_path / "preset")
    expected = damage(tmp_path / "preset", kind)
    with raises(ValueError, expected):
        LaBSE.from_preset(tmp_path / "preset")


def test_what_is_no_preset_is_named(tmp_path: Path) -> None:
    with raises(ValueError, received="'no-such-model'"):
        presets.find("no-such-model")
    with raises(ValueError, path="config.json"):
        presets.find(tmp_path)


def test_bad_arguments_are_named() -> None:
    with raises(ValueError, "`hidden_dim`", argument="num_heads"):
        LaBSEBackbone(10, 1, 3, 8, 16)
    with raises(ValueError, argument="hidden_dim"):
        LaBSEBackbone(10, 1, 1, 0, 16)
    with raises(ValueError, argument="dtype"):
        LaBSEBackbone(10, 1, 1, 8, 16, dtype="int8")
    backbone = LaBSEBackbone(10, 1, 1, 8, 16, max_sequence_length=8)
    tokenizer = WordPieceTokenizer(TOKENS)
    with raises(ValueError, 17, received=True):
        LaBSE(backbone, SentencePreprocessor(tokenizer, 8))
    right = LaBSEBackbone(len(TOKENS), 1, 1, 8, 16, max_sequence_length=8)
    with raises(ValueError, "sequence_length=16", "max_sequence_length=8"):
        LaBSE(right, SentencePreprocessor(tokenizer, 16))
    with raises(ValueError, argument="pooling"):
        LaBSE(right, pooling="max")


# === The dual encoder ===


def compiled(model: LaBSE, **settings: object) -> DualEncoder:
    dual = DualEncoder(model)
    dual.compile(keras.optimizers.Adam(3e-3), AdditiveMarginSoftmax(0.3, 20.0))
    return dual


def test_fit_lowers_the_loss_and_finds_translations() -> None:
    model = make_model("mean", dropout=0.0)
    dual = compiled(model)
    dataset = pairs(model, 20)
    before = dual.evaluate(dataset, verbose=0, return_dict=True)
    history = dual.fit(dataset, epochs=10, verbose=0).history
    after = dual.evaluate(dataset, verbose=0, return_dict=True)
    assert after["loss"] < 0.5 * before["loss"]
    assert after["ranking_accuracy"] > before["ranking_accuracy"]
    assert after["ranking_accuracy"] > 0.9
    assert set(history) == {"loss", "ranking_accuracy"}


def test_the_loss_of_fit_is_the_loss_of_the_vectors() -> None:
    from helpers import reference

    model = make_model("mean", dropout=0.0)
    dual = compiled(model)
    batch = next(iter(pairs(model, 1)))
    vectors = [model(batch[side]).numpy() for side in ("source", "target")]
    ids = [batch[side]["token_ids"].numpy() for side in ("source", "target")]
    expected = reference.additive_margin_softmax(
        *vectors, margin=0.3, scale=20.0, source_ids=ids[0], target_ids=ids[1]
    )
    found = dual.evaluate(pairs(model, 1), verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert found["ranking_accuracy"] == pytest.approx(
        reference.ranking_accuracy(*vectors)
    )


def gradients(dual: DualEncoder, batch: dict[str, dict[str, tf.Tensor]]):
    """Vectors, the loss's gradients made dense, and how many tokens were encoded."""
    tokens = []
    encode = dual.encoder.backbone.call

    def counted(features, *args, **kwargs):
        tokens.append(tf.size(features["token_ids"]))
        return encode(features, *args, **kwargs)

    dual.encoder.backbone.call = counted
    try:
        with tf.GradientTape() as tape:
            vectors = dual(batch, training=True)
            loss = dual.compute_loss(x=batch, y_pred=vectors)
        grads = tape.gradient(loss, dual.trainable_variables)
    finally:
        del dual.encoder.backbone.call
    return vectors, [tf.convert_to_tensor(g) for g in grads], int(sum(tokens))


@pytest.mark.parametrize(
    ("groups", "pooling"), [(2, "pooler"), (3, "mean"), (32, "mean"), (40, "mean")]
)
def test_groups_of_like_length_change_no_vector_and_no_gradient(
    pooling: str, groups: int
) -> None:
    model = make_model(pooling, dropout=0.0)
    batch = next(iter(pairs(model, 1, batch=32)))
    whole = compiled(model)
    grouped = DualEncoder(model, length_groups=groups)
    grouped.compile("sgd", AdditiveMarginSoftmax())
    expected, dense, tokens = gradients(whole, batch)
    vectors, grads, fewer = gradients(grouped, batch)
    for side in ("source", "target"):
        np.testing.assert_allclose(vectors[side], expected[side], atol=1e-6)
    for gradient, wanted in zip(grads, dense, strict=True):
        np.testing.assert_allclose(gradient, wanted, rtol=1e-4, atol=1e-5)
    longest = sum(batch[side]["token_ids"].shape[1] for side in batch)
    assert tokens == 32 * longest
    # With a group a sentence, no padding is left.
    if groups == 32:
        assert fewer == sum(
            int(tf.reduce_sum(x["padding_mask"])) for x in batch.values()
        )
    elif groups < 32:
        assert fewer < tokens


def test_groups_cut_behind_the_last_token_of_any_mask() -> None:
    model = make_model(dropout=0.0)
    mask = np.array([[1, 1, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]])
    ids = np.random.default_rng(0).integers(5, 17, mask.shape)
    side = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": mask}
    side = {k: tf.constant(v, tf.int32) for k, v in side.items()}
    batch = {"source": side, "target": side}
    vectors = DualEncoder(model, length_groups=2)(batch)
    np.testing.assert_allclose(vectors["source"], model(side), atol=1e-6)


@pytest.mark.slow
def test_groups_train_as_one_and_are_kept_by_saving(tmp_path: Path) -> None:
    histories = []
    for groups in (1, 4):
        keras.utils.set_random_seed(0)
        dual = DualEncoder(make_model(dropout=0.0), length_groups=groups)
        dual.compile(keras.optimizers.AdamW(3e-3), AdditiveMarginSoftmax())
        histories.append(dual.fit(pairs(dual.encoder, 20), verbose=0).history["loss"])
    np.testing.assert_allclose(histories[1], histories[0], rtol=1e-4)
    dual.save(tmp_path / "dual.keras")
    assert keras.saving.load_model(tmp_path / "dual.keras").length_groups == 4


def test_groups_that_cannot_be_are_refused() -> None:
    model = make_model()
    with raises(ValueError, 0, argument="length_groups"):
        DualEncoder(model, length_groups=0)
    dual = DualEncoder(model, length_groups=2)
    with raises(ValueError, "XLA", "length_groups=2"):
        dual.compile("sgd", AdditiveMarginSoftmax(), jit_compile=True)


def test_copies_in_a_batch_are_found_without_ids_in_the_features() -> None:
    model = make_model(dropout=0.0)
    dual = compiled(model)
    texts = ["sun moon", "star", "sun moon", "sky day night"]
    other = ["hill", "sea", "old", "new"]
    batch = {
        "source": model.preprocessor(texts),
        "target": model.preprocessor(other),
    }
    outputs = dual(batch)
    masked = float(dual.compute_loss(batch, y_pred=outputs))
    blind = float(dual.pair_loss(outputs["source"], outputs["target"]))
    assert masked < blind - 1e-2
    apart = {"source": model.preprocessor([*texts[:2], "bad", texts[3]])}
    batch = {**apart, "target": batch["target"]}
    outputs = dual(batch)
    assert float(dual.compute_loss(batch, y_pred=outputs)) == pytest.approx(
        float(dual.pair_loss(outputs["source"], outputs["target"])), abs=1e-6
    )


def test_fingerprints_are_of_the_text_and_not_of_the_padding() -> None:
    preprocessor = make_model().preprocessor
    texts = ["sun moon", "moon sun", "sun", "sun moon", "sun moon star", ""]
    longest = preprocessor(texts)
    fixed = SentencePreprocessor(preprocessor.tokenizer, 16, pad="fixed")(texts)
    rows = [
        np.asarray(sentence_fingerprints(f["token_ids"], f["padding_mask"]))
        for f in (longest, fixed)
    ]
    np.testing.assert_array_equal(*rows)
    assert rows[0].shape == (6, 2)
    different = {tuple(row) for row in rows[0].tolist()}
    assert len(different) == 5  # only rows 0 and 3 are the same text


def test_fingerprints_do_not_collide_on_many_sentences() -> None:
    rng = np.random.default_rng(0)
    # Neighbouring ids and swapped places are what a weak hash confuses.
    ids = np.unique(rng.integers(0, 4, size=(60_000, 12)), axis=0).astype(np.int32)
    prints = np.asarray(sentence_fingerprints(ids, np.ones_like(ids)))
    assert len(np.unique(prints, axis=0)) == len(ids)
    for column in prints.T:
        # Each half alone behaves like 32 random bits: a handful of collisions.
        assert len(ids) - len(np.unique(column)) < 10


def test_dual_encoder_saves_with_its_compilation(tmp_path: Path) -> None:
    model = make_model(dropout=0.0)
    dual = compiled(model)
    dual.fit(pairs(model, 4), verbose=0)
    dual.save(tmp_path / "dual.keras")
    again = keras.saving.load_model(tmp_path / "dual.keras")
    texts = sentences(5)
    np.testing.assert_array_equal(again.encoder.encode(texts), model.encode(texts))
    assert int(again.optimizer.iterations) == 4
    assert again.pair_loss.get_config() == dual.pair_loss.get_config()
    # Going on, both do the same.
    for trained in (dual, again):
        trained.fit(pairs(model, 2), verbose=0)
    np.testing.assert_allclose(
        again.encoder.encode(texts), model.encode(texts), atol=1e-5
    )


def test_compile_without_a_loss_is_refused() -> None:
    with raises(ValueError, argument="loss"):
        DualEncoder(make_model()).compile("adam")


def test_features_are_int32() -> None:
    features = make_model().preprocessor(["sun"])
    assert set(features) == set(FEATURES)
    assert {f.dtype for f in features.values()} == {tf.int32}


@pytest.mark.parametrize("pooling", ["pooler", "weighted_mean"])
def test_storage_types_load_as_float32_and_cost_little(
    tmp_path: Path, pooling: str
) -> None:
    model = make_model(pooling=pooling)
    texts = sentences(20)
    expected = model.encode(texts)
    for storage, table_type, bound in (
        ("float32", "float32", 0.0),
        ("float16", "float16", 1e-3),
        ("int8", "int8", 2e-2),
    ):
        folder = tmp_path / storage
        model.save_to_preset(folder, storage=storage)
        with h5py.File(folder / presets.WEIGHTS) as file:
            assert file["token_embedding/embeddings"].dtype == table_type
            assert file["pooler/kernel"].dtype == table_type
            rest = "float32" if storage == "float32" else "float16"
            assert file["pooler/bias"].dtype == rest
        again = LaBSE.from_preset(folder)
        assert {weight.dtype for weight in again.weights} == {"float32"}
        error = np.abs(again.encode(texts) - expected).max()
        assert error <= bound
        assert json.loads((folder / "config.json").read_text())["storage"] == storage
        # What was rounded once is kept exactly by being saved again.
        again.save_to_preset(tmp_path / "again", storage=storage)
        np.testing.assert_allclose(
            LaBSE.from_preset(tmp_path / "again").encode(texts),
            again.encode(texts),
            atol=1e-6,
        )
    with raises(ValueError, "'int4'", argument="storage"):
        model.save_to_preset(tmp_path / "new", storage="int4")
    assert not (tmp_path / "new").exists()


def test_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    model = make_model()
    model.backbone.pooler.bias.assign(np.full(model.embedding_dim, 1e5))
    with raises(ValueError, 100000, "pooler/bias", "65,504", received=True):
        model.save_to_preset(tmp_path / "preset", storage="float16")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("added", ["lora", "int8"])
def test_weights_that_a_copy_would_lose_are_refused(tmp_path: Path, added: str) -> None:
    model = make_model()
    if added == "lora":  # Keras's own; that of the blocks is merged.
        model.backbone.pooler.enable_lora(2)
    else:
        model.backbone.transformer_layers[0].feedforward_intermediate_dense.quantize(
            "int8"
        )
    for copy in (
        lambda: model.save_to_preset(tmp_path / "preset"),
        lambda: to_huggingface(model, tmp_path / "huggingface"),
        lambda: model.with_dtype("bfloat16"),
        lambda: stack(model.backbone, 4),
        lambda: model.enable_lora(2),
    ):
        layer = "pooler" if added == "lora" else "feedforward_intermediate_dense"
        with raises(ValueError, received=layer):
            copy()
    assert not list(tmp_path.iterdir())
