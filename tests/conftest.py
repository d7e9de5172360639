"""Fixtures that every test file may use."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np
import pytest

# Failed assertions in helpers show their values too.
pytest.register_assert_rewrite("helpers")

from helpers.paths import ROOT  # noqa: E402

if TYPE_CHECKING:
    from labse_tf.data import ParallelCorpus


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Starts every test at the same random numbers, in any order of the tests."""
    random.seed(0)
    np.random.seed(0)
    # Only where a test file has paid for the import.
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _nothing_stays_deterministic() -> Iterator[None]:
    """Ends what `deterministic=True` asks of TensorFlow for a whole process.

    Keras compiles nothing with XLA there, so later tests would test something else.
    """
    yield
    if "tensorflow" in sys.modules:
        from tensorflow.python.framework.config import disable_op_determinism

        disable_op_determinism()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of evaluation data, which lies beside the checkout."""
    folder = os.environ.get("LABSE_TF_SHARED")
    path = Path(folder) if folder else ROOT.parent / "shared" / "data"
    if not path.is_dir():
        if folder:
            pytest.fail(f"LABSE_TF_SHARED names no folder: {folder}")
        pytest.skip("no evaluation data: ../shared/data is missing")
    return path


@pytest.fixture(scope="session")
def run_python() -> Callable[..., str]:
    """Runs Python code in a new process and returns what it printed.

    `run_python(code, *arguments, timeout=600, cwd=None, env=None)`: the variables of
    `env` are added to this process's; None as a value takes one away. The package is
    found from any folder unless PYTHONPATH is taken away.
    """

    def run(
        code: str,
        *arguments: str,
        timeout: float = 600,
        cwd: str | os.PathLike[str] | None = None,
        env: dict[str, str | None] | None = None,
    ) -> str:
        code = textwrap.dedent(code)
        changed = {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **(env or {})}
        variables = {k: v for k, v in os.environ.items() if k not in changed}
        variables.update({k: v for k, v in changed.items() if v is not None})
        try:
            process = subprocess.run(
                [sys.executable, "-c", code, *map(str, arguments)],
                cwd=cwd or ROOT,
                env=variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            pytest.fail(
                f"no end after {timeout} s of\n{code}\n"
                f"--- stdout ---\n{_text(error.stdout)}\n"
                f"--- stderr ---\n{_text(error.stderr)[-4000:]}"
            )
        if process.returncode:
            pytest.fail(
                f"exit status {process.returncode} of\n{code}\n"
                f"--- stdout ---\n{process.stdout[-4000:]}\n"
                f"--- stderr ---\n{process.stderr[-4000:]}"
            )
        return process.stdout

    return run


@pytest.fixture
def text(tmp_path: Path) -> tuple[Path, Path]:
    """Pairs as TSV and a vocabulary, the input of the runs in `helpers.runs`."""
    from helpers.runs import write_text

    return write_text(tmp_path)


@pytest.fixture
def corpus() -> ParallelCorpus:
    """The pairs of `text`."""
    from helpers.runs import make_pairs
    from labse_tf.data import ParallelCorpus

    return ParallelCorpus(make_pairs())


@pytest.fixture(scope="session")
def small_quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a quickstart in three languages and few steps; read only."""
    import dataclasses

    pytest.importorskip("tensorflow_hub", reason="the extra `quickstart` is missing")
    pytest.importorskip("django", reason="the extra `quickstart` is missing")
    from labse_tf import quickstart

    folder = tmp_path_factory.mktemp("quickstart") / "labse-quickstart"
    recipe = dataclasses.replace(
        quickstart.RECIPE, num_layers=1, train_steps=60, warmup_steps=6, batch_size=128
    )
    pretraining = dataclasses.replace(
        quickstart.PRETRAINING, train_steps=10, warmup_steps=1
    )
    quickstart.quickstart(
        folder,
        languages=["hi", "bn", "ta", "fr"],
        recipe=recipe,
        pretraining=pretraining,
        vocabulary_size=3000,
        progress=False,
    )
    return folder


def _text(output: bytes | str | None) -> str:
    """Decodes what a process that ran too long had written."""
    if isinstance(output, bytes):
        return output.decode("utf-8", "replace")
    return output or ""
