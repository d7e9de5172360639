"""What the benchmarks share: ways of doing a thing, each in a process, taking turns.

A script that compares calls `in_turns`, which starts itself once a way with `--worker
WAY`; there `serve` says what is prepared, and then runs once for each line that it
reads. So every way has its own libraries and threads, all see the same state of the
machine, and while one works the others wait.
"""

from __future__ import annotations

import argparse
import gettext
import importlib.metadata
import importlib.util
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MARK = "@turn "
_PEERS = (
    *("tensorflow", "keras", "keras-hub", "torch", "sentence-transformers"),
    *("transformers", "tokenizers", "onnxruntime"),
)


def parser(text: str | None) -> argparse.ArgumentParser:
    """A command line with what all these scripts take."""
    made = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--rounds", type=int, default=5, help="turns of each way")
    made.add_argument("--only", nargs="+", metavar="WAY", help="ways to run")
    made.add_argument("--folder", help="for files between the ways (a new one)")
    made.add_argument("--worker", help=argparse.SUPPRESS)
    return made


@contextmanager
def folder_of(options: argparse.Namespace) -> Iterator[tuple[Path, list[str]]]:
    """The run's folder, and the arguments that tell workers of it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        yield folder, [*sys.argv[1:], "--folder", str(folder)]


def add_texts(made: argparse.ArgumentParser, count: int = 4096) -> None:
    """Adds the arguments of `real_sentences`."""
    made.add_argument(
        "--texts",
        metavar="DIR",
        help="files of one sentence a line, such as Tatoeba's; left out, the messages "
        "of Django's catalogues",
    )
    made.add_argument("--count", type=int, default=count, help="sentences")


def real_sentences(folder: str | None, count: int) -> list[str]:
    """Distinct sentences of all files in a folder, or of Django, in random order."""
    texts: dict[str, None] = {}
    if folder:
        for path in sorted(Path(folder).glob("*-eng.*")):
            texts.update(dict.fromkeys(path.read_text("utf-8").splitlines()))
    else:
        import django

        locale = Path(django.__file__).parent / "conf" / "locale"
        for path in sorted(locale.glob("*/LC_MESSAGES/django.mo")):
            with path.open("rb") as file:
                catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
            texts.update(dict.fromkeys(text for text in catalogue.values() if text))
    known = sorted(texts)
    if len(known) < count:
        raise ValueError(f"expected {count} sentences. Received: {len(known)}")
    return random.Random(0).sample(known, count)


def has(*modules: str) -> bool:
    """Whether all of them are installed."""
    return all(importlib.util.find_spec(module) for module in modules)


# === The worker ===


def serve(run: Callable[[], Any], **notes: Any) -> None:
    """Says what was prepared, then runs once for each line of standard input.

    What `run` returns, if it is a dict, goes with its time.
    """
    _say(notes)
    for _ in sys.stdin:
        start = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - start
        _say({"seconds": seconds, **(result if isinstance(result, dict) else {})})


def _say(fields: dict[str, Any]) -> None:
    print(_MARK + json.dumps(fields), flush=True)


# === The parent ===


class Way:
    """A process that waits for its turn.

    Args:
        name: For `--worker`.
        arguments: Of the script.
        fresh: A new process each turn, where memory has no room for all of them.
    """

    def __init__(self, name: str, arguments: Sequence[str], fresh: bool) -> None:
        self.name = name
        self.notes: dict[str, Any] = {}
        self.turns: list[dict[str, Any]] = []
        self._command = [sys.executable, sys.argv[0], *arguments, "--worker", name]
        self._fresh = fresh
        self._process: subprocess.Popen[str] | None = None

    def turn(self) -> None:
        """Lets it run once."""
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        self.turns.append(self._hear(process))
        print(f"{self.name}: {self.turns[-1]}", file=sys.stderr, flush=True)
        if self._fresh:
            self.end()

    def end(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def median(self, field: str = "seconds") -> float:
        """Of all turns."""
        return statistics.median(turn[field] for turn in self.turns)

    def _start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.notes = self._hear(self._process)
        return self._process

    def _hear(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(_MARK):
                return json.loads(line[len(_MARK) :])
        raise RuntimeError(f"{self.name} ended with status {process.wait()}")


def in_turns(
    names: Iterable[str],
    options: argparse.Namespace,
    arguments: Sequence[str] | None = None,
    *,
    fresh: bool = False,
) -> dict[str, Way]:
    """Runs all ways in turns; each has its `notes` and `turns` then.

    Args:
        names: Ways, of which `--only` chooses.
        options: The script's.
        arguments: For the workers; left out, the script's own.
        fresh: As `Way` takes it.
    """
    chosen = [n for n in names if not options.only or n in options.only]
    own = sys.argv[1:] if arguments is None else arguments
    ways = [Way(name, own, fresh) for name in chosen]
    for _ in range(options.rounds):
        for way in ways:
            way.turn()
    for way in ways:
        way.end()
    return {way.name: way for way in ways}


def heading() -> str:
    """The machine and the versions, a sentence."""
    cpu = platform.processor() or platform.machine()
    flags = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        text = info.read_text()
        cpu = text.partition("model name")[2].partition(":")[2].split("\n")[0].strip()
        known = ("avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16")
        flags = " with " + ", ".join(f for f in known if f" {f}" in text)
    versions = []
    for name in _PEERS:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{os.cpu_count()} cores of {cpu}{flags}; {', '.join(versions)}."


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table: the first column to the left, all others to the right."""
    lines = ["| " + " | ".join(columns) + " |"]
    lines.append("|---|" + "---:|" * (len(columns) - 1))
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)
