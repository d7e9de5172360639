"""Replicas: choosing a strategy, and rows gathered from all of them.

The paper's negatives are the targets of *all* cores (Feng et al., 2022, section
2.2, "cross-accelerator negative sampling"). On one device, and on backends other
than TensorFlow, where a step sees the global batch, gathering is the identity.

Shapes: b = local batch (one replica's rows), G = global batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

if TYPE_CHECKING:
    import tensorflow as tf

STRATEGIES = ("auto", "one_device", "mirrored", "cpu:N", "multi_worker", "tpu")


def get_strategy(name: str = "auto", *, tpu: str = "local") -> tf.distribute.Strategy:
    """Makes the `tf.distribute` strategy of a name.

    Args:
        name: `"auto"`: a TPU if one is attached, else all GPUs if there are
            several, else one device. `"one_device"`: no distribution.
            `"mirrored"`: all GPUs of this machine (or its one device). `"cpu:N"`:
            N replicas on logical CPU devices, for trying out what N accelerators
            do; only before TensorFlow has used the CPU. `"multi_worker"`: the
            hosts of `TF_CONFIG`. `"tpu"`: the TPU that `tpu` names.
        tpu: Name or address of the TPU; `"local"` for the one of this machine.

    Returns:
        A strategy; models are made and compiled inside its `scope()`.

    Raises:
        ValueError: If the name is unknown, or the devices it asks for cannot be
            made.
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
        return tf.distribute.MultiWorkerMirroredStrategy()
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
