"""Checks of outputs: names, types, shapes, norms; a sentence alone and in a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from labse_tf.export.check.subject import (
    Subject,
    gap_between,
    is_finite,
    is_float,
    shape_text,
)

# Largest difference, as a share of the largest norm, between runs that compute the
# same in another order: float32 stays below the first, bfloat16 below the second.
_SAME = 1e-5
_SAME_IN_HALF = 1e-2
# The number of sentences that are also encoded alone.
_ALONE = 16


def check_outputs(subject: Subject, outputs: dict[str, np.ndarray]) -> None:
    """Checks names, types, shapes and finite values."""
    kind = subject.interface.name
    faults: list[str] = []
    recommended: tuple[str, ...] = ()
    wanted: np.dtype[Any] = np.dtype(np.float32)
    if kind == "preprocessor":
        recommended = ("input_word_ids", "input_mask", "input_type_ids")
        wanted = np.dtype(np.int32)
    else:
        if kind == "encoder":
            recommended = ("pooled_output", "sequence_output")
        key = vector_key(outputs)
        # A text model may give the bare vectors.
        if key is None:
            faults.append("no matrix (B, D) of vectors among them")
        elif key not in (("default", "output") if kind == "text" else ("default",)):
            faults.append("no `default`, which users of TF Hub read")
        if key is not None:
            subject.measurements["dimensions"] = int(outputs[key].shape[1])
    for name, value in outputs.items():
        if value.dtype != wanted and (is_float(value) or wanted.kind == "i"):
            faults.append(f"`{name}` is {value.dtype}, expected {wanted}")
        if value.shape[:1] != (len(subject.rows),):
            faults.append(f"`{name}` is {value.shape} for {len(subject.rows)} rows")
        elif not is_finite(value):
            faults.append(f"`{name}` has values that are no finite numbers")
    doubts = [f"no `{name}`" for name in recommended if name not in outputs]
    if subject.interface.strings and not faults:
        empty, error = subject.run([""])
        if empty is None:
            doubts.append(f"an empty text fails: {error}")
        elif not all(map(is_finite, empty.values())):
            doubts.append("an empty text gives no finite numbers")
    shapes = [
        f"{name} {value.dtype} {shape_text(value.shape)}"
        for name, value in outputs.items()
    ]
    subject.judge("outputs", faults, doubts, "; ".join(shapes))


def vector_key(outputs: Mapping[str, np.ndarray]) -> str | None:
    """Returns the name of the output that holds the vectors of the sentences."""
    matrices = [
        name for name, value in outputs.items() if value.ndim == 2 and is_float(value)
    ]
    for name in ("default", "output", "pooled_output"):
        if name in matrices:
            return name
    return matrices[0] if len(matrices) == 1 else None


def check_unit_length(subject: Subject, outputs: Mapping[str, np.ndarray]) -> None:
    """Checks the norms of the vectors."""
    key = vector_key(outputs)
    if key is None:
        subject.add("unit length", "skip", "no vectors")
        return
    norms = np.linalg.norm(outputs[key].astype(np.float64), axis=1)
    off = not np.abs(norms - 1).max() <= 1e-4
    told = f"norms of `{key}` from {norms.min():.6g} to {norms.max():.6g}"
    doubts = ["users must normalise the vectors"] if off else []
    subject.judge("unit length", [], doubts, told)


def check_batch_mates(subject: Subject, outputs: Mapping[str, np.ndarray]) -> None:
    """Checks that other rows and padding do not change the vector of a sentence."""
    name, key = "batch mates", vector_key(outputs)
    if key is None:
        subject.add(name, "skip", "no vectors")
        return
    variants = [
        (f"row {i} alone", [i], 0) for i in range(min(len(subject.rows), _ALONE))
    ]
    if not subject.interface.strings and subject.interface.fixed_length() is None:
        variants.append(("with more padding", list(range(len(subject.rows))), 5))
    norm = max(float(np.linalg.norm(outputs[key], axis=1).max()), 1e-12)
    worst, where = 0.0, ""
    for what, indices, extra in variants:
        rows = [subject.rows[i] for i in indices]
        other, error = subject.run(subject.interface.batch(rows, extra))
        if other is None:
            subject.add(name, "fail", f"{what}: {error}")
            return
        gap = gap_between(other[key], outputs[key][indices]) / norm
        # A comparison with what is no number is false.
        if not gap <= worst:
            worst, where = gap, f" ({what})"
    told = f"alone and in a batch `{key}` differs by {worst:.1e} of its norm"
    if worst <= _SAME:
        subject.add(name, "ok", told)
        return
    told += where
    if worst <= _SAME_IN_HALF:
        subject.add(name, "warn", f"{told}: more than float32 explains")
    else:
        subject.add(name, "fail", f"{told}: other rows or padding change vectors")


def check_batch_mates_of_ids(
    subject: Subject, outputs: Mapping[str, np.ndarray]
) -> None:
    """Checks that other rows add only zeros to the token ids of a sentence."""
    for i, row in enumerate(subject.rows[:_ALONE]):
        alone, error = subject.run([row])
        if alone is None:
            subject.add("batch mates", "fail", f"row {i} alone: {error}")
            return
        for name, value in outputs.items():
            pair = (value[i : i + 1], alone[name])
            width = max(one.shape[1] for one in pair)
            padded = [np.pad(one, ((0, 0), (0, width - one.shape[1]))) for one in pair]
            if (padded[0] != padded[1]).any():
                told = f"`{name}` of row {i} is another one when it is alone"
                subject.add("batch mates", "fail", told)
                return
    subject.add("batch mates", "ok", "alone and in a batch the ids are the same")
