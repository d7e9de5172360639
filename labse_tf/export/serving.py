"""What TF Serving reads beside a SavedModel: warm-up requests, batching parameters.

    labse/                       the model's base path, which the server watches
      batching_parameters.txt    how requests are put together
      1/                         a version; the highest number is served
        saved_model.pb ...
        assets.extra/tf_serving_warmup_requests

A server replays the warm-up requests before it takes others, so the first user does not
wait for memory to be allotted and graphs to be optimised.

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

# Sentences that a warm-up text is joined from, so that short and long rows are warm;
# and texts a request.
_JOINED = (1, 2, 4, 8, 16)
_BATCH_SIZES = (1, 16)


def check_version_directory(path: str | Path) -> None:
    """Checks that a server would take a directory for a version of a model.

    Args:
        path: The directory, which need not be there.

    Raises:
        ValueError: If its name is no number from 0 up, written without a sign or
            leading zeros.

    Example:
        >>> from labse_tf.export.serving import check_version_directory
        >>> check_version_directory("serving/labse/1")
    """
    name = Path(path).name
    if not (name.isascii() and name.isdigit() and str(int(name)) == name):
        raise ValueError(
            f"{path}: expected a directory named by its version, a number, such as "
            f"labse/1: TF Serving loads no other. Received: {name!r}"
        )


def warmup_requests(
    interface: str,
    texts: Sequence[str],
    preprocessor: SentencePreprocessor,
    model_name: str,
) -> list[Any]:
    """Makes requests of short and long sentences, alone and in batches.

    Args:
        interface: One of `labse_tf.export.INTERFACES`.
        texts: Sentences to make them of, one at least.
        preprocessor: The model's, for the inputs of an encoder.
        model_name: As the server calls the model.

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
    """Writes warm-up requests where a server looks for them.

    Args:
        folder: The SavedModel.
        logs: As `warmup_requests` makes them.

    Raises:
        tf.errors.OpError: If the file cannot be written.
    """
    import tensorflow as tf

    file = folder / WARMUP_REQUESTS
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def batching_parameters(interface: str) -> str:
    """Batching for a server on a CPU: short waits, batches that stay small.

    Args:
        interface: One of `labse_tf.export.INTERFACES`. An encoder's requests have
            rows of different lengths, which a server must be told to pad.

    Returns:
        A `BatchingParameters` message as text.

    Example:
        >>> from labse_tf.export.serving import batching_parameters
        >>> print(batching_parameters("text").splitlines()[-1])
        max_enqueued_batches { value: 1000 }
    """
    lines = [
        "# Read by tensorflow_model_server --enable_batching",
        "# --batching_parameters_file=...; num_batch_threads is the number of cores",
        "# unless set here. ours: measure with your own traffic.",
        "max_batch_size { value: 64 }",
        "batch_timeout_micros { value: 2000 }",
        "max_enqueued_batches { value: 1000 }",
    ]
    if interface == "encoder":
        # Zeros, which are no tokens in `input_mask`.
        lines.append("pad_variable_length_inputs: true")
    return "\n".join(lines) + "\n"


def import_serving(module: str) -> Any:
    """Imports a module of TF Serving's messages.

    Args:
        module: Its name in `tensorflow_serving.apis`.

    Returns:
        The module.

    Raises:
        ImportError: If `tensorflow-serving-api` is missing.
    """
    import importlib

    try:
        return importlib.import_module(f"tensorflow_serving.apis.{module}")
    except ImportError as error:
        raise ImportError(
            "Warm-up requests are messages of tensorflow-serving-api: "
            f"pip install 'labse-tf[serving]'. Received: {error}"
        ) from error
