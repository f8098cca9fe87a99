"""``python -m l2lgd``."""

import sys

from l2lgd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
