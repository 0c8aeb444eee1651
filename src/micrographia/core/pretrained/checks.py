"""Does the family's row fit this model? A probe of one token, at the first run that asks for a kind of Site.

Every Site of the kind must be reached exactly once, with the shape that its axes promise; heads must add up to the
attention output, writers to the residual stream, a pattern's row to one. What does not fit is named with what was
found, before any result stands on it. Cost: one forward pass of one token for each new set of kinds.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from micrographia.core.errors import UnknownModel, UserError
from micrographia.core.model import Tap
from micrographia.core.pretrained.body import Body
from micrographia.core.pretrained.weights import bias_of, results
from micrographia.core.sites import Site

STREAM = frozenset({"resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"})
HEADS = frozenset({"z", "result", "attn_raw", "attn_out"})
EMBEDDING = frozenset({"embed", "pos_embed"})
PAIRS = frozenset({"scores", "pattern"})


class Probe(Tap):
    """A Tap that keeps every value and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[Site, list[Tensor]] = {}

    def __call__(self, kind: str, layer: int | None, value: Tensor) -> Tensor:
        self.found.setdefault(Site(kind, layer), []).append(value.detach())
        return value


def needed_for(body: Body, kinds: Iterable[str]) -> tuple[Site, ...]:
    """The Sites that a probe of these kinds looks at: they and those they add up with."""
    wanted = set(kinds)
    for group in (STREAM, HEADS, PAIRS):
        wanted |= group if wanted & group else set()
    if wanted & EMBEDDING:
        wanted |= EMBEDDING | {"resid_pre"}
    return tuple(site for site in body.sites if site.kind in wanted)


def check(body: Body, sites: Iterable[Site], found: Mapping[Site, list[Tensor]]) -> None:
    """Hold what a probe found against what the Sites promise. Raises UnknownModel."""
    for site in sites:
        _check_reached(body, site, found.get(site, []))
    values = {site: value[0] for site, value in found.items()}
    kinds = {site.kind for site in values}
    for layer in range(body.shape.n_layers):
        at = {site.kind: value for site, value in values.items() if site.layer == layer}
        if HEADS & kinds:
            _check_heads(body, layer, at)
        if kinds >= STREAM:
            _check_stream(body, layer, at)
        elif kinds >= STREAM - {"resid_mid"}:
            _differs(body, layer, "resid_post", at["resid_post"], at["resid_pre"] + at["attn_out"] + at["mlp_out"])
        if kinds >= PAIRS:
            pattern = at["pattern"]
            _differs(body, layer, "pattern, summed over keys,", pattern.sum(-1), torch.ones_like(pattern[..., 0]))
    if EMBEDDING & kinds and not body.family.post_ln:
        first = values[Site("resid_pre", 0)]
        parts = [values[site] for site in (Site("embed"), Site("pos_embed")) if site in values]
        _differs(body, 0, "resid_pre", first, torch.stack(parts).sum(0))


def _check_reached(body: Body, site: Site, found: list[Tensor]) -> None:
    if len(found) != 1:
        hint = " Its attention does not ask for the function that the config names." if site.kind in PAIRS else ""
        raise UnknownModel(
            f"{site} was asked for; a probe of {type(body.module).__name__} reached it {len(found)} times, where the "
            f"row of {body.family.name} says once.{hint} {FIX}"
        )
    wanted = shape_of(body, site)
    if tuple(found[0].shape) != wanted:
        raise UnknownModel(
            f"{site} was asked for, of shape {wanted} for one token by the row of {body.family.name}; a probe of "
            f"{type(body.module).__name__} found {tuple(found[0].shape)}. {FIX}"
        )


FIX = "Correct the row in micrographia/core/pretrained/families.py."


def shape_of(body: Body, site: Site) -> tuple[int, ...]:
    """The shape of this Site's value for one token."""
    shape = body.shape
    heads = shape.n_kv_heads if site.kind in ("k", "v", "rot_k") else shape.n_heads
    sizes = {"d_model": shape.d_model, "head": heads, "d_head": shape.d_head, "neuron": shape.d_mlp}
    sizes["vocab"] = shape.d_vocab_out
    return tuple(sizes.get(axis, 1) for axis in site.axes)


def _check_heads(body: Body, layer: int, at: Mapping[str, Tensor]) -> None:
    """z W_O + b is what attention gives."""
    try:
        added = results(body, at["z"].flatten(-2), layer).sum(-2)
    except UserError:  # quantised: there is no matrix to multiply with, and nothing to hold it against
        return
    bias = bias_of(body.part(body.family.o, layer))
    given = at.get("attn_raw", at["attn_out"])
    _differs(body, layer, "z W_O + b", given, added if bias is None else added + bias)


def _check_stream(body: Body, layer: int, at: Mapping[str, Tensor]) -> None:
    """What is written adds up to the residual stream; behind a norm, where the family's norms stand behind the sums."""
    mid, post = at["resid_pre"] + at["attn_out"], at["resid_mid"] + at["mlp_out"]
    if body.family.post_ln:
        mid = _normed(body.part(body.family.attn_post_norm, layer))(mid)
        post = _normed(body.part(body.family.mlp_post_norm, layer))(post)
    _differs(body, layer, "resid_mid", at["resid_mid"], mid)
    _differs(body, layer, "resid_post", at["resid_post"], post)


def _normed(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    return norm.forward


def _differs(body: Body, layer: int, name: str, found: Tensor, wanted: Tensor) -> None:
    """Raises UnknownModel where two sides are further apart, in norm, than rounding explains."""
    allowed = max(8 * torch.finfo(found.dtype).eps, 2e-3)
    apart = float((found - wanted).double().norm() / wanted.double().norm().clamp(min=1e-12))
    if not apart <= allowed:
        raise UnknownModel(
            f"In layer {layer} of {type(body.module).__name__}, {name} and what the row of {body.family.name} says it "
            f"is made of are {apart:.2g} apart (relative, in norm); rounding explains {allowed:.2g}. {FIX}"
        )
