"""Replicas: choosing a strategy, and rows gathered from all of them.

The paper's negatives are the targets of *all* cores (Feng et al., 2022, section
2.2, "cross-accelerator negative sampling"). On one device, and on backends other
than TensorFlow, where a step sees the global batch, gathering is the identity.

A *worker* is a process with replicas of its own; the *chief* is the first of them.
`Workers` is what they tell each other outside a step.

Shapes: b = local batch (one replica's rows), G = global batch.
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

if TYPE_CHECKING:
    import tensorflow as tf

STRATEGIES = ("auto", "one_device", "mirrored", "cpu:N", "multi_worker", "tpu")

_TF_CONFIG = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
# ours: numbers that the chief sends at a time, 16 MiB
_BLOCK = 1 << 22


class WorkerLostError(RuntimeError):
    """Another worker has ended or cannot be reached, and the step cannot go on."""


def get_strategy(name: str = "auto", *, tpu: str = "local") -> tf.distribute.Strategy:
    """Makes the `tf.distribute` strategy of a name.

    Args:
        name: `"auto"`: a TPU if one is attached, else all GPUs if there are
            several, else one device. `"one_device"`: no distribution.
            `"mirrored"`: all GPUs of this machine (or its one device). `"cpu:N"`:
            N replicas on logical CPU devices, for trying out what N accelerators
            do; only before TensorFlow has used the CPU. `"multi_worker"`: the
            hosts of `TF_CONFIG`; waits for all of them. `"tpu"`: the TPU that `tpu`
            names.
        tpu: Name or address of the TPU; `"local"` for the one of this machine. No TPU
            has run this yet; its step is compiled with XLA on a CPU by a test.

    Returns:
        A strategy; models are made and compiled inside its `scope()`.

    Raises:
        ValueError: If the name is unknown, the devices it asks for cannot be made, or
            `TF_CONFIG` does not say which hosts there are.
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
            # TensorFlow has put a handler of its own, which only logs, under Python's.
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
        f"`name` must be one of {STRATEGIES}, N a positive number. "
        f"Received: name={name!r}"
    )


def _check_tf_config(text: str | None) -> None:
    """Refuses a `TF_CONFIG` that does not name this worker among at least one."""
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
            f"hosts but for the index, such as TF_CONFIG='{_TF_CONFIG}'. "
            f"Received: TF_CONFIG={text!r}"
        )


def _logical_cpus(count: int) -> list[str]:
    """Splits the CPU into `count` logical devices and names them."""
    import tensorflow as tf

    if count > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        try:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
        except RuntimeError as error:  # TensorFlow has been initialised already.
            made = len(tf.config.list_logical_devices("CPU"))
            if made < count:
                raise ValueError(
                    f"`cpu:{count}` needs {count} logical CPU devices, which can "
                    "only be made before TensorFlow first uses the CPU: ask for "
                    "the strategy at the start of the program. Received: "
                    f"{made} logical device(s) already made"
                ) from error
    return [f"CPU:{i}" for i in range(count)]


def replica_count() -> int:
    """Returns how many replicas share a step, 1 outside `tf.distribute`."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def all_gather_rows(rows: Any) -> Any:
    """Concatenates the rows of all replicas, in the order of their ids.

    The gradient flows back to every replica's rows: each gets the sum of what all
    replicas' losses say about them.

    Args:
        rows: `(b, ...)`, b static and the same on all replicas.

    Returns:
        `(G, ...)` with `G = b * replicas`; `rows` itself on one replica.

    Raises:
        ValueError: If b is not static while there are several replicas: an uneven
            last batch would silently get wrong labels.
    """
    if replica_count() == 1:
        return rows
    import tensorflow as tf

    total = _static_rows(rows) * replica_count()
    gathered = _replica_context().all_gather(tf.convert_to_tensor(rows), axis=0)
    # The collective forgets its shape.
    return tf.ensure_shape(gathered, (total, *rows.shape[1:]))


def sum_over_replicas(value: Any) -> Any:
    """Adds up a value over all replicas; each gets the sum.

    Args:
        value: A number or tensor of one shape on all replicas.

    Returns:
        The same shape; `value` itself on one replica.
    """
    if replica_count() == 1:
        return value
    return _replica_context().all_reduce("SUM", value)


def global_row_ids(rows: Any) -> Any:
    """Numbers this replica's rows within the global batch.

    Args:
        rows: `(b, ...)`, b static where there are several replicas.

    Returns:
        int32 `(b,)`: where `all_gather_rows(rows)` holds them.
    """
    if replica_count() == 1:
        return ops.arange(ops.shape(rows)[0], dtype="int32")
    import tensorflow as tf

    count = _static_rows(rows)
    offset = tf.cast(_replica_context().replica_id_in_sync_group, tf.int32) * count
    return offset + tf.range(count, dtype=tf.int32)


def _replica_context() -> Any:
    """The running replica; an error where there is none."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None:
        raise ValueError(
            "Rows are gathered inside `strategy.run`, where each replica has its "
            "own. Received: a call in the cross-replica context of "
            f"{type(tf.distribute.get_strategy()).__name__}"
        )
    return context


def _static_rows(rows: Any) -> int:
    """The number of rows, which several replicas must know beforehand."""
    count = rows.shape[0]
    if count is None:
        raise ValueError(
            "With several replicas every batch must have the same, static number of "
            "rows: batch with `drop_remainder=True` and a `batch_size` that the "
            f"number of replicas divides. Received: shape={tuple(rows.shape)} on "
            f"{replica_count()} replicas"
        )
    return int(count)


class Workers:
    """The processes that train one model together, and what they tell each other.

    One process is its own chief and hears itself, so callers need no second path. All
    workers make the same calls in the same order.

    Args:
        strategy: A `tf.distribute.MultiWorkerMirroredStrategy` for several; anything
            else is one.

    Attributes:
        count: How many there are.
        is_chief: Whether this one writes what is written.

    Raises:
        WorkerLostError: From each method, if another worker has ended.
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
        """Gives all workers what the chief has.

        Args:
            value: JSON types; the chief's counts.

        Returns:
            The chief's value.
        """
        if self.count == 1:
            return value
        data = np.frombuffer(json.dumps(value).encode(), np.uint8)
        (size,) = self.share_arrays([np.array([len(data)])])
        data = data if self.is_chief else np.zeros(size[0], np.uint8)
        return json.loads(self.share_arrays([data])[0].tobytes())

    def share_arrays(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Gives all workers the chief's arrays, bit for bit.

        Args:
            arrays: Of the same shapes and types on all workers; the chief's count.

        Returns:
            The chief's arrays.
        """
        if self.count == 1:
            return list(arrays)
        received = []
        for array in arrays:
            data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            # As whole numbers, to which the others add nothing.
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
        """Collects two numbers from each replica.

        Returns:
            int32 `(replicas, 2)`; one row for one process.
        """
        numbers = np.array([first, second], np.int32)
        if self.count == 1:
            return numbers[None]
        with told_as_lost():
            return self._of_all(numbers).numpy()


def is_tpu(strategy: Any) -> bool:
    """Tells whether a strategy's replicas are the cores of a TPU.

    Args:
        strategy: Any.
    """
    import tensorflow as tf

    return isinstance(strategy, tf.distribute.TPUStrategy)


def is_multi_worker(strategy: Any) -> bool:
    """Tells whether a strategy is one of several processes.

    Args:
        strategy: Of `tf.distribute`, or `None`.
    """
    if strategy is None or keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return several and bool(strategy.cluster_resolver.cluster_spec().as_dict())


@contextmanager
def told_as_lost() -> Iterator[None]:
    """Turns what TensorFlow raises where a worker is missing into `WorkerLostError`.

    TensorFlow sees a closed connection at once, and a worker that says nothing any
    more by its heartbeat, within some ten seconds.
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
            "another worker has ended or cannot be reached"
        ) from error
