"""What labs that train a language model share: a text of made-up words, and one run so small that it takes seconds."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import pytest


@pytest.fixture(scope="session")
def made_up(tmp_path_factory) -> Path:
    """Sixty paragraphs of made-up words."""
    draw = random.Random(0)
    known = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 6))) for _ in range(60)]
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("\n\n".join(" ".join(draw.choices(known, k=40)) for _ in range(60)))
    return path


@pytest.fixture(scope="session")
def run_once(tmp_path_factory) -> Callable[[Callable[..., Any], Any], Any]:
    """Carry out a config by a lab's `run`, without the checks of annotations: they cost more than a small step."""

    def carried_out(run: Callable[..., Any], config: Any) -> Any:
        before = jaxtyping.config.jaxtyping_disable
        jaxtyping.config.update("jaxtyping_disable", True)
        try:
            return run(config, out=tmp_path_factory.mktemp("runs") / "whole")
        finally:
            jaxtyping.config.update("jaxtyping_disable", before)

    return carried_out
