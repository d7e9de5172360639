"""Public names of pre-training: the model, the trainer and the stacking.

`MaskedLM` is defined in `models.masked_lm`, `pretrain` in `training.masked_lm`, and
stacking in `training.growing`.
"""

from labse_tf.models.masked_lm import MaskedLM
from labse_tf.training.growing import grow, stack, stack_moments
from labse_tf.training.masked_lm import pretrain

__all__ = ["MaskedLM", "grow", "pretrain", "stack", "stack_moments"]
