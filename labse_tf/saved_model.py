"""Loading of SavedModels, their graphs, and the traces of their calls.

The shape of a tensor is a tuple in which `None` is a free dimension.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAVED_MODEL = "saved_model.pb"

# === Loading ===


def check_saved_model_directory(
    path: str | os.PathLike[str], *, name: str | None = None
) -> None:
    """Raise `ValueError` unless a local or remote directory has a SavedModel.

    The message uses `name`, by default the path, and lists the directory's entries.
    """
    import tensorflow as tf

    folder = os.fspath(path)
    if tf.saved_model.contains_saved_model(folder):
        return
    expected = f"{name or folder}: expected the directory of a SavedModel"
    if not tf.io.gfile.isdir(folder):
        received = "a file" if tf.io.gfile.exists(folder) else "no such directory"
        raise ValueError(f"{expected}. Received: {received}")
    entries = sorted(entry.strip("/") for entry in tf.io.gfile.listdir(folder))
    versions = [
        entry
        for entry in entries
        if tf.saved_model.contains_saved_model(os.path.join(folder, entry))
    ]
    hint = f" (did you mean its subdirectory {versions[-1]!r}?)" if versions else ""
    raise ValueError(
        f"{expected}, with {SAVED_MODEL}{hint}. Received: a directory with "
        f"{entries[:8]}{' and more' if len(entries) > 8 else ''}"
    )


def load_saved_model(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    tags: Sequence[str] | None = None,
) -> Any:
    """Load a SavedModel, with the operations of TF-Text if it is installed.

    Args:
        path: The directory, local or remote.
        name: Name of the SavedModel in messages. Default: the path.
        tags: Tags of the graph. See `tf.saved_model.load`.

    Returns:
        The object that `tf.saved_model.load` returns.

    Raises:
        ValueError: If there is no SavedModel in the directory, it is damaged, or its
            operations are not installed.
    """
    import tensorflow as tf

    try:
        import tensorflow_text  # noqa: F401 (registers the operations of tokenizers)
    except ImportError:
        pass
    check_saved_model_directory(path, name=name)
    # TensorFlow raises errors of many types for a damaged SavedModel.
    try:
        return tf.saved_model.load(os.fspath(path), tags=tags)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ValueError(
            f"{name or os.fspath(path)}: expected a SavedModel that TensorFlow can "
            f"load. Received: {type(error).__name__}: {lines[0][:200]}"
        ) from error


def read_meta_graph(folder: Path) -> Any:
    """Read the `MetaGraphDef` with the tag `serve`, which servers load.

    Raises:
        ValueError: If there is no such graph, or the file is damaged.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    check_saved_model_directory(folder)
    file = folder / SAVED_MODEL
    saved_model = saved_model_pb2.SavedModel()
    try:
        saved_model.ParseFromString(file.read_bytes())
    except DecodeError as error:
        raise ValueError(
            f"{file}: expected a valid SavedModel. Received: {file.stat().st_size:,} "
            f"bytes that cannot be parsed ({error})"
        ) from error
    for graph in saved_model.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return graph
    tags = [sorted(graph.meta_info_def.tags) for graph in saved_model.meta_graphs]
    raise ValueError(
        f"{file}: expected a graph with the tag 'serve'. Received: graphs with {tags}"
    )


def graph_nodes(graph_def: Any) -> Iterator[Any]:
    """Iterate over the `NodeDef`s of a graph and of its function library."""
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


# === Traces ===


@dataclass(frozen=True)
class Spec:
    """Shape and type of one tensor."""

    shape: tuple[int | None, ...]
    dtype: str

    def __str__(self) -> str:
        """Return the type and the shape."""
        return f"{self.dtype} {self.shape}"


@dataclass(frozen=True)
class Trace:
    """One way to call a SavedModel.

    Attributes:
        inputs: A nest of `Spec`.
        outputs: A nest of `Spec`.
        training: Value of `training`, or `None` if the call has no such argument.
    """

    inputs: Any
    outputs: Any
    training: bool | None


def read_traces(module: Any, name: str) -> list[Trace]:
    """Return one `Trace` per traced function and value of `training`.

    Raises:
        ValueError: If no trace takes one tensor of known rank or a nest of them.
    """
    import tensorflow as tf

    function = module.__call__
    names = function.function_spec.fullargspec.args
    traces = []
    for concrete in function.concrete_functions:
        positional, named = concrete.structured_input_signature
        arguments = {**dict(zip(names, positional, strict=False)), **named}
        training = arguments.get("training")
        flags: tuple[bool | None, ...] = (None,)
        if isinstance(training, tf.TensorSpec):
            flags = (False, True)
        elif isinstance(training, bool):
            flags = (training,)
        try:
            inputs = map_nest(_spec, positional[0])
            outputs = map_nest(_spec, concrete.structured_outputs)
        except (IndexError, ValueError):
            continue
        traces += [Trace(inputs, outputs, flag) for flag in flags]
    if not traces:
        received = [f.structured_input_signature for f in function.concrete_functions]
        raise ValueError(
            f"{name}: expected a SavedModel that takes one argument, a tensor of known "
            f"rank or a nest of them, and returns the same. Received: {received[:4]}"
        )
    return traces


def _spec(leaf: Any) -> Spec:
    """Convert a `tf.TensorSpec` to a `Spec`."""
    import tensorflow as tf

    if not isinstance(leaf, tf.TensorSpec) or leaf.shape.rank is None:
        raise ValueError(f"expected a tensor of known rank. Received: {leaf}")
    return Spec(tuple(leaf.shape.as_list()), leaf.dtype.name)


def map_nest(function: Any, nest: Any) -> Any:
    """Apply a function to the leaves of nested dicts, lists and tuples."""
    if isinstance(nest, Mapping):
        return {key: map_nest(function, value) for key, value in nest.items()}
    if isinstance(nest, (list, tuple)):
        return type(nest)(map_nest(function, value) for value in nest)
    return function(nest)


def leaves(nest: Any) -> list[Any]:
    """Return the leaves of nested dicts, lists and tuples."""
    found: list[Any] = []
    map_nest(found.append, nest)
    return found


def encode_specs(nest: Any) -> Any:
    """Convert a nest of `Spec` to JSON values."""
    if isinstance(nest, Mapping):
        return {"dict": {key: encode_specs(value) for key, value in nest.items()}}
    if isinstance(nest, (list, tuple)):
        return {type(nest).__name__: [encode_specs(value) for value in nest]}
    return {"shape": list(nest.shape), "dtype": nest.dtype}


def decode_specs(record: Mapping[str, Any]) -> Any:
    """Restore a nest of `Spec` from the JSON values of `encode_specs`."""
    if "dict" in record:
        return {key: decode_specs(value) for key, value in record["dict"].items()}
    for kind in (list, tuple):
        if kind.__name__ in record:
            return kind(decode_specs(value) for value in record[kind.__name__])
    return Spec(tuple(record["shape"]), record["dtype"])


def symbolic_tensors(spec: Any, shape: Any) -> Any:
    """Return `keras.KerasTensor`s of the given shapes with the types of a spec."""
    import keras

    if isinstance(shape, Mapping):
        inner = spec if isinstance(spec, Mapping) else {}
        return {key: symbolic_tensors(inner.get(key), shape[key]) for key in shape}
    dtype = spec.dtype if isinstance(spec, Spec) else "float32"
    return keras.KerasTensor(shape, dtype=dtype)


def _kind(dtype: str) -> str:
    """Return the kind of a type. Types of the same kind are cast to each other."""
    return next((kind for kind in ("float", "int") if kind in dtype), dtype)


def fit_to_spec(spec: Any, value: Any) -> Any:
    """Convert a value to the structure, types and shapes of a spec.

    Args:
        spec: A nest of `Spec`.
        value: A nest of tensors, symbolic tensors, arrays or lists.

    Returns:
        A nest of tensors. Integers and floats are cast to the types of the spec, except
        symbolic tensors, which do not change.

    Raises:
        TypeError, ValueError: If a value does not match the spec.
    """
    import keras
    import tensorflow as tf

    if isinstance(spec, Mapping):
        if not isinstance(value, Mapping) or set(value) != set(spec):
            raise ValueError("other keys")
        return {key: fit_to_spec(spec[key], value[key]) for key in spec}
    if isinstance(spec, (list, tuple)):
        if not isinstance(value, (list, tuple)) or len(value) != len(spec):
            raise ValueError("another length")
        pairs = zip(spec, value, strict=True)
        return type(spec)(fit_to_spec(inner, part) for inner, part in pairs)
    symbolic = isinstance(value, keras.KerasTensor)
    tensor = value if symbolic else tf.convert_to_tensor(value, dtype_hint=spec.dtype)
    dtype = value.dtype if symbolic else tensor.dtype.name
    if _kind(dtype) != _kind(spec.dtype):
        raise ValueError("another type")
    if not tf.TensorShape(tensor.shape).is_compatible_with(spec.shape):
        raise ValueError("another shape")
    return tensor if symbolic or dtype == spec.dtype else tf.cast(tensor, spec.dtype)


def describe_nest(nest: Any) -> str:
    """Describe a nest of `Spec`, tensors or other values for a message."""
    if isinstance(nest, Mapping):
        parts = (
            f"{key!r}: {describe_nest(nest[key])}" for key in sorted(nest, key=str)
        )
        return "{" + ", ".join(parts) + "}"
    if isinstance(nest, Spec):
        return str(nest)
    if hasattr(nest, "shape") and hasattr(nest, "dtype"):
        dtype = getattr(nest.dtype, "name", nest.dtype)
        shape = None if getattr(nest.shape, "rank", 0) is None else tuple(nest.shape)
        return f"{dtype} {shape}"
    if isinstance(nest, tuple) or (
        isinstance(nest, list) and nest and all(hasattr(x, "shape") for x in nest)
    ):
        return "[" + ", ".join(describe_nest(value) for value in nest) + "]"
    text = repr(nest)
    return text if len(text) <= 80 else f"{text[:77]}..."
