"""How evenly the latents that are active at a token matter to the loss.

The attribution of a latent at a token is y = f (W_dec . dL/dx), with L the summed loss of the row and the gradient
taken at the model's own activation; p = |y| / sum |y|, and r = exp(H(p)) / (number of active latents) is 1 where all
matter equally and 1/n where one alone does. Source: Lieberum et al. (2408.05147), "Gemma Scope". Axes: token d latent.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.edits import put
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.gradients import with_gradients
from micrographia.core.model import Model, Start
from micrographia.core.sites import Site
from micrographia.core.tokens import Inputs, ids_of
from micrographia.methods.dictionaries.evaluation.reading import (
    Counted,
    ReadWrite,
    blocks_of,
    coded,
    n_rows,
    on_device,
    values_at,
)

TOKENS_AT_ONCE = 1024


class Uniformity(NamedTuple):
    """Of each token at which two latents or more are active."""

    ratio: Float[Tensor, "token"]
    """exp(entropy of the shares of importance) over the number of active latents."""
    active: Float[Tensor, "token"]
    """That number."""

    @property
    def mean(self) -> float:
        """NaN where no token has two active latents."""
        return float(self.ratio.mean())


def uniformity(
    dictionary: Dictionary, model: Model, place: ReadWrite, rows: Any, counted: Counted, *, watch: Watch = silent
) -> Uniformity:
    """How evenly active latents matter, at each token that counts.

    Cost: a run of the rows, one of the layers from the written Site on with its backward pass, and one product of the
    gradient with all decoder rows. Memory: the graph of a block of rows.
    """
    ratios, sizes = list[Tensor](), list[Tensor]()
    for start, given in blocks_of(rows, TOKENS_AT_ONCE):
        inputs = on_device(model, given)
        mask = counted.mask(inputs)
        x, slope = _read_with_gradient(model, place, inputs, counted)
        at = mask.to(x.device)
        if bool(at.any()):
            for each in coded(dictionary, x[at].flatten(1)):
                gradient = slope[at].flatten(1)[each.piece].to(each.latents)
                y = (each.latents * (gradient @ dictionary.decoder.to(each.latents).T)).abs()
                ratio, size = _ratio(y, each.latents != 0)
                ratios.append(ratio)
                sizes.append(size)
        watch(Progress("importance of latents", start + len(ids_of(inputs)), n_rows(rows), "row"))
    return Uniformity(torch.cat(ratios), torch.cat(sizes))


def _ratio(y: Float[Tensor, "token latent"], active: Tensor) -> tuple[Tensor, Tensor]:
    """(exp(H) / n, n) of the tokens with two active latents or more, whose importance is not all zero."""
    n = active.sum(1)
    kept = (n > 1) & (y.sum(1) > 0)
    p = (y[kept] / y[kept].sum(1, keepdim=True)).double()
    return torch.special.entr(p).sum(1).exp() / n[kept], n[kept].double()


@with_gradients
def _read_with_gradient(model: Model, place: ReadWrite, inputs: Inputs, counted: Counted) -> tuple[Tensor, Tensor]:
    """What is read, and the gradient of the summed loss in what is there at the written Site, (row, pos, *axes)."""
    entry = None if place.write.layer is None else Site("resid_pre", place.write.layer)
    with torch.no_grad():
        cache = model.run(inputs, keep=[*dict.fromkeys([*place, *([entry] if entry else [])])]).cache
    begin = Start(entry.layer or 0, cache[entry]) if entry else None
    tokens = counted.mask(inputs)
    leaf = values_at(cache, place.write, tokens).detach().clone().requires_grad_()
    logits = model.run(inputs, edits=[put(place.write, leaf)], start=begin, grad=True).logits
    known = ids_of(inputs)[:, 1:] < model.shape.d_vocab_out
    predicted = (tokens[:, :-1] & counted.real(inputs)[:, 1:] & known).to(logits.device)
    labels = ids_of(inputs).to(logits.device)[:, 1:][predicted]
    loss = F.cross_entropy(logits[:, :-1][predicted], labels, reduction="sum")
    (slope,) = torch.autograd.grad(loss, [leaf])
    return values_at(cache, place.read, tokens).detach(), slope.detach()
