"""`python -m fireside.app` is `fireside`."""

import sys

from fireside.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
