"""``python -m l2lgd``."""

import sys

from l2lgd.cli import main

sys.exit(main())
