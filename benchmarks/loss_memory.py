"""Memory and time of the masked-LM loss, and of the whole step it is a part of.

    python benchmarks/loss_memory.py --full
    python benchmarks/loss_memory.py --train-step --layers 3 12 --rows 4

Each row of the tables it prints is a process of its own on the CPU. The first makes
one value and all gradients (states, token table, bias) in a TensorFlow graph, of the
chunked loss and of one with all logits at once. "Memory" is the highest resident
memory during that, less what the process had before it made the token table, less
the table and less the table's gradient.

The second trains a `MaskedLM` for four steps on packed rows of random tokens: forward
pass, loss, gradients and AdamW, clipped and decaying. "In all" is the highest resident
memory of the steps less what the process had before it made the model; weights,
moments and gradients are told by their sizes; "beyond" is the rest: activations,
buffers, whatever is there twice. "Run" is the fastest step but the first.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MEGABYTE = 1e6
SENTENCE = 64  # Tokens of a sentence in a packed row.
STEPS = 4  # At least 2.


def main(arguments: list[str] | None = None) -> None:
    """Runs the settings one after another and prints a Markdown table."""
    options = parse(arguments)
    if options.worker:
        setting = json.loads(options.worker)
        kind = measure_train_step if "layers" in setting else measure
        print(json.dumps(kind(setting)))
    elif options.train_step:
        print_train_steps(options)
    else:
        print_losses(options)


def print_losses(options: argparse.Namespace) -> None:
    """The loss alone."""
    base = {
        "loss": "chunked",
        "predictions": options.predictions,
        "vocabulary": options.vocabulary,
        "dim": options.dim,
        "chunk": options.chunk,
        "dtype": "float32",
        "xla": False,
    }
    settings = [base]
    if options.bfloat16:
        settings.append({**base, "dtype": "bfloat16"})
    if options.xla:
        settings.append({**base, "xla": True})
    if options.full:
        fewer = {**base, "predictions": options.full_predictions}
        settings += [fewer] * (fewer != base) + [{**fewer, "loss": "full"}]
    print(f"V = {options.vocabulary:,}, D = {options.dim}", end="\n\n")
    print(
        "| loss | predictions | chunk | type | XLA | memory, MB | trace, s | run, s "
        "| mean loss | norm of the table's gradient |"
    )
    print("|---|---:|---:|---|---|---:|---:|---:|---:|---:|")
    for setting in settings:
        result = run(setting)
        chunk = f"{setting['chunk']:,}" if setting["loss"] == "chunked" else "-"
        print(
            f"| {setting['loss']} | {setting['predictions']:,} | {chunk} "
            f"| {setting['dtype']} | {'yes' if setting['xla'] else 'no'} "
            f"| {result['memory']:,.0f} | {result['trace']:.1f} "
            f"| {result['run']:.1f} | {result['value']:.5f} | {result['norm']:.5f} |",
            flush=True,
        )


def print_train_steps(options: argparse.Namespace) -> None:
    """The whole step."""
    print(f"V = {options.vocabulary:,}, D = {options.dim}, T = {options.length}")
    print("Memory in MB.", end="\n\n")
    print(
        "| blocks | type | XLA | rows | predictions | weights | moments | gradients "
        "| beyond | in all | run, s | loss |"
    )
    print("|---:|---|---|" + "---:|" * 9)
    kinds = [("float32", False)]
    if options.bfloat16:
        kinds.append(("bfloat16", False))
    if options.xla:
        kinds.append(("float32", True))
    for layers in options.layers:
        for dtype, xla in kinds:
            names = ("vocabulary", "dim", "chunk", "rows", "length", "row_predictions")
            setting = {name: getattr(options, name) for name in names}
            result = run({**setting, "layers": layers, "dtype": dtype, "xla": xla})
            count = options.rows * options.row_predictions
            parts = ("weights", "moments", "gradients", "beyond", "peak")
            print(
                f"| {layers} | {dtype} | {'yes' if xla else 'no'} | {options.rows} "
                f"| {count:,} | "
                + " | ".join(f"{result[part]:,.0f}" for part in parts)
                + f" | {result['run']:.1f} | {result['loss']:.3f} |",
                flush=True,
            )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--predictions", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=501_153)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--chunk", type=int, default=8192)
    parser.add_argument(
        "--full", action="store_true", help="the full softmax too (9 GB in all)"
    )
    parser.add_argument(
        "--full-predictions",
        type=int,
        help="fewer than --predictions where memory is short",
    )
    parser.add_argument("--bfloat16", action="store_true", help="bfloat16 states too")
    parser.add_argument("--xla", action="store_true", help="jit_compile=True too")
    step = parser.add_argument_group("the whole step")
    step.add_argument(
        "--train-step", action="store_true", help="measure this, not the loss alone"
    )
    step.add_argument("--layers", type=int, nargs="+", default=[12], metavar="BLOCKS")
    step.add_argument("--rows", type=int, default=20)
    step.add_argument("--length", type=int, default=512, help="tokens a row")
    step.add_argument("--row-predictions", type=int, default=80)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.full_predictions is None:
        options.full_predictions = options.predictions
    return options


def run(setting: dict[str, Any], script: str = __file__) -> dict[str, float]:
    """Measures one setting in a new process."""
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    process = subprocess.run(
        [sys.executable, script, "--worker", json.dumps(setting)],
        env={
            **os.environ,
            "KERAS_BACKEND": "tensorflow",
            "PYTHONPATH": path,
            "TF_CPP_MIN_LOG_LEVEL": "2",
        },
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if process.returncode:
        sys.exit(f"exit status {process.returncode} (-9: out of memory) of {setting}")
    return json.loads(process.stdout.splitlines()[-1])


def measure(setting: dict[str, Any]) -> dict[str, float]:
    """One value and its gradients, with the memory that they took."""
    import tensorflow as tf

    count, size, dim = (setting[k] for k in ("predictions", "vocabulary", "dim"))
    compute(setting, *tensors(64, 500, dim))  # whatever a first run loads
    before = resident("VmRSS")
    hidden, table, bias, labels = tensors(count, size, dim)
    start = time.perf_counter()
    step = graph(setting, hidden, table, bias, labels)
    traced = time.perf_counter()
    # The highest point until here was the making of the table.
    Path("/proc/self/clear_refs").write_text("5")
    value, gradients = step(hidden, labels)
    done = time.perf_counter()
    peak = resident("VmHWM")
    table_bytes = 4 * size * dim
    return {
        "memory": (peak - before - 2 * table_bytes) / MEGABYTE,
        "trace": traced - start,
        "run": done - traced,
        "value": float(value),
        "norm": float(tf.norm(gradients[1])),
    }


def tensors(count: int, size: int, dim: int) -> tuple[Any, ...]:
    """Random states, table, bias and labels, the same for all settings."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((count, dim), dtype=np.float32)
    labels = rng.integers(0, size, count, dtype=np.int32)
    # Made by NumPy, which gives memory back: what TensorFlow has once had it keeps,
    # and would use for the loss. Written as a whole: a variable that was written in
    # parts is copied by TensorFlow at each read from then on.
    table = np.empty((size, dim), np.float32)
    for start in range(0, size, 10_000):
        rows = table[start : start + 10_000]
        rng.standard_normal(dtype=np.float32, out=rows)
        rows *= 0.02
    return tf.constant(hidden), tf.Variable(table), tf.Variable(tf.zeros(size)), labels


def compute(
    setting: dict[str, Any], hidden: Any, table: Any, bias: Any, labels: Any
) -> Any:
    """The mean loss and its gradients."""
    import tensorflow as tf

    from labse_tf.vocabulary_softmax import chunked_softmax_cross_entropy

    hidden = tf.cast(hidden, setting["dtype"])
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        if setting["loss"] == "chunked":
            losses, _ = chunked_softmax_cross_entropy(
                hidden, table, bias, labels, chunk_size=setting["chunk"]
            )
        else:
            logits = tf.matmul(hidden, table, transpose_b=True) + bias
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        value = tf.reduce_mean(losses)
    return value, tape.gradient(value, [hidden, table, bias])


def graph(
    setting: dict[str, Any], hidden: Any, table: Any, bias: Any, labels: Any
) -> Any:
    """`compute` as a traced function of states and labels."""
    import tensorflow as tf

    # Labels are no constant: of one, TensorFlow would work out all that it can
    # before the first step, and keep it.
    step = tf.function(
        lambda hidden, labels: compute(setting, hidden, table, bias, labels),
        autograph=False,
        jit_compile=setting["xla"] or None,
    )
    return step.get_concrete_function(hidden, labels)


def measure_train_step(setting: dict[str, Any]) -> dict[str, float]:
    """Some training steps, with the memory that they took."""
    small = {"vocabulary": 500, "dim": 64, "rows": 1, "length": 64}
    small |= {"layers": 1, "row_predictions": 8}
    train(*masked_lm({**setting, **small}))  # whatever a first run loads
    before = resident("VmRSS")
    model, batch = masked_lm(setting)
    # The highest point until here was the making of the table.
    Path("/proc/self/clear_refs").write_text("5")
    # The first step traces, and only writing makes the moments resident. What runs
    # beside what is up to the threads, so that the peaks of steps differ.
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        loss = train(model, batch)
        seconds.append(time.perf_counter() - start)
    peak = resident("VmHWM") - before
    weights = count_bytes([*model.backbone.weights, *model.head.weights])
    trained = count_bytes(model.trainable_weights)
    return {
        "weights": weights / MEGABYTE,
        "moments": 2 * trained / MEGABYTE,
        "gradients": trained / MEGABYTE,
        "beyond": (peak - weights - 3 * trained) / MEGABYTE,
        "peak": peak / MEGABYTE,
        "run": min(seconds[1:]),
        "loss": loss,
    }


def masked_lm(setting: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A compiled `MaskedLM` of BERT-base's blocks, and a batch of packed rows."""
    import keras
    import numpy as np

    from labse_tf.models import LaBSEBackbone
    from labse_tf.models.masked_lm import MaskedLM
    from labse_tf.optimizers import adamw

    keras.utils.set_random_seed(0)
    size, dim, length = (setting[k] for k in ("vocabulary", "dim", "length"))
    backbone = LaBSEBackbone(
        size,
        setting["layers"],
        max(dim // 64, 1),
        dim,
        4 * dim,
        max_sequence_length=length,
        dtype=setting["dtype"],
    )
    model = MaskedLM(backbone, chunk_size=setting["chunk"])
    optimizer = adamw(1e-4, weight_decay=0.01, clip_norm=1.0)
    model.compile(optimizer, jit_compile=setting["xla"])
    optimizer.build(model.trainable_variables)

    rng = np.random.default_rng(0)
    shape = (setting["rows"], length)
    picks = (setting["rows"], setting["row_predictions"])
    places = np.broadcast_to(np.arange(length, dtype=np.int32), shape)
    return model, {
        "token_ids": rng.integers(5, size, shape, dtype=np.int32),
        "segment_ids": np.zeros(shape, np.int32),
        "padding_mask": np.ones(shape, np.int32),
        "position_ids": places % SENTENCE,
        "sequence_ids": 1 + places // SENTENCE,
        "mask_positions": np.sort(rng.permuted(places, axis=1)[:, : picks[1]]),
        "mask_ids": rng.integers(5, size, picks, dtype=np.int32),
        "mask_weights": np.ones(picks, np.float32),
    }


def train(model: Any, batch: dict[str, Any]) -> float:
    """One step, as `fit` does it; returns the loss."""
    return float(model.train_on_batch(batch, return_dict=True)["mlm_loss"])


def count_bytes(weights: list[Any]) -> int:
    """Bytes of float32 weights."""
    return sum(4 * math.prod(weight.shape) for weight in weights)


def resident(name: str) -> int:
    """Bytes of `VmRSS` (now) or `VmHWM` (highest) of this process; Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    main()
