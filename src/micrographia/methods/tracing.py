"""Causal tracing: hide the subject in noise, restore one state at a time, and see where the answer comes back.

The picture is token x layer: the mean probability of the answer when the state there is the clean run's. With attention
or MLP outputs, a window of layers is restored together; with a severed kind, that kind stays what it was under noise at
the restored token, so that the state cannot work through it.
Source: Meng et al., "Locating and editing factual associations in GPT" (2022, ROME), section 2 and the code published
with it (`experiments/causal_trace.py`), whose defaults are ours: 3 standard deviations, 10 draws, and of GPT-2 XL's 48
layers windows of 10, a fifth of the depth.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core import figures
from micrographia.core.answers import stacked
from micrographia.core.edits import add
from micrographia.core.effects import Effects
from micrographia.core.errors import BadPrompt, UserError
from micrographia.core.events import Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.metrics import prob, prompts
from micrographia.core.model import Model
from micrographia.core.movement import SEEN, Stay, layer_range, ranges
from micrographia.core.sites import Site
from micrographia.core.spoken import at_position
from micrographia.core.sweep import Donor, Patch, Place, Plan, sweep
from micrographia.core.tokens import Inputs, ids_of, rows_of

State = Literal["resid_post", "mlp_out", "attn_out"]
Severed = Literal["mlp_out", "attn_out"]
SAMPLES = 10
WINDOW_SHARE = 10 / 48  # of the depth, restored together for mlp_out and attn_out: 10 layers in GPT-2 XL
NOISE_STDS = 3.0
CLEAN, NOISED = 0, 1  # the donors


class Traced(NamedTuple):
    """Probability of the answer, restored at each layer and position; `low` is all noise, `high` no noise."""

    state: State
    severed: tuple[Severed, ...]
    window: int
    values: Float[Tensor, "layer pos"]
    samples: Float[Tensor, "layer pos sample"]
    low: float
    high: float
    answer: int | tuple[int, ...]
    """The token that is followed; several where a set is, by their probability together."""
    noise_std: float
    subject: tuple[int, ...]

    def __repr__(self) -> str:
        n_layers, n_pos, n_draws = self.samples.shape
        return f"Traced({self.state}, {n_layers} layers by {n_pos} positions, {n_draws} draws of noise)"

    def __str__(self) -> str:
        lines = [repr(self), f"probability: clean {self.high:.4g}, corrupted {self.low:.4g}"]
        for stay in sorted(self.ranges(), key=lambda stay: -abs(stay.value)):
            where = f"position {stay.pos}{'*' * (stay.pos in self.subject)}"
            lines.append(f"  {where:<14} {layer_range(stay.first, stay.last):<18} {stay.value:+.4g} restored")
        return "\n".join(lines)

    def ranges(self) -> list[Stay]:
        """A row a position: the layers in which restoring its state brings the answer back, and how much of it.

        `value` is the mean probability restored there. Without the last position of the residual stream, whose last
        state is the clean answer itself; of notable effects alone, a tenth of the largest.
        """
        effect = self.indirect_effect().double().cpu().numpy()
        effect = effect[:, :-1] if self.state == "resid_post" else effect
        if not effect.size:
            return []
        least = SEEN * max(float(np.nanmax(np.abs(effect))), SEEN * abs(self.high - self.low))
        return ranges(effect, range(len(effect)), least)

    def indirect_effect(self) -> Float[Tensor, "layer pos"]:
        """The probability that restoring brings back, above all noise (section 2.1)."""
        return self.values - self.low

    @property
    def effects(self) -> Effects:
        """The same as Effects, a draw of noise in the place of a prompt; the mean of the corrupted runs is the base."""
        sites = [Site(self.state, layer) for layer in range(len(self.samples))]
        clean, corrupt = (torch.full_like(self.samples[0, 0], value) for value in (self.high, self.low))
        return Effects(
            mode="denoise",
            method="exact",
            scores={site: (draws - self.low).T for site, draws in zip(sites, self.samples)},
            axes=dict.fromkeys(sites, ("pos",)),
            clean=clean,
            corrupt=corrupt,
            metric="probability",
            unit="probability",
            source="the undisturbed run",
        )

    def figures(self, positions: Sequence[str] = ()) -> list[Figure]:
        """The picture of tokens by layers. `positions` names the positions; without names they are numbered."""
        return [trace_map("trace", "Probability of the answer when a state is restored", {"": self}, positions)]


def window_of(n_layers: int) -> int:
    """The layers restored together unless told: a fifth of the depth, at least one.

    >>> [window_of(n) for n in (2, 12, 30, 48)]
    [1, 2, 6, 10]
    """
    return max(1, int(WINDOW_SHARE * n_layers))


def trace(
    model: Model,
    inputs: Inputs,
    subject: Sequence[int],
    generator: Generator,
    *,
    answer: int | Sequence[int] | None = None,
    state: State = "resid_post",
    severed: Sequence[Severed] = (),
    window: int | None = None,
    noise_std: float | None = None,
    n_samples: int = SAMPLES,
    plan: Plan = "fast",
    watch: Watch = silent,
) -> Traced:
    """Trace one prompt. `subject`: the positions whose embeddings get noise, drawn from `generator` `n_samples` times.

    `answer`: a token, or several to follow together; by default what the model says itself. `noise_std`: by default 3
    standard deviations of this subject's own embeddings; `subject_noise` takes it over many, as the paper does.
    `window`: how many layers around each are restored together; by default a fifth of the depth for mlp_out and
    attn_out and 1 for resid_post. Layers whose window is every layer are NaN in `values` and `samples`: all of a kind
    restored is no finding about a layer.
    Cost: two forward passes and a sweep of layers x positions patches over `n_samples` rows.
    Errors: BadPrompt for several prompts or a subject outside; UserError for a window or number of draws below 1.
    """
    if not model.shape.causal:
        raise UserError(
            "Causal tracing was asked for of a bidirectional model; it reads what comes after the prompt. "
            "Patch such a model instead, with the token to fill in the prompts."
        )
    model = model if plan == "strict" else model.fused
    ids = ids_of(inputs)
    n_layers, n_pos = model.shape.n_layers, ids.shape[1]
    window = (1 if state == "resid_post" else window_of(n_layers)) if window is None else window
    places, whole = _checked(ids, subject, n_samples, window), covered(state, window, n_layers)
    states = [Site(state, layer) for layer in range(n_layers)]
    undisturbed = model.run(inputs, keep=[*states, Site("embed")], logits="last")
    clean = undisturbed.cache
    answer = int(undisturbed.logits[0, -1].argmax()) if answer is None else answer
    std = noise_std if noise_std is not None else NOISE_STDS * _std([clean[Site("embed")][0, places]])
    if not 0 < float(std) < math.inf:
        raise UserError(f"Noise of the standard deviation {float(std)} was asked for. Give a positive, finite one.")
    embedded = clean[Site("embed")][:, places]
    drawn = torch.randn((n_samples, *embedded.shape[1:]), generator=generator).to(embedded)
    noise = add("embed", std * drawn, pos=places)
    rows = rows_of(inputs, torch.zeros(n_samples, dtype=torch.long, device=ids.device))
    followed = (answer,) if isinstance(answer, int) else tuple(answer)
    metric, own = (prob(stacked([followed] * n, ids.device)) for n in (n_samples, 1))
    held = [Site(kind, layer) for kind in severed for layer in range(n_layers)]
    noised = model.run(rows, keep=held, edits=[noise], logits=metric.readout(prompts(n_samples, ids.device)))
    patches = [
        _patch(state, tuple(severed), window, n_layers, layer, pos) for layer in range(n_layers) for pos in range(n_pos)
    ]
    donors: list[Donor] = [clean, noised.cache]
    found = sweep(model, rows, patches, donors, [metric], edits=[noise], plan=plan, watch=watch)
    samples = found[..., 0].unflatten(0, (n_layers, n_pos))
    samples[whole] = torch.nan
    return Traced(
        state=state,
        severed=tuple(severed),
        window=window,
        values=samples.mean(-1),
        samples=samples,
        low=metric(noised.logits, prompts(n_samples, ids.device)).mean().item(),
        high=own(undisturbed.logits, prompts(1, ids.device)).item(),
        answer=next(iter(followed)) if len(followed) == 1 else followed,
        noise_std=float(std),
        subject=tuple(places),
    )


def subject_noise(model: Model, subjects: Sequence[Inputs]) -> float:
    """3 standard deviations of the embeddings of all tokens of these subjects: the noise of the paper.

    Each entry holds the ids of one subject, (1, pos). Taken over every component of every token.
    """
    if not subjects:
        raise UserError("Asked for the spread of the subjects' embeddings, but no subject was given. Give some.")
    kept = [model.run(ids, keep="embed", stop=0).cache["embed"].flatten(0, 1) for ids in subjects]
    return NOISE_STDS * _std(kept)


def _std(embeddings: Sequence[Float[Tensor, "_ d_model"]]) -> float:
    return torch.cat(list(embeddings)).double().std().item()


def window_at(layer: int, window: int, n_layers: int) -> range:
    """The layers of the window around this one, cut at both ends."""
    return range(max(0, layer - window // 2), min(n_layers, layer + (window + 1) // 2))


def covered(state: State, window: int, n_layers: int) -> list[int]:
    """The layers whose window is every layer, which are left out. Raises UserError where that is all of them."""
    spans = [len(window_at(layer, window, n_layers)) == n_layers for layer in range(n_layers)]
    if state == "resid_post" or n_layers == 1:
        return []
    if all(spans):
        raise UserError(
            f"Windows of {window} layers were asked for; each covers all {n_layers} layers of this model, so that none "
            f"tells them apart. Take a smaller one, such as {window_of(n_layers)}."
        )
    return [layer for layer, span in enumerate(spans) if span]


def _patch(state: State, severed: tuple[Severed, ...], window: int, n_layers: int, layer: int, pos: int) -> Patch:
    """Restore a window of layers around this one; hold what is severed, at this token, as it was under noise.

    A window of 10 around layer l is l - 5 to l + 4, cut at both ends, as in the published code.
    """
    layers = window_at(layer, window, n_layers)
    restored = {Site(state, i): Place(Site(state, i), {"pos": pos}, CLEAN) for i in layers}
    held = [Site(kind, i) for kind in severed for i in range(layers[0] + (state == "resid_post"), n_layers)]
    return (*restored.values(), *(Place(site, {"pos": pos}, NOISED) for site in held if site not in restored))


def _checked(ids: Tensor, subject: Sequence[int], n_samples: int, window: int) -> list[int]:
    n_prompts, n_pos = ids.shape
    if n_prompts != 1:
        raise BadPrompt(f"Tracing was asked for {n_prompts} prompts; it takes one at a time. Trace each by itself.")
    if not subject or any(not -n_pos <= pos < n_pos for pos in subject):
        raise BadPrompt(f"The subject was given at {list(subject)} of {n_pos} positions. Name positions in it.")
    if n_samples < 1 or window < 1:
        raise UserError(f"{n_samples} draws and windows of {window} layers were asked for. Give at least 1 of each.")
    return sorted({pos % n_pos for pos in subject})


def positions_of(subject: str, prompt: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The positions of all tokens that hold a letter of the subject, or part of one, where it first occurs in the
    prompt.

    `spans`: which letters of the prompt each token holds (`core.tokens.spans_of`). Raises BadPrompt.
    """
    begin = prompt.find(subject) if subject.strip() else -1
    found = [i for i, (first, end) in enumerate(spans) if first < begin + len(subject) and begin < end]
    if begin < 0 or not found:
        raise BadPrompt(f"The subject {subject!r} was not found in the prompt {prompt!r}. Copy it from there.")
    return list(range(found[0], found[-1] + 1))


def trace_map(
    name: str, title: str, traces: Mapping[str, Traced], positions: Sequence[str] = (), caption: str = ""
) -> Figure:
    """Tokens downward, layers across, a panel a trace, one scale for all."""
    z = np.stack([each.values.T.flip(0).cpu().numpy() for each in traces.values()])
    names = positions or [f"{i}{'*' * (i in next(iter(traces.values())).subject)}" for i in range(z.shape[1])]
    if len(names) != z.shape[1]:
        raise UserError(f"{len(names)} names were given for the {z.shape[1]} positions of the trace. Give one to each.")
    meaning = "Tokens with a star were corrupted. The higher the probability, the more of the answer is restored here."
    return figures.heatmap(
        name,
        title,
        z,
        x=[str(i) for i in range(z.shape[2])],
        y=list(reversed(names)),
        panels=list(traces),
        value="probability",
        x_label="layer",
        source="Meng et al. (2022), figure 1",
        caption=f"{meaning} {caption}".strip(),
        group="In pictures",
    )


def best_of_subject(traced: Traced) -> int:
    """The token of the subject that restores most in any layer."""
    own = list(traced.subject)
    return own[int(traced.values[:, own].nan_to_num(-torch.inf).amax(0).argmax())]


def subject_token(traces: Mapping[str, Traced], positions: Sequence[str] = ()) -> Figure:
    """The probability along the layers at the token of the subject that restores most, a curve a trace.

    The ends of the pictures' scale, no noise and all noise, are curves too, so that a small effect looks small.
    """
    first = next(iter(traces.values()))
    token, severed = best_of_subject(first), any(each.severed for each in traces.values())
    curves = {name: each.values[:, token].cpu().numpy() for name, each in traces.items()}
    ends = {NO_NOISE: first.high, ALL_NOISE: first.low}
    curves |= {name: np.full(len(first.values), value) for name, value in ends.items()}
    through = f" {THROUGH}" if severed else ""
    return figures.lines(
        "subject-token",
        f"The token of the subject that restores most: {at_position(positions, token)}",
        np.arange(len(first.values)),
        np.stack(list(curves.values())),
        names=list(curves),
        x_label="layer",
        y_label="probability",
        source="Meng et al. (2022), figure 3, of the last token",
        caption=f"The probability of the answer when one state is restored, layer by layer.{through}",
        group="In pictures",
    )


NO_NOISE, ALL_NOISE = "no noise", "all noise"
THROUGH = (
    "Where the curve with one kind of sublayer severed lies below that of a single state, the state works through "
    "sublayers of that kind in the layers above."
)
