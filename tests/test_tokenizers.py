"""Tests of the tokenizer against Hugging Face's, and of the vocabulary learner."""

from __future__ import annotations

import gzip
import os
import random
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from helpers.errors import Fields, raises
from labse_tf.languages import language_code
from labse_tf.text import DataError
from labse_tf.tokenizers import (
    WordPieceTokenizer,
    learn_vocabulary,
    learning,
    load_vocabulary,
    save_vocabulary,
    unk_rate,
)

CHECKOUT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("LABSE_TF_SHARED", CHECKOUT.parent / "shared"))
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SMALL = [*SPECIALS, "hell", "##o", "!", "a", "b", "##b", "##a", "ß", "##c"]

SENTENCES = [
    "The quick brown fox jumps over the lazy dog, doesn't it?",
    "Prices rose 3.5% in 2019 (from $1,000 to €1.035).",
    "Où est la bibliothèque ? À côté de l'école, près du café.",
    "Die Straße führt über Nürnberg nach Österreich.",
    "Ελληνικά: ο δρόμος είναι μακρύς. ΟΔΟΙ ΣΤΑΔΙΟΥ",
    "Быстрая коричневая лиса прыгает через ленивую собаку.",
    "İstanbul'da IĞDIR ve ığdır",
    "नमस्ते दुनिया। यह हिन्दी का एक वाक्य है।",
    "मराठी भाषेतील हे एक वाक्य आहे.",
    "বাংলা ভাষায় একটি বাক্য। খণ্ড ত: উৎসব",
    "தமிழ் ஒரு செம்மொழி ஆகும்.",
    "తెలుగు భాషలో ఒక వాక్యం.",
    "ಕನ್ನಡ ಭಾಷೆಯಲ್ಲಿ ಒಂದು ವಾಕ್ಯ.",
    "മലയാളത്തിൽ ഒരു വാക്യം. അവന്\u200d വന്നു",
    "ਪੰਜਾਬੀ ਵਿੱਚ ਇੱਕ ਵਾਕ। ગુજરાતીમાં એક વાક્ય.",
    "ଓଡ଼ିଆ ଭାଷା। සිංහල භාෂාව",
    "क्\u200dष and क्\u200cष, র\u200d্যাব",
    "می\u200cخواهم به خانه بروم؛ نمی\u200cدانم.",
    "هذه جملة باللغة العربية، أليس كذلك؟",
    "\u202bשלום עולם\u202c, זוהי שורה בעברית",
    "我们今天去北京大学。 これは日本語の文です。 한국어 문장입니다.",
    "東京2020 𠀀𪚥 ｆｕｌｌ　ｗｉｄｔｈ",
    "ภาษาไทยเป็นภาษาที่มีระดับเสียงของคำแน่นอนหรือวรรณยุกต์เช่นเดียวกับภาษาจีน",
    "ភាសាខ្មែរគឺជាភាសាកំណើតនៃជនជាតិខ្មែរនិងជាភាសាផ្លូវការរបស់ប្រទេសកម្ពុជា",
    "ບໍ່ເປັນຫຍັງ ຂອບໃຈຫຼາຍໆ",
    "soft\u00adhyphen, zero\u200bwidth, word\u2060joiner, \ufeffmark",
    "e\u0301 combining and é composed, a\u0308\u0323 twice, ŕ́",
    "emoji 😀 👩\u200d👩\u200d👧 🇮🇳 ❤\ufe0f ☎ 1\ufe0f\u20e3",
    "tab\there\nline\r\nend\x0bvertical\x0cform\x01one\x7fdel\x85next",
    "non\u00a0breaking\u3000ideographic\u2028line\u2029paragraph\u2003em",
    "private\ue000use\uf8ff and \ufffd replaced \x00 nul",
    "[MASK] and [CLS] and [SEP] in a text are text, ##no piece",
    "a_b-c/d\\e^f`g~h|i<j>k=l+m",
    "«»„“”‘’…—–·•¿¡§¶†‡",
    "",
    "   ",
]


def make_text() -> list[str]:
    """Sentences and windows of them, so that there is something to learn."""
    random_state = random.Random(0)
    texts = list(SENTENCES)
    for _ in range(300):
        first, second = random_state.sample(SENTENCES, 2)
        start = random_state.randrange(len(first) + 1)
        texts.append(first[start : start + 30] + " " + second)
    return texts


def write(path: Path, lines: list[str]) -> Path:
    """Writes a plain text file, one sentence a line."""
    flat = [line.replace("\n", " ").replace("\r", " ") for line in lines]
    path.write_text("\n".join(flat) + "\n", encoding="utf-8", newline="\n")
    return path


@pytest.fixture(scope="module", params=[False, True], ids=["cased", "lowercase"])
def learned(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[str], bool]:
    """A vocabulary learned from half of the characters' worth of the texts."""
    folder = tmp_path_factory.mktemp("learned")
    # Without every fifth text, so that some characters become [UNK].
    texts = [text for row, text in enumerate(make_text()) if row % 5]
    file = write(folder / "hi.txt", texts)
    return (
        learn_vocabulary([file], 1500, lowercase=request.param, progress=False),
        request.param,
    )


def hugging_face(
    vocabulary: list[str], lowercase: bool, strip_accents: bool | None = None
) -> object:
    """The oracle: BERT's tokenizer in Hugging Face `tokenizers`."""
    peer = pytest.importorskip(
        "tokenizers", reason="Hugging Face tokenizers is not installed"
    )
    return peer.BertWordPieceTokenizer(
        {token: row for row, token in enumerate(vocabulary)},
        lowercase=lowercase,
        strip_accents=lowercase if strip_accents is None else strip_accents,
        handle_chinese_chars=True,
        clean_text=True,
    )


def peer_ids(peer: object, texts: list[str]) -> list[list[int]]:
    """Ids of the oracle, no special tokens."""
    encoded = peer.encode_batch(texts, add_special_tokens=False)  # type: ignore
    return [row.ids for row in encoded]


class TestIds:
    def test_equal_hugging_face(self, learned: tuple[list[str], bool]) -> None:
        vocabulary, lowercase = learned
        tokenizer = WordPieceTokenizer(vocabulary, lowercase=lowercase)
        # The peer reads a literal "[MASK]" as the special token: see below.
        texts = [text for text in make_text() if "[" not in text]
        expected = peer_ids(hugging_face(vocabulary, lowercase), texts)
        actual = tokenizer(texts).to_list()
        for text, ours, theirs in zip(texts, actual, expected, strict=True):
            assert ours == theirs, text
        for strip in (True, False):
            other = WordPieceTokenizer(
                vocabulary, lowercase=lowercase, strip_accents=strip
            )
            peer = hugging_face(vocabulary, lowercase, strip)
            assert other(texts).to_list() == peer_ids(peer, texts)
        flat = [token for row in expected for token in row]
        # The comparison means something: pieces, words and [UNK] all occur.
        assert 0 < flat.count(tokenizer.unk_token_id) < 0.1 * len(flat)
        assert any(vocabulary[token].startswith("##") for token in flat)

    def test_long_thai_and_khmer_words_are_kept(
        self, learned: tuple[list[str], bool]
    ) -> None:
        vocabulary, lowercase = learned
        long = [text for text in SENTENCES if text[:1] and text[0] in "ภភ"]
        assert len(long) == 2
        assert all(len(text.encode()) > 100 >= len(text) for text in long)
        tokenizer = WordPieceTokenizer(vocabulary, lowercase=lowercase)
        for row in tokenizer(long).to_list():
            assert tokenizer.unk_token_id not in row
        old = WordPieceTokenizer(vocabulary, lowercase=lowercase, compat="tfhub")
        assert old(long).to_list() == [[old.unk_token_id]] * 2

    @pytest.mark.parametrize("lowercase", [False, True])
    def test_every_character_is_handled_as_in_hugging_face(
        self, lowercase: bool
    ) -> None:
        # Deleted: "a ##b". A blank: "a b". Punctuation: "a [UNK] b". Else "[UNK]".
        vocabulary = [*SPECIALS, "a", "b", "##b", "##a"]
        codes = [c for c in range(0x30000) if not 0xD800 <= c < 0xE000]
        texts = [f"a{chr(code)}b" for code in codes]
        expected = peer_ids(hugging_face(vocabulary, lowercase), texts)
        tokenizer = WordPieceTokenizer(vocabulary, lowercase=lowercase)
        actual = tokenizer(texts).to_list()
        differ = [c for c, x, y in zip(codes, actual, expected, strict=True) if x != y]
        # The peer's tables are of Unicode 8 and its range of CJK extension E starts
        # 0x100 too late; all others are characters that came, or changed, after
        # Unicode 8, none of them in the scripts that people write today.
        extension = set(range(0x2B820, 0x2B920))
        assert extension <= set(differ)
        assert len(set(differ) - extension) <= (600 if lowercase else 200)
        common = [c for c in differ if c < 0x600 or 0x3000 <= c < 0xA000]
        assert common == []

    def test_words_of_101_characters_are_split(self) -> None:
        tokenizer = WordPieceTokenizer(SMALL)
        assert tokenizer(["a" * 101]).to_list() == [
            [SMALL.index("a")] + [SMALL.index("##a")] * 100
        ]
        assert len(tokenizer(["a" * 400]).to_list()[0]) == 400
        assert tokenizer(["a" * 401]).to_list() == [[1]]
        assert peer_ids(hugging_face(SMALL, False), ["a" * 101]) == [[1]]

    def test_special_tokens_in_texts_are_text(self) -> None:
        vocabulary = [*SMALL, "[", "]", "MASK"]
        ids = WordPieceTokenizer(vocabulary)(["[MASK]", "[PAD]"]).to_list()
        tokens = [[vocabulary[token] for token in row] for row in ids]
        assert tokens == [["[", "MASK", "]"], ["[", "[UNK]", "]"]]

    def test_tokens_with_blanks_match_nothing(self) -> None:
        vocabulary = [*SMALL, "## ", "a b", " ", "#", "##", "##\xa0", "a\u2003"]
        texts = ["a b", "ab a", "hello! # a", "a\xa0! \xa0!", "a\u2003b"]
        actual = WordPieceTokenizer(vocabulary)(texts).to_list()
        assert actual == peer_ids(hugging_face(vocabulary, False), texts)

    def test_greek_final_sigma(self) -> None:
        # Python's lower() looks at the place in the word, as the original does.
        assert "ΟΔΟΣ".lower() == "οδος"
        vocabulary = [*SPECIALS, "οδος", "οδοσ", "σ"]
        ids = WordPieceTokenizer(vocabulary, lowercase=True)(["ΟΔΟΣ οδός", "Σ ς"])
        assert ids.to_list() == [[5, 5], [7, 1]]

    def test_tfhub_splits_at_joiners(self) -> None:
        text = ["a\u200db"]
        a, b, piece = SMALL.index("a"), SMALL.index("b"), SMALL.index("##b")
        assert WordPieceTokenizer(SMALL)(text).to_list() == [[a, piece]]
        old = WordPieceTokenizer(SMALL, compat="tfhub")
        assert old(text).to_list() == [[a, b]]

    @pytest.mark.parametrize("lowercase", [False, True])
    def test_tfhub_equals_bert_tokenizer(self, lowercase: bool) -> None:
        tf_text = pytest.importorskip("tensorflow_text")
        vocabulary = [*SMALL, "the", "The", "fox", "नमस्ते", "北", "可", ","]
        table = tf.lookup.StaticVocabularyTable(
            tf.lookup.KeyValueTensorInitializer(
                vocabulary, tf.range(len(vocabulary), dtype=tf.int64)
            ),
            1,
        )
        peer = tf_text.BertTokenizer(
            table, token_out_type=tf.int32, lower_case=lowercase
        )
        texts = [text for text in SENTENCES if "[" not in text]
        old = WordPieceTokenizer(vocabulary, lowercase=lowercase, compat="tfhub")
        expected = peer.tokenize(texts).merge_dims(-2, -1)
        unknown = len(vocabulary)
        expected = expected.with_flat_values(
            tf.where(expected.flat_values == unknown, 1, expected.flat_values)
        )
        same = [
            x == y
            for x, y in zip(old(texts).to_list(), expected.to_list(), strict=True)
        ]
        # The private-use and the unusual control characters are the only difference
        # between the two tokenizers of TF-Text on these texts.
        assert same.count(False) <= 2

    def test_no_cls_no_sep_and_int32(self) -> None:
        ids = WordPieceTokenizer(SMALL)(["hello!", "", "b"])
        assert isinstance(ids, tf.RaggedTensor)
        assert ids.dtype == tf.int32
        assert ids.to_list() == [[5, 6, 7], [], [9]]


class TestTatoeba:
    @pytest.mark.slow
    def test_all_lines_equal_hugging_face(self) -> None:
        folder = SHARED / "data" / "tatoeba"
        files = sorted(folder.glob("tatoeba.*-eng.*"))
        if not files:
            pytest.skip(f"the Tatoeba files are not in {folder}")
        counts: dict[str, None] = {}
        lines = []
        for file in files:
            lines += file.read_text(encoding="utf-8").split("\n")
        lines = [line for line in lines if line]
        assert len(lines) > 177_000
        for character in sorted(set("".join(lines))):
            counts[character] = None
            counts["##" + character] = None
        vocabulary = [*SPECIALS, *counts]
        expected = peer_ids(hugging_face(vocabulary, False), lines)
        actual = WordPieceTokenizer(vocabulary)(lines).to_list()
        differ = [
            line for line, x, y in zip(lines, actual, expected, strict=True) if x != y
        ]
        assert differ == []


class TestAnyBytes:
    @pytest.mark.parametrize("lowercase", [False, True])
    @pytest.mark.parametrize("compat", ["bert", "tfhub"])
    def test_nothing_crashes(self, lowercase: bool, compat: str) -> None:
        tokenizer = WordPieceTokenizer(SMALL, lowercase=lowercase, compat=compat)
        random_state = np.random.default_rng(1)
        texts = [
            random_state.integers(0, 256, size).astype(np.uint8).tobytes()
            for size in [1, 2, 3, 5, 10, 100, 1000] * 20
        ]
        texts += [b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xc0\x80", b"\xe0\xa4"]
        texts += [b"a" * 1_000_000, b"!" * 100_000, "й".encode() * 500_000, b"\x00"]
        texts += ["\u0301".encode() * 100_000, b"hello"]
        ids = tokenizer(texts)
        assert ids.nrows() == len(texts)
        assert ids[-1].numpy().tolist() == [5, 6]

    def test_invalid_bytes_are_deleted(self) -> None:
        tokenizer = WordPieceTokenizer(SMALL)
        a, piece = SMALL.index("a"), SMALL.index("##b")
        texts = [b"a\xffb", b"\xc3a\xe0\xa4b\xf0", b"a\x00b", "a\ud800b", "a\ufffdb"]
        assert tokenizer(texts).to_list() == [[a, piece]] * 5
        # As the peer does with text that was decoded with replacement characters.
        decoded = [x.decode("utf-8", "replace") for x in texts if isinstance(x, bytes)]
        assert peer_ids(hugging_face(SMALL, False), decoded) == [[a, piece]] * 3


class TestInputs:
    @pytest.mark.parametrize(
        "batch",
        [
            ["hello!", "b"],
            ("hello!", "b"),
            [b"hello!", "b"],
            np.array(["hello!", "b"]),
            np.array(["hello!", b"b"], dtype=object),
            tf.constant(["hello!", "b"]),
            [tf.constant("hello!"), tf.constant("b")],
        ],
        ids=lambda batch: type(batch).__name__,
    )
    def test_batches(self, batch: object) -> None:
        assert WordPieceTokenizer(SMALL)(batch).to_list() == [[5, 6, 7], [9]]

    def test_empty_batch(self) -> None:
        ids = WordPieceTokenizer(SMALL)([])
        assert ids.to_list() == [] and ids.dtype == tf.int32

    @pytest.mark.parametrize(
        "bad",
        [
            "hello",
            b"hello",
            [["hello"]],
            ["a", None],
            [1, 2],
            np.array([["a"]]),
            np.array("a"),
            np.array([1.0]),
            tf.constant("a"),
            tf.constant([["a"]]),
            tf.constant([1]),
            tf.ragged.constant([["a"]]),
        ],
        ids=repr,
    )
    def test_anything_else_is_refused(self, bad: object) -> None:
        with raises(ValueError, received=True):
            WordPieceTokenizer(SMALL)(bad)

    def test_in_a_graph(self) -> None:
        tokenizer = WordPieceTokenizer(SMALL)
        for shape in [(None,), (2,), None]:
            function = tf.function(
                tokenizer, input_signature=[tf.TensorSpec(shape, tf.string)]
            )
            assert function(tf.constant(["hello!", "b"])).to_list() == [[5, 6, 7], [9]]

    def test_graph_equals_eager(self, learned: tuple[list[str], bool]) -> None:
        tokenizer = WordPieceTokenizer(learned[0], lowercase=learned[1])
        texts = make_text()
        graph = tf.function(tokenizer)(tf.constant(texts))
        assert graph.to_list() == tokenizer(texts).to_list()

    def test_in_tf_data(self) -> None:
        tokenizer = WordPieceTokenizer(SMALL)
        dataset = tf.data.Dataset.from_tensor_slices(["hello!", "b", "a b"])
        dataset = dataset.batch(2).map(tokenizer, num_parallel_calls=2)
        rows = [row for batch in dataset for row in batch.to_list()]
        assert rows == [[5, 6, 7], [9], [8, 9]]

    def test_made_inside_a_graph(self) -> None:
        made = []

        @tf.function
        def make(texts: tf.Tensor) -> tf.Tensor:
            if not made:
                made.append(WordPieceTokenizer(SMALL))
            return made[0](texts).to_tensor()

        make(tf.constant(["b"]))
        assert made[0](["hello!"]).to_list() == [[5, 6, 7]]

    def test_symbolic_input(self) -> None:
        if keras.backend.backend() != "tensorflow":
            pytest.skip("string inputs of a functional model need TensorFlow")
        output = WordPieceTokenizer(SMALL)(keras.Input((), dtype="string"))
        assert output.shape == (None, None) and output.dtype == "int32"


class TestSavedModel:
    def test_round_trip_and_ops(self, tmp_path: Path) -> None:
        module = tf.Module()
        module.tokenizer = WordPieceTokenizer(SMALL, lowercase=True)
        module.run = tf.function(
            lambda texts: {
                "ids": module.tokenizer(texts).to_tensor(),
                "texts": module.tokenizer.detokenize(module.tokenizer(texts)),
            },
            input_signature=[tf.TensorSpec((None,), tf.string)],
        )
        path = str(tmp_path / "model")
        tf.saved_model.save(module, path, signatures=module.run)
        output = tf.saved_model.load(path).run(tf.constant(["HELLO! áb", "?"]))
        assert output["ids"].numpy().tolist() == [[5, 6, 7, 8, 10], [1, 0, 0, 0, 0]]
        assert output["texts"].numpy().tolist() == [b"hello ! ab", b"[UNK]"]
        from tensorflow.core.protobuf import saved_model_pb2

        proto = saved_model_pb2.SavedModel()
        proto.ParseFromString((tmp_path / "model" / "saved_model.pb").read_bytes())
        graph = proto.meta_graphs[0].graph_def
        ops = {node.op for part in graph.library.function for node in part.node_def}
        assert {"FastBertNormalize", "FastWordpieceTokenizeWithOffsets"} <= ops
        assert not [op for op in ops if ">" in op]


class TestVocabulary:
    def test_from_file(self, tmp_path: Path) -> None:
        path = tmp_path / "vocab.txt"
        WordPieceTokenizer(SMALL).save_vocabulary(path)
        assert path.read_bytes() == ("\n".join(SMALL) + "\n").encode()
        for given in (path, str(path)):
            tokenizer = WordPieceTokenizer(given)
            assert tokenizer.vocabulary == SMALL
            assert tokenizer(["hello!"]).to_list() == [[5, 6, 7]]

    def test_windows_line_ends_mark_and_blank_end(self, tmp_path: Path) -> None:
        path = tmp_path / "vocab.txt"
        path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*SMALL, "", ""]).encode())
        assert load_vocabulary(path) == SMALL

    def test_only_line_feeds_end_a_line(self, tmp_path: Path) -> None:
        tokens = [*SMALL, "\u2028", "\x85", "\x0c"]
        save_vocabulary(tokens, tmp_path / "vocab.txt")
        assert load_vocabulary(tmp_path / "vocab.txt") == tokens

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", Fields(path="vocab.txt")),
            (b"\n\r\n", Fields(path="vocab.txt")),
            (b"[PAD]\n\na\n", Fields(path="vocab.txt", line=2)),
            (b"[PAD]\na\nb\na\n", Fields("'a'", 2, path="vocab.txt", line=4)),
            (
                b"[PAD]\na\nb\xff\n",
                Fields("UTF-8", "'b\\xff'", path="vocab.txt", line=3),
            ),
            (b"[PAD]\n[UNK]\n[CLS]\n[MASK]\n", Fields("[SEP]", path="vocab.txt")),
        ],
    )
    def test_bad_files(self, tmp_path: Path, data: bytes, message: str) -> None:
        path = tmp_path / "vocab.txt"
        path.write_bytes(data)
        with raises(ValueError, message):
            WordPieceTokenizer(path)

    def test_missing_file(self, tmp_path: Path) -> None:
        with raises(FileNotFoundError, path="nothing.txt"):
            WordPieceTokenizer(tmp_path / "nothing.txt")

    @pytest.mark.parametrize(
        ("tokens", "message"),
        [
            ([], Fields(received=True)),
            ([*SPECIALS, "a", "a"], Fields("'a'", 5, 6)),
            ([*SPECIALS, ""], Fields(5, "''")),
            ([*SPECIALS, 7], Fields(5, 7)),
            (SPECIALS[:-1] + ["a"], Fields("[MASK]")),
        ],
    )
    def test_bad_lists(self, tokens: list[str], message: str) -> None:
        with raises(ValueError, message):
            WordPieceTokenizer(tokens)

    def test_bad_compat(self) -> None:
        with raises(ValueError, received="compat='hub'"):
            WordPieceTokenizer(SMALL, compat="hub")

    def test_special_ids_are_looked_up(self) -> None:
        tokenizer = WordPieceTokenizer(["a", *reversed(SPECIALS), "b"])
        ids = [
            tokenizer.mask_token_id,
            tokenizer.sep_token_id,
            tokenizer.cls_token_id,
            tokenizer.unk_token_id,
            tokenizer.pad_token_id,
        ]
        assert ids == [1, 2, 3, 4, 5]
        assert tokenizer.special_token_ids["[MASK]"] == 1
        assert tokenizer.special_tokens == SPECIALS
        assert tokenizer.vocabulary_size == 7
        assert tokenizer(["a b c"]).to_list() == [[0, 6, 4]]

    def test_token_and_id(self) -> None:
        tokenizer = WordPieceTokenizer(SMALL)
        for row, token in enumerate(SMALL):
            assert tokenizer.token_to_id(token) == row
            assert tokenizer.id_to_token(row) == token
        with raises(KeyError, "'zebra'"):
            tokenizer.token_to_id("zebra")
        for bad in (-1, len(SMALL)):
            with raises(ValueError, received=f"id={bad}"):
                tokenizer.id_to_token(bad)

    def test_tfhub_strips_accents_as_it_lowercases(self) -> None:
        with raises(ValueError, "lowercase=True", "strip_accents=False"):
            WordPieceTokenizer(
                SMALL, lowercase=True, strip_accents=False, compat="tfhub"
            )

    def test_config_round_trip(self) -> None:
        first = WordPieceTokenizer(SMALL, lowercase=True, compat="tfhub", name="t")
        config = first.get_config()
        assert config["vocabulary"] == SMALL
        assert config["strip_accents"] is True
        second = WordPieceTokenizer.from_config(config)
        assert second.get_config() == config
        assert (second.lowercase, second.compat, second.name) == (True, "tfhub", "t")
        third = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(first)
        )
        assert third(["HELLO"]).to_list() == [[5, 6]]

    def test_save_keeps_the_old_file_when_it_fails(self, tmp_path: Path) -> None:
        path = tmp_path / "vocab.txt"
        save_vocabulary(SMALL, path)
        with raises(ValueError, 1, "'a\\nb'"):
            save_vocabulary(["x", "a\nb"], path)
        with pytest.raises(UnicodeEncodeError):
            save_vocabulary(["x", "\ud800"], path)
        assert load_vocabulary(path) == SMALL
        assert [file.name for file in tmp_path.iterdir()] == ["vocab.txt"]

    def test_saved_file_has_usual_permissions(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_text("x")
        save_vocabulary(SMALL, tmp_path / "vocab.txt")
        modes = [
            stat.S_IMODE((tmp_path / name).stat().st_mode)
            for name in ("plain", "vocab.txt")
        ]
        assert modes[0] == modes[1]


class TestDetokenize:
    @pytest.mark.parametrize(
        "ids",
        [
            [[2, 5, 6, 7, 3, 0], [8, 10, 4, 1, 0, 0]],
            np.array([[2, 5, 6, 7, 3, 0], [8, 10, 4, 1, 0, 0]]),
            tf.constant([[2, 5, 6, 7, 3, 0], [8, 10, 4, 1, 0, 0]], tf.int64),
            tf.ragged.constant([[5, 6, 7], [8, 10, 4, 1]]),
        ],
        ids=lambda ids: type(ids).__name__,
    )
    def test_batches(self, ids: object) -> None:
        texts = WordPieceTokenizer(SMALL).detokenize(ids)
        assert texts.numpy().tolist() == [b"hello !", b"ab [MASK] [UNK]"]

    def test_one_row_and_empty(self) -> None:
        tokenizer = WordPieceTokenizer(SMALL)
        assert tokenizer.detokenize([5, 6]).numpy() == b"hello"
        assert tokenizer.detokenize([6, 8]).numpy() == b"o a"
        assert tokenizer.detokenize([]).numpy() == b""
        assert tokenizer.detokenize([[], [8]]).numpy().tolist() == [b"", b"a"]

    def test_graph(self) -> None:
        tokenizer = WordPieceTokenizer(SMALL)
        function = tf.function(tokenizer.detokenize)
        assert function(tf.constant([[5, 6]])).numpy().tolist() == [b"hello"]

    def test_back_and_forth(self, learned: tuple[list[str], bool]) -> None:
        tokenizer = WordPieceTokenizer(learned[0], lowercase=learned[1])
        ids = tokenizer([text for text in make_text() if "[" not in text])
        known = [row for row in ids.to_list() if tokenizer.unk_token_id not in row]
        assert len(known) > 200
        assert tokenizer(tokenizer.detokenize(known)).to_list() == known

    @pytest.mark.parametrize("ids", [[[len(SMALL)]], [[-1]], [[[1]]], [[0.5]], 3])
    def test_bad_ids(self, ids: object) -> None:
        with pytest.raises((ValueError, TypeError)):
            WordPieceTokenizer(SMALL).detokenize(ids)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A large made-up language and a small one, in different letters."""
    folder = tmp_path_factory.mktemp("languages")
    random_state = random.Random(3)

    def language(letters: str, sentences: int) -> list[str]:
        words = [
            "".join(random_state.choices(letters, k=random_state.randint(2, 9)))
            for _ in range(400)
        ]
        return [
            " ".join(random_state.choices(words, k=8)) + "." for _ in range(sentences)
        ]

    return [
        write(folder / "de.txt", language("abcdefghij", 4000)),
        write(folder / "ru.txt", language("ыщцдабежзи", 100)),
    ]


class TestLearnVocabulary:
    def test_layout(self, files: list[Path]) -> None:
        vocabulary = learn_vocabulary(files, 600, progress=False)
        assert len(vocabulary) == len(set(vocabulary)) == 600
        assert vocabulary[0] == "[PAD]"
        assert vocabulary[1:100] == [f"[unused{n}]" for n in range(1, 100)]
        assert vocabulary[100:104] == ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        characters = [token for token in vocabulary[104:] if len(token) == 1]
        assert characters == sorted("abcdefghijыщцдабежзи.")
        for character in "abcdefghijыщцдабежзи":
            assert "##" + character in vocabulary
        tokenizer = WordPieceTokenizer(vocabulary)
        assert tokenizer.unk_token_id == 100

    def test_too_little_text_gives_fewer(self, tmp_path: Path) -> None:
        file = write(tmp_path / "de.txt", ["aab aab", "aab ab!"])
        vocabulary = learn_vocabulary(
            [file], 1000, character_coverage=1.0, min_frequency=1, progress=False
        )
        # By hand: aab x 3, ab x 1, ! x 1. "##b" follows "##a" three times and "a" +
        # "##a" is there three times as well: the lower ids go first. Then a lone
        # "ab" is left.
        assert vocabulary[104:] == ["!", "a", "##a", "##b", "aa", "aab", "ab"]
        # With two as the least, "!" and "ab" are out.
        vocabulary = learn_vocabulary([file], 1000, progress=False)
        assert vocabulary[104:] == ["a", "##a", "##b", "aa", "aab"]

    def test_smoothing_helps_the_small_language(self, files: list[Path]) -> None:
        def share(smoothing: float) -> int:
            vocabulary = learn_vocabulary(
                files, 600, smoothing=smoothing, progress=False
            )
            return sum(any(c >= "а" for c in token) for token in vocabulary)

        none, paper, equal = share(1.0), share(0.3), share(0.0)
        assert none < paper < equal
        assert paper > 1.5 * none

    def test_weights_of_languages(self) -> None:
        counts = {
            "aa": Counter({"x": 900, "y": 100}),
            "bb": Counter({"z": 10}),
        }
        factors = learning._language_weights(counts, 0.3)
        weights, occurrences = learning._smooth(counts, factors)
        # n ** 0.3: 1000 -> 7.9433, 10 -> 1.9953.
        ratio = (weights["x"] + weights["y"]) / weights["z"]
        np.testing.assert_allclose(ratio, (1000 / 10) ** 0.3, rtol=1e-6)
        np.testing.assert_allclose(weights["x"] / weights["y"], 9.0, rtol=1e-6)
        assert occurrences == {"x": 900, "y": 100, "z": 10}

    def test_repetitions_keep_the_weights(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # One language: exactly ten times the count.
        times = learning._repetitions({"x": 3 << 32, "y": 1 << 32}, 1 << 32)
        assert times == {"x": 30, "y": 10}
        # A large text: most words come less than once, and weigh together the same.
        monkeypatch.setattr(learning, "_MOST_WORDS", 20_000)
        rare = {f"rare{n}": 1 << 32 for n in range(50_000)}
        times = learning._repetitions({**rare, "often": 50_000 << 32}, 1 << 32)
        assert times.pop("often") == 10_000
        assert set(times.values()) == {0, 1}
        # Four standard deviations of a fair rounding.
        assert abs(sum(times.values()) - 10_000) < 4 * (50_000 * 0.2 * 0.8) ** 0.5

    def test_deterministic(self, files: list[Path]) -> None:
        one = learn_vocabulary(files, 500, num_workers=1, progress=False)
        two = learn_vocabulary(files[::-1], 500, num_workers=2, progress=False)
        assert one == two
        script = (
            "import sys; from labse_tf.tokenizers import learn_vocabulary as l; "
            "print('\\n'.join(l(sys.argv[1:], 500, progress=False)))"
        )
        other = subprocess.run(
            [sys.executable, "-c", script, *map(str, files)],
            capture_output=True,
            check=True,
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONIOENCODING": "utf-8"},
        )
        assert other.stdout.decode("utf-8").split("\n")[:-1] == one

    def test_joins_as_a_plain_learner_does(self) -> None:
        random_state = random.Random(5)
        words = {
            "".join(random_state.choices("abc", k=random_state.randint(1, 7))): (
                random_state.randint(1, 50)
            )
            for _ in range(200)
        }
        characters = ["a", "b", "c", "##a", "##b", "##c"]
        actual = learning._join_pieces(words, words, characters, 60, 1, False)
        # Counts all pairs anew for every token.
        splits = {w: [w[0], *("##" + c for c in w[1:])] for w in words}
        expected = list(characters)
        while len(expected) < 60:
            pairs: dict[tuple[str, str], int] = {}
            for word, split in splits.items():
                for pair in zip(split, split[1:], strict=False):
                    pairs[pair] = pairs.get(pair, 0) + words[word]
            left, right = min(pairs, key=lambda p: (-pairs[p], *map(expected.index, p)))
            if left + right[2:] not in expected:
                expected.append(left + right[2:])
            for split in splits.values():
                row = 0
                while row < len(split) - 1:
                    if (split[row], split[row + 1]) == (left, right):
                        split[row : row + 2] = [left + right[2:]]
                    row += 1
        assert actual == expected

    def test_pairs_below_the_least_frequency_are_left_out(self) -> None:
        # "abc" weighs most but is there once: the others get its places.
        weights = {"abc": 900, "aabb": 50, "bbaa": 40}
        characters = ["a", "b", "##a", "##b", "##c"]
        arguments = (weights, {"abc": 1, "aabb": 5, "bbaa": 4}, characters)
        assert learning._join_pieces(*arguments, 7, 1, False)[5:] == ["ab", "abc"]
        rest = learning._join_pieces(*arguments, 7, 2, False)[5:]
        assert rest == ["aa", "##bb"]
        everything = learning._join_pieces(*arguments, 100, 2, False)[5:]
        assert sorted(everything) == sorted(
            ["##bb", "aa", "aabb", "bb", "##aa", "bbaa"]
        )

    def test_lowercase_words_are_learned(self, tmp_path: Path) -> None:
        file = write(tmp_path / "de.txt", ["Café CAFÉ cafe\u0301"] * 5)
        cased = learn_vocabulary([file], 200, progress=False)
        lower = learn_vocabulary([file], 200, lowercase=True, progress=False)
        assert "cafe" in lower and not set("CAFÉé") & set("".join(lower[104:]))
        assert "CAFÉ" in cased and "Café" in cased

    def test_lowercase_keeps_accents_where_told(self, tmp_path: Path) -> None:
        texts = ["Café CAFÉ कुर्सी Тест"] * 5
        file = write(tmp_path / "hi.txt", texts)
        options = {"lowercase": True, "strip_accents": False}
        vocabulary = learn_vocabulary([file], 300, progress=False, **options)
        assert {"café", "कुर्सी", "тест"} <= set(vocabulary)
        tokenizer = WordPieceTokenizer(vocabulary, **options)
        assert tokenizer.detokenize(tokenizer(["CAFÉ कुर्सी"])[0]) == "café कुर्सी".encode()
        stripped = WordPieceTokenizer(vocabulary, lowercase=True)
        # Without two of its marks the Hindi word is no word.
        assert len(tokenizer(["कुर्सी"])[0]) == 1 < len(stripped(["कुर्सी"])[0])

    def test_all_indian_letters_are_covered(self, tmp_path: Path) -> None:
        texts = [x for x in SENTENCES if any("\u0900" <= c < "\u0e00" for c in x)]
        file = write(tmp_path / "hi.txt", texts * 2)
        vocabulary = learn_vocabulary([file], 3000, progress=False)
        assert unk_rate([file], WordPieceTokenizer(vocabulary)) == {"hi": 0.0}

    def test_coverage_drops_the_rarest(self, tmp_path: Path) -> None:
        file = write(tmp_path / "de.txt", ["a b " * 50 + "c c"])
        kept = learn_vocabulary([file], 200, character_coverage=0.97, progress=False)
        assert kept[104:] == ["a", "b"]
        kept = learn_vocabulary([file], 200, character_coverage=1.0, progress=False)
        assert kept[104:] == ["a", "b", "c"]

    def test_characters_get_at_most_half(self, tmp_path: Path) -> None:
        lines = [chr(0x4E00 + n) * (2 + n % 7) + " ab ab" for n in range(500)]
        file = write(tmp_path / "zh.txt", lines)
        vocabulary = learn_vocabulary([file], 300, progress=False)
        assert sum(len(t.removeprefix("##")) == 1 for t in vocabulary) == 150
        assert "ab" in vocabulary

    def test_reader_and_languages(self, tmp_path: Path) -> None:
        def reader(path: Path) -> Iterator[tuple[str, str]]:
            for line in path.read_text().splitlines():
                source, target = line.split("\t")
                yield "en", source
                yield "xx", target

        file = tmp_path / "pairs.tsv"
        file.write_text("abc abc\txyz xyz\n" * 3)
        both = learn_vocabulary([file], 200, reader=reader, progress=False)
        assert {"abc", "xyz"} <= set(both)
        one = learn_vocabulary(
            [file], 200, reader=reader, languages=["xx"], progress=False
        )
        assert "xyz" in one and "abc" not in one
        tokenizer = WordPieceTokenizer(one)
        assert unk_rate([file], tokenizer, reader=reader) == {"en": 1.0, "xx": 0.0}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"size": 104}, Fields("size=104")),
            ({"smoothing": 1.5}, Fields("smoothing=1.5")),
            ({"character_coverage": 0.0}, Fields("character_coverage=0.0")),
            ({"min_frequency": 0}, Fields("min_frequency=0")),
            ({"languages": ["qq"]}, Fields("qq")),
            ({"files": "xa.txt"}, Fields(argument="files", received="'xa.txt'")),
        ],
    )
    def test_bad_arguments(
        self, files: list[Path], options: dict, message: str
    ) -> None:
        with raises(ValueError, message):
            learn_vocabulary(
                **{"files": files, "size": 300, "progress": False, **options}
            )

    def test_files_of_pairs_and_of_text_give_their_language(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "en-hi.tsv").write_text("one two\tएक दो\n" * 3, encoding="utf-8")
        lines = "एक दो\n" * 3
        packed = gzip.compress(lines.encode())
        (tmp_path / "news.hi.txt.gz").write_bytes(packed)
        (tmp_path / "hi.txt").write_text(lines, encoding="utf-8")
        (tmp_path / "tatoeba.hin-eng.hin").write_text(lines, encoding="utf-8")
        tokenizer = WordPieceTokenizer(SMALL)
        for name, languages in (
            ("en-hi.tsv", {"en", "hi"}),
            ("news.hi.txt.gz", {"hi"}),
            ("hi.txt", {"hi"}),
            ("tatoeba.hin-eng.hin", {"hi"}),
        ):
            rates = unk_rate([tmp_path / name], tokenizer)
            assert {language_code(code) for code in rates} == languages
        vocabulary = learn_vocabulary(
            [tmp_path / "en-hi.tsv"], 200, languages=["hi"], progress=False
        )
        assert {"एक", "दो"} <= set(vocabulary) and "one" not in vocabulary
        (tmp_path / "notes.txt").write_text(lines, encoding="utf-8")
        with raises(DataError, "language"):
            learn_vocabulary([tmp_path / "notes.txt"], 200, progress=False)
        assert set(unk_rate([f"hi={tmp_path / 'notes.txt'}"], tokenizer)) == {"hi"}

    def test_the_two_files_of_moses_count_once(self, tmp_path: Path) -> None:
        names = ("x.en-hi.en", "x.en-hi.hi")
        files = [write(tmp_path / name, ["abc abc xyz"]) for name in names]
        vocabulary = learn_vocabulary(files, 200, languages=["en"], progress=False)
        assert "abc" in vocabulary and "xyz" not in vocabulary

    def test_empty_and_missing_files(self, tmp_path: Path) -> None:
        (tmp_path / "en.txt").write_text("\n \n")
        with raises(ValueError, argument="files"):
            learn_vocabulary([tmp_path / "en.txt"], 300, progress=False)
        with pytest.raises(DataError):
            learn_vocabulary([tmp_path / "hi.txt"], 300, progress=False)

    def test_progress(
        self, files: list[Path], capsys: pytest.CaptureFixture[str]
    ) -> None:
        learn_vocabulary(files, 300, progress=False)
        assert capsys.readouterr() == ("", "")
        learn_vocabulary(files, 300)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert [line.split(" (")[0] for line in captured.err.splitlines()] == [
            "Counting words",
            "Joining pieces",
        ]


def test_unk_rate_by_hand(tmp_path: Path) -> None:
    # de: "a b" "hello ?" "x!": a, b, hell, ##o, [UNK], [UNK], ! -> 2 of 7.
    first = write(tmp_path / "de.txt", ["a b", "hello ?", "x!"])
    second = write(tmp_path / "fr.txt", ["q", "w e", "\u200d"])
    third = write(tmp_path / "es.txt", ["\u200d"])
    rates = unk_rate([second, third, first], WordPieceTokenizer(SMALL))
    assert rates == {"de": 2 / 7, "fr": 1.0}


def test_jax_backend() -> None:
    pytest.importorskip("jax", reason="JAX is not installed")
    script = (
        "from labse_tf.tokenizers import WordPieceTokenizer\n"
        "import keras\n"
        "assert keras.backend.backend() == 'jax'\n"
        f"t = WordPieceTokenizer({SMALL!r})\n"
        "assert t(['hello!', 'b']).to_list() == [[5, 6, 7], [9]]\n"
        "import tensorflow as tf\n"
        "d = tf.data.Dataset.from_tensor_slices(['a b']).batch(1).map(t)\n"
        "assert [x.to_list() for x in d] == [[[8, 9]]]\n"
        "assert t.detokenize([[5, 6]]).numpy().tolist() == [b'hello']\n"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        cwd=CHECKOUT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
