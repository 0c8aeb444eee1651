"""One run of trained networks from scratch to judged claims, at a size at which nothing is learned, for all tests."""

import jaxtyping
import pytest

from micrographia.core.config import with_fields
from micrographia.labs.ioi.config import Config, tiny
from micrographia.labs.ioi.run import run


def smallest() -> Config:
    return with_fields(tiny(), seeds=1, steps=20, prompts=8, pairs=3, places=8, checkpoint_every=10, eval_every=10)


@pytest.fixture(scope="session")
def config() -> Config:
    return smallest()


@pytest.fixture(scope="session")
def done(tmp_path_factory, config):
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)  # checks cost more than a small model's step
    try:
        return run(config, out=tmp_path_factory.mktemp("runs") / "whole")
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
