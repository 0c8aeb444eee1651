"""The residual stream of a model whose family has no row: its blocks are found, and checked by running them.

Found are the longest list of blocks and the norm between the last one and the unembedding. Checked, on three tokens:
every block is called once, in order, with the last one's output, and the norm and head give the logits. What cannot be
checked is not offered. Nothing inside a block is a Site.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from micrographia.core.errors import UnknownModel
from micrographia.core.pretrained.families import QKV, Family, Location, refusal

NOTHING = Location(path="")


def stream_of(module: nn.Module) -> Family:
    """A row with the residual stream alone. Two forward passes of two tokens. Raises UnknownModel."""
    config: Any = getattr(module, "config", None)
    if config is None or getattr(config, "is_encoder_decoder", False):
        raise UnknownModel(refusal(config))
    layers = _blocks(module)
    embed, head = _place(module, "get_input_embeddings"), _place(module, "get_output_embeddings")
    blocks = list(module.get_submodule(layers).children())
    ids = torch.tensor([[0, 1, 1], [0, 2, 1]], device=next(module.parameters()).device)
    with torch.no_grad(), _watched(blocks) as (entered, left):
        logits: Tensor = module(input_ids=ids, return_dict=True).logits
    in_order = [i for i, _ in entered] == list(range(len(blocks)))
    if not in_order or not all(torch.equal(out, x) for out, (_, x) in zip(left, entered[1:])):
        raise UnknownModel(
            f"{_asked(module)} The blocks at {layers!r} do not hand one stream on, each once and in order. "
            "There is nothing that a Site could address."
        )
    if left[-1].shape != (*ids.shape, config.get_text_config().hidden_size):
        raise UnknownModel(
            f"{_asked(module)} Between its blocks are tensors of {tuple(left[-1].shape)}, no such stream."
        )
    norm = next((place for place in _norms(module, layers) if _gives(module, place, head, left[-1], logits)), "")
    return Family(
        name=f"{type(module).__name__}, residual stream alone",
        stream_only=True,
        encoder=not torch.equal(logits[0, 0], logits[1, 0]),
        embed=embed,
        layers=layers,
        final_norm=norm,
        head=head,
        attn="",
        qkv=QKV(NOTHING, NOTHING, NOTHING),
        o="",
        act="",
        down="",
        up=NOTHING,
    )


def _asked(module: nn.Module) -> str:
    return f"The residual stream of {type(module).__name__} was asked for."


def _blocks(module: nn.Module) -> str:
    lists = {name: part for name, part in module.named_modules() if isinstance(part, nn.ModuleList) and len(part)}
    longest = max((len(part) for part in lists.values()), default=0)
    outer = [name for name, part in lists.items() if len(part) == longest]
    if not outer:
        raise UnknownModel(f"{_asked(module)} It has no list of blocks, so that no stream can be found.")
    return min(outer, key=lambda name: name.count("."))


def _place(module: Any, getter: str) -> str:
    wanted = getattr(module, getter, lambda: None)()
    found = next((name for name, part in module.named_modules() if part is wanted), None)
    if found is None:
        raise UnknownModel(
            f"{_asked(module)} Its `{getter}()` names none. Pass a model with a language-modelling head."
        )
    return found


def _norms(module: nn.Module, layers: str) -> Iterator[str]:
    """The modules beside the list of blocks."""
    parent = layers.rpartition(".")[0]
    for name, _ in module.get_submodule(parent).named_children():
        place = f"{parent}.{name}" if parent else name
        if place != layers:
            yield place


def _gives(module: nn.Module, norm: str, head: str, stream: Tensor, logits: Tensor) -> bool:
    """Whether these two modules turn the last residual stream into the logits."""
    if not torch.is_tensor(stream) or "norm" not in type(module.get_submodule(norm)).__name__.lower():
        return False
    with torch.no_grad():
        found = module.get_submodule(head)(module.get_submodule(norm)(stream))
    return found.shape == logits.shape and torch.allclose(found, logits, rtol=1e-3, atol=1e-5)


@contextmanager
def _watched(blocks: list[nn.Module]) -> Iterator[tuple[list[tuple[int, Tensor]], list[Tensor]]]:
    """What enters and leaves each block, in the order of the calls."""
    entered: list[tuple[int, Tensor]] = []
    left: list[Tensor] = []

    def enters(place: int) -> Callable[..., None]:
        def enter(module: nn.Module, given: tuple[Any, ...]) -> None:
            if given and torch.is_tensor(given[0]):
                entered.append((place, given[0].clone()))

        return enter

    def leave(output: Any) -> None:
        left.append((output[0] if isinstance(output, tuple) else output).clone())

    handles: list[Any] = []
    for i, block in enumerate(blocks):
        handles.append(block.register_forward_pre_hook(enters(i)))
        handles.append(block.register_forward_hook(lambda module, args, output: leave(output)))
    try:
        yield entered, left
    finally:
        for handle in handles:
            handle.remove()
