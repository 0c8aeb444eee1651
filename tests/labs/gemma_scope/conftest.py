"""One run of the lab, so small that it takes seconds: everything is done, nothing is learned."""

import pytest

from micrographia.core.config import with_fields
from micrographia.labs.gemma_scope.config import Config, tiny
from micrographia.labs.gemma_scope.run import run

SIZES = {"d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 16, "n_vocab": 300, "n_ctx": 16, "rows": 4, "steps": 6}
WORK = {"dictionary_steps": 8, "activations": 128, "widths": "24, 40", "l0s": "3, 6", "buffer_mb": 1, "eval_every": 3}
MEASURE = {"tokens": None, "held_out": 640, "loss_tokens": 128, "threads": 1, "checkpoint_every": 3}


@pytest.fixture(scope="session")
def config(made_up) -> Config:
    return with_fields(tiny(), text=str(made_up), **SIZES, **WORK, **MEASURE)


@pytest.fixture(scope="session")
def done(run_once, config):
    return run_once(run, config)
