"""Forked processes: an error instead of a program that never ends."""

from __future__ import annotations

import os

# The process that created the first model.
_process: int | None = None


def check_not_forked() -> None:
    """Raise an error in a process that was forked after a model was created.

    `fork` does not copy threads, so the child waits forever for the thread pools of
    TensorFlow.

    Raises:
        RuntimeError: If a parent process has created a model.
    """
    global _process
    if _process is None:
        _process = os.getpid()
    if _process != os.getpid():
        raise RuntimeError(
            "TensorFlow does not work in a process forked after a model was created: "
            'start workers with the method "spawn" (`multiprocessing.get_context('
            '"spawn")`, `DataLoader(multiprocessing_context="spawn")`), or fork before '
            "the first model is created (gunicorn without --preload). "
            f"Received: process {os.getpid()}, forked from process {_process}"
        )
