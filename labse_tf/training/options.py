"""Options of a run: how it is carried out, as opposed to what it makes.

A recipe decides the result; these settings do not, apart from rounding. An interrupted
run may therefore be resumed with other options.
"""

from __future__ import annotations

import dataclasses

from labse_tf.progress import Progress
from labse_tf.settings import check_settings, setting

ON_NAN = ("stop", "skip")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; see the fields' help for meaning and units.

    The flags of `labse-tf train` and `labse-tf pretrain` come from these fields.
    `progress` has no flag; see `labse_tf.progress`. Where there is no terminal, `None`
    prints a line from time to time.

    Raises:
        ValueError: If a value is not allowed; the message names the field.

    Example:
        >>> from labse_tf.training import RunOptions
        >>> RunOptions(checkpoint_every=200).log_every
        50
    """

    strategy: str = setting(
        "auto",
        "auto, one_device, mirrored, cpu:N, multi_worker (the hosts of TF_CONFIG; run "
        "the same command on each) or tpu",
        group="run",
    )
    tpu: str = setting("local", "name or address of the TPU", group="run")
    steps_per_execution: int = setting(
        1,
        "steps that TensorFlow runs before it returns to Python; checkpoints and lines "
        "of the log come at the end of an execution. The weights are the same",
        group="run",
        must_be="positive",
    )
    on_nan: str = setting(
        "stop",
        "at a loss that is not finite: stop and report the step, or skip the step and "
        "count it in the log",
        group="run",
        choices=ON_NAN,
    )
    checkpoint_every: int = setting(
        1000,
        "steps between checkpoints; a stage ends with a checkpoint too",
        group="run",
        must_be="positive",
    )
    log_every: int = setting(
        50,
        "steps per line of the log, which holds their means",
        group="run",
        must_be="positive",
    )
    dev_every: int = setting(
        1000,
        "steps between measurements on the held-out pairs; the last step has one too",
        group="run",
        must_be="positive",
    )
    deterministic: bool = setting(
        False,
        "bit-identical results on the same machine, somewhat slower",
        group="run",
    )
    progress: Progress = setting(None, "see `labse_tf.progress`", group=None)

    def __post_init__(self) -> None:
        """Checks the values."""
        check_settings(self)
