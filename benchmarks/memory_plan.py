r"""Planned and measured memory of `labse-tf train`.

    python benchmarks/memory_plan.py
    python benchmarks/memory_plan.py --settings small labse_table
    python benchmarks/memory_plan.py --gpu

Each row of the table is one setting: the peak of `labse-tf train --plan` against the
highest resident memory (`ru_maxrss`) of a new process that runs the same command
without `--plan` on synthetic pairs, whose rows have the full length. A run takes a few
steps, with checkpoints, and ends with a preset. Linux and CPU only.

`--gpu` prints the README's table of plans for one GPU, which are not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
STEPS = 3

# Vocabulary, blocks, heads, dimension, width of the feed-forward layer; and flags.
SETTINGS: dict[str, tuple[tuple[int, int, int, int, int], str]] = {
    "small: the recipe small": (
        (32_000, 2, 4, 256, 1024),
        "--batch-size 256 --sequence-length 64",
    ),
    "e5_small: e5-small's shape": (
        (250_037, 12, 12, 384, 1536),
        "--batch-size 64 --chunk-size 8 --sequence-length 64 --optimizer lazy_adamw",
    ),
    "labse_table: LaBSE's token table, frozen, 2 blocks": (
        (501_153, 2, 12, 768, 3072),
        "--batch-size 32 --sequence-length 64 --freeze table",
    ),
    "bert_base: blocks of BERT-base": (
        (8_000, 12, 12, 768, 3072),
        "--batch-size 8 --sequence-length 32",
    ),
    "table: a table that dominates, AdamW": (
        (300_000, 1, 4, 256, 1024),
        "--batch-size 64 --sequence-length 32",
    ),
    "bfloat16: 6 blocks in bfloat16": (
        (32_000, 6, 6, 384, 1536),
        "--batch-size 64 --sequence-length 64 --dtype bfloat16",
    ),
    "lora: 6 blocks with low-rank weights": (
        (32_000, 6, 6, 384, 1536),
        "--batch-size 64 --sequence-length 64 --lora 8",
    ),
    "long: rows of 256 tokens": (
        (32_000, 4, 4, 256, 1024),
        "--batch-size 16 --sequence-length 256",
    ),
    "labse: LaBSE's shape, all but 2 blocks frozen": (
        (501_153, 12, 12, 768, 3072),
        "--batch-size 32 --chunk-size 4 --sequence-length 64 --freeze table blocks:10",
    ),
}


# Name -> size of the vocabulary, and the shape in a recipe.
GPU_MODELS: dict[str, tuple[int, dict[str, int]]] = {
    "LaBSE, 471 M": (501_153, {"num_heads": 12, "hidden_dim": 768}),
    "XLM-R base, 278 M": (250_002, {"num_heads": 12, "hidden_dim": 768}),
    "multilingual-e5-small, 118 M": (250_037, {"num_heads": 12, "hidden_dim": 384}),
}
GPU_FLAGS: dict[str, dict[str, Any]] = {
    "none": {},
    "`--chunk-size 32`": {"chunk_size": 32},
    "the same, `--dtype float16`": {"chunk_size": 32, "dtype": "float16"},
    "the same, `--optimizer lazy_adamw`": {
        "chunk_size": 32,
        "dtype": "float16",
        "optimizer": "lazy_adamw",
    },
    "`--chunk-size 32 --dtype float16 --freeze table`": {
        "chunk_size": 32,
        "dtype": "float16",
        "freeze": ("table",),
    },
    "`--chunk-size 32 --dtype float16 --lora 8`": {
        "chunk_size": 32,
        "dtype": "float16",
        "lora": 8,
    },
}


def main() -> None:
    """Measure the settings one after another, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = [name.partition(":")[0] for name in SETTINGS]
    parser.add_argument("--settings", nargs="+", choices=names, default=names)
    parser.add_argument("--gpu", action="store_true", help="plans for one GPU")
    options = parser.parse_args()
    if options.gpu:
        print_gpu_plans()
        return
    chosen = options.settings
    print("| setting | planned, MB | at | measured, MB | error | seconds |")
    print("|---|---:|---|---:|---:|---:|")
    for name, (shape, flags) in SETTINGS.items():
        if name.partition(":")[0] not in chosen:
            continue
        with tempfile.TemporaryDirectory() as folder:
            plan, peak, seconds = measure(Path(folder), shape, flags.split())
        error = plan["peak"] / peak - 1
        print(
            f"| {name} | {plan['peak'] / 1e6:,.0f} | {plan['peak_moment']} | "
            f"{peak / 1e6:,.0f} | {error:+.1%} | {seconds:,.0f} |",
            flush=True,
        )


def print_gpu_plans() -> None:
    """Print the plans of some models and flags for one GPU, in GB."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from labse_tf.recipes import get_recipe
    from labse_tf.training.memory import plan_memory

    print(f"| flags | {' | '.join(GPU_MODELS)} |")
    print("|---|" + "---:|" * len(GPU_MODELS))
    for name, flags in GPU_FLAGS.items():
        cells = [name]
        for vocabulary, shape in GPU_MODELS.values():
            inner = 4 * shape["hidden_dim"]
            recipe = get_recipe(
                "small",
                **shape,
                **flags,
                num_layers=12,
                intermediate_dim=inner,
                batch_size=256,
            )
            peak = plan_memory(recipe, vocabulary, device="gpu").peak
            cells.append(f"{peak / 1e9:.1f}")
        print(f"| {' | '.join(cells)} |")


def measure(
    folder: Path, shape: tuple[int, ...], flags: list[str]
) -> tuple[dict[str, Any], int, float]:
    """Return the plan, the peak of the run in bytes, and the seconds of the run."""
    write_text(folder, shape[0], int(flags[flags.index("--sequence-length") + 1]))
    write_preset(folder, shape)
    command = [
        sys.executable,
        "-m",
        "labse_tf",
        "train",
        str(folder / "train.en-es.tsv"),
    ]
    command += ["--model", str(folder / "start"), *flags]
    target = folder / "plan.json"
    run([*command, "--plan-for", "cpu", "--json", str(target)])
    command += ["--output", str(folder / "run"), "--train-steps", str(STEPS)]
    start = time.perf_counter()
    peak = run([*command, "--checkpoint-every", "1"])
    return json.loads(target.read_text()), peak, time.perf_counter() - start


def run(command: list[str]) -> int:
    """Run a command, and return its highest resident memory in bytes."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, env=environment()
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            message = errors.read().decode("utf-8", "replace")
            raise SystemExit(f"{' '.join(command)} failed: {message[-2000:]}")
    return usage.ru_maxrss * 1024


def environment() -> dict[str, str]:
    """Return the environment of the processes, which import this checkout."""
    root = str(Path(__file__).parents[1])
    return {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}


def write_text(folder: Path, size: int, length: int) -> None:
    """Write a vocabulary, and pairs of random words that fill the rows."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{number:06d}" for number in range(size - len(SPECIAL))])
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words, ""]))
    with (folder / "train.en-es.tsv").open("w", encoding="utf-8") as file:
        for sides in rng.choice(words, (600, 2, length)):
            file.write("\t".join(" ".join(side) for side in sides) + "\n")


def write_preset(folder: Path, shape: tuple[int, ...]) -> None:
    """Write a preset with random weights, in a process of its own."""
    code = """
import sys
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer
tokenizer = WordPieceTokenizer(sys.argv[1])
preprocessor = SentencePreprocessor(tokenizer, 64)
backbone = LaBSEBackbone(*map(int, sys.argv[3:]))
LaBSE(backbone, preprocessor, pooling="mean").save_to_preset(sys.argv[2])
"""
    paths = [str(folder / "vocab.txt"), str(folder / "start")]
    run([sys.executable, "-c", code, *paths, *map(str, shape)])


if __name__ == "__main__":
    main()
