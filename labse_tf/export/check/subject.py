"""Subject of a check: a loaded SavedModel and the results so far.

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
    """A loaded SavedModel and the results of its checks so far.

    Args:
        folder: The directory of the SavedModel.
        meta_graph: The result of `labse_tf.saved_model.read_meta_graph`.
        module: The loaded object.
        texts: Sentences to run the model on.
        runs: Number of timed runs of a batch.

    Attributes:
        interface: The interface of the model.
        rows: The sentences, or random token ids for an encoder.
        batch: `rows` as JSON values in the structure of a call.
        callable: Whether the object has `__call__`.
        trainable: The trainable variables.
        errors: Value of `training` -> error of `__call__`, or "".
        checks: The results.
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
        """Add a result."""
        self.checks.append(Check(name, status, detail))

    def judge(
        self, name: str, faults: Sequence[str], doubts: Sequence[str], told: str
    ) -> None:
        """Add a result that fails if there are faults and warns if there are doubts."""
        status = "fail" if faults else "warn" if doubts else "ok"
        self.add(name, status, "; ".join(filter(None, [*faults, *doubts, told])))

    def call(self, batch: Any, **arguments: Any) -> Any:
        """Call the object or, if it cannot be called, its signature."""
        given = self.interface.given(batch)
        if self.callable:
            return self.module(given, **arguments)
        signature = self.module.signatures["serving_default"]
        return signature(**match_names(signature_inputs(signature), given))

    def run(
        self, batch: Any, **arguments: Any
    ) -> tuple[dict[str, np.ndarray] | None, str]:
        """Return the outputs of a call by name and "", or `None` and an error."""
        return attempt(lambda: arrays(self.call(batch, **arguments)))

    def _token_rows(self) -> list[list[int]]:
        """Return rows of random token ids that are below the vocabulary size.

        The interface does not state this size, so limits are tried until the lookup
        raises no error.
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
    """Return the result of a function and "", or `None` and a one-line error."""
    try:
        return function(*arguments), ""
    # Any exception that a model raises is a result of the check.
    except Exception as error:
        return None, first_line(error)


def arrays(outputs: Any) -> dict[str, np.ndarray]:
    """Return outputs by name as arrays."""
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
    """Return the names of the inputs of a signature."""
    return list(signature.structured_input_signature[1])


def is_float(values: np.ndarray) -> bool:
    """Return whether the type is floating-point, including bfloat16."""
    return values.dtype.kind == "f" or values.dtype.name == "bfloat16"


def is_finite(values: np.ndarray) -> bool:
    """Return whether an array has neither infinity nor NaN."""
    return not is_float(values) or bool(np.isfinite(values).all())


def gap_between(one: np.ndarray, other: np.ndarray) -> float:
    """Return the largest difference, or infinity if the shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    if one.dtype == object:  # strings
        return 0.0 if (one == other).all() else float("inf")
    gap = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(gap.max(initial=0.0))


def largest_gap(
    outputs: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]
) -> float:
    """Return the largest difference over outputs with the same names."""
    names = outputs.keys() & others.keys()
    return max(
        (gap_between(outputs[name], others[name]) for name in names), default=0.0
    )


def largest(values: np.ndarray) -> float:
    """Return the largest absolute value."""
    return float(np.abs(values).max(initial=0)) if values.dtype != object else 0.0


def shape_text(shape: Sequence[int | None]) -> str:
    """Describe the shape of an output, with B as the first dimension."""
    sizes = ["B", *("T" if size is None else str(size) for size in shape[1:])]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def first_names(names: Sequence[str], count: int = 4) -> str:
    """List the first names and the number of further names."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more
