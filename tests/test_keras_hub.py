"""KerasHub's models: as a LaBSE model, trained, exported, and read from presets."""

from __future__ import annotations

from pathlib import Path

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from helpers import hub_models
from helpers.errors import raises
from helpers.hub_models import LENGTH, needs_embedders, pooled, states, unit
from helpers.models import TOKENS, sentences
from labse_tf.checkpoints import from_keras_hub
from labse_tf.checkpoints.keras_hub import convert_tokenizer, is_convertible
from labse_tf.models import LaBSE
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import KerasHubTokenizer

TEXTS = [*sentences(12), "", "sun, moon! 日 Sun", "  sun   moon ", "x ☃ नमस्ते"]


# === Conversion to a LaBSE model ===


@needs_embedders
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("kind", ["Bert", "XLMRoberta"])
def test_a_converted_embedder_has_the_same_vectors(kind: str, pooling: str) -> None:
    tokenizer = (
        hub_models.bert_tokenizer()
        if kind == "Bert"
        else hub_models.xlm_roberta_tokenizer()
    )
    embedder = hub_models.embedder(kind, tokenizer, pooling_mode=pooling)
    model = from_keras_hub(embedder)
    assert isinstance(model, LaBSE)
    assert (model.pooling, model.preprocessor.sequence_length) == (pooling, LENGTH)
    expected = unit(embedder.predict(np.array(TEXTS, object), verbose=0))
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    unscaled = hub_models.embedder(
        kind, tokenizer, pooling_mode=pooling, normalize=False
    )
    unscaled.set_weights(embedder.get_weights())
    np.testing.assert_allclose(
        from_keras_hub(unscaled).encode(TEXTS), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [
        *(("BertBackbone", pooling) for pooling in ("mean", "cls", "pooler")),
        *(("DistilBertBackbone", pooling) for pooling in ("mean", "cls")),
        *(("RobertaBackbone", pooling) for pooling in ("mean", "cls")),
        *(("XLMRobertaBackbone", pooling) for pooling in ("mean", "cls")),
    ],
)
def test_a_converted_backbone_has_the_same_vectors(kind: str, pooling: str) -> None:
    wordpiece = kind in ("BertBackbone", "DistilBertBackbone")
    tokenizer = (
        hub_models.bert_tokenizer() if wordpiece else hub_models.xlm_roberta_tokenizer()
    )
    backbone = hub_models.backbone(kind, tokenizer)
    model = from_keras_hub(backbone, tokenizer, pooling=pooling, sequence_length=9)
    features = {k: v.numpy() for k, v in model.preprocessor(TEXTS).items()}
    assert features["token_ids"].shape == (len(TEXTS), 9)
    if pooling == "pooler":
        inputs = {name: features[name] for name in backbone.input}
        expected = unit(backbone(inputs)["pooled_output"])
    else:
        hidden = states(backbone, features)
        expected = pooled(hidden, features["padding_mask"], pooling)
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-5)
    # They share no weights.
    before = model.encode(TEXTS)
    backbone.set_weights([0 * w for w in backbone.get_weights()])
    np.testing.assert_array_equal(model.encode(TEXTS), before)


def test_a_converted_model_is_kept_in_a_preset(tmp_path: Path) -> None:
    tokenizer = hub_models.xlm_roberta_tokenizer()
    backbone = hub_models.backbone("XLMRobertaBackbone", tokenizer)
    model = from_keras_hub(backbone, tokenizer, prefix="sun ", dtype="bfloat16")
    assert model.backbone.compute_dtype == "bfloat16"
    assert {w.dtype for w in model.weights} == {"float32"}
    model = model.with_dtype("float32")
    model.save_to_preset(tmp_path / "preset")
    again = LaBSE.from_preset(tmp_path / "preset")
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))
    plain = from_keras_hub(backbone, tokenizer)
    np.testing.assert_allclose(
        plain.encode([f"sun {text}" for text in TEXTS]), again.encode(TEXTS), atol=1e-5
    )


def test_without_a_tokenizer_there_is_no_preprocessor() -> None:
    backbone = hub_models.backbone("BertBackbone", hub_models.bert_tokenizer())
    assert from_keras_hub(backbone).preprocessor is None


@pytest.mark.parametrize(
    "settings", [{}, {"lowercase": True}, {"lowercase": True, "strip_accents": True}]
)
def test_wordpiece_ids(settings: dict[str, bool]) -> None:
    tokenizer = hub_models.bert_tokenizer(**settings)
    converted = convert_tokenizer(tokenizer)
    texts = [*TEXTS, "SUN Móon", "sun\tmoon\nstar", "日sun日", "sun-moon"]
    assert converted(texts).to_list() == [list(tokenizer(text)) for text in texts]
    assert converted.vocabulary == TOKENS


def test_sentencepiece_ids_are_shifted() -> None:
    tokenizer = hub_models.xlm_roberta_tokenizer()
    converted = convert_tokenizer(tokenizer)
    assert converted.vocabulary == tokenizer.get_vocabulary()
    special = converted.special_token_ids
    assert special == {"<pad>": 1, "<unk>": 3, "<s>": 0, "</s>": 2, "<mask>": 37}
    texts = [*TEXTS, "sunmoon", "n", "बन", "goodsun  star"]
    assert converted(texts).to_list() == [list(tokenizer(text)) for text in texts]
    longer = convert_tokenizer(tokenizer, converted.vocabulary_size + 2)
    assert longer.vocabulary == [*converted.vocabulary, "[unused1]", "[unused2]"]


def test_a_longer_token_table() -> None:
    tokenizer = hub_models.xlm_roberta_tokenizer()
    backbone = hub_models.backbone("XLMRobertaBackbone", tokenizer, rows=45)
    assert from_keras_hub(backbone, tokenizer).encode(TEXTS).shape == (len(TEXTS), 16)
    shorter = hub_models.backbone("XLMRobertaBackbone", tokenizer, rows=30)
    with raises(ValueError, 30, argument="preprocessor", received="38"):
        from_keras_hub(shorter, tokenizer)


def test_what_cannot_be_converted_is_named() -> None:
    words = hub_models.bert_tokenizer()
    bert = hub_models.backbone("BertBackbone", words)
    deberta = hub_models.backbone("DebertaV3Backbone", words, bucket_size=8)
    pairs = hub_models.roberta_tokenizer()
    roberta = hub_models.backbone("RobertaBackbone", pairs)
    assert is_convertible(bert, words) and is_convertible(bert)
    assert not is_convertible(deberta, words)
    assert not is_convertible(roberta, pairs)
    with raises(ValueError, "`model`", received="DebertaV3Backbone"):
        from_keras_hub(deberta, words)
    with raises(ValueError, "`preprocessor`", received="RobertaTokenizer"):
        from_keras_hub(roberta, pairs)
    with raises(ValueError, argument="pooling", received="max"):
        from_keras_hub(bert, words, pooling="max")
    with raises(ValueError, argument="pooling", received="pooler"):
        from_keras_hub(roberta, pooling="pooler")
    with raises(ValueError, argument="preprocessor", received="split_on_cjk=False"):
        from_keras_hub(bert, hub_models.bert_tokenizer(split_on_cjk=False))
    with raises(ValueError, argument="preprocessor", received="BertTokenizer"):
        from_keras_hub(bert, keras_hub.models.BertTokenizer())
    bert.enable_lora(2)
    with raises(ValueError, argument="model", received="lora_kernel_a"):
        from_keras_hub(bert, words)


@needs_embedders
def test_embedders_that_cannot_be_converted_are_named() -> None:
    tokenizer = hub_models.bert_tokenizer()
    embedder = hub_models.embedder("Bert", tokenizer, pooling_mode="max")
    assert not is_convertible(embedder)
    with raises(ValueError, "`model`", received="max"):
        from_keras_hub(embedder)
    with raises(ValueError, argument="pooling", received="mean"):
        from_keras_hub(embedder, pooling="mean")


# === The tokenizer in the graph ===


def mapped(layer, texts: list[str]) -> list:
    """What a layer of KerasHub returns for each text in `tf.data`."""
    return list(tf.data.Dataset.from_tensor_slices(texts).map(layer))


def hub_tokenizers() -> dict[str, object]:
    return {
        "bert": hub_models.bert_tokenizer(),
        "xlm_roberta": hub_models.xlm_roberta_tokenizer(),
        "roberta": hub_models.roberta_tokenizer(),
    }


@pytest.mark.parametrize("kind", ["bert", "xlm_roberta", "roberta"])
def test_a_tokenizer_has_the_ids_of_keras_hub(kind: str) -> None:
    hub = hub_tokenizers()[kind]
    tokenizer = KerasHubTokenizer(hub)
    texts = [text for text in TEXTS if kind != "roberta" or text.isascii()]
    expected = [row.numpy().tolist() for row in mapped(hub, texts)]
    assert tokenizer(texts).to_list() == expected
    assert tokenizer([]).to_list() == []
    assert tokenizer(["sun \ud800 moon", b"sun \xff"]).shape[0] == 2
    ids = tokenizer(texts)
    assert (ids.dtype, ids.row_splits.dtype) == (tf.int32, tf.int64)
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(4).map(tokenizer)
    assert [row for batch in dataset for row in batch.to_list()] == expected
    assert tokenizer.vocabulary_size == len(tokenizer.vocabulary)
    for token in ("<s>", "sun") if kind == "roberta" else (tokenizer.vocabulary[7],):
        if token in hub.get_vocabulary():
            row = tokenizer.token_to_id(token)
            assert hub.token_to_id(token) == row
            assert tokenizer.id_to_token(row) == token
    marks = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id]
    assert marks == [hub.start_token_id, hub.end_token_id, hub.pad_token_id]
    (text,) = tokenizer.detokenize(
        [[marks[0], *tokenizer(["sun moon"]).to_list()[0], *marks[1:]]]
    ).numpy()
    assert text.decode().split() == ["sun", "moon"]


@pytest.mark.parametrize("kind", ["bert", "xlm_roberta", "roberta"])
def test_rows_are_those_of_a_preprocessor_of_keras_hub(kind: str) -> None:
    hub = hub_tokenizers()[kind]
    made = {
        "bert": keras_hub.models.BertTextClassifierPreprocessor,
        "xlm_roberta": keras_hub.models.XLMRobertaTextClassifierPreprocessor,
        "roberta": keras_hub.models.RobertaTextClassifierPreprocessor,
    }[kind](hub, sequence_length=LENGTH)
    texts = [text for text in TEXTS if kind != "roberta" or text.isascii()]
    rows = mapped(made, texts)
    ours = SentencePreprocessor(KerasHubTokenizer(hub), LENGTH, pad="fixed")
    features = ours(texts)
    for name in rows[0]:
        expected = np.stack([row[name] for row in rows]).astype(np.int32)
        np.testing.assert_array_equal(features[name], expected, err_msg=name)
    assert (np.asarray(features["padding_mask"]).sum(axis=1) == LENGTH).any()


def test_rows_without_a_start() -> None:
    hub = hub_models.bert_tokenizer()
    hub.start_token_id = None
    tokenizer = KerasHubTokenizer(hub)
    preprocessor = SentencePreprocessor(tokenizer, 4)
    assert preprocessor.room == 3
    end, sun = tokenizer.sep_token_id, tokenizer.token_to_id("sun")
    rows = preprocessor.token_rows(["sun", "sun sun sun sun", ""])
    assert rows.to_list() == [[sun, end], [sun, sun, sun, end], [end]]
    with raises(ValueError, "[CLS]", received=True):
        _ = tokenizer.cls_token_id


def test_a_tokenizer_is_kept_by_saving(tmp_path: Path) -> None:
    for kind, hub in hub_tokenizers().items():
        preprocessor = SentencePreprocessor(KerasHubTokenizer(hub), LENGTH)
        again = SentencePreprocessor.from_config(preprocessor.get_config())
        # Keras writes the vocabulary beside the configuration.
        (tmp_path / kind).mkdir()
        hub.save_assets(str(tmp_path / kind))
        again.tokenizer.tokenizer.load_assets(str(tmp_path / kind))
        texts = ["sun moon", "good day"]
        assert again.tokenize(texts).to_list() == preprocessor.tokenize(texts).to_list()
        assert again.tokenizer.describe() == preprocessor.tokenizer.describe()


def test_a_description_depends_on_vocabulary_and_settings() -> None:
    described = [
        KerasHubTokenizer(hub).describe()
        for hub in (
            hub_models.bert_tokenizer(),
            hub_models.bert_tokenizer(lowercase=True),
            keras_hub.models.BertTokenizer([*TOKENS, "other"]),
        )
    ]
    assert described[0] == KerasHubTokenizer(hub_models.bert_tokenizer()).describe()
    assert described[0] != described[1] and described[0] != described[2]


def test_what_is_no_tokenizer_is_named() -> None:
    with raises(ValueError, argument="tokenizer", received="Identity"):
        KerasHubTokenizer(keras.layers.Identity())
    with raises(ValueError, argument="tokenizer", received="sequence_length=4"):
        KerasHubTokenizer(hub_models.bert_tokenizer(sequence_length=4))
    with raises(ValueError, argument="tokenizer", received="string"):
        KerasHubTokenizer(hub_models.bert_tokenizer(dtype="string"))
    tokenizer = KerasHubTokenizer(hub_models.bert_tokenizer())
    for use in (tokenizer.settings, lambda: tokenizer.with_tokens([0])):
        with raises(ValueError, "from_keras_hub", received="BertTokenizer"):
            use()
