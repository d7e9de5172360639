"""Checks of calls: arguments, outputs, batch independence, sub-objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from labse_tf.export.check.elsewhere import tensors
from labse_tf.export.check.inputs import specification_text
from labse_tf.export.check.subject import (
    Subject,
    arrays,
    attempt,
    gap_between,
    is_finite,
    is_float,
    largest_gap,
    shape_text,
)

# The largest allowed difference relative to the largest norm, if only the order of
# computation differs: float32 stays below the first, bfloat16 below the second limit.
_SAME = 1e-5
_SAME_IN_HALF = 1e-2
# The number of sentences that are also encoded alone.
_ALONE = 16


def check_calls(subject: Subject) -> None:
    """Check `__call__` and its argument `training`; record failures in `errors`."""
    taken = specification_text(subject.interface.specification)
    if not subject.callable:
        subject.errors = dict.fromkeys((False, True), "the object cannot be called")
        subject.add(
            "callable",
            "fail",
            f"no `__call__`: the signature takes {taken}, but the object cannot be "
            "fine-tuned or used in a model",
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
        subject.add(name, "ok", "no argument; a preprocessor needs none")
    else:
        subject.add(
            name,
            "warn",
            "the call takes no `training`, so fine-tuning has no dropout; TF Hub "
            "allows this only if training and inference compute the same",
        )


def check_batch_size(subject: Subject) -> None:
    """Check that batches of other sizes run."""
    faults = []
    for size in (1, 3):
        _, error = subject.run(subject.interface.batch((subject.rows * 3)[:size]))
        if error:
            faults.append(f"a batch of {size} fails: {error}")
    told = "" if faults else f"batches of 1, 3 and {len(subject.rows)} rows run"
    subject.judge("batch size", faults, [], told)


def check_inference(subject: Subject, outputs: Mapping[str, np.ndarray]) -> None:
    """Check that a second call returns the same outputs."""
    again, error = subject.run(subject.batch)
    if again is None:
        subject.add("inference", "fail", f"a second call fails: {error}")
        return
    gap = largest_gap(outputs, again)
    faults = [f"two calls differ by {gap:.1e}: is dropout on?"] if gap else []
    told = "" if faults else "two calls return the same outputs"
    subject.judge("inference", faults, [], told)


def check_outputs(subject: Subject, outputs: dict[str, np.ndarray]) -> None:
    """Check names, types, shapes and finiteness of the outputs."""
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
        # A text model may return the bare vectors.
        if key is None:
            faults.append("no output is a matrix (B, D) of vectors")
        elif key not in (("default", "output") if kind == "text" else ("default",)):
            faults.append("no output `default`, which TF Hub's contract requires")
        if key is not None:
            subject.measurements["dimensions"] = int(outputs[key].shape[1])
    for name, value in outputs.items():
        if value.dtype != wanted and (is_float(value) or wanted.kind == "i"):
            faults.append(f"`{name}` is {value.dtype}, expected {wanted}")
        if value.shape[:1] != (len(subject.rows),):
            faults.append(f"`{name}` is {value.shape} for {len(subject.rows)} rows")
        elif not is_finite(value):
            faults.append(f"`{name}` has values that are not finite")
    doubts = [f"no `{name}`" for name in recommended if name not in outputs]
    if subject.interface.strings and not faults:
        empty, error = subject.run([""])
        if empty is None:
            doubts.append(f"an empty text fails: {error}")
        elif not all(map(is_finite, empty.values())):
            doubts.append("the outputs of an empty text are not finite")
    shapes = [
        f"{name} {value.dtype} {shape_text(value.shape)}"
        for name, value in outputs.items()
    ]
    subject.judge("outputs", faults, doubts, "; ".join(shapes))


def vector_key(outputs: Mapping[str, np.ndarray]) -> str | None:
    """Return the name of the output with the sentence vectors, if there is one."""
    matrices = [
        name for name, value in outputs.items() if value.ndim == 2 and is_float(value)
    ]
    for name in ("default", "output", "pooled_output"):
        if name in matrices:
            return name
    return matrices[0] if len(matrices) == 1 else None


def check_unit_length(subject: Subject, outputs: Mapping[str, np.ndarray]) -> None:
    """Check the norms of the vectors."""
    key = vector_key(outputs)
    if key is None:
        subject.add("unit length", "skip", "no vectors")
        return
    norms = np.linalg.norm(outputs[key].astype(np.float64), axis=1)
    off = not np.abs(norms - 1).max() <= 1e-4
    told = f"norms of `{key}` from {norms.min():.6g} to {norms.max():.6g}"
    doubts = ["users must normalize the vectors"] if off else []
    subject.judge("unit length", [], doubts, told)


def check_batch_mates(subject: Subject, outputs: Mapping[str, np.ndarray]) -> None:
    """Check that a sentence's vector does not depend on other rows or padding."""
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
        # Negated, because comparisons with NaN are false.
        if not gap <= worst:
            worst, where = gap, f" ({what})"
    told = f"`{key}` alone and in a batch differs by {worst:.1e} of its norm"
    if worst <= _SAME:
        subject.add(name, "ok", told)
        return
    told += where
    if worst <= _SAME_IN_HALF:
        subject.add(name, "warn", f"{told}: more than float32 rounding")
    else:
        subject.add(name, "fail", f"{told}: vectors depend on other rows or padding")


def check_batch_mates_of_ids(
    subject: Subject, outputs: Mapping[str, np.ndarray]
) -> None:
    """Check that other rows only add padding to the token ids of a sentence."""
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
                told = f"`{name}` of row {i} differs alone and in a batch"
                subject.add("batch mates", "fail", told)
                return
    subject.add("batch mates", "ok", "the same ids alone and in a batch")


def check_subobjects(subject: Subject, outputs: Mapping[str, np.ndarray]) -> None:
    """Check that `tokenize` and `bert_pack_inputs` return what the call returns."""
    import tensorflow as tf

    parts = ("tokenize", "bert_pack_inputs")
    tokenize, pack = (getattr(subject.module, part, None) for part in parts)
    if tokenize is None or pack is None:
        missing = [f"`{part}`" for part in parts if not hasattr(subject.module, part)]
        told = f"no {' and no '.join(missing)}: pairs of segments cannot be packed"
        subject.add("subobjects", "warn", told)
        return
    faults: list[str] = []
    tokens, error = attempt(tokenize, tensors(subject.batch))
    if not isinstance(tokens, tf.RaggedTensor) or tokens.dtype != tf.int32:
        what = error or f"{type(tokens).__name__} {tokens.dtype.name}"
        told = f"`tokenize` must return a ragged int32 tensor. Received: {what}"
        subject.add("subobjects", "fail", told)
        return
    # First short rows, which are padded, then all rows, of which some are truncated.
    short = sorted(subject.rows, key=len)[:2]
    for count, rows in ((1, short), (2, subject.rows)):
        packed, error = attempt(
            lambda strings, n=count: arrays(
                pack([tokenize(strings)] * n, seq_length=16)
            ),
            tensors(rows),
        )
        what = f"`bert_pack_inputs` of {count} segment{'s'[: count - 1]}"
        if packed is None:
            faults.append(f"{what} fails: {error}")
            continue
        shapes = {value.shape for value in packed.values()}
        if shapes != {(len(rows), 16)}:
            faults.append(f"{what} with a length of 16 returns the shapes {shapes}")
        types = packed.get("input_type_ids", np.array(count - 1))
        if types.max() != count - 1:
            faults.append(f"{what} returns type ids up to {types.max()}")
    width = next(iter(outputs.values())).shape[1]
    packed, _ = attempt(lambda: arrays(pack([tokens], seq_length=width)))
    if packed is not None and largest_gap(outputs, packed):
        faults.append("`tokenize` and `bert_pack_inputs` differ from the call")
    special = getattr(tokenize, "get_special_tokens_dict", dict)
    table, error = attempt(special)
    doubts = [] if table else [f"no `tokenize.get_special_tokens_dict` {error}"]
    told = f"`tokenize` returns {shape_text(tokens.shape)}; packs 1 and 2 segments"
    subject.judge("subobjects", faults, doubts, "" if faults else told)
