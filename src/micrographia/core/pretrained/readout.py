"""Compute only the requested logits: at some positions, or the columns of a few tokens at one position.

Positions are selected before the unembedding, so a metric at the last position does not pay for the others; a Readout
multiplies with the rows of its tokens only and stops the model before its unembedding. Both agree with the full logits
up to rounding: bit-equality is promised for "all" only, since a matrix product of another shape rounds differently.
"""

from typing import Any

import torch
from torch import Tensor, nn

from micrographia.core.model import LogitsAt, Readout, positions_read
from micrographia.core.pretrained.hooks import Hook
from micrographia.core.pretrained.modules import Body
from micrographia.core.pretrained.partial_run import leaving_with


def readout_hooks(body: Body, logits: LogitsAt) -> list[Hook]:
    """The hooks at the unembedding."""
    if not body.family.head:
        return []
    head = body.part(body.family.head)
    known = not body.family.stream_only
    if known and isinstance(logits, Readout) and type(head) is nn.Linear and not head._forward_hooks:  # of the user's
        return [Hook(head, "in", leaving_with(lambda hidden: columns(body, head, hidden, logits)))]
    if logits == "all" or not (_selected_here(body) or isinstance(logits, Readout)):
        return []
    positions = positions_read(logits)
    return [Hook(head, "in", lambda value, read: value[:, positions])]


def logits_to_keep(body: Body, logits: LogitsAt, length: int) -> dict[str, Any]:
    """The argument with which decoders select positions themselves."""
    if _selected_here(body) or logits == "all" or isinstance(logits, Readout):
        return {}
    return {"logits_to_keep": 1 if logits == "last" else torch.tensor([pos % length for pos in logits])}


def _selected_here(body: Body) -> bool:
    """Whether the model does not select positions itself."""
    return body.family.encoder or body.family.stream_only


def columns(body: Body, head: nn.Linear, hidden: Tensor, wanted: Readout) -> Tensor:
    """The logits of some tokens at one position, (batch, 1, answer)."""
    tokens = wanted.tokens.to(head.weight.device)
    found = torch.einsum("bd,bad->ba", hidden[:, wanted.pos].to(tokens.device), head.weight[tokens])
    if head.bias is not None:
        found = found + head.bias[tokens]
    return capped(body, found)[:, None]


def capped(body: Body, logits: Tensor) -> Tensor:
    """Gemma 2's soft cap of the logits."""
    cap = getattr(body.config, body.family.final_softcap, None) if body.family.final_softcap else None
    return logits if cap is None else torch.tanh(logits / cap) * cap
