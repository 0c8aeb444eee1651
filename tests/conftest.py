"""What holds for every test: shape annotations are executed, one thread, laws that draw the same examples each time.

The import hook has to be there before anything of the package is imported, so it comes first in this file. It makes
beartype check every annotation of `core` and `methods`, jaxtyping's shapes among them; but for functions that are made
inside others, once a call: to check those costs more than they do. Where compiled files may not be kept beside
their sources, they are kept here: else each of the processes that tests start compiles torch anew, for seconds.
"""

import dataclasses
import functools
import gc
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

if sys.dont_write_bytecode:
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(__file__).parent / "__pycache__")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # python -B sets none

# Of a long list beartype checks a member at random, from a generator of its own: hypothesis watches the global one.
_shared, random.getrandbits = random.getrandbits, random.Random(0).getrandbits
import beartype  # noqa: E402, F401

random.getrandbits = _shared

import jaxtyping  # noqa: E402

CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int will do where a float is asked
_jaxtyped = jaxtyping.jaxtyped


def _as_cheaply_as_can_be(*, typechecker: Any) -> Callable[[Any], Any]:
    """The hook's decorator. It takes jaxtyping's way, ten times as dear as beartype's own, only where there are shapes.

    Inner functions stay as they are.
    """
    in_full = _jaxtyped(typechecker=typechecker)

    def decorate(made: Any) -> Any:
        if "<locals>" in made.__qualname__ or (isinstance(made, type) and not dataclasses.is_dataclass(made)):
            return made
        fields = dataclasses.fields(made) if isinstance(made, type) else ()
        if any(map(_has_shapes, [each.type for each in fields] or made.__annotations__.values())):
            return in_full(made)
        if isinstance(made, type):
            made.__init__ = _switched(made.__init__, typechecker(made.__init__))
            return made
        return _switched(made, typechecker(made))

    return decorate


def _switched(bare: Callable[..., Any], checked: Callable[..., Any]) -> Callable[..., Any]:
    """Checked, but where the checks are switched off."""

    @functools.wraps(bare)
    def either(*given: Any, **named: Any) -> Any:
        return (bare if jaxtyping.config.jaxtyping_disable else checked)(*given, **named)

    return either


def _has_shapes(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return any(f"{kind}[" in annotation for kind in ("Float", "Int", "Bool", "Shaped", "Num", "Complex"))
    if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(_has_shapes, annotation if isinstance(annotation, list) else get_args(annotation)))


jaxtyping.jaxtyped = _as_cheaply_as_can_be
jaxtyping.install_import_hook(["micrographia.core", "micrographia.methods"], CHECKER)

from collections.abc import Iterator  # noqa: E402  (after the hook)
from contextlib import contextmanager  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
hypothesis.settings.register_profile("project", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("project")


ASKS_FOR_CORES = ("core.lab", "labs.workbench.run", "labs.grokking.identify.run")


@pytest.fixture(scope="session", autouse=True)
def alone() -> Iterator[None]:
    """One thread where a run would take every core, and no look at what others do, which sleeps: any machine is alike.

    Threads of such small models only wait for one another. For the whole session, so that fixtures of modules have it.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module in ASKS_FOR_CORES:
            patch.setattr(f"micrographia.{module}.allowed_cores", lambda: 1)
        patch.setattr("micrographia.core.lab.busy_warning", lambda threads: None)
        yield


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


def pytest_collection_finish() -> None:
    """What is loaded by now stays, so that the collector of garbage need not look through it again and again."""
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries look for leaks at the end


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One process for each core that may be used, for all tests or folders of them; a file runs in this one."""
    files = [each for each in config.args if ".py" in each]
    return 0 if files else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
