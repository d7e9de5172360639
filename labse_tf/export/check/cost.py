"""Measurements: padding, speed, size."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from labse_tf.export.check.subject import Subject, arrays, attempt

# The number of rows in the batches that measure padding. It is small and unlikely to
# equal another dimension.
_ROWS = 7


def short_and_long(subject: Subject) -> dict[str, list[str]]:
    """Return a batch with rows of one word and a batch with rows of 60 words."""
    word = subject.rows[0].split()[0]
    return {"short": [word] * _ROWS, "long": [" ".join([word] * 60)] * _ROWS}


def check_padding(subject: Subject, widths: dict[str, int]) -> None:
    """Check that short text is padded less than long text; time both."""
    if subject.interface.name == "encoder":
        fixed = subject.interface.fixed_length()
        doubts = [f"the trace fixes the length to {fixed} tokens"] if fixed else []
        subject.judge("padding", [], doubts, "" if fixed else "any length runs")
        return
    batches = short_and_long(subject)
    made = {name: subject.run(batch) for name, batch in batches.items()}
    for name, (outputs, error) in made.items():
        if outputs is None:
            subject.add("padding", "fail", f"a batch of {name} texts fails: {error}")
            return
        if subject.interface.name == "preprocessor":
            widths[name] = next(iter(outputs.values())).shape[1]
    short, long = (_milliseconds(subject, batch) for batch in batches.values())
    told = f"{_ROWS} rows of 1 word take {short:.1f} ms, of 60 words {long:.1f} ms"
    if not (widths.get("short") and widths.get("long")):
        subject.add("padding", "skip", f"no tensors (B, T, D) in the graph; {told}")
        return
    for name in ("short", "long"):
        subject.measurements[f"{name}_length"] = widths[name]
    if widths["short"] == widths["long"]:
        told = f"short text is as slow as long text; {told}"
        subject.add("padding", "warn", f"always to {widths['short']} tokens: {told}")
    else:
        lengths = f"to {widths['short']} and {widths['long']} tokens"
        subject.add("padding", "ok", f"depends on the batch, {lengths}; {told}")


def _milliseconds(subject: Subject, batch: Any) -> float:
    """Return the median duration of `subject.runs` calls after a warm-up call."""

    def run() -> float:
        start = time.perf_counter()
        # Copying the outputs to the host waits for the device to finish.
        arrays(subject.call(batch))
        return 1000 * (time.perf_counter() - start)

    run()
    return float(np.median([run() for _ in range(subject.runs)]))


def check_speed(subject: Subject) -> None:
    """Time one sentence alone and in a batch."""
    alone = subject.interface.batch(subject.rows[:1])
    one, error = attempt(_milliseconds, subject, alone)
    if error:
        subject.add("speed", "fail", f"one sentence: {error}")
        return
    each = _milliseconds(subject, subject.batch) / len(subject.rows)
    subject.measurements["milliseconds"] = one
    subject.add(
        "speed",
        "ok",
        f"{one:.1f} ms for one sentence, {each:.1f} ms per sentence in a batch of "
        f"{len(subject.rows)}, median of {subject.runs} runs",
    )


def check_size(subject: Subject) -> None:
    """Report the size of the files and the number of parameters."""
    sizes: dict[str, int] = {}
    for file in subject.folder.rglob("*"):
        if file.is_file():
            part = file.relative_to(subject.folder).parts[0]
            sizes[part] = sizes.get(part, 0) + file.stat().st_size
    subject.measurements["bytes"] = sum(sizes.values())
    parts = [f"{name} {size / 1e6:.1f}" for name, size in sorted(sizes.items())]
    told = f"{sum(sizes.values()) / 1e6:.1f} MB ({', '.join(parts)})"
    if "parameters" in subject.measurements:
        types = {v.dtype.name for v in getattr(subject.module, "variables", None) or ()}
        told += (
            f"; {int(subject.measurements['parameters']):,} parameters, "
            f"{int(subject.measurements['trainable_parameters']):,} trainable"
            + "".join(f", {name}" for name in sorted(types))
        )
    subject.add("size", "ok", told)
