"""Memory and time of the masked-LM loss: chunked, and with all logits at once.

    python benchmarks/loss_memory.py --full

Each row of the table it prints is a process of its own, which makes one value and
all gradients (states, token table, bias) in a TensorFlow graph on the CPU.
"Memory" is the highest resident memory during that, less what the process had
before it made the token table, less the table and less the table's gradient.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MEGABYTE = 1e6


def main(arguments: list[str] | None = None) -> None:
    """Runs the settings one after another and prints a Markdown table."""
    options = parse(arguments)
    if options.worker:
        print(json.dumps(measure(json.loads(options.worker))))
        return
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
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.full_predictions is None:
        options.full_predictions = options.predictions
    return options


def run(setting: dict[str, Any]) -> dict[str, float]:
    """Measures one setting in a new process."""
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    process = subprocess.run(
        [sys.executable, __file__, "--worker", json.dumps(setting)],
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

    from labse_tf.layers import chunked_softmax_cross_entropy

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


def resident(name: str) -> int:
    """Bytes of `VmRSS` (now) or `VmHWM` (highest) of this process; Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    main()
