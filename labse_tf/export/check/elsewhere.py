"""Runs of a SavedModel in a process without labse_tf and in a session.

`check` runs the text of this file in a new Python process where `labse_tf` cannot be
imported. For this reason it does not use `labse_tf.saved_model`.

Shapes: B sentences, T tokens, D dimensions.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

# TensorFlow's error messages have such lines before the reason.
_NO_REASON = ("Graph execution error", "Detected at node", "<stack", "File ")


def main(folder: str, inputs_file: str, outputs_file: str) -> None:
    """Load a SavedModel, call it, and run its signature in a session.

    Prints a JSON object on the last line: `{"errors": {part: message}, "widths":
    {batch: T}}`, where T is the most frequent length of tensors (B, T, D) in a run.

    Args:
        folder: The SavedModel.
        inputs_file: JSON with `callable`, whether the object can be called, and
            `batches`: `batch` and further batches by name. See `tensors`.
        outputs_file: Target npz file for the outputs of `batch`: `call/NAME` from the
            object and `session/NAME` from the signature.
    """
    # Importing the package fails even if it is installed.
    sys.modules["labse_tf"] = None  # type: ignore[assignment]
    import numpy as np
    import tensorflow as tf

    try:
        import tensorflow_text  # noqa: F401 (registers operations)
    except ImportError:
        pass
    with open(inputs_file, encoding="utf-8") as file:
        given = json.load(file)
    arrays: dict[str, Any] = {}
    errors: dict[str, str] = {}
    widths: dict[str, int] = {}
    if given["callable"]:
        try:
            module = tf.saved_model.load(folder)
            outputs = named_tensors(module(tensors(given["batches"]["batch"])))
            arrays |= {f"call/{name}": value.numpy() for name, value in outputs.items()}
        except Exception as error:
            errors["call"] = first_line(error)
    try:
        values, widths = run_in_session(folder, given["batches"])
        arrays |= {f"session/{name}": value for name, value in values.items()}
    except Exception as error:
        errors["session"] = first_line(error)
    np.savez(outputs_file, **arrays)
    print(json.dumps({"errors": errors, "widths": widths}))


def run_in_session(
    folder: str, batches: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Run `serving_default` as TF Serving does: with the tag `serve`, in a session.

    Returns:
        The outputs of `batch` by name, and for each batch the length T of tensors
        (B, T, D) in the graph, 0 if there are no such tensors.

    Raises:
        ValueError: If there is no such signature, or its inputs do not match.
    """
    import tensorflow as tf

    options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE)
    results, widths = {}, {}
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], folder)
        if "serving_default" not in graph.signature_def:
            raise ValueError(
                "expected the signature `serving_default`. Received: "
                f"{sorted(graph.signature_def)}"
            )
        signature = graph.signature_def["serving_default"]
        fetches = {name: info.name for name, info in signature.outputs.items()}
        for name, batch in batches.items():
            matched = match_names(list(signature.inputs), batch)
            feeds = {signature.inputs[k].name: value for k, value in matched.items()}
            trace = tf.compat.v1.RunMetadata()
            values = session.run(fetches, feeds, options=options, run_metadata=trace)
            if name == "batch":
                results = values
            rows = len(next(iter(feeds.values())))
            lengths = Counter[int]()
            for device in trace.step_stats.dev_stats:
                for node in device.node_stats:
                    for output in node.output:
                        sizes = [d.size for d in output.tensor_description.shape.dim]
                        if len(sizes) == 3 and sizes[0] == rows:
                            lengths[sizes[1]] += 1
            widths[name] = lengths.most_common(1)[0][0] if lengths else 0
    return results, widths


def tensors(batch: Any) -> Any:
    """Convert a batch of JSON values to tensors: string (B,) or int32 (B, T)."""
    import tensorflow as tf

    if isinstance(batch, dict):
        return {name: tf.constant(value, tf.int32) for name, value in batch.items()}
    if batch and isinstance(batch[0], str):
        return tf.constant(batch)
    return [tf.constant(value, tf.int32) for value in batch]


def match_names(names: Sequence[str], batch: Any) -> dict[str, Any]:
    """Match parts of a batch to inputs of a signature, whose names may have a prefix.

    Raises:
        ValueError: If the names cannot be matched.
    """
    if not isinstance(batch, dict):
        if len(names) == 1:
            return {names[0]: batch}
        raise ValueError(f"expected a signature with one input. Received: {names}")
    matched = {}
    for name, value in batch.items():
        found = [other for other in names if other == name]
        found = found or [other for other in names if other.endswith(name)]
        if len(found) != 1:
            raise ValueError(
                f"expected a signature with the input {name!r}. Received: {names}"
            )
        matched[found[0]] = value
    return matched


def named_tensors(outputs: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten the outputs of a call to tensors by name.

    Keys and list indices are joined by `_`. The name of a bare tensor is `output`.
    """
    if isinstance(outputs, Mapping):
        items: Any = outputs.items()
    elif isinstance(outputs, (list, tuple)):
        items = enumerate(outputs)
    else:
        return {prefix or "output": outputs}
    named: dict[str, Any] = {}
    for key, value in items:
        named |= named_tensors(value, f"{prefix}_{key}" if prefix else str(key))
    return named


def first_line(error: BaseException, width: int = 200) -> str:
    """Return the type of an error and the first line that states a reason."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(_NO_REASON)]
    return f"{type(error).__name__}: {told[0] if told else ''}"[:width]


if __name__ == "__main__":
    main(*sys.argv[1:])
