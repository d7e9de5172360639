"""Random text through tokenizer, encoder and SavedModel; damaged presets."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import h5py
import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from helpers.errors import Fields, raises
from helpers.models import make_model
from helpers.random_text import KINDS, Text, random_texts
from labse_tf import presets
from labse_tf.export import export_saved_model
from labse_tf.models import LaBSE
from labse_tf.preprocessing import MaskedLMPreprocessor
from labse_tf.tokenizers import WordPieceTokenizer, learn_vocabulary

NAMES = ["labse-nano", "labse-mini"]
WINDOW = 4096

# === Text ===


@pytest.fixture(scope="module")
def models() -> dict[str, LaBSE]:
    return {name: LaBSE.from_preset(name) for name in NAMES}


@pytest.fixture(scope="module")
def served(models, tmp_path_factory) -> dict[str, object]:
    """Each model's SavedModel with the text interface."""
    folder = tmp_path_factory.mktemp("served")
    loaded = {}
    for name, model in models.items():
        export_saved_model(model, folder / name)
        loaded[name] = tf.saved_model.load(str(folder / name))
    return loaded


def as_bytes(text: Text) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def as_unicode(text: Text) -> str:
    """The text without what is no UTF-8, by Python's decoder."""
    return as_bytes(text).decode("utf-8", "ignore")


def check_ids(tokenizer: WordPieceTokenizer, texts: list[Text]) -> None:
    ids = tokenizer(texts)
    clean = tokenizer([as_unicode(text) for text in texts])
    assert ids.nrows() == len(texts)
    np.testing.assert_array_equal(ids.row_splits, clean.row_splits)
    np.testing.assert_array_equal(ids.values, clean.values)
    assert ids.values.numpy().min() >= 0
    assert ids.values.numpy().max() < tokenizer.vocabulary_size
    # What a text says is text: the special tokens in it are none.
    special = set(tokenizer.special_token_ids.values()) - {tokenizer.unk_token_id}
    assert not special & set(ids.values.numpy().tolist())


def check_rows(model: LaBSE, texts: list[Text]) -> None:
    features = model.preprocessor(texts)
    ids, mask = features["token_ids"].numpy(), features["padding_mask"].numpy()
    tokenizer, lengths = model.preprocessor.tokenizer, mask.sum(axis=1)
    assert ids.shape == mask.shape == (len(texts), lengths.max())
    assert 2 <= lengths.min() and lengths.max() <= model.preprocessor.sequence_length
    assert (np.diff(mask, axis=1) <= 0).all()
    assert (ids[:, 0] == tokenizer.cls_token_id).all()
    assert (ids[np.arange(len(ids)), lengths - 1] == tokenizer.sep_token_id).all()
    assert (ids[mask == 0] == tokenizer.pad_token_id).all()


def check_vectors(
    model: LaBSE, saved: object, texts: list[Text], rng: np.random.Generator
) -> None:
    vectors = model.encode(texts)
    assert vectors.shape == (len(texts), model.embedding_dim)
    # NaN fails this too.
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
    for index in rng.choice(len(texts), len(texts) // 100 + 1, replace=False):
        np.testing.assert_allclose(
            model.encode(texts[index]), vectors[index], atol=1e-5, rtol=0
        )
    # Texts of like length together, or most of the time would go into padding.
    lengths = model.preprocessor.token_rows(texts).row_lengths().numpy()
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(texts):
        chosen = order[start : start + rng.choice([1, 3, 200, 512])]
        batch = tf.constant([as_bytes(texts[index]) for index in chosen])
        np.testing.assert_allclose(
            saved(batch)["default"], vectors[chosen], atol=1e-5, rtol=0
        )
        start += len(chosen)


def check_texts(count: int, seed: int, models, served) -> Counter[str]:
    """Sends strings through everything and counts them by kind."""
    counts: Counter[str] = Counter()
    rng = np.random.default_rng(seed)
    drawn = random_texts(count, seed)
    while window := list(itertools.islice(drawn, WINDOW)):
        counts.update(kind for kind, _ in window)
        texts = [text for _, text in window]
        for name, model in models.items():
            check_ids(model.preprocessor.tokenizer, texts)
            check_rows(model, texts)
            check_vectors(model, served[name], texts, rng)
    assert set(counts) == set(KINDS)
    return counts


def test_any_text_has_a_vector(models, served):
    assert check_texts(3000, 0, models, served).total() == 3000


@pytest.mark.slow
def test_many_texts_have_vectors(models, served, capsys):
    # The bag of tokens takes all, the six blocks of the other model a part.
    one = NAMES[0]
    counts = check_texts(60_000, 1, {one: models[one]}, {one: served[one]})
    assert counts.total() == 60_000
    assert check_texts(4000, 2, models, served).total() == 4000
    with capsys.disabled():
        print()
        for kind, count in counts.most_common():
            print(f"{count:>8,}  {kind}")


def test_what_is_no_utf8_is_deleted(models, served):
    """Lone surrogates in strings, their bytes and other bytes: one rule everywhere."""
    damaged = [
        "sta\ud800tion",
        b"sta\xed\xa0\x80tion",
        b"sta\xfftion",
        b"station\xe0\xa4",
    ]
    for name, model in models.items():
        whole = model.encode("station")
        vectors = model.encode(damaged)
        np.testing.assert_allclose(vectors, [whole] * 4, atol=1e-6)
        outputs = served[name](tf.constant([as_bytes(text) for text in damaged]))
        np.testing.assert_allclose(outputs["default"], vectors, atol=1e-5)
        rows = model.preprocessor.token_rows(["station", *damaged]).to_list()
        assert all(row == rows[0] for row in rows)


@pytest.mark.parametrize(
    "settings",
    [
        {"lowercase": False},
        {"lowercase": True, "strip_accents": True},
        {"compat": "tfhub"},
        {"compat": "tfhub", "lowercase": True},
    ],
)
def test_any_text_has_ids_of_the_vocabulary(models, settings):
    vocabulary = models[NAMES[0]].preprocessor.tokenizer.vocabulary
    tokenizer = WordPieceTokenizer(vocabulary, **settings)
    texts = [text for _, text in random_texts(1000, 2)]
    if tokenizer.compat == "bert":
        check_ids(tokenizer, texts)
    ids = tokenizer(texts)
    assert ids.nrows() == len(texts)
    assert 0 <= ids.values.numpy().min()
    assert ids.values.numpy().max() < tokenizer.vocabulary_size
    for text, row in zip(texts[:50], ids[:50].to_list(), strict=True):
        assert tokenizer([text]).to_list() == [row]


def test_any_text_can_be_masked(models):
    tokenizer = models[NAMES[0]].preprocessor.tokenizer
    preprocessor = MaskedLMPreprocessor(tokenizer, 64, max_predictions=13)
    texts = [as_bytes(text) for _, text in random_texts(1000, 3)]
    for step, batch in enumerate([texts, (texts[:500], texts[500:])]):
        features = {k: v.numpy() for k, v in preprocessor(batch, (0, step)).items()}
        ids, weights = features["token_ids"], features["mask_weights"]
        assert ids.shape[1] == 64 and 0 <= ids.min()
        assert ids.max() < tokenizer.vocabulary_size
        # A [CLS] for each sentence or pair: none is lost.
        starts = (features["position_ids"] == 0) & (features["padding_mask"] > 0)
        assert starts.sum() == (1000 if step == 0 else 500)
        assert (ids[starts] == tokenizer.cls_token_id).all()
        special = set(tokenizer.special_token_ids.values())
        assert not special & set(features["mask_ids"][weights > 0].tolist())


# === Presets ===

# What a value of a configuration becomes.
VALUES = [
    *(None, True, False, 0, -1, 1, 2, 3, 17, 10**6, 10**12, 10**400, -(10**30)),
    *(0.5, -0.5, 16.0, 1e-30, 1e300, float("nan"), float("inf"), -float("inf")),
    *("", "16", "mean", "relu", "glu", "threshold", "fixed", "tfhub", "false"),
    *("float32", "\ud800", "\0", "../vocab.txt", "a" * 5000),
    *([], [16], {}, {"class_name": "Dense", "config": {}}, [[[[]]]]),
]
TREES = [  # JSON, but no configuration
    b"",
    b"null",
    b"[]",
    b"{}",
    b"[" * 100_000,
    b'{"format":' * 20_000,
    b"1" * 5000,
    b'{"format": ' + b"1" * 5000 + b"}",
    b"\0" * 64,
    b"\x89HDF\r\n\x1a\n",
]
CHARSETS = ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7", "cp037"]


def places(tree: dict | list, path: tuple = ()) -> list[tuple]:
    """Where in nested objects the values are."""
    found = []
    for key in tree if isinstance(tree, dict) else range(len(tree)):
        found.append((*path, key))
        if isinstance(tree[key], (dict, list)):
            found += places(tree[key], (*path, key))
    return found


def change_values(rng: random.Random, path: Path) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(rng.choice([1, 1, 1, 2])):
        *way, key = rng.choice(places(config))
        tree = config
        for step in way:
            tree = tree[step]
        change = rng.randrange(8)
        if change == 0:
            del tree[key]
        elif change == 1 and isinstance(tree, dict):
            tree[rng.choice(["name", "dtype", "trainable", "new", ""])] = rng.choice(
                VALUES
            )
        else:
            tree[key] = rng.choice(VALUES)
    path.write_text(json.dumps(config), encoding="utf-8")


def change_bytes(rng: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    change = rng.randrange(6)
    if change == 0:
        data = data[: rng.randrange(len(data))]
    elif change == 1:
        for _ in range(rng.choice([1, 1, 10])):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif change == 2:
        place = rng.randrange(len(data))
        data[place:place] = rng.randbytes(rng.randint(1, 20))
    elif change == 3:
        place = rng.randrange(len(data))
        del data[place : place + rng.randint(1, 200)]
    elif change == 4:
        data = rng.choice(TREES)
    else:
        data = data.decode("latin-1").encode(rng.choice(CHARSETS), "replace")
    path.write_bytes(bytes(data))


def change_tokens(rng: random.Random, path: Path) -> None:
    """The same number of tokens as a rule, so that other checks are reached."""
    lines = path.read_bytes().splitlines(keepends=True)
    for _ in range(rng.choice([1, 1, 3])):
        row = rng.randrange(len(lines))
        lines[row] = rng.choice(
            [
                *(
                    b"\n",
                    b" \n",
                    b"##\n",
                    b"###\n",
                    b"\0\n",
                    b"\t\n",
                    b"\xe2\x80\xa8\n",
                ),
                *(b"\xff\n", "\ufeffsun\n".encode(), b"[UNK]\n", b"sun", b"sun\r\n"),
                *(b"a" * 100_000 + b"\n", "\u0301\n".encode(), "##\u0301\n".encode()),
                *(b"##" * 50 + b"\n", "\U0010ffff\n".encode(), b"[[3]]\n", lines[0]),
            ]
        )
    if rng.randrange(4) == 0:
        del lines[rng.randrange(len(lines))]
    path.write_bytes(b"".join(lines))


def change_weights(rng: random.Random, path: Path) -> None:
    """Another HDF5 file: it opens, but something in it is not as it should be."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(
            lambda name, item: (
                names.append(name) if isinstance(item, h5py.Dataset) else None
            )
        )
        name = rng.choice(names)
        array = file[name][()]
        change = rng.randrange(12)
        if change == 0:
            array.flat[rng.randrange(array.size)] = rng.choice(
                [np.nan, np.inf, -np.inf] if array.dtype.kind == "f" else [-128]
            )
            file[name][...] = array
            return
        del file[name]
        if change == 1:
            file.create_group(name)
        elif change == 2:
            file[name] = h5py.SoftLink("/nowhere")
        elif change == 3:
            file[name] = h5py.ExternalLink("other.h5", "/nowhere")
        elif change == 4:
            file[name] = h5py.Empty("f")
        elif change == 5:
            # A shape that would take terabytes and holds nothing.
            file.create_dataset(name, (10**7, 10**6), "f", chunks=(1024, 1024))
        elif change == 6:
            file.create_dataset(
                name, data=np.array(["x"] * array.size, "S1").reshape(array.shape)
            )
        elif change == 7:
            file.create_dataset(
                name, data=array.astype(rng.choice(["complex64", "bool", ">f8"]))
            )
        elif change == 8:
            file.create_dataset(name, array.shape, h5py.string_dtype())
        elif change == 9:
            file.create_dataset(name, array.shape, np.dtype([("a", "f4"), ("b", "i4")]))
        elif change == 10:
            file.create_dataset(name, data=array.reshape(-1)[: array.size // 2])
        file.create_dataset("surplus", data=[1.0])


CHANGES = {
    presets.CONFIG: [change_values, change_values, change_bytes],
    presets.VOCABULARY: [change_tokens, change_tokens, change_bytes],
    presets.WEIGHTS: [change_weights, change_weights, change_bytes],
}


def sign(folder: Path) -> None:
    """Gives the configuration the hashes that the files have now."""
    path = folder / presets.CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["sha256"] = {
        name: presets.sha256(folder / name) for name in config["sha256"]
    }
    path.write_text(json.dumps(config), encoding="utf-8")


@pytest.fixture(scope="module")
def whole_presets(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("whole")
    for storage, pooling in (
        ("float32", "pooler"),
        ("int8", "weighted_mean"),
        ("int4", "weighted_mean"),
    ):
        width = 32 if storage == "int4" else 16
        model = make_model(
            pooling, num_layers=1, max_sequence_length=20, hidden_dim=width
        )
        model.save_to_preset(folder / storage, storage=storage)
    return sorted(folder.iterdir())


def load_damaged(whole: Path, folder: Path, seed: int, name: str, signed: bool) -> str:
    """Loads a preset with one damaged file; what came of it, in a word."""
    rng = random.Random(seed)
    shutil.copytree(whole, folder)
    change = rng.choice(CHANGES[name])
    change(rng, folder / name)
    if signed and name != presets.CONFIG:
        sign(folder)
    try:
        model = LaBSE.from_preset(folder)
    except (ValueError, OSError) as error:
        assert type(error) is ValueError or isinstance(error, OSError), repr(error)
        assert str(folder) in str(error), error
        return "refused"
    if signed or name == presets.CONFIG:
        vectors = model.encode(["sun moon", ""])
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-5
        return "works"
    # Without a new hash the file must be what it was.
    assert (folder / name).read_bytes() == (whole / name).read_bytes()
    return "unchanged"


def check_damage(count: int, whole_presets: list[Path], folder: Path) -> Counter[str]:
    """Damages presets in random ways and counts what came of it."""
    outcomes: Counter[str] = Counter()
    numbers = itertools.count()

    @hypothesis.settings(max_examples=count, deadline=None, database=None)
    @hypothesis.seed(0)
    @hypothesis.given(
        whole=st.sampled_from(whole_presets),
        seed=st.integers(0, 2**32),
        name=st.sampled_from(sorted(CHANGES)),
        signed=st.sampled_from([True, True, True, False]),
    )
    def check(whole: Path, seed: int, name: str, signed: bool) -> None:
        damaged = folder / str(next(numbers))
        outcome = load_damaged(whole, damaged, seed, name, signed)
        outcomes[f"{name} {outcome}"] += 1
        shutil.rmtree(damaged)
        # Each model that loads leaves its name and its functions with Keras.
        keras.backend.clear_session()

    check()
    return outcomes


def test_damaged_presets_are_refused_or_work(whole_presets, tmp_path):
    assert check_damage(4, whole_presets, tmp_path).total() >= 4


@pytest.mark.slow
def test_many_damaged_presets_are_refused_or_work(whole_presets, tmp_path, capsys):
    outcomes = check_damage(60, whole_presets, tmp_path)
    assert {f"{name} refused" for name in CHANGES} <= set(outcomes)
    with capsys.disabled():
        print()
        for outcome, count in outcomes.most_common():
            print(f"{count:>8,}  {outcome}")


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (("pooling",), 3, Fields(received=3)),
        (("pooling",), "max", Fields(argument="pooling")),
        (("backbone",), [], Fields("backbone", received=True)),
        (("backbone", "vocabulary_size"), 10**12, Fields(received=True)),
        (("backbone", "num_layers"), 10**9, Fields(received=True)),
        (("backbone", "max_sequence_length"), float("inf"), Fields(received=True)),
        (("backbone", "hidden_dim"), "16", Fields("TypeError")),
        (("backbone", "hidden_dim"), None, Fields("TypeError")),
        (("backbone", "num_layers"), 1.0, Fields(0, argument="num_layers")),
        (("backbone", "num_heads"), True, Fields(argument="num_heads")),
        (("backbone", "dropout"), float("nan"), Fields(0, 1, argument="dropout")),
        (("backbone", "layer_norm_epsilon"), -1, Fields(argument="layer_norm_epsilon")),
        (("backbone", "activation"), None, Fields("activation", received=True)),
        (("backbone", "dropuot"), 0.0, Fields(received="dropuot")),
        (("preprocessor", "sequence_length"), float("inf"), Fields("OverflowError")),
        (
            ("preprocessor", "sequence_length"),
            10**6,
            Fields(10**6, received=True),
        ),
        (("tokenizer", "lowercase"), "false", Fields(argument="lowercase")),
        (("tokenizer", "compat"), [], Fields("TypeError")),
        (
            ("sha256",),
            {"../vocab.txt": "0"},
            Fields("sha256", received=True),
        ),
        (("sha256",), {"vocab.txt": None}, Fields("sha256", received=True)),
    ],
)
def test_wrong_settings_are_named(whole_presets, tmp_path, place, value, expected):
    folder = tmp_path / "preset"
    shutil.copytree(whole_presets[0], folder)
    config = json.loads((folder / presets.CONFIG).read_text(encoding="utf-8"))
    tree = config
    for key in place[:-1]:
        tree = tree[key]
    tree[place[-1]] = value
    (folder / presets.CONFIG).write_text(json.dumps(config), encoding="utf-8")
    with raises(ValueError, expected) as caught:
        LaBSE.from_preset(folder)
    assert str(caught.value).startswith(str(folder / presets.CONFIG))


def test_a_setting_that_is_missing_is_named(whole_presets, tmp_path):
    folder = tmp_path / "preset"
    shutil.copytree(whole_presets[0], folder)
    config = json.loads((folder / presets.CONFIG).read_text(encoding="utf-8"))
    del config["backbone"]["hidden_dim"]
    (folder / presets.CONFIG).write_text(json.dumps(config), encoding="utf-8")
    with raises(ValueError, "KeyError", "'hidden_dim'", path="config.json"):
        LaBSE.from_preset(folder)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000], ids=["nested", "digits"])
def test_json_without_end_is_named(tmp_path, text):
    (tmp_path / presets.CONFIG).write_text(text)
    with raises(ValueError, "JSON", path="config.json"):
        LaBSE.from_preset(tmp_path)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full(3, np.nan, "f"), Fields("NaN", received=True)),
        (np.full(3, -np.inf, "f"), Fields("NaN", received=True)),
        (np.array(["a"] * 3, "S1"), Fields("weight", "|S1", received=True)),
        (np.ones(3, "complex64"), Fields("complex64", received=True)),
        (h5py.Empty("f"), Fields("(3,)", received="None")),
    ],
)
def test_wrong_weights_are_named(tmp_path, array, expected):
    path = tmp_path / presets.WEIGHTS
    with h5py.File(path, "w") as file:
        file.create_dataset("weight", data=array)
    with raises(ValueError, expected) as caught:
        presets.assign_weights(path, {"weight": keras.Variable(np.zeros(3))})
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "received"),
    [("weight", "integers"), ("token_embedding/embeddings", "None")],
)
def test_integers_without_a_scale_are_no_weights(tmp_path, name, received):
    path = tmp_path / presets.WEIGHTS
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=np.ones((3, 2), np.int8))
    with raises(ValueError, name, received=received):
        presets.assign_weights(path, {name: keras.Variable(np.zeros((3, 2)))})


def test_a_weight_that_claims_terabytes_is_not_read(tmp_path):
    path = tmp_path / presets.WEIGHTS
    with h5py.File(path, "w") as file:
        file.create_dataset("weight", (10**7, 10**6), "f", chunks=(1024, 1024))
    with raises(ValueError, "(3,)", received="(10000000, 1000000)"):
        presets.assign_weights(path, {"weight": keras.Variable(np.zeros(3))})


@pytest.mark.parametrize("section", ["backbone", "preprocessor", "tokenizer"])
@pytest.mark.parametrize("key", ["name", "dtype", "trainable"])
def test_settings_are_none_of_every_layer(whole_presets, tmp_path, section, key):
    folder = tmp_path / "preset"
    shutil.copytree(whole_presets[0], folder)
    config = json.loads((folder / presets.CONFIG).read_text(encoding="utf-8"))
    config[section][key] = "\ud800"
    (folder / presets.CONFIG).write_text(json.dumps(config), encoding="utf-8")
    with raises(ValueError, path="config.json", received=key):
        LaBSE.from_preset(folder)


@pytest.mark.parametrize("token", ["\0", "##\0", "a\0b", "##"])
def test_tokens_that_no_text_has_match_nothing(token):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "#", "a", "##b", token]
    assert WordPieceTokenizer(tokens)(["## a##b a\0b \0"]).to_list() == [
        [5, 5, 6, 5, 5, 1, 6, 7]
    ]


def test_tokens_are_as_short_as_the_op_takes(tmp_path):
    path = tmp_path / presets.VOCABULARY
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a" * 256, "##" + "b" * 256]
    assert WordPieceTokenizer(tokens)(["a" * 256 + "b" * 40]).to_list() == [[1]]
    path.write_text("\n".join([*tokens, "c" * 257]))
    with raises(ValueError, 7, 257, path="vocab.txt"):
        WordPieceTokenizer(path)


def test_a_learned_vocabulary_has_no_longer_ones(tmp_path):
    path = tmp_path / "hi.txt"
    path.write_text(("क" * 130 + " नमस्ते\n") * 9, encoding="utf-8")
    tokens = learn_vocabulary([path], 500, progress=False)
    assert max(len(token.encode()) for token in tokens) > 100
    WordPieceTokenizer(tokens)
