"""The null of what is read off a model: the same model without its training.

A small transformer is drawn anew, as before its first step. Of any other the matrices are drawn from normal
distributions with the mean and deviation of the trained ones, as in Heap et al. 2025, "Sparse Autoencoders Can
Interpret Randomly Initialized Transformers" (arXiv 2501.17727), embeddings among them; gains and biases,
which have one axis, stay.
"""

import copy

import torch

from micrographia.core.errors import UserError
from micrographia.core.model import Model
from micrographia.core.pretrained.model import Pretrained
from micrographia.core.runtime import generator
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights

APART = 1
"""Added to the seed, so that the weights are not those that training began from."""


def untrained(model: Model, seed: int) -> Model:
    """A copy of the model whose weights are random, with the same tokenizer. Memory: the model once more."""
    random = generator(seed + APART)
    if isinstance(model, Transformer):
        weights = init_weights(model.arch, random)
        return Transformer(model.arch, {name: w.to(model.state[name]) for name, w in weights.items()}, model.tokenizer)
    if not isinstance(model, Pretrained):
        raise UserError(
            f"Asked for {model!r} without its training, which is not known of its kind. Set untrained=False."
        )
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim > 1:
                drawn = torch.randn(weight.shape, generator=random)
                weight.copy_(weight.float().mean() + weight.float().std() * drawn.to(weight.device))
    return Pretrained(module, model.tokenizer)
