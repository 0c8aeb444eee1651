"""Trace: where a fact is restored when a blurred prompt gets single clean states, as in ROME.

States of the residual stream one at a time, MLP and attention outputs in windows of layers; then the same with MLPs, or
attention, held at their blurred values, which shows through which of the two the state works.
Source: Meng et al., "Locating and editing factual associations in GPT" (2022), section 2 and figures 1 and 3.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Generator

from micrographia.core import figures
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.lab import Findings
from micrographia.core.metrics import options
from micrographia.core.prompt_files import read_texts
from micrographia.core.prompts import LanguageModel, shown_token
from micrographia.core.tokens import ids_of, to_str_tokens, to_tokens
from micrographia.labs.workbench.config import Trace
from micrographia.labs.workbench.findings import Compute, findings, spread
from micrographia.labs.workbench.prompts import read_prompt
from micrographia.methods.tracing import (
    NOISE_STDS,
    Severed,
    State,
    Traced,
    last_subject_token,
    positions_of,
    subject_noise,
    trace,
    trace_map,
)

Variant = tuple[State, tuple[Severed, ...]]
STATES: Mapping[str, Variant] = {
    "one state of the residual stream": ("resid_post", ()),
    "MLP outputs": ("mlp_out", ()),
    "attention outputs": ("attn_out", ()),
}
SEVERED: Mapping[str, Variant] = {
    "one state, MLPs held": ("resid_post", ("mlp_out",)),
    "one state, attention held": ("resid_post", ("attn_out",)),
}
TOP = 12
HARDLY = 0.05
"""A blur that lowers the probability by less than this share of it hardly lowers it. Our choice."""
LEFT_OUT = (
    "States of the residual stream at the last position are left out of this (the picture has them): the one after the "
    "last layer is the clean answer itself."
)
Traces = Mapping[str, Traced]


def prepare_trace(question: Trace, model: LanguageModel) -> Compute:
    """Find the subject in the prompt and read the answer; what remains is to trace."""
    tokenizer = model.tokenizer
    named = (question.answer, None)
    prompts = read_prompt(model, [question.prompt], question.around, named, first_token=question.first_token)
    inputs, answer = ids_of(prompts.pairs.clean), options(prompts.pairs.answer)[0].tolist()
    tokens, n_before = to_str_tokens(tokenizer, inputs[0]), len(prompts.around.before)  # shots may hold the subject too
    where = [n_before + i for i in positions_of(question.subject.strip(), question.prompt, tokens[n_before:])]
    subjects = [inputs[:, where]]
    if question.reference is not None:
        texts = read_texts(question.reference)
        subjects = [ids_of(to_tokens(tokenizer, text, prepend_bos=False)).to(inputs.device) for text in texts]
    variants = {**STATES, **(SEVERED if question.severed else {})}
    names = [f"{i} {shown_token(token)}{'*' if i in where else ''}" for i, token in enumerate(tokens)]

    def work(generator: Generator, watch: Watch) -> Findings:
        std = question.noise / NOISE_STDS * subject_noise(model, subjects)
        drawn, traces = generator.get_state(), dict[str, Traced]()
        choices: dict[str, Any] = {"answer": answer, "noise_std": std, "n_samples": question.samples, "watch": silent}
        for i, (name, (state, severed)) in enumerate(variants.items()):
            generator.set_state(drawn)  # the same noise in every picture
            watch(Progress("tracing", i, len(variants), "picture"))
            window = None if state == "resid_post" else question.window
            choices |= {"state": state, "severed": severed, "window": window}
            traces[name] = trace(model, inputs, where, generator, **choices)
        watch(Progress("tracing", len(variants), len(variants), "picture"))
        plain = next(iter(traces.values()))
        followed = "|".join(to_str_tokens(tokenizer, answer))
        probabilities = {"answer": followed, "clean": plain.high, "blurred": plain.low, "noise_std": plain.noise_std}
        results = {
            "trace": {**probabilities, "left_out": LEFT_OUT},
            "restored": restored(traces, names),
            "tokens": tokens,
            "subject_positions": where,
        }
        return findings(
            question,
            model,
            results,
            summary=_summary(question, plain, followed, names),
            figures=[_restored_table(results["restored"]), *_pictures(traces, names, followed)],
            metrics=_table(traces),
            prompts=prompts,
        )

    return work


def _summary(question: Trace, traced: Traced, answer: str, names: Sequence[str]) -> list[str]:
    subject, gap = question.subject.strip(), traced.high - traced.low
    sentences = [
        f"The probability of {answer!r} is {traced.high:.3g}; with {question.subject!r} blurred it is "
        f"{traced.low:.3g} ({question.samples} draws of noise of {traced.noise_std:.3g}, "
        f"{question.noise:g} standard deviations of the embeddings)."
    ]
    if (n := question.prompt.count(subject)) > 1:
        sentences.append(f"{subject!r} occurs {n} times in the prompt; its first occurrence was blurred.")
    if gap < HARDLY * traced.high:
        effect = "raises" if gap < 0 else "hardly lowers"
        return [*sentences, f"The blur {effect} it, so there is little to restore: take more noise, or another fact."]
    return [*sentences, _most_restored(traced, names)]


def most_restored(traced: Traced) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """(layer, position) of the largest indirect effect before the last position, and of the subject's largest."""
    early = traced.indirect_effect()[:, :-1]
    own = [pos for pos in traced.subject if pos < early.shape[1]]
    if not early.numel():
        return None, None
    layer, pos = divmod(int(early.argmax()), early.shape[1])
    if not own:
        return (layer, pos), None
    at, within = divmod(int(early[:, own].argmax()), len(own))
    return (layer, pos), (at, own[within])


def _most_restored(traced: Traced, names: Sequence[str]) -> str:
    effect = traced.indirect_effect()
    first, own = (
        None if at is None else f"{float(effect[at]):.3g}, after layer {at[0]} at {names[at[1]]!r}"
        for at in most_restored(traced)
    )
    if first is None:
        return LEFT_OUT
    most = f"Before the last position, restoring one state brings back at most {first}"
    if own is None or own == first:
        return f"{most}{', a token of the subject' if own else ''}. {LEFT_OUT}"
    return f"{most}; of the subject's own tokens at most {own}. {LEFT_OUT}"


def restored(traces: Traces, names: Sequence[str]) -> list[dict[str, Any]]:
    """The states that restore most, with the spread over the draws of noise; see `LEFT_OUT`."""
    rows = []
    for name, traced in traces.items():
        effect = traced.indirect_effect()
        effect = effect[:, :-1] if traced.state == "resid_post" else effect
        for flat in effect.flatten().argsort(descending=True)[:TOP].tolist():
            layer, pos = divmod(flat, effect.shape[1])
            row = {"state": name, "layer": layer, "token": names[pos], "brings_back": float(effect[layer, pos])}
            rows.append({**row, "sd": spread(traced.samples[layer, pos])})
    return sorted(rows, key=lambda row: -row["brings_back"])[:TOP]


def _restored_table(rows: Sequence[Mapping[str, Any]]) -> Figure:
    title = "States that restore the answer"
    columns = {"state": "state", "layer": "layer", "token": "token", "brings_back": "restored", "sd": "SD"}
    caption = (
        "Probability of the answer above that of the blurred run, mean and standard deviation over the draws of noise. "
    )
    return figures.table("restored", title, rows, columns=columns, caption=caption + LEFT_OUT, group=title)


def _pictures(traces: Traces, names: Sequence[str], answer: str) -> list[Figure]:
    plain, severed = (
        {name: each for name, each in traces.items() if name in variants} for variants in (STATES, SEVERED)
    )
    window, n_layers = max(each.window for each in plain.values()), len(next(iter(plain.values())).values)
    caption = f"MLP and attention outputs are restored in windows of {window} layers." if window > 1 else ""
    if window > 1 and window // 2 >= n_layers:
        caption += (
            " A window spans all layers of this model, so that all layers look the same: take a smaller --window."
        )
    title = f"Probability of {answer.strip()!r} when a state is restored"
    found = [trace_map("trace", title, plain, names, caption)]
    if severed:
        found.append(trace_map("severed", "With one kind of sublayer held at its blurred values", severed, names))
    return [*found, last_subject_token({**dict(list(plain.items())[:1]), **severed})]


def _table(traces: Traces) -> dict[str, list[Any]]:
    """A row for every restored state of every picture."""
    rows = [
        (name, layer, pos, float(draws.mean()), spread(draws))
        for name, traced in traces.items()
        for layer, row in enumerate(traced.samples)
        for pos, draws in enumerate(row)
    ]
    return dict(zip(("state", "layer", "pos", "probability", "sd"), map(list, zip(*rows))))
