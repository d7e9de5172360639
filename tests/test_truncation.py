"""Texts that are cut to the model's length are counted and reported once."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.command_line import run
from helpers.errors import raises
from helpers.models import make_model, sentences
from labse_tf.encoders import fingerprint, open_encoder
from labse_tf.export import export_saved_model

# 20 tokens; the rows of `make_model` have room for 14 and [CLS], [SEP].
LONG = "sun " * 20
EXACT = "sun " * 14


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    path = tmp_path_factory.mktemp("preset") / "model"
    make_model("weighted_mean", num_layers=1).save_to_preset(path)
    return path


def test_each_text_is_tokenized_and_counted_once(monkeypatch) -> None:
    model = make_model(num_layers=1)
    assert model.truncated_texts == 0
    model.encode([LONG, EXACT])  # One batch in one graph.
    assert model.truncated_texts == 1
    calls = []
    frame = model.preprocessor.frame
    monkeypatch.setattr(
        model.preprocessor, "frame", lambda ids: calls.append(ids) or frame(ids)
    )
    model.encode([LONG, EXACT] * 40)
    assert model.truncated_texts == 41
    assert len(calls) == 1


def test_another_length(preset, tmp_path) -> None:
    model = open_encoder(preset).model
    longer = model.with_sequence_length(32)
    assert longer.backbone is model.backbone
    texts = sentences(9)  # Not truncated: the pooling weights are the same.
    np.testing.assert_array_equal(longer.encode(texts), model.encode(texts))
    encoder = open_encoder(preset, sequence_length=32)
    np.testing.assert_array_equal(encoder([LONG]), longer.encode([LONG]))
    assert longer.truncated_texts == 0
    assert np.abs(encoder([LONG + "moon"]) - model.encode([LONG + "moon"])).max() > 1e-4
    assert fingerprint(preset, sequence_length=32) != fingerprint(preset)
    for wrong in (2, 1000):
        with raises(ValueError, f"sequence_length={wrong}"):
            open_encoder(preset, sequence_length=wrong)
    saved = export_saved_model(model, tmp_path / "1")
    with raises(ValueError, argument="sequence_length", received=32):
        open_encoder(saved, sequence_length=32)


def test_commands_report_it_once(preset, tmp_path, capsys) -> None:
    text, pairs = tmp_path / "text.en.txt", tmp_path / "en-hi.tsv"
    text.write_text(f"{LONG}\nsun\n{LONG} moon\n", encoding="utf-8")
    pairs.write_text(f"{LONG}\tsun\nmoon\t{LONG} moon\n", encoding="utf-8")
    mined = tmp_path / "mined.tsv"
    for command in (
        ("embed", text, "-o", tmp_path / "v.npy"),
        ("search", "moon", text),
        ("mine", text, text, "-o", mined, "--k", 1),
        ("filter", pairs, "--threshold", "-1", "-o", tmp_path / "kept.tsv"),
        ("evaluate", "retrieval", pairs),
    ):
        common = (*command, "--model", preset)
        assert run(*common) == 0
        lines = capsys.readouterr().err.splitlines()
        found = [line for line in lines if "cut to 16 tokens" in line]
        count = 4 if command[0] == "mine" else 2
        assert len(found) == 1, command
        assert found[0].startswith(f"{count} texts")
        assert "--sequence-length" in found[0]
        assert run(*common, "--sequence-length", 40) == 0
        assert "cut to" not in capsys.readouterr().err
