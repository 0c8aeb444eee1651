"""Gradients for what needs them, whatever the caller switched off around it."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from micrographia.core.errors import UserError

_P = ParamSpec("_P")
_R = TypeVar("_R")


def with_gradients(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same function, with gradients also inside `torch.no_grad()` and `torch.inference_mode()`.

    Raises UserError where a tensor was made in inference mode, of which autograd keeps nothing.
    """

    @wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            with torch.inference_mode(False), torch.enable_grad():
                return function(*args, **kwargs)
        except RuntimeError as error:
            if "nference tensor" not in str(error):
                raise
            raise UserError(
                "Gradients were asked for through tensors that were made inside torch.inference_mode(), which cannot "
                "take part in them. Load the model, and make prompts and metric, outside of it (or in torch.no_grad())."
            ) from error

    return wrapped
