"""What a model loses when an activation is replaced by a dictionary's output: cross-entropy and KL divergence.

Each replacement is written at the tokens that count; the others (special tokens, padding, the first positions) keep
their own activation. The loss is that of predicting the next token at tokens that count, where that next token is
neither special nor padding. Scores compare with zeros and with the mean in the same place:
loss recovered = (L_ablated - L_spliced) / (L_ablated - L_clean), KL score = 1 - KL(clean || spliced) / KL(clean ||
ablated). Zeros are the harsher ablation at most Sites, and so the more flattering score; SAELens and SAEBench print it
alone. Sources: Bricken et al. (2023), "Evaluating"; Gao et al. (2406.04093), section 4.1 on the loss instead of its
share. Axes: row pos d vocab.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.edits import put
from micrographia.core.errors import UserError
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.model import Model, Start
from micrographia.core.sites import Site
from micrographia.core.tokens import Inputs, ids_of
from micrographia.methods.dictionaries.evaluation.moments import Mean
from micrographia.methods.dictionaries.evaluation.reading import (
    Counted,
    ReadWrite,
    blocks_of,
    n_rows,
    on_device,
    values_at,
)

TOKENS_AT_ONCE = 2048
LOGITS_AT_ONCE = 2**24
"""Logits that are turned into float64 log-probabilities at once: 128 MB."""
ZERO, MEAN = "zero ablation", "mean ablation"
Replacement = Callable[[Tensor, Tensor], Tensor]
"""(what is read (token, d_in), what is there (token, d_out)) -> what is written (token, d_out)."""
See = Callable[[str, str, Int[Tensor, "token 2"], Float[Tensor, "token"]], None]
"""(replacement, "rise" of the loss or "squares" of the error, row and position, value) of the tokens of a block."""


@dataclass(slots=True)
class Effect:
    """What one replacement does."""

    loss: Mean = field(default_factory=Mean)
    delta: Mean = field(default_factory=Mean)
    """The rise of the loss of each row, the mean over its tokens; its error is over rows."""
    kl: Mean = field(default_factory=Mean)
    squares: Mean = field(default_factory=Mean)
    """||x - written||² of each token."""


class Recovery(NamedTuple):
    """One replacement beside the ablations. `delta_loss_error`: the standard error over rows."""

    name: str
    loss: float
    delta_loss: float
    delta_loss_error: float
    kl: float
    recovered_zero: float
    recovered_mean: float
    kl_score_zero: float
    kl_score_mean: float


@dataclass(frozen=True, slots=True)
class Spliced:
    """The losses under each replacement, on the same tokens."""

    place: ReadWrite
    counted: Counted
    clean_loss: float
    n_tokens: int
    """Predictions whose loss is counted."""
    effects: Mapping[str, Effect] = field(repr=False)

    def of(self, name: str) -> Recovery:
        """One replacement. Where an ablation does not raise the loss, a share of its rise means nothing: NaN."""
        effect, zero, mean = (self.effects[each] for each in (name, ZERO, MEAN))
        loss, kl = effect.loss.value, effect.kl.value

        def recovered(ablation: Effect) -> float:
            rise = ablation.loss.value - self.clean_loss
            return (ablation.loss.value - loss) / rise if rise > 0 else float("nan")

        def scored(ablation: Effect) -> float:
            return 1 - kl / ablation.kl.value if ablation.kl.value > 0 else float("nan")

        return Recovery(
            name, loss, loss - self.clean_loss, effect.delta.error, kl,
            recovered(zero), recovered(mean), scored(zero), scored(mean),
        )  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        return [self.of(name)._asdict() for name in self.effects]


def zeros(x: Tensor, y: Tensor) -> Tensor:
    return torch.zeros_like(y)


def constant(value: Float[Tensor, "d_out"]) -> Replacement:
    """The same vector at every token: the mean, for mean ablation."""
    return lambda x, y: value.to(y).expand_as(y)


def splice_losses(
    model: Model,
    place: ReadWrite,
    rows: Any,
    replacements: Mapping[str, Replacement],
    mean: Float[Tensor, "d_out"],
    counted: Counted,
    *,
    tokens_at_once: int = TOKENS_AT_ONCE,
    see: See | None = None,
    watch: Watch = silent,
) -> Spliced:
    """The loss under each replacement, and under zero and mean ablation; `mean` is what the latter writes.

    `see` is shown what each token adds, by which it can be told apart (`by_group`).

    Cost: a run of the rows, and for each replacement one of the layers from the written Site on. Memory: a block's
    residual stream and logits, whatever the number of rows. Raises UserError where no prediction counts.
    """
    if not model.shape.causal:
        raise UserError(
            f"The loss of the next token was asked for of {model!r}, which sees it: it is not causal. Use loss_rows=0."
        )
    every: dict[str, Replacement] = {**replacements, ZERO: zeros, MEAN: constant(mean)}
    effects = {name: Effect() for name in every}
    clean = Mean()
    total = n_rows(rows)
    for start, given in blocks_of(rows, tokens_at_once):
        n = len(ids_of(given))

        def done(i: int, start: int = start, n: int = n) -> None:
            watch(Progress("spliced loss", start * len(every) + n * i, total * len(every), "run"))

        here = see and _from(see, start)
        _add_block(model, place, on_device(model, given), every, counted, clean, effects, here, done)
    if not clean.n:
        raise UserError(
            f"Of {total} rows of tokens no prediction counts ({counted}). Give rows of three tokens or more."
        )
    return Spliced(place, counted, clean.value, clean.n, effects)


def _add_block(
    model: Model,
    place: ReadWrite,
    inputs: Inputs,
    replacements: Mapping[str, Replacement],
    counted: Counted,
    clean: Mean,
    effects: Mapping[str, Effect],
    see: See | None,
    done: Callable[[int], None],
) -> None:
    tokens = counted.mask(inputs)
    known = ids_of(inputs)[:, 1:] < model.shape.d_vocab_out  # a token that the model never predicts has no loss
    predicted = tokens[:, :-1] & counted.real(inputs)[:, 1:] & known
    if not bool(predicted.any()):
        return
    entry = None if place.write.layer is None else Site("resid_pre", place.write.layer)
    run = model.run(inputs, keep=[*dict.fromkeys([*place, *([entry] if entry else [])])])
    x, old = (values_at(run.cache, each, tokens) for each in place)
    here = tokens.to(old.device)
    y = old[here].flatten(1)
    begin = Start(entry.layer or 0, run.cache[entry]) if entry else None
    truth = next_tokens(run.logits, inputs, predicted)
    clean.add(truth.loss)
    for i, (name, replace) in enumerate(replacements.items(), 1):
        written = replace(x[tokens.to(x.device)].flatten(1).to(y.device), y)
        new = old.clone()
        new[here] = written.to(old.dtype).unflatten(1, old.shape[2:]) if old.ndim > 3 else written.to(old.dtype)
        edited = model.run(inputs, edits=[put(place.write, new)], start=begin).logits
        found = next_tokens(edited, inputs, predicted, truth.logits)
        _add_effect(effects[name], truth, found, predicted)
        squares = (written.double() - y.double()).square().sum(1)
        effects[name].squares.add(squares)
        if see is not None:
            see(name, "rise", predicted.nonzero(), found.loss - truth.loss)
            see(name, "squares", tokens.nonzero(), squares)
        done(i)


def _from(see: See, first: int) -> See:
    """The same for a block that begins at this row."""
    return lambda name, what, at, values: see(name, what, at + torch.tensor([first, 0], device=at.device), values)


class Predictions(NamedTuple):
    """Of each prediction that counts: its loss and KL(clean || this) in nats, and the logits that it came from."""

    loss: Float[Tensor, "token"]
    kl: Float[Tensor, "token"]
    logits: Float[Tensor, "token vocab"]


def next_tokens(
    logits: Float[Tensor, "row pos vocab"],
    inputs: Inputs,
    predicted: Bool[Tensor, "row before"],
    clean: Float[Tensor, "token vocab"] | None = None,
) -> Predictions:
    """The loss of each prediction, in nats, from float64 log-probabilities; the divergence from `clean` logits."""
    at = predicted.to(logits.device)
    own = logits[:, :-1][at]
    labels = ids_of(inputs).to(logits.device)[:, 1:][at]
    step = max(1, LOGITS_AT_ONCE // own.shape[1])
    losses, divergences = [], []
    for some in range(0, len(own), step):
        piece = slice(some, some + step)
        log_p = own[piece].double().log_softmax(-1)
        losses.append(-log_p.gather(-1, labels[piece, None])[:, 0])
        divergences.append(_kl(own if clean is None else clean, piece, log_p))
    return Predictions(torch.cat(losses), torch.cat(divergences), own)


def _kl(clean: Tensor, piece: slice, log_p: Tensor) -> Float[Tensor, "token"]:
    log_q = clean[piece].double().log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).nan_to_num(0.0).sum(-1)  # a logit of -inf: 0 * inf counts nothing


def _add_effect(effect: Effect, truth: Predictions, found: Predictions, predicted: Bool[Tensor, "row before"]) -> None:
    effect.loss.add(found.loss)
    effect.kl.add(found.kl)
    row = predicted.nonzero()[:, 0].to(found.loss.device)
    sums = found.loss.new_zeros(len(predicted)).index_add(0, row, found.loss - truth.loss)
    counts = row.bincount(minlength=len(predicted))
    effect.delta.add((sums / counts.clamp(min=1))[counts > 0])
