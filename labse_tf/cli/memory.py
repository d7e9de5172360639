"""The flags `--plan` and `--plan-for` of training commands: memory before training."""

from __future__ import annotations

import argparse
import functools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from labse_tf.cli.output import print_table, write_json

if TYPE_CHECKING:
    from labse_tf.recipes import BaseRecipe
    from labse_tf.training.machine import Memory
    from labse_tf.training.memory import MemoryPlan

_COMPRESSED = {".gz", ".bz2", ".xz", ".zst"}
_RATIO = 4  # ours: size of text over that of compressed text


class Device(NamedTuple):
    """Device of `--plan-for`.

    Attributes:
        kind: `"cpu"` or `"gpu"`.
        memory: Bytes; `None` for the memory of this machine.
    """

    kind: Literal["cpu", "gpu"]
    memory: int | None = None


def parse_device(text: str) -> Device:
    """Parse a device of the command line, such as `"gpu"` or `"gpu:16"`.

    Raises:
        argparse.ArgumentTypeError: If `text` has another form.
    """
    kind, colon, size = text.partition(":")
    try:
        memory = int(float(size) * 1e9) if colon else None
    except (ValueError, OverflowError):
        memory = 0
    if kind not in ("cpu", "gpu") or (memory is not None and memory <= 0):
        raise argparse.ArgumentTypeError(
            "expected cpu or gpu, or with its memory in GB, such as gpu:16. "
            f"Received: {text}"
        )
    return Device("cpu" if kind == "cpu" else "gpu", memory)


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Add `--plan` and `--plan-for`."""
    group = parser.add_argument_group("memory")
    group.add_argument(
        "--plan",
        action="store_true",
        help="print the memory that the run would need by part, the space on disk, and "
        "which flags save memory; trains nothing, and needs neither text nor --output",
    )
    group.add_argument(
        "--plan-for",
        type=parse_device,
        metavar="DEVICE",
        help="the same for another machine: cpu or gpu, with its memory in GB, such as "
        "gpu:16 (default: this machine)",
    )


def wants_plan(options: argparse.Namespace) -> bool:
    """Return whether the flags ask for a plan instead of a training."""
    return options.plan or options.plan_for is not None


def print_plan(
    options: argparse.Namespace,
    recipe: BaseRecipe,
    vocabulary_size: int,
    files: Sequence[str],
    storage: str = "float32",
    *,
    teacher: Mapping[str, Any] | None = None,
) -> None:
    """Print the plan of a run, and write it to the file of `--json`.

    Args:
        options: Options of the command.
        recipe: Recipe with the shape of the model.
        vocabulary_size: Number of rows of the token table.
        files: Files with text.
        storage: Storage type of the preset.
        teacher: See `labse_tf.training.memory.plan_memory`.

    Raises:
        ValueError: If the strategy uses several hosts or a TPU.
    """
    from labse_tf.training.memory import combined_savings, plan_memory, savings

    kind, memory, replicas = _device(options)
    planner = functools.partial(
        plan_memory,
        vocabulary_size=vocabulary_size,
        device=kind,
        replicas=replicas,
        deterministic=bool(options.deterministic),
        measured=bool(getattr(options, "dev", None)),
        storage=storage,
        text_bytes=sum(map(_text_size, files)),
        keep_adapters=bool(getattr(options, "keep_adapters", None)),
        teacher=teacher,
        guided=getattr(options, "guide", None) is not None,
    )
    plan = planner(recipe)
    new = getattr(options, "model", None) is None
    helpful = savings(recipe, planner, new=new)
    together = None
    if memory is not None:
        together = combined_savings(recipe, planner, memory.free, new=new)
    _print_parts(plan)
    print(
        f"peak: {_gb(plan.peak)}, see the column {plan.peak_moment}; the largest part "
        f"after the libraries is {plan.largest.name}"
    )
    _print_disk(options.output, plan.disk)
    if memory is not None:
        fits = "fits" if plan.peak <= memory.free else "does not fit"
        total, free = _gb(memory.total), _gb(memory.free)
        print(f"{memory.name}: {total}, free: {free}; the run {fits}")
    if helpful:
        rows = [[s.flag, _gb(s.saved), _gb(s.plan.peak)] for s in helpful]
        print_table(("one flag", "saves", "peak"), rows)
    if together:
        flags = " ".join(saving.flag for saving in together)
        print(f"fits with {flags}: {_gb(together[-1].plan.peak)}")
    elif together is None and memory is not None:
        print("these flags together are not sufficient: use a smaller model")
    write_json(
        getattr(options, "json", None),
        {
            "device": plan.device,
            "peak": plan.peak,
            "peak_moment": plan.peak_moment,
            "moments": {moment: plan.total(moment) for moment in plan.moments},
            "items": {item.name: dict(item.held) for item in plan.items},
            "disk": dict(plan.disk),
            "memory": None if memory is None else memory._asdict(),
            "fits": None if memory is None else plan.peak <= memory.free,
            "savings": [
                {"flag": s.flag, "saved": s.saved, "peak": s.plan.peak} for s in helpful
            ],
            "together": None if together is None else [s.flag for s in together],
        },
    )


def _device(
    options: argparse.Namespace,
) -> tuple[Literal["cpu", "gpu"], Memory | None, int]:
    """Return kind and memory of the device that trains, and the number of replicas."""
    from labse_tf.training.machine import Memory, gpu_memory, main_memory

    strategy = options.strategy or "auto"
    if strategy in ("multi_worker", "tpu"):
        raise ValueError(
            "--plan requires a strategy of one machine with CPUs or GPUs. "
            f"Received: --strategy {strategy}"
        )
    name, _, count = strategy.partition(":")
    replicas = int(count) if name == "cpu" and count.isdecimal() else 1
    wanted: Device | None = options.plan_for
    if wanted is not None and wanted.memory is not None:
        where = "main memory" if wanted.kind == "cpu" else "memory of the GPU"
        return wanted.kind, Memory(where, wanted.memory, wanted.memory), replicas
    gpus = [] if name == "cpu" or wanted == Device("cpu") else gpu_memory()
    if gpus and strategy in ("auto", "mirrored"):
        replicas = len(gpus)
    if gpus:
        return "gpu", min(gpus, key=lambda gpu: gpu.free), replicas
    if wanted == Device("gpu"):
        return "gpu", None, replicas
    return "cpu", main_memory(), replicas


def _text_size(name: str) -> int:
    """Return the size of the text of a file or directory in main memory, roughly."""
    path = Path(name)
    if not path.exists():
        path = Path(name.partition("=")[2] or name)  # XX=FILE
    if path.is_dir():
        return sum(_text_size(str(inner)) for inner in path.iterdir())
    if not path.is_file():
        return 0
    return path.stat().st_size * (_RATIO if path.suffix in _COMPRESSED else 1)


def _print_parts(plan: MemoryPlan) -> None:
    """Print the parts of the memory in MB, one column per moment."""

    def numbers(held: Mapping[str, int]) -> list[str]:
        sizes = [held.get(moment, 0) for moment in plan.moments]
        return [f"{size / 1e6:,.0f}" if size else "" for size in sizes]

    rows = [[item.name, *numbers(item.held)] for item in plan.items]
    total = {moment: plan.total(moment) for moment in plan.moments}
    print_table(("memory, MB", *plan.moments), [*rows, ["total", *numbers(total)]])


def _print_disk(output: str | None, disk: Mapping[str, int]) -> None:
    """Print the space on disk, and the free space at the output."""
    parts = "; ".join(f"{name}: {_gb(size)}" for name, size in disk.items())
    line = f"disk: {_gb(sum(disk.values()))} ({parts})"
    if output is not None:
        path = Path(output).absolute()
        existing = next(p for p in (path, *path.parents) if p.exists())
        line += f"; free: {_gb(shutil.disk_usage(existing).free)}"
    print(line)


def _gb(size: int) -> str:
    from labse_tf.training.memory import in_gigabytes

    return in_gigabytes(size)
