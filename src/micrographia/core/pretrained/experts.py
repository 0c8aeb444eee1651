"""The router of a layer with experts: its logits, and what each expert is multiplied with, as Sites.

transformers' routers compute logits with one linear map, choose the k largest and return (logits, weights, choice). The
logits are tapped at that map, so an edit of them chooses anew. The weights are those after the choice (and after the
normalisation, where a family has one); an edit that gives one to an expert that was not chosen has the k largest chosen
from it. Shazeer et al., "Outrageously Large Neural Networks" (2017), section 2.
Suffixes: T batch * pos, X expert, K chosen expert.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from micrographia.core.errors import BadEdit, UserError
from micrographia.core.pretrained.hooks import HookContext
from micrographia.core.pretrained.inline import TorchCalls
from micrographia.core.pretrained.modules import Body, flattened


def check_experts(body: Body) -> None:
    """Raise UserError for float64 under the grouped kernel, which takes narrower dtypes only."""
    how = getattr(body.config, "_experts_implementation", None)
    if body.n_experts and how == "grouped_mm" and next(body.module.parameters()).dtype == torch.float64:
        raise UserError(
            "A run in float64 was asked for of a model whose experts run as grouped_mm, which has no float64. Call the "
            "module's `set_experts_implementation('eager')` first."
        )


@contextmanager
def routing(body: Body, context: HookContext) -> Iterator[None]:
    """Pass what the routers of this run's layers compute to its context."""
    kinds = ("router_logits", "router_probs", "expert_out")
    wanted = [i for i in context.layers if i is not None and context.wants(*kinds, layer=i)]
    if not wanted:
        yield
        return
    routers = {layer: body.part(body.family.router, layer) for layer in wanted}

    def logits(layer: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        found = func(*args, **kwargs)
        if func is not F.linear or not context.wants("router_logits", layer=layer):
            return found
        tapped = context("router_logits", layer, flattened(context.batch).read(found)).flatten(0, 1)
        return tapped if context.on_path("router_logits", layer) else found

    handles: list[Any] = []
    try:
        with TorchCalls(context, routers, logits):
            for layer, router in routers.items():
                handles.append(router.register_forward_hook(_chosen(body, context, layer)))
            yield
    finally:
        for handle in handles:
            handle.remove()


def _chosen(body: Body, context: HookContext, layer: int) -> Any:
    def after(module: nn.Module, args: Any, output: Any) -> Any:
        if not context.is_active():
            return None
        logits, weights, choice = output
        if context.wants("router_probs", layer=layer):
            spread = _spread(weights, choice, body.n_experts)
            spread = spread.to(torch.promote_types(spread.dtype, logits.dtype))  # Mixtral's are float32
            tapped = context("router_probs", layer, flattened(context.batch).read(spread)).flatten(0, 1)
            if context.on_path("router_probs", layer):
                weights, choice = _changed(layer, weights, choice, spread, tapped)
        context.memory["router_weights", layer], context.memory["router_choice", layer] = weights, choice
        return logits, weights, choice

    return after


def _spread(weights_TK: Tensor, choice_TK: Tensor, n_experts: int) -> Tensor:
    return weights_TK.new_zeros(len(weights_TK), n_experts).scatter(1, choice_TK, weights_TK)


def _changed(
    layer: int, weights_TK: Tensor, choice_TK: Tensor, spread_TX: Tensor, tapped_TX: Tensor
) -> tuple[Tensor, Tensor]:
    """Weights and choice after an edit. Raises BadEdit where it has more experts than are run for a token."""
    k = choice_TK.shape[1]
    if int((tapped_TX != 0).sum(1).max()) > k:
        raise BadEdit(
            f"An edit of L{layer}.router_probs gives weight to more than the {k} experts that are run for a token. "
            "Leave the others at 0, or edit router_logits."
        )
    if bool(tapped_TX.scatter(1, choice_TK, 0).any()):
        choice_TK = tapped_TX.abs().topk(k, 1).indices
        return tapped_TX.gather(1, choice_TK).to(weights_TK.dtype), choice_TK
    return weights_TK + (tapped_TX - spread_TX).gather(1, choice_TK).to(weights_TK.dtype), choice_TK
