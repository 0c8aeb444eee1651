"""Activation functions that a model computes step by step, replaced by one torch kernel.

GPT-2's GELU makes eight passes over the neurons and keeps six tensors of their size for its backward pass; torch's
kernel makes one pass and keeps one. The same function (Hendrycks and Gimpel 2016, section 2), equal to rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch.nn.functional as F

from micrographia.core.pretrained.hooks import HookContext
from micrographia.core.pretrained.modules import Body, replaced

FUSED = {name: partial(F.gelu, approximate="tanh") for name in ("NewGELUActivation", "FastGELUActivation")}
"""The equivalent kernel, by the name of the module's class."""


@contextmanager
def fused_activations(body: Body, context: HookContext, *, active: bool) -> Iterator[None]:
    """Use these kernels for the activations in this run only."""
    modules: list[Any] = [body.find(body.family.act, layer) for layer in range(body.shape.n_layers)] if active else []
    kernels = {id(each): (each, FUSED[type(each).__name__]) for each in modules if type(each).__name__ in FUSED}
    with replaced((each, "forward", _in_this_run(context, kernel, each.forward)) for each, kernel in kernels.values()):
        yield


def _in_this_run(context: HookContext, fused, own):
    return lambda x: fused(x) if context.is_active() else own(x)
