"""Lens: the answer read off the residual stream, in one prompt, or in two side by side.

The direct effect of each component on the answer's logit (or on the difference of two), from which token a head carried
it, and the prediction of every layer if the stream were unembedded there. See `methods.lens`.
"""

from typing import Any

import torch
from torch import Generator

from micrographia.core.events import Watch
from micrographia.core.lab import Findings
from micrographia.core.metrics import options
from micrographia.core.prompts import LanguageModel
from micrographia.core.tokens import ids_of, to_str_tokens
from micrographia.labs.workbench.config import Lens
from micrographia.labs.workbench.findings import Compute, findings
from micrographia.labs.workbench.prompts import read_prompt
from micrographia.methods.lens.reading import StreamReading, point, read_stream

MOST_CELLS = 60
"""Pairs of a head and a source token in the results."""
APART = 1e-2
"""Sum of parts and logit further apart than this share of the larger: something stands between them."""
EXPLAINED = (
    "A part is what goes straight to the logits, through the final norm with its scale held at this run's value; "
    "effects by way of later layers are not in it.",
    "The logit lens reads a stream that later layers would still change: an answer that is there early is written by "
    "then, an answer that is not there shows little.",
)


def prepare_lens(question: Lens, model: LanguageModel) -> Compute:
    """Read the prompts and the answers; what remains is to read the stream."""
    texts = [text for text in (question.prompt, question.corrupt) if text is not None]
    named = (question.answer, question.wrong)
    prompts = read_prompt(model, texts, question.around, named, first_token=question.first_token)
    pairs, positions = prompts.pairs, prompts.positions
    ids = torch.cat([ids_of(side) for side in (pairs.clean, pairs.corrupt)[: len(texts)]])
    answers = [options(each)[0].tolist() for each in (pairs.answer, pairs.wrong) if each is not None]

    def work(generator: Generator, watch: Watch) -> Findings:
        read = read_stream(model, ids, answers, positions, n_heads=question.heads, best=question.best, watch=watch)
        reading = dict(zip(("answer", "wrong"), [*read.answers, None]))
        tokens = {f"{side}_tokens": to_str_tokens(model.tokenizer, row) for side, row in zip(read.sides, ids)}
        results = {
            "reading": reading,
            "ends": read.model_answers(),
            "writers": read.writers(),
            "sources": read.head_sources()[:MOST_CELLS],
            "lens": read.predictions(),
            "explanation": list(EXPLAINED),
            "prompts": [{"clean": question.prompt, "corrupt": question.corrupt, **reading, **tokens}],
        }
        summary, shown = _summary(question, read), read.figures()
        about: dict[str, Any] = {"metrics": read.table(), "prompts": prompts}
        return findings(question, model, results, summary=summary, figures=shown, **about)

    return work


def _summary(question: Lens, read: StreamReading) -> list[str]:
    """The model's figure, its largest parts, where the first head has its part from, and since which layer."""
    two = len(read.sides) > 1
    chosen = "" if question.answer is not None else ", the model's own first choice,"
    values = [f"{x:.4g}{f' on the {side} prompt' * two}" for side, x in zip(read.sides, read.logits.tolist())]
    sentences = [f"At the last position the {read.label}{chosen} is {' and '.join(values)}."]
    if len(read.answers) == 1:
        sentences.append(
            "One logit alone contains what the logits of all tokens share; with a wrong answer (--wrong) it drops out."
        )
    rows = sorted(read.writers(), key=lambda row: -abs(row["clean"]))
    most = ", ".join(f"{row['part']} ({row['clean']:+.3g})" for row in rows[:3])
    here = " on the clean prompt" * two
    sentences.append(f"Direct logit attribution{here}: {most} (all {len(rows)} components sum to {_sum(read)}).")
    if two:
        row = max(rows, key=lambda row: abs(row["difference"]))
        whole = float(read.direct.total[0] - read.direct.total[1])
        sentences.append(
            f"{row['part']} accounts for {row['difference']:+#.3g} of the {whole:+#.3g} between the prompts, the most."
        )
    if cells := read.head_sources():
        cell = max(cells, key=lambda cell: abs(cell["clean"]))
        sentences.append(f"{cell['head']} carries {cell['clean']:+.3g} from {cell['token']!r}{here}, the largest part.")
    return [*sentences, *(_difference(read) if two else _predicted(read))]


def _predicted(read: StreamReading) -> list[str]:
    """Since which layer the answer is the first choice of the logit lens."""
    since, answer = read.since(), repr(read.answers[0])
    if since is None:
        return [f"The model's own first choice there is {read.best[0][-1][0]!r}, not {answer}."]
    return [f"Logit lens: {answer} is the top token {read.onward(since)}."]


def _difference(read: StreamReading) -> list[str]:
    """The same of two prompts: what is the top token on both says nothing about what differs between them."""
    since, apart, answer = read.since(), read.told_apart(), repr(read.answers[0])
    if since is None:
        return _predicted(read)
    if apart is None:
        return [
            f"Logit lens: {answer} is the top token {read.onward(since)}, but at the end on the corrupt prompt too: a "
            "bias towards it, and no prediction of what differs between the prompts."
        ]
    found = f"Logit lens: {read.onward(apart)} {answer} is the top token on the clean prompt and not on the corrupt one"
    same = f"; from {point(since)} on it is, but before {point(apart)} on both prompts: a bias, not a prediction"
    return [f"{found}{same if since != apart else ''}."]


def _sum(read: StreamReading) -> str:
    """The parts' sum, beside the model's own figure where the two differ."""
    parts, own = float(read.direct.total[0]), float(read.logits[0])
    if abs(parts - own) <= APART * max(abs(parts), abs(own)):
        return f"{parts:.4g}"
    return f"{parts:.4g} (the model's own figure is {own:.4g}: a soft-cap stands between them, or rounding)"
