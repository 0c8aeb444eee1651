"""`python -m micrographia.labs.grokking config.json [out]`: run a Config on a bare machine, without any face.

The Config is a JSON object of its fields; those left out are the paper's. Prints the Run's path and nothing else.
"""

import json
import sys
from pathlib import Path

from micrographia.labs.grokking.config import Config
from micrographia.labs.grokking.run import run

if __name__ == "__main__":
    chosen = Config(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    done = run(chosen, out=Path(sys.argv[2]) if len(sys.argv) > 2 else None, resume=len(sys.argv) > 2)
    print(done.path)
