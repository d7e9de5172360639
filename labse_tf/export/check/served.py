"""Checks of serving: signature, session, another process, operations."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from labse_tf.export.check.cost import short_and_long
from labse_tf.export.check.elsewhere import match_names
from labse_tf.export.check.operations import (
    IGNORED,
    LISTED_BEFORE,
    foreign_operations,
    graph_operations,
)
from labse_tf.export.check.subject import (
    Subject,
    arrays,
    attempt,
    first_names,
    gap_between,
    largest,
    signature_inputs,
)
from labse_tf.saved_model import graph_nodes

# The largest allowed difference between loaders on the same machine and batch.
_MOVED = 1e-6
_SECONDS_ELSEWHERE = 900


def check_signature(subject: Subject, outputs: Mapping[str, np.ndarray]) -> None:
    """Check that `serving_default` returns what the call returns."""
    if "serving_default" not in subject.module.signatures:
        told = f"the signatures are {sorted(subject.module.signatures)}"
        told = f"no `serving_default`, which servers run; {told}"
        subject.add("signature", "fail", told)
        return
    signature = subject.module.signatures["serving_default"]
    given = subject.interface.given(subject.batch)
    served, error = attempt(
        lambda: arrays(signature(**match_names(signature_inputs(signature), given)))
    )
    _check_same(subject, "signature", "`serving_default`:", outputs, served, error)


def check_moved(
    subject: Subject, outputs: Mapping[str, np.ndarray], told: dict[str, Any]
) -> None:
    """Check that a copy in another process returns what the call returns."""
    what = "copied, in a new process without labse_tf:"
    outside = _outside_files(subject)
    if outside:
        subject.add("moved", "fail", f"{what} {'; '.join(outside)}")
    elif not subject.callable:
        subject.add("moved", "skip", "the object cannot be called")
    else:
        error = told["errors"].get("call", "")
        _check_same(subject, "moved", what, outputs, told["call"], error)


def check_session(
    subject: Subject, outputs: Mapping[str, np.ndarray], told: dict[str, Any]
) -> None:
    """Check that a session, as in a server, returns what the call returns."""
    error = told["errors"].get("session", "")
    what = "tag `serve`, `serving_default` in a session:"
    _check_same(subject, "session loader", what, outputs, told["session"], error)


def _check_same(
    subject: Subject,
    name: str,
    what: str,
    outputs: Mapping[str, np.ndarray],
    others: Mapping[str, np.ndarray] | None,
    error: str,
) -> None:
    """Add a check that compares the outputs of two ways to run the model."""
    if error or others is None:
        subject.add(name, "fail", f"{what} {error}")
        return
    pairs = {key: (outputs[key], others[key]) for key in outputs.keys() & others}
    if not pairs and len(outputs) == len(others) == 1:
        # A bare tensor has no name, but the outputs of a signature always do.
        key = next(iter(others))
        pairs = {key: (next(iter(outputs.values())), others[key])}
    if not pairs:
        told = f"outputs {sorted(others)}, outputs of the call {sorted(outputs)}"
        subject.add(name, "fail", f"{what} {told}")
        return
    # Relative for values over 1, which token vectors have.
    scales = {key: max(1.0, largest(pair[0])) for key, pair in pairs.items()}
    gap = max(gap_between(*pair) / scales[key] for key, pair in pairs.items())
    status = "ok" if gap <= _MOVED else "fail"
    subject.add(name, status, f"{what} {first_names(sorted(pairs))} equal to {gap:.1e}")


def run_elsewhere(subject: Subject) -> dict[str, Any]:
    """Run a copy in a separate folder in a new process; return its results."""
    batches = {"batch": subject.batch}
    if subject.interface.name == "text":
        batches |= short_and_long(subject)
    found: dict[str, Any] = {"errors": {}, "call": {}, "session": {}}
    with tempfile.TemporaryDirectory(prefix="labse_tf_check_") as temporary:
        names = ("copy", "inputs.json", "outputs.npz")
        copy, inputs, results = (Path(temporary) / name for name in names)
        shutil.copytree(subject.folder, copy, copy_function=_link_or_copy)
        given = {"callable": subject.callable, "batches": batches}
        inputs.write_text(json.dumps(given), encoding="utf-8")
        # Passed as text, because a script could import the files next to it.
        program = Path(__file__).with_name("elsewhere.py")
        command = [sys.executable, "-c", program.read_text(encoding="utf-8")]
        error = ""
        try:
            process = subprocess.run(
                [*command, str(copy), str(inputs), str(results)],
                cwd=temporary,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                encoding="utf-8",
                timeout=_SECONDS_ELSEWHERE,
            )
        except subprocess.TimeoutExpired:
            error = f"not finished after {_SECONDS_ELSEWHERE} s"
        else:
            if process.returncode:
                lines = process.stderr.strip().splitlines()[-1:]
                error = f"exit status {process.returncode} {' '.join(lines)}"[:200]
        if error:
            return {**found, "errors": {"call": error, "session": error}}
        found |= json.loads(process.stdout.splitlines()[-1])
        with np.load(results) as file:
            for name in file.files:
                part, _, key = name.partition("/")
                found[part][key] = file[name]
    return found


def _outside_files(subject: Subject) -> list[str]:
    """Return problems with files that the graph names but the SavedModel lacks."""
    found = set()
    for asset in subject.meta_graph.asset_file_def:
        if not (subject.folder / "assets" / asset.filename).is_file():
            found.add(f"the asset {asset.filename} is missing")
    for node in graph_nodes(subject.meta_graph.graph_def):
        if node.op != "Const" or "value" not in node.attr:
            continue
        values = node.attr["value"].tensor.string_val
        # Longer constants are vocabularies.
        for value in values if len(values) <= 16 else ():
            text = value.decode("utf-8", "replace")
            remote = re.match(r"(gs|s3|hdfs|viewfs|file|ram)://\S+$", text)
            if remote or _is_a_file(text):
                found.add(f"the graph names the file {text}")
    return sorted(found)


def check_operations(subject: Subject) -> None:
    """Check that a stock TF Serving has all operations and attributes."""
    operations = graph_operations(subject.meta_graph.graph_def)
    foreign = foreign_operations(operations)
    names = sorted({operation.name for operation in operations})
    written = subject.meta_graph.meta_info_def.tensorflow_version
    version = tuple(int(number) for number in re.findall(r"\d+", written)[:2])
    compiled = [name for name in names if name.startswith("Xla")]
    faults = [f"{name}: {why}" for name, why in foreign.items()]
    doubts = []
    if compiled:
        doubts.append(f"{first_names(compiled)}: needs a server with XLA")
    if version >= LISTED_BEFORE:
        doubts.append(f"written by TensorFlow {written}, whose additions are not known")
    told = f"{len(names)} operations"
    if not faults:
        told += ", all with attributes of TensorFlow 2.12 or TF-Text 2.12.1"
        if any(
            one.name == IGNORED.name and IGNORED.attributes <= one.attributes
            for one in operations
        ):
            told += f" (except {', '.join(IGNORED.attributes)}, which servers ignore)"
    subject.judge("operations", faults, doubts, told)


def _is_a_file(text: str) -> bool:
    """Return whether a constant is the absolute path of a file."""
    if not os.path.isabs(text) or len(text) > 4096 or "\0" in text:
        return False
    return os.path.isfile(text)


def _link_or_copy(source: str, target: str) -> str:
    """Create a hard link, because weights are large, or else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
