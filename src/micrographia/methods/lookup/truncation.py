"""How local is a layer? The residual stream at a token with its context cut to the last few tokens.

For each text, length c and layer, the cosine between the stream of the whole text and of its last c tokens (behind the
beginning-of-sequence token where there is one), both less the mean over texts of the layer. Its square is the share of
variance that the cut context explains.
Source: Nanda, Rajamanoharan, Kramar and Shah, "Fact Finding" (2023), post 5.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.errors import UserError
from micrographia.core.model import Model
from micrographia.core.sites import Site, select

LENGTHS = tuple(range(1, 11))


class Truncation(NamedTuple):
    """`similarity`: 1 where what was cut does not matter."""

    sites: tuple[Site, ...]
    lengths: tuple[int, ...]
    similarity: Float[Tensor, "length site text"]


def truncation(
    model: Model,
    ids: Int[Tensor, "text pos"],
    *,
    lengths: Sequence[int] = LENGTHS,
    sites: Sequence[Site] | str = "L*.resid_post",
    bos: int | None = None,
) -> Truncation:
    """The curve at the last token of these texts, all of one length. `bos`: the token that every text begins with.

    A pass of the texts, and one of c tokens for every length. Raises UserError for a length that leaves nothing to cut,
    and for texts that do not begin with `bos`.
    """
    room = ids.shape[1] - (bos is not None)
    if any(not 1 <= c <= room for c in lengths) or len(ids) < 2:
        raise UserError(
            f"{len(ids)} texts of {room} tokens were to be cut to {list(lengths)}. Give two, and longer ones."
        )
    if bos is not None and not bool((ids[:, 0] == bos).all()):
        raise UserError(f"The texts were to begin with token {bos}, and some do not. Prepend it, or leave `bos` out.")
    chosen = select(model.sites, sites)
    whole = _ends(model, ids, chosen)
    front = ids[:, :1] if bos is not None else ids[:, :0]
    cut = [_ends(model, torch.cat([front, ids[:, -c:]], 1), chosen) for c in lengths]
    return Truncation(chosen, tuple(lengths), torch.stack([_cosine(each, whole) for each in cut]))


def _ends(model: Model, ids: Tensor, sites: Sequence[Site]) -> Float[Tensor, "site text d"]:
    cache = model.run(ids, keep=sites, logits="last").cache
    return torch.stack([cache[site][:, -1] for site in sites])


def _cosine(a: Float[Tensor, "site text d"], b: Float[Tensor, "site text d"]) -> Float[Tensor, "site text"]:
    mean = b.mean(1, keepdim=True)
    return F.cosine_similarity(a - mean, b - mean, dim=-1)
