"""Attribution patching (AtP): one gradient estimates the effect of patching every place.

score = (donor - base) . d metric / d activation, at the base. The cost is two forwards and one backward for any number
of Sites. It is exact where the metric is linear in the activation; it is wrong for large steps and saturated attention
(`qk`), and where effects cancel (`grad_drop`); `calibrate` measures the error.
Source: Nanda, "Attribution patching" (2023); Syed et al., "Attribution patching outperforms automated circuit
discovery" (2023).
"""

from collections.abc import Iterable, Sequence

from torch import Tensor

from micrographia.core.edits import Edit
from micrographia.core.effects import Effects
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site, SiteLike
from micrographia.core.titles import Mode
from micrographia.core.tokens import mask_of
from micrographia.methods.attribution.estimate import chosen_sites, estimated, sides_of
from micrographia.methods.attribution.passes import Passes, checkpointed, plain
from micrographia.methods.attribution.readers import OnScore, Positions, ScoreOptions, product_reader

PLAIN = Passes(2, 1)
CHECKPOINTED = Passes(4, 1)


def attribution_patching(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    sites: SiteLike | Iterable[SiteLike],
    *,
    mode: Mode = "denoise",
    positions: Positions = "each",
    checkpoints: bool = False,
    edits: Sequence[Edit] = (),
    on_score: OnScore | None = None,
) -> Effects:
    """Estimates, for every place of these Sites, the change of the metric if that place were patched.

    In the metric's unit. Two forwards and one backward, one tensor per Site held beside the graph; with `checkpoints`
    four forwards, and two residual streams per layer held instead. `positions` "sum" sums over positions. `edits` apply
    to both runs (a `splice`, to score a dictionary's latents). `on_score` is called with each Site's scores instead of
    storing them (see `strongest`).
    Errors: UserError for a metric without gradient or no Site; UnknownSite.
    """
    scores: dict[Site, Tensor] = {}
    wanted = chosen_sites(model, sites)
    reading = ScoreOptions(on_score or scores.__setitem__, positions, mask_of(pairs.clean))
    readers = [product_reader(site, reading) for site in wanted]
    run = checkpointed if checkpoints else plain
    values = run(model, sides_of(pairs, mode), metric, readers, edits=edits)
    ordered = {site: scores[site] for site in wanted if site in scores}
    cost = CHECKPOINTED if checkpoints else PLAIN
    return estimated(model, pairs, metric, mode, "atp", ordered, values, cost, summed=positions == "sum")
