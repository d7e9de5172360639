"""`python -m labse_tf.beam`: the commands as pipelines."""

from __future__ import annotations

import sys

from labse_tf.beam.commands import main

sys.exit(main())
