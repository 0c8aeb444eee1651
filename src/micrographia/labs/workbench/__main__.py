"""`python -m micrographia.labs.workbench config.json [out]`: ask a question on a bare machine, without any face.

The Config is a JSON object with `question` (patch, attribute, ablate, steer ...) and its choices. Prints the Run's
path and nothing else. With `out`, a Run that is there goes on.
"""

import sys
from pathlib import Path

from micrographia.core.config import read_object
from micrographia.core.lab import run_words
from micrographia.labs.workbench.config import Question, read_question
from micrographia.labs.workbench.run import run


def read_config(path: Path) -> Question:
    """The question in a JSON file. Raises BadConfig for one that is no JSON object, and as `read_question` does."""
    return read_question(read_object(path))


if __name__ == "__main__":
    print(run_words(sys.argv[1:], read_config, run))
