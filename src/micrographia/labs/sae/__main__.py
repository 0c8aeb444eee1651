"""`python -m micrographia.labs.sae config.json [out]`: train or evaluate dictionaries on a bare machine.

The Config is a JSON object with `question` (train, eval) and its choices. Prints the Run's path and nothing else. With
`out`, a Run that is there goes on.
"""

import sys
from pathlib import Path

from micrographia.core.config import read_object
from micrographia.core.lab import run_words
from micrographia.labs.sae.config import Asked, read_asked
from micrographia.labs.sae.run import run


def read_config(path: Path) -> Asked:
    """What a JSON file asks for. Raises BadConfig."""
    return read_asked(read_object(path))


if __name__ == "__main__":
    print(run_words(sys.argv[1:], read_config, run))
