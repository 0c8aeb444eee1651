"""Lens: the answer read off the residual stream, in one prompt, or in two side by side.

The direct effect of each component on the answer's logit (or on the difference of two), from which token a head carried
it, and the prediction of every layer if the stream were unembedded there. See `methods.lens`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator

from micrographia.core import figures
from micrographia.core.errors import BadPrompt
from micrographia.core.events import Watch
from micrographia.core.figures import Figure
from micrographia.core.lab import Findings
from micrographia.core.prompts import LanguageModel, Pairs, check_aligned, position_names
from micrographia.core.tokens import ids_of, single_token, to_str_tokens
from micrographia.labs.workbench.config import Lens
from micrographia.labs.workbench.findings import Compute, findings
from micrographia.labs.workbench.prompts import check_length
from micrographia.methods.lens import StreamReading, read_stream

CELLS = 60
"""Pairs of a head and a source token in the results."""
MOST_WRITERS, MOST_SOURCES, MOST_TOKENS = 14, 10, 3
APART = 1e-2
"""Sum of parts and logit further apart than this share of the larger: something stands between them."""
EXPLAINED = (
    "A part is what goes straight to the logits, through the final norm with its scale held at this run's value; "
    "effects by way of later layers are not in it.",
    "The logit lens reads a stream that later layers would still change: an answer that is there early is written by "
    "then, an answer that is not there shows little.",
)
Row = Mapping[str, Any]


def prepare_lens(question: Lens, model: LanguageModel) -> Compute:
    """Read the prompts and the answers; what remains is to read the stream."""
    texts = [text for text in (question.prompt, question.corrupt) if text is not None]
    rows = [ids_of(model.to_tokens(text)).to(model.weights.W_E.device) for text in texts]
    for row in rows:
        check_length(row, model)
    right, wrong = (
        None if text is None else single_token(model.tokenizer, text, first=question.first_token)
        for text in (question.answer, question.wrong)
    )
    right = int(model.run(rows[0], logits="last").logits[0, -1].argmax()) if right is None else right
    if right == wrong:
        name = to_str_tokens(model.tokenizer, [right])[0]
        raise BadPrompt(f"Asked to read {name!r} against itself. Name two different tokens.")
    pairs = Pairs(rows[0], rows[-1], torch.tensor([right]))
    check_aligned(pairs, model.tokenizer)
    ids, positions = torch.cat(rows), position_names(pairs, model.tokenizer)
    answers = [right] if wrong is None else [right, wrong]

    def work(generator: Generator, watch: Watch) -> Findings:
        read = read_stream(model, ids, answers, positions, n_heads=question.heads, best=question.best, watch=watch)
        answer, against, *_ = [*read.answers, None]
        tokens = {f"{side}_tokens": to_str_tokens(model.tokenizer, row) for side, row in zip(read.sides, ids)}
        results = {
            "reading": {"answer": answer, "wrong": against},
            "ends": _ends(read),
            "writers": _writers(read),
            "sources": _sources(read)[:CELLS],
            "lens": _layers(read, model),
            "explanation": list(EXPLAINED),
            "prompts": [
                {"clean": question.prompt, "corrupt": question.corrupt, "answer": answer, "wrong": against, **tokens}
            ],
        }
        tables = _tables(read, results)
        summary, pictures = _summary(question, read), read.figures()
        return findings(
            question, model, results, summary=summary, tables=tables, pictures=pictures, metrics=read.table()
        )

    return work


def _sided(read: StreamReading, values: Sequence[float]) -> dict[str, float | None]:
    """A figure for each side; their difference where there are two."""
    row: dict[str, float | None] = dict(zip(read.sides, values))
    return row if len(values) < 2 else {**row, "difference": values[0] - values[1]}


def _by_size(rows: list[dict[str, Any]], read: StreamReading) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -max(abs(row[side]) for side in read.sides))


def _ends(read: StreamReading) -> list[dict[str, Any]]:
    """The model's own logit and probability, and the sum of the parts."""
    found = zip(read.sides, read.logits.tolist(), read.direct.total.double().tolist(), read.probs.tolist())
    return [{"prompt": side, "logit": logit, "parts": parts, "prob": prob} for side, logit, parts, prob in found]


def _writers(read: StreamReading) -> list[dict[str, Any]]:
    """A row for everything that writes, the largest first."""
    values = read.direct.values.double().T.tolist()
    return _by_size([{"part": part, **_sided(read, row)} for part, row in zip(read.direct.labels, values)], read)


def _sources(read: StreamReading) -> list[dict[str, Any]]:
    """A row for each head and source token, the largest first."""
    values = read.sources.double().permute(1, 2, 0).tolist()
    rows = [
        {"head": str(node), "token": token, **_sided(read, value)}
        for node, row in zip(read.nodes, values)
        for token, value in zip(read.positions, row)
    ]
    return _by_size(rows, read)


def _layers(read: StreamReading, model: LanguageModel) -> list[dict[str, Any]]:
    """A row for each point of the stream: its prediction at the last position."""
    found, own = read.layers, read.along()
    return [
        {"site": str(site)}
        | {
            side: {
                "logit": float(own[i, j]),
                "prob": float(found.prob[i, j, -1, 0]),
                "rank": int(found.rank[i, j, -1, 0]),
                "says": to_str_tokens(model.tokenizer, found.top[i, j, -1].tolist()),
                "says_prob": found.top_prob[i, j, -1].double().tolist(),
            }
            for j, side in enumerate(read.sides)
        }
        for i, site in enumerate(found.sites)
    ]


def _tables(read: StreamReading, results: Mapping[str, Any]) -> list[Figure]:
    writers, sources = results["writers"], results["sources"]
    sides = {"clean": "logits"} if len(read.sides) == 1 else {side: side for side in (*read.sides, "difference")}
    ends = {"prompt": "prompt", "logit": read.label, "parts": "sum of parts", "prob": "probability"}
    most = f" The {MOST_WRITERS} largest of {len(writers)}." if len(writers) > MOST_WRITERS else ""

    def table(name: str, title: str, rows: Sequence[Row], columns: Mapping[str, str], caption: str) -> Figure:
        return figures.table(name, title, rows, columns=columns, caption=caption, group=title)

    about = "The model's own figures at the last position, and the sum of the parts below, before any soft-cap."
    by_source = "The direct effects of the heads with the largest, by source token, in logits."
    part, head = {"part": "component", **sides}, {"head": "head", "token": "token", **sides}
    found = [
        table("ends", "The model's own answer", results["ends"], ends, about),
        table("writers", DIRECT, writers[:MOST_WRITERS], part, f"Parts of the {read.label}, in logits.{most}"),
        table("head-sources", "Direct effects of heads by source token", sources[:MOST_SOURCES], head, by_source),
    ]
    if most:
        every: dict[str, Any] = {"columns": part, "group": DIRECT, "essential": False}
        found.insert(2, figures.table("all-writers", "All components", writers, **every))
    return [*found, *(_layer_table(read, side, results["lens"]) for side in read.sides)]


DIRECT = "Direct effects on the answer"


def _layer_table(read: StreamReading, side: str, layers: Sequence[Row]) -> Figure:
    which = f" on the {side} prompt" if len(read.sides) > 1 else ""
    rows = [
        [row["site"], each["logit"], each["prob"], each["rank"], " ".join(map(repr, each["says"][:MOST_TOKENS]))]
        for row in layers
        for each in [row[side]]
    ]
    caption = (
        f"The stream unembedded at each point, at the last position{which}: the {read.label}, probability and rank of "
        "the answer (0 is the best), and the best tokens."
    )
    columns, title = ["stream", "logit", "probability", "rank", "best tokens"], f"Logit lens{which}"
    return figures.table(f"lens-{side}", title, rows, columns=columns, caption=caption, group=title)


def _summary(question: Lens, read: StreamReading) -> list[str]:
    """The model's figure, the largest parts of it, where the first head has it from, and since which layer."""
    chosen = "" if question.answer is not None else ", the model's own first choice,"
    values = " and ".join(f"{x:.4g} on the {side} prompt" for side, x in zip(read.sides, read.logits.tolist()))
    two = len(read.sides) > 1
    sentences = [
        f"At the last position the {read.label}{chosen} is {values if two else f'{float(read.logits[0]):.4g}'}."
    ]
    if len(read.answers) == 1:
        sentences.append(
            "One logit alone contains what the logits of all tokens share; with a wrong answer (--wrong) it drops out."
        )
    rows = sorted(_writers(read), key=lambda row: -abs(row["clean"]))
    most = ", ".join(f"{row['part']} ({row['clean']:+.3g})" for row in rows[:3])
    here = " on the clean prompt" if two else ""
    sentences.append(f"The largest direct effects{here} are {most}; all {len(rows)} sum to {_sum(read)}.")
    if two:
        row = max(rows, key=lambda row: abs(row["difference"]))
        whole = float(read.direct.total[0] - read.direct.total[1])
        sentences.append(f"The prompts differ most at {row['part']}: {row['difference']:+.3g} of {whole:+.3g}.")
    if cells := _sources(read):
        cell = max(cells, key=lambda cell: abs(cell["clean"]))
        sentences.append(f"{cell['head']} carries {cell['clean']:+.3g} from {cell['token']!r}{here}, the largest part.")
    return [*sentences, _since(read)]


def _sum(read: StreamReading) -> str:
    """The parts' sum, beside the model's own figure where the two differ."""
    parts, own = float(read.direct.total[0]), float(read.logits[0])
    if abs(parts - own) <= APART * max(abs(parts), abs(own)):
        return f"{parts:.4g}"
    return f"{parts:.4g} (the model's own figure is {own:.4g}: a soft-cap stands between them, or rounding)"


def _since(read: StreamReading) -> str:
    """From which point of the stream on the answer is the first choice, and stays it."""
    first = (read.layers.rank[:, 0, -1, 0] == 0).tolist()
    if not first[-1]:
        return f"The model's own first choice there is {read.tokens[0][-1][-1]!r}, not {read.answers[0]!r}."
    begin = len(first) - next((i for i, best in enumerate(reversed(first)) if not best), len(first))
    return f"From {read.layers.sites[begin]} on, the logit lens predicts {read.answers[0]!r} at the last position."
