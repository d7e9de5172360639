"""Entry point of `python -m labse_tf.beam`."""

from __future__ import annotations

import sys

from labse_tf.beam.commands import main

sys.exit(main())
