"""A null of what MLPs compute: the same model, with the numbers inside each of its MLP weights dealt anew.

Every matrix and bias keeps its values and loses their places, so that sizes, signs and sparsity stay and whatever was
learned is gone. Embeddings, attention and norms stay. `untrained` redraws everything instead.
Source of the null: Nanda, Rajamanoharan, Kramar and Shah, "Fact Finding" (2023), post 3.
"""

import copy

import torch
from torch import Generator, Tensor

from micrographia.core.errors import UserError
from micrographia.core.model import Model
from micrographia.core.pretrained.model import Pretrained
from micrographia.core.small.transformer import Transformer

WEIGHTS = ("W_in", "W_gate", "W_out", "b_in", "b_out")


def shuffled_mlps(model: Model, generator: Generator) -> Model:
    """A copy of the model whose MLP weights are permuted, each within itself. Memory: the model once more.

    Raises UserError for a kind of model that is not known, and for one whose MLPs are not a matrix in and one out.
    """
    if isinstance(model, Transformer):
        state = {name: _dealt(weight, generator) if ".mlp." in name else weight for name, weight in model.state.items()}
        return Transformer(model.arch, state, model.tokenizer)
    if not isinstance(model, Pretrained):
        raise UserError(f"Asked to shuffle the MLPs of {model!r}, which are not known. Give a model of this package.")
    found = Pretrained(copy.deepcopy(model.module), model.tokenizer)
    with torch.no_grad():
        for layer in range(found.shape.n_layers):
            for weight in _mlp_weights(found, layer):
                weight.copy_(_dealt(weight, generator))
    return found


def _mlp_weights(model: Model, layer: int) -> list[Tensor]:
    each = {name: getattr(model.weights, name, None) for name in WEIGHTS}
    found = {name: None if views is None else views[layer] for name, views in each.items()}
    if found["W_in"] is None or found["W_out"] is None:
        raise UserError(
            f"Asked to shuffle the MLP of layer {layer}, which is no matrix in and one out. Use another null."
        )
    return [weight for weight in found.values() if weight is not None]


def _dealt(weight: Tensor, generator: Generator) -> Tensor:
    order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
    return weight.flatten()[order].view(weight.shape)
