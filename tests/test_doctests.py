"""The examples in the docstrings of core, methods and labs are run.

The import hook wraps functions, and doctest overlooks what is wrapped: the finder here looks inside, and each module's
examples are counted in its text, so that none goes unrun.
"""

import doctest
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import micrographia

PACKAGE = Path(next(iter(micrographia.__path__)))
MODULES = [
    path
    for floor in ("core", "methods", "labs")
    for path in sorted((PACKAGE / floor).rglob("*.py"))
    if path.stem not in ("__init__", "__main__") and ">>>" in path.read_text(encoding="utf-8")
]


class Finder(doctest.DocTestFinder):
    """Also finds functions that a decorator has wrapped."""

    def _from_module(self, module: ModuleType, object: object) -> bool:
        return super()._from_module(module, inspect.unwrap(object) if callable(object) else object)


def run_examples(module: ModuleType) -> doctest.TestResults:
    runner = doctest.DocTestRunner()
    for test in Finder().find(module):
        runner.run(test)
    return runner.summarize()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_examples_of_a_module_hold(path: Path):
    inner = path.relative_to(PACKAGE).with_suffix("").parts
    results = run_examples(importlib.import_module(".".join(("micrographia", *inner))))
    assert results.failed == 0
    assert results.attempted == len(re.findall(r"^\s*>>> ", path.read_text(encoding="utf-8"), re.MULTILINE))


def test_there_are_examples():
    assert any(path.stem == "sites" for path in MODULES)


def test_a_wrong_example_is_seen(capsys: pytest.CaptureFixture[str]):
    module = ModuleType("wrong", doc=">>> 1 + 1\n3\n")
    assert run_examples(module) == doctest.TestResults(failed=1, attempted=1)
    assert "Expected:" in capsys.readouterr().out
