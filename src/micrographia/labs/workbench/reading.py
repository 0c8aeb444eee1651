"""What a lens reads of a model: parts, sources and layers, of one prompt or of two side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.events import Progress, Watch
from micrographia.core.graph import Node
from micrographia.core.model import Model
from micrographia.core.prompts import LanguageModel
from micrographia.core.tokens import to_str_tokens
from micrographia.methods.lens import Direct, Lens, by_source, direct_logit_attribution, logit_lens

SIDES = ("clean", "corrupt")
STREAM = ("L0.resid_pre", "L*.resid_post")


class Read(NamedTuple):
    """Everything that was read, sides (clean, then corrupt) in front."""

    answers: list[str]
    """The answer, and the wrong one where there is one, as tokens."""
    logits: Float[Tensor, "side"]
    """What the model gives at the last position: the answer's logit, or the difference."""
    probs: Float[Tensor, "side"]
    direct: Direct
    nodes: list[Node]
    sources: Float[Tensor, "side head source"]
    layers: Lens
    says: list[list[list[str]]]
    """The first choice at every point of the stream and every position, as [side][site][pos]."""
    positions: list[str]

    @property
    def sides(self) -> tuple[str, ...]:
        return SIDES[: len(self.logits)]


def read_stream(
    model: LanguageModel,
    ids: Int[Tensor, "side pos"],
    answers: Sequence[int],
    positions: list[str],
    *,
    n_heads: int,
    best: int,
    watch: Watch,
) -> Read:
    """Read for the first of `answers`, against the second where there is one, at the last position.

    `n_heads` heads of the largest parts are split by source; `best` tokens are told of each point of the stream.
    Cost: four forward passes, and an unembedding of every position at each point of the stream, one point at a time.
    """

    def at(step: int) -> None:
        watch(Progress("read the stream", step, 3, "lens"))

    at(0)
    right, *wrong = (torch.tensor([answer] * len(ids), device=ids.device) for answer in answers)
    against = wrong[0] if wrong else None
    direct = direct_logit_attribution(model, ids, right, against)
    at(1)
    largest = direct.values.abs().amax(0).argsort(descending=True).tolist()
    nodes = [Node.parse(direct.labels[i]) for i in largest if ".z[" in direct.labels[i]][:n_heads]
    sources = by_source(model, ids, nodes, right, against) if nodes else torch.zeros(len(ids), 0, ids.shape[1])
    at(2)
    wanted = torch.tensor([list(answers)] * len(ids), device=ids.device)
    layers = logit_lens(model, ids, wanted, sites=STREAM, at=range(ids.shape[1]), k=best)
    logits = model.run(ids, logits="last").logits
    last = logits[:, -1].double()
    own = last[:, answers[0]] - (last[:, answers[1]] if wrong else 0.0)
    at(3)
    return Read(
        answers=[said(model, answer) for answer in answers],
        logits=own.cpu(),
        probs=last.softmax(-1)[:, answers[0]].cpu(),
        direct=direct,
        nodes=nodes,
        sources=sources,
        layers=layers,
        says=[
            [to_str_tokens(model.tokenizer, row) for row in side]
            for side in layers.top[..., 0].transpose(0, 1).tolist()
        ],
        positions=positions,
    )


def first_choice(model: Model, ids: Int[Tensor, "1 pos"]) -> int:
    """The token that the model says next."""
    logits = model.run(ids, logits="last").logits
    return int(logits[0, -1].argmax())


def said(model: Model, token: int) -> str:
    return to_str_tokens(model.tokenizer, [token])[0]
