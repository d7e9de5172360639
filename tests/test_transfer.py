"""Transfer: a student's rows are means of its teacher's, its blocks the teacher's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from helpers.command_line import fails, run
from labse_tf import trimming
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer, save_vocabulary

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEACHER = [*SPECIAL, "sun", "##ny", "##n", "s", "##u", "moon", "day", "!"]
STUDENT = ["[PAD]", "[unused1]", *SPECIAL[1:], "sunny", "##un", "##sun", "moon", "☃"]
# The pieces of XLM-RoBERTa's kind, with their scores.
UNIGRAM = [
    *(("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)),
    *(("▁", -3.0), ("▁sun", -1.0), ("ny", -1.5), ("sun", -2.0), ("n", -4.0)),
    *(("u", -4.0), ("▁moon", -1.0), ("!", -2.0)),
]


def random_model(rows: int, preprocessor=None, pooling="weighted_mean", layers=2):
    """A model with every weight random, so that none can be taken for another."""
    backbone = LaBSEBackbone(rows, layers, 2, 8, 16, max_sequence_length=16)
    model = LaBSE(backbone, preprocessor, pooling=pooling)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def wordpiece_teacher(**more: object) -> LaBSE:
    preprocessor = SentencePreprocessor(WordPieceTokenizer(TEACHER), 12)
    return random_model(len(TEACHER), preprocessor, **more)


def unigram(folder: Path) -> Path:
    """A directory with the tokenizer of a tiny XLM-RoBERTa."""
    folder.mkdir(exist_ok=True)
    tokenizer = Tokenizer(models.Unigram(UNIGRAM, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"cls_token": "<s>", "sep_token": {"content": "</s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def weights_of(model: LaBSE) -> dict[str, np.ndarray]:
    return {weight.path: weight.numpy() for weight in model.weights}


def check_rows(
    teacher: LaBSE, student: LaBSE, expected: list[list[int]], known: int
) -> None:
    """Compare the rows with the oracle, and all other weights with the teacher's."""
    old, new = weights_of(teacher), weights_of(student)
    assert old.keys() == new.keys()
    per_token = {"token_embedding/embeddings", "token_weights/embeddings"}
    for path in old:
        if path not in per_token:
            np.testing.assert_array_equal(new[path], old[path])
            continue
        table = old[path][:known]
        rows = [table[p].mean(0) if p else table.mean(0) for p in expected]
        np.testing.assert_allclose(new[path], rows, atol=1e-6)


def test_rows_of_a_wordpiece_teacher() -> None:
    teacher = wordpiece_teacher()
    student, per_token, unknown = trimming.transfer_vocabulary(
        teacher, WordPieceTokenizer(STUDENT)
    )
    # "##sun" is not inside a word of the teacher's: its pieces are those of a word.
    pieces = [[0], [], [1], [2], [3], [4], [5, 6], [9, 7], [5], [10], []]
    check_rows(teacher, student, pieces, len(TEACHER))
    assert unknown == ["☃"]
    assert per_token == pytest.approx(sum(map(len, pieces)) / 9)
    assert student.text_preprocessor().sequence_length == 12


def test_rows_of_a_sentencepiece_teacher(tmp_path) -> None:
    pieces = trimming.sentencepiece_pieces(unigram(tmp_path))
    # As in XLM-RoBERTa, the table has rows without a token.
    teacher = random_model(len(UNIGRAM) + 3)
    student, _, unknown = trimming.transfer_vocabulary(
        teacher, WordPieceTokenizer(STUDENT), pieces=pieces
    )
    expected = [[1], [], [3], [0], [2], [], [5, 6], [9, 8], [7], [10], []]
    check_rows(teacher, student, expected, len(UNIGRAM))
    assert unknown == ["[MASK]", "☃"]


def test_shrink_by_command(tmp_path, capsys) -> None:
    teacher, vocabulary = tmp_path / "teacher", tmp_path / "vocab.txt"
    wordpiece_teacher(layers=3).save_to_preset(teacher)
    save_vocabulary(STUDENT, vocabulary)
    output, words = tmp_path / "student", ("--vocab", vocabulary, "--lowercase")
    assert not run("shrink", teacher, *words, "--keep-layers", "0,2", "-o", output)
    old, new = (LaBSE.from_preset(folder) for folder in (teacher, output))
    assert new.preprocessor.tokenizer.vocabulary == STUDENT
    assert new.preprocessor.tokenizer.lowercase
    assert new.backbone.num_layers == 2
    before, after = weights_of(old), weights_of(new)
    for path in after:
        if "transformer_layer" in path:
            number = path.replace("layer_1", "layer_2")
            np.testing.assert_array_equal(after[path], before[number])
    assert "[CLS]" not in capsys.readouterr().out
    assert "must be" in fails(capsys, "shrink", teacher, "-o", output)
