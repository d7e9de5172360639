"""Additional files for TF Serving: warm-up requests and batching parameters.

    labse/                       base path of the model, which the server watches
      batching_parameters.txt    how requests are combined into batches
      1/                         a version; the highest number is served
        saved_model.pb ...
        assets.extra/tf_serving_warmup_requests

The server replays the warm-up requests before it accepts others, so the first request
does not wait for memory allocation and graph optimization.

References:
    https://www.tensorflow.org/tfx/serving/saved_model_warmup
    https://github.com/tensorflow/serving/blob/master/tensorflow_serving/batching/README.md
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labse_tf.preprocessing import SentencePreprocessor

BATCHING_PARAMETERS = "batching_parameters.txt"
WARMUP_REQUESTS = "assets.extra/tf_serving_warmup_requests"

# The number of sentences joined into one text, so that requests have short and long
# rows, and the number of texts per request.
_JOINED = (1, 2, 4, 8, 16)
_BATCH_SIZES = (1, 16)


def check_version_directory(path: str | Path) -> None:
    """Raise an error unless the name of a directory is a version number.

    Raises:
        ValueError: If the name is not an integer, at least 0, without sign or leading
            zeros.

    Example:
        >>> from labse_tf.export.serving import check_version_directory
        >>> check_version_directory("serving/labse/1")
    """
    name = Path(path).name
    if not (name.isascii() and name.isdigit() and str(int(name)) == name):
        raise ValueError(
            f"{path}: expected a directory with a version number as its name, as TF "
            f"Serving requires, such as labse/1. Received: {name!r}"
        )


def warmup_requests(
    interface: str,
    texts: Sequence[str],
    preprocessor: SentencePreprocessor,
    model_name: str,
) -> list[Any]:
    """Create requests with short and long texts, alone and in batches.

    Args:
        interface: One of `labse_tf.export.INTERFACES`.
        texts: One or more sentences.
        preprocessor: The model's preprocessor, for the inputs of an encoder.
        model_name: Name of the model in the server.

    Returns:
        `PredictionLog` messages.

    Raises:
        ImportError: If `tensorflow-serving-api` is missing.
    """
    import tensorflow as tf

    from labse_tf.export.interfaces import pack_texts, to_hub_names

    prediction_log_pb2 = import_serving("prediction_log_pb2")
    logs = []
    for joined in _JOINED:
        for size in _BATCH_SIZES:
            batch = [
                " ".join(texts[(row + i) % len(texts)] for i in range(joined))
                for row in range(size)
            ]
            inputs = {"inputs": tf.constant(batch)}
            if interface == "encoder":
                inputs = to_hub_names(pack_texts(preprocessor, inputs["inputs"]))
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model_name
            request.model_spec.signature_name = "serving_default"
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            logs.append(log)
    return logs


def write_warmup(folder: Path, logs: Sequence[Any]) -> None:
    """Write warm-up requests into the `assets.extra` of a SavedModel."""
    import tensorflow as tf

    file = folder / WARMUP_REQUESTS
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def batching_parameters(interface: str) -> str:
    """Return a `BatchingParameters` text for a CPU: short waits and small batches.

    For an encoder the server also pads the rows of requests to the same length.

    Example:
        >>> from labse_tf.export.serving import batching_parameters
        >>> print(batching_parameters("text").splitlines()[-1])
        max_enqueued_batches { value: 1000 }
    """
    lines = [
        "# Use with tensorflow_model_server --enable_batching",
        "# --batching_parameters_file=... Default of num_batch_threads: number of",
        "# cores. ours: start values, measure with your own traffic.",
        "max_batch_size { value: 64 }",
        "batch_timeout_micros { value: 2000 }",
        "max_enqueued_batches { value: 1000 }",
    ]
    if interface == "encoder":
        # The server pads with zeros, which `input_mask` marks as padding.
        lines.append("pad_variable_length_inputs: true")
    return "\n".join(lines) + "\n"


def import_serving(module: str) -> Any:
    """Import a module of `tensorflow_serving.apis`, or raise `ImportError`."""
    import importlib

    try:
        return importlib.import_module(f"tensorflow_serving.apis.{module}")
    except ImportError as error:
        raise ImportError(
            "Warm-up requests need tensorflow-serving-api: "
            f"pip install 'labse-tf[serving]'. Received: {error}"
        ) from error
