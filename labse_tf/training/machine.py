"""Memory of this machine: of the container or host, and of the GPUs.

Nothing here starts TensorFlow's GPU runtime, which would take the memory of all GPUs.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Another folder in tests.
ROOT = Path("/")
_UNLIMITED = 1 << 60


class Memory(NamedTuple):
    """Memory of a device.

    Attributes:
        name: Description of the device.
        total: Bytes that the process may use if nothing else does.
        free: Bytes that are free now.
    """

    name: str
    total: int
    free: int


def main_memory() -> Memory | None:
    """Return the main memory, limited by the container; `None` if unknown."""
    known = _fields(ROOT / "proc/meminfo")
    if "MemTotal" not in known:
        return None
    total = known["MemTotal"] * 1024
    free = known.get("MemAvailable", known["MemTotal"]) * 1024
    name = "main memory"
    for folder, limit_file, usage_file in _groups():
        limit, usage = _number(folder / limit_file), _number(folder / usage_file)
        if limit is None or limit >= min(total, _UNLIMITED):
            continue
        # The kernel frees the pages of files before it ends a process.
        cached = _fields(folder / "memory.stat").get("inactive_file", 0)
        total, name = limit, "main memory of this container"
        free = min(free, max(0, limit - max(0, (usage or 0) - cached)))
    return Memory(name, total, min(free, total))


def _groups() -> Iterator[tuple[Path, str, str]]:
    """Yield the control groups of this process, with the names of their files."""
    try:
        lines = (ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            base, files = ROOT / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base = ROOT / "sys/fs/cgroup/memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # Inside a container, the path may be one of the host.
        folder = base / path.lstrip("/")
        yield from ((each, *files) for each in (folder, *folder.parents))
        yield base, *files


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers of a file with a name and a number per line."""
    try:
        text = path.read_text()
    except OSError:
        return {}
    return {k: int(v) for k, v in re.findall(r"(?m)^(\w+):?\s+(\d+)", text)}


def _number(path: Path) -> int | None:
    """Return the number in a file; `None` for other text, such as an absent limit."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def gpu_memory() -> list[Memory]:
    """Return the memory of each GPU that TensorFlow sees, from nvidia-smi.

    TensorFlow is imported only if there is a GPU.
    """
    listed = _listed_gpus()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        indices = [int(i) for i in chosen.split(",") if i.strip().isdecimal()]
        listed = [listed[i] for i in indices if i < len(listed)]
    if not listed:
        return []
    import tensorflow as tf

    return listed[: len(tf.config.list_physical_devices("GPU"))]


def _listed_gpus() -> list[Memory]:
    """Return the memory of all NVIDIA GPUs of the machine."""
    fields = "memory.total,memory.free,name"
    try:
        run = subprocess.run(
            ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    text = run.stdout.decode("utf-8", "replace") if run.returncode == 0 else ""
    rows = re.findall(r"(?m)^(\d+), (\d+), (.+?)\s*$", text)
    return [Memory(name, int(t) << 20, int(f) << 20) for t, f, name in rows]
