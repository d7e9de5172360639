"""A tiny encoder and sentences of its vocabulary."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer

WORDS = "sun moon star sky day night good bad old new hill sea".split()
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


def make_model(pooling: str = "mean", **changes: object) -> LaBSE:
    settings = {"num_layers": 2, "num_heads": 4, "hidden_dim": 16} | changes
    backbone = LaBSEBackbone(
        vocabulary_size=len(TOKENS), intermediate_dim=32, **settings
    )
    preprocessor = SentencePreprocessor(WordPieceTokenizer(TOKENS), 16)
    return LaBSE(backbone, preprocessor, pooling=pooling)


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 14))) for _ in range(count)]


def pairs(model: LaBSE, steps: int, batch: int = 16) -> tf.data.Dataset:
    """Sentences of the first six words, translated into the last six, reversed."""
    rng = np.random.default_rng(1)
    translation = dict(zip(WORDS[:6], WORDS[6:], strict=True))
    texts = [
        " ".join(rng.choice(WORDS[:6], rng.integers(4, 12)))
        for _ in range(steps * batch)
    ]
    turned = [
        " ".join(translation[word] for word in reversed(text.split())) for text in texts
    ]
    dataset = tf.data.Dataset.from_tensor_slices((texts, turned))
    return dataset.batch(batch, drop_remainder=True).map(
        lambda s, t: {"source": model.preprocessor(s), "target": model.preprocessor(t)}
    )
