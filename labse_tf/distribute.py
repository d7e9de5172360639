"""Distribution: strategies, and rows gathered from all replicas.

The paper's negatives are the targets of *all* cores (Feng et al., 2022, section 2.2,
"cross-accelerator negative sampling"). On one device, and on backends other than
TensorFlow, a step sees the global batch, so gathering is the identity.

A *worker* is a process with its own replicas; the *chief* is the first worker.
`Workers` is how workers communicate outside a step.

Shapes: b = local batch (rows of one replica), G = global batch.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

# The public API can set this mode, but not read it.
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

if TYPE_CHECKING:
    import tensorflow as tf

STRATEGIES = ("auto", "one_device", "mirrored", "cpu:N", "multi_worker", "tpu")

_TF_CONFIG = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
# ours: numbers that the chief sends at a time, 16 MiB.
_BLOCK = 1 << 22


class WorkerLostError(RuntimeError):
    """Another worker has stopped or cannot be reached, so the step cannot finish."""


def get_strategy(name: str = "auto", *, tpu: str = "local") -> tf.distribute.Strategy:
    """Create a `tf.distribute` strategy by name.

    Args:
        name: `"auto"`: a TPU if one is attached, else all GPUs if there are several,
            else one device. `"one_device"`: no distribution. `"mirrored"`: all GPUs of
            this machine (or its single device). `"cpu:N"`: N replicas on logical CPU
            devices, to test the behavior of N accelerators; only before TensorFlow has
            used the CPU. `"multi_worker"`: the hosts of `TF_CONFIG`; waits for all of
            them. `"tpu"`: the TPU that `tpu` names.
        tpu: Name or address of the TPU; `"local"` for the TPU of this machine. Not yet
            run on a TPU; a test compiles the TPU step with XLA on a CPU.

    Returns:
        A strategy. Create and compile models inside its `scope()`.

    Raises:
        ValueError: If the name is unknown, the devices cannot be created, or
            `TF_CONFIG` does not name the hosts.
    """
    import tensorflow as tf

    if name == "auto":
        if tf.config.list_physical_devices("TPU"):
            return get_strategy("tpu", tpu=tpu)
        several = len(tf.config.list_physical_devices("GPU")) > 1
        return get_strategy("mirrored" if several else "one_device")
    if name == "one_device":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multi_worker":
        _check_tf_config(os.environ.get("TF_CONFIG"))
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        try:
            # TensorFlow has installed a handler that only logs; restore Python's.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        except ValueError:
            pass  # Not the main thread.
        return strategy
    if name == "tpu":
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    prefix, _, count = name.partition(":")
    if prefix == "cpu" and count.isdecimal() and int(count) > 0:
        devices = _logical_cpus(int(count))
        return tf.distribute.MirroredStrategy(devices)
    raise ValueError(
        f"`name` must be one of {STRATEGIES}, with N a positive integer. "
        f"Received: name={name!r}"
    )


def _check_tf_config(text: str | None) -> None:
    """Raise an error unless `TF_CONFIG` names this worker and its cluster."""
    try:
        config = json.loads(text or "")
        task = config["task"]
        hosts = config["cluster"][task["type"]]
        fine = task["type"] in ("chief", "worker") and task["index"] in range(
            len(hosts)
        )
    except (json.JSONDecodeError, KeyError, TypeError):
        fine = False
    if not fine:
        raise ValueError(
            '"multi_worker" needs the environment variable TF_CONFIG, the same on all '
            f"hosts except for the index, such as TF_CONFIG='{_TF_CONFIG}'. "
            f"Received: TF_CONFIG={text!r}"
        )


def _logical_cpus(count: int) -> list[str]:
    """Split the CPU into `count` logical devices and return their names."""
    import tensorflow as tf

    if count > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
        except RuntimeError as error:  # TensorFlow is already initialized.
            made = len(tf.config.list_logical_devices("CPU"))
            if made < count:
                raise ValueError(
                    f"`cpu:{count}` needs {count} logical CPU devices, which can "
                    "only be created before TensorFlow first uses the CPU: create "
                    "the strategy at the start of the program. Received: "
                    f"{made} logical device(s), already created"
                ) from error
    return [f"CPU:{i}" for i in range(count)]


def replica_count() -> int:
    """Return the number of replicas that share a step, 1 outside `tf.distribute`."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def all_gather_rows(rows: Any) -> Any:
    """Concatenate the rows of all replicas, in the order of the replica ids.

    The gradient of each row is the sum of its gradients from the losses of all
    replicas.

    Args:
        rows: `(b, ...)`, b static and the same on all replicas.

    Returns:
        `(G, ...)` with `G = b * replicas`; `rows` itself on one replica. While Keras
        builds a model outside the replicas, only the shape is right.

    Raises:
        ValueError: If b is not static and there are several replicas: an uneven last
            batch would silently get wrong labels.
    """
    if replica_count() == 1:
        return rows
    import tensorflow as tf

    if _only_shapes():
        return tf.concat([rows] * replica_count(), axis=0)
    total = _static_rows(rows) * replica_count()
    gathered = _replica_context().all_gather(tf.convert_to_tensor(rows), axis=0)
    # The collective loses the static shape.
    return tf.ensure_shape(gathered, (total, *rows.shape[1:]))


def sum_over_replicas(value: Any) -> Any:
    """Return the sum of a value over all replicas; `value` itself on one replica."""
    if replica_count() == 1 or _only_shapes():
        return value
    return _replica_context().all_reduce("SUM", value)


def global_row_ids(rows: Any) -> Any:
    """Return the index of each row of this replica in the global batch.

    Args:
        rows: `(b, ...)`, b static if there are several replicas.

    Returns:
        int32 `(b,)`: positions of `rows` in `all_gather_rows(rows)`.
    """
    if replica_count() == 1 or _only_shapes():
        return ops.arange(ops.shape(rows)[0], dtype="int32")
    import tensorflow as tf

    count = _static_rows(rows)
    offset = tf.cast(_replica_context().replica_id_in_sync_group, tf.int32) * count
    return offset + tf.range(count, dtype=tf.int32)


def _only_shapes() -> bool:
    """Return whether Keras is computing shapes outside the replicas.

    `fit` of any `keras.Model` with several replicas starts by building the model with
    symbolic tensors in the cross-replica context.
    """
    import tensorflow as tf

    return in_symbolic_scope() and tf.distribute.in_cross_replica_context()


def _replica_context() -> Any:
    """Return the replica context; raise an error in the cross-replica context."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None:
        raise ValueError(
            "Rows can only be gathered inside `strategy.run`, where each replica has "
            "its own rows. Received: a call in the cross-replica context of "
            f"{type(tf.distribute.get_strategy()).__name__}"
        )
    return context


def _static_rows(rows: Any) -> int:
    """Return the static number of rows, which several replicas require."""
    count = rows.shape[0]
    if count is None:
        raise ValueError(
            "With several replicas every batch must have the same static number of "
            "rows: use `drop_remainder=True` and a `batch_size` that is a multiple of "
            f"the number of replicas. Received: shape={tuple(rows.shape)} on "
            f"{replica_count()} replicas"
        )
    return int(count)


class Workers:
    """Processes that train one model together, and their communication.

    With one process, that process is the chief and receives its own values, so callers
    need no special case. All workers make the same calls in the same order.

    Args:
        strategy: A `tf.distribute.MultiWorkerMirroredStrategy` for several workers; any
            other value means one worker.

    Attributes:
        count: Number of workers.
        is_chief: Whether this worker is the chief, which writes the files.

    Raises:
        WorkerLostError: From each method, if another worker has stopped.
    """

    def __init__(self, strategy: Any = None) -> None:
        self.count, self.is_chief = 1, True
        if not is_multi_worker(strategy):
            return
        import tensorflow as tf

        resolver = strategy.cluster_resolver
        cluster = resolver.cluster_spec()
        self.count = sum(
            cluster.num_tasks(job) for job in ("chief", "worker") if job in cluster.jobs
        )
        first = "chief" if "chief" in cluster.jobs else "worker"
        self.is_chief = (resolver.task_type, resolver.task_id) == (first, 0)

        def of_the_chief(numbers: Any) -> Any:
            context = tf.distribute.get_replica_context()
            own = tf.cast(context.replica_id_in_sync_group == 0, tf.int32)
            return context.all_reduce("SUM", numbers * own)

        def of_all(numbers: Any) -> Any:
            return tf.distribute.get_replica_context().all_gather(numbers[None], axis=0)

        def over_replicas(function: Callable[[Any], Any], shape: tuple) -> Any:
            @tf.function(input_signature=[tf.TensorSpec(shape, tf.int32)])
            def call(numbers: Any) -> Any:
                result = strategy.run(function, args=(numbers,))
                return strategy.experimental_local_results(result)[0]

            return call

        self._of_the_chief = over_replicas(of_the_chief, (None,))
        self._of_all = over_replicas(of_all, (2,))

    def share(self, value: Any) -> Any:
        """Return the chief's value on all workers.

        Args:
            value: Value that JSON can represent; only the chief's value is used.
        """
        if self.count == 1:
            return value
        data = np.frombuffer(json.dumps(value).encode(), np.uint8)
        (size,) = self.share_arrays([np.array([len(data)])])
        data = data if self.is_chief else np.zeros(size[0], np.uint8)
        return json.loads(self.share_arrays([data])[0].tobytes())

    def share_arrays(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the chief's arrays on all workers, bit for bit.

        Args:
            arrays: Arrays of the same shapes and dtypes on all workers; only the
                chief's values are used.
        """
        if self.count == 1:
            return list(arrays)
        received = []
        for array in arrays:
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            # As integers: the other replicas add 0, which keeps every bit.
            numbers = np.pad(data, (0, -len(data) % 4)).view(np.int32)
            with told_as_lost():
                parts = [
                    self._of_the_chief(numbers[start : start + _BLOCK]).numpy()
                    for start in range(0, len(numbers), _BLOCK)
                ]
            data = np.concatenate([*parts, np.zeros(0, np.int32)]).view(np.uint8)
            data = data[: array.nbytes]
            received.append(data.view(array.dtype).reshape(array.shape))
        return received

    def gather(self, first: int, second: int) -> np.ndarray:
        """Return two integers of each replica, int32 `(replicas, 2)`."""
        numbers = np.array([first, second], np.int32)
        if self.count == 1:
            return numbers[None]
        with told_as_lost():
            return self._of_all(numbers).numpy()


def is_tpu(strategy: Any) -> bool:
    """Return whether the replicas of a strategy are the cores of a TPU."""
    import tensorflow as tf

    return isinstance(strategy, tf.distribute.TPUStrategy)


def is_multi_worker(strategy: Any) -> bool:
    """Return whether a strategy (or `None`) spans several processes."""
    if strategy is None or keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return several and bool(strategy.cluster_resolver.cluster_spec().as_dict())


@contextmanager
def told_as_lost() -> Iterator[None]:
    """Raise `WorkerLostError` for TensorFlow's errors about a lost worker.

    TensorFlow detects a closed connection at once. It detects an unresponsive worker by
    the heartbeat, within about ten seconds.
    """
    import tensorflow as tf

    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    ) as error:
        raise WorkerLostError(
            "another worker has stopped or cannot be reached"
        ) from error
