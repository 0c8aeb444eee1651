"""Lens: the answer read off the residual stream, in one prompt, or in two side by side.

What each part writes straight to the answer's logit (or to the difference of two), from which token a head carried
it, and what every layer would say if the stream were unembedded there.
Sources: Elhage et al., "A mathematical framework for transformer circuits" (2021); nostalgebraist, "interpreting GPT:
the logit lens" (2020).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from micrographia.core.errors import BadPrompt
from micrographia.core.events import Watch
from micrographia.core.prompts import LanguageModel, Pairs, check_aligned
from micrographia.core.tokens import ids_of, single_token, to_str_tokens
from micrographia.labs.workbench.answer import Answer, Work, about
from micrographia.labs.workbench.config import Lens
from micrographia.labs.workbench.lens_figures import figures_of_lens
from micrographia.labs.workbench.prompts import check_length, position_names
from micrographia.labs.workbench.reading import Read, first_choice, read_stream, said

CELLS = 60  # of heads and source tokens, in the results
APART = 1e-2  # parts and logits further apart than this share of the larger: something stands between them


def ask_lens(question: Lens, model: LanguageModel) -> Work:
    """Read the prompts and the answers; what remains is to read the stream."""
    texts = [text for text in (question.prompt, question.corrupt) if text is not None]
    rows = [ids_of(model.to_tokens(text)).to(model.weights.W_E.device) for text in texts]
    for row in rows:
        check_length(row, model)
    right, wrong = (
        None if text is None else single_token(model.tokenizer, text, first=question.first_token)
        for text in (question.answer, question.wrong)
    )
    right = first_choice(model, rows[0]) if right is None else right
    if right == wrong:
        raise BadPrompt(f"Asked to read {said(model, right)!r} against itself. Name two different tokens.")
    pairs = Pairs(rows[0], rows[-1], torch.tensor([right]))
    check_aligned(pairs, model.tokenizer)
    ids, positions = torch.cat(rows), position_names(pairs, model)
    answers = [right] if wrong is None else [right, wrong]

    def work(generator: Generator, watch: Watch) -> Answer:
        read = read_stream(model, ids, answers, positions, n_heads=question.heads, best=question.best, watch=watch)
        results = {
            "question": "lens",
            "summary": _summary(question, read),
            "model": about(model, question.target.model),
            "reading": dict(zip(("answer", "wrong"), [*read.answers, None])),
            "ends": _ends(read),
            "writers": _writers(read),
            "sources": _cells(read)[:CELLS],
            "lens": _layers(read, model),
            "explanation": list(EXPLAINED),
            "prompts": [_told(question, read, ids, model)],
        }
        return Answer(results, figures_of_lens(read), _table(read))

    return work


def _sided(read: Read, values: Sequence[float]) -> dict[str, float | None]:
    """A figure for each side; their difference where there are two."""
    row: dict[str, float | None] = dict(zip(read.sides, values))
    return row if len(values) < 2 else {**row, "difference": values[0] - values[1]}


def _ends(read: Read) -> list[dict[str, Any]]:
    """What the model itself gives, and what the parts sum to."""
    found = zip(read.sides, read.logits.tolist(), read.direct.total.double().tolist(), read.probs.tolist())
    return [{"prompt": side, "logit": logit, "parts": parts, "prob": prob} for side, logit, parts, prob in found]


def _writers(read: Read) -> list[dict[str, Any]]:
    """A row for everything that writes, the largest first."""
    values = read.direct.values.double().T.tolist()
    rows = [{"part": label, **_sided(read, row)} for label, row in zip(read.direct.labels, values)]
    return sorted(rows, key=lambda row: -max(abs(row[side]) for side in read.sides))


def _cells(read: Read) -> list[dict[str, Any]]:
    """A row for each head and token that it carried from, the largest first."""
    values = read.sources.double().permute(1, 2, 0).tolist()
    rows = [
        {"head": str(node), "token": read.positions[pos], **_sided(read, value)}
        for node, row in zip(read.nodes, values)
        for pos, value in enumerate(row)
    ]
    return sorted(rows, key=lambda row: -max(abs(row[side]) for side in read.sides))


def _layers(read: Read, model: LanguageModel) -> list[dict[str, Any]]:
    """A row for each point of the stream: what it would say at the last position."""
    found = read.layers
    own = found.logit[:, :, -1, 0] - (found.logit[:, :, -1, 1] if len(read.answers) > 1 else 0.0)
    rows: list[dict[str, Any]] = []
    for i, site in enumerate(found.sites):
        row: dict[str, Any] = {"site": str(site)}
        for j, side in enumerate(read.sides):
            row[side] = {
                "logit": float(own[i, j]),
                "prob": float(found.prob[i, j, -1, 0]),
                "rank": int(found.rank[i, j, -1, 0]),
                "says": to_str_tokens(model.tokenizer, found.top[i, j, -1].tolist()),
                "says_prob": found.top_prob[i, j, -1].double().tolist(),
            }
        rows.append(row)
    return rows


def _told(question: Lens, read: Read, ids: Tensor, model: LanguageModel) -> dict[str, Any]:
    """The prompts as they stand in the results of every question."""
    wrong = read.answers[1] if len(read.answers) > 1 else None
    tokens = {f"{side}_tokens": to_str_tokens(model.tokenizer, row) for side, row in zip(read.sides, ids)}
    texts = {"clean": question.prompt, "corrupt": question.corrupt}
    return {**texts, "answer": read.answers[0], "wrong": wrong, **tokens}


def _table(read: Read) -> dict[str, list[Any]]:
    """A row a writer, a column a side."""
    values = read.direct.values.double().tolist()
    return {"part": list(read.direct.labels), **dict(zip(read.sides, values))}


EXPLAINED = (
    "A part is what goes straight to the logits, through the final norm with its scale held at this run's value; what "
    "a head or MLP does by way of later layers is not in it.",
    "The logit lens reads a stream on its way, which later layers would still change: that the answer is there early "
    "says that it is written by then, that it is not says little.",
)


def _summary(question: Lens, read: Read) -> list[str]:
    """What the model gives, which parts write it, where the first of them has it from, and since which layer."""
    answer, *wrong = (repr(text) for text in read.answers)
    what = f"the logit of {answer} less that of {wrong[0]}" if wrong else f"the logit of {answer}"
    chosen = "" if question.answer is not None else ", the model's own first choice,"
    figures = " and ".join(f"{x:.4g} on the {side} prompt" for side, x in zip(read.sides, read.logits.tolist()))
    figures = figures if len(read.sides) > 1 else f"{float(read.logits[0]):.4g}"
    said = [f"At the last position {what}{chosen} is {figures}."]
    if not wrong:
        said.append(
            "One logit alone holds what the logits of all tokens share; with a wrong answer (--wrong) it drops out."
        )
    rows = sorted(_writers(read), key=lambda row: -abs(row["clean"]))
    most = ", ".join(f"{row['part']} ({row['clean']:+.3g})" for row in rows[:3])
    here = " on the clean prompt" if len(read.sides) > 1 else ""
    said.append(f"The largest parts written straight to it{here} are {most}; all {len(rows)} sum to {_sum(read)}.")
    if len(read.sides) > 1:
        row = max(rows, key=lambda row: abs(row["difference"]))
        whole = float(read.direct.total[0] - read.direct.total[1])
        said.append(f"Between the prompts most differs at {row['part']}: {row['difference']:+.3g} of {whole:+.3g}.")
    if cells := _cells(read):
        first = max(cells, key=lambda cell: abs(cell["clean"]))
        said.append(
            f"{first['head']} carries {first['clean']:+.3g} of its part from {first['token']!r}{here}, the most of all."
        )
    return [*said, _since(read)]


def _sum(read: Read) -> str:
    """The parts' sum, beside the model's own figure where the two part."""
    parts, own = float(read.direct.total[0]), float(read.logits[0])
    if abs(parts - own) <= APART * max(abs(parts), abs(own)):
        return f"{parts:.4g}"
    return f"{parts:.4g} (the model's own figure is {own:.4g}: a soft-cap stands between them, or rounding)"


def _since(read: Read) -> str:
    """From which point of the stream on the answer is the first choice, and stays it."""
    first = (read.layers.rank[:, 0, -1, 0] == 0).tolist()
    answer = repr(read.answers[0])
    if not first[-1]:
        return f"The model itself would say {read.says[0][-1][-1]!r} there, not {answer}."
    begin = len(first) - next((i for i, so in enumerate(reversed(first)) if not so), len(first))
    return f"From {read.layers.sites[begin]} on, {answer} is what the stream would say at the last position."
