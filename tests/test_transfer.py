"""Transfer: a student's rows are means of its teacher's, its blocks the teacher's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from helpers.command_line import run
from helpers.errors import raises, refuses
from labse_tf import checkpoints, trimming
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer, save_vocabulary

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEACHER = [*SPECIAL, "sun", "##ny", "##n", "s", "##u", "moon", "day", "!"]
STUDENT = ["[PAD]", "[unused1]", *SPECIAL[1:], "sunny", "##un", "##sun", "moon", "☃"]
STUDENT += ["!", "##y☃"]
# "##sun" is not inside a word of the teacher's: its pieces are those of a word.
PIECES = [[0], [], [1], [2], [3], [4], [5, 6], [9, 7], [5], [10], [], [12], []]

# The pieces of XLM-RoBERTa's kind, with their scores.
UNIGRAM = [
    *(("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)),
    *(("▁", -3.0), ("▁sun", -1.0), ("ny", -1.5), ("sun", -2.0), ("n", -4.0)),
    *(("u", -4.0), ("▁moon", -1.0), ("!", -2.0), ("▁!", -1.0), ("y", -4.0)),
]
# A mark alone and an unknown piece count as no pieces; "!" has no mark.
UNIGRAM_PIECES = [[1], [], [3], [0], [2], [], [5, 6], [9, 8], [7], [10], [], [11], [13]]
TABLE, WEIGHTS = "token_embedding/embeddings", "token_weights/embeddings"


def random_model(rows: int, preprocessor=None, pooling="mean", layers=2) -> LaBSE:
    """A model with every weight random, so that none can be taken for another."""
    backbone = LaBSEBackbone(rows, layers, 2, 8, 16, max_sequence_length=16)
    model = LaBSE(backbone, preprocessor, pooling=pooling)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def wordpiece_teacher(vocabulary=TEACHER, settings=None, **more: object) -> LaBSE:
    tokenizer = WordPieceTokenizer(vocabulary, **(settings or {}))
    return random_model(len(vocabulary), SentencePreprocessor(tokenizer, 12), **more)


def write_unigram(folder: Path) -> Path:
    """Write the tokenizer of a tiny XLM-RoBERTa."""
    folder.mkdir(exist_ok=True)
    tokenizer = Tokenizer(models.Unigram(UNIGRAM, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"cls_token": "<s>", "sep_token": {"content": "</s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


@pytest.fixture(scope="module")
def unigram_teacher(tmp_path_factory) -> Path:
    """A Hugging Face directory with the tokenizer of a tiny XLM-RoBERTa."""
    folder = tmp_path_factory.mktemp("teachers") / "unigram"
    names = [*SPECIAL, *(f"x{i}" for i in range(len(UNIGRAM) - 3))]
    checkpoints.to_huggingface(wordpiece_teacher(names), folder)
    (folder / "vocab.txt").unlink(missing_ok=True)
    return write_unigram(folder)


def weights_of(model: LaBSE) -> dict[str, np.ndarray]:
    return {weight.path: weight.numpy() for weight in model.weights}


def check_rows(
    teacher: LaBSE, student: LaBSE, pieces: list[list[int]], known: int
) -> None:
    """Compare the rows with the oracle, and all other weights with the teacher's."""
    old, new = weights_of(teacher), weights_of(student)
    assert old.keys() == new.keys()
    table = old[TABLE][:known]
    if WEIGHTS in old:
        logs = old[WEIGHTS][:known]
        factors = np.exp(logs)
        rows, sums = [], []
        for p in pieces:
            total = factors[p].sum()
            rows.append((factors[p] * table[p]).sum(0) / total if p else table.mean(0))
            sums.append(np.log(total) if p else logs.mean())
        np.testing.assert_allclose(new.pop(WEIGHTS)[:, 0], sums, atol=1e-6)
    else:
        rows = [table[p].mean(0) if p else table.mean(0) for p in pieces]
    np.testing.assert_allclose(new.pop(TABLE), rows, atol=1e-6)
    for path in new:
        np.testing.assert_array_equal(new[path], old[path])


# === Rows ===


@pytest.mark.parametrize("pooling", ["mean", "weighted_mean"])
def test_rows_of_a_wordpiece_teacher(pooling) -> None:
    teacher = wordpiece_teacher(pooling=pooling)
    student, per_token, unknown = trimming.transfer_vocabulary(
        teacher, WordPieceTokenizer(STUDENT)
    )
    check_rows(teacher, student, PIECES, len(TEACHER))
    assert unknown == ["☃", "##y☃"]
    counts = [len(p) for p in PIECES if p]
    assert per_token == pytest.approx(np.mean(counts))
    assert student.text_preprocessor().sequence_length == 12


def test_rows_of_a_sentencepiece_teacher(tmp_path) -> None:
    pieces = trimming.sentencepiece_pieces(write_unigram(tmp_path))
    # As in XLM-RoBERTa, the table has rows without a token.
    teacher = random_model(len(UNIGRAM) + 3)
    student, _, unknown = trimming.transfer_vocabulary(
        teacher, WordPieceTokenizer(STUDENT), pieces=pieces, sequence_length=9
    )
    check_rows(teacher, student, UNIGRAM_PIECES, len(UNIGRAM))
    assert unknown == ["[MASK]", "☃"]
    assert student.text_preprocessor().sequence_length == 9


def test_the_teacher_reads_tokens_as_it_reads_text() -> None:
    """An uncased teacher lowercases the student's tokens and removes accents."""
    teacher = wordpiece_teacher(settings={"lowercase": True})
    tokens = [*SPECIAL, "SUN", "##Ný", "sún"]
    student = trimming.transfer_vocabulary(teacher, WordPieceTokenizer(tokens)).model
    check_rows(teacher, student, [[i] for i in (*range(5), 5, 6, 5)], len(TEACHER))


def test_the_same_vocabulary_gives_the_same_model() -> None:
    teacher = wordpiece_teacher(pooling="weighted_mean")
    same = WordPieceTokenizer(TEACHER)
    student = trimming.transfer_vocabulary(teacher, same).model
    old, new = weights_of(teacher), weights_of(student)
    for path in old:
        np.testing.assert_allclose(new[path], old[path], atol=1e-6)


def test_pieces_of_another_table() -> None:
    pieces = trimming.wordpiece_pieces(WordPieceTokenizer(TEACHER))
    teacher = random_model(len(TEACHER) - 1)
    tokenizer = WordPieceTokenizer(STUDENT)
    with raises(ValueError, argument="pieces", received=len(TEACHER)):
        trimming.transfer_vocabulary(teacher, tokenizer, pieces=pieces)
    with raises(ValueError, "preprocessor", received=None):
        trimming.transfer_vocabulary(teacher, tokenizer)


# === Blocks and positions ===


@pytest.mark.parametrize(
    "layers, kept", [(2, [0, 1]), ([1, 2], [1, 2]), ((0, 2), [0, 2]), (0, [])]
)
def test_blocks_that_are_kept(layers, kept) -> None:
    teacher = wordpiece_teacher(layers=3)
    student = trimming.keep_layers(teacher, layers)
    assert student.backbone.num_layers == len(kept)
    old, new = weights_of(teacher), weights_of(student)
    for path, value in new.items():
        for i, number in enumerate(kept):
            path = path.replace(f"layer_{i}/", f"layer_<{number}>/")
        path = path.replace("<", "").replace(">", "")
        np.testing.assert_array_equal(value, old[path])
    assert sum("layer_0/" in path for path in old) * len(kept) == sum(
        "transformer_layer" in path for path in new
    )


@pytest.mark.parametrize("layers", [4, -1, [0, 3], [1, 0], [0, 0], [-1]])
def test_blocks_that_do_not_exist(layers) -> None:
    with raises(ValueError, argument="layers", received=True):
        trimming.keep_layers(wordpiece_teacher(layers=3), layers)


def test_fewer_positions_give_the_same_vectors() -> None:
    teacher = wordpiece_teacher()
    student = trimming.keep_positions(teacher, 6)
    assert student.backbone.max_sequence_length == 6
    assert student.text_preprocessor().sequence_length == 6
    texts = ["sunny moon !", "", "day"]
    np.testing.assert_allclose(student.encode(texts), teacher.encode(texts), atol=1e-6)
    for wrong in (2, 17):
        with raises(ValueError, argument="max_sequence_length", received=wrong):
            trimming.keep_positions(teacher, wrong)


# === The command ===


def test_shrink_a_sentencepiece_teacher(unigram_teacher, tmp_path, capsys) -> None:
    vocabulary, output = tmp_path / "vocab.txt", tmp_path / "student"
    save_vocabulary(STUDENT, vocabulary)
    words = ("--vocab", vocabulary, "--lowercase", "--no-strip-accents")
    short = ("--sequence-length", 7, "--max-sequence-length", 8)
    report = tmp_path / "report.json"
    words = (*words, *short, "--keep-layers", 1, "-o", output, "--json", report)
    assert not run("shrink", unigram_teacher, *words)
    teacher = checkpoints.from_huggingface(unigram_teacher, preprocessor=None)
    teacher = trimming.keep_positions(trimming.keep_layers(teacher, 1), 8)
    student = LaBSE.from_preset(output)
    check_rows(teacher, student, UNIGRAM_PIECES, len(UNIGRAM))
    tokenizer = student.text_preprocessor().tokenizer
    assert tokenizer.vocabulary == STUDENT
    assert tokenizer.lowercase and not tokenizer.strip_accents
    assert student.text_preprocessor().sequence_length == 7
    assert "| layers | 2 | 1 |" in (output / "README.md").read_text()
    found = json.loads(report.read_text())
    assert found["layers"] == [2, 1]
    assert found["unknown"] == ["[MASK]", "☃"]
    assert -1 <= found["agreement"] < 0.999
    assert f"{2:,}" in capsys.readouterr().out


def test_shrink_keeps_the_vocabulary_by_default(tmp_path) -> None:
    wordpiece_teacher(layers=3).save_to_preset(tmp_path / "teacher")
    output = tmp_path / "student"
    assert not run("shrink", tmp_path / "teacher", "--keep-layers", "0,2", "-o", output)
    student = LaBSE.from_preset(output)
    assert student.text_preprocessor().tokenizer.vocabulary == TEACHER
    assert student.backbone.num_layers == 2
    assert student.text_preprocessor().sequence_length == 12


def test_a_student_with_all_blocks_agrees_with_its_teacher(tmp_path) -> None:
    wordpiece_teacher().save_to_preset(tmp_path / "teacher")
    vocabulary = tmp_path / "vocab.txt"
    # The same tokens in another order.
    save_vocabulary([*SPECIAL, *reversed(TEACHER[5:])], vocabulary)
    report = trimming.shrink_preset(
        tmp_path / "teacher", tmp_path / "student", vocabulary=vocabulary
    )
    assert report.agreement == pytest.approx(1, abs=1e-5)
    assert report.unknown == []


def test_errors_of_shrink(unigram_teacher, tmp_path, capsys) -> None:
    teacher, vocabulary = tmp_path / "teacher", tmp_path / "vocab.txt"
    wordpiece_teacher().save_to_preset(teacher)
    save_vocabulary(STUDENT, vocabulary)
    output = ("-o", tmp_path / "student")
    (tmp_path / "full" / "x").mkdir(parents=True)

    def check(arguments, *names, **fields) -> None:
        refuses(capsys, ("shrink", *arguments), *names, **fields)
        assert not (tmp_path / "student").exists()

    check(output, "MODEL", received=True)
    check((teacher, *output), "vocabulary", received=True)
    check((unigram_teacher, "--keep-layers", 1, *output), "--vocab", received=True)
    check((teacher, "--keep-layers", 9, *output), argument="layers", received=9)
    check((teacher, "--lowercase", *output), argument="--vocab", received="--lowercase")
    length = ("--sequence-length", 99)
    check((teacher, *length, *output), argument="sequence_length", received=99)
    missing = tmp_path / "missing.txt"
    check((teacher, "--vocab", missing, *output), "missing.txt")
    with pytest.raises(SystemExit):
        run("shrink", teacher, "--keep-layers", "a,b", *output)
    assert "Received: a,b" in capsys.readouterr().err
    full = ("-o", tmp_path / "full")
    check((teacher, "--keep-layers", 1, *full), received=tmp_path / "full")


def test_other_tokenizers_are_refused(unigram_teacher, tmp_path) -> None:
    folder = tmp_path / "bpe"
    shutil.copytree(unigram_teacher, folder)
    path = folder / "tokenizer.json"
    whole = json.loads(path.read_text())
    whole["model"] = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
    path.write_text(json.dumps(whole))
    with raises(ValueError, "Unigram", path=path, received="BPE"):
        trimming.load_teacher(folder)
    whole["model"] = {"type": "Unigram", "vocab": "?"}
    path.write_text(json.dumps(whole))
    with raises(ValueError, path=path, received=True):
        trimming.load_teacher(folder)
    path.write_text("[]")
    with raises(ValueError, path=path, received=True):
        trimming.load_teacher(folder)
    path.unlink()
    with raises(ValueError, received=True):
        trimming.load_teacher(folder)
