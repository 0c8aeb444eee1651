"""Miniature models to ask, made once."""

from pathlib import Path

import pytest

from miniature import save_gpt2, save_run


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory) -> Path:
    return save_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    return save_run(tmp_path_factory.mktemp("runs") / "trained")
