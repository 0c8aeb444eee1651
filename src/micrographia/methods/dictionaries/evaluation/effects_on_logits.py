"""What a latent adds to the logits on the direct path: its decoder row through the final norm's gain and W_U.

The norm's scale is left out, and what later layers make of the row: an effect on the order of tokens, not on the size.
Source: nostalgebraist, "interpreting GPT: the logit lens" (2020); Bricken et al. (2023), who list the same for each
feature. Axes: latent d_model vocab.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.model import Model
from micrographia.core.sites import AXES, RESIDUAL, Site

AT_ONCE = 256
NORMED = frozenset({"attn_norm", "mlp_norm", "final_norm"})
"""Of the width of the residual stream, but not in it."""


def into_the_stream(
    dictionary: Dictionary, model: Model, site: Site, latents: Int[Tensor, "latent"]
) -> Float[Tensor, "latent d_model"] | None:
    """Decoder rows in the residual stream: as they are, or through W_out or W_O; None where they do not reach it."""
    rows = dictionary.decoder[latents.to(dictionary.weights.W_dec.device)].detach().float().cpu()
    if AXES[site.kind] == RESIDUAL:
        return None if site.kind in NORMED else rows
    through = {"neurons": "W_out", "z": "W_O"}.get(site.kind)
    weight = None if through is None else getattr(model.weights, through)[site.layer]
    if weight is None:
        return None
    return rows @ weight.detach().float().cpu().flatten(0, -2)


class LogitEffects(NamedTuple):
    """The tokens whose logits each latent raises and lowers most, the largest effect first."""

    raised: Int[Tensor, "latent n"]
    raised_by: Float[Tensor, "latent n"]
    lowered: Int[Tensor, "latent n_lowered"]
    lowered_by: Float[Tensor, "latent n_lowered"]
    """Below 0."""


def logit_effects(
    dictionary: Dictionary, model: Model, site: Site, latents: Int[Tensor, "latent"], n: int, n_lowered: int = 0
) -> LogitEffects | None:
    """The `n` tokens raised and `n_lowered` lowered most; None where it writes into no stream.

    Cost: 2 latents d_model vocab FLOPs; memory: `AT_ONCE` x vocab numbers, and the unembedding.
    """
    rows = into_the_stream(dictionary, model, site, latents)
    if rows is None:
        return None
    weights = model.weights
    readout = weights.final_readout(weights.W_U.detach()).float().cpu()
    width, found = readout.shape[1], []
    for some in rows.split(AT_ONCE):
        effect = some @ readout
        up, down = effect.topk(min(n, width)), effect.topk(min(n_lowered, width), largest=False)
        found.append((up.indices, up.values, down.indices, down.values))
    return LogitEffects(*(torch.cat(each) for each in zip(*found)))


def promoted_tokens(
    dictionary: Dictionary, model: Model, site: Site, latents: Int[Tensor, "latent"], n: int
) -> Int[Tensor, "latent n"] | None:
    """The n tokens whose logits each latent raises most, largest first; None where it writes into no stream."""
    found = logit_effects(dictionary, model, site, latents, n)
    return None if found is None else found.raised
