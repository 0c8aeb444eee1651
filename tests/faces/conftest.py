"""A finished Run to show, and what a fresh interpreter loads for each command's help; both made once."""

import json
import subprocess
import sys
from typing import NamedTuple

import pytest
from fake import fake_run

from micrographia.core.claims import Run


@pytest.fixture(scope="session")
def run() -> Run:
    return fake_run()


class Helped(NamedTuple):
    """What a command prints when asked for its help, its exit code, and all that is imported by then."""

    told: str
    code: int
    modules: frozenset[str]


HELPED = (
    *("", "patch", "attribute", "trace", "circuit", "lens", "ablate", "probe", "heads", "steer", "generate"),
    *("grok", "grok sweep", "report", "models"),
)
ASK = """
import io, json, sys
from contextlib import redirect_stdout
from micrographia.faces.cli.main import main
for words in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()) as told:
        code = main([*words.split(), "--help"])
    print(json.dumps([told.getvalue(), code, sorted(sys.modules)]))
"""


@pytest.fixture(scope="session")
def helped() -> dict[str, Helped]:
    """Of every command in HELPED. One interpreter asks them in turn, so that what one loads counts for those behind."""
    done = subprocess.run([sys.executable, "-c", ASK, json.dumps(HELPED)], capture_output=True, text=True, check=True)
    answers = map(json.loads, done.stdout.splitlines())
    return {
        words: Helped(told, code, frozenset(names)) for words, (told, code, names) in zip(HELPED, answers, strict=True)
    }
