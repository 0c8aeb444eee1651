"""One run of the reversal lab, so small that it takes seconds: everything is done, little is learned."""

import pytest

from micrographia.core.config import with_fields
from micrographia.labs.reversal.config import Config, tiny
from micrographia.labs.reversal.run import run


@pytest.fixture(scope="session")
def config() -> Config:
    small = {"d_model": 16, "d_head": 8, "d_mlp": 16, "steps": 8, "batch": 16, "eval_every": 4, "checkpoint_every": 4}
    return with_fields(tiny(), threads=1, entities=48, edits=2, draws=5, **small)


@pytest.fixture(scope="session")
def done(run_once, config):
    return run_once(run, config)
