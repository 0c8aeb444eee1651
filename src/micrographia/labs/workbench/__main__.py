"""`python -m micrographia.labs.workbench config.json [out]`: ask a question on a bare machine, without any face.

The Config is a JSON object with `question` (patch, attribute, trace, circuit) and its choices. Prints the Run's path
and nothing else. With `out`, a Run that is there goes on.
"""

import json
import sys
from pathlib import Path

from micrographia.core.errors import BadConfig, MicrographiaError
from micrographia.labs.workbench.config import Question, read_question
from micrographia.labs.workbench.run import run


def read_config(path: Path) -> Question:
    """The question in a JSON file. Raises BadConfig for one that is no JSON object."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadConfig(f"Asked to run {path}, which cannot be read: {error}. Give a JSON file.") from error
    if not isinstance(fields, dict):
        raise BadConfig(f"{path} holds a {type(fields).__name__}. Write an object with `question` and its choices.")
    return read_question(fields)


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
