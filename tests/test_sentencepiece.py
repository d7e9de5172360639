"""SentencePiece in the graph, in presets, in other formats, and trimmed."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tokenizers import Regex, Tokenizer, normalizers

from helpers import foreign, unigram
from helpers.command_line import run
from helpers.errors import check_message, raises, refuses
from labse_tf import checkpoints, presets, trimming
from labse_tf.checkpoints.tokenizer_json import needs_tokenizer_json
from labse_tf.checkpoints.unigram import _NMT, read_unigram, to_tokenizers
from labse_tf.encoders import load_model, open_encoder
from labse_tf.models import LaBSE
from labse_tf.preprocessing import MaskedLMPreprocessor, SentencePreprocessor
from labse_tf.tokenizers import SentencePieceTokenizer, WordPieceTokenizer
from labse_tf.tokenizers.sentencepiece_model import (
    Piece,
    PieceType,
    build_model,
)

TEXTS = [
    *("sunny day", "", " ", "  a  sun ", "moon\tday\u200dsun", "ﬁnd ﬀ", "a\0b", "xyz"),
    *(
        "दिन दिन",
        "sun\u0007ny\u2028day",
        "▁sun▁ny",
        "☃☃ sun ☃",
        "day.... a",
        "q\ufffdq",
    ),
]


def test_written_replacements_are_those_of_nmt() -> None:
    """On all characters of Unicode; transformers.js does not have the step."""
    ours = normalizers.Sequence(
        [normalizers.Replace(Regex(some), by) for some, by in _NMT]
    )
    theirs = normalizers.Nmt()
    codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for start in range(0, len(codes), 1000):
        text = "".join(f"x{chr(code)}y" for code in codes[start : start + 1000])
        assert ours.normalize_str(text) == theirs.normalize_str(text), hex(start)


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    pytest.importorskip("safetensors", reason="the extra `convert` is missing")
    return unigram.write(tmp_path_factory.mktemp("unigram") / "hf")


@pytest.fixture(scope="module")
def model(directory) -> LaBSE:
    return checkpoints.from_huggingface(directory, prefix="query: ")


@pytest.fixture(scope="module")
def preset(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("presets") / "model"
    model.save_to_preset(folder)
    return folder


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Texts of known pieces, unknown characters and all kinds of spaces."""
    rng = random.Random(seed)
    parts = [piece.replace("▁", " ") for piece, _ in unigram.SCORED[5:]]
    parts += [
        *" \t\n\u00a0\u3000\u200b\ufeff",
        "\x01",
        "\x7f",
        "ﬁ",
        "½",
        "é",
        "e\u0301",
    ]
    parts += ["e\u0301", "☃", "𐍈", "한", "कि", "Ａ", "\x85", "\x00"]
    return ["".join(rng.choices(parts, k=rng.randrange(12))) for _ in range(count)]


def model_of(*pieces: Piece, **settings) -> bytes:
    special = [Piece(name, 0.0, PieceType.CONTROL) for name in unigram.SPECIAL]
    special[3] = Piece("<unk>", 0.0, PieceType.UNKNOWN)
    return build_model([*special, *pieces], **settings)


# === Ids ===


def test_ids_are_those_of_hugging_face(tmp_path) -> None:
    theirs = unigram.make(*unigram.NMT_NFKC)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = read_unigram(tmp_path, 120)
    # Special pieces in a text are not text there.
    texts = [text for text in TEXTS + random_texts(3000) if "<s>" not in text]
    found = [row.ids for row in theirs.encode_batch(texts, add_special_tokens=False)]
    assert ours(texts).to_list() == found
    # And back: the same tokenizer again, except special tokens in a text.
    again = to_tokenizers(ours)
    assert [row.ids for row in again.encode_batch(texts)] == [
        [0, *row, 2] for row in found
    ]
    again.save(str(tmp_path / "tokenizer.json"))
    assert read_unigram(tmp_path, 120)(texts).to_list() == found


def test_characters_are_replaced_as_in_sentencepiece(tmp_path) -> None:
    """The table of characters is that of a model trained by SentencePiece itself."""
    trainer = pytest.importorskip("sentencepiece", reason="sentencepiece is missing")
    import io

    trained = io.BytesIO()
    trainer.SentencePieceTrainer.train(
        sentence_iterator=iter(["sun moon day", "sunny days", "a moon"] * 9),
        model_writer=trained,
        vocab_size=17,
        pad_id=3,
        control_symbols=["<mask>"],
        minloglevel=2,
    )
    content = trained.getvalue()
    ours = SentencePieceTokenizer(content)
    assert ours.model.normalizes
    theirs = trainer.SentencePieceProcessor(model_proto=content)
    texts = [text for text in TEXTS + random_texts(500) if "\0" not in text]
    assert ours(texts).to_list() == theirs.encode(texts)
    to_tokenizers(ours).save(str(tmp_path / "tokenizer.json"))
    again = read_unigram(tmp_path)
    hugging_face = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    # Its Strip deletes U+0085 at the end too, and a mark after a space.
    plain = [text for text in texts if not {*"\x85<िि"} & {*text}]
    found = [r.ids for r in hugging_face.encode_batch(plain, add_special_tokens=False)]
    assert ours(plain).to_list() == found
    assert again.model.character_map == ours.model.character_map
    assert again(texts).to_list() == theirs.encode(texts)


def test_special_pieces_in_a_text_are_text(model) -> None:
    tokenizer = model.text_preprocessor().tokenizer
    special = set(tokenizer.special_token_ids.values()) - {tokenizer.unk_token_id}
    ids = tokenizer(["<s>a</s> <pad><mask>", "[unused1]"]).to_list()
    assert ids[0][:3] == [tokenizer.token_to_id(piece) for piece in ("▁", "<", "s>")]
    for row in ids:
        assert not special & set(row)
        assert max(row) < len(unigram.SCORED)


def test_ids_by_name_and_text_of_ids(model) -> None:
    tokenizer = model.text_preprocessor().tokenizer
    assert tokenizer.special_tokens == ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    ids = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id]
    assert [*ids, tokenizer.sep_token_id, tokenizer.mask_token_id] == [1, 3, 0, 2, 4]
    assert tokenizer.vocabulary_size == 120
    assert tokenizer.id_to_token(tokenizer.token_to_id("▁sun")) == "▁sun"
    rows = model.preprocessor.token_rows(["sunny day", ""])
    assert rows[0, 0] == 0 and rows[0, -1] == 2
    text = tokenizer.detokenize(rows).numpy().tolist()
    assert text == [b"query: sunny day", b"query: "]


def test_invalid_utf8_is_deleted_and_tensors_work_in_a_graph(model) -> None:
    tokenizer = model.text_preprocessor().tokenizer
    ids = tokenizer([b"sun\xffny", "sunny"]).to_list()
    assert ids[0] == ids[1]
    graph = tf.function(lambda x: tokenizer(x).to_tensor())
    data = tf.data.Dataset.from_tensor_slices(TEXTS).batch(4).map(graph)
    rows = [row for batch in data for row in batch.numpy().tolist()]
    for row, ids in zip(rows, tokenizer(TEXTS).to_list(), strict=True):
        assert row[: len(ids)] == ids and not any(row[len(ids) :])


def test_the_layer_and_the_preprocessor_survive_a_round_trip(model) -> None:
    old = model.preprocessor
    config = keras.saving.serialize_keras_object(old)
    new = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert new.prefix == "query: " and new.sequence_length == old.sequence_length
    for name, value in old(TEXTS).items():
        np.testing.assert_array_equal(new(TEXTS)[name], value)


def test_masking_leaves_special_pieces_alone(model) -> None:
    tokenizer = model.text_preprocessor().tokenizer
    mask = MaskedLMPreprocessor(
        tokenizer, 16, mask_rate=1.0, max_predictions=16, packed=False
    )
    features = mask(["sunny day moon"] * 200, (0, 1))
    ids = features["token_ids"].numpy()
    assert (ids[:, 0] == 0).all() and (ids == 4).any()
    assert not (ids > len(unigram.SCORED) - 1).any(), "an unused row was drawn"


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"\xff\xff", ("protocol buffer",)),
        (b"", ("Unigram",)),
        (build_model([Piece("a", 0.0)]), ("<pad>", "<mask>")),
        (model_of(Piece("a", 0.0), Piece("a", 1.0)), ("'a'", 5, 6)),
        (model_of(Piece("<0x41>", 0.0, PieceType.BYTE)), ("BYTE",)),
        (model_of(Piece("?", 0.0, PieceType.UNKNOWN)), ("UNKNOWN", "'?'")),
    ],
)
def test_models_that_are_refused(tmp_path, content, names) -> None:
    path = tmp_path / "a.model"
    path.write_bytes(content)
    with raises(ValueError, *names, path=path, received=True):
        SentencePieceTokenizer(path)


def test_arguments_that_are_refused(tmp_path) -> None:
    with raises(FileNotFoundError, "none.model", argument="model"):
        SentencePieceTokenizer(tmp_path / "none.model")
    content = model_of(Piece("▁a", -1.0))
    with raises(ValueError, argument="normalization", received="'nfd'"):
        SentencePieceTokenizer(content, normalization="nfd")
    with raises(ValueError, argument="normalization", received="'nmt_nfkc'"):
        SentencePieceTokenizer(content, normalization="nmt_nfkc")
    with raises(ValueError, argument="prefix", received=1):
        SentencePreprocessor(SentencePieceTokenizer(content), prefix=1)


# === Prefixes and presets ===


def test_a_prefix_is_text_before_each_text(model) -> None:
    plain = model.with_prefix("")
    assert plain.preprocessor.prefix == "" and model.preprocessor.prefix == "query: "
    texts = ["sunny day", "", " moon", "दिन"] * 200
    prefixed = ["query: " + text for text in texts]
    vectors = model.encode(texts)
    np.testing.assert_allclose(vectors, plain.encode(prefixed), atol=1e-6)
    assert np.abs(vectors - plain.encode(texts)).max() > 1e-3
    np.testing.assert_allclose(vectors[:3], model.encode(texts[:3]), atol=1e-6)
    graph = tf.function(model.encode)(tf.constant(texts[:4]))
    np.testing.assert_allclose(vectors[:4], graph, atol=1e-6)
    # The prefix counts: 12 tokens are <s>, three of the prefix, seven, </s>.
    assert model.truncated_texts == 0
    model.encode(["sun " * 8, "sun " * 7])
    assert model.truncated_texts == 1
    assert model.with_sequence_length(20).preprocessor.prefix == "query: "


def test_a_prefix_of_a_wordpiece_model(tmp_path) -> None:
    folder = foreign.write_huggingface(tmp_path / "hf")
    model = checkpoints.from_huggingface(folder, prefix="good ")
    model.save_to_preset(tmp_path / "preset")
    again = LaBSE.from_preset(tmp_path / "preset")
    plain = checkpoints.from_huggingface(folder).encode(["good Sun"])
    np.testing.assert_allclose(again.encode(["Sun"]), plain, atol=1e-6)


def test_a_preset_holds_the_model_and_the_prefix(model, preset) -> None:
    config = json.loads((preset / "config.json").read_text())
    assert config["preprocessor"]["prefix"] == "query: "
    assert config["tokenizer"] == {"normalization": "nmt_nfkc"}
    assert set(config["sha256"]) == {"sentencepiece.model", "model.weights.h5"}
    again = LaBSE.from_preset(preset)
    np.testing.assert_array_equal(again.encode(TEXTS), model.encode(TEXTS))
    tokenizer = again.text_preprocessor().tokenizer
    assert isinstance(tokenizer, SentencePieceTokenizer)
    assert tokenizer.model.content == model.preprocessor.tokenizer.model.content
    encoder = open_encoder(preset)
    np.testing.assert_array_equal(encoder(TEXTS), again.encode(TEXTS))


def test_a_damaged_model_file_is_named(preset, tmp_path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(preset, folder)
    path = folder / "sentencepiece.model"
    path.write_bytes(path.read_bytes()[:-9])
    with raises(ValueError, path=path, received=True):
        LaBSE.from_preset(folder)
    path.unlink()
    with raises(ValueError, "sentencepiece.model", received=True):
        LaBSE.from_preset(folder)


# === Hugging Face ===


def test_vectors_are_those_of_the_directory(directory) -> None:
    assert not needs_tokenizer_json(directory)
    model = load_model(directory)
    assert model.preprocessor.prefix == "" and model.preprocessor.sequence_length == 12
    theirs = Tokenizer.from_file(str(directory / "tokenizer.json"))
    features = checkpoints.from_huggingface(directory, preprocessor=None)
    for text in TEXTS:
        ids = np.array([theirs.encode(text).ids[:12]], np.int32)
        row = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": 0 * ids + 1}
        vector = np.asarray(features(row))[0]
        np.testing.assert_allclose(model.encode(text), vector, atol=1e-6)


def test_a_default_prompt_is_the_prefix(directory, tmp_path) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(directory, folder)
    foreign.add_modules(folder, foreign.pooling("mean_tokens"), foreign.NORMALIZE)
    settings = folder / "config_sentence_transformers.json"
    prompts = {"prompts": {"query": "query: ", "none": ""}}
    for name, wanted in (("query", "query: "), ("none", ""), (None, "")):
        foreign.write_json(settings, prompts | {"default_prompt_name": name})
        found = checkpoints.from_huggingface(folder)
        assert found.preprocessor.prefix == wanted
        assert found.pooling == "mean"
    foreign.write_json(settings, {"prompts": {"a": 1}, "default_prompt_name": "a"})
    with raises(ValueError, path=settings, received=1):
        checkpoints.from_huggingface(folder)


def test_export_to_hugging_face_and_back(model, directory, tmp_path) -> None:
    folder = checkpoints.to_huggingface(model, tmp_path / "hf")
    assert not (folder / "vocab.txt").exists()
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [text for text in TEXTS + random_texts(500) if "<" not in text]
    ours = model.text_preprocessor().tokenizer(texts).to_list()
    assert [row.ids[1:-1] for row in theirs.encode_batch(texts)] == ours
    assert theirs.get_vocab_size() == len(unigram.SCORED)
    again = checkpoints.from_huggingface(folder)
    assert again.preprocessor.prefix == "query: "
    np.testing.assert_allclose(again.encode(TEXTS), model.encode(TEXTS), atol=1e-6)


def broken(path: Path, **changes: object) -> None:
    foreign.change_json(path, **changes)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"normalizer": {"type": "Lowercase"}}, ("Lowercase",)),
        ({"normalizer": {"type": "NFKC"}}, ("NFKC",)),
        ({"normalizer": None}, ("Precompiled",)),
        ({"normalizer": {"type": "Precompiled"}}, ("precompiled_charsmap",)),
        ({"pre_tokenizer": {"type": "Whitespace"}}, ("Metaspace",)),
        ({"post_processor": {"type": "ByteLevel"}}, ("<s> $A </s>",)),
        ({"model": {"type": "Unigram", "unk_id": 3, "vocab": [["<s>"]]}}, ("pieces",)),
        ({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0]]}}, ("<mask>",)),
        ({"model": {"type": "Unigram", "byte_fallback": True}}, ("bytes",)),
        ({"added_tokens": [{"id": 9, "content": "x", "special": False}]}, ("'x'",)),
        ({"added_tokens": [{"id": 99, "content": "x", "special": True}]}, (99,)),
    ],
)
def test_other_tokenizers_are_refused(directory, tmp_path, changes, names) -> None:
    shutil.copy(directory / "tokenizer.json", tmp_path)
    broken(tmp_path / "tokenizer.json", **changes)
    with raises(ValueError, *names, path="tokenizer.json", received=True):
        read_unigram(tmp_path)
    assert needs_tokenizer_json(tmp_path)


def test_a_table_that_is_too_small_is_refused(directory) -> None:
    with raises(ValueError, path="tokenizer.json", received=len(unigram.SCORED)):
        read_unigram(directory, 9)


def test_convert_writes_a_prefix(directory, tmp_path, capsys) -> None:
    output = tmp_path / "model"
    assert not run("convert", directory, "--prefix", "query: ", "--output", output)
    assert LaBSE.from_preset(output).preprocessor.prefix == "query: "
    assert "parity" in capsys.readouterr().out
    # And a preset of another prefix.
    assert not run("convert", output, "--prefix", "", "--output", tmp_path / "plain")
    assert LaBSE.from_preset(tmp_path / "plain").preprocessor.prefix == ""


@pytest.mark.parity
def test_vectors_are_those_of_transformers(model, tmp_path) -> None:
    """What sentence-transformers and PyTorch compute with the exported directory."""
    library = pytest.importorskip("sentence_transformers", reason="extra `parity`")
    folder = checkpoints.to_huggingface(model, tmp_path / "hf")
    texts = [text for text in TEXTS if "<" not in text]
    theirs = library.SentenceTransformer(str(folder), device="cpu").encode(texts)
    cosines = (theirs * model.encode(texts)).sum(axis=1)
    assert cosines.min() > 0.99999


# === Trimming ===


def test_kept_text_is_split_as_before(model) -> None:
    tokenizer = model.text_preprocessor().tokenizer
    rng = np.random.default_rng(0)
    texts = random_texts(400, seed=1)
    old = tokenizer(texts).to_list()
    for _ in range(5):
        kept = rng.choice(len(unigram.SCORED), 25, replace=False)
        kept = sorted({*range(5), *kept.tolist()})
        smaller = tokenizer.with_tokens(kept)
        assert smaller.vocabulary == [tokenizer.vocabulary[i] for i in kept]
        new = smaller(texts).to_list()
        known = [set(row) <= set(kept) for row in old]
        assert 0 < sum(known) < len(texts)
        for before, after, whole in zip(old, new, known, strict=True):
            if whole:
                assert [kept[i] for i in after] == before


def test_trim_keeps_vectors_and_characters(model) -> None:
    small = trimming.trim(model, {"en": ["query: sunny day", "moon"]}, progress=False)
    tokenizer = small.text_preprocessor().tokenizer
    assert tokenizer.special_tokens == ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    assert {"▁sun", "ny", "▁day", "▁moon", "q", "▁", "▁a"} <= set(tokenizer.vocabulary)
    assert not {"▁दिन", "sun", "[unused1]"} & set(tokenizer.vocabulary)
    assert small.preprocessor.prefix == "query: "
    texts = ["sunny moon", "day", "bad"]
    np.testing.assert_allclose(small.encode(texts), model.encode(texts), atol=1e-6)


def test_max_tokens_counts_languages_alike(model) -> None:
    tokenizer = model.text_preprocessor().tokenizer
    texts = {"en": ["sunny"] * 50 + ["moon day"] * 9, "hi": ["दिन"]}
    choose = dict(keep_characters=False, progress=False)
    whole = trimming.choose_tokens(tokenizer, texts, **choose)
    names = [tokenizer.vocabulary[i] for i in whole]
    assert {"▁sun", "ny", "▁moon", "▁day", "▁दिन"} == set(names[5:])
    kept = trimming.choose_tokens(tokenizer, texts, max_tokens=8, **choose)
    names = [tokenizer.vocabulary[i] for i in kept]
    assert set(names[5:]) == {"▁दिन", "▁sun", "ny"}
    with raises(ValueError, argument="max_tokens", received=5):
        trimming.choose_tokens(tokenizer, texts, max_tokens=5, **choose)
    with raises(ValueError, argument="max_tokens", received=9):
        trimming.choose_tokens(tokenizer, languages=["hi"], max_tokens=9)


def test_trim_of_a_preset(preset, tmp_path, capsys) -> None:
    corpus = tmp_path / "en-hi.tsv"
    rows = [f"{a} {b}\tदिन {b}" for a in ("sunny", "moon") for b in ("day", "sun", "a")]
    corpus.write_text("\n".join(rows) + "\n", encoding="utf-8")
    output = tmp_path / "small"
    arguments = ("--corpus", corpus, "--max-tokens", 40, "-o", output)
    assert not run("trim", preset, *arguments, "--held-out", corpus)
    old, new = LaBSE.from_preset(preset), LaBSE.from_preset(output)
    assert new.backbone.vocabulary_size <= 40 < old.backbone.vocabulary_size
    assert presets.size_of(output) < presets.size_of(preset)
    texts = ["sunny day", "दिन a"]
    np.testing.assert_allclose(new.encode(texts), old.encode(texts), atol=1e-6)
    assert "100.0%" in capsys.readouterr().out
    refuses(
        capsys,
        ("trim", preset, "--languages", "hi", "--max-tokens", 9, "-o", tmp_path / "x"),
        argument="max_tokens",
        received=9,
    )


def test_a_student_with_wordpiece_and_fewer_blocks(preset, tmp_path) -> None:
    vocabulary = tmp_path / "vocab.txt"
    words = [*foreign.SPECIAL, "sunny", "day", "##ny"]
    vocabulary.write_text("\n".join(words) + "\n")
    trimming.shrink_preset(preset, tmp_path / "student", vocabulary=vocabulary)
    student, teacher = (
        LaBSE.from_preset(tmp_path / "student"),
        LaBSE.from_preset(preset),
    )
    assert isinstance(student.text_preprocessor().tokenizer, WordPieceTokenizer)
    index = teacher.text_preprocessor().tokenizer.token_to_id
    tables = [
        np.asarray(m.backbone.token_embedding.embeddings) for m in (student, teacher)
    ]
    wanted = tables[1][[index("▁sun"), index("ny")]].mean(axis=0)
    np.testing.assert_allclose(tables[0][5], wanted, atol=1e-6)
    np.testing.assert_array_equal(tables[0][0], tables[1][1])  # [PAD] is <pad>
    trimming.shrink_preset(preset, tmp_path / "one", layers=1, max_sequence_length=8)
    one = LaBSE.from_preset(tmp_path / "one")
    assert one.backbone.num_layers == 1 and one.preprocessor.prefix == "query: "


def test_what_needs_wordpiece_says_so(preset, tmp_path, capsys) -> None:
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("sunny\n")
    output = ("-o", tmp_path / "out")
    extend = ("extend", preset, "--tokens", tokens, *output)
    refuses(capsys, extend, "--vocab", received="SentencePieceTokenizer")
    pairs = tmp_path / "en-hi.tsv"
    pairs.write_text("sunny day\tदिन\n", encoding="utf-8")
    assert run("prepare", pairs, "--model", preset, *output) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    check_message(message, "train", received="SentencePieceTokenizer")


# === SavedModels ===


def test_a_saved_model_holds_the_tokenizer_and_the_prefix(
    model, tmp_path, run_python
) -> None:
    from labse_tf.export import export_saved_model
    from labse_tf.export.check.operations import foreign_operations, graph_operations
    from labse_tf.saved_model import read_meta_graph

    folder = export_saved_model(model, tmp_path / "here" / "1", texts=TEXTS)
    assert (folder / "assets" / "sentencepiece.model").is_file()
    operations = graph_operations(read_meta_graph(folder).graph_def)
    assert "TFText>FastSentencepieceTokenize" in {o.name for o in operations}
    assert set(foreign_operations(operations)) <= {"VarHandleOp.debug_name"}
    moved = folder.rename(tmp_path / "moved")
    np.save(tmp_path / "vectors.npy", model.encode(TEXTS))
    run_python(
        f"""
        import sys
        import numpy as np, tensorflow as tf, tensorflow_text
        texts = {TEXTS!r}
        wanted = np.load({str(tmp_path / "vectors.npy")!r})
        found = tf.saved_model.load({str(moved)!r})(tf.constant(texts))["default"]
        assert np.abs(found.numpy() - wanted).max() < 1e-6
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            graph = tf.compat.v1.saved_model.loader.load(
                session, ["serve"], {str(moved)!r}
            )
            signature = graph.signature_def["serving_default"]
            (given,), (made,) = signature.inputs.values(), signature.outputs.values()
            found = session.run(made.name, {{given.name: texts}})
        assert np.abs(found - wanted).max() < 1e-6
        assert "labse_tf" not in sys.modules
        """
    )


@pytest.mark.slow
def test_the_check_of_a_saved_model_passes(model, tmp_path) -> None:
    from labse_tf.export import check_saved_model, export_saved_model

    folder = export_saved_model(model, tmp_path / "1", texts=TEXTS)
    assert check_saved_model(folder).passed
