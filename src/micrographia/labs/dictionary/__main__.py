"""`python -m micrographia.labs.dictionary config.json [out]`: run a Config on a bare machine, without any face.

The Config is a JSON object of its fields; those left out are `quick()`'s. Prints the Run's path and nothing else.
With `out`, a Run that was interrupted there goes on.
"""

import sys
from functools import partial

from micrographia.core.config import read_config
from micrographia.core.lab import run_words
from micrographia.labs.dictionary.config import quick
from micrographia.labs.dictionary.run import run

if __name__ == "__main__":
    print(run_words(sys.argv[1:], partial(read_config, default=quick()), run))
