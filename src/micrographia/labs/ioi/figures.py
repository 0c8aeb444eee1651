"""All that a run of the lab shows: tables of results by section, and pictures of the first network that learned."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from micrographia.core import figures
from micrographia.core.figures import Figure
from micrographia.core.graph_figure import drawn
from micrographia.core.spoken import head_name
from micrographia.core.titles import KINDS, METHODS, MODES
from micrographia.labs.ioi.analysis import BehaviourAnalysis, NetworkAnalysis
from micrographia.labs.ioi.circuits import Circuits
from micrographia.labs.ioi.task import BEHAVIOURS

PUBLISHED, LEARNED, WHERE = "The published analysis", "Behaviours", "Localisation"
TRUST, HEADS, CIRCUITS = "Attribution beside exact patching", "Kinds of head", "Circuits"
SECTIONS = (PUBLISHED, LEARNED, WHERE, TRUST, HEADS, CIRCUITS)
SHOWN = {"ioi": ("z", "resid_pre"), "induction": ("z",)}
"""Behaviour -> the kinds of Site whose effects are drawn."""
SHORT = {**METHODS, "atp-qk": "with QK-fix", "atp-star": "AtP*", "relp": "RelP", "ig": "integrated gradients"}
Row = Mapping[str, Any]
Results = Mapping[str, Any]


class Shown(NamedTuple):
    """How a table of results is shown. A column is a field, or "one/other" for "one of other", with its name behind a
    colon where that is another."""

    group: str
    title: str
    columns: str
    caption: str = ""
    claims: tuple[str, ...] = ()
    essential: bool = False


TABLES: Mapping[str, Shown] = {
    "published_circuit": Shown(PUBLISHED, "The published analysis", "what value", essential=True),
    "heads_that_denoise": Shown(
        PUBLISHED,
        "Heads with the largest effect",
        "head position brings_back:restored takes_away:destroyed",
        "Shares of the gap in logit difference, one head at one position at a time: restored by denoising, destroyed "
        "by noising.",
        essential=True,
    ),
    "behaviours": Shown(
        LEARNED,
        "What the networks learned",
        "behaviour learned/networks:analysed accuracy by_chance logit_difference corrupt:after_the_corrupt_prompt",
        "On held-out prompts: medians over networks. By chance: the accuracy on another prompt's answers.",
        ("behaviours-learned",),
        essential=True,
    ),
    "greater_by_probabilities": Shown(
        LEARNED,
        "Greater-than by probabilities",
        "measure measured by_chance",
        "As Hanna et al. (2023, section 2) measure it. By chance: judged by another prompt's years.",
    ),
    "denoising_beside_noising": Shown(
        WHERE,
        "Denoising beside noising",
        "behaviour differ_by:denoising_and_noising halves_of_the_prompts:split_half",
        "Difference of heads' effects by position, as a share of the larger. Split half: the same between two halves "
        "of the prompts, denoising both.",
        ("denoising-is-not-noising",),
    ),
    "direct_parts": Shown(
        WHERE,
        "Direct logit attribution",
        "part logits",
        "The direct effect of each part on the logit difference of ioi.",
    ),
    "head_kinds": Shown(
        HEADS,
        "Heads by two criteria",
        "kind by_looks:attention_criterion by_patching:path-patching_criterion found_both_ways/of:both_of_either "
        "by_chance area:area_under_ROC",
        "Attention criterion: where a head attends and what it copies. Path-patching criterion: a direct effect, on "
        "the path of that kind, of at least a third of the largest. By chance: as many heads drawn at random within "
        "their layers. Each list begins with the seed of its network.",
        ("heads-found-twice",),
        essential=True,
    ),
    "smallest_circuits": Shown(
        CIRCUITS,
        "Smallest faithful circuits",
        "network behaviour chosen_by parts/of:components parts_by_chance:random_order faithfulness nearest_random "
        "incomplete_by:incompleteness idle:non-minimal",
        "The smallest circuit whose faithfulness is within 0.1 of 1, by the method with the least CMD; outside it, the "
        "corrupt prompt of each pair.",
        ("small-circuit",),
    ),
}


def tables(results: Results) -> list[Figure]:
    """The tables that hold something."""
    found = []
    for key, shown in TABLES.items():
        if rows := results.get(key):
            if isinstance(rows, Mapping):
                rows = [{"what": name.replace("_", " "), "value": value} for name, value in rows.items()]
            named = (column.partition(":") for column in shown.columns.split())
            fields = {field: (name or field).replace("_", " ") for field, _, name in named}
            cells = [{field: _cell(row, field) for field in fields} for row in rows]
            about = {"caption": shown.caption, "group": shown.group, "claims": shown.claims}
            found.append(figures.table(key, shown.title, cells, columns=fields, essential=shown.essential, **about))
    return found


def _cell(row: Row, field: str) -> Any:
    one, _, other = field.partition("/")
    value = row.get(one)
    return f"{value} of {row[other]}" if other else SHORT[str(value)] if field == "chosen_by" else value


def of_networks(
    networks: Sequence[NetworkAnalysis], results: Results, curves: Mapping[int, Mapping[str, Any]], n_heads: int
) -> list[Figure]:
    """`curves`: the rows of each network's training, by seed."""
    found = [*tables(results), _training(curves), *of_estimates(results)]
    for behaviour, kinds in SHOWN.items():
        for network in [each for each in networks if behaviour in each.analysed][:1]:
            about = f"seed {network.seed}"
            found += of_behaviour(behaviour, about, network.analysed[behaviour], n_heads, kinds)
    return in_order([*found, *_circuits(results["circuits"])])


def in_order(found: Sequence[Figure]) -> list[Figure]:
    """By section."""
    return sorted(found, key=lambda figure: SECTIONS.index(figure.group))


def of_estimates(results: Results) -> list[Figure]:
    """How far estimates can be trusted, of any model."""
    rows = results["estimates_beside_exact_effects"]
    return [*_estimates(rows), _trust(results)] if rows else []


def of_behaviour(
    behaviour: str, network: str, found: BehaviourAnalysis, n_heads: int, kinds: Sequence[str] = ("z", "resid_pre")
) -> list[Figure]:
    """Effects by position, estimates beside them, and circuits where they were looked for."""
    about = f"{behaviour}, {network}"
    pictures = [_map(behaviour, about, kind, found, n_heads) for kind in kinds] + [_scatter(behaviour, about, found)]
    if found.circuits is not None:
        pictures += [_ladders(behaviour, about, found.circuits), _edges(behaviour, about, found.circuits)]
    return pictures


def _training(curves: Mapping[int, Mapping[str, Any]]) -> Figure:
    named = {(name, seed): rows[f"{name}_accuracy"] for name in BEHAVIOURS for seed, rows in curves.items()}
    y = np.array(list(named.values()), dtype=np.float64)
    seen = ~np.isnan(y).any(0)
    return figures.lines(
        "course",
        "Accuracy along training",
        np.asarray(next(iter(curves.values()))["step"], dtype=np.float64)[seen],
        y[:, seen],
        names=[f"{name}, seed {seed}" for name, seed in named],
        x_label="step",
        y_label="accuracy",
        highlight=[i for i, (name, _) in enumerate(named) if name == "ioi"],
        caption="The fraction of held-out prompts whose right answer has the largest logit. Every prompt holds a pair "
        "of words that training never showed together, so what is learned is a rule.",
        claims=("behaviours-learned",),
        group=LEARNED,
    )


def _map(behaviour: str, about: str, kind: str, found: BehaviourAnalysis, n_heads: int) -> Figure:
    z, heads = np.stack([found.maps[kind][mode] for mode in MODES]), kind == "z"
    return figures.heatmap(
        f"{behaviour}-{kind}",
        f"Effect of {KINDS[kind]} by position: {about}",
        z,
        x=found.positions,
        y=[head_name(*divmod(i, n_heads)) if heads else str(i) for i in range(z.shape[1])],
        panels=[direction.panel for direction in MODES.values()],
        value="share of the gap in logit difference",
        diverging=True,
        x_label="position",
        y_label="head" if heads else "layer",
        caption=f"{MODES['denoise'].meaning} {MODES['noise'].meaning} A part that is enough alone may not be needed, "
        "and the other way round. Below 0 a place works against the answer.",
        source="Wang et al. (2022), section 3; Heimersheim and Nanda (2024)",
        claims=("denoising-is-not-noising",) if heads else (),
        group=WHERE,
    )


def _scatter(behaviour: str, about: str, found: BehaviourAnalysis) -> Figure:
    exact, estimate = (np.concatenate([each[way] for each in found.points.values()]) for way in ("exact", "atp"))
    return figures.scatter(
        f"{behaviour}-estimate-beside-exact",
        f"Attribution patching beside exact patching: {about}",
        exact,
        estimate,
        x_label="exact change of the logit difference",
        y_label="estimated change of the logit difference",
        colour=[kind for kind, each in found.points.items() for _ in each["exact"]],
        categorical=True,
        diagonal=True,
        caption="Each point is one place. On the dashed line the estimate is the effect; a point near the horizontal "
        "axis was missed.",
        source="Nanda (2023), attribution patching",
        group=TRUST,
    )


def _pivot(rows: Sequence[Row], field: str, label: str, heading: str) -> dict[str, Any]:
    """A row for each value of `label`, a column for each method: the median."""
    ways, named = _ways(rows), dict[str, dict[str, Any]]()
    for row in rows:
        named.setdefault(row[label], {label: row[label]})[row["method"]] = row[field] and row[field]["median"]
    return {"rows": list(named.values()), "columns": {label: heading} | {name: SHORT[name] for name in ways}}


def _ways(rows: Sequence[Row]) -> list[str]:
    return [name for name in METHODS if any(row["method"] == name for row in rows)]


def _estimates(rows: Sequence[Row]) -> list[Figure]:
    """Pearson's correlation by kind of Site and method, as a table and with the ends over networks."""
    sites, ways = list(dict.fromkeys(row["site"] for row in rows)), _ways(rows)
    ends = {(row["site"], row["method"]): row["pearson"] or {} for row in rows}
    median, low, high = (
        np.array([[ends.get((site, way), {}).get(part, np.nan) for site in sites] for way in ways])
        for part in ("median", "low", "high")
    )
    table = figures.table(
        "estimates",
        "Pearson's correlation with exact patching",
        **_pivot(rows, "pearson", "site", "kind of Site"),
        caption="Over places, by kind of Site: the mean over behaviours, its median over networks. AtP* and the last "
        "two columns rank places by size only and are compared with the size of the effect: attribution patching "
        "without its signs, and the activation norm as the baseline without a gradient. RelP scores no queries, keys "
        "and patterns.",
        group=TRUST,
    )
    bars = figures.bars(
        "correlations",
        "Estimate and exact effect: Pearson's correlation",
        median,
        names=sites,
        low=low,
        high=high,
        series=[SHORT[way] for way in ways],
        x_label="kind of Site",
        y_label="Pearson's correlation",
        caption="The median over networks of the mean over behaviours, with the least and the greatest network. An "
        "estimate no better than the activation norm uses no gradient information.",
        source="RelP (2508.21258) reports the same for GPT-2",
        claims=("heads-before-stream", "neurons-before-mlp-outputs", "qk-fix-helps-queries", "relp-helps-mlp-outputs"),
        group=TRUST,
    )
    return [table, bars]


def _trust(results: Results) -> Figure:
    return figures.text(
        "trust",
        "Calibration of attribution patching, by kind of Site",
        [f"{text[:1].upper()}{text[1:]}" for text in results["how_far_to_trust"].values()],
        caption="From one network: the largest estimates and a random sample, patched exactly.",
        group=TRUST,
        essential=False,
    )


def _circuits(rows: Sequence[Row]) -> list[Figure]:
    members = {"nodes": "heads and MLPs by position", "edges": "edges"}
    return [
        figures.table(
            f"circuits-{kind}",
            f"CMD of circuits of {title}",
            **_pivot(some, "cmd", "behaviour", "behaviour"),
            caption="The area between a circuit's faithfulness and 1 as it grows, the smaller the better; medians over "
            "networks. Chosen and judged on different prompts.",
            claims=("attribution-beats-chance", "eap-ig-before-eap"),
            group=CIRCUITS,
        )
        for kind, title in members.items()
        if (some := [row for row in rows if row["members"] == kind])
    ]


def _ladders(behaviour: str, about: str, found: Circuits) -> Figure:
    named = {SHORT[name]: one.faithfulness for name, one in found.nodes.items()}
    named |= {f"edges, {SHORT[name]}": one.faithfulness for name, one in found.edges.items()}
    return figures.lines(
        f"{behaviour}-faithfulness",
        f"Faithfulness of circuits by size: {about}",
        np.array(found.nodes["exact"].shares),
        np.array(list(named.values())),
        names=list(named),
        x_label="share of the parts that can reach the answer, or of the edges",
        y_label="faithfulness",
        log_x=True,
        caption=f"1 is the whole model, 0 the model with every part replaced by {found.smallest.ablation}. Circuits "
        "are chosen and judged on different prompts. Random order: the mean over several.",
        source="Mueller et al., MIB (2025), section 3.1",
        claims=("small-circuit", "attribution-beats-chance", "eap-ig-before-eap"),
        group=CIRCUITS,
    )


def _edges(behaviour: str, about: str, found: Circuits) -> Figure:
    return figures.graph(
        f"{behaviour}-edges",
        f"The strongest edges: {about}",
        drawn(found.links, "share of the gap"),
        caption="Estimated by edge attribution: orange edges carry the answer, blue ones work against it. Edges "
        "into a head's query, key and value are taken together.",
        source="Syed et al. (2023); Hanna et al. (2024)",
        group=CIRCUITS,
    )
