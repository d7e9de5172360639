"""HubEncoder: any reusable SavedModel as a layer of Keras 3.

`hub.KerasLayer` is a layer of Keras 2: a Keras 3 model cannot track its weights or use
its outputs. `keras.layers.TFSMLayer` tracks weights, but needs separate endpoints for
inference and training, ignores `regularization_losses`, and saves only the path of the
SavedModel. This layer follows the contract of reusable SavedModels
(https://www.tensorflow.org/hub/reusable_saved_models) and saves the SavedModel in the
`.keras` file.

The variables that `tf.saved_model.load` creates are the storage of the layer's Keras
variables, so the loaded functions read the weights that the optimizer updates.

Shapes: B = examples of a batch, D = dimensions of an embedding.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

# The public API can set this mode, but not read it.
from keras.src.saving.serialization_lib import in_safe_mode

from labse_tf.saved_model import (
    Spec,
    Trace,
    check_saved_model_directory,
    decode_specs,
    describe_nest,
    encode_specs,
    fit_to_spec,
    leaves,
    load_saved_model,
    map_nest,
    read_traces,
    symbolic_tensors,
)

if TYPE_CHECKING:
    import tensorflow as tf

ARCHIVE = "saved_model.zip"
_CHECKPOINT = "variables/variables"


@keras.saving.register_keras_serializable(package="labse_tf")
class HubEncoder(keras.layers.Layer):
    """A reusable SavedModel as a Keras 3 layer that can be trained and saved.

    The SavedModel is called as by `hub.KerasLayer`: `training` is passed if its
    `__call__` has this argument, and is true only while the layer is trainable, so a
    frozen encoder has no dropout. Its `variables` become weights of the layer, of which
    its `trainable_variables` are trainable (int8 matrices are not). While the layer is
    trainable, its `regularization_losses` are added to the model's loss.

    A model saved as `.keras` includes the SavedModel's graph and assets and the trained
    weights, so it can be loaded without the SavedModel. A graph can read and write
    files, so loading requires `keras.saving.load_model(path, safe_mode=False)`. Load
    only models that you trust. `save_weights` writes only the weights.

    The types of the SavedModel do not depend on the dtype policy: integers and floats
    are cast to the types of its inputs.

    Args:
        path: Directory of a SavedModel; or `https://...`, a handle of TensorFlow Hub
            or an archive, which `tensorflow_hub` downloads and caches.
        trainable: Whether the optimizer updates the trainable weights.
        output_key: Key of the returned output if the outputs are a dict. `None` returns
            the whole dict. Text encoders have `"default"`.
        saved_model: The record in `get_config`. If `path` no longer has the recorded
            SavedModel, `load_assets` must restore it.
        **kwargs: `name` and other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: Inputs of the SavedModel: strings `(B,)` or a dict of integers, as
            tensors, NumPy arrays or lists.
        training: Whether the call is a training step.

    Returns:
        The output named `output_key`, for text encoders `(B, D)`, or all outputs.

    Raises:
        ValueError: If Keras does not run on TensorFlow; if there is no SavedModel, it
            cannot be loaded or called, or its outputs lack `output_key`; or if the
            inputs of a call do not match.
        ImportError: If `path` is a handle and `tensorflow_hub` is not installed.

    Example:
        >>> import tensorflow as tf
        >>> from labse_tf.hub import HubEncoder
        >>> module = tf.train.Checkpoint(table=tf.Variable([[1.0, 2.0]]))
        >>> module.variables = module.trainable_variables = [module.table]
        >>> module.__call__ = tf.function(
        ...     lambda texts: tf.gather(module.table, tf.zeros_like(texts, tf.int32)),
        ...     input_signature=[tf.TensorSpec([None], tf.string)])
        >>> tf.saved_model.save(module, "constant_encoder")
        >>> layer = HubEncoder("constant_encoder")
        >>> layer(["Hello, world."]).numpy().tolist()
        [[1.0, 2.0]]
        >>> texts = keras.Input((), dtype="string")
        >>> model = keras.Model(texts, keras.layers.Dense(1)(layer(texts)))
        >>> len(model.trainable_weights)
        3
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        trainable: bool = True,
        *,
        output_key: str | None = "default",
        saved_model: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(trainable=trainable, **kwargs)
        if keras.backend.backend() != "tensorflow":
            raise ValueError(
                "HubEncoder: expected Keras on TensorFlow (KERAS_BACKEND=tensorflow), "
                "because a SavedModel is a TensorFlow graph. Received: "
                f"KERAS_BACKEND={keras.backend.backend()}"
            )
        # Keras must not convert strings, lists and the SavedModel's own types.
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True
        # XLA cannot compile string ops and would recompile for every length of ids.
        self.supports_jit = False
        self.source = os.fspath(path)
        self.output_key = output_key
        self._module: Any = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        # For each weight, the index of its variable among those of the SavedModel.
        self._orders: tuple[int, ...] = ()
        if saved_model is None:
            self._folder = _resolve(self.source)
            check_saved_model_directory(self._folder, name=self.source)
            self._fingerprint = _fingerprint(self._folder)
            self._track(*_load(self._folder, self.source))
        elif not _is_handle(self.source) and _holds(
            self.source, saved_model["fingerprint"]
        ):
            self._folder = self.source
            self._fingerprint = saved_model["fingerprint"]
            self._track(*_load(self._folder, self.source))
        else:
            self._folder = ""
            self._expect(saved_model)
        self.built = True

    # === The SavedModel and its variables ===

    def _track(self, module: Any, created: Sequence[tf.Variable]) -> None:
        """Add the variables of a loaded SavedModel to the weights of this layer."""
        self._describe(module)
        order = {id(v): n for n, v in enumerate(created)}
        own = list(getattr(module, "variables", ()))
        if not own:
            # A tf.Module has no such list: use the variables that its function reads.
            used = {
                id(v) for f in module.__call__.concrete_functions for v in f.variables
            }
            own = [v for v in created if id(v) in used]
            trainable = {id(v) for v in own if v.trainable}
        else:
            listed = getattr(module, "trainable_variables", ())
            # Gradient tapes only watch variables that are marked as trainable.
            trainable = {id(v) for v in listed if v.trainable}
        trainable = {id(v) for v in own if id(v) in trainable and v.dtype.is_floating}
        # Keras lists trainable weights first.
        own = [v for v in own if id(v) in order and _can_be_weight(v)]
        own.sort(key=lambda v: id(v) not in trainable)
        with keras.name_scope(self.name):
            for v in own:
                variable = keras.Variable(
                    initializer=v,
                    dtype=v.dtype.name,
                    trainable=id(v) in trainable,
                    autocast=False,
                    name=v.name.split(":")[0].replace("/", "_"),
                )
                self._track_variable(variable)
        self._orders = tuple(order[id(v)] for v in own)

    def _expect(self, recorded: Mapping[str, Any]) -> None:
        """Create empty weights for a SavedModel that `load_assets` will restore."""
        self._fingerprint = recorded["fingerprint"]
        self._traces = [
            Trace(decode_specs(t["inputs"]), decode_specs(t["outputs"]), t["training"])
            for t in recorded["traces"]
        ]
        for entry in recorded["variables"]:
            self.add_weight(
                shape=tuple(entry["shape"]),
                initializer="zeros",
                dtype=entry["dtype"],
                trainable=entry["trainable"],
                autocast=False,
                name=entry["name"],
            )
        self._orders = tuple(entry["order"] for entry in recorded["variables"])

    def _pairs(self) -> Iterator[tuple[int, keras.Variable]]:
        """Return the weights with their indices among the SavedModel's variables."""
        return zip(self._orders, self.weights, strict=True)

    def _describe(self, module: Any) -> None:
        """Read the traces of a loaded SavedModel and check its outputs."""
        traces = read_traces(module, self.source)
        for trace in traces:
            self._select(trace.outputs)
        losses = list(getattr(module, "regularization_losses", ()))
        if not all(callable(loss) for loss in losses):
            raise ValueError(
                f"{self.source}: `regularization_losses` must be functions without "
                f"arguments. Received: {losses}"
            )
        self._traces = traces
        self._module = module

    def _loaded(self) -> Any:
        """Return the loaded SavedModel, or raise an error if it is not loaded."""
        if self._module is None:
            raise ValueError(
                f"{self.name}: the SavedModel of the layer is not loaded: expected the "
                "original SavedModel at `path`, or a `.keras` file, which includes it "
                f"(`keras.saving.load_model`). Received: path={self.source!r}, which "
                "is missing or has a different SavedModel"
            )
        return self._module

    # === Calls ===

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Run the SavedModel. See the class."""
        module = self._loaded()
        trace, tensors = self._fit(inputs, bool(training) and self.trainable)
        arguments = {} if trace.training is None else {"training": trace.training}
        outputs = module(tensors, **arguments)
        if self.trainable:
            for loss in getattr(module, "regularization_losses", ()):
                self.add_loss(loss())
        return self._select(outputs)

    def _select(self, outputs: Any) -> Any:
        """Return the output named `output_key`, or all outputs."""
        if self.output_key is None:
            return outputs
        if isinstance(outputs, Mapping):
            if self.output_key in outputs:
                return outputs[self.output_key]
            raise ValueError(
                f"{self.source}: `output_key` must be one of {sorted(outputs)}, or "
                f"None for the whole dict. Received: {self.output_key!r}"
            )
        if self.output_key != "default":
            raise ValueError(
                f"{self.source}: `output_key` must be left out, because the SavedModel "
                f"does not return a dict. Received: {self.output_key!r}"
            )
        return outputs

    def _fit(self, inputs: Any, training: bool = False) -> tuple[Trace, Any]:
        """Return the trace that takes the inputs, and the inputs in its types."""
        # A SavedModel may have been traced for one value of `training` only.
        by_preference = sorted(
            self._traces, key=lambda trace: trace.training not in (None, training)
        )
        for trace in by_preference:
            try:
                return trace, fit_to_spec(trace.inputs, inputs)
            except (TypeError, ValueError):
                continue
        accepted = sorted({describe_nest(trace.inputs) for trace in self._traces})
        raise ValueError(
            f"{self.name}: `inputs` must be {' or '.join(accepted)}, where None is any "
            f"size. Received: {describe_nest(inputs)}"
        )

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """Return `keras.KerasTensor`s of the outputs, from the SavedModel's traces."""
        trace, bound = self._fit(inputs)
        rows = {tuple(x.shape)[:1] for x in leaves(bound)}
        free = {spec.shape[:1] for spec in leaves(trace.inputs)} == {(None,)}
        batch = rows.pop()[0] if free and len(rows) == 1 else None

        def tensor(spec: Spec) -> keras.KerasTensor:
            shape = spec.shape
            if shape and shape[0] is None:
                shape = (batch, *shape[1:])
            return keras.KerasTensor(shape, dtype=spec.dtype)

        return map_nest(tensor, self._select(trace.outputs))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the shapes of the outputs, with `None` for a free dimension."""
        symbols = symbolic_tensors(self._traces[0].inputs, input_shape)
        outputs = self.compute_output_spec(symbols)
        return map_nest(lambda tensor: tuple(tensor.shape), outputs)

    # === Saving ===

    def get_config(self) -> dict[str, Any]:
        """Return the arguments and a record of traces and variables as JSON values."""
        recorded = {
            "fingerprint": self._fingerprint,
            "traces": [
                {
                    "inputs": encode_specs(trace.inputs),
                    "outputs": encode_specs(trace.outputs),
                    "training": trace.training,
                }
                for trace in self._traces
            ],
            "variables": [
                {
                    "order": order,
                    "name": variable.name,
                    "shape": list(variable.shape),
                    "dtype": variable.dtype,
                    "trainable": n < len(self._trainable_variables),
                }
                for n, (order, variable) in enumerate(self._pairs())
            ],
        }
        return {
            **super().get_config(),
            "path": self.source,
            "output_key": self.output_key,
            "saved_model": recorded,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> HubEncoder:
        """Create a layer from `get_config`, loaded if `path` has the same SavedModel.

        Raises:
            ValueError: If a file is loaded in safe mode.
        """
        if in_safe_mode():
            raise ValueError(
                "A HubEncoder runs the graph of a SavedModel, which can read and write "
                "files: expected `safe_mode=False` in the function that loads it, if "
                f"you trust its source. Received: path={config.get('path')!r} in safe "
                "mode"
            )
        if in_safe_mode() is None and _is_handle(config["path"]):
            # The layer is cloned within the process, so no file has the SavedModel.
            config = {key: config[key] for key in config if key != "saved_model"}
        return cls(**config)

    def save_assets(self, dir_path: str) -> None:
        """Write the SavedModel without the layer's weights into a `.keras` file."""
        self._loaded()
        if self._temporary is None and not _holds(self._folder, self._fingerprint):
            raise ValueError(
                f"{self._folder}: expected the SavedModel of {self.name}, to save it "
                "with the model (`save_weights` does not need it). Received: no "
                "SavedModel, or a different one"
            )
        storage = {id(v.value) for v in self.weights}
        _pack(self._folder, Path(dir_path) / ARCHIVE, self._module, storage)

    def load_assets(self, dir_path: str | None) -> None:
        """Load the SavedModel from a `.keras` file, unless it is already loaded."""
        if self._module is not None:
            return
        archive = Path(dir_path or "") / ARCHIVE
        temporary = tempfile.TemporaryDirectory(
            prefix="labse_tf_hub_", ignore_cleanup_errors=True
        )
        try:
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(temporary.name)
        except (OSError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{self.name}: expected {ARCHIVE} among the layer's assets. "
                f"Received: {error}"
            ) from error
        # The packed checkpoint has zeros for the weights, which Keras has already read.
        values = [v.numpy() for v in self.weights]
        storage = {order: v.value for order, v in self._pairs()}
        module, _ = _load(temporary.name, str(archive), storage)
        for variable, value in zip(self.weights, values, strict=True):
            variable.assign(value)
        self._describe(module)
        self._folder = temporary.name
        # The folder is kept as long as the layer, because exporting reads the assets.
        self._temporary = temporary


def _can_be_weight(variable: tf.Variable) -> bool:
    """Return whether Keras can track and save a variable."""
    dtype = variable.dtype
    numeric = dtype.is_floating or dtype.is_integer or dtype.is_bool
    return bool(numeric and variable.shape.is_fully_defined())


# === Directories ===


def _is_handle(path: str) -> bool:
    """Return whether a path is a handle that TensorFlow Hub resolves."""
    return path.startswith(("http://", "https://"))


def _resolve(path: str) -> str:
    """Return the directory of a path or a handle."""
    if not _is_handle(path):
        return path
    try:
        import tensorflow_hub as hub
    except ImportError as error:
        raise ImportError(
            "`path` is a handle of TensorFlow Hub, which needs tensorflow_hub: "
            f"pip install 'labse-tf[quickstart]'. Received: {path!r}"
        ) from error
    return hub.resolve(path)


def _files(folder: str) -> Iterator[str]:
    """Iterate over the relative paths of the files in a directory, sorted."""
    import tensorflow as tf

    for parent, _, names in sorted(tf.io.gfile.walk(folder)):
        for name in sorted(names):
            yield os.path.relpath(os.path.join(parent, name), folder)


def _fingerprint(folder: str) -> str:
    """Return a hash of a SavedModel's graph, assets and checksums of weights."""
    import tensorflow as tf

    digest = hashlib.sha256()
    for name in _files(folder):
        inside = Path(name).parts
        # The index of a checkpoint holds the checksum of each tensor.
        graph = inside[0] == "assets" or name.startswith("saved_model.")
        if graph or (inside[0] == "variables" and name.endswith(".index")):
            digest.update(f"{Path(name).as_posix()}\n".encode())
            with tf.io.gfile.GFile(os.path.join(folder, name), "rb") as file:
                digest.update(hashlib.sha256(file.read()).digest())
    return digest.hexdigest()


def _holds(folder: str, fingerprint: str) -> bool:
    """Return whether a directory has the SavedModel with this fingerprint."""
    import tensorflow as tf

    return bool(
        tf.saved_model.contains_saved_model(folder)
        and _fingerprint(folder) == fingerprint
    )


def _load(
    folder: str, name: str, storage: Mapping[int, tf.Variable] | None = None
) -> tuple[Any, list[tf.Variable]]:
    """Load a SavedModel; the variable with index n becomes `storage[n]`, if given.

    Returns:
        The module and its variables in the order of creation, which does not change
        when the same SavedModel is loaded again.
    """
    import tensorflow as tf

    created: list[tf.Variable] = []

    def create(next_creator: Any, **kwargs: Any) -> tf.Variable:
        given = (storage or {}).get(len(created))
        created.append(next_creator(**kwargs) if given is None else given)
        return created[-1]

    with tf.variable_creator_scope(create):
        module = load_saved_model(folder, name=name)
    if not callable(module) or not getattr(module.__call__, "concrete_functions", ()):
        endpoints = sorted(getattr(module, "signatures", {}))
        raise ValueError(
            f"{name}: expected a reusable SavedModel, which can be called; use "
            "`keras.layers.TFSMLayer(path, call_endpoint=...)` to run signatures "
            f"without training. Received: only the signatures {endpoints}"
        )
    return module, created


def _pack(folder: str, archive: Path, module: Any, storage: set[int]) -> None:
    """Zip a SavedModel with zeros for the variables in `storage`.

    The loader requires a value for every variable, and zeros compress well.
    """
    import tensorflow as tf

    reader = tf.train.load_checkpoint(os.path.join(folder, _CHECKPOINT))
    shapes = reader.get_variable_to_shape_map()
    types = reader.get_variable_to_dtype_map()
    tensors = {
        key: tf.zeros(shape, types[key])
        if id(_attribute(module, key)) in storage
        else tf.constant(reader.get_tensor(key), types[key])
        for key, shape in sorted(shapes.items())
    }
    with (
        tempfile.TemporaryDirectory() as temporary,
        zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed,
    ):
        with tf.device("CPU"):
            tf.raw_ops.SaveV2(
                prefix=os.path.join(temporary, "variables"),
                tensor_names=list(tensors),
                shape_and_slices=[""] * len(tensors),
                tensors=list(tensors.values()),
            )
        for file in sorted(Path(temporary).iterdir()):
            packed.write(file, f"{Path(_CHECKPOINT).parent}/{file.name}")
        for name in _files(folder):
            if Path(name).parts[0] == "variables":
                continue
            with (
                tf.io.gfile.GFile(os.path.join(folder, name), "rb") as source,
                packed.open(Path(name).as_posix(), "w", force_zip64=True) as target,
            ):
                shutil.copyfileobj(source, target)


def _attribute(module: Any, key: str) -> Any:
    """Return the object of a checkpoint key like `variables/3/.ATTRIBUTES/`, if any."""
    path, _, _ = key.partition("/.ATTRIBUTES/")
    found = module
    for part in path.split("/"):
        try:
            found = found[int(part)] if part.isdigit() else getattr(found, part)
        except (AttributeError, IndexError, KeyError, TypeError):
            return None
    return found
