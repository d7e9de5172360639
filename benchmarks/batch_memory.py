"""Memory and time of large batches: the dual encoder's loss, and its training step.

    python benchmarks/batch_memory.py --loss
    python benchmarks/batch_memory.py --train-step

Each row of the tables it prints is a process of its own on the CPU. The first makes
one value of `AdditiveMarginSoftmax`, with duplicates masked, and its gradients, in a
TensorFlow graph; "memory" is the highest resident memory during that, less what the
process had before, the vectors among it.

The second trains a `DualEncoder` on random tokens: forward pass, loss, metric,
gradients and AdamW. "Peak" is the highest resident memory less what the process had
when everything was imported: weights, moments, batch, activations, all. Batches that
would take more than `--limit` GB are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from loss_memory import MEGABYTE, resident, run

STEPS = 2


def main(arguments: list[str] | None = None) -> None:
    """Runs the settings one after another and prints Markdown tables."""
    options = parse(arguments)
    if options.worker:
        setting = json.loads(options.worker)
        kind = measure_train_step if "layers" in setting else measure_loss
        print(json.dumps(kind(setting)))
        return
    if options.loss:
        print_losses(options)
    if options.train_step:
        print_train_steps(options)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--loss", action="store_true", help="the loss alone")
    parser.add_argument("--train-step", action="store_true", help="the whole step")
    parser.add_argument("--batches", type=int, nargs="+", metavar="PAIRS")
    parser.add_argument("--dims", type=int, nargs="+", default=[256, 768])
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden-dim", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--length", type=int, default=32, help="tokens a sentence")
    parser.add_argument("--repeat", type=int, default=3, help="processes a row")
    parser.add_argument("--limit", type=float, default=12.0, metavar="GB")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def print_losses(options: argparse.Namespace) -> None:
    """The loss alone."""
    print("| D | pairs | block | memory, MB | run, s | loss |")
    print("|---:|---:|---:|---:|---:|---:|")
    for dim in options.dims:
        for batch in options.batches or [1024, 4096, 16_384, 65_536]:
            for block in (None, options.block):
                # About ten matrices of the batch's square.
                if block is None and 40 * batch**2 / 1e9 > options.limit:
                    continue
                setting = {"batch": batch, "dim": dim, "block": block}
                result = median(setting, options.repeat)
                print(
                    f"| {dim} | {batch:,} | {block or '-'} | {result['memory']:,.0f} "
                    f"| {result['run']:.2f} | {result['loss']:.5f} |",
                    flush=True,
                )


def print_train_steps(options: argparse.Namespace) -> None:
    """The whole step."""
    names = ("layers", "hidden_dim", "vocabulary", "length")
    base = {name: getattr(options, name) for name in names}
    print(", ".join(f"{name} = {value:,}" for name, value in base.items()), end="\n\n")
    print("| pairs | chunk | block | peak, MB | step, s | loss |")
    print("|---:|---:|---:|---:|---:|---:|")
    ways = ((None, None), (options.chunk, None), (options.chunk, options.block))
    for batch in options.batches or [256, 1024, 4096, 8192]:
        for chunk, block in ways:
            # About 5 MB a pair of this shape, as measured.
            if chunk is None and batch * 0.005 > options.limit:
                continue
            setting = {**base, "batch": batch, "chunk": chunk, "block": block}
            result = median(setting, options.repeat)
            print(
                f"| {batch:,} | {chunk or '-'} | {block or '-'} "
                f"| {result['memory']:,.0f} | {result['run']:.1f} "
                f"| {result['loss']:.4f} |",
                flush=True,
            )


def median(setting: dict[str, Any], repeat: int) -> dict[str, float]:
    """The medians of a setting's figures over some processes."""
    results = [run(setting, script=__file__) for _ in range(repeat)]
    return {
        name: statistics.median(result[name] for result in results)
        for name in results[0]
    }


def measure_loss(setting: dict[str, Any]) -> dict[str, float]:
    """One value and its gradients, with the memory that they took."""
    import tensorflow as tf

    from labse_tf.losses import AdditiveMarginSoftmax

    loss = AdditiveMarginSoftmax(block_size=setting["block"])

    @tf.function(autograph=False)
    def step(source: Any, target: Any, source_ids: Any, target_ids: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([source, target])
            value = loss(source, target, source_ids=source_ids, target_ids=target_ids)
        return value, tape.gradient(value, [source, target])

    step(*vectors(300, setting["dim"]))  # whatever a first run loads
    tensors = vectors(setting["batch"], setting["dim"])
    traced = step.get_concrete_function(*tensors)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    value, _ = traced(*tensors)
    took = time.perf_counter() - start
    peak = resident("VmHWM")
    return {"memory": (peak - before) / MEGABYTE, "run": took, "loss": float(value)}


def vectors(count: int, dim: int) -> list[Any]:
    """Unit vectors and fingerprints of two sides, a tenth of the targets twice."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    source = rng.standard_normal((count, dim), dtype=np.float32)
    target = rng.standard_normal((count, dim), dtype=np.float32)
    target += source
    for matrix in (source, target):
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    ids = rng.integers(0, 2**31, (2, count, 2), dtype=np.int32)
    ids[1, : count // 10] = ids[1, count // 10 : 2 * (count // 10)]
    return [tf.constant(x) for x in (source, target, *ids)]


def measure_train_step(setting: dict[str, Any]) -> dict[str, float]:
    """Some training steps, with the memory that all took."""
    import keras
    import numpy as np
    import tensorflow as tf

    import labse_tf
    from labse_tf.losses import AdditiveMarginSoftmax
    from labse_tf.models import LaBSE, LaBSEBackbone
    from labse_tf.optimizers import adamw

    tf.constant(0.0)
    before = resident("VmRSS")
    keras.utils.set_random_seed(0)
    dim = setting["hidden_dim"]
    backbone = LaBSEBackbone(
        setting["vocabulary"], setting["layers"], max(dim // 64, 1), dim, 4 * dim
    )
    encoder = LaBSE(backbone, pooling="mean")
    dual = labse_tf.DualEncoder(encoder, setting["chunk"])
    loss = AdditiveMarginSoftmax(block_size=setting["block"])
    dual.compile(adamw(1e-4, weight_decay=0.01, clip_norm=1.0), loss)
    rng = np.random.default_rng(0)
    shape = (setting["batch"], setting["length"])

    def side() -> dict[str, Any]:
        return {
            "token_ids": rng.integers(5, setting["vocabulary"], shape, dtype=np.int32),
            "segment_ids": np.zeros(shape, np.int32),
            "padding_mask": np.ones(shape, np.int32),
        }

    batch = {"source": side(), "target": side()}
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        logs = dual.train_on_batch(batch, return_dict=True)
        seconds.append(time.perf_counter() - start)
    return {
        "memory": (resident("VmHWM") - before) / MEGABYTE,
        "run": min(seconds[1:]),
        "loss": float(logs["loss"]),
    }


if __name__ == "__main__":
    sys.exit(main())
