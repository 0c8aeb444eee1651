"""Rewrite one association of a small transformer by a change of rank one to an MLP's output weights.

The neurons at the last position of a prompt are its key; W_out is changed so that this key gives another value, and
keys like those of other prompts give what they gave. Source: Meng et al., "Locating and editing factual associations in
GPT" (2022, ROME), equations 2 to 4; theirs rewrites a middle layer at the subject's last token, and adds prefixes and a
penalty for drift, which are not here.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.edits import add
from micrographia.core.errors import UserError
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.core.small.transformer import Transformer

RIDGE = 1e-2
"""Share of the mean square of a key that is added to the covariance, where there are fewer keys than neurons."""
CERTAIN = 0.99
RATE, MOST_STEPS = 0.5, 200


class Keys(NamedTuple):
    """The inverse second moment of the neurons over prompts that should stay as they are."""

    layer: int
    inverse: Float[Tensor, "neuron neuron"]


def keys_of(model: Model, prompts: Int[Tensor, "prompt pos"], *, layer: int) -> Keys:
    """One forward pass, and the inverse of a matrix of neurons by neurons. In float64."""
    keys = _neurons(model, prompts, layer).double()
    moment = keys.T @ keys / len(keys)
    moment += RIDGE * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)
    return Keys(layer, torch.linalg.inv(moment))


def _neurons(model: Model, prompts: Tensor, layer: int) -> Tensor:
    site = Site("neurons", layer)
    return model.run(prompts, keep=[site], logits="last").cache[site][:, -1].detach()


def value_for(model: Model, prompt: Int[Tensor, "1 pos"], answer: int, *, layer: int) -> Float[Tensor, "d_model"]:
    """What must be added to the MLP's output at the last position for the model to give `answer` with 99 %.

    Gradient descent on its log-probability, at most 200 steps (equation 4). Raises UserError where that is not reached.
    """
    site = Site("mlp_out", layer)
    value = torch.zeros(model.shape.d_model, requires_grad=True)
    optimiser = torch.optim.Adam([value], lr=RATE)
    log_p = torch.tensor(-torch.inf)
    for _ in range(MOST_STEPS):
        run = model.run(prompt, edits=[add(site, value, pos=-1)], logits="last", grad=True)
        log_p = run.logits[0, -1].log_softmax(-1)[answer]
        if log_p.exp() > CERTAIN:
            return value.detach()
        optimiser.zero_grad()
        (-log_p).backward()
        optimiser.step()
    raise UserError(
        f"Asked for the answer {answer}. It has a probability of {log_p.exp().item():.2f} after {MOST_STEPS} steps at "
        f"layer {layer}. Choose a later layer."
    )


def rewritten(model: Transformer, prompt: Int[Tensor, "1 pos"], answer: int, keys: Keys) -> Transformer:
    """A copy of the model that gives `answer` after `prompt`: W_out + (C^-1 k / k^T C^-1 k) value^T (equation 2).

    The key itself gets exactly the value. Memory: one W_out; the other weights are shared.
    """
    value = value_for(model, prompt, answer, layer=keys.layer)
    key = _neurons(model, prompt, keys.layer)[0].double()
    direction = keys.inverse @ key
    if not float(key @ direction) > 0:
        raise UserError(f"No neuron of layer {keys.layer} is active after this prompt: there is nothing to rewrite.")
    change = torch.outer(direction / (key @ direction), value.double())
    name = f"blocks.{keys.layer}.mlp.W_out"
    return Transformer(model.arch, {**model.state, name: model.state[name] + change.to(value)}, model.tokenizer)
