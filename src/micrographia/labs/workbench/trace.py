"""Trace: where a fact comes back when a blurred prompt gets single clean states, as in ROME.

States of the residual stream one at a time, MLP and attention outputs in windows of layers; then the same with MLPs, or
attention, held at their blurred values, which tells which of the two the state works through.
Source: Meng et al., "Locating and editing factual associations in GPT" (2022), section 2 and figures 1 and 3.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from micrographia.core.errors import BadPrompt
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.prompts import LanguageModel
from micrographia.core.tokens import ids_of, single_token, to_str_tokens, to_tokens
from micrographia.labs.workbench.answer import Answer, Work, about
from micrographia.labs.workbench.config import Trace
from micrographia.labs.workbench.prompt_file import read_texts
from micrographia.labs.workbench.prompts import check_length, shown_token, spread
from micrographia.methods.tracing import NOISE_STDS, Severed, State, Traced, subject_noise, trace

STATES: dict[State, str] = {
    "resid_post": "one state of the residual stream",
    "mlp_out": "MLP outputs",
    "attn_out": "attention outputs",
}
SEVERED: dict[Severed, str] = {"mlp_out": "MLPs held", "attn_out": "attention held"}
TOP = 12
HARDLY = 0.05
"""A blur that lowers the probability by less than this share of it hardly lowers it. Our choice."""


class Picture(NamedTuple):
    """One variant of the trace, under its name."""

    name: str
    traced: Traced


def ask_trace(question: Trace, model: LanguageModel) -> Work:
    """Find the subject in the prompt and read the answer; what remains is to trace."""
    tokenizer = model.tokenizer
    inputs = model.to_tokens(question.prompt)
    check_length(inputs, model)
    inputs = ids_of(inputs).to(model.weights.W_E.device)
    tokens = to_str_tokens(tokenizer, inputs[0])
    where = positions_of(question.subject.strip(), question.prompt, tokens)
    answer = None if question.answer is None else single_token(tokenizer, question.answer, first=question.first_token)
    subjects = [inputs[:, where]]
    if question.reference is not None:
        texts = read_texts(question.reference)
        subjects = [ids_of(to_tokens(tokenizer, text, prepend_bos=False)).to(inputs.device) for text in texts]

    def work(generator: Generator, watch: Watch) -> Answer:
        std = question.noise / NOISE_STDS * subject_noise(model, subjects)
        drawn = generator.get_state()
        wanted = _variants(question)
        pictures = []
        for i, (name, state, severed) in enumerate(wanted):
            generator.set_state(drawn)  # the same noise in every picture
            watch(Progress("tracing", i, len(wanted), "picture"))
            found = trace(
                model,
                inputs,
                where,
                generator,
                answer=answer,
                state=state,
                severed=severed,
                window=None if state == "resid_post" else question.window,
                noise_std=std,
                n_samples=question.samples,
                watch=silent,
            )
            pictures.append(Picture(name, found))
        watch(Progress("tracing", len(wanted), len(wanted), "picture"))
        names = [f"{i} {shown_token(token)}{'*' if i in where else ''}" for i, token in enumerate(tokens)]
        said = to_str_tokens(tokenizer, [pictures[0].traced.answer])[0]
        results = {
            "question": "trace",
            "summary": _summary(question, pictures[0].traced, said, names),
            "model": about(model, question.target.model),
            "trace": _ends(pictures[0].traced, said),
            "restored": strongest(pictures, names),
            "tokens": tokens,
            "subject_positions": where,
        }
        return Answer(results, _figures(pictures, names, said), _table(pictures))

    return work


def _variants(question: Trace) -> list[tuple[str, State, tuple[Severed, ...]]]:
    plain: list[tuple[str, State, tuple[Severed, ...]]] = [(name, state, ()) for state, name in STATES.items()]
    held: list[tuple[str, State, tuple[Severed, ...]]] = [
        (f"one state, {name}", "resid_post", (kind,)) for kind, name in SEVERED.items()
    ]
    return [*plain, *(held if question.severed else [])]


def positions_of(subject: str, prompt: str, tokens: Sequence[str]) -> list[int]:
    """The positions of the tokens in which the subject stands, where it stands first in the prompt."""
    begin = prompt.index(subject)
    end, at, found = begin + len(subject), 0, []
    for i, token in enumerate(tokens):
        first = prompt.find(token.strip(), at) if token.strip() else -1
        if first < 0:  # a special token, or half a letter
            continue
        last = first + len(token.strip())
        if first < end and last > begin:
            found.append(i)
        at = last
    if not found:
        raise BadPrompt(
            f"The subject {subject!r} was not found among the tokens {' | '.join(tokens)}. Copy it from the prompt."
        )
    return list(range(found[0], found[-1] + 1))


def _summary(question: Trace, traced: Traced, answer: str, names: Sequence[str]) -> list[str]:
    gap = traced.high - traced.low
    first = (
        f"The probability of {answer!r} is {traced.high:.3g}; with {question.subject!r} blurred it is "
        f"{traced.low:.3g} ({question.samples} draws of noise of {traced.noise_std:.3g}, "
        f"{question.noise:g} standard deviations of the embeddings)."
    )
    told = [first]
    if (n := question.prompt.count(question.subject.strip())) > 1:
        told.append(f"{question.subject.strip()!r} stands in the prompt {n} times; the first was blurred.")
    if gap < HARDLY * traced.high:
        does = "raises" if gap < 0 else "hardly lowers"
        return [*told, f"The blur {does} it, so there is little to bring back: take more noise, or another fact."]
    return [*told, *most_restored(traced, names)]


def most_restored(traced: Traced, names: Sequence[str]) -> list[str]:
    """The most that a state before the last position brings back, and the most of the subject's own tokens."""
    early = traced.indirect_effect()[:, :-1]
    if not early.numel():
        return [LEFT_OUT]
    own = [pos for pos in traced.subject if pos < early.shape[1]]
    layer, pos = divmod(int(early.argmax()), early.shape[1])
    most = f"Before the last position, restoring one state brings back at most {_at(early, layer, pos, names)}"
    if pos in own:
        return [f"{most}, one of the subject's own tokens. {LEFT_OUT}"]
    if not own:
        return [f"{most}. {LEFT_OUT}"]
    at, within = divmod(int(early[:, own].argmax()), len(own))
    return [f"{most}; of the subject's own tokens at most {_at(early, at, own[within], names)}. {LEFT_OUT}"]


LEFT_OUT = (
    "States of the residual stream at the last position are left out of this (the picture has them): the one after the "
    "last layer is the clean answer itself."
)


def _at(effect: Tensor, layer: int, pos: int, names: Sequence[str]) -> str:
    return f"{float(effect[layer, pos]):.3g}, after layer {layer} at {names[pos]!r}"


def _ends(traced: Traced, answer: str) -> dict[str, Any]:
    ends = {"answer": answer, "clean": traced.high, "blurred": traced.low, "noise_std": traced.noise_std}
    return {**ends, "left_out": LEFT_OUT}


def strongest(pictures: Sequence[Picture], names: Sequence[str]) -> list[dict[str, Any]]:
    """The states that bring back most, with the spread over the draws of noise; see `LEFT_OUT`."""
    rows = []
    for name, traced in pictures:
        effect = traced.indirect_effect()
        effect = effect[:, :-1] if traced.state == "resid_post" else effect
        for flat in effect.flatten().argsort(descending=True)[:TOP].tolist():
            layer, pos = divmod(flat, effect.shape[1])
            brought = float(effect[layer, pos])
            sd = spread(traced.samples[layer, pos])
            rows.append({"state": name, "layer": layer, "token": names[pos], "brings_back": brought, "sd": sd})
    return sorted(rows, key=lambda row: -row["brings_back"])[:TOP]


def _figures(pictures: Sequence[Picture], names: Sequence[str], answer: str) -> list[Figure]:
    plain = [each for each in pictures if not each.traced.severed]
    severed = [each for each in pictures if each.traced.severed]
    window = max(each.traced.window for each in plain)
    told = f"MLP and attention outputs are restored in windows of {window} layers." if window > 1 else ""
    if window > 1 and window // 2 >= len(plain[0].traced.values):
        told += (
            " A window spans all layers of this model, so that they all show the same: a smaller --window tells more."
        )
    figures = [
        trace_map("trace", f"Probability of {answer.strip()!r} when a state is restored", plain, names, told),
        *(
            [trace_map("severed", "With one kind of part held at its blurred values", severed, names, "")]
            if severed
            else []
        ),
    ]
    last = max(plain[0].traced.subject)
    curves = [plain[0], *severed]
    effects = torch.stack([each.traced.indirect_effect()[:, last] for each in curves]).cpu().numpy()
    along = Figure(
        name="last-subject-token",
        kind="lines",
        group="In pictures",
        title="What restoring the last token of the subject brings back",
        source="Meng et al. (2022), figure 3",
        caption=WORKS_THROUGH if severed else "The probability that restoring one state brings back, layer by layer.",
        data={
            "x": np.arange(effects.shape[1]),
            "y": effects,
            "names": [each.name for each in curves],
            "x_label": "layer",
            "y_label": "probability brought back",
        },
    )
    return [*figures, along]


WORKS_THROUGH = (
    "Where the curve with one kind of part held lies below that of one state, the state works through parts of that "
    "kind in the layers behind it."
)


def trace_map(name: str, title: str, pictures: Sequence[Picture], names: Sequence[str], told: str) -> Figure:
    """Tokens downward, layers across, one scale for all panels."""
    z = np.stack([each.traced.values.T.flip(0).cpu().numpy() for each in pictures])
    return Figure(
        name=name,
        kind="heatmap",
        group="In pictures",
        title=title,
        source="Meng et al. (2022), figure 1",
        caption="Tokens with a star were blurred. The higher the probability, the more of the answer comes back from "
        f"here. {told}".strip(),
        data={
            "z": z,
            "panels": [each.name for each in pictures],
            "x_label": "layer",
            "y_label": "",
            "x_names": [str(i) for i in range(z.shape[2])],
            "y_names": list(reversed(names)),
            "colour": "sequential",
            "value_label": "probability",
        },
    )


def _table(pictures: Sequence[Picture]) -> dict[str, list[Any]]:
    """A row for every restored state of every picture."""
    table: dict[str, list[Any]] = {"state": [], "layer": [], "pos": [], "probability": [], "sd": []}
    for name, traced in pictures:
        for layer, row in enumerate(traced.samples):
            for pos, draws in enumerate(row):
                sd = spread(draws)
                for key, value in zip(table, (name, layer, pos, float(draws.mean()), sd)):
                    table[key].append(value)
    return table
