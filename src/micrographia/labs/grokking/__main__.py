"""`python -m micrographia.labs.grokking config.json [out]`: run a Config on a bare machine, without any face.

The Config is a JSON object of its fields; those left out are the paper's. Prints the Run's path and nothing else.
With `out`, a Run that was interrupted there goes on.
"""

import sys

from micrographia.core.config import read_config
from micrographia.core.lab import run_words
from micrographia.labs.grokking.config import paper
from micrographia.labs.grokking.run import run

if __name__ == "__main__":
    print(run_words(sys.argv[1:], lambda path: read_config(path, paper()), run))
