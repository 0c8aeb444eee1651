"""Which heads extract the attribute: chosen by direct logit attribution, judged by their weights on other facts.

A head that reads the subject has a probe in its weights: W_V W_O and the unembedding of the answers, applied to the
normed residual stream at the subject and centred over the facts, tells the answer (Nanda et al. 2023, post 2). Heads
are chosen on one half of the facts and judged on the other, beside all other heads.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.edits import wide
from micrographia.core.sites import Site
from micrographia.labs.facts.known.asked import RecalledFacts, SubjectPrompts, accuracy

SHOWN = 5


class ExtractionHead(NamedTuple):
    """A head, as told by half of the facts and judged on the other half."""

    layer: int
    head: int
    direct: float
    """Logits that it adds to the right answer over the mean of the answers, on the half that chose it."""
    direct_judged: float
    """The same on the other half."""
    probe: float
    """Accuracy of the probe in its weights, on the other half."""


class Extraction(NamedTuple):
    """The chosen heads beside the probe accuracies of all heads, which say what choosing nothing gives."""

    heads: tuple[ExtractionHead, ...]
    all_probes: Float[Tensor, "layer head"]
    chance: float
    """Accuracy of always saying the commonest answer of the judging half."""


def extraction(prompts: SubjectPrompts, known: RecalledFacts, generator: torch.Generator) -> Extraction:
    """Two passes of the prompts. Cost besides: for each head two products of facts with its weights."""
    model, n = prompts.model, prompts.n
    order = torch.randperm(n, generator=generator)
    choose, judge = order[: n // 2], order[n // 2 :]
    heads = [Site("z", layer) for layer in range(model.shape.n_layers)]
    scale = Site("final_norm_scale")
    end = prompts.at_end([*heads, scale])
    stream = prompts.at_subject([Site("attn_norm", layer) for layer in range(model.shape.n_layers)])
    read = wide(model.weights.final_readout(model.weights.W_U[:, prompts.options.to(model.weights.W_U.device)]))
    read = read - read.mean(1, keepdim=True)
    shape = (model.shape.n_layers, model.shape.n_heads)
    direct, probed = torch.zeros(2, *shape), torch.zeros(shape)
    for site in heads:
        layer = site.layer or 0
        out = wide(model.weights.W_O[layer]) @ read  # head d_head option
        added = torch.einsum("phe,heo->pho", wide(end[site]), out) / wide(end[scale])[:, None]
        own = added.gather(-1, known.label.to(added.device)[:, None, None].expand(-1, added.shape[1], 1))[..., 0].cpu()
        direct[0, layer], direct[1, layer] = own[choose].mean(0), own[judge].mean(0)
        said = wide(stream[Site("attn_norm", layer)])
        for head in range(shape[1]):
            values = said @ wide(model.weights.W_V[layer, head // model.shape.group])
            probed[layer, head] = _judged((values @ out[head]).cpu(), known.label, choose, judge)
    best = direct[0].flatten().topk(SHOWN).indices.tolist()
    found = tuple(
        ExtractionHead(i // shape[1], i % shape[1], *(float(x.flatten()[i]) for x in (*direct, probed))) for i in best
    )
    listed = known.label[judge]
    return Extraction(found, probed, float(listed.bincount().max()) / len(listed))


def _judged(
    logits: Float[Tensor, "prompt option"], label: Int[Tensor, "prompt"], choose: Tensor, judge: Tensor
) -> float:
    """Accuracy on one half, centred by the means of the other."""
    return accuracy(logits[judge] - logits[choose].mean(0), label[judge])
