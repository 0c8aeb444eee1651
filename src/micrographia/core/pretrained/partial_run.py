"""Partial runs of an unmodified model: from a layer on, up to a layer, after positions with cached keys and values.

The model runs as it is; the layers before the first are bypassed during the run, and an exception ends the run where
nothing more is needed. Masks, positions and rotary tables are thus the model's own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from micrographia.core.errors import BadShape, UserError
from micrographia.core.model import Start, Stopped
from micrographia.core.pretrained.hooks import Hook, Side, Step
from micrographia.core.pretrained.modules import Body, replaced
from micrographia.core.sites import Site


@contextmanager
def started(body: Body, start: Start | None) -> Iterator[None]:
    """Bypass the layers before the first; the last of them outputs the given residual stream."""
    if start is None or start.layer == 0 or body.family.stream_only:
        yield
        return
    bypassed = body.layers[: start.layer]
    passing = [_passing(body, start.residual if layer is bypassed[-1] else None) for layer in bypassed]
    with replaced((layer, "forward", call) for layer, call in zip(bypassed, passing)):
        yield


def _passing(body: Body, residual: Tensor | None) -> Callable[..., Any]:
    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        given = hidden_states if residual is None else residual.to(hidden_states.device)
        return (given, None) if body.family.tuple_layers else given

    return forward


def span_hooks(body: Body, start: Start | None, stop: int | Site | None) -> tuple[list[Hook], list[Hook]]:
    """Hooks before the Sites are read (inserting the residual stream at layer 0), and after (stopping at `stop`)."""
    residual = None if start is None or (start.layer and not body.family.stream_only) else start.residual
    first, n_layers = start.layer if start else 0, len(body.layers)
    place: tuple[nn.Module, Side] = (body.layers[first], "in") if first < n_layers else (body.layers[-1], "out")
    entry = [] if residual is None else [Hook(*place, lambda value, read: residual.to(value.device))]
    if stop is None or isinstance(stop, Site):
        return entry, []
    if stop == (start.layer if start else 0):
        module: nn.Module = body.layers[stop] if stop < len(body.layers) else body.layers[stop - 1]
        return entry, [Hook(module, "in", _leave)]
    return entry, [Hook(body.layers[stop - 1], "out", _leave)]


def _leave(value: Tensor, read: Tensor) -> Tensor:
    raise Stopped


def leaving_with(read: Callable[[Tensor], Tensor]) -> Step:
    """Stop the run and return `read(value)`."""

    def step(value: Tensor, read_in: Tensor) -> Tensor:
        raise Stopped(read(value))

    return step


def check_start(body: Body, start: Start, batch: int, length: int) -> None:
    """Raise BadShape for a residual stream of the wrong shape, UserError for missing keys and values."""
    wanted = (batch, length - start.offset, body.shape.d_model)
    if not 0 <= start.offset < length:
        raise UserError(f"A start after {start.offset} positions was asked for; there are {length}. Leave some.")
    if tuple(start.residual.shape) != wanted:
        raise BadShape(
            f"A start at layer {start.layer} needs a residual stream (batch, pos - offset, d_model) of {wanted}. "
            f"Found {tuple(start.residual.shape)}."
        )
    if not start.offset:
        return
    if body.family.encoder or body.family.stream_only:
        raise UserError(
            f"A start after {start.offset} positions was asked for; {body.family.name} has no keys and values to start "
            "from (it is bidirectional, or only its residual stream is known). Start with offset 0."
        )
    if missing := [layer for layer in range(start.layer, len(body.layers)) if layer not in start.past]:
        raise UserError(f"A start after {start.offset} positions needs keys and values of layers {missing} in `past`.")


def placeholder(body: Body, start: Start | None) -> Tensor | None:
    """Input embeddings of the right shape, in place of tokens that need not be embedded."""
    if (
        start is None
        or start.layer == 0
        or body.family.stream_only
        or body.find(body.family.embed_projection) is not None
    ):
        return None
    return start.residual


def past_cache(body: Body, start: Start, batch: int) -> Any:
    """The keys and values of the positions before `offset`, as a cache made for one run (a used one has grown)."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    class Behind(DynamicLayer):
        """A cache layer whose earlier positions are shared by blocks of rows, expanded once when new ones arrive."""

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            assert self.keys is not None
            assert self.values is not None
            return _joined(self.keys, key_states), _joined(self.values, value_states)

    shape = body.shape
    like = start.residual
    unread = torch.zeros((), dtype=like.dtype, device=like.device)
    unread = unread.expand(1, shape.n_kv_heads, start.offset, shape.d_head)
    cache = DynamicCache()
    times = shape.group if body.family.caches_every_head else 1
    for layer in range(shape.n_layers):
        keys, values = (x.transpose(1, 2) for x in start.past[layer]) if layer >= start.layer else (unread, unread)
        if batch % len(keys):
            raise BadShape(f"Keys of {len(keys)} rows cannot serve a batch of {batch}. Give a divisor of it.")
        if times > 1:
            keys, values = (x.repeat_interleave(times, 1) for x in (keys, values))
        filled = Behind()
        filled.lazy_initialization(keys, values)
        filled.keys, filled.values = keys, values
        cache.layers.append(filled)
    return cache


def _joined(cached: Tensor, new: Tensor) -> Tensor:
    """Keys or values (row, head, pos, d_head) of all positions: the cached, for each block of rows, then the new."""
    n_behind, n_rows = cached.shape[2], len(cached)
    whole = new.new_empty(len(new), new.shape[1], n_behind + new.shape[2], new.shape[3])
    whole.unflatten(0, (-1, n_rows))[..., :n_behind, :] = cached
    whole[:, :, n_behind:] = new
    return whole
