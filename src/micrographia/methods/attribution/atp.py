"""Attribution patching: one gradient estimates the effect of patching every place. AtP, its QK-fix, and AtP*.

score = (donor - base) . d metric / d activation, at the base. The cost is two forwards and one backward for any number
of Sites. It is exact where the metric is linear in the activation. It is wrong for large steps and saturated attention,
whose softmax the QK-fix recomputes (`qk`), and where a place's direct effect cancels against that through later layers:
GradDrop repeats the estimate with the gradient through one layer's attention and MLP blocked, for each layer in turn,
and averages the absolute values. `calibrate` measures the error.
Sources: Nanda, "Attribution patching" (2023); Syed et al., "Attribution patching outperforms automated circuit
discovery" (2023); Kramar et al., "AtP*: an efficient and scalable method for localizing LLM behaviour to components"
(2024).
"""

import torch
from torch import Tensor

from micrographia.core.edits import Edit, observe
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.methods.attribution.estimation import (
    Estimation,
    OnScore,
    Passes,
    Scored,
    ScoreHook,
    product_reader,
    product_readers,
)
from micrographia.methods.attribution.passes import one_gradient, plain
from micrographia.methods.attribution.qk import COMPARED, qk_reader

BRANCHES = ("attn_out", "mlp_out")


def attribution_patching(
    estimation: Estimation, *, checkpoints: bool = False, on_score: OnScore | None = None
) -> Scored:
    """(donor - base) times the gradient at the base.

    Two forwards and one backward, one tensor per Site held beside the graph; with `checkpoints` four forwards, and two
    residual streams per layer held instead. `on_score`: see `passes.one_gradient`.
    """
    return one_gradient(estimation, product_readers, checkpoints=checkpoints, on_score=on_score)


def attribution_patching_with_qk_fix(
    estimation: Estimation, *, checkpoints: bool = False, on_score: OnScore | None = None
) -> Scored:
    """`attribution_patching`, except that attention patterns are recomputed for queries and keys.

    Besides the plain method's memory, for each layer with such Sites up to four tensors of its pattern's size.
    Source: Kramar et al. (2024), the QK-fix.
    """
    return one_gradient(estimation, fixed_readers, checkpoints=checkpoints, on_score=on_score)


def fixed_readers(estimation: Estimation, on_score: OnScore, *, again: bool = False) -> list[ScoreHook]:
    """A reader per Site, and one for the queries and keys of each layer."""
    compared = [site for site in estimation.sites if site.kind in COMPARED and not site.part]
    others = [site for site in estimation.sites if site not in compared]
    layers = sorted({site.layer for site in compared if site.layer is not None})
    groups = [[site for site in compared if site.layer == layer] for layer in layers]
    found = [product_reader(site, estimation, on_score, again=again) for site in others]
    return [*found, *(qk_reader(group, estimation, on_score, again=again) for group in groups)]


def atp_star(estimation: Estimation) -> Scored:
    """AtP* scores: the mean absolute estimate of each place, with the QK-fix, over dropped layers.

    The size is the paper's; the sign is that of the estimate with nothing dropped, so a score ranks places as in the
    paper, per prompt, but does not estimate the exact effect. Two forwards and n_layers + 1 backwards, all of one
    graph, which is kept throughout with one tensor per Site.
    Source: Kramar et al. (2024), GradDrop: c(n) = 1 / (L - 1) sum_l |score with layer l's gradient dropped|, where the
    term of a place's own layer is zero.
    """
    model, n_layers = estimation.model, estimation.model.shape.n_layers
    size: dict[Site, Tensor] = {}
    sign: dict[Site, Tensor] = {}
    dropped: list[int] = []

    def add(site: Site, score: Tensor) -> None:
        if dropped:
            size[site] = score.abs() + size[site] if site in size else score.abs()
        else:
            sign.setdefault(site, torch.where(score < 0, -1.0, 1.0).to(score))

    def each_layer(scalar: Tensor, leaves: list[Tensor]) -> None:
        torch.autograd.grad(scalar, leaves, retain_graph=True)
        for layer in range(n_layers):
            dropped[:] = [layer]
            torch.autograd.grad(scalar, leaves, retain_graph=layer < n_layers - 1)

    readers = fixed_readers(estimation, add, again=True)
    metrics = plain(estimation, readers, rules=blocks(model, dropped), backward=each_layer)
    others = max(1, n_layers - 1)
    scores = {site: size[site] * sign.get(site, torch.ones(())).to(size[site]) / others for site in estimation.sites}
    note = "Sizes are means over dropped layers and rank places; they do not estimate the exact effect."
    return Scored(scores, metrics, Passes(2, n_layers + 1), (note,), "size")


def blocks(model: Model, dropped: list[int]) -> list[Edit]:
    """Edits that stop the gradient through each layer's attention and MLP outputs while that layer is in `dropped`."""
    return [_block(site, dropped) for site in model.sites if site.kind in BRANCHES]


def _block(site: Site, dropped: list[int]) -> Edit:
    def stop(gradient: Tensor) -> Tensor | None:
        return torch.zeros_like(gradient) if site.layer in dropped else None

    def on_base(value: Tensor) -> None:
        if value.requires_grad:  # only where the graph has begun
            value.register_hook(stop)

    return observe(site, on_base)
