"""Encoders of Hugging Face directories whose tokenizer is not WordPiece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from helpers import foreign
from helpers.errors import raises
from labse_tf.checkpoints import from_huggingface
from labse_tf.checkpoints.tokenizer_json import needs_tokenizer_json
from labse_tf.encoders import fingerprint, open_encoder

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁sun", "ny", "▁moon", "▁day"]
TEXTS = ["sunny day", "moon", "", "moon sun day sunny", "xyz"]
ROWS = [[0, 5, 6, 8, 2], [0, 7, 2], [0, 2], [0, 7, 5, 8, 5, 6, 2], [0, 4, 3, 2]]


@pytest.fixture
def directory(tmp_path) -> Path:
    pytest.importorskip("safetensors", reason="the extra `convert` is missing")
    folder = foreign.write_huggingface(tmp_path / "hf")
    (folder / "vocab.txt").unlink()
    scored = [(piece, -float(i)) for i, piece in enumerate(PIECES)]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def vectors_of(model, row: list[int]) -> np.ndarray:
    ids = np.array([row], np.int32)
    features = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
    return np.asarray(model(features))[0]


def test_vectors_are_those_of_each_text_alone(directory) -> None:
    assert needs_tokenizer_json(directory)
    encoder = open_encoder(directory)
    model = from_huggingface(directory, preprocessor=None)
    wanted = [vectors_of(model, row) for row in ROWS]
    np.testing.assert_allclose(encoder(TEXTS), wanted, atol=1e-5)
    many = encoder(TEXTS * 300)
    np.testing.assert_allclose(many, np.tile(wanted, (300, 1)), atol=1e-5)
    assert many.shape == (1500, encoder.dimension)
    assert encoder([]).shape == (0, encoder.dimension)
    assert fingerprint(directory).startswith("float32 ")


def test_long_texts_are_cut(directory) -> None:
    encoder = open_encoder(directory, sequence_length=4)
    model = from_huggingface(directory, preprocessor=None)
    wanted = vectors_of(model, [0, 7, 5, 2])
    np.testing.assert_allclose(encoder(TEXTS)[3], wanted, atol=1e-5)
    with raises(ValueError, "`sequence_length`", "from 3 to 32", received=33):
        open_encoder(directory, sequence_length=33)


def test_damaged_tokenizers(directory) -> None:
    (directory / "tokenizer.json").write_text("[]")
    with raises(ValueError, 'tokenizer.json: expected a JSON object with a "model"'):
        open_encoder(directory)
    (directory / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    with raises(ValueError, "expected a tokenizer of the package tokenizers"):
        open_encoder(directory)


def test_other_architectures_need_an_extra(directory, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    foreign.change_json(directory / "config.json", model_type="roberta")
    with raises(ValueError, "roberta", "pip install 'labse-tf[teacher]'"):
        open_encoder(directory)
