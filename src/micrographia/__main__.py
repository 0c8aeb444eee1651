"""`python -m micrographia` is the command `micrographia`."""

import sys

from micrographia.faces.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
