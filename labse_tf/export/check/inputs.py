"""Interface of a text SavedModel, and batches for it.

Shapes: B sentences, T tokens.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from labse_tf.export.check.elsewhere import tensors
from labse_tf.export.check.operations import foreign_operations, graph_operations
from labse_tf.saved_model import load_saved_model

# Pattern in the name of an encoder's input -> its part of a batch.
_PARTS = (("mask", "mask"), ("type|segment", "types"), ("", "ids"))


class Interface(NamedTuple):
    """One of TF Hub's interfaces for text.

    Attributes:
        name: `text`, `preprocessor` or `encoder`.
        specification: First argument of the call, a structure of `tf.TensorSpec`.
        keys: Inputs of an encoder: names in a dict or indices in a list.
    """

    name: str
    specification: Any
    keys: tuple[Any, ...] = ()

    @property
    def strings(self) -> bool:
        """Whether the model takes strings (B,)."""
        return self.name != "encoder"

    def fixed_length(self) -> int | None:
        """Return the length T that an encoder requires, or `None` for any length."""
        import tensorflow as tf

        shape = tf.nest.flatten(self.specification)[0].shape
        return shape[1] if shape.rank == 2 else None

    def batch(self, rows: Sequence[Any], extra: int = 0) -> Any:
        """Create a batch of JSON values with `extra` tokens of padding."""
        if self.strings:
            return list(rows)
        width = self.fixed_length() or max(map(len, rows)) + extra
        parts = {
            "ids": [row + [0] * (width - len(row)) for row in rows],
            "mask": [[1] * len(row) + [0] * (width - len(row)) for row in rows],
            "types": [[0] * width for _ in rows],
        }
        if isinstance(self.keys[0], str):
            return {
                key: parts[next(part for what, part in _PARTS if re.search(what, key))]
                for key in self.keys
            }
        return [parts[name] for name in ("ids", "mask", "types")]

    def given(self, batch: Any) -> Any:
        """Convert a batch to tensors with the types that the traces take."""
        import tensorflow as tf

        if self.strings:
            return tensors(batch)
        like = self.specification
        like = dict(like) if isinstance(like, Mapping) else list(like)
        return tf.nest.map_structure(
            lambda value, one: tf.cast(value, one.dtype), tensors(batch), like
        )


def load_object(folder: Path, meta_graph: Any) -> Any:
    """Load a SavedModel; errors name operations that TF Serving lacks."""
    try:
        return load_saved_model(folder, tags=["serve"])
    except ValueError as error:
        foreign = foreign_operations(graph_operations(meta_graph.graph_def))
        if not foreign:
            raise
        operations = ", ".join([*foreign][:4])
        raise ValueError(f"{error}; its operations include {operations}") from error


def read_interface(folder: Path, module: Any) -> Interface:
    """Read the interface from the traces or, without traces, from the signature.

    Raises:
        ValueError: If the object does not have one of the text interfaces.
    """
    candidates = []
    if callable(module):
        for trace in module.__call__.concrete_functions:
            positional, named = trace.structured_input_signature
            given = [*positional, *named.values()]
            if given:
                candidates.append((given[0], trace.structured_outputs))
    elif "serving_default" in module.signatures:
        signature = module.signatures["serving_default"]
        inputs = dict(signature.structured_input_signature[1])
        one = next(iter(inputs.values())) if len(inputs) == 1 else inputs
        candidates.append((one, signature.structured_outputs))
    for specification, outputs in candidates:
        found = _interface_of(specification, outputs)
        if found is not None:
            return found
    raise ValueError(
        f"{folder}: expected a text model, called with strings (batch,) or with token "
        "ids, mask and type ids (batch, length). Received: "
        + (
            f"a model called with {specification_text(candidates[0][0])}"
            if candidates
            else "an object that cannot be called"
        )
    )


def _interface_of(specification: Any, outputs: Any) -> Interface | None:
    """Return the interface of one trace, or `None`."""
    import tensorflow as tf

    flat = tf.nest.flatten(specification)
    if not flat or not all(isinstance(one, tf.TensorSpec) for one in flat):
        return None
    if isinstance(specification, tf.TensorSpec):
        if specification.dtype != tf.string or specification.shape.rank not in (
            None,
            1,
        ):
            return None
        made = tf.nest.flatten(outputs)
        numbers = bool(made) and all(
            value.dtype.is_integer and value.shape.rank in (None, 2) for value in made
        )
        return Interface("preprocessor" if numbers else "text", specification)
    if not all(one.dtype.is_integer and one.shape.rank in (None, 2) for one in flat):
        return None
    if isinstance(specification, Mapping):
        names = tuple(specification)
        if any("word_ids" in name or "token_ids" in name for name in names):
            return Interface("encoder", specification, names)
    elif len(flat) == 3:
        # Models before 2021 take ids, mask and types in this order.
        return Interface("encoder", specification, (0, 1, 2))
    return None


def specification_text(specification: Any) -> str:
    """Describe the types and shapes in a structure of `tf.TensorSpec`."""
    import tensorflow as tf

    return ", ".join(
        f"{one.dtype.name} {one.shape}" if isinstance(one, tf.TensorSpec) else repr(one)
        for one in tf.nest.flatten(specification)
    )
