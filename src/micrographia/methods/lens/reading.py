"""StreamReading: the answer read off the residual stream of one prompt, or of two side by side, by every lens.

`read_stream` makes it: direct effects by component, of the largest heads by source token, and the logit lens at every
position. It lists itself as records and shows itself as Figures.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.answers import stacked
from micrographia.core.errors import UserError
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.graph import Node
from micrographia.core.model import Model
from micrographia.core.sites import Site
from micrographia.core.spoken import node_name
from micrographia.core.tokens import to_str_tokens
from micrographia.methods.lens.direct import Direct, LogitLens, by_source, direct_logit_attribution, logit_lens

SIDES = ("clean", "corrupt")
SHOWN = 10
"""Components that are printed."""
STREAM = ("L0.resid_pre", "L*.resid_post")


def point(site: Site) -> str:
    """A point of the stream in a sentence: behind a layer, or before all."""
    return "the embeddings" if site.kind == "resid_pre" else f"layer {site.layer}"


class StreamReading(NamedTuple):
    """The answer read off the residual stream of one prompt, or of a clean and a corrupt one: sides in front."""

    answers: list[str]
    """The answer, and the wrong one where there is one, as tokens; a set with "|" between."""
    logits: Float[Tensor, "side"]
    """The model's own figure at the last position: the answer's logit, or the difference of two."""
    probs: Float[Tensor, "side"]
    direct: Direct
    nodes: list[Node]
    sources: Float[Tensor, "side head source"]
    layers: LogitLens
    tokens: list[list[list[str]]]
    """The best token at every point of the stream and every position, as [side][site][pos]."""
    best: list[list[list[str]]]
    """The best tokens at every point of the stream at the last position, as [side][site][k]."""
    positions: list[str]
    several: bool = False
    """Whether an answer is a set of tokens."""

    @property
    def sides(self) -> tuple[str, ...]:
        return SIDES[: len(self.logits)]

    @property
    def label(self) -> str:
        """What the parts add up to, in words."""
        answer, *wrong = (repr(text.strip()) for text in self.answers)
        logit = "mean logit" if self.several else "logit"
        return f"{logit} of {answer} less {wrong[0]}" if wrong else f"{logit} of {answer}"

    def __repr__(self) -> str:
        found = ", ".join(f"{side} {logit:.4g}" for side, logit in zip(self.sides, self.logits.tolist()))
        return f"StreamReading({self.label}: {found})"

    def __str__(self) -> str:
        rows = [(row["part"], *(f"{row[side]:+.4g}" for side in self.sides)) for row in self.writers()[:SHOWN]]
        own = ("the model's own", *(f"{value:+.4g}" for value in self.logits.tolist()))
        lines = [("direct effects", *self.sides), own, *rows]
        return "\n".join([self.label, *(f"  {row[0]:<16}" + "".join(f"{x:>10}" for x in row[1:]) for row in lines)])

    def along(self) -> Float[Tensor, "site side"]:
        """The answer's logit, or the difference, where the stream is unembedded at the last position."""
        found = self.layers.logit[:, :, -1]
        return found[..., 0] - (found[..., 1] if len(self.answers) > 1 else 0.0)

    def table(self) -> dict[str, list[Any]]:
        """A row a writer, a column a side, in logits."""
        return {"part": list(self.direct.labels), **dict(zip(self.sides, self.direct.values.double().tolist()))}

    def model_answers(self) -> list[dict[str, Any]]:
        """By side the model's own logit and probability, and the sum of the parts."""
        found = zip(self.sides, self.logits.tolist(), self.direct.total.double().tolist(), self.probs.tolist())
        return [{"prompt": side, "logit": logit, "parts": parts, "prob": prob} for side, logit, parts, prob in found]

    def writers(self) -> list[dict[str, Any]]:
        """A record for everything that writes, the largest first, in logits."""
        values = self.direct.values.double().T.tolist()
        return self._by_size(
            {"part": node_name(part), **self._sided(row)} for part, row in zip(self.direct.labels, values)
        )

    def head_sources(self) -> list[dict[str, Any]]:
        """A record for each head and source token, the largest first, in logits."""
        values = self.sources.double().permute(1, 2, 0).tolist()
        return self._by_size(
            {"head": node_name(node), "token": token, **self._sided(value)}
            for node, row in zip(self.nodes, values)
            for token, value in zip(self.positions, row)
        )

    def predictions(self) -> list[dict[str, Any]]:
        """A record for each point of the stream: its prediction at the last position, by side."""
        found, own = self.layers, self.along()
        return [
            {"site": str(site)}
            | {
                side: {
                    "logit": float(own[i, j]),
                    "prob": float(found.prob[i, j, -1, 0]),
                    "rank": int(found.rank[i, j, -1, 0]),
                    "says": self.best[j][i],
                    "says_prob": found.top_prob[i, j, -1].double().tolist(),
                }
                for j, side in enumerate(self.sides)
            }
            for i, site in enumerate(found.sites)
        ]

    def since(self) -> Site | None:
        """From which point of the first stream on the answer is the best token; None where at the end it is not."""
        first = (self.layers.rank[:, 0, -1, 0] == 0).tolist()
        behind = next((i for i, best in enumerate(reversed(first)) if not best), len(first))
        return self.layers.sites[len(first) - behind] if behind else None

    def told_apart(self) -> Site | None:
        """From which point on the answer is the best token of the clean stream and not of the corrupt one."""
        best = self.layers.rank[:, :, -1, 0] == 0
        own = (best[:, 0] & ~best[:, -1]).tolist()
        behind = next((i for i, each in enumerate(reversed(own)) if not each), len(own))
        return self.layers.sites[len(own) - behind] if behind else None

    def onward(self, site: Site) -> str:
        """From a point of the stream on, in words. After the last layer it is the model's own answer."""
        return "only after the last layer" if site == self.layers.sites[-1] else f"from {point(site)} on"

    def _sided(self, values: Sequence[float]) -> dict[str, float | None]:
        """A figure for each side; their difference where there are two."""
        row: dict[str, float | None] = dict(zip(self.sides, values))
        return row if len(values) < 2 else {**row, "difference": values[0] - values[1]}

    def _by_size(self, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted(rows, key=lambda row: -max(abs(row[side]) for side in self.sides))

    def figures(self) -> list[Figure]:
        """Tables and pictures: the answer, direct effects of components, heads and source tokens, the logit lens."""
        from micrographia.methods.lens.figures import pictures_of, tables_of

        return [*tables_of(self), *pictures_of(self)]


def read_stream(
    model: Model,
    ids: Int[Tensor, "side pos"],
    answers: Sequence[int | Sequence[int]],
    positions: Sequence[str] = (),
    *,
    n_heads: int = 12,
    best: int = 5,
    watch: Watch = silent,
) -> StreamReading:
    """Read for the first of `answers`, against the second where there is one, at the last position.

    Either may be a set of tokens: its logit is then their mean, so that the parts still add up, its probability their
    sum, and its rank that of the best.
    `n_heads` heads of the largest parts are split by source; `best` tokens are kept of each point of the stream.
    `positions` names the positions; without names they are numbered.
    Cost: four forward passes, and an unembedding of every position at each point of the stream, one point at a time.
    Raises UserError for numbers of heads or tokens that there cannot be.
    """
    if n_heads < 0 or best < 1:
        raise UserError(f"Asked for {n_heads} heads and the {best} best tokens. Ask for 0 heads and 1 token at least.")

    def at(step: int) -> None:
        watch(Progress("read the stream", step, 3, "step"))

    at(0)
    sets = [[each] if isinstance(each, int) else list(each) for each in answers]
    right, *wrong = (stacked([each] * len(ids), ids.device) for each in sets)
    against = wrong[0] if wrong else None
    direct = direct_logit_attribution(model, ids, right, against)
    at(1)
    largest = direct.values.abs().amax(0).argsort(descending=True).tolist()
    nodes = [Node.parse(direct.labels[i]) for i in largest if ".z[" in direct.labels[i]][:n_heads]
    sources = by_source(model, ids, nodes, right, against) if nodes else torch.zeros(len(ids), 0, ids.shape[1])
    at(2)
    wanted = torch.tensor([[token for each in sets for token in each]] * len(ids), device=ids.device)
    layers = _by_set(logit_lens(model, ids, wanted, sites=STREAM, at=range(ids.shape[1]), k=best), sets)
    last = model.run(ids, logits="last").logits[:, -1].double()
    own = last[:, sets[0]].mean(1) - (last[:, sets[1]].mean(1) if wrong else 0.0)
    at(3)

    def words(top: Int[Tensor, "site side any"]) -> list[list[list[str]]]:
        return [[to_str_tokens(model.tokenizer, row) for row in side] for side in top.transpose(0, 1).tolist()]

    return StreamReading(
        answers=["|".join(to_str_tokens(model.tokenizer, each)) for each in sets],
        logits=own.cpu(),
        probs=last.softmax(-1)[:, sets[0]].sum(1).cpu(),
        direct=direct,
        nodes=nodes,
        sources=sources,
        layers=layers,
        tokens=words(layers.top[..., 0]),
        best=words(layers.top[:, :, -1]),
        positions=list(positions) or [str(i) for i in range(ids.shape[1])],
        several=max(map(len, sets)) > 1,
    )


def _by_set(found: LogitLens, sets: Sequence[Sequence[int]]) -> LogitLens:
    """Figures of single tokens as figures of sets of them, which follow one another."""
    sizes = [len(each) for each in sets]
    logit = torch.stack([part.mean(-1) for part in found.logit.split(sizes, -1)], -1)
    prob = torch.stack([part.sum(-1) for part in found.prob.split(sizes, -1)], -1)
    rank = torch.stack([part.amin(-1) for part in found.rank.split(sizes, -1)], -1)
    return found._replace(logit=logit, prob=prob, rank=rank)
