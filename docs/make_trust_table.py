"""Measure how far attribution can be trusted on a language model, for the page *When to trust attribution patching*.

Estimates of every method beside exact patches (denoising), kind of Site by kind of Site, over pairs of prompts of one
layout: `ioi` (the second mention of the subject differs), `capitals` ("The capital of France is"), and `country-first`
("France is a country whose capital city is"), where the prompts differ at position 0. Of each kind of Site, at position
0 and elsewhere, all places are patched where these are few, else `--places`: the largest estimates of every method, and
others drawn at random, which are weighted for those that they stand for. AtP* (GradDrop) gives sizes and is compared
with the effects' sizes. Intervals resample pairs. What is measured is kept beside the file (`FILE.parts/`), so that a
run that was stopped goes on where it was; several tasks can run at once, and the last of them to end writes all.
Usage: uv run python docs/make_trust_table.py --model MODEL --out FILE [--name NAME] [--pairs 50] [--tasks TASK ...]
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from micrographia.core.effects import axes_of_scores
from micrographia.core.errors import BadPrompt
from micrographia.core.load import load_any
from micrographia.core.metrics import Metric, logit_difference, prompts
from micrographia.core.prompts import LanguageModel, Pairs, PairText, first_difference, from_texts
from micrographia.core.provenance import provenance
from micrographia.core.sites import Site, select
from micrographia.core.store import json_bytes, write_bytes
from micrographia.core.sweep import Place
from micrographia.core.tokens import ids_of, single_token
from micrographia.labs.ioi import gpt2_prompts as ioi
from micrographia.methods.attribution.agreement import agreement, slope
from micrographia.methods.attribution.attribute import attribute
from micrographia.methods.patching import patch

KINDS = ("resid_pre", "z", "mlp_out", "q", "k", "v", "neurons")
METHODS = {"atp": "AtP", "atp-qk": "QK-fix", "atp-star": "GradDrop (by size)", "relp": "RelP", "ig": "IG, input path"}
UNSCORED = {"relp": ("q", "k")}
"""Kinds to which a method gives no score."""
LIKE_ATP = ("resid_pre", "z", "mlp_out", "v", "neurons")
"""Kinds at which the QK-fix is attribution patching, and is not listed again."""
SIZES = "atp-star"
DRAWS = 1000
AT_ONCE = 5
"""Pairs whose exact patches are kept together: what is lost where a run is stopped."""
WHOLE = 256
"""A kind of Site with at most so many places is patched whole."""
TEMPLATE = 5
"""After [B] and [A] went to the [PLACE], [B] gave a [OBJECT] to [A]."""
_CAPITALS = (
    "France:Paris Italy:Rome Spain:Madrid Germany:Berlin Russia:Moscow Japan:Tokyo China:Beijing Egypt:Cairo "
    "Greece:Athens Poland:Warsaw Austria:Vienna Hungary:Budapest Portugal:Lisbon Ireland:Dublin Norway:Oslo "
    "Sweden:Stockholm Denmark:Copenhagen Finland:Helsinki Iran:Tehran Iraq:Baghdad Syria:Damascus India:Delhi "
    "Kenya:Nairobi Peru:Lima Chile:Santiago Cuba:Havana Canada:Ottawa Belgium:Brussels Netherlands:Amsterdam "
    "Switzerland:Bern Ukraine:Kiev Bulgaria:Sofia Afghanistan:Kabul Australia:Canberra Israel:Jerusalem "
    "Philippines:Manila Tunisia:Tunis England:London Scotland:Edinburgh Jamaica:Kingston"
)
CAPITALS = dict(each.split(":") for each in _CAPITALS.split())


class Chosen(NamedTuple):
    """The places of one kind of Site, at position 0 or elsewhere, with the number of places that each stands for."""

    kind: str
    first: bool
    places: list[Place]
    weight: list[float]


def two_orders(model: LanguageModel, n: int, draw: Generator) -> Pairs:
    """Indirect objects: half of the prompts name the subject first, half second."""
    words = ioi.usable(model)
    sizes = zip(ioi.ORDERS, (n - n // 2, n // 2))
    rows = [row for order, m in sizes for row in ioi.filled(TEMPLATE, order, m, words, draw)]
    return ioi.lined_up(model, [row.pair("swap") for row in rows])


def capitals(template: str) -> Callable[[LanguageModel, int, Generator], Pairs]:
    """Pairs of countries whose name in this place, and whose capital, are one token each."""

    def draw_pairs(model: LanguageModel, n: int, draw: Generator) -> Pairs:
        length = min(len(ids_of(model.to_tokens(template.format(name)))[0]) for name in CAPITALS)
        able = [
            (name, city)
            for name, city in CAPITALS.items()
            if len(ids_of(model.to_tokens(template.format(name)))[0]) == length and one_token(model, f" {city}")
        ]
        both = [(one, other) for one in able for other in able if one != other]
        some = [both[i] for i in torch.randperm(len(both), generator=draw)[:n].tolist()]
        rows = [PairText(template.format(a), template.format(b), f" {x}", f" {y}") for (a, x), (b, y) in some]
        return from_texts(model, rows)

    return draw_pairs


def one_token(model: LanguageModel, text: str) -> bool:
    try:
        single_token(model.tokenizer, text)
    except BadPrompt:
        return False
    return True


TASKS: Mapping[str, Callable[[LanguageModel, int, Generator], Pairs]] = {
    "ioi": two_orders,
    "capitals": capitals("The capital of {} is"),
    "country-first": capitals("{} is a country whose capital city is"),
}


def means(scores: Mapping[Site, Tensor], kind: str) -> Tensor:
    """(layer, pos, ...) means over pairs of the absolute mean score."""
    return torch.stack([score.mean(0).abs() for site, score in scores.items() if site.kind == kind])


def choose(model: LanguageModel, found: Mapping[str, Mapping[Site, Tensor]], begin: int, most: int) -> list[Chosen]:
    """The largest estimates of every method, half of `most` in all, and others at random."""
    draw, chosen = Generator().manual_seed(0), list[Chosen]()
    for kind in KINDS:
        sizes = [means(scores, kind) for method, scores in found.items() if kind not in UNSCORED.get(method, ())]
        n_pos = sizes[0].shape[1]
        for first in (True, False):
            allowed = torch.zeros_like(sizes[0], dtype=torch.bool)
            allowed[:, [at for at in range(begin, n_pos) if (at == 0) == first]] = True
            numbers = allowed.flatten().nonzero()[:, 0]
            if not len(numbers):
                continue
            per_method = max(1, most // 2 // len(sizes))
            tops = [size.flatten()[numbers].topk(min(per_method, len(numbers))).indices for size in sizes]
            top = torch.cat(tops).unique()
            rest = torch.ones(len(numbers), dtype=torch.bool)
            rest[top] = False
            left = rest.nonzero()[:, 0]
            n_drawn = len(left) if len(numbers) <= WHOLE else max(0, most - len(top))
            drawn = left[torch.randperm(len(left), generator=draw)[:n_drawn]]
            cells = [torch.unravel_index(i, sizes[0].shape) for i in numbers[torch.cat([top, drawn])]]
            weight = [1.0] * len(top) + [len(left) / max(1, len(drawn))] * len(drawn)
            chosen.append(Chosen(kind, first, [_place(kind, *map(int, cell)) for cell in cells], weight))
    return chosen


def _place(kind: str, layer: int, *cell: int) -> Place:
    site = Site(kind, layer)
    return Place(site, dict(zip(axes_of_scores(site), cell)))


def estimates(
    model: LanguageModel, pairs: Pairs, metric: Metric, most: int, told: Callable[[str], None]
) -> tuple[list[Chosen], dict[str, NDArray[Any]]]:
    """The places, and every method's estimates there (place, pair); NaN where a method gives no score."""
    found: dict[str, Mapping[Site, Tensor]] = {}
    for method in METHODS:
        sites = select(model.sites, [f"L*.{kind}" for kind in KINDS if kind not in UNSCORED.get(method, ())])
        found[method] = attribute(model, pairs, metric, sites, method=method).scores
        told(f"estimated by {method}")
    chosen = choose(model, found, first_difference(pairs), most)
    places = [place for each in chosen for place in each.places]
    nothing = torch.full((len(pairs),), math.nan)
    at = {
        method: torch.stack(
            [scores[p.site][(slice(None), *p.where.values())] if p.site in scores else nothing for p in places]
        ).numpy()
        for method, scores in found.items()
    }
    return chosen, at


def exact(
    model: LanguageModel, pairs: Pairs, places: Sequence[Place], parts: Path, told: Callable[[str], None]
) -> NDArray[Any]:
    """The exact effects (place, pair), a few pairs at a time; those that are kept are read."""
    found = []
    for first in range(0, len(pairs), AT_ONCE):
        kept = parts / f"exact-{first:04d}.npy"
        if not kept.exists():
            some = pairs.rows(slice(first, first + AT_ONCE))
            assert some.wrong is not None
            metric = logit_difference(some.answer, some.wrong)
            effects = patch(model, some, [metric], [(place,) for place in places]).effects()[..., 0]
            write_bytes(kept, _bytes(np.save, effects.double().numpy()))
            told(f"patched {min(first + AT_ONCE, len(pairs))} of {len(pairs)} pairs at {len(places):,} places")
        found.append(np.load(kept))
    return np.concatenate(found, 1)


def _bytes(save: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    held = BytesIO()
    save(held, *arrays, **named)
    return held.getvalue()


def rows_of(chosen: Sequence[Chosen], estimate: Mapping[str, NDArray[Any]], effect: NDArray[Any]) -> Iterator[dict]:
    """Agreement by kind of Site and method: over all places and, where prompts differ at position 0, without and at
    it."""
    draw, ends = Generator().manual_seed(0), np.cumsum([0, *(len(each.places) for each in chosen)])
    span = {(each.kind, each.first): slice(*ends[i : i + 2]) for i, each in enumerate(chosen)}
    weight = np.array([w for each in chosen for w in each.weight])
    for kind in KINDS:
        parts = [span[kind, first] for first in (True, False) if (kind, first) in span]
        groups = {"all": parts} if len(parts) == 1 else {"all": parts, "without 0": parts[1:], "at 0": parts[:1]}
        for method in METHODS:
            if kind in UNSCORED.get(method, ()) or (method == "atp-qk" and kind in LIKE_ATP):
                continue
            for where, spans in groups.items():
                index = np.concatenate([np.arange(s.start, s.stop) for s in spans])
                pair = [values[index].astype(np.float64) for values in (estimate[method], effect)]
                x, y = map(np.abs, pair) if method == SIZES else pair
                pearson, spearman = agreement(x, y, weight[index], generator=draw, draws=DRAWS)
                yield {
                    "kind": kind,
                    "method": method,
                    "where": where,
                    "patched": len(index),
                    "of": round(float(weight[index].sum())),
                    "pearson": pearson._asdict(),
                    "spearman": spearman._asdict(),
                    "slope": None if method == SIZES else slope(x, y, weight[index]),
                }


def measure(model: LanguageModel, name: str, n: int, most: int, parts: Path) -> dict[str, Any]:
    """All of one task, as a record; a task that is kept is read."""
    done = parts / "task.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    parts.mkdir(parents=True, exist_ok=True)
    began = monotonic()

    def told(text: str) -> None:
        print(f"{name}: {text}, {monotonic() - began:.0f} s", flush=True)

    pairs = TASKS[name](model, n, Generator().manual_seed(0))
    assert pairs.wrong is not None
    metric = logit_difference(pairs.answer, pairs.wrong)
    rows = prompts(len(pairs))
    clean, corrupt = (
        metric(model.run(side, logits=metric.readout(rows)).logits, rows) for side in (pairs.clean, pairs.corrupt)
    )
    kept = parts / "estimates.npz"
    if not kept.exists():
        chosen, estimate = estimates(model, pairs, metric, most, told)
        listed = [[each.kind, each.first, [(p.site.layer, *p.where.values()) for p in each.places], each.weight]
                  for each in chosen]  # fmt: skip
        write_bytes(kept, _bytes(np.savez, chosen=np.array(json.dumps(listed)), **estimate))
    with np.load(kept) as found:
        estimate = {method: found[method] for method in METHODS}
        listed = json.loads(str(found["chosen"]))
    chosen = [Chosen(kind, first, [_place(kind, *cell) for cell in cells], w) for kind, first, cells, w in listed]
    places = [place for each in chosen for place in each.places]
    effect = exact(model, pairs, places, parts, told)
    record = {
        "pairs": len(pairs),
        "tokens": ids_of(pairs.clean).shape[1],
        "first_difference": first_difference(pairs),
        "example": [model.tokenizer.decode(ids_of(side)[0].tolist()) for side in (pairs.clean, pairs.corrupt)]
        if model.tokenizer
        else [],
        "right": int(((clean > 0) & (corrupt < 0)).sum()),
        "clean": float(clean.mean()),
        "corrupt": float(corrupt.mean()),
        "rows": list(rows_of(chosen, estimate, effect)),
        "seconds": round(monotonic() - began),
    }
    write_bytes(done, json_bytes(record))
    return record


def table(record: Mapping[str, Any]) -> str:
    """Pearson / Spearman (slope) by kind of Site and method, as Markdown."""
    rows = record["rows"]
    head = ["kind of Site", "places", *METHODS.values()]
    lines = [head, ["---"] * len(head)]
    for kind, where in dict.fromkeys((row["kind"], row["where"]) for row in rows):
        of = {row["method"]: row for row in rows if (row["kind"], row["where"]) == (kind, where)}
        told = "" if where == "all" else ", position 0" if where == "at 0" else f", {where}"
        name = f"`{kind}`{told}"
        cells = [_cell(of[method]) if method in of else "–" for method in METHODS]
        lines.append([name, f"{next(iter(of.values()))['of']:,}", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(row: Mapping[str, Any]) -> str:
    if row["pearson"]["value"] is None or math.isnan(row["pearson"]["value"]):  # nothing varies
        return "–"
    ends = "" if row["slope"] is None else f" ({row['slope']:.2f})"
    return f"{row['pearson']['value']:.2f} / {row['spearman']['value']:.2f}{ends}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True, help="a folder or a name that micrographia loads")
    parser.add_argument("--name", help="what the model is called in the file")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=50)
    parser.add_argument("--places", type=int, default=96, help="patched exactly, of each kind, at 0 and elsewhere")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = load_any(asked.model, dtype="float32")
    folder = asked.out.with_name(f"{asked.out.name}.parts")
    for name in asked.tasks:
        print(f"\n{table(measure(model, name, asked.pairs, asked.places, folder / name))}\n", flush=True)
    kept = {name: folder / name / "task.json" for name in TASKS}
    tasks = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in kept.items() if path.exists()}
    about: dict[str, Any] = {
        "model": asked.name or Path(asked.model).name,
        "mode": "denoise",
        "metric": "logit difference",
    }
    about["provenance"] = provenance(0, "cpu", torch.float32, torch.get_num_threads())
    write_bytes(asked.out, json_bytes({**about, "places_at_most": asked.places, "tasks": tasks}))


if __name__ == "__main__":
    main()
