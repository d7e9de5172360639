"""Run options: settings of a training run that do not change its result.

The recipe determines the result; run options change at most its rounding. An
interrupted run can therefore be resumed with other options.
"""

from __future__ import annotations

import dataclasses

from labse_tf.progress import Progress
from labse_tf.settings import check_settings, setting

ON_NAN = ("stop", "skip")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Options of a training run; see the help of each field for meaning and unit.

    The flags of `labse-tf train` and `labse-tf pretrain` come from these fields.
    `progress` has no flag; see `labse_tf.progress`. If standard error is not a
    terminal, `None` prints a line about every 30 seconds.

    Raises:
        ValueError: If a value is not allowed.

    Example:
        >>> from labse_tf.training import RunOptions
        >>> RunOptions(checkpoint_every=200).log_every
        50
    """

    strategy: str = setting(
        "auto",
        "auto, one_device, mirrored, cpu:N, multi_worker (run the same command on all "
        "hosts of TF_CONFIG) or tpu",
        group="run",
    )
    tpu: str = setting("local", "name or address of the TPU", group="run")
    steps_per_execution: int = setting(
        1,
        "number of steps that TensorFlow runs before it returns to Python; does not "
        "change the weights. Checkpoints and log lines are written between executions",
        group="run",
        must_be="positive",
    )
    on_nan: str = setting(
        "stop",
        "if the loss is not finite: stop and report the step, or skip the step and "
        "count it in the log",
        group="run",
        choices=ON_NAN,
    )
    checkpoint_every: int = setting(
        1000,
        "number of steps between checkpoints; each stage also ends with a checkpoint",
        group="run",
        must_be="positive",
    )
    log_every: int = setting(
        50,
        "number of steps per log line, which contains their means",
        group="run",
        must_be="positive",
    )
    dev_every: int = setting(
        1000,
        "number of steps between measurements on held-out pairs; the last step is also "
        "measured",
        group="run",
        must_be="positive",
    )
    deterministic: bool = setting(
        False, "bit-identical results on the same machine; somewhat slower", group="run"
    )
    progress: Progress = setting(None, "see `labse_tf.progress`", group=None)

    def __post_init__(self) -> None:
        """Check the values."""
        check_settings(self)
