"""Checks of calls: the arguments, the size of the batch, two calls alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from labse_tf.export.check.inputs import specification_text
from labse_tf.export.check.subject import Subject, largest_gap


def check_calls(subject: Subject) -> None:
    """Checks `__call__` and its argument `training`; records what fails in `errors`."""
    taken = specification_text(subject.interface.specification)
    if not subject.callable:
        subject.errors = dict.fromkeys((False, True), "the object cannot be called")
        subject.add(
            "callable",
            "fail",
            f"no `__call__`: it can be served with {taken}, but not be a part of a "
            "model or be fine-tuned",
        )
        return
    traces = len(subject.module.__call__.concrete_functions)
    subject.add("callable", "ok", f"takes {taken}; {traces} traces")
    for training in (False, True):
        _, subject.errors[training] = subject.run(subject.batch, training=training)
    failed = [training for training, error in subject.errors.items() if error]
    name = "training argument"
    if not failed:
        subject.add(name, "ok", "traced for True and False")
    elif len(failed) == 1:
        why = subject.errors[failed[0]]
        subject.add(name, "fail", f"`training={failed[0]}` fails: {why}")
    elif subject.interface.name == "preprocessor":
        subject.add(name, "ok", "none, and none is needed")
    else:
        subject.add(
            name,
            "warn",
            "the call takes no `training`, so that fine-tuning has no dropout; TF "
            "Hub allows this where training computes the same",
        )


def check_batch_size(subject: Subject) -> None:
    """Checks that batches of other sizes run."""
    faults = []
    for size in (1, 3):
        _, error = subject.run(subject.interface.batch((subject.rows * 3)[:size]))
        if error:
            faults.append(f"a batch of {size} fails: {error}")
    told = "" if faults else f"free: 1, 3 and {len(subject.rows)} rows run"
    subject.judge("batch size", faults, [], told)


def check_inference(subject: Subject, outputs: Mapping[str, np.ndarray]) -> None:
    """Checks that a second call returns the same."""
    again, error = subject.run(subject.batch)
    if again is None:
        subject.add("inference", "fail", f"a second call fails: {error}")
        return
    gap = largest_gap(outputs, again)
    faults = [f"two calls differ by {gap:.1e}: is dropout on?"] if gap else []
    told = "" if faults else "two calls give the same"
    subject.judge("inference", faults, [], told)
