"""Entry point of `python -m labse_tf.beam`."""

import sys

from labse_tf.beam.commands import main

sys.exit(main())
