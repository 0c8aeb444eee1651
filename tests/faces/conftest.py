"""A finished Run to show, made once."""

import pytest
from fake import fake_run

from micrographia.core.claims import Run


@pytest.fixture(scope="session")
def run() -> Run:
    return fake_run()
