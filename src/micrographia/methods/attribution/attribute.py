"""attribute: any of the estimates by its name, in one call."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from micrographia.core.answers import Metric
from micrographia.core.errors import UserError
from micrographia.core.model import Model
from micrographia.core.pairs import Pairs, check_aligned
from micrographia.core.sites import SiteLike
from micrographia.methods.attribution.atp import attribution_patching
from micrographia.methods.attribution.estimate import Attribution, Mode

METHODS: Mapping[str, Callable[..., Attribution]] = {"atp": attribution_patching}


def attribute(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    sites: SiteLike | Iterable[SiteLike],
    *,
    mode: Mode = "denoise",
    method: str = "atp",
    **choices: Any,
) -> Attribution:
    """Estimates, for every place of these Sites, the change of the metric if that place alone were patched.

    In the metric's unit, per prompt. `choices` go to the method, whose docstring tells its cost. Raises UserError for
    an unknown method; BadPrompt for pairs that do not line up.
    """
    if method not in METHODS:
        raise UserError(f"Attribution by {method!r} was asked for; there are {', '.join(METHODS)}. Choose one.")
    check_aligned(pairs, model.tokenizer)
    return METHODS[method](model, pairs, metric, sites, mode=mode, **choices)
