"""`import micrographia` costs nothing, and every name it has leads somewhere."""

import subprocess
import sys

import pytest

import micrographia
from micrographia import _WHERE


def test_importing_the_package_imports_neither_torch_nor_numpy():
    code = "import sys, micrographia; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "rich", "plotly"} & set(done.stdout.split())


@pytest.mark.parametrize("name", sorted(_WHERE))
def test_every_name_leads_somewhere(name):
    assert getattr(micrographia, name) is not None
    assert name in dir(micrographia)


def test_an_unknown_name_is_an_attribute_error_that_lists_what_is_there():
    with pytest.raises(AttributeError, match="it has Bundle, Claim"):
        micrographia.nothing  # noqa: B018


def test_the_floors_can_be_reached():
    assert micrographia.core.__name__ == "micrographia.core"
