r"""Memory of `labse-tf train` by phase: start, steps, checkpoints, best weights, end.

    python benchmarks/train_memory.py --optimizer adamw lazy_adamw --dev no yes
    python benchmarks/train_memory.py --start int8 --optimizer lazy_adamw
    python benchmarks/train_memory.py --stages 0:4 1:4 --optimizer lazy_adamw

Each row of the table is one process that runs the command on synthetic pairs, with a
token table that dominates the model. The columns are the highest resident memory within
each phase (`VmHWM`, reset between the phases) in MB. "Ratio" is the highest value of
all phases after the start over that of the training steps. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loss_memory import MEGABYTE, resident, run

# The last three are at the end: the best weights, the preset, the loaded preset.
PHASES = ("start", "steps", "checkpoint", "measure", "best", "grow")
PHASES += ("restore", "write", "read")
STARTS = ("new", "float32", "float16", "int8")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def main() -> None:
    """Measure all settings one after another, and print a Markdown table."""
    options = parse()
    if options.worker:
        print(json.dumps(measure(json.loads(options.worker))))
        return
    names = ("vocabulary", "hidden_dim", "layers", "steps", "batch", "stages", "trace")
    base = {name: getattr(options, name) for name in names}
    print(", ".join(f"{name} = {value}" for name, value in base.items()), end="\n\n")
    head = ["optimizer", "start from", "dev", *PHASES, "ratio", "preset"]
    print(f"| {' | '.join(head)} |")
    print("|---|---|---|" + "---:|" * (len(head) - 3))
    for start in options.start:
        for optimizer in options.optimizer:
            for dev in options.dev:
                setting = {"optimizer": optimizer, "start": start, "dev": dev == "yes"}
                result = run({**base, **setting}, script=__file__)
                rest = max(result.get(name, 0) for name in PHASES[1:])
                cells = [optimizer, start, dev]
                cells += [
                    f"{result[name]:,.0f}" if name in result else "" for name in PHASES
                ]
                cells += [f"{rest / result['steps']:.2f}", f"{result['preset']:,.0f}"]
                print(f"| {' | '.join(cells)} |", flush=True)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--optimizer", nargs="+", default=["adamw", "lazy_adamw"])
    parser.add_argument("--start", nargs="+", choices=STARTS, default=["new"])
    parser.add_argument("--dev", nargs="+", choices=("no", "yes"), default=["no"])
    parser.add_argument("--stages", nargs="+", metavar="LAYERS:STEPS", default=[])
    parser.add_argument("--vocabulary", type=int, default=300_000)
    parser.add_argument("--hidden-dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--trace", action="store_true", help="print every phase")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


class Phases:
    """Highest resident memory by phase.

    Attributes:
        peaks: Phase -> bytes.
    """

    def __init__(self, trace: bool) -> None:
        self.peaks: dict[str, int] = {}
        self.trace = trace
        self.current = "start"

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the memory in the block to a phase."""
        outer = self.current
        self.enter(name)
        try:
            yield
        finally:
            self.enter(outer)

    def enter(self, name: str) -> None:
        """End the current phase, and begin another."""
        peak = resident("VmHWM")
        self.peaks[self.current] = max(peak, self.peaks.get(self.current, 0))
        if self.trace:
            now, own = resident("VmRSS"), resident("RssAnon")
            print(
                f"{self.current:>10}: peak {peak / MEGABYTE:,.0f}, now "
                f"{now / MEGABYTE:,.0f}, of which anonymous {own / MEGABYTE:,.0f} MB"
            )
        self.current = name
        Path("/proc/self/clear_refs").write_text("5")

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Count the memory of all calls of a method or function to a phase."""
        inner = getattr(owner, method)

        @functools.wraps(inner)
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return inner(*args, **kwargs)

        setattr(owner, method, counted)


def measure(setting: dict[str, Any]) -> dict[str, float]:
    """Run the command in this process, and return MB by phase."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = prepare(folder, setting)
        phases = watch(setting["trace"])
        from labse_tf.cli import main as command

        if command(arguments):
            raise SystemExit("labse-tf train failed")
        phases.enter("")
        size = sum(path.stat().st_size for path in (folder / "run").glob("model.*"))
    sizes = {**phases.peaks, "preset": size}
    return {name: value / MEGABYTE for name, value in sizes.items()}


def watch(trace: bool) -> Phases:
    """Count the memory of a training run by phase."""
    from labse_tf.models import DualEncoder, LaBSE
    from labse_tf.training import best, dual_encoder, fitting, run

    phases = Phases(trace)
    phases.watch(DualEncoder, "fit", "steps")
    phases.watch(run.Run, "save", "checkpoint")
    phases.watch(dual_encoder, "retrieval", "measure")
    phases.watch(best.BestWeights, "note", "best")
    phases.watch(fitting, "grow", "grow")
    phases.watch(best.BestWeights, "restore", "restore")
    phases.watch(LaBSE, "save_to_preset", "write")
    loaded = LaBSE.from_preset

    # The first preset that is read is the start of the run.
    def from_preset(*args: Any, **kwargs: Any) -> Any:
        with phases.phase("read" if "steps" in phases.peaks else "start"):
            return loaded(*args, **kwargs)

    LaBSE.from_preset = from_preset
    return phases


def prepare(folder: Path, setting: dict[str, Any]) -> list[str]:
    """Write pairs and a vocabulary or preset, and return the command's arguments."""
    import numpy as np

    size = setting["vocabulary"]
    rng = np.random.default_rng(0)
    words = [f"w{number:06d}" for number in range(size - len(SPECIAL))]
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words, ""]))
    for name, count in (("train", 2000), ("dev", 200)):
        with (folder / f"{name}.en-es.tsv").open("w", encoding="utf-8") as file:
            for _ in range(count):
                chosen = rng.integers(0, len(words), 12)
                sides = [" ".join(words[i] for i in half) for half in (chosen, chosen)]
                file.write("\t".join(sides) + "\n")
    dim = setting["hidden_dim"]
    arguments = ["train", str(folder / "train.en-es.tsv"), "--output"]
    arguments += [str(folder / "run"), "--optimizer", setting["optimizer"]]
    flags = {
        "batch-size": setting["batch"],
        "train-steps": setting["steps"],
        "checkpoint-every": max(1, setting["steps"] // 2),
        "dev-every": max(1, setting["steps"] // 2),
        "log-every": 1,
        "warmup-steps": 1,
    }
    if setting["start"] == "new":
        flags |= {
            "vocab": folder / "vocab.txt",
            "num-layers": setting["layers"],
            "hidden-dim": dim,
            "num-heads": max(1, dim // 64),
            "intermediate-dim": 4 * dim,
            "pooling": "mean",
        }
    else:
        arguments += ["--model", str(write_preset(folder, setting))]
    for flag, value in flags.items():
        arguments += [f"--{flag}", str(value)]
    if setting["stages"]:
        arguments += ["--stages", *setting["stages"]]
    if setting["dev"]:
        arguments += ["--dev", str(folder / "dev.en-es.tsv")]
    return arguments


def write_preset(folder: Path, setting: dict[str, Any]) -> Path:
    """Write a preset with random weights, in a process of its own."""
    import subprocess
    import sys

    code = """
import sys
from labse_tf.models import LaBSE, LaBSEBackbone
from labse_tf.preprocessing import SentencePreprocessor
from labse_tf.tokenizers import WordPieceTokenizer
vocabulary, output, storage, layers, dim = sys.argv[1:]
layers, dim = int(layers), int(dim)
tokenizer = WordPieceTokenizer(vocabulary)
backbone = LaBSEBackbone(
    tokenizer.vocabulary_size, layers, max(1, dim // 64), dim, 4 * dim
)
model = LaBSE(backbone, SentencePreprocessor(tokenizer, 64), pooling="mean")
model.save_to_preset(output, storage=storage)
"""
    target = folder / "start"
    values = [folder / "vocab.txt", target, setting["start"]]
    values += [setting["layers"], setting["hidden_dim"]]
    subprocess.run([sys.executable, "-c", code, *map(str, values)], check=True)
    return target


if __name__ == "__main__":
    main()
