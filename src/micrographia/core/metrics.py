"""Metrics of next-token logits at one position: a number per prompt.

An answer may be a set of tokens: ids of shape (prompt, option) with -1 where a prompt has fewer. Logits are then
averaged over the set, so that a logit difference stays linear in the logits, and probabilities are summed. A set of one
token is that token.

A `Metric` names the columns of the vocabulary it reads, so that a run computes no others, and the function of them. All
but `rank` are differentiable. Patching, attribution and circuits take any of them, and the user's own. Logits of a
narrower dtype are converted to float32 first: the difference of two bfloat16 numbers keeps a digit or two.
Rows of a batch may be many patches of few prompts: `prompt` is the prompt number of each row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.edits import Edit, wide
from micrographia.core.errors import BadShape
from micrographia.core.model import LogitsAt, Model, Readout
from micrographia.core.tokens import Inputs, ids_of

Score = Callable[[Tensor, Tensor], Tensor]
"""(logits (row, column), prompt of each row (row,)) -> (row,)."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A number per prompt, read off the logits at `pos`.

    `columns` (prompt, column): the tokens whose logits it reads, in the order in which `score` gets them; None: all.
    """

    name: str
    unit: str
    score: Score = field(repr=False)
    columns: Int[Tensor, "prompt column"] | None = field(default=None, repr=False)
    pos: int = -1

    def readout(self, prompt: Int[Tensor, "row"]) -> LogitsAt:
        """The logits that a run of these rows has to compute."""
        return [self.pos] if self.columns is None else Readout(self.columns[prompt], self.pos)

    def __call__(self, logits: Float[Tensor, "row at column"], prompt: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
        """The metric of each row, from the logits of `readout`."""
        if logits.shape[1] != 1 or len(logits) != len(prompt):
            raise BadShape(
                f"{self.name} reads one position of {len(prompt)} rows. Found logits of shape {tuple(logits.shape)}; "
                "run with `logits=metric.readout(prompt)`."
            )
        return self.score(logits[:, 0], prompt)

    def of(self, model: Model, inputs: Inputs, *, edits: Sequence[Edit] = ()) -> Float[Tensor, "prompt"]:
        """The metric of every prompt under a model, with these edits. One forward pass."""
        rows = prompts(len(ids_of(inputs)), ids_of(inputs).device)
        return self(model.run(inputs, edits=edits, logits=self.readout(rows)).logits, rows)

    def of_vocabulary(self, logits: Float[Tensor, "row pos vocab"], prompt: Int[Tensor, "row"]) -> Float[Tensor, "row"]:
        """The metric of each row, from logits at every position and of the whole vocabulary."""
        here = logits[:, self.pos]
        columns = None if self.columns is None else of_rows(self.columns, prompt, here)
        return self.score(here if columns is None else here.gather(-1, columns), prompt)


def of_rows(each: Tensor, prompt: Tensor, like: Tensor) -> Tensor:
    """The entries of each row's prompt, on the device of `like` (of a model spread over devices, the logits')."""
    return each.to(like.device)[prompt.to(like.device)]


def options(tokens: Int[Tensor, "prompt *option"]) -> Int[Tensor, "prompt option"]:
    """Answers as sets, also where each is one token."""
    return tokens[:, None] if tokens.ndim == 1 else tokens


def mean_over_options(tokens: Int[Tensor, "prompt *option"]) -> Float[Tensor, "prompt option"]:
    """The weight of each token in the mean of its set: 0 where there is none."""
    there = (options(tokens) >= 0).float()
    return there / there.sum(1, keepdim=True)


def logit_difference(
    answer: Int[Tensor, "prompt *option"], wrong: Int[Tensor, "prompt *other"], *, pos: int = -1
) -> Metric:
    """Logit of the answer minus that of the wrong answer: linear in the logits, so negative contributions show too.

    Of sets the mean logit of the answers minus that of the wrong ones, as in the code published with Hanna et al.,
    "Have faith in faithfulness" (2024), for its greater-than task. It weighs an unlikely answer like a likely one; the
    published metric of that task is `probability_difference`.
    Source: Wang et al., "Interpretability in the wild" (2022), section 2.
    """
    columns = torch.cat([options(answer), options(wrong)], 1)
    if columns.shape[1] > 2:
        return _weighted("logit difference", [mean_over_options(answer), -mean_over_options(wrong)], columns, pos)

    def score(x: Tensor, prompt: Tensor) -> Tensor:
        own, other = wide(x).unbind(1)
        return own - other

    return Metric("logit difference", "logits", score, columns, pos)


def logit(answer: Int[Tensor, "prompt *option"], *, pos: int = -1) -> Metric:
    """Logit of the answer; of a set the mean."""
    columns = options(answer)
    if columns.shape[1] > 1:
        return _weighted("logit", [mean_over_options(answer)], columns, pos)
    return Metric("logit", "logits", lambda x, prompt: wide(x[:, 0]), columns, pos)


def _weighted(name: str, weights: Sequence[Tensor], columns: Tensor, pos: int) -> Metric:
    """A sum of logits with fixed weights."""
    weight = torch.cat(list(weights), 1)

    def score(x: Tensor, prompt: Tensor) -> Tensor:
        logits = wide(x)
        return (logits * of_rows(weight, prompt, x).to(logits.dtype)).sum(1)

    return Metric(name, "logits", score, columns.clamp(min=0), pos)


def _own(x: Tensor, tokens: Tensor, prompt: Tensor, absent: float) -> Float[Tensor, "row option"]:
    """The entries of each row's answers; `absent` where its set has fewer."""
    chosen = of_rows(options(tokens), prompt, x)
    found = x.gather(-1, chosen.clamp(min=0))
    return found if chosen.shape[1] == 1 else found.masked_fill(chosen < 0, absent)


def log_prob(answer: Int[Tensor, "prompt *option"], *, pos: int = -1) -> Metric:
    """Natural logarithm of the answer's probability, in nats; of a set that of the sum."""

    def score(x: Tensor, prompt: Tensor) -> Tensor:
        own = _own(wide(x).log_softmax(-1), answer, prompt, -torch.inf)
        return own[:, 0] if own.shape[1] == 1 else own.logsumexp(1)

    return Metric("log-probability", "nats", score, None, pos)


def prob(answer: Int[Tensor, "prompt *option"], *, pos: int = -1) -> Metric:
    """Probability of the answer, of a set the sum. Insensitive to what lowers an answer that is already unlikely."""

    def score(x: Tensor, prompt: Tensor) -> Tensor:
        own = _own(wide(x).softmax(-1), answer, prompt, 0.0)
        return own[:, 0] if own.shape[1] == 1 else own.sum(1)

    return Metric("probability", "probability", score, None, pos)


def probability_difference(
    answer: Int[Tensor, "prompt *option"], wrong: Int[Tensor, "prompt *other"], *, pos: int = -1
) -> Metric:
    """Probability of the answer minus that of the wrong answer, of sets the sums: from -1 to 1.

    Source: Hanna et al., "How does GPT-2 compute greater-than?" (2023), whose answers are the years above.
    """
    own, other = prob(answer, pos=pos).score, prob(wrong, pos=pos).score
    difference: Score = lambda x, prompt: own(x, prompt) - other(x, prompt)  # noqa: E731
    return Metric("probability difference", "probability", difference, None, pos)


def kl(reference: Float[Tensor, "prompt vocab"], *, pos: int = -1) -> Metric:
    """Divergence KL(reference || run) of the next-token distributions, in nats; `reference` holds logits."""
    target = wide(reference).log_softmax(-1)

    def score(x: Tensor, prompt: Tensor) -> Tensor:
        expected = of_rows(target, prompt, x)
        return (expected.exp() * (expected - wide(x).log_softmax(-1))).sum(-1)

    return Metric("KL divergence", "nats", score, None, pos)


def rank(answer: Int[Tensor, "prompt *option"], *, pos: int = -1) -> Metric:
    """The number of tokens with a larger logit than the answer, of a set than its best one. No gradient."""

    def score(x: Tensor, prompt: Tensor) -> Tensor:
        own = _own(x, answer, prompt, -torch.inf).amax(1, keepdim=True)
        return (x > own).sum(-1).to(torch.promote_types(x.dtype, torch.float32))

    return Metric("rank", "tokens", score, None, pos)


PAIRED: Mapping[str, Callable[[Tensor, Tensor, Tensor, int], Metric]] = {
    "logit-diff": lambda answer, wrong, reference, pos: logit_difference(answer, wrong, pos=pos),
    "logit": lambda answer, wrong, reference, pos: logit(answer, pos=pos),
    "log-prob": lambda answer, wrong, reference, pos: log_prob(answer, pos=pos),
    "prob": lambda answer, wrong, reference, pos: prob(answer, pos=pos),
    "prob-diff": lambda answer, wrong, reference, pos: probability_difference(answer, wrong, pos=pos),
    "kl": lambda answer, wrong, reference, pos: kl(reference, pos=pos),
    "rank": lambda answer, wrong, reference, pos: rank(answer, pos=pos),
}
"""The metrics by name, from answers and wrong answers (prompt,) or (prompt, option), the clean run's logits at the
position that is read (prompt, vocab), and that position."""


def prompts(n: int, device: torch.device | None = None) -> Int[Tensor, "row"]:
    """The prompt of each row where every prompt has one row: 0 .. n - 1."""
    return torch.arange(n, device=device)
