"""KerasHub's models: as a LaBSE model, trained, exported, and read from presets."""

from __future__ import annotations

from pathlib import Path

import keras_hub
import numpy as np
import pytest

from helpers import hub_models
from helpers.errors import raises
from helpers.hub_models import LENGTH
from helpers.models import TOKENS, sentences
from labse_tf.checkpoints import from_keras_hub
from labse_tf.checkpoints.keras_hub import convert_tokenizer, is_convertible
from labse_tf.models import LaBSE

TEXTS = [*sentences(12), "", "sun, moon! 日 Sun", "  sun   moon ", "x ☃ नमस्ते"]

needs_embedders = pytest.mark.skipif(
    not hasattr(keras_hub.models, "BertTextEmbedder"),
    reason="KerasHub before 0.30 has no text embedders",
)


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def states(backbone, features) -> np.ndarray:
    """The states of the tokens, `(B, T, D)`, as the backbone itself returns them."""
    inputs = {name: np.asarray(features[name]) for name in backbone.input}
    outputs = backbone(inputs, training=False)
    if isinstance(outputs, dict):
        outputs = outputs["sequence_output"]
    return np.asarray(outputs)


def pooled(hidden: np.ndarray, mask: np.ndarray, pooling: str) -> np.ndarray:
    """Unit vectors, pooled with NumPy."""
    rows = []
    for state, real in zip(hidden, np.asarray(mask, bool), strict=True):
        tokens = state[real].astype(np.float64)
        rows.append(
            {
                "mean": tokens.mean(axis=0),
                "cls": state[0],
                "max": tokens.max(axis=0),
                "last": tokens[-1],
            }[pooling]
        )
    return unit(np.stack(rows))


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
    with raises(ValueError, "KerasHubEncoder", received="DebertaV3Backbone"):
        from_keras_hub(deberta, words)
    with raises(ValueError, "KerasHubEncoder", received="RobertaTokenizer"):
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
    with raises(ValueError, "KerasHubEncoder", received="max"):
        from_keras_hub(embedder)
    with raises(ValueError, argument="pooling", received="mean"):
        from_keras_hub(embedder, pooling="mean")
