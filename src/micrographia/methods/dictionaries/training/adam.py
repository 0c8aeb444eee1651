"""One step of the optimiser: the decoder's constraint on gradient and rows, the rates, and Adam in one fused pass."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from micrographia.core.training import Flat
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.stack import Stack, StackState


def rate_share(recipe: Recipe, step: int) -> float:
    """The share of the learning rate at this step, from 0: warm-up, then constant, then down to nearly 0 at the end."""
    warm, decay = recipe.chosen_lr_warmup, recipe.chosen_lr_decay
    share = 1.0
    if step < warm:
        done = (step + 1) / warm
        rise = done if recipe.lr_warmup_shape == "linear" else (1 - math.cos(math.pi * done)) / 2
        share = recipe.lr_warmup_from + (1 - recipe.lr_warmup_from) * rise
    return share * min(1.0, (recipe.steps - step) / (decay + 1)) if decay else share


def adam_step(
    stack: Stack, state: StackState, weights: Mapping[str, Tensor], gradient: Flat, slopes: Mapping[str, Tensor]
):
    """Take the step, in place; `weights` and `slopes` are views of `state.weights` and `gradient`."""
    recipe = stack.recipe
    if recipe.rows != "free":
        _without_parallel(slopes["decoder"], weights["decoder"])
    if recipe.clip is not None:
        norm = gradient.norm(dim=1, keepdim=True)
        gradient.mul_((recipe.clip / norm.clamp_min(torch.finfo(norm.dtype).tiny)).clamp_max(1))
    rates = [each.chosen_lr * rate_share(recipe, state.step) for each in stack.recipes]
    if len(set(rates)) == 1:
        _fused(recipe, state.step, rates[0], state.weights, gradient, state.mean, state.square)
    else:
        for rate, *rows in zip(rates, state.weights, gradient, state.mean, state.square):
            _fused(recipe, state.step, rate, *rows)
    if recipe.rows == "unit":
        decoder = weights["decoder"]
        decoder.div_(_norm(decoder))
    if "threshold" in weights:  # the kernel around a threshold must not reach below 0, where latents are off anyway
        weights["threshold"].clamp_(min=recipe.bandwidth / 2)


def _fused(recipe: Recipe, step: int, rate: float, *tensors: Tensor) -> None:
    """Adam (Kingma and Ba 2015) on weights, gradient, mean, square: one pass over each."""
    weights, gradient, mean, square = tensors
    count = torch.tensor(float(step + 1), device=weights.device)
    torch._fused_adam_(  # pyright: ignore[reportPrivateImportUsage] (what torch.optim.Adam(fused=True) calls)
        [weights],
        [gradient],
        [mean],
        [square],
        [],
        [count],
        lr=rate,
        beta1=recipe.betas[0],
        beta2=recipe.betas[1],
        weight_decay=0.0,
        eps=recipe.eps,
        amsgrad=False,
        maximize=False,
    )


def _without_parallel(slope: Tensor, decoder: Tensor) -> None:
    """Take out of each row of the gradient its part along the decoder's row."""
    along = torch.linalg.vecdot(slope, decoder)[..., None] / _norm(decoder).square()
    slope.addcmul_(decoder, along, value=-1)


def _norm(decoder: Tensor) -> Tensor:
    return decoder.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(decoder.dtype).tiny)
