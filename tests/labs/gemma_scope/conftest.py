"""One run of the lab, so small that it takes seconds: everything is done, nothing is learned."""

import random
from pathlib import Path

import jaxtyping
import pytest

from micrographia.core.config import with_fields
from micrographia.labs.gemma_scope.config import Config, tiny
from micrographia.labs.gemma_scope.run import run

SIZES = {"d_model": 16, "n_heads": 2, "d_head": 8, "d_mlp": 16, "n_vocab": 300, "n_ctx": 16, "rows": 4, "steps": 6}
WORK = {"dictionary_steps": 8, "activations": 128, "widths": "24, 40", "l0s": "3, 6", "buffer_mb": 1, "eval_every": 3}
MEASURE = {"tokens": None, "held_out": 640, "loss_tokens": 128, "threads": 1, "checkpoint_every": 3}


def words(n: int) -> str:
    """Paragraphs of made-up words."""
    draw = random.Random(0)
    known = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 6))) for _ in range(60)]
    return "\n\n".join(" ".join(draw.choices(known, k=40)) for _ in range(n))


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(words(60))
    return path


@pytest.fixture(scope="session")
def config(text) -> Config:
    return with_fields(tiny(), text=str(text), **SIZES, **WORK, **MEASURE)


@pytest.fixture(scope="session")
def done(tmp_path_factory, config):
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)  # checks cost more than a small model's step
    try:
        return run(config, out=tmp_path_factory.mktemp("runs") / "whole")
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
