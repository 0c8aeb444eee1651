"""`python -m micrographia.labs.gemma_scope config.json [out]`: run a Config on a bare machine, without any face.

The Config is a JSON object of its fields; those left out are the quick preset's. Prints the Run's path alone.
Under `torchrun --nproc-per-node N -m` the first process does so, and the others train the dictionaries with it.
"""

import sys

from micrographia.core.config import read_config
from micrographia.core.distributed import joined
from micrographia.core.lab import run_words
from micrographia.labs.gemma_scope.config import quick
from micrographia.labs.gemma_scope.run import run

if __name__ == "__main__":
    with joined() as group:
        done = run_words(sys.argv[1:], lambda path: read_config(path, quick()), run)
    if group.rank == 0:
        print(done)
