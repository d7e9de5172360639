"""Trimming: kept rows are the old ones, kept sentences keep their vectors."""

from __future__ import annotations

import dataclasses
import errno
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.errors import Fields, raises
from labse_tf import cli, presets, trimming
from labse_tf.data.cleaning.characters import SCRIPTS, character_scripts
from labse_tf.layers import POOLINGS
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SAMPLE = presets.shipped_directory() / "sample"

# [PAD] first and the others behind unused ones, as in LaBSE; pieces of two languages
# in Latin letters, of Hindi, Tamil and Chinese, digits and signs.
TOKENS = [
    "[PAD]",
    *(f"[unused{i}]" for i in range(1, 5)),
    *SPECIAL[1:],
    *"sun moon sunny lune soleil s ##u ##n ##ny m ##o u n o y ##y".split(),
    *"दिन रात द ##ि ##न र ##ा ##त".split(),
    *"நாள் ந ##ா ##ள ##்".split(),
    *"日 月 1 ##1 ! । 1990 ##é é".split(),
]


def make_model(
    pooling: str = "weighted_mean",
    layers: int = 1,
    hidden_dim: int = 8,
    **more: object,
):
    """A model with every weight random, so that none can be taken for another."""
    backbone = LaBSEBackbone(
        len(TOKENS), layers, 2, hidden_dim, 16, max_sequence_length=16
    )
    tokenizer = WordPieceTokenizer(TOKENS, **more)
    model = LaBSE(backbone, SentencePreprocessor(tokenizer, 12), pooling=pooling)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def kept_tokens(ids) -> set[str]:
    return {TOKENS[i] for i in ids} - set(SPECIAL)


@pytest.fixture(scope="module")
def preset(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trim") / "preset"
    make_model().save_to_preset(folder)
    return folder


# === Tokens that survive give identical vectors ===


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layers", [0, 2])
def test_sentences_whose_tokens_stay_keep_their_vectors(pooling, layers) -> None:
    model = make_model(pooling, layers)
    texts = ["sun moon", "sunny 1990!", "दिन रात।", "m1 soon", ""]
    # "soon" and "m1" are spelled in pieces.
    trimmed = trimming.trim(model, {"en": texts[:2] + texts[3:], "hi": [texts[2]]})
    assert trimmed.backbone.vocabulary_size < len(TOKENS)
    np.testing.assert_allclose(trimmed.encode(texts), model.encode(texts), atol=1e-6)
    # A lost piece gives another vector: the equality above could fail. (Without blocks
    # [CLS] knows nothing of the others.)
    if layers or "mean" in pooling:
        lost = np.abs(trimmed.encode("lune") - model.encode("lune"))
        assert lost.max() > 1e-4


def test_kept_rows_are_the_old_ones_and_all_else_is_copied() -> None:
    model = make_model()
    ids = np.array([0, 5, 6, 7, 8, 10, 12, 30, 41])
    trimmed = trimming.keep_tokens(model, ids)
    assert trimmed.preprocessor.tokenizer.vocabulary == [TOKENS[i] for i in ids]
    old = {w.path: w.numpy() for w in model.weights}
    new = {w.path: w.numpy() for w in trimmed.weights}
    assert old.keys() == new.keys()
    rows = [path for path in old if old[path].shape != new[path].shape]
    assert rows == ["token_embedding/embeddings", "token_weights/embeddings"]
    for path in old:
        np.testing.assert_array_equal(
            new[path], old[path][ids] if path in rows else old[path]
        )
    # The old model is as it was.
    np.testing.assert_array_equal(
        old["token_embedding/embeddings"], model.backbone.token_embedding.embeddings
    )


def test_a_table_of_as_many_rows_as_there_are_positions() -> None:
    """V = 16 positions: sizes alone do not tell the tables apart."""
    tokens = [*SPECIAL, *"abcdefghijk"]
    backbone = LaBSEBackbone(16, 1, 2, 8, 16, max_sequence_length=16)
    preprocessor = SentencePreprocessor(WordPieceTokenizer(tokens), 16)
    model = LaBSE(backbone, preprocessor)
    trimmed = trimming.keep_tokens(model, [0, 1, 2, 3, 4, 9, 15])
    np.testing.assert_allclose(trimmed.encode("e k"), model.encode("e k"), atol=1e-6)
    assert trimmed.backbone.get_config()["max_sequence_length"] == 16


def test_settings_stay() -> None:
    model = make_model(lowercase=True, strip_accents=False)
    backbone = LaBSEBackbone(
        len(TOKENS), 1, 2, 8, 16, "gelu_approximate", 0.3, 20, 3, dtype="bfloat16"
    )
    preprocessor = SentencePreprocessor(model.preprocessor.tokenizer, 9, pad="fixed")
    model = LaBSE(backbone, preprocessor, pooling="cls")
    trimmed = trimming.trim(model, {"en": ["SUN"]})
    old, new = (m.backbone.get_config() for m in (model, trimmed))
    assert {k for k in old if old[k] != new[k]} == {"vocabulary_size"}
    assert trimmed.backbone.compute_dtype == "bfloat16"
    assert trimmed.pooling == "cls"
    assert trimmed.preprocessor.sequence_length == 9
    assert trimmed.preprocessor.pad == "fixed"
    old, new = (m.preprocessor.tokenizer.get_config() for m in (model, trimmed))
    assert {k for k in old if old[k] != new[k]} <= {"vocabulary", "name"}
    assert new["lowercase"]
    assert not new["strip_accents"]
    assert "sun" in new["vocabulary"]


# Few letters and many pieces of up to three, so that pieces overlap in all ways.
_PIECE = st.text("ab", min_size=1, max_size=3)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.sets(_PIECE, min_size=1, max_size=8),
    st.sets(_PIECE, min_size=1, max_size=8),
    st.lists(st.text("ab ", max_size=12), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_text_whose_pieces_survive_keeps_its_tokens(
    starts: set[str], insides: set[str], texts: list[str], rng: random.Random
) -> None:
    """The longest match among fewer pieces is the same while it is among them."""
    # The op needs a token beside the special ones.
    pieces = [*sorted(starts), *sorted(f"##{piece}" for piece in insides)]
    tokens = [*SPECIAL, "!", *pieces]
    tokenizer = WordPieceTokenizer(tokens)
    whole = [
        (text, [tokens[i] for i in row])
        for text, row in zip(texts, tokenizer(texts).to_list(), strict=True)
        if tokenizer.unk_token_id not in row
    ]
    texts, before = [text for text, _ in whole], [row for _, row in whole]
    used = {token for row in before for token in row}
    fewer = [t for t in tokens if t in tokens[:6] or t in used or rng.random() < 0.3]
    after = WordPieceTokenizer(fewer)(texts).to_list()
    assert [[fewer[i] for i in row] for row in after] == before


def test_a_word_without_a_spelling_may_gain_one() -> None:
    """Why the report compares ids and does not look for [UNK]s that stay."""
    tokens = [*SPECIAL, "ab", "a", "##bc"]
    assert WordPieceTokenizer(tokens)(["abc"]).to_list() == [[1]]
    fewer = [token for token in tokens if token != "ab"]
    assert WordPieceTokenizer(fewer)(["abc"]).to_list() == [[5, 6]]
    backbone = LaBSEBackbone(len(tokens), 0, 2, 8, 16)
    model = LaBSE(backbone, SentencePreprocessor(WordPieceTokenizer(tokens)), "mean")
    trimmed = trimming.keep_tokens(model, [0, 1, 2, 3, 4, 6, 7])
    found = trimming.compare(model, trimmed, {"en": ["abc"]}, progress=False)["en"]
    assert found.same == 0
    assert found.unk_rate == (1.0, 0.0)


# === Which tokens ===


@pytest.fixture(scope="module")
def tokenizer() -> WordPieceTokenizer:
    return WordPieceTokenizer(TOKENS)


def test_tokens_of_the_text(tokenizer) -> None:
    text = {"en": ["sun sun moon", "suny"], "hi": ["दिन sun"]}
    ids = trimming.choose_tokens(tokenizer, text, keep_characters=False)
    assert (np.diff(ids) > 0).all()
    assert kept_tokens(ids) == {"sun", "moon", "##y", "दिन"}
    assert set(SPECIAL) <= {TOKENS[i] for i in ids}
    ids = trimming.choose_tokens(tokenizer, text, min_count=2, keep_characters=False)
    assert kept_tokens(ids) == {"sun"}


def test_characters_of_the_languages_and_of_the_text(tokenizer) -> None:
    latin = {*"s m u n o y é ##u ##n ##o ##y ##é".split()}
    signs = {"1", "##1", "!", "।"}
    hindi = {*"द ##ि ##न र ##ा ##त".split()}
    tamil = {*"ந ##ா ##ள ##்".split()}
    # Hindi by the table, though this Hindi is written in Latin letters.
    ids = trimming.choose_tokens(tokenizer, {"hi": ["sun"]})
    assert kept_tokens(ids) == {"sun"} | latin | signs | hindi
    # A language that the table lacks: by its text.
    ids = trimming.choose_tokens(tokenizer, {"xx": ["நாள்"]})
    assert kept_tokens(ids) == {"நாள்"} | latin | signs | tamil
    # One Chinese word in a thousand letters brings itself and no other.
    ids = trimming.choose_tokens(tokenizer, {"en": ["sun moon"] * 200 + ["日"]})
    assert kept_tokens(ids) == {"sun", "moon", "日"} | latin | signs
    ids = trimming.choose_tokens(tokenizer, {"en": ["sun moon"] * 2 + ["日"]})
    assert kept_tokens(ids) == {"sun", "moon", "日", "月"} | latin | signs


def test_tokens_of_scripts(tokenizer) -> None:
    hindi = {token for token in TOKENS if any("ऀ" <= c <= "ॿ" for c in token)}
    assert "रात" in hindi
    assert "।" in hindi
    signs = {"1", "##1", "!", "।", "1990"}
    alone = trimming.choose_tokens(
        tokenizer, languages=["Hindi"], keep_characters=False
    )
    assert kept_tokens(alone) == hindi | signs
    # Names in Latin letters can still be spelled.
    ids = trimming.choose_tokens(tokenizer, languages=["hin"])
    latin = {*"s m u n o y é ##u ##n ##o ##y ##é".split()}
    assert kept_tokens(ids) == hindi | signs | latin
    # Scripts cannot tell French from English.
    ids = trimming.choose_tokens(tokenizer, languages=["hi", "en"])
    assert {"sunny", "soleil"} <= kept_tokens(ids)
    assert not {"日", "நாள்"} & kept_tokens(ids)
    ids = trimming.choose_tokens(tokenizer, languages=["zh-Hant", "sr-Latn"])
    assert {"日", "月", "sunny"} <= kept_tokens(ids)
    assert not hindi - signs & kept_tokens(ids)
    assert not any("unused" in token for token in kept_tokens(ids))


def test_characters_have_scripts() -> None:
    scripts = character_scripts()
    for text, script in (
        ("aéªﬁＡ", "Latn"),
        ("हि०ॐ", "Deva"),
        ("漢〇", "Hani"),
        ("ひ", "Hira"),
        ("アｱ", "Kana"),
        ("한", "Hang"),
        ("ا٣۳", "Arab"),
        ("𐬀", "Avst"),
    ):
        found = {SCRIPTS[scripts[ord(c)] - 1] for c in text if scripts[ord(c)]}
        assert found == {script}, text
    # Digits, punctuation, symbols and marks that every script uses.
    assert not scripts[[ord(c) for c in "1 .!।€+\u0301\u200d漢"[:-1]]].any()


def test_arguments_are_checked(tokenizer) -> None:
    choose = trimming.choose_tokens
    for arguments, message in (
        ({}, Fields(received="neither")),
        ({"texts": {"en": ["a"]}, "languages": ["en"]}, Fields(received="both")),
        ({"languages": []}, Fields(argument="languages")),
        ({"languages": ["hindu"]}, Fields("Hindi")),
        ({"languages": ["xx"]}, Fields("'xx'")),
        ({"texts": {"en": ["sun"]}, "min_count": 0}, Fields(received=0)),
        ({"texts": {"en": ["ж ж"], "hi": []}}, Fields("en", "hi", received=True)),
        ({"texts": {}}, Fields(received=True)),
        (
            {"texts": {"en": ["sun"]}, "min_count": 2, "keep_characters": False},
            Fields("min_count=2", "keep_characters=False"),
        ),
    ):
        with raises(ValueError, message):
            choose(tokenizer, **arguments)
    model = make_model()
    special = [0, 5, 6, 7, 8]
    for ids, message in (
        ([*special, 10, 10], Fields("ascending")),
        ([*special, len(TOKENS)], Fields("ascending")),
        ([-1, *special], Fields("ascending")),
        (np.array([*special, 9.0]), Fields("integers")),
        ([], Fields("integers")),
        ([0, 5, 6, 8, 9], Fields("[SEP]")),
    ):
        with raises(ValueError, message):
            trimming.keep_tokens(model, ids)
    with raises(ValueError, "preprocessor=None"):
        trimming.trim(LaBSE(model.backbone), {"en": ["sun"]})


# === What it cost ===


def test_the_comparison_by_hand() -> None:
    model = make_model("mean")
    # Without an unused one too, so that all ids behind it are others.
    gone = ("[unused1]", "sunny", "moon", "o")
    kept = [i for i, token in enumerate(TOKENS) if token not in gone]
    trimmed = trimming.keep_tokens(model, kept)
    # sunny -> sun ##ny; moon -> m ##o ##o ##n; o -> [UNK]
    texts = ["sun sun", "sunny moon", "o sun", "sunny"]
    found = trimming.compare(model, trimmed, {"en": texts, "hi": []}, progress=False)
    assert list(found) == ["en"]
    result = found["en"]
    assert result.sentences == 4
    assert result.tokens_per_word == (7 / 7, (2 + 6 + 2 + 2) / 7)
    assert result.unk_rate == (0, 1 / 12)
    assert result.same == 1 / 4
    assert result.same_difference < 1e-6
    cosines = (model.encode(texts) * trimmed.encode(texts)).sum(axis=1)[1:]
    assert result.rest_mean_cosine == pytest.approx(cosines.mean(), abs=1e-5)
    assert result.rest_lowest_cosine == pytest.approx(cosines.min(), abs=1e-5)
    assert result.mean_cosine == pytest.approx((1 + cosines.sum()) / 4, abs=1e-5)
    # What makes the difference is measured and not supposed.
    table = trimmed.backbone.token_embedding.embeddings
    table.assign(table.numpy() * np.linspace(1, 2, len(kept))[:, None])
    changed = trimming.compare(model, trimmed, {"en": texts}, progress=False)["en"]
    assert changed.same == 1 / 4
    assert changed.same_difference > 1e-3
    # Each model has tokens that the other does not have.
    other = trimming.keep_tokens(model, [*range(11)])
    with raises(ValueError, "'lune'", argument="model"):
        trimming.compare(other, trimmed, {"en": texts}, progress=False)
    none = trimming.compare(model, model, {"en": texts}, progress=False)["en"]
    assert none.same == 1
    assert none.rest_mean_cosine is none.rest_lowest_cosine is None


def test_a_sentence_is_compared_as_far_as_the_model_reads_it() -> None:
    model = make_model()
    kept = [i for i, token in enumerate(TOKENS) if token != "moon"]
    text = "sun " * 10 + "moon"  # 12 tokens a row, two of them [CLS] and [SEP]
    found = trimming.compare(
        model, trimming.keep_tokens(model, kept), {"en": [text]}, progress=False
    )["en"]
    assert found.same == 1
    assert found.tokens_per_word == (1, 14 / 11)


# === Files to a preset ===


def write_pairs(path: Path, rows: list[tuple[str, str]]) -> Path:
    text = "".join(f"{source}\t{target}\n" for source, target in rows)
    path.write_text(text, encoding="utf-8")
    return path


def numbers_preset(folder: Path, count: int) -> Path:
    """A preset with a token for each number; a sentence a token."""
    tokens = [*SPECIAL, *(f"t{i}" for i in range(count))]
    backbone = LaBSEBackbone(len(tokens), 0, 2, 8, 16)
    preprocessor = SentencePreprocessor(WordPieceTokenizer(tokens))
    LaBSE(backbone, preprocessor, "mean").save_to_preset(folder)
    return folder


def test_held_out_text_chooses_no_tokens(tmp_path) -> None:
    source = numbers_preset(tmp_path / "source", 400)
    rows = [(f"t{i}", f"t{i + 200}") for i in range(200)]
    # A sentence of both languages that is held out in one is used in neither.
    rows[0] = ("t0", "t0")
    path = write_pairs(tmp_path / "en-hi.tsv", rows)
    report = trimming.trim_preset(source, tmp_path / "first", files=path)
    assert {code: found.sentences for code, found in report.parity.items()} == {
        "en": 10,
        "hi": 10,
    }
    assert all(found.unk_rate == (0, 1) for found in report.parity.values())
    assert report.tokens == (405, 5 + 399 - 20)
    first = (tmp_path / "first" / presets.VOCABULARY).read_bytes()
    random.Random(1).shuffle(rows)
    write_pairs(path, rows)
    trimming.trim_preset(source, tmp_path / "second", files=path)
    assert (tmp_path / "second" / presets.VOCABULARY).read_bytes() == first
    # Other text to measure on: all of the corpus is used.
    other = write_pairs(tmp_path / "en-hi.test.tsv", [("t1", "t201"), ("t2", "t202")])
    report = trimming.trim_preset(
        source, tmp_path / "third", files=path, held_out=other, language="hi"
    )
    assert report.tokens[1] == 5 + 399
    assert {found.sentences for found in report.parity.values()} == {2}
    assert {found.same for found in report.parity.values()} == {1}


def test_at_most_a_thousand_sentences_are_held_out(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(trimming.sentences, "HELD_OUT_MOST", 7)
    source = numbers_preset(tmp_path / "source", 200)
    path = tmp_path / "hi.txt"
    path.write_text("".join(f"t{i}\n" for i in range(200)))
    report = trimming.trim_preset(source, tmp_path / "out", files=path)
    assert report.parity["hi"].sentences == 7
    assert report.tokens[1] == 5 + 193


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, {"t1", "t2", "t3", "t4", "t5", "t6"}),
        ({"languages": ["hin"]}, {"t1", "t2", "t3"}),
        ({"languages": ["hi"], "english": False}, {"t2"}),
        ({"english": False}, {"t2", "t4", "t6"}),
        # The regional file is of the language.
        ({"languages": ["zh"]}, {"t3", "t5", "t6"}),
    ],
)
def test_languages_of_a_corpus(tmp_path, options, kept) -> None:
    source = numbers_preset(tmp_path / "source", 7)
    folder = tmp_path / "corpus"
    folder.mkdir()
    write_pairs(folder / "en-hi.tsv", [("t1", "t2"), ("t3", "t2")])
    write_pairs(folder / "en-ta.tsv", [("t3", "t4")])
    write_pairs(folder / "en-zh_CN.tsv", [("t3", "t6"), ("t5", "t6")])
    other = write_pairs(tmp_path / "en-xx.tsv", [("a", "b")])
    needed = {"held_out": folder} | options
    trimming.trim_preset(source, tmp_path / "out", files=folder, **needed)
    tokens = (tmp_path / "out" / presets.VOCABULARY).read_text().split()
    assert set(tokens) - set(SPECIAL) == kept
    with raises(ValueError, "Tamil", received=2):
        trimming.trim_preset(
            source,
            tmp_path / "no",
            files=[folder / "en-hi.tsv", other],
            languages=["ta"],
        )
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("storage", presets.STORAGES)
def test_storage_stays_unless_another_is_asked_for(tmp_path, storage) -> None:
    source = tmp_path / "source"
    make_model(hidden_dim=32).save_to_preset(source, storage=storage)
    texts = {"en": ["sun moon", "sunny 1990!"]}
    path = tmp_path / "en.txt"
    path.write_text("sun moon\nsunny 1990!\n", encoding="utf-8")
    out = tmp_path / "out"
    report = trimming.trim_preset(source, out, files=path, held_out=path)
    assert report.storage == storage
    assert presets.read_config(out)["storage"] == storage
    # Rounded once, rows are rounded to themselves.
    assert report.parity["en"].same == 1
    assert report.parity["en"].same_difference < 1e-6
    np.testing.assert_allclose(
        LaBSE.from_preset(out).encode(texts["en"]),
        LaBSE.from_preset(source).encode(texts["en"]),
        atol=1e-6,
    )
    again = trimming.trim_preset(
        source, tmp_path / "int8", files=path, held_out=path, storage="int8"
    )
    assert again.storage == "int8"
    # Measured on what was written, rounding included.
    assert (again.parity["en"].same_difference > 1e-5) == (storage != "int8")


def test_the_shipped_model_through_the_command(tmp_path, capsys) -> None:
    """labse-nano to three languages and English, from the sample's few lines."""
    out, report = tmp_path / "small", tmp_path / "report.json"
    files = [str(SAMPLE / f"en-{code}.tsv") for code in ("hi", "bn", "ta")]
    arguments = ["trim", "labse-nano", "--corpus", *files, "-o", str(out)]
    assert cli.main([*arguments, "--json", str(report)]) == 0
    printed = capsys.readouterr().out
    result = json.loads(report.read_text(encoding="utf-8"))
    before, after = result["tokens"]
    assert before == 64_000
    assert after < 4_000
    assert f"{after:,}" in printed
    assert {*result["parity"]} == {*result["languages"]} == {"bn", "en", "hi", "ta"}
    assert result["bytes"][1] == sum(
        (out / name).stat().st_size
        for name in (presets.CONFIG, presets.VOCABULARY, presets.WEIGHTS)
    )
    assert result["bytes"][1] < result["bytes"][0] / 10
    # Unseen words are spelled: nothing becomes [UNK]. Where the shipped file has only
    # its token table in int8, saving rounds the position table as well.
    LaBSE.from_preset("labse-nano").save_to_preset(tmp_path / "nano", storage="int8")
    old, new = LaBSE.from_preset(tmp_path / "nano"), LaBSE.from_preset(out)
    assert result["parameters"] == [old.count_params(), new.count_params()]
    unseen = ["Parliament adjourned", "संसद स्थगित", "সংসদ মুলতবি", "பாராளுமன்றம்"]
    tokenizer = new.preprocessor.tokenizer
    assert tokenizer.unk_token_id not in tokenizer(unseen).values.numpy()
    # Chinese is gone.
    assert tokenizer.unk_token_id in tokenizer(["火车站"]).values.numpy()
    lines = (SAMPLE / "en-hi.tsv").read_text(encoding="utf-8").splitlines()
    hindi = [line.split("\t")[1] for line in lines]
    difference = np.abs(old.encode(hindi) - new.encode(hindi)).max(axis=1)
    # All but the sentence that was held out, whose words no other line may have.
    # labse-nano has float16 for all but its token table, which int8 rounds.
    assert (difference < 2e-3).sum() >= len(hindi) - 1
    card = (out / presets.CARD).read_text(encoding="utf-8")
    config = presets.shipped_directory() / "labse-nano" / presets.CONFIG
    for part in (
        "labse-nano",
        presets.sha256(config),
        "Bengali, English, Hindi, Tamil",
        f"| 64,000 | {after:,} |",
        "| Tamil | 1 |",
    ):
        assert part in card


def test_languages_without_text_through_the_command(tmp_path, capsys, preset) -> None:
    out = tmp_path / "small"
    arguments = ["trim", str(preset), "--languages", "hi", "ta", "-o", str(out)]
    assert cli.main([*arguments, "--no-english"]) == 0
    printed = capsys.readouterr().out
    assert "Hindi" in printed
    assert "English" not in printed
    vocabulary = (out / presets.VOCABULARY).read_text(encoding="utf-8").split()
    assert {"रात", "நாள்", "1990", "s"} <= set(vocabulary)
    assert not {"sunny", "日"} & set(vocabulary)
    # A language that the sample lacks.
    other = tmp_path / "other"
    arguments = ["trim", str(preset), "--languages", "or", "--no-english"]
    assert cli.main([*arguments, "-o", str(other)]) == 0
    assert "Odia" in capsys.readouterr().out
    assert LaBSE.from_preset(other).encode("1990").shape == (8,)


# === Bad input ===


def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path, capsys, preset, monkeypatch
) -> None:
    hindi = write_pairs(tmp_path / "en-hi.tsv", [("sun", "दिन"), ("moon", "रात")])
    latin1 = tmp_path / "en-ta.tsv"
    latin1.write_bytes("sun\tsol\nmoon\tlun\xe9\n".encode("latin-1"))
    foreign = write_pairs(tmp_path / "en-ru.tsv", [("жж", "жж"), ("ж", "ж")])
    empty = tmp_path / "bn.txt"
    empty.write_text("")
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("mine")
    out = tmp_path / "out"
    there = sorted(tmp_path.rglob("*"))
    for arguments, parts in (
        ([preset, "-o", out], ["--corpus", "--languages"]),
        ([preset, "--corpus", hindi, "-o", full], ["Received: ", "full"]),
        ([preset, "--corpus", hindi, "-o", hindi], ["en-hi.tsv"]),
        ([preset, "--corpus", hindi, "-o", hindi / "x"], ["en-hi.tsv"]),
        ([tmp_path, "--corpus", hindi, "-o", out], ["config.json"]),
        (["labse-giant", "--corpus", hindi, "-o", out], ["labse-nano", "giant"]),
        ([preset, "--corpus", tmp_path / "none.tsv", "-o", out], ["none.tsv"]),
        ([preset, "--corpus", latin1, "-o", out], ["en-ta.tsv:2", "UTF-8"]),
        ([preset, "--corpus", empty, "-o", out], ["bn.txt", "Received: "]),
        ([preset, "--corpus", foreign, "-o", out], ["Received: "]),
        (
            [preset, "--corpus", hindi, "--languages", "ta", "-o", out],
            ["Tamil", "Received: 1"],
        ),
        ([preset, "--languages", "hindu", "-o", out], ["'hindu'", "Hindi"]),
        ([preset, "--languages", "xx", "-o", out], ["'xx'"]),
        ([preset, "--corpus", hindi, "--min-count", 0, "-o", out], ["min_count"]),
        (
            [preset, "--corpus", hindi, "--held-out", latin1, "-o", out],
            ["en-ta.tsv:2"],
        ),
    ):
        capsys.readouterr()
        assert cli.main(["trim", *map(str, arguments)]) == 2, arguments
        told = capsys.readouterr()
        # Long work announces itself; the error is the last line, and one.
        lines = [
            line
            for line in told.err.splitlines()
            if not line.startswith(("Reading (", "Comparing old"))
        ]
        assert len(lines) == 1, told.err
        assert lines[0].startswith("labse-tf: ")
        assert all(part in lines[0] for part in parts), lines[0]
        assert told.out == ""
        assert sorted(tmp_path.rglob("*")) == there, arguments

    def full_disk(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", "model.weights.h5")

    monkeypatch.setattr(presets, "write_weights", full_disk)
    assert cli.main(["trim", str(preset), "--corpus", str(hindi), "-o", str(out)]) == 2
    assert "model.weights.h5" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == there


def test_bad_lines_can_be_skipped(tmp_path, capsys, preset) -> None:
    path = tmp_path / "en-hi.tsv"
    path.write_text("sun\tदिन\nno tab\nmoon\tरात\n", encoding="utf-8")
    arguments = ["trim", str(preset), "--corpus", str(path), "--on-error", "skip"]
    assert cli.main([*arguments, "-o", str(tmp_path / "out")]) == 0
    assert "skipped 1" in capsys.readouterr().err


# === Memory ===


def memory_in_use(key: str) -> float:
    """MB of this process: VmRSS now, VmHWM at most since the peak was reset."""
    lines = dict(
        line.split(":", 1)
        for line in Path("/proc/self/status").read_text().splitlines()
    )
    return int(lines[key].split()[0]) / 1e3


def test_the_token_table_is_not_copied(tmp_path) -> None:
    """Trimming a table of 123 MB to a hundredth takes nothing near that again."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        pytest.skip("this system does not tell how much memory was used at most")

    def make(count: int, dim: int) -> LaBSE:
        tokens = [*SPECIAL, *(f"t{i}" for i in range(count - 5))]
        preprocessor = SentencePreprocessor(WordPieceTokenizer(tokens))
        backbone = LaBSEBackbone(count, 0, 2, dim, 8)
        return LaBSE(backbone, preprocessor, pooling="weighted_mean")

    # Threads and kernels are there before memory is looked at.
    trimming.trim(make(100, 8), {"en": ["t1"]})
    model = make(60_000, 512)
    reset.write_text("5")
    before = memory_in_use("VmRSS")
    trimmed = trimming.trim(model, {"en": [f"t{i}" for i in range(600)]})
    grown = memory_in_use("VmHWM") - before
    assert trimmed.backbone.vocabulary_size == 605
    assert grown < 60
    # The measure sees a copy.
    reset.write_text("5")
    before = memory_in_use("VmRSS")
    copy = np.array(model.backbone.token_embedding.embeddings.numpy())
    assert memory_in_use("VmHWM") - before > 100
    assert copy.shape == (60_000, 512)


def test_a_report_is_plain_data() -> None:
    found = trimming.LanguageParity(1, (1.0, 1.5), (0.0, 0.1), 0.0, None, 0.5, 0.5, 0.5)
    report = trimming.TrimReport(
        *("source", "0" * 64, ["hi"], "all", "int8"),
        *((9, 6), (90, 60), (900, 600), "here", {"hi": found}),
    )
    assert json.loads(json.dumps(report.to_dict()))["parity"]["hi"]["same"] == 0
    assert report.rows() == [
        ("Hindi", "1", "1.00 → 1.50", "0.00% → 10.00%", "0.0%", "", "0.5000", "0.500")
    ]
    assert len(report.rows()[0]) == len(trimming.COLUMNS)
    assert dataclasses.is_dataclass(report)
