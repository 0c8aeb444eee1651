"""What the tests of attribution share: pairs and exact effects by the obvious loop."""

from itertools import product

import torch
from torch import Tensor

from micrographia.core.edits import put
from micrographia.core.effects import Effects
from micrographia.core.metrics import Metric, log_prob, prompts
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.methods.attribution.estimation import place
from small import A_FEW, small_model, some_tokens

NAMES = sorted(A_FEW)


def model_of(name: str) -> Transformer:
    return small_model(A_FEW[name], dtype=torch.float64)


def pairs_of(arch: Architecture, n: int = 3) -> Pairs:
    clean, corrupt = (some_tokens(arch, batch=n, seed=seed) for seed in (1, 2))
    right = torch.arange(n) % arch.d_vocab_out
    return Pairs(clean, corrupt, right, (right + 1) % arch.d_vocab_out)


def metric_of(pairs: Pairs) -> Metric:
    return log_prob(pairs.answer)


def inner_sites(model: Model) -> tuple[Site, ...]:
    return tuple(site for site in model.sites if site.kind != "logits")


def metric_under(model: Model, inputs, edits, metric: Metric) -> Tensor:
    prompt = prompts(len(inputs))
    return metric(model.run(inputs, edits=edits, logits=metric.readout(prompt)).logits, prompt)


def exact(model: Model, pairs: Pairs, metric: Metric, attribution: Effects, site: Site) -> Tensor:
    """The effect of patching every place of a Site, one by one, shaped as its scores."""
    mode = attribution.mode
    donor = model.run(pairs.donor(mode), keep=site, logits=metric.readout(prompts(len(pairs)))).cache[site]
    score = attribution.scores[site]
    found = torch.zeros_like(score)
    for cell in product(*map(range, score.shape[1:])):
        where = dict(place(site, score, cell).where)
        words = ["unit" if axis in ("neuron", "latent") else axis for axis in site.axes]
        value = donor[tuple(where.get(word, slice(None)) for word in words)]
        effect = metric_under(model, pairs.base(mode), [put(site, value, **where)], metric) - attribution.base
        found[(slice(None), *cell)] = effect
    return found
