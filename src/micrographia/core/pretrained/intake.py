"""What can be put under the microscope as it is, and what cannot, with the reason."""

import torch
from torch import nn

from micrographia.core.errors import UserError
from micrographia.core.events import Note, Watch


def examined(module: nn.Module, watch: Watch) -> nn.Module:
    """The module that runs will call: the one given, or the one under `torch.compile`, which hooks can reach.

    Quantised modules and modules spread over devices are taken. Raises UserError for what was compiled in place (hooks
    set afterwards are ignored there without a word) and for weights that are not on a device.
    """
    under = getattr(module, "_orig_mod", None)
    if isinstance(under, nn.Module):
        watch(Note("The compiled graph is not used under the microscope: the module that it was made from is run."))
        module = under
    for name, part in module.named_modules():
        if _is_compiled(part):
            raise UserError(
                f"A module was given of which {name or 'the whole'!r} was compiled in place; hooks set now would be "
                "ignored there. Pass the model before it is compiled, or what `torch.compile(model)` returns."
            )
    if away := [name for name, parameter in module.named_parameters() if parameter.is_meta]:
        raise UserError(
            f"A module was given whose weights are off-loaded or not loaded ({away[0]} and {len(away) - 1} more). "
            "Load it onto devices: with device_map, or in a smaller dtype."
        )
    return module


def _is_compiled(part: nn.Module) -> bool:
    in_place = getattr(part, "_compiled_call_impl", None) is not None
    return in_place or getattr(part, "_orig_mod", None) is not None or _was_optimised(part.forward)


def _was_optimised(forward: object) -> bool:
    return getattr(forward, "_torchdynamo_orig_callable", None) is not None


def check_dropout(module: nn.Module) -> None:
    """Raises UserError for a module that draws, or that computes a part of itself again behind our back.

    Kept values and repeated runs would not agree; a layer under gradient checkpointing drops the keys it is given, and
    runs anew without our hooks.
    """
    for part in module.modules():
        if not part.training:
            continue
        if getattr(part, "gradient_checkpointing", False):
            raise UserError(
                "The model is in training mode with gradient checkpointing, under which layers run again unseen. Call "
                "its `.eval()` first."
            )
        if any(rate > 0 for rate in _rates(part)):
            raise UserError(
                "The model is in training mode and draws dropout, so that no two runs are alike. Call its `.eval()` "
                "first."
            )


RATES = ("dropout", "attention_dropout", "activation_dropout", "layerdrop")
"""What models call the share that they drop themselves, without a module for it."""


def _rates(part: nn.Module) -> list[float]:
    own = [vars(part).get(name) for name in RATES]
    dropped = [part.p] if isinstance(part, nn.Dropout) else []
    return [*dropped, *(rate for rate in own if isinstance(rate, float))]


def has_hooks(module: nn.Module) -> bool:
    """Whether there are hooks of anybody's, which may change what the module computes."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def device_of(module: nn.Module) -> torch.device:
    """Where a module's parameters are."""
    return next(module.parameters()).device
