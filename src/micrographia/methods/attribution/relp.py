"""RelP: relevance propagation in place of the gradient, by changing a few local derivatives.

In a nonlinear network the local slope is a poor guide to a large step; these rules use the secant through the origin
instead. A norm's scale is frozen; an activation f acts as the factor f(x) / x; a product of two branches is split half
and half; an attention pattern is frozen. Values do not change, only derivatives: each rule is an edit of the base run.
Source: "RelP: faithful and efficient circuit discovery via relevance patching" (2025), arXiv 2508.21258; the rules are
those of layer-wise relevance propagation for transformers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from micrographia.core.edits import Edit, apply, observe
from micrographia.core.errors import UserError
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.methods.attribution.estimation import Estimation, OnScore, Scored, product_readers
from micrographia.methods.attribution.passes import one_gradient

HELD = ("attn_norm_scale", "mlp_norm_scale", "final_norm_scale", "pattern")
BLIND = frozenset({*HELD, "q", "k", "rot_q", "rot_k", "scores"})
"""Kinds of Sites that get no relevance."""
BEHIND = {"attn_raw": "attn_out", "mlp_raw": "mlp_out"}
"""A norm after a sublayer is not a Site; its input and its output are."""


def relevance_patching(estimation: Estimation, *, checkpoints: bool = False, on_score: OnScore | None = None) -> Scored:
    """(donor - base) times the relevance per unit of activation.

    Cost and memory are those of attribution patching. Queries, keys, scores and patterns get no relevance, since
    patterns are frozen: they raise UserError. The norms of a post-LN model are not Sites and keep their derivative;
    `notes` says so.
    Source: arXiv 2508.21258.
    """
    if blind := [str(site) for site in estimation.sites if site.kind in BLIND]:
        raise UserError(
            f"Relevance of {', '.join(blind[:5])} was asked for, but RelP freezes attention patterns and norm scales, "
            "so that none reaches them. Leave them out, or use another method ('atp-qk' for queries and keys)."
        )
    rules, notes = relevance_rules(estimation.model), notes_on(estimation.model)
    return one_gradient(
        estimation, product_readers, rules=rules, checkpoints=checkpoints, on_score=on_score, notes=notes
    )


def relevance_rules(model: Model) -> list[Edit]:
    """The rules as edits, for one run: they pass live tensors from one Site to the next."""
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
    """Edits that make `output` a sum over its n inputs, each with a constant factor: y = sum of x (y / (n x))."""
    seen: list[Tensor] = []

    def act(value: Tensor) -> Tensor:
        terms = [x * (_ratio(value, x) / len(inputs)).detach() for x in seen]
        seen.clear()
        return value.detach() + sum(term - term.detach() for term in terms)

    return [*(observe(site, seen.append) for site in inputs), apply(output, act)]


def _ratio(y: Tensor, x: Tensor) -> Tensor:
    """y / x; 0 where x is 0 and the ratio is undefined."""
    return torch.where(x == 0, 0.0, y / torch.where(x == 0, 1.0, x))


def notes_on(model: Model) -> tuple[str, ...]:
    kinds = {site.kind for site in model.sites}
    if kinds & {"attn_norm_scale", "mlp_norm_scale", "attn_raw"} or "final_norm_scale" not in kinds:
        return ()
    return ("The norms after this model's sums are not Sites; they keep their own derivative.",)
