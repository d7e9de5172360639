"""`python -m labse_tf`: the command line."""

import sys

from labse_tf.cli import main

sys.exit(main())
