"""Trace: where a fact is restored when a corrupted prompt gets single clean states, as in ROME.

States of the residual stream one at a time, MLP and attention outputs in windows of layers; then the same with MLPs, or
attention, severed (held at their corrupted values), which shows through which of the two the state works.
Source: Meng et al., "Locating and editing factual associations in GPT" (2022), section 2 and figures 1 and 3.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Generator

from micrographia.core import figures, movement
from micrographia.core.effects import spread
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.figures import Figure
from micrographia.core.lab import Findings
from micrographia.core.metrics import options
from micrographia.core.movement import layer_range
from micrographia.core.prompt_files import read_texts
from micrographia.core.prompts import LanguageModel
from micrographia.core.spoken import at_position
from micrographia.core.tokens import ids_of, spans_of, to_str_tokens, to_tokens
from micrographia.labs.workbench import words
from micrographia.labs.workbench.config import Trace
from micrographia.labs.workbench.findings import Compute, findings
from micrographia.labs.workbench.prompts import read_prompt
from micrographia.methods.tracing import (
    NOISE_STDS,
    Severed,
    State,
    Traced,
    covered,
    positions_of,
    subject_noise,
    subject_token,
    trace,
    trace_map,
)

VARIANTS: Mapping[str, tuple[State, tuple[Severed, ...]]] = {
    "one state of the residual stream": ("resid_post", ()),
    "MLP outputs": ("mlp_out", ()),
    "attention outputs": ("attn_out", ()),
    "one state, MLPs severed": ("resid_post", ("mlp_out",)),
    "one state, attention severed": ("resid_post", ("attn_out",)),
}
TOP = 12
HARDLY, LITTLE = 0.05, 0.25
"""Noise that lowers the probability by less than these shares of it hardly lowers it, or little. Our choice."""
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
    covered("mlp_out", question.window or 1, model.shape.n_layers)
    inputs, answer = ids_of(prompts.pairs.clean), options(prompts.pairs.answer)[0].tolist()
    tokens, around = to_str_tokens(tokenizer, inputs[0]), prompts.around
    own = inputs[0][len(around.before) : len(tokens) - len(around.after)]  # shots may hold the subject too
    spans = spans_of(tokenizer, question.prompt, own)
    where = [len(around.before) + i for i in positions_of(question.subject.strip(), question.prompt, spans)]
    subjects = [inputs[:, where]]
    if question.reference is not None:
        texts = read_texts(question.reference)
        subjects = [ids_of(to_tokens(tokenizer, text, prepend_bos=False)).to(inputs.device) for text in texts]
    variants = {name: each for name, each in VARIANTS.items() if question.severed or not each[1]}
    names = [f"{name}{'*' if i in where else ''}" for i, name in enumerate(prompts.positions)]

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
        found = {"answer": followed, "clean": plain.high, "blurred": plain.low, "noise_std": plain.noise_std}
        rows = restored(traces, names)
        results = {"trace": {**found, "left_out": LEFT_OUT}, "restored": rows, "tokens": tokens}
        summary = _summary(question, plain, followed, names)
        summary += [words.SINK_BLURRED] if prompts.sink and 0 in where else []
        title = "States that restore the answer"
        about: dict[str, Any] = {"columns": COLUMNS, "caption": f"{RESTORED} {LEFT_OUT}", "group": title}
        shown = [figures.table("restored", title, rows, headline=True, **about), *_pictures(traces, names, followed)]
        results["subject_positions"] = where
        return findings(
            question, model, results, summary=summary, figures=shown, metrics=_table(traces), prompts=prompts
        )

    return work


def _summary(question: Trace, traced: Traced, answer: str, names: Sequence[str]) -> list[str]:
    subject, gap = question.subject.strip(), traced.high - traced.low
    sentences = [
        f"The probability of {answer!r} is {traced.high:.3g}; with {question.subject!r} corrupted it is "
        f"{traced.low:.3g} ({question.samples} draws of noise of {traced.noise_std:.3g}, "
        f"{question.noise:g} standard deviations of the embeddings)."
    ]
    if (n := question.prompt.count(subject)) > 1:
        sentences.append(f"{subject!r} occurs {n} times in the prompt; its first occurrence was corrupted.")
    if gap < HARDLY * traced.high:
        effect = "raises" if gap < 0 else "hardly lowers"
        return [
            *sentences,
            f"Warning: the noise {effect} it, so there is little to restore: take more noise, or another fact.",
        ]
    if gap < LITTLE * traced.high:
        sentences.append(
            f"Warning: the noise takes only {gap / traced.high:.0%} of it, so what is restored is a share of little: "
            "take more noise, or another fact."
        )
    called = [at_position(names, i) for i in range(len(names))]
    share = (traced.indirect_effect() / gap).cpu().numpy()
    moves = movement.told(share, range(len(share)), called)
    return [*sentences, *([f"In single states of the residual stream, {moves}."] if moves else []),
            _most_restored(traced, names)]  # fmt: skip


def most_restored(traced: Traced) -> list[tuple[int, int] | None]:
    """(layer, position) of the largest indirect effect before the last position, and of the subject's largest."""
    early = traced.indirect_effect()[:, :-1]
    n_pos = early.shape[1]
    sides = [*range(n_pos)], [pos for pos in traced.subject if pos < n_pos]
    best = [divmod(int(early[:, own].argmax()), len(own)) if own else None for own in sides]
    return [None if at is None else (at[0], own[at[1]]) for at, own in zip(best, sides)]


def _most_restored(traced: Traced, names: Sequence[str]) -> str:
    effect = traced.indirect_effect()
    first, own = (
        None if at is None else f"{float(effect[at]):.3g}, after layer {at[0]} at {names[at[1]]!r}"
        for at in most_restored(traced)
    )
    if first is None:
        return LEFT_OUT
    most = f"Before the last position, the largest indirect effect of one state is {first}"
    if own is None or own == first:
        return f"{most}{', a token of the subject' if own else ''}. {LEFT_OUT}"
    return f"{most}; of the subject's own tokens {own}. {LEFT_OUT}"


def restored(traces: Traces, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row a token and kind of state: the layers where it restores at least half of its most; see `LEFT_OUT`.

    With the most, the layer where that is, and the spread over the draws of noise there.
    """
    rows = []
    for name, traced in traces.items():
        effect = traced.indirect_effect()
        for stay in traced.ranges():
            at = stay.first + int(effect[stay.first : stay.last + 1, stay.pos].argmax()), stay.pos
            row = {"state": name, "token": names[stay.pos], "layers": stay.layers, "layer": at[0]}
            rows.append({**row, "brings_back": float(effect[at]), "sd": spread(traced.samples[at])})
    return sorted((row for row in rows if row["brings_back"] > 0), key=lambda row: -row["brings_back"])[:TOP]


COLUMNS = {"state": "state", "token": "token", "layers": "layers", "brings_back": "restored", "sd": "SD"}
RESTORED = (
    "The layers in which a token's state restores at least half of what it does at most, and that: the probability "
    "of the answer above that of the corrupted run, mean and standard deviation over the draws of noise."
)


def _pictures(traces: Traces, names: Sequence[str], answer: str) -> list[Figure]:
    severed = {name: each for name, each in traces.items() if each.severed}
    plain = {name: each for name, each in traces.items() if not each.severed}
    widest = max(plain.values(), key=lambda each: each.window)
    window, left = widest.window, widest.values.isnan().all(1).nonzero()[:, 0].tolist()
    caption = f"MLP and attention outputs are restored in windows of {window} layers." if window > 1 else ""
    if left:
        caption += f" Where a window covers every layer, {layer_range(left[0], left[-1])}, it is left out."
    title = f"Probability of {answer.strip()!r} when a state is restored"
    found = [trace_map("trace", title, plain, names, caption)]
    if severed:
        found.append(
            trace_map("severed", "With one kind of sublayer severed: held at its corrupted values", severed, names)
        )
    return [*found, subject_token({**dict(list(plain.items())[:1]), **severed}, names)]


def _table(traces: Traces) -> dict[str, list[Any]]:
    """A row for every restored state of every picture."""
    rows = [
        (name, layer, pos, float(draws.mean()), spread(draws))
        for name, traced in traces.items()
        for layer, row in enumerate(traced.samples)
        for pos, draws in enumerate(row)
    ]
    return dict(zip(("state", "layer", "pos", "probability", "sd"), map(list, zip(*rows))))
