"""Random text through tokenizer, encoder and SavedModel; damaged presets."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from random_text import KINDS, Text, random_texts

from labse_tf import presets
from labse_tf.export import export_saved_model
from labse_tf.models import LaBSE
from labse_tf.preprocessing import MaskedLMPreprocessor
from labse_tf.tokenizers import WordPieceTokenizer

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
        # Both models have the same vocabulary.
        check_ids(models[NAMES[0]].preprocessor.tokenizer, texts)
        for name, model in models.items():
            check_rows(model, texts)
            check_vectors(model, served[name], texts, rng)
    assert set(counts) == set(KINDS)
    return counts


def test_any_text_has_a_vector(models, served):
    assert check_texts(3000, 0, models, served).total() == 3000


@pytest.mark.slow
def test_200000_texts_have_vectors(models, served, capsys):
    counts = check_texts(200_000, 1, models, served)
    assert counts.total() == 200_000
    with capsys.disabled():
        print()
        for kind, count in counts.most_common():
            print(f"{count:>8,}  {kind}")


def test_what_is_no_utf8_is_deleted(models, served):
    """Lone surrogates in strings, their bytes and other bytes: one rule everywhere."""
    damaged = ["sta\ud800tion", b"sta\xed\xa0\x80tion", b"sta\xfftion", b"station\xe0\xa4"]
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
