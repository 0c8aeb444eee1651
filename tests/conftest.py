"""What holds for every test: shape annotations are executed, one thread, laws that draw the same examples each time.

The import hook has to be there before anything of the package is imported, so it comes first in this file. It makes
beartype check every annotation of `core` and `methods`, jaxtyping's shapes among them; but for functions that are made
inside others, once a call: to check those costs more than they do. Where compiled files may not be kept, they are for
the length of the tests, out of the way: else each of the processes that tests start compiles torch anew, for seconds.
"""

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any

COMPILED = tempfile.mkdtemp(prefix="micrographia-tests-") if sys.dont_write_bytecode else None
if COMPILED:
    sys.pycache_prefix, sys.dont_write_bytecode = COMPILED, False
    os.environ["PYTHONPYCACHEPREFIX"] = COMPILED
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Of a long list beartype checks a member at random, from a generator of its own: hypothesis watches the global one.
_shared, random.getrandbits = random.getrandbits, random.Random(0).getrandbits
import beartype  # noqa: E402, F401

random.getrandbits = _shared

import jaxtyping  # noqa: E402

CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int will do where a float is asked
_jaxtyped = jaxtyping.jaxtyped


def _of_modules_and_classes(*, typechecker: Any) -> Callable[[Any], Any]:
    """The hook's decorator, which leaves inner functions as they are."""
    decorate = _jaxtyped(typechecker=typechecker)
    return lambda made: made if "<locals>" in made.__qualname__ else decorate(made)


jaxtyping.jaxtyped = _of_modules_and_classes
jaxtyping.install_import_hook(["micrographia.core", "micrographia.methods"], CHECKER)

from collections.abc import Iterator  # noqa: E402  (after the hook)
from contextlib import contextmanager  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
hypothesis.settings.register_profile("project", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("project")


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Long loops without the checks of annotations, which cost more than a small model's step."""
    with _without_checks():
        yield


@pytest.fixture(scope="module")
def unchecked_module() -> Iterator[None]:
    """The same for what a module of tests makes once; all of its tests then run so."""
    with _without_checks():
        yield


@contextmanager
def _without_checks() -> Iterator[None]:
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def pytest_unconfigure() -> None:
    if COMPILED:
        shutil.rmtree(COMPILED, ignore_errors=True)
