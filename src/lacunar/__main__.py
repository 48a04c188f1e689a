"""``python -m lacunar`` is the command ``lacunar``."""

import sys

from lacunar.cli import main

if __name__ == "__main__":
    sys.exit(main())
