"""Run ``python -m sgagent`` as ``sgagent``."""

import sys

from sgagent.cli.main import main

sys.exit(main())
