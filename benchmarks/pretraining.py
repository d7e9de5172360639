r"""What pre-training and stacking are worth, on a setting that two cores can do.

    python benchmarks/pretraining.py --pairs path/to/corpus/en-{hi,bn,ta}.tsv.gz \
        --tatoeba path/to/tatoeba --output /tmp/pretraining

For each seed, with the commands that a user has:

- `labse-tf pretrain` in three stages, and one with all layers from the start for as
  many steps as the last stage has: does the stacked start beat a fresh one?
- `labse-tf train` from the pre-trained encoder and from nothing, at equal steps, and
  `labse-tf evaluate tatoeba`: is pre-training worth something?

Every command goes on where it was stopped, and so does the benchmark. It prints
Markdown and draws the losses.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

SHAPE = {
    "num-layers": 4,
    "num-heads": 4,
    "hidden-dim": 128,
    "intermediate-dim": 256,
    "max-sequence-length": 128,
}


def main() -> None:
    """Runs what is missing, then prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--pairs", nargs="+", required=True)
    parser.add_argument("--tatoeba", required=True, help="folder of LASER's files")
    parser.add_argument("--output", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--fresh-seeds",
        nargs="+",
        type=int,
        default=[0, 1, 2],
        help="those of --seeds for which the fresh start is run too",
    )
    parser.add_argument("--vocabulary-size", type=int, default=8_000)
    parser.add_argument("--pretrain-steps", type=int, default=4000)
    parser.add_argument("--rows", type=int, default=32, help="rows a step")
    parser.add_argument("--tune-steps", type=int, default=400)
    parser.add_argument("--tune-learning-rate", type=float, default=5e-4)
    parser.add_argument("--batch-size", type=int, default=128, help="pairs a step")
    parser.add_argument(
        "--one-pretraining",
        action="store_true",
        help="pre-train with the first seed only; the others are those of the tuning",
    )
    parser.add_argument("--pooling", default="pooler", help="the paper's: pooler")
    parser.add_argument("--plot", help="PNG of the losses")
    options = parser.parse_args()
    work = Path(options.output)
    work.mkdir(parents=True, exist_ok=True)
    vocabulary = work / "vocab.txt"
    if not vocabulary.exists():
        size = str(options.vocabulary_size)
        labse_tf("vocab", *options.pairs, "--size", size, "--output", vocabulary)
    for seed in options.seeds:
        run(options, work, vocabulary, seed)
    for seed in options.fresh_seeds:
        run_fresh(options, work, vocabulary, seed)
    print_stages(options, work)
    print_tuned(options, work)
    if options.plot:
        plot(options, work)


def run(options: argparse.Namespace, work: Path, vocabulary: Path, seed: int) -> None:
    """Pre-training and both tunings of a seed; what has ended is no work."""
    first = pretraining_seeds(options)[0] if options.one_pretraining else seed
    stacked = work / f"stacked_{first}"
    labse_tf(
        *("pretrain", "--pairs", *options.pairs, "--vocab", vocabulary),
        *("--output", stacked),
        *flags(pretraining(options, first, options.pretrain_steps)),
    )
    tuning = {
        **SHAPE,
        "pooling": options.pooling,
        "seed": seed,
        "sequence-length": 32,
        "batch-size": options.batch_size,
        "train-steps": options.tune_steps,
        "learning-rate": options.tune_learning_rate,
        "warmup-steps": options.tune_steps // 10,
        "log-every": 10,
        "checkpoint-every": 100,
    }
    for name, start in (
        ("pretrained", ("--model", stacked)),
        ("scratch", ("--vocab", vocabulary)),
    ):
        model = work / f"{name}_{seed}"
        labse_tf("train", *options.pairs, *start, "--output", model, *flags(tuning))
        scores = work / f"{name}_{seed}.json"
        if not scores.exists():
            labse_tf(
                *("evaluate", "tatoeba", options.tatoeba, "--model", model),
                *("--languages", *languages(options.pairs), "--json", scores),
            )


def pretraining_seeds(options: argparse.Namespace) -> list[int]:
    """Seeds that have a pre-training of their own."""
    return options.seeds[:1] if options.one_pretraining else options.seeds


def run_fresh(
    options: argparse.Namespace, work: Path, vocabulary: Path, seed: int
) -> None:
    """As many steps as the last stage has, with all layers from the start."""
    parts = stages(work / f"stacked_{seed}")
    steps = parts[-1][-1]["step"] - parts[-2][-1]["step"]
    labse_tf(
        *("pretrain", "--pairs", *options.pairs, "--vocab", vocabulary),
        *("--output", work / f"fresh_{seed}", "--stages"),
        *flags(pretraining(options, seed, steps)),
    )


def pretraining(options: argparse.Namespace, seed: int, steps: int) -> dict[str, Any]:
    """Flags of `labse-tf pretrain`."""
    return {
        **SHAPE,
        "pooling": options.pooling,
        "seed": seed,
        "sequence-length": 64,
        "max-predictions": 13,
        "batch-size": options.rows,
        "learning-rate": 1e-3,
        "train-steps": steps,
        "warmup-steps": steps // 20,
        "log-every": 10,
        "checkpoint-every": 100,
    }


def print_stages(options: argparse.Namespace, work: Path) -> None:
    """Losses and times of the stages, and the fresh start beside the last one."""
    print("| seed | stage | layers | steps | loss, begin | loss, end | minutes |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for seed in pretraining_seeds(options):
        before = 0
        for entries in stages(work / f"stacked_{seed}"):
            number, end = entries[0]["stage"], entries[-1]["step"]
            depth = SHAPE["num-layers"] // {1: 4, 2: 2, 3: 1}[number]
            row(seed, number, depth, end - before, entries, before, options.rows)
            before = end
    for seed in options.fresh_seeds:
        (entries,) = stages(work / f"fresh_{seed}")
        count = entries[-1]["step"]
        row(seed, "fresh", SHAPE["num-layers"], count, entries, 0, options.rows)
    print()
    print("| after steps of the last stage | stacked start | fresh start |")
    print("|---:|---:|---:|")
    for part in (0.1, 0.25, 0.5, 1.0):
        means = []
        for name in ("stacked", "fresh"):
            values = []
            for seed in options.fresh_seeds:
                entries = stages(work / f"{name}_{seed}")[-1]
                values.append(entries[max(0, round(part * len(entries)) - 1)]["loss"])
            means.append(spread(values, "{:.3f}"))
        print(f"| {part:.0%} | {means[0]} | {means[1]} |")
    print()


def row(
    seed: int,
    name: Any,
    layers: int,
    steps: int,
    entries: list[dict[str, Any]],
    before: int,
    rows: int,
) -> None:
    """One line of the stages' table."""
    seconds = 0.0
    for entry in entries:
        seconds += (entry["step"] - before) * rows / entry["rows_per_second"]
        before = entry["step"]
    first, last = entries[0]["loss"], entries[-1]["loss"]
    print(
        f"| {seed} | {name} | {layers} | {steps:,} | {first:.3f} | {last:.3f} "
        f"| {seconds / 60:.1f} |"
    )


def print_tuned(options: argparse.Namespace, work: Path) -> None:
    """Tatoeba accuracy by seed, pre-trained and from nothing."""
    scores = {
        name: [
            json.loads((work / f"{name}_{seed}.json").read_text())["languages"]
            for seed in options.seeds
        ]
        for name in ("scratch", "pretrained")
    }
    codes = sorted(scores["scratch"][0])
    print("| seed | " + " | ".join(("start", *codes, "mean")) + " |")
    print("|---|---|" + "---:|" * (len(codes) + 1))
    for index, seed in enumerate(options.seeds):
        for name, results in scores.items():
            values = [accuracy(results[index][code]) for code in codes]
            numbers = [*values, statistics.mean(values)]
            print(f"| {seed} | {name} | " + " | ".join(f"{x:.1%}" for x in numbers))
    for name, results in scores.items():
        means = [statistics.mean(accuracy(r[c]) for c in codes) for r in results]
        print(f"\n{name}: mean of the seeds {spread(means, '{:.1%}')}")


def accuracy(result: Any) -> float:
    """Mean of both directions."""
    return result["accuracy"] if isinstance(result, dict) else float(result)


def spread(values: list[float], form: str) -> str:
    """Mean, and lowest to highest."""
    mean, low, high = (
        form.format(x) for x in (statistics.mean(values), min(values), max(values))
    )
    return f"{mean} ({low} to {high})"


def plot(options: argparse.Namespace, work: Path) -> None:
    """Loss by step: stages of the stacked runs, and the fresh ones beside the last."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for seed in pretraining_seeds(options):
        parts = stages(work / f"stacked_{seed}")
        begin = parts[-2][-1]["step"]
        first = seed == options.seeds[0]
        axes.plot(
            [entry["step"] for part in parts for entry in part],
            [entry["loss"] for part in parts for entry in part],
            color="C0",
            linewidth=1,
            label="stacked, 1 -> 2 -> 4 layers" if first else None,
        )
        if seed in options.fresh_seeds:
            (fresh,) = stages(work / f"fresh_{seed}")
            axes.plot(
                [begin + entry["step"] for entry in fresh],
                [entry["loss"] for entry in fresh],
                color="C1",
                linewidth=1,
                label="fresh, 4 layers" if first else None,
            )
        if first:
            for part in parts[:-1]:
                axes.axvline(part[-1]["step"], color="0.7", linestyle=":")
    axes.set(xlabel="step", ylabel="masked-LM loss (MLM and TLM)")
    axes.set_title("Stacked stages and a fresh start, a line a seed")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(options.plot, dpi=110)


def stages(run: Path) -> list[list[dict[str, Any]]]:
    """The entries of a run's log, stage by stage."""
    parts: dict[int, list[dict[str, Any]]] = {}
    for line in (run / "training_log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        parts.setdefault(entry.get("stage", 1), []).append(entry)
    return list(parts.values())


def languages(files: list[str]) -> list[str]:
    """Codes of `en-XX.tsv.gz`."""
    return [Path(file).name.split(".")[0].removeprefix("en-") for file in files]


def flags(values: dict[str, Any]) -> list[str]:
    """Command-line flags."""
    return [
        part for name, value in values.items() for part in (f"--{name}", str(value))
    ]


def labse_tf(*arguments: Any) -> None:
    """Runs a command; what it prints goes to standard error."""
    command = [sys.executable, "-m", "labse_tf", *map(str, arguments)]
    print("$ labse-tf " + " ".join(command[3:]), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
