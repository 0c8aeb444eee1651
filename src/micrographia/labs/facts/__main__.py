"""`python -m micrographia.labs.facts config.json [out]`: run a Config on a bare machine, without any face.

The Config is a JSON object of its fields; those left out are the quick preset's. Prints the Run's path alone.
"""

import sys

from micrographia.core.config import read_config
from micrographia.core.lab import run_words
from micrographia.labs.facts.config import quick
from micrographia.labs.facts.run import run

if __name__ == "__main__":
    print(run_words(sys.argv[1:], lambda path: read_config(path, quick()), run))
