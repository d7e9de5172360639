"""`python -m labse_tf`: the command line."""

from __future__ import annotations

import sys

from labse_tf.cli import main

sys.exit(main())
