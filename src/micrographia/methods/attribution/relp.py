"""RelP: the gradient replaced by a relevance that is propagated, by changing a few local derivatives.

Where a network bends, its local slope says little about a large step; these rules take the secant through the origin
instead. A norm's scale is held; an activation f acts as the factor f(x) / x; a product of two branches is shared half
and half; an attention pattern is held. Values do not change, only derivatives: each rule is an edit of the explained
run.
Source: "RelP: faithful and efficient circuit discovery via relevance patching" (2025), arXiv 2508.21258; the rules are
those of layer-wise relevance propagation for transformers.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from micrographia.core.edits import Edit, apply, observe
from micrographia.core.effects import Effects
from micrographia.core.errors import UserError
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site, SiteLike
from micrographia.core.titles import Mode
from micrographia.core.tokens import mask_of
from micrographia.methods.attribution.atp import CHECKPOINTED, PLAIN
from micrographia.methods.attribution.estimate import chosen_sites, estimated, sides_of
from micrographia.methods.attribution.passes import checkpointed, plain
from micrographia.methods.attribution.readers import Give, Positions, ScoreOptions, product_reader

HELD = ("attn_norm_scale", "mlp_norm_scale", "final_norm_scale", "pattern")
BLIND = frozenset({*HELD, "q", "k", "rot_q", "rot_k", "scores"})
"""No relevance reaches these."""
BEHIND = {"attn_raw": "attn_out", "mlp_raw": "mlp_out"}
"""A norm that stands behind a sublayer is not a Site; what goes in and what comes out are."""


def relevance_patching(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    sites: SiteLike | Iterable[SiteLike],
    *,
    mode: Mode = "denoise",
    positions: Positions = "each",
    checkpoints: bool = False,
    edits: Sequence[Edit] = (),
    give: Give | None = None,
) -> Effects:
    """(donor - base) times the relevance per unit of activation, for every place of these Sites.

    In the metric's unit. Two forwards and one backward, as attribution patching. Queries, keys, scores and patterns get
    no relevance, since patterns are held: asking for them raises UserError. Norms behind the sums of a post-LN model
    are not Sites and stay as they are; `notes` says so.
    Source: arXiv 2508.21258.
    """
    scores: dict[Site, Tensor] = {}
    wanted = chosen_sites(model, sites)
    if blind := [str(site) for site in wanted if site.kind in BLIND]:
        raise UserError(
            f"Relevance of {', '.join(blind[:5])} was asked for, but RelP holds attention patterns and norms' scales, "
            "so that none reaches them. Leave them out, or use another method ('atp-qk' for queries and keys)."
        )
    reading = ScoreOptions(give or scores.__setitem__, positions, mask_of(pairs.clean))
    readers = [product_reader(site, reading) for site in wanted]
    run = checkpointed if checkpoints else plain
    values = run(model, sides_of(pairs, mode), metric, readers, edits=edits, rules=relevance_rules(model))
    ordered = {site: scores[site] for site in wanted if site in scores}
    cost = CHECKPOINTED if checkpoints else PLAIN
    given = {"summed": positions == "sum", "notes": notes_on(model)}
    return estimated(model, pairs, metric, mode, "relp", ordered, values, cost, **given)


def relevance_rules(model: Model) -> list[Edit]:
    """The rules as edits, for one run: they hand live tensors from one Site to the next."""
    present = set(model.sites)
    rules = [apply(site, torch.Tensor.detach) for site in model.sites if site.kind in HELD]
    for site in model.sites:
        if site.kind in BEHIND:
            rules += secant([site], Site(BEHIND[site.kind], site.layer))
        if site.kind == "neurons":
            inputs = [Site(kind, site.layer) for kind in ("mlp_pre", "mlp_up")]
            rules += secant([each for each in inputs if each in present], site) if present & set(inputs) else []
    return rules


def secant(inputs: Sequence[Site], output: Site) -> list[Edit]:
    """Makes `output` act as a sum over its n inputs, each with a constant factor, in equal shares: y = sum x (y/nx)."""
    seen: list[Tensor] = []

    def act(value: Tensor) -> Tensor:
        terms = [x * (_ratio(value, x) / len(inputs)).detach() for x in seen]
        seen.clear()
        return value.detach() + sum(term - term.detach() for term in terms)

    return [*(observe(site, seen.append) for site in inputs), apply(output, act)]


def _ratio(y: Tensor, x: Tensor) -> Tensor:
    """y / x; 0 where x is 0, of which y / x says nothing."""
    return torch.where(x == 0, 0.0, y / torch.where(x == 0, 1.0, x))


def notes_on(model: Model) -> tuple[str, ...]:
    kinds = {site.kind for site in model.sites}
    if kinds & {"attn_norm_scale", "mlp_norm_scale", "attn_raw"} or "final_norm_scale" not in kinds:
        return ()
    return ("The norms behind this model's sums are not Sites; they keep their own derivative.",)
