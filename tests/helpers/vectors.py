"""Random vectors."""

from __future__ import annotations

import numpy as np


def with_ties(rng, rows, dim):
    """Vectors of which many are equal, some zero, none of unit length."""
    base = rng.integers(-2, 3, (max(1, rows // 3), dim)).astype(np.float32)
    return base[rng.integers(0, len(base), rows)] * rng.choice([0.5, 1, 3], (rows, 1))
