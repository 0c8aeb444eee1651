"""What holds for every test: shape annotations are executed, one thread, laws that draw the same examples each time.

The import hook has to be there before anything of the package is imported, so it comes first in this file. It makes
beartype check every annotation of `core` and `methods`, jaxtyping's shapes among them.
"""

from jaxtyping import install_import_hook

CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int will do where a float is asked
install_import_hook(["micrographia.core", "micrographia.methods"], CHECKER)

from collections.abc import Iterator  # noqa: E402  (after the hook)

import hypothesis  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)
hypothesis.settings.register_profile("project", deadline=None, derandomize=True, max_examples=30)
hypothesis.settings.load_profile("project")


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Long loops without the checks of annotations, which cost more than a small model's step."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
