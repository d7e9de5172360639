"""Run options: how a training run is carried out.

The recipe determines the weights at each step; run options change at most their
rounding. An interrupted run can therefore be resumed with other options. With held-out
pairs, `keep_best`, `patience` and `dev_every` choose the step whose weights become the
preset; these three stay as they were when a run is resumed.
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
        "number of steps between measurements on held-out pairs; the start and the "
        "last step are also measured",
        group="run",
        must_be="positive",
    )
    keep_best: bool | None = setting(
        None,
        "the preset gets the weights with the highest accuracy on held-out pairs, in "
        "the last stage, instead of the last weights (default: with --dev)",
        group="run",
    )
    patience: int | None = setting(
        None,
        "stop early after this number of measurements without a higher accuracy on "
        "held-out pairs, in the last stage (default: never)",
        group="run",
        must_be="positive",
    )
    keep_adapters: bool = setting(
        False,
        "with --lora, save only the low-rank weights, a few megabytes; the preset "
        "refers to --model, which must stay where it is, seen from the output",
        group="run",
    )
    deterministic: bool = setting(
        False, "bit-identical results on the same machine; somewhat slower", group="run"
    )
    progress: Progress = setting(None, "see `labse_tf.progress`", group=None)

    def __post_init__(self) -> None:
        """Check the values."""
        check_settings(self)


def check_measured(options: RunOptions, measured: bool) -> None:
    """Check that a run without measurements has no options that need them.

    Raises:
        ValueError: If `keep_best` or `patience` is set.
    """
    if not measured and (options.keep_best or options.patience is not None):
        raise ValueError(
            "`keep_best` and `patience` require held-out pairs (`dev`, --dev). "
            f"Received: keep_best={options.keep_best}, patience={options.patience}, "
            "and no held-out pairs"
        )
