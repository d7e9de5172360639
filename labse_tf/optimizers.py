"""AdamW as BERT uses it, and the learning-rate schedules of the recipes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

# Biases and the two weights of a layer normalisation. Keras looks for this in a
# variable's name: on TensorFlow "pooler/bias:0", on other backends "bias".
_NOT_DECAYED = r"(^|/)(bias|gamma|beta)(:\d+)?$"


@keras.saving.register_keras_serializable(package="labse_tf")
class WarmupLinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly from 0, then falls linearly to 0 at the last step.

    Args:
        learning_rate: The peak, reached at `warmup_steps`.
        train_steps: Where 0 is reached again; 0 from there on.
        warmup_steps: Steps of rising; 0 starts at the peak.

    Raises:
        ValueError: If there are no steps to train, or not more than of warm-up.

    Example:
        >>> from labse_tf.optimizers import WarmupLinearDecay
        >>> schedule = WarmupLinearDecay(1.0, train_steps=30, warmup_steps=10)
        >>> [round(float(schedule(step)), 2) for step in (0, 5, 10, 20, 30)]
        [0.0, 0.5, 1.0, 0.5, 0.0]

    References:
        Feng et al., 2022, section 4.2: AdamW with linear decay
        (https://arxiv.org/abs/2007.01852).
    """

    def __init__(
        self, learning_rate: float, train_steps: int, *, warmup_steps: int = 0
    ) -> None:
        super().__init__()
        if not 0 <= warmup_steps < train_steps:
            raise ValueError(
                "`warmup_steps` must be at least 0 and less than `train_steps`. "
                f"Received: warmup_steps={warmup_steps}, train_steps={train_steps}"
            )
        self.learning_rate = float(learning_rate)
        self.train_steps = int(train_steps)
        self.warmup_steps = int(warmup_steps)

    def __call__(self, step: Any) -> Any:
        """The learning rate of a step, float32."""
        step = ops.cast(step, "float32")
        left = (self.train_steps - step) / (self.train_steps - self.warmup_steps)
        rate = ops.clip(left, 0.0, 1.0)
        if self.warmup_steps:
            rate = ops.minimum(rate, step / self.warmup_steps)
        return self.learning_rate * rate

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "learning_rate": self.learning_rate,
            "train_steps": self.train_steps,
            "warmup_steps": self.warmup_steps,
        }


def adamw(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    epsilon: float = 1e-6,
) -> keras.optimizers.Optimizer:
    """AdamW that leaves biases and layer normalisations undecayed.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Multiplied by the learning rate at each step; 0 for none.
        clip_norm: Largest norm of all gradients together; `None` for no limit.
        epsilon: Adam's, BERT's 1e-6 where nothing is said.

    Returns:
        A Keras optimiser.

    References:
        Loshchilov and Hutter, 2019 (https://arxiv.org/abs/1711.05101); BERT's own
        exclusions: https://github.com/google-research/bert, `optimization.py`.
    """
    settings = {
        "learning_rate": learning_rate,
        "global_clipnorm": clip_norm,
        "epsilon": epsilon,
    }
    if not weight_decay:
        # A decay of 0 would still read and write every weight at every step.
        return keras.optimizers.Adam(**settings)
    optimizer = keras.optimizers.AdamW(weight_decay=weight_decay, **settings)
    optimizer.exclude_from_weight_decay(var_names=[_NOT_DECAYED])
    return optimizer
