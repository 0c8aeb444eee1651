"""`python -m micrographia.labs.ioi config.json [out]`: run a Config on a bare machine, without any face.

The Config is a JSON object of its fields; those left out are `quick()`'s. Prints the Run's path and nothing else.
With `out`, a Run that was interrupted there goes on.
"""

import dataclasses
import json
import sys
from pathlib import Path

from micrographia.core.errors import BadConfig, MicrographiaError
from micrographia.labs.ioi.config import Config
from micrographia.labs.ioi.run import run


def read_config(path: Path) -> Config:
    """The Config in a JSON file. Raises BadConfig for one that is no JSON object of a Config's fields."""
    known = [field.name for field in dataclasses.fields(Config)]
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadConfig(f"Asked to run {path}, which cannot be read: {error}. Give a JSON file.") from error
    if not isinstance(fields, dict) or not fields.keys() <= set(known):
        found = sorted(fields.keys() - set(known)) if isinstance(fields, dict) else type(fields).__name__
        raise BadConfig(f"{path} holds {found}. A Config is a JSON object of these fields: {', '.join(known)}.")
    return Config(**fields)


def main(words: list[str]) -> Path:
    """The folder of the Run that these words ask for."""
    if not 1 <= len(words) <= 2:
        raise BadConfig(f"Asked for {words or 'nothing'}. Give a config.json and, if you like, the folder of the Run.")
    out = Path(words[1]) if len(words) > 1 else None
    return run(read_config(Path(words[0])), out=out, resume=out is not None).path


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except MicrographiaError as error:
        raise SystemExit(f"micrographia: {error}") from None
