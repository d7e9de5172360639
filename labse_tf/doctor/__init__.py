"""Doctor: the installed environment, what will fail in it, and how to fix it.

`environment` gathers facts about this machine; `diagnosis` derives findings from them.
Neither imports TensorFlow or Keras into this process.

Example:
    >>> from labse_tf import doctor
    >>> for finding in doctor.diagnose():  # doctest: +SKIP
    ...     print(finding.level, finding.title, finding.advice)
"""

from labse_tf.doctor.diagnosis import LEVELS, Finding, diagnose
from labse_tf.doctor.environment import Facts, Module, gather

__all__ = ["LEVELS", "Facts", "Finding", "Module", "diagnose", "gather"]
