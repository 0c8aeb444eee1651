"""Attention that a module computes line by line, watched at its softmax: BLOOM and Falcon.

No function is looked up and no method can be wrapped, so torch's own calls are observed while such a module runs (a
`TorchFunctionMode`): the first product of two tensors of four axes has the rotated queries and keys, the softmax has
scores and pattern, and `scaled_dot_product_attention` has all of them. An edited value takes the place of the
module's own by its difference; unchanged ones change no bit.
Suffixes: as in `attention`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from micrographia.core.pretrained.hooks import HookContext
from micrographia.core.pretrained.modules import Body

Beside = Callable[[HookContext, int, Tensor, Tensor, Tensor | None, bool], None]
"""Computes scores and pattern of q, k, mask and causality, and passes them to the context as values off the path."""
PRODUCTS = (torch.Tensor.__matmul__, torch.Tensor.matmul, torch.matmul)
SOFTMAXES = (F.softmax, torch.Tensor.softmax, torch.softmax)


class TorchCalls(TorchFunctionMode):
    """Passes torch's calls that are made while one of these modules runs to `step(layer, func, args, kwargs)`.

    `entered(layer)` is told of each module's start. Acts for the context's own run only.
    """

    def __init__(
        self,
        context: HookContext,
        modules: Mapping[int, nn.Module],
        step: Callable[[int, Any, tuple[Any, ...], dict[str, Any]], Any],
        entered: Callable[[int], None] = lambda layer: None,
    ) -> None:
        super().__init__()
        self._context, self._modules, self._step, self._entered = context, modules, step, entered
        self._layer: int | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> "TorchCalls":
        for layer, module in self._modules.items():
            self._handles.append(module.register_forward_pre_hook(self._turning(layer)))
            self._handles.append(module.register_forward_hook(self._turning(None)))
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        for handle in self._handles:
            handle.remove()
        super().__exit__(*raised)

    def _turning(self, layer: int | None) -> Callable[..., None]:
        def turn(*args: Any) -> None:
            if self._context.is_active():
                self._layer = layer
                if layer is not None:
                    self._entered(layer)

        return turn

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._layer is None or not self._context.is_active():
            return func(*args, **(kwargs or {}))
        return self._step(self._layer, func, args, kwargs or {})


class InlineAttention:
    """The step for such attention modules: what it computes goes to the run's context."""

    def __init__(self, body: Body, context: HookContext, beside: Beside) -> None:
        self._body, self._context, self._beside = body, context, beside
        self._multiplied = False

    def entered(self, layer: int) -> None:
        self._multiplied = False

    def __call__(self, layer: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in SOFTMAXES:
            return self._softmax(layer, func, *args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._attend(layer, func, *args, **kwargs)
        if func in PRODUCTS and not self._multiplied and args[0].ndim == args[1].ndim == 4:
            self._multiplied = True
            q, k = self._rotated(layer, args[0], args[1].transpose(-1, -2))
            return func(q, k.transpose(-1, -2), *args[2:], **kwargs)
        return func(*args, **kwargs)

    def _rotated(self, layer: int, q_BHQE: Tensor, k_BHKE: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys after rotary, of this run's positions; keys may come once for each query head."""
        before, times = k_BHKE.shape[2] - q_BHQE.shape[2], k_BHKE.shape[1] // self._body.shape.n_kv_heads
        q = self._tapped("rot_q", layer, q_BHQE)
        if not self._context.wants("rot_k", layer=layer):
            return q, k_BHKE
        own = k_BHKE[:, ::times, before:]
        tapped = self._tapped("rot_k", layer, own)
        if tapped is own:
            return q, k_BHKE
        new = tapped.repeat_interleave(times, 1)
        return q, torch.cat([k_BHKE[:, :, :before], new], 2) if before else new

    def _tapped(self, kind: str, layer: int, value: Tensor) -> Tensor:
        """The value to go on with: heads before positions here, after them in the Site."""
        if not self._context.wants(kind, layer=layer):
            return value
        tapped = self._context(kind, layer, value.transpose(1, 2)).transpose(1, 2)
        return tapped if self._context.on_path(kind, layer) else value

    def _softmax(self, layer: int, func: Any, scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        context, lowest = self._context, torch.finfo(scores.dtype).min
        if context.wants("scores", layer=layer):
            masked = max(lowest, torch.finfo(torch.float32).min) / 2  # a float64 mask holds float32's lowest number
            shown = scores.masked_fill(scores < masked, lowest)
            tapped = context("scores", layer, shown.view_as(shown))
            scores = scores + (tapped - shown) if context.on_path("scores", layer) else scores
        pattern = func(scores, *args, **kwargs)
        if not context.wants("pattern", layer=layer):
            return pattern
        tapped = context("pattern", layer, pattern.to(scores.dtype))  # BLOOM's softmax is in float32
        return tapped.to(pattern.dtype) if context.on_path("pattern", layer) else pattern

    def _attend(self, layer: int, func: Any, q: Tensor, k: Tensor, v: Tensor, **kwargs: Any) -> Tensor:
        """Scores and patterns are only kept here, beside the kernel; a run that edits them is an eager one."""
        q, k = self._rotated(layer, q, k)
        self._beside(self._context, layer, q, k, kwargs.get("attn_mask"), kwargs.get("is_causal", False))
        return func(q, k, v, **kwargs)
