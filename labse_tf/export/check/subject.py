"""The SavedModel that is checked: how it is called, and what was found so far.

Shapes: B sentences, T tokens, D dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labse_tf.export.check.conformance import Check
from labse_tf.export.check.elsewhere import first_line, match_names, named_tensors
from labse_tf.export.check.inputs import read_interface


class Subject:
    """A loaded SavedModel that is checked, and what was found so far.

    Args:
        folder: The directory of the SavedModel.
        meta_graph: Of `labse_tf.saved_model.read_meta_graph`.
        module: The loaded object.
        texts: Sentences to run it on.
        runs: The number of timed runs of a batch.

    Attributes:
        interface: How the model is called.
        rows: The sentences, or random token ids for an encoder.
        batch: `rows` as the input of a call.
        callable: Whether the object has `__call__`.
        trainable: Its trainable variables.
        errors: What `__call__` raises for each value of `training`, or "".
        checks: The findings.
        measurements: The numbers of the report.
    """

    def __init__(
        self, folder: Path, meta_graph: Any, module: Any, texts: list[str], runs: int
    ) -> None:
        self.folder, self.meta_graph, self.module = folder, meta_graph, module
        self.runs = runs
        self.interface = read_interface(folder, module)
        self.checks: list[Check] = []
        self.measurements: dict[str, float] = {}
        self.callable = callable(module)
        self.trainable = list(getattr(module, "trainable_variables", None) or [])
        self.errors: dict[bool, str] = {}
        self.rows: list[Any] = texts if self.interface.strings else self._token_rows()
        self.batch = self.interface.batch(self.rows)

    def add(self, name: str, status: str, detail: str) -> None:
        """Adds a finding."""
        self.checks.append(Check(name, status, detail))

    def judge(
        self, name: str, faults: Sequence[str], doubts: Sequence[str], told: str
    ) -> None:
        """Adds a finding that fails if it has faults and warns if it has doubts."""
        status = "fail" if faults else "warn" if doubts else "ok"
        self.add(name, status, "; ".join(filter(None, [*faults, *doubts, told])))

    def call(self, batch: Any, **arguments: Any) -> Any:
        """Calls the object or, where it cannot be called, its signature."""
        given = self.interface.given(batch)
        if self.callable:
            return self.module(given, **arguments)
        signature = self.module.signatures["serving_default"]
        return signature(**match_names(signature_inputs(signature), given))

    def run(
        self, batch: Any, **arguments: Any
    ) -> tuple[dict[str, np.ndarray] | None, str]:
        """Returns the outputs of a call by name and "", or `None` and the error."""
        return attempt(lambda: arrays(self.call(batch, **arguments)))

    def _token_rows(self) -> list[list[int]]:
        """Random token ids, all of them below the vocabulary's size.

        No interface says how large it is; a lookup says when an id is not in it.
        """
        width = self.interface.fixed_length() or 24
        rows: list[list[int]] = []
        for limit in (1000, 200, 50, 20, 8, 4, 2):
            rng = np.random.default_rng(0)
            lengths = [min(width, 3 * i) for i in range(1, 9)]
            rows = [rng.integers(1, limit, length).tolist() for length in lengths]
            value, error = self.run(self.interface.batch(rows))
            if value is not None or not re.search("indices|not in", error):
                break
        return rows


def attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Returns the result of a function and "", or `None` and its error in one line."""
    try:
        return function(*arguments), ""
    # Whatever a model raises is a finding.
    except Exception as error:
        return None, first_line(error)


def arrays(outputs: Any) -> dict[str, np.ndarray]:
    """Returns outputs by name as arrays."""
    import tensorflow as tf

    named = named_tensors(outputs)
    for name, value in named.items():
        if not isinstance(value, tf.Tensor):
            raise ValueError(
                f"expected dense tensors. Received: `{name}` of type "
                f"{type(value).__name__}"
            )
    return {name: value.numpy() for name, value in named.items()}


def signature_inputs(signature: Any) -> list[str]:
    """Returns the names of the inputs of a signature."""
    return list(signature.structured_input_signature[1])


def is_float(values: np.ndarray) -> bool:
    """Tests for a floating-point type, including bfloat16, which NumPy lacks."""
    return values.dtype.kind == "f" or values.dtype.name == "bfloat16"


def is_finite(values: np.ndarray) -> bool:
    """Tests that an array has neither infinity nor NaN."""
    return not is_float(values) or bool(np.isfinite(values).all())


def gap_between(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the largest difference, infinity where the shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    if one.dtype == object:  # strings
        return 0.0 if (one == other).all() else float("inf")
    gap = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(gap.max(initial=0.0))


def largest_gap(
    outputs: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]
) -> float:
    """Returns the largest difference over outputs with the same names."""
    names = outputs.keys() & others.keys()
    return max(
        (gap_between(outputs[name], others[name]) for name in names), default=0.0
    )


def largest(values: np.ndarray) -> float:
    """Returns the largest absolute value."""
    return float(np.abs(values).max(initial=0)) if values.dtype != object else 0.0


def shape_text(shape: Sequence[int | None]) -> str:
    """Describes the shape of an output, its first size as B."""
    sizes = ["B", *("T" if size is None else str(size) for size in shape[1:])]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def first_names(names: Sequence[str], count: int = 4) -> str:
    """Lists the first of many names."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
