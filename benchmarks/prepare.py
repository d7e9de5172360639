"""Cleaning and preparing a corpus, and reading batches of it beside a training step.

    python benchmarks/prepare.py --corpus corpus/ --held-out tatoeba/ --model labse-mini

Runs `labse-tf clean` and `labse-tf prepare` as a user would and tells their time and
highest resident memory. Then it reads batches in turns, from text (tokenized as they
are read), from the arrays and from the TFRecords, and trains the model on the arrays:
how many times faster than a step its batches are made. Medians of `--repeat` rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def main(arguments: list[str] | None = None) -> None:
    """Runs the commands, then the comparison, and prints Markdown tables."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        cleaned, prepared = Path(folder, "cleaned"), Path(folder, "prepared")
        held_out = ["--held-out", *options.held_out] if options.held_out else []
        print("| command | seconds | peak, MB |\n|---|---:|---:|")
        command("clean", *options.corpus, *held_out, "--output", cleaned)
        command("prepare", cleaned, "--model", options.model, "--output", prepared)
        print()
        compare(options, cleaned, prepared)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", nargs="+", required=True)
    parser.add_argument("--held-out", nargs="+", default=[])
    parser.add_argument("--model", default="labse-mini")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=600, help="batches read a round")
    parser.add_argument("--train-steps", type=int, default=30)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--work", help="where the files go for the time being")
    return parser.parse_args(arguments)


def command(name: str, *arguments: object) -> None:
    """Runs a command and prints its row."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "labse_tf", name, *map(str, arguments)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    took = time.perf_counter() - began
    # Of all children so far: the second command's is not told apart if it is less.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
    print(f"| {name} | {took:,.0f} | {peak:,.0f} |", flush=True)


def compare(options: argparse.Namespace, cleaned: Path, prepared: Path) -> None:
    """Pairs a second of each way to read, and of training."""
    import labse_tf
    from labse_tf import data
    from labse_tf.recipes import get_recipe
    from labse_tf.training import compile_dual_encoder

    model = labse_tf.LaBSE.from_preset(options.model)
    preprocessor = model.text_preprocessor()
    recipe = get_recipe("small", optimizer="lazy_adamw")
    recipe = dataclasses.replace(recipe, batch_size=options.batch_size)
    dual = compile_dual_encoder(model, recipe)
    plan = data.SamplingPlan(options.batch_size, steps=-1)
    tokens = data.open_prepared(prepared)
    sources = {
        "text": data.sentence_pairs(data.load_pairs(cleaned), preprocessor, plan),
        "arrays": data.sentence_pairs(tokens, preprocessor, plan),
        "tfrecord": data.stream_pairs(data.PairStream(prepared), preprocessor, plan),
    }
    rates: dict[str, list[float]] = {name: [] for name in (*sources, "training")}
    for _ in range(options.repeat):
        for name, dataset in sources.items():
            rates[name].append(rate(dataset, options.steps, options.batch_size))
        batches = iter(sources["arrays"])
        training = (dual.train_on_batch(next(batches)) for _ in itertools.count())
        rates["training"].append(
            rate(training, options.train_steps, options.batch_size)
        )
    medians = {name: statistics.median(values) for name, values in rates.items()}
    print(
        f"Batches of {options.batch_size} of {len(tokens):,} pairs, {options.model}.\n"
    )
    print("| batches from | pairs per second | over training |\n|---|---:|---:|")
    for name in sources:
        times = medians[name] / medians["training"]
        print(f"| {name} | {medians[name]:,.0f} | {times:,.1f} |")
    print(f"| (training) | {medians['training']:,.0f} | 1 |")


def rate(items: Iterable[Any], count: int, size: int) -> float:
    """Pairs a second of some batches, after the first few."""
    iterator = iter(items)
    for _ in range(5):
        next(iterator)
    began = time.perf_counter()
    for _ in range(count):
        next(iterator)
    return count * size / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
