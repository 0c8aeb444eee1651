"""Steering: a direction from contrasting prompts, added to the residual stream, and what the model then says.

The direction is the mean activation of the positive prompts less that of the negative ones, at the last token or over
all tokens but the first. It is added at every token, generated ones too. The null is a random direction of the same
norm: what it does as well, the contrast does not explain.
Sources: Turner et al., "Activation addition" (2023); Rimsky et al., "Steering Llama 2 via contrastive activation
addition" (2023), section 3, whose mean difference this is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from micrographia.core.edits import Edit, add
from micrographia.core.errors import UserError
from micrographia.core.framing import PLAIN, Framing
from micrographia.core.model import Model
from micrographia.core.pretrained.generation import in_prompt
from micrographia.core.prompts import LanguageModel, onto
from micrographia.core.sites import Site, SiteLike, as_site
from micrographia.core.tokens import Inputs, ids_of, mask_of

At = Literal["last", "mean"]


@runtime_checkable
class Generates(Protocol):
    """A Model that goes on with a text."""

    def generate(self, inputs: Inputs, *, max_new_tokens: int, edits: Sequence[Edit] = ()) -> Tensor: ...


def continued(
    model: LanguageModel, prompt: str, edits: Sequence[Edit] = (), *, tokens: int = 40, framing: Framing = PLAIN
) -> str:
    """The model's own greedy continuation of a text, under edits. Edits that name positions act on the prompt.

    Raises UserError for a model without a tokenizer or that is not causal, and for more tokens than it reads.
    """
    if not goes_on(model) or model.tokenizer is None:
        raise UserError(f"Asked for a continuation by {model!r}, which generates no text. Take a language model.")
    ids = ids_of(framing.tokens(model, [prompt])).to(model.weights.W_E.device)
    if isinstance(model, Generates):
        found = model.generate(ids, max_new_tokens=tokens, edits=edits)
    else:
        found = _likeliest(model, ids, tokens, edits)
    return model.tokenizer.decode(found[0, ids.shape[1] :].tolist())


def goes_on(model: Model) -> bool:
    """Whether a model can go on with a text: it has a tokenizer, and each token is predicted from those before it."""
    return model.tokenizer is not None and (isinstance(model, Generates) or model.shape.causal)


def _likeliest(model: Model, ids: Int[Tensor, "one pos"], n: int, edits: Sequence[Edit]) -> Int[Tensor, "one longer"]:
    """The same for a model that keeps no keys and values: a run of the whole text for each of n tokens."""
    if ids.shape[1] + n > model.shape.n_ctx:
        raise UserError(
            f"Prompt and new tokens would be {ids.shape[1] + n} long; this model reads {model.shape.n_ctx}. Ask for "
            "fewer, or give a shorter prompt."
        )
    placed, ends = [in_prompt(each, ids.shape[1]) for each in edits], getattr(model.tokenizer, "eos", None)
    for _ in range(n):
        token = model.run(ids, edits=placed, logits="last").logits[:, -1].argmax(-1)
        ids = torch.cat([ids, token[:, None]], 1)
        if int(token) == ends:
            break
    return ids


def contrast(
    model: Model, positive: Inputs, negative: Inputs, site: SiteLike, *, at: At = "last"
) -> Float[Tensor, "d_model"]:
    """The mean activation of the positive prompts less that of the negative ones. Two forward passes.

    "last": at the last token of each; "mean": over all its tokens but the first, where there may be a sink.
    """
    site = as_site(site)
    if site.axes[-1] != "d_model" or "head" in site.axes:
        raise UserError(f"Asked to steer at {site}, with axes {', '.join(site.axes)}. Take L<layer>.resid_pre.")
    one, other = (_average(model, inputs, site, at) for inputs in (positive, negative))
    found = one - other
    if not bool(found.any()):
        raise UserError(f"At {site} positive and negative prompts are alike: no direction. Take others, or at='mean'.")
    return found


def _average(model: Model, inputs: Inputs, site: Site, at: At) -> Float[Tensor, "d_model"]:
    value, mask = model.run(inputs, keep=[site], logits="last").cache[site], mask_of(inputs)
    if at == "last":
        return value[:, -1].mean(0)
    seen = torch.ones(value.shape[:2], dtype=torch.bool) if mask is None else mask.cpu().clone()
    seen[torch.arange(len(seen)), seen.int().argmax(1)] = seen.sum(1) == 1  # the first token only where it is alone
    weight = seen.to(value)[..., None]
    return ((value * weight).sum(1) / weight.sum(1)).mean(0)


def random_directions(like: Float[Tensor, "d_model"], n: int, generator: Generator) -> Float[Tensor, "n d_model"]:
    """n directions drawn at random, of the same norm."""
    drawn = torch.randn(n, len(like), generator=generator).to(like)
    return drawn / drawn.norm(dim=1, keepdim=True) * like.norm()


class Odds(NamedTuple):
    """The probability of each word as the next token, by strength, beside that under random directions."""

    words: tuple[str, ...]
    strengths: tuple[float, ...]
    steered: Float[Tensor, "strength word"]
    random: Float[Tensor, "strength draw word"]

    def rows(self) -> list[dict[str, Any]]:
        """A row a word and strength: probability, and mean and extremes of the random directions."""
        return [
            {
                "word": word,
                "strength": strength,
                "probability": float(self.steered[i, j]),
                "random_mean": float(self.random[i, :, j].mean()),
                "random_low": float(self.random[i, :, j].min()),
                "random_high": float(self.random[i, :, j].max()),
                "beaten_by": int((self.random[i, :, j] >= self.steered[i, j]).sum()),
            }
            for j, word in enumerate(self.words)
            for i, strength in enumerate(self.strengths)
        ]


@dataclass(frozen=True, eq=False, slots=True)
class Steering:
    """A direction to add at a Site, times its strength."""

    model: LanguageModel = field(repr=False)
    site: Site
    vector: Float[Tensor, "d_model"] = field(repr=False)
    strength: float = 1.0
    framing: Framing = field(default=PLAIN, repr=False)
    size: float = 0.0
    """Norm of the activations that it is added to, the median over the tokens of the contrasting prompts."""

    def __str__(self) -> str:
        norm = float(self.vector.norm())
        return f"{self!r}: norm {norm:.3g}, beside activations of norm {self.size:.3g} (median)"

    @property
    def edit(self) -> Edit:
        """What adds it, in any run."""
        return add(self.site, self.strength * self.vector)

    def at(self, strength: float) -> "Steering":
        """The same at another strength."""
        return replace(self, strength=strength)

    def generate(self, prompt: str, *, tokens: int = 40) -> str:
        """The model's continuation when it is steered; with strength 0 its own."""
        return continued(self.model, prompt, [self.edit], tokens=tokens, framing=self.framing)

    def odds(
        self, prompt: str, words: Sequence[tuple[str, int]], strengths: Sequence[float], n: int, generator: Generator
    ) -> Odds:
        """The probability of each word (with its token) after the prompt, and under n random directions as long.

        Cost: a run of the prompt for each strength, and for each random direction as many.
        """
        ids = ids_of(self.framing.tokens(self.model, [prompt])).to(self.vector.device)
        columns, drawn = [token for _, token in words], random_directions(self.vector, n, generator)

        def probability(vector: Tensor, strength: float) -> Tensor:
            logits = self.model.run(ids, edits=[add(self.site, strength * vector)], logits="last").logits[0, -1]
            return logits.float().softmax(-1)[columns].cpu()

        steered = torch.stack([probability(self.vector, strength) for strength in strengths])
        random = torch.stack([torch.stack([probability(each, s) for each in drawn]) for s in strengths])
        return Odds(tuple(word for word, _ in words), tuple(strengths), steered, random)


def steer(
    model: LanguageModel,
    positive: Sequence[str],
    negative: Sequence[str],
    site: SiteLike,
    *,
    at: At = "last",
    strength: float = 1.0,
    framing: Framing = PLAIN,
) -> Steering:
    """The direction from negative to positive prompts at a Site, to be added `strength` times; see `contrast`."""
    device = model.weights.W_E.device
    sides = [onto(device, framing.tokens(model, list(texts))) for texts in (positive, negative)]
    vector, own = contrast(model, sides[0], sides[1], site, at=at), as_site(site)
    norms = model.run(sides[0], keep=[own], logits="last").cache[own].float().norm(dim=-1)
    mask = mask_of(sides[0])
    size = float((norms if mask is None else norms[mask.to(norms.device)]).median())
    return Steering(model, own, vector, float(strength), framing, size)
