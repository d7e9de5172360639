"""Extending: new tokens, and the same vectors for texts without them."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.command_line import run
from helpers.errors import raises, refuses
from labse_tf import trimming
from labse_tf.layers import POOLINGS
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# "c" and "d" are inside words only as part of "##bc" and "##cd".
TOKENS = [*SPECIAL, "[unused1]", "a", "##a", "ab", "##b", "##bc", "##cd", "b", "!"]
NEW = ["abb", "##ba", "bb", "aba"]
TABLE, WEIGHTS = "token_embedding/embeddings", "token_weights/embeddings"


def make_model(pooling: str = "weighted_mean", **more: object) -> LaBSE:
    backbone = LaBSEBackbone(len(TOKENS), 1, 2, 8, 16, max_sequence_length=16)
    tokenizer = WordPieceTokenizer(TOKENS, **more)
    model = LaBSE(backbone, SentencePreprocessor(tokenizer, 12), pooling=pooling)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def ids_of(model: LaBSE, texts: list[str]) -> list[list[int]]:
    return model.text_preprocessor().tokenizer(texts).to_list()


# === Tokens ===


@pytest.mark.parametrize("pooling", POOLINGS)
def test_new_rows_are_means_and_all_else_is_copied(pooling) -> None:
    model = make_model(pooling)
    extended, added, characters, unknown, present = trimming.extend_vocabulary(
        model, [*NEW, "ab", "abb"]
    )
    assert added == [*NEW, "##c", "##d"]
    assert (characters, unknown, present) == (2, ["##c", "##d"], ["ab"])
    tokenizer = extended.text_preprocessor().tokenizer
    assert tokenizer.vocabulary == [*TOKENS, *added]
    old, new = ({w.path: w.numpy() for w in m.weights} for m in (model, extended))
    pieces = [[8, 9], [9, 7], [12, 9], [8, 7], [], []]
    table, rows = old[TABLE], []
    factors = np.exp(old[WEIGHTS]) if WEIGHTS in old else np.ones((len(TOKENS), 1))
    for p in pieces:
        weighted = (factors[p] * table[p]).sum(0)
        rows.append(weighted / factors[p].sum() if p else table.mean(0))
    np.testing.assert_array_equal(new[TABLE][: len(TOKENS)], table)
    np.testing.assert_allclose(new.pop(TABLE)[len(TOKENS) :], rows, atol=1e-6)
    if WEIGHTS in old:
        logs = [np.log(factors[p].sum()) for p in pieces[:4]]
        logs += [old[WEIGHTS].mean()] * 2
        np.testing.assert_array_equal(new[WEIGHTS][: len(TOKENS)], old[WEIGHTS])
        found = new.pop(WEIGHTS)[len(TOKENS) :, 0]
        np.testing.assert_allclose(found, logs, atol=1e-6)
    for path in new:
        np.testing.assert_array_equal(new[path], old[path])


def check_texts(model: LaBSE, extended: LaBSE, texts: list[str]) -> None:
    """Texts without a new token must have the old ids and the old vectors."""
    old, new = ids_of(model, texts), ids_of(extended, texts)
    same = []
    for text, before, after in zip(texts, old, new, strict=True):
        if all(row < len(TOKENS) for row in after):
            assert after == before, text
            same.append(text)
    if same:
        np.testing.assert_allclose(extended.encode(same), model.encode(same), atol=1e-6)


@pytest.fixture(scope="module")
def models() -> tuple[LaBSE, LaBSE]:
    model = make_model()
    return model, trimming.extend_vocabulary(model, NEW).model


def test_a_new_token_makes_no_word_unknown(models) -> None:
    """Old: ab ##bc. With "abb" but without "##c" it would be [UNK]."""
    texts = ["abbc", "abcd", "bbcd", "ab!", "xyz", "abab a!b"]
    check_texts(*models, texts)
    model, extended = models
    assert ids_of(model, ["abbc"]) == [[8, 10]]
    assert ids_of(extended, ["abbc"]) == [[len(TOKENS), len(TOKENS) + 4]]
    unk = model.text_preprocessor().tokenizer.unk_token_id
    old, new = (ids_of(m, texts) for m in models)
    assert all(unk not in n for o, n in zip(old, new, strict=True) if unk not in o)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abcdx !", max_size=9), min_size=1, max_size=40))
def test_texts_without_new_tokens_keep_their_ids(models, texts) -> None:
    model, extended = models
    old, new = ids_of(model, texts), ids_of(extended, texts)
    for before, after in zip(old, new, strict=True):
        if all(row < len(TOKENS) for row in after):
            assert after == before


@pytest.mark.parametrize(
    "token", ["a b", "a!", "##!", "日本", "[NEW]", "", "Ab", "##é", "##", 7, "a" * 300]
)
def test_tokens_that_cannot_occur(token) -> None:
    model = make_model(lowercase=True)
    with raises(ValueError, argument="tokens", received=repr(token)[:80]):
        trimming.extend_vocabulary(model, ["abb", token])


def test_nothing_new() -> None:
    with raises(ValueError, argument="tokens", received=2):
        trimming.extend_vocabulary(make_model(), ["ab", "[CLS]"])


# === Choice ===


def test_tokens_that_save_most_are_chosen() -> None:
    tokenizer = make_model().text_preprocessor().tokenizer
    counts = {"xx": Counter({"abaa": 50, "ab": 500, "baa": 5, "aaaa": 2, "b": 9})}
    chosen = trimming.choose_new_tokens(tokenizer, counts, 2)
    assert chosen[0] == "abaa" and len(chosen) == 2
    assert trimming.choose_new_tokens(tokenizer, counts, 99, min_count=60) == []
    # "ab" is the most frequent word, but it is a token.
    assert "ab" not in trimming.choose_new_tokens(tokenizer, counts, 99)


def test_a_character_that_the_model_lacks_is_worth_a_token() -> None:
    tokenizer = make_model().text_preprocessor().tokenizer
    counts = {"xx": Counter({"z": 30, "aa": 20})}
    assert trimming.choose_new_tokens(tokenizer, counts, 1) == ["z"]


@pytest.mark.parametrize("wrong", [{"number": 0}, {"number": 2, "min_count": 0}])
def test_numbers_that_are_not_positive(wrong) -> None:
    tokenizer = make_model().text_preprocessor().tokenizer
    name = min(wrong, key=wrong.get)
    with raises(ValueError, argument=name, received=0):
        trimming.choose_new_tokens(tokenizer, {"xx": {"a": 1}}, **wrong)


# === The command ===


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extend") / "preset"
    make_model().save_to_preset(folder, storage="int8")
    return folder


def test_extend_by_a_file(preset, tmp_path, capsys) -> None:
    tokens, output = tmp_path / "tokens.txt", tmp_path / "new"
    tokens.write_text("abb\nab\n##ba\n", encoding="utf-8")
    report = tmp_path / "report.json"
    words = ("--tokens", tokens, "-o", output, "--json", report, "--storage", "int8")
    assert not run("extend", preset, *words)
    old, new = (LaBSE.from_preset(folder) for folder in (preset, output))
    tokenizer = new.text_preprocessor().tokenizer
    assert tokenizer.vocabulary[: len(TOKENS)] == TOKENS
    assert tokenizer.vocabulary[len(TOKENS) :] == ["abb", "##ba", "##c", "##d"]
    # Rows in int8 stay the same in int8.
    texts = ["ab!", "a", "b b ab"]
    np.testing.assert_array_equal(new.encode(texts), old.encode(texts))
    found = json.loads(report.read_text())
    assert found["tokens"] == [len(TOKENS), len(TOKENS) + 4]
    assert found["present"] == 1
    assert found["storage"] == "int8"
    assert found["sample"]["same_difference"] < 1e-6
    assert found["parity"] == {}
    assert "more tokens" in (output / "README.md").read_text()
    assert "already had: 1" in capsys.readouterr().out


def test_extend_from_text(preset, tmp_path, capsys) -> None:
    text, output = tmp_path / "news.txt", tmp_path / "new"
    text.write_text("".join(f"abaa a{'b' * i} abaa\n" for i in range(60)))
    words = ("--vocab-from", f"as={text}", "--add", 1, "-o", output)
    assert not run("extend", preset, *words)
    new = LaBSE.from_preset(output).text_preprocessor().tokenizer
    assert new.vocabulary[len(TOKENS)] == "abaa"
    assert new(["abaa"]).to_list() == [[len(TOKENS)]]
    assert "Assamese" in capsys.readouterr().out


def test_errors_of_extend(preset, tmp_path, capsys) -> None:
    tokens, text = tmp_path / "tokens.txt", tmp_path / "as.txt"
    output = ("-o", tmp_path / "new")
    text.write_text("aba aba\n")

    def check(arguments, *names, **fields) -> None:
        refuses(capsys, ("extend", *arguments, *output), *names, **fields)
        assert not (tmp_path / "new").exists()

    for content, line in (("abb\na b\n", 2), ("abb\nbb\nabb\n", 3), ("abb\n\nb", 2)):
        tokens.write_text(content)
        check((preset, "--tokens", tokens), path=tokens, line=line, received=True)
    tokens.write_text("ab\n")
    check((preset, "--tokens", tokens), argument="tokens", received=1)
    check(("--tokens", tokens), "MODEL", received=True)
    check((preset, "--vocab-from", text), argument="--add", received=None)
    check((preset, "--tokens", tokens, "--add", 3), argument="--add", received=3)
    check((preset, "--vocab-from", text, "--add", 0), argument="number", received=0)
    check((tmp_path / "none", "--tokens", tokens), "none")
