"""What a step of lazy AdamW costs beside a dense one, and how both learn.

    python benchmarks/optimizer.py                      # a table of medians
    python benchmarks/optimizer.py --dims 768            # takes 14 GB of memory
    python benchmarks/optimizer.py --curve              # loss by step, made-up pairs
    python benchmarks/optimizer.py --curve --pairs a-hi.tsv b-ta.tsv --vocab vocab.txt

A step has 512 pairs of 24 tokens a side, drawn by a Zipf law over 4,995 words, which
lie scattered over the table, so that both tables have the same rows to change.
"optimiser" is `apply_gradients` alone on the gradient that a lookup gives; "training
step" is forward pass, loss and gradients of an encoder without blocks as well. Printed
as Markdown: the median, and the fastest step in brackets.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.models import DualEncoder, LaBSE, LaBSEBackbone
from labse_tf.optimizers import WarmupLinearDecay, adamw

if TYPE_CHECKING:
    from collections.abc import Iterable

PAIRS, TOKENS, WORDS = 512, 24, 4_995
SPECIAL = 5  # Ids of [PAD] and the others, which no text has.


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--dims", type=int, nargs="+", default=[256])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[5_000, 501_153])
    parser.add_argument("--steps", type=int, default=15, help="steps that are timed")
    parser.add_argument("--curve", action="store_true", help="loss by step instead")
    parser.add_argument("--pairs", nargs="+", help="files of pairs, for --curve")
    parser.add_argument("--vocab", help="their vocab.txt")
    parser.add_argument("--curve-steps", type=int, default=600)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    arguments = parser.parse_args()
    if bool(arguments.pairs) != bool(arguments.vocab):
        parser.error("--pairs and --vocab go together")
    if arguments.curve:
        print_curve(arguments)
    else:
        print_costs(arguments)


# === Cost ===


def print_costs(arguments: argparse.Namespace) -> None:
    """Medians over steps (and the fastest step), a row for each table."""
    print("| D | vocabulary | rows a step | optimiser, dense ms | lazy ms ", end="")
    print("| training step, dense ms | lazy ms |")
    print("|" + "---|" * 7)
    for dim in arguments.dims:
        for vocabulary in arguments.vocabularies:
            ids = scattered_words(vocabulary)
            cells = [f"{dim}", f"{vocabulary:,}", f"{len(np.unique(ids)):,}"]
            for measure in (optimizer_step, training_step):
                for lazy in (False, True):
                    seconds = time_steps(measure(ids, vocabulary, dim, lazy), arguments)
                    middle, fastest = np.median(seconds), np.min(seconds)
                    cells.append(f"{1e3 * middle:.0f} ({1e3 * fastest:.0f})")
            print("| " + " | ".join(cells) + " |", flush=True)


def scattered_words(vocabulary: int) -> np.ndarray:
    """Token ids of both sides of a batch: int32 `(2, PAIRS, TOKENS)`."""
    rng = np.random.default_rng(0)
    places = SPECIAL + rng.permutation(vocabulary - SPECIAL)[:WORDS]
    return places[zipf(rng, (2, PAIRS, TOKENS), WORDS)].astype(np.int32)


def zipf(rng: np.random.Generator, shape: tuple[int, ...], words: int) -> np.ndarray:
    """Ranks from 0, where the k-th occurs in proportion to 1 / k."""
    weights = np.cumsum(1 / np.arange(1, words + 1))
    return np.searchsorted(weights, rng.random(shape) * weights[-1])


def make_optimizer(
    rate: Any, lazy: bool, decay: float = 0.01
) -> keras.optimizers.Optimizer:
    """The recipes' optimiser, clipped and decaying."""
    return adamw(rate, weight_decay=decay, clip_norm=1.0, lazy=lazy)


def optimizer_step(
    ids: np.ndarray, vocabulary: int, dim: int, lazy: bool
) -> Callable[[], Any]:
    """A function that changes a table by the gradient of a lookup."""
    table = keras.Variable(
        keras.initializers.RandomNormal(stddev=0.02, seed=0)((vocabulary, dim)),
        name="embeddings",
    )
    optimizer = make_optimizer(1e-3, lazy)
    optimizer.build([table])
    rows = tf.constant(ids.reshape(-1))
    values = tf.random.normal([ids.size, dim], stddev=1e-3, seed=0)

    @tf.function
    def step() -> None:
        shape = tf.constant([vocabulary, dim])
        gradient = tf.IndexedSlices(values, rows, shape)
        optimizer.apply_gradients([(gradient, table)])

    return step


def training_step(
    ids: np.ndarray, vocabulary: int, dim: int, lazy: bool
) -> Callable[[], Any]:
    """A function that trains an encoder without blocks on one batch."""
    dual = make_dual(vocabulary, dim, make_optimizer(1e-3, lazy))
    batch = {"source": features(ids[0]), "target": features(ids[1])}
    step = tf.function(dual.train_step)
    return lambda: step(batch)


def time_steps(step: Callable[[], Any], arguments: argparse.Namespace) -> np.ndarray:
    """Seconds of each step, after three that do not count."""
    seconds = []
    for _ in range(arguments.steps + 3):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    del step
    # The next table may need the memory of this one.
    keras.backend.clear_session()
    gc.collect()
    return np.array(seconds[3:])


def make_dual(
    vocabulary: int, dim: int, optimizer: keras.optimizers.Optimizer
) -> DualEncoder:
    """An encoder without blocks under mean pooling, compiled."""
    keras.utils.set_random_seed(0)
    backbone = LaBSEBackbone(vocabulary, 0, 1, dim, 1, dropout=0.0)
    dual = DualEncoder(LaBSE(backbone, pooling="mean"))
    dual.compile(optimizer, AdditiveMarginSoftmax(margin=0.3, scale=20.0))
    optimizer.build(dual.trainable_variables)
    return dual


def features(ids: np.ndarray) -> dict[str, Any]:
    """What an encoder is fed, for rows without padding."""
    ids = tf.constant(ids, tf.int32)
    return {
        "token_ids": ids,
        "segment_ids": tf.zeros_like(ids),
        "padding_mask": tf.ones_like(ids),
    }


# === Learning ===


def print_curve(arguments: argparse.Namespace) -> None:
    """Loss of both optimisers by step on the same batches, and what they learned."""
    curves, ends = [], []
    for lazy in (False, True):
        steps = arguments.curve_steps
        if arguments.pairs:
            vocabulary, batches, held_out = text_batches(arguments, steps)
        else:
            vocabulary, batches, held_out = made_up_batches(steps)
        rate = WarmupLinearDecay(
            arguments.learning_rate, steps, warmup_steps=steps // 20
        )
        dual = make_dual(
            vocabulary, 128, make_optimizer(rate, lazy, arguments.weight_decay)
        )
        train = tf.function(dual.train_step, reduce_retracing=True)
        losses, start = [], time.perf_counter()
        for batch in batches:
            dual.reset_metrics()
            losses.append(float(train(batch)["loss"]))
        seconds = time.perf_counter() - start
        dual.reset_metrics()
        values = dual.test_on_batch(held_out, return_dict=True)
        curves.append(np.array(losses))
        ends.append({**values, "ms": 1e3 * seconds / len(losses)})
    print(f"{vocabulary:,} entries, mean loss of the steps up to\n")
    print("| step | dense | lazy |\n|---|---|---|")
    edges = np.unique(np.geomspace(max(len(curves[0]) // 60, 1), len(curves[0]), 12))
    before = 0
    for edge in edges.astype(int):
        means = (f"{curve[before:edge].mean():.4f}" for curve in curves)
        print(f"| {edge} | " + " | ".join(means) + " |")
        before = edge
    for name, label in (
        ("loss", "held-out loss"),
        ("ranking_accuracy", "held-out accuracy"),
        ("ms", "ms a step"),
    ):
        print(
            f"| {label} | " + " | ".join(f"{float(e[name]):.4g}" for e in ends) + " |"
        )


def made_up_batches(
    steps: int, vocabulary: int = 40_000
) -> tuple[int, Iterator[dict[str, Any]], dict[str, Any]]:
    """Sentences of Zipf words; a word's translation is the id half a table on.

    A fifth of the words of a translation are others, and its order is another.
    """
    rng = np.random.default_rng(0)
    words = (vocabulary - SPECIAL) // 2

    def batch() -> dict[str, Any]:
        source = zipf(rng, (PAIRS, TOKENS), words)
        noise = zipf(rng, source.shape, words)
        target = np.where(rng.random(source.shape) < 0.2, noise, source) + words
        target = rng.permuted(target, axis=1)
        return {
            "source": features(SPECIAL + source),
            "target": features(SPECIAL + target),
        }

    held_out = batch()
    return vocabulary, (batch() for _ in range(steps)), held_out


def text_batches(
    arguments: argparse.Namespace, steps: int
) -> tuple[int, Iterable[dict[str, Any]], dict[str, Any]]:
    """Batches of real pairs, and one more that is not trained on."""
    from labse_tf.data import load_pairs, sentence_pairs
    from labse_tf.preprocessing import SentencePreprocessor
    from labse_tf.tokenizers import WordPieceTokenizer

    tokenizer = WordPieceTokenizer(arguments.vocab)
    preprocessor = SentencePreprocessor(tokenizer, sequence_length=32)
    pairs = load_pairs(arguments.pairs)
    dataset = sentence_pairs(
        pairs, preprocessor, batch_size=PAIRS, steps=steps + 1, seed=0
    )
    held_out = next(iter(dataset.skip(steps).take(1)))
    return tokenizer.vocabulary_size, dataset.take(steps), held_out


if __name__ == "__main__":
    main()
