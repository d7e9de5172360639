"""What a step of lazy AdamW costs beside a dense one, and how both learn.

    python benchmarks/optimizer.py                      # a table of medians
    python benchmarks/optimizer.py --dims 768            # takes 14 GB of memory
    python benchmarks/optimizer.py --curve              # loss by step, made-up pairs
    python benchmarks/optimizer.py --curve --pairs a-hi.tsv b-ta.tsv --vocab vocab.txt
    python benchmarks/optimizer.py --curve --plot curve.png    # and a picture of it

A step has 512 pairs of 24 tokens a side, drawn by a Zipf law over 4,995 words, which
lie scattered over the table, so that both tables have the same rows to change.
"optimiser" is `apply_gradients` alone on the gradient that a lookup gives; "training
step" is forward pass, loss and gradients of an encoder without blocks as well. Printed
as Markdown: the median, and the fastest step in brackets.

For the curves such an encoder learns twice from the same batches of 512 pairs, and
2,048 others are held out; of text, pairs whose English sentences occur nowhere else.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

from labse_tf.losses import AdditiveMarginSoftmax
from labse_tf.models import DualEncoder, LaBSE, LaBSEBackbone
from labse_tf.optimizers import WarmupLinearDecay, adamw

PAIRS, TOKENS, WORDS = 512, 24, 4_995
SPECIAL = 5  # Ids of [PAD] and the others, which no text has.
HELD_OUT = 2_048  # Pairs that nobody trains on, ranked among each other.
WINDOW = 20  # Steps over which the picture averages the loss.


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
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches")
    parser.add_argument("--plot", metavar="FILE.png", help="of --curve, to draw it")
    arguments = parser.parse_args()
    if bool(arguments.pairs) != bool(arguments.vocab):
        parser.error("--pairs and --vocab go together")
    if arguments.plot and not arguments.curve:
        parser.error("--plot goes with --curve")
    if arguments.curve:
        print_curve(arguments)
    else:
        print_costs(arguments)


# === Cost ===


def print_costs(arguments: argparse.Namespace) -> None:
    """Medians over steps (and the fastest step), a row for each table."""
    print("| D | vocabulary | rows per step | optimizer, dense ms ", end="")
    print("| optimizer, lazy ms | training step, dense ms | training step, lazy ms |")
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
    vocabulary: int, dim: int, optimizer: keras.optimizers.Optimizer, seed: int = 0
) -> DualEncoder:
    """An encoder without blocks under mean pooling, compiled."""
    keras.utils.set_random_seed(seed)
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


class Curve(NamedTuple):
    """What one optimiser learned.

    Attributes:
        losses: Of each step's batch.
        steps: After which the held-out pairs were looked at.
        held_out: Their loss and ranking accuracy, a dict for each of `steps`.
        milliseconds: A step, without the looking.
    """

    losses: np.ndarray
    steps: list[int]
    held_out: list[dict[str, float]]
    milliseconds: float


def print_curve(arguments: argparse.Namespace) -> None:
    """Loss of both optimisers by step on the same batches, and what they learned."""
    if arguments.plot:
        import matplotlib.figure  # noqa: F401  # Rather now than after the training.
    if arguments.pairs:
        data = text_batches(arguments)
    else:
        data = made_up_batches(arguments)
    vocabulary, make_batches, held_out = data
    curves = {
        name: learn(arguments, lazy, vocabulary, make_batches(), held_out)
        for name, lazy in (("dense", False), ("lazy", True))
    }
    print(f"{vocabulary:,} entries, mean loss of the steps up to\n")
    print("| step | dense | lazy |\n|---|---|---|")
    count = arguments.curve_steps
    before = 0
    for edge in np.unique(np.geomspace(max(count // 60, 1), count, 12).astype(int)):
        means = (f"{curve.losses[before:edge].mean():.4f}" for curve in curves.values())
        print(f"| {edge} | " + " | ".join(means) + " |")
        before = edge
    for name in ("loss", "ranking_accuracy"):
        ends = (f"{curve.held_out[-1][name]:.4g}" for curve in curves.values())
        print(f"| held-out {name.split('_')[-1]} | " + " | ".join(ends) + " |")
    times = (f"{curve.milliseconds:.4g}" for curve in curves.values())
    print("| ms a step | " + " | ".join(times) + " |")
    if arguments.plot:
        plot(curves, arguments, vocabulary)


def learn(
    arguments: argparse.Namespace,
    lazy: bool,
    vocabulary: int,
    batches: Iterable[dict[str, Any]],
    held_out: dict[str, Any],
) -> Curve:
    """Trains an encoder without blocks on the batches."""
    count = arguments.curve_steps
    rate = WarmupLinearDecay(arguments.learning_rate, count, warmup_steps=count // 20)
    dual = make_dual(
        vocabulary,
        128,
        make_optimizer(rate, lazy, arguments.weight_decay),
        arguments.seed,
    )
    train = tf.function(dual.train_step, reduce_retracing=True)
    losses, steps, values, seconds = [], [], [], 0.0
    start = time.perf_counter()
    for step, batch in enumerate(batches, 1):
        dual.reset_metrics()
        losses.append(float(train(batch)["loss"]))
        if step % max(count // 30, 1) == 0 or step == count:
            seconds += time.perf_counter() - start
            steps.append(step)
            values.append(evaluate(dual, held_out))
            start = time.perf_counter()
    return Curve(np.array(losses), steps, values, 1e3 * seconds / count)


def evaluate(dual: DualEncoder, batch: dict[str, Any]) -> dict[str, float]:
    """Loss and ranking accuracy of a batch."""
    dual.reset_metrics()
    values = dual.test_on_batch(batch, return_dict=True)
    return {name: float(value) for name, value in values.items()}


def made_up_batches(
    arguments: argparse.Namespace, vocabulary: int = 40_000
) -> tuple[int, Callable[[], Iterator[dict[str, Any]]], dict[str, Any]]:
    """Sentences of Zipf words; a word's translation is the id half a table on.

    A fifth of the words of a translation are others, and its order is another.
    """
    words = (vocabulary - SPECIAL) // 2

    def batch(number: int, pairs: int = PAIRS) -> dict[str, Any]:
        rng = np.random.default_rng([arguments.seed, number])
        source = zipf(rng, (pairs, TOKENS), words)
        noise = zipf(rng, source.shape, words)
        target = np.where(rng.random(source.shape) < 0.2, noise, source) + words
        target = rng.permuted(target, axis=1)
        return {
            "source": features(SPECIAL + source),
            "target": features(SPECIAL + target),
        }

    steps = arguments.curve_steps
    return vocabulary, lambda: map(batch, range(steps)), batch(steps, HELD_OUT)


def text_batches(
    arguments: argparse.Namespace,
) -> tuple[int, Callable[[], Iterable[dict[str, Any]]], dict[str, Any]]:
    """Batches of real pairs, and some of pairs that are not trained on."""
    from labse_tf.data import SamplingPlan, load_pairs, sentence_pairs
    from labse_tf.preprocessing import SentencePreprocessor
    from labse_tf.tokenizers import WordPieceTokenizer

    tokenizer = WordPieceTokenizer(arguments.vocab)
    preprocessor = SentencePreprocessor(tokenizer, sequence_length=32)
    pairs, others = load_pairs(arguments.pairs).split(HELD_OUT)
    plan = SamplingPlan(HELD_OUT, steps=1, smoothing=1.0, length_buckets=False)
    held_out = sentence_pairs(others, preprocessor, plan)
    plan = SamplingPlan(PAIRS, steps=arguments.curve_steps, seed=arguments.seed)
    batches = sentence_pairs(pairs, preprocessor, plan)
    return tokenizer.vocabulary_size, lambda: batches, next(iter(held_out))


def plot(
    curves: dict[str, Curve], arguments: argparse.Namespace, vocabulary: int
) -> None:
    """Draws loss and held-out accuracy by step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    colors = dict(zip(curves, ("#08519c", "#e6550d"), strict=True))
    for name, curve in curves.items():
        window = min(WINDOW, len(curve.losses))
        smooth = np.convolve(curve.losses, np.full(window, 1 / window), "valid")
        steps = np.arange(1, len(curve.losses) + 1)
        left.plot(steps, curve.losses, color=colors[name], alpha=0.25, linewidth=0.7)
        middles = np.arange(len(smooth)) + (1 + window) / 2
        left.plot(middles, smooth, color=colors[name], label=name)
        accuracy = [100 * values["ranking_accuracy"] for values in curve.held_out]
        label = f"{name}, {accuracy[-1]:.1f} at the end"
        right.plot(
            curve.steps, accuracy, ".-", color=colors[name], label=label, markersize=5
        )
    left.set_title(f"training loss, and its mean over {WINDOW} steps", fontsize=10)
    left.set_ylabel("additive-margin softmax loss")
    right.set_title(f"held-out pairs, each ranked among {HELD_OUT:,}", fontsize=10)
    right.set_ylabel("ranking accuracy, per cent")
    for axes in (left, right):
        axes.set_xlabel(f"step of {PAIRS} pairs")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    right.set_ylim(top=100)
    left.legend(frameon=False, loc="upper right")
    right.legend(frameon=False, loc="lower right")
    figure.suptitle(
        f"AdamW on the same batches, dense and lazy: {vocabulary:,} entries, "
        f"D = 128, learning rate {arguments.learning_rate:g}",
        fontsize=11,
    )
    figure.savefig(Path(arguments.plot), format="png")


if __name__ == "__main__":
    main()
