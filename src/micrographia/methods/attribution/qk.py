"""The QK-fix: queries and keys scored with the softmax taken again, instead of linearised.

A saturated softmax has next to no gradient, so attribution patching misses queries and keys that matter. The reader
here hands both runs' queries and keys to `softmax_patch`. It costs two more products Q K^T a layer and no pass; models
of Hugging Face attend eagerly meanwhile.
Source: Kramar et al., "AtP*: an efficient and scalable method for localizing LLM behaviour to components" (2024),
on attention saturation.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from micrographia.core.edits import Edit, observe
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site, SiteLike
from micrographia.core.tokens import mask_of
from micrographia.methods.attribution.atp import CHECKPOINTED, PLAIN
from micrographia.methods.attribution.estimate import Attribution, Mode, chosen_sites, ends_in_order, sides_of
from micrographia.methods.attribution.passes import checkpointed, plain
from micrographia.methods.attribution.readers import Give, Positions, Reader, Reading, hook, own, product_reader
from micrographia.methods.attribution.softmax_patch import KeyFix, QueryFix, Scoring, key_fix, may_attend, query_fix

COMPARED = {"q": "q", "rot_q": "q", "k": "k", "rot_k": "k"}
"""Rotary turns all queries of a position alike, so that patching before it or after is the same."""
FIX = {"q": query_fix, "k": key_fix}


def attribution_patching_with_qk_fix(
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
) -> Attribution:
    """`attribution_patching`, but for queries and keys, whose attention patterns are recomputed.

    In the metric's unit. Two forwards and one backward (with `checkpoints` four and one); beside the plain method's
    memory, for each layer with such Sites up to four tensors of its pattern's size.
    Source: Kramar et al. (2024), the QK-fix.
    """
    scores: dict[Site, Tensor] = {}
    wanted = chosen_sites(model, sites)
    reading = Reading(give or scores.__setitem__, positions, mask_of(pairs.clean))
    run = checkpointed if checkpoints else plain
    ends = run(model, sides_of(pairs, mode), metric, fixed_readers(model, wanted, reading), edits=edits)
    clean, corrupt = ends_in_order(ends, mode)
    ordered = {site: scores[site] for site in wanted if site in scores}
    return Attribution(mode, "atp-qk", ordered, clean, corrupt, CHECKPOINTED if checkpoints else PLAIN)


def fixed_readers(model: Model, sites: Sequence[Site], reading: Reading) -> list[Reader]:
    """A reader per Site, and one for the queries and keys of each layer."""
    compared = [site for site in sites if site.kind in COMPARED and not site.part]
    plain = [product_reader(site, reading) for site in sites if site not in compared]
    layers = sorted({site.layer for site in compared if site.layer is not None})
    return [*plain, *(qk_reader(model, [s for s in compared if s.layer == layer], reading) for layer in layers)]


def qk_reader(model: Model, sites: Sequence[Site], reading: Reading) -> Reader:
    """Scores the queries and keys of one layer. Under grouped queries a key's score sums over the heads that share it.

    Holds, from the base's run until the gradient comes, one tensor of the pattern's size for queries, three for keys.
    """
    layer = sites[0].layer
    prefix = "rot_" if Site("rot_q", layer) in model.sites else ""
    scoring = Scoring(model.weights.score_scale[layer], model.weights.score_cap[layer])
    donor: dict[str, Tensor] = {}
    base: dict[str, Tensor] = {}
    fixes: dict[str, QueryFix | KeyFix] = {}

    def meet(pattern: Tensor) -> None:
        allowed = donor.pop("allowed")
        for name in list(donor):
            fixes[name] = FIX[name](base["q"], base["k"], donor.pop(name), allowed, scoring)
        base.clear()
        hook(Site("pattern", layer), pattern, score)

    def score(gradient: Tensor) -> None:
        wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        effects = {name: fix.effect(wide) for name, fix in fixes.items()}
        for site in sites:
            reading.give(site, reading.placed(effects[COMPARED[site.kind]]))
        if not reading.again:
            fixes.clear()

    def finish() -> None:
        if fixes:
            score(torch.zeros_like(next(iter(fixes.values()))[0]))

    look = [observe(Site(prefix + name, layer), _hold(donor, name)) for name in {COMPARED[s.kind] for s in sites}]
    look.append(observe(Site("scores", layer), lambda value: donor.__setitem__("allowed", may_attend(value))))
    meets = [observe(Site(prefix + name, layer), _hold(base, name)) for name in "qk"]
    return Reader(tuple(sites), look, [*meets, observe(Site("pattern", layer), meet)], finish)


def _hold(side: dict[str, Tensor], name: str) -> Callable[[Tensor], None]:
    return lambda value: side.__setitem__(name, own(value))
