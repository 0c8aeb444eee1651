"""Generation under edits: sampling of tokens, and which edits act at which positions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from micrographia.core.edits import Edit
from micrographia.core.errors import UserError
from micrographia.core.pretrained.modules import Body

PLACES = frozenset({"pos", "query", "key"})


def names_positions(edit: Edit) -> bool:
    """Whether the edit selects positions, which are then those of the prompt."""
    return bool(PLACES & set(edit.region))


def in_prompt(edit: Edit, n_pos: int) -> Edit:
    """The edit at the same places of a text that goes on after its first `n_pos` positions, the prompt."""
    if not names_positions(edit):
        return edit
    counted = torch.arange(n_pos)
    axes = PLACES.intersection(edit.site.axes)
    places = {axis: counted[edit.region.get(axis, slice(None))].tolist() for axis in axes}
    return replace(edit, region={**edit.region, **places})


def check_one_stretch(body: Body, lengths: Int[Tensor, "row"], n_more: int = 0) -> None:
    """Raise UserError for rows of which some are within LongRoPE's short context and others beyond it.

    The model would turn the short rows by the factors for long ones. `n_more`: how many tokens each row still grows by.
    """
    window = body.short_context
    if window is None or not len(lengths):
        return
    low, high = int(lengths.min()), int(lengths.max())
    if any(low + more <= window < high + more for more in range(n_more + 1)):
        raise UserError(
            f"Rows of {low} to {high} tokens were given together{f', to grow by {n_more}' if n_more else ''}. This "
            f"model's positions (LongRoPE) are others beyond {window} tokens, for every row of a batch: rows on both "
            "sides of that would not be as they are alone. Give them in batches of their own."
        )


def check_generation(
    body: Body, edits: Sequence[Edit], length: int, temperature: float, generator: Generator | None
) -> None:
    if body.family.encoder:
        raise UserError(f"Text was to be generated; {body.family.name} is an encoder and cannot generate.")
    if body.family.stream_only:
        raise UserError(f"Text was to be generated; of {body.family.name} no cache is known. Use its own `generate`.")
    if length > body.shape.n_ctx:
        raise UserError(
            f"Prompt and new tokens would be {length} long; this model reads {body.shape.n_ctx}. Ask for fewer."
        )
    if rotated := [str(edit.site) for edit in edits if edit.site.kind == "rot_k"]:
        raise UserError(
            f"An edit of {rotated[0]} was asked for; the keys that are kept for later tokens would not hold it. "
            "Edit `k`, before rotary, instead."
        )
    if temperature > 0 and generator is None:
        raise UserError(f"Tokens were to be drawn at temperature {temperature}. Pass the generator to draw from.")
    if temperature < 0:
        raise UserError(f"A temperature of {temperature} was asked for. Choose 0 (the likeliest) or more.")


def next_tokens(
    logits: Float[Tensor, "batch vocab"], temperature: float, generator: Generator | None
) -> Int[Tensor, "batch"]:
    """The likeliest token of each row, or one drawn on the generator's device."""
    if temperature == 0:
        return logits.argmax(-1)
    assert generator is not None
    chances = (logits.float() / temperature).softmax(-1).to(generator.device)
    return torch.multinomial(chances, 1, generator=generator)[:, 0]


def fresh_cache(module: nn.Module) -> Any:
    """An empty cache of keys and values."""
    from transformers import DynamicCache

    config: Any = module.config
    return DynamicCache(config=config)


def ends_of(module: nn.Module) -> list[int]:
    """The tokens with which the model ends a text."""
    found: Any = getattr(getattr(module, "generation_config", None), "eos_token_id", None)
    return [] if found is None else [found] if isinstance(found, int) else list(found)
