"""Runs of a bag of tokens: sums over shared tokens against the embedded joined text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.models import TOKENS, make_model, sentences
from labse_tf import presets
from labse_tf.alignment import embed_runs
from labse_tf.alignment.token_sums import is_bag_of_tokens
from labse_tf.encoders import Encoder, open_encoder
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.text import join_sentences, read_pairs
from labse_tf.tokenizers import WordPieceTokenizer

# "の" and "##の" are different tokens, so that two of them are not one word of both.
JAPANESE = ["の", "##の", "日", "。"]
ROOM = 14  # Tokens of a text in rows of 16.


def make_bag(pooling: str = "weighted_mean") -> LaBSE:
    """A model without blocks with large random positions and weights of tokens."""
    tokenizer = WordPieceTokenizer([*TOKENS, *JAPANESE])
    backbone = LaBSEBackbone(tokenizer.vocabulary_size, 0, 4, 16, 32)
    model = LaBSE(backbone, SentencePreprocessor(tokenizer, ROOM + 2), pooling)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "embeddings" in weight.path or "beta" in weight.path:
            weight.assign(rng.normal(size=weight.shape))
    return model


def encoder_of(model: LaBSE, asked: list[str] | None = None) -> Encoder:
    """An encoder that notes the texts which it is asked for."""

    def encode(texts: list[str]) -> np.ndarray:
        if asked is not None:
            asked.extend(texts)
        return model.encode(texts, progress=False)

    return Encoder("bag", encode, model.embedding_dim, "float32", model)


def expected(encode: Encoder, texts: list[str], longest: int) -> np.ndarray:
    """The vectors of the joined texts, `(longest, len(texts), D)`, 0 after the end."""
    vectors = np.zeros((longest, len(texts), encode.dimension), np.float32)
    for length in range(1, longest + 1):
        last = len(texts) - length + 1
        joined = [join_sentences(texts[i : i + length]) for i in range(last)]
        vectors[length - 1, :last] = encode(joined)
    return vectors


def found(encode: Encoder, texts: list[str], path: Path, longest: int) -> np.ndarray:
    """The vectors of `embed_runs`, in the form of `expected`."""
    runs = embed_runs(texts, encode, path, longest=longest)
    vectors = np.zeros((longest, len(texts), encode.dimension), np.float32)
    for length in range(1, longest + 1):
        starts = np.arange(len(texts) - length + 1)
        vectors[length - 1, : len(starts)] = runs.vectors(length, starts)
    return vectors


@pytest.mark.parametrize("pooling", ["mean", "weighted_mean"])
@pytest.mark.parametrize("dim", [16, 5])
def test_runs_are_the_joined_text_embedded(pooling, dim, tmp_path, monkeypatch):
    from labse_tf.alignment import runs

    monkeypatch.setattr(runs, "_BLOCK", 7)
    encode = encoder_of(make_bag(pooling)).cut(dim)
    # Empty sentences, repeated ones, and runs beyond the longest row.
    texts = [*sentences(12), "sun", "", "sun", *sentences(3), "no such word", "moon"]
    assert is_bag_of_tokens(encode)
    vectors = found(encode, texts, tmp_path / "runs.npy", 4)
    np.testing.assert_allclose(vectors, expected(encode, texts, 4), atol=1e-6)


def test_only_what_has_other_tokens_or_is_too_long_is_embedded(tmp_path):
    asked: list[str] = []
    model = make_bag()
    encode = encoder_of(model, asked)
    long = " ".join(["star"] * (ROOM + 1))
    texts = [
        "sun",
        "日の",
        "の日",
        "日。",
        "日",
        long,
        " ".join(["sky"] * ROOM),
        "hill",
    ]
    vectors = found(encode, texts, tmp_path / "runs.npy", 3)
    crossing = ["日のの日", "sun 日のの日", "日のの日日。"]
    assert sorted(asked[1:]) == sorted([long, *crossing])  # The first is a probe.
    assert model.truncated_texts == 1
    np.testing.assert_allclose(vectors, expected(encode, texts, 3), atol=1e-6)


def test_real_text_of_the_shipped_bag(tmp_path):
    encode = open_encoder("labse-nano")
    sample = presets.shipped_directory() / "sample"
    for code in ("hi", "ta", "zh", "ur"):
        texts = [pair.target for pair in read_pairs(sample / f"en-{code}.tsv")]
        vectors = found(encode, texts, tmp_path / f"{code}.npy", 4)
        right = expected(encode, texts, 4)
        np.testing.assert_allclose(vectors, right, atol=1e-6, err_msg=code)


def test_other_encoders_embed_text():
    bag = make_bag()
    assert not is_bag_of_tokens(bag.encode)
    assert not is_bag_of_tokens(lambda texts: np.ones((len(texts), 2)))
    assert not is_bag_of_tokens(encoder_of(make_model()))
    assert not is_bag_of_tokens(encoder_of(make_bag("cls")))
    assert not is_bag_of_tokens(encoder_of(bag.with_prefix("sun ")))
