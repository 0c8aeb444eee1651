"""The published analysis of indirect-object identification on a pretrained model, and the circuit of 26 heads.

Behaviour on the fifteen templates and on eight known prompts; one template patched and estimated as our own networks
are; the direct effect of each head on the logits; and, in GPT-2 small, the published circuit by itself. Every head
outside that takes the mean over ABC prompts of the same template and order, position by position; MLPs and embeddings
stay. A head of the circuit is kept only at the position of its role.
Source: Wang et al. (2022).
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from micrographia.core.claims import over_networks
from micrographia.core.errors import BadConfig, BadPrompt
from micrographia.core.events import Progress, Watch
from micrographia.core.graph import LOGITS, Node
from micrographia.core.lab import Findings
from micrographia.core.load import load_any
from micrographia.core.model import Model
from micrographia.core.prompts import LanguageModel, Pairs, metric_of, position_names
from micrographia.core.runtime import generator
from micrographia.core.sites import Site
from micrographia.core.tokens import ids_of
from micrographia.labs.ioi import figures
from micrographia.labs.ioi.analysis import BehaviourAnalysis, analyse_behaviour
from micrographia.labs.ioi.config import Config, is_gpt2
from micrographia.labs.ioi.gpt2_prompts import (
    ORDERS,
    TEMPLATES,
    Group,
    Words,
    eight_prompts,
    filled,
    group,
    lined_up,
    usable,
)
from micrographia.labs.ioi.heads import path_patch_heads
from micrographia.labs.ioi.measure import measures, of_estimates, of_gpt2
from micrographia.labs.ioi.tables import estimate_tables
from micrographia.labs.ioi.task import Case
from micrographia.methods.circuits.ablate import Ablation, nodes_alone
from micrographia.methods.circuits.members import Part, parts_of

HEADS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "name mover": ((9, 9), (10, 0), (9, 6)),
    "backup name mover": ((10, 10), (10, 6), (10, 2), (10, 1), (11, 2), (9, 7), (9, 0), (11, 9)),
    "negative name mover": ((10, 7), (11, 10)),
    "S-inhibition": ((7, 3), (7, 9), (8, 6), (8, 10)),
    "induction": ((5, 5), (5, 8), (5, 9), (6, 9)),
    "duplicate token": ((0, 1), (0, 10), (3, 0)),
    "previous token": ((2, 2), (4, 11)),
}
"""Role -> heads as (layer, head): 26 in all (figure 2 of the paper)."""
WHERE = dict.fromkeys(HEADS, "END") | {"induction": "S2", "duplicate token": "S2", "previous token": "S1+1"}
LAYERS, HEADS_A_LAYER = 12, 12
RANDOM, REFERENCE = 5, 32
"""Random circuits, and ABC prompts that a mean is taken over, for each template and order."""
FOR, AGAINST = 5, 2
PATCHED = 0
"""The template that is patched and estimated, in both orders."""
STRONGEST = 12
NOT_KNOWN = (
    "The model has as many heads as GPT-2 small, but its name does not say that it is GPT-2 small; in another model "
    "heads of the same numbers need not do the same."
)


def study(config: Config, watch: Watch) -> Findings:
    """All of it. On GPT-2 small some twenty minutes on two cores, most of it exact patching.

    Raises UnknownModel, MissingExtra, BadPrompt for a tokenizer that makes several tokens of common words, BadConfig
    for a model without one.
    """
    model = loaded(config, watch)
    draw, words = generator(config.seed), usable(model)
    each = max(2, config.prompts // (len(TEMPLATES) * len(ORDERS)))
    groups = [group(model, i, order, each, words, draw) for i in range(len(TEMPLATES)) for order in ORDERS]
    watch(Progress("behaviour", 0, 1, "table"))
    numbers: dict[str, Any] = behaviour(model, groups) | eight(model)
    watch(Progress("behaviour", 1, 1, "table"))
    numbers |= named_heads(to_logits(model, groups, watch)) | circuit_alone(model, groups, words, draw)
    numbers |= doubt(config.model, model)
    watch(Progress("patch", 0, 1, "template"))
    found = analyse_behaviour(model, patched_case(model, config.pairs, words, draw), config, draw, cut=False)
    watch(Progress("patch", 1, 1, "template"))
    n_heads = model.shape.n_heads
    results = {"published_circuit": numbers, "heads_that_denoise": denoising(found, n_heads)}
    results |= estimate_tables([{"ioi": found}])
    taken = over_networks([measures({"ioi": found}, {})])
    results["title"] = f"Which components carry a behaviour: {Path(config.model).name}"
    shown = [*figures.tables(results), *figures.of_estimates(results)]
    shown += figures.of_behaviour("ioi", config.model, found, n_heads)
    taken |= {**of_estimates(results), **of_gpt2(numbers)}
    return Findings(results, figures.in_order(shown), taken, {"seed": [config.seed]}, opening(numbers))


def opening(found: Mapping[str, Any]) -> list[str]:
    """The behaviour and the circuit in a sentence each."""
    sentences = [
        f"Over {found['prompts']} prompts it prefers the indirect object by {found['logit_difference']:.2f} logits, "
        f"{found['preferred']:.1%} of the time; with a third name for the second subject by "
        f"{found['abc_logit_difference']:.2f}."
    ]
    if "faithfulness" in found:
        sentences.append(
            f"The {found['heads']} published heads alone keep {found['faithfulness']:.0%} of that; as many random "
            f"heads {found['random_faithfulness']:.0%}. All other heads are replaced by {found['outside']}."
        )
    return sentences + ([found["note"]] if "note" in found else [])


def loaded(config: Config, watch: Watch) -> LanguageModel:
    """The model, in single precision. Raises BadConfig for one without a tokenizer."""
    model: Any = load_any(config.model, dtype=torch.float32, device=config.machine.device, watch=watch)
    if model.tokenizer is None:
        raise BadConfig(f"The lab asks {config.model!r} in words, but found no tokenizer. Give a model that has one.")
    return model


def behaviour(model: Model, groups: Sequence[Group]) -> dict[str, float]:
    """Mean logit difference and share of prompts that prefer IO; after ABC prompts, and after swapped ones."""
    numbers: dict[str, float] = {"prompts": sum(len(each.abc) for each in groups)}
    sides = {"": "swap.clean", "abc_": "abc.corrupt", "swapped_": "swap.corrupt"}
    for prefix, side in sides.items():
        found = torch.cat([differences(model, ids_of(attrgetter(side)(each)), each.abc) for each in groups])
        numbers[f"{prefix}logit_difference"] = float(found.mean())
        numbers[f"{prefix}preferred"] = float((found > 0).double().mean())
    return numbers


def differences(model: Model, prompts: Tensor, pairs: Pairs) -> Tensor:
    """The logit of IO less that of S after these prompts. One forward pass."""
    return metric_of("logit-diff", pairs, model).of(model, prompts).double().cpu()


def eight(model: LanguageModel) -> dict[str, float | None]:
    """The demo's prompts; None where the tokenizer does not make one token of each name, or not one length of all.

    With the other subject in each it is the negative, whatever the model: they hold both subjects of each sentence.
    """
    try:
        pairs = eight_prompts(model)
    except BadPrompt:  # the other prompts are made of words that this tokenizer knows; these eight are as they are
        return {"eight_prompts": None}
    return {"eight_prompts": float(differences(model, ids_of(pairs.clean), pairs).mean())}


def to_logits(model: Model, groups: Sequence[Group], watch: Watch) -> Float[Tensor, "layer head"]:
    """The direct effect of each head on the logit difference, against ABC prompts, in the mean over templates."""
    total = torch.zeros(model.shape.n_layers, model.shape.n_heads, dtype=torch.float64)
    for i, each in enumerate(groups):
        watch(Progress("path patching", i, len(groups), "template"))
        m = metric_of("logit-diff", each.abc, model)
        total += path_patch_heads(model, each.abc, m, [Node(LOGITS)]).double().cpu()
    watch(Progress("path patching", len(groups), len(groups), "template"))
    return total / len(groups)


def named_heads(effects: Float[Tensor, "layer head"]) -> dict[str, Any]:
    """The heads of largest direct effect for the answer and against it, and how many published ones chance gives."""
    order = effects.flatten().argsort(descending=True).tolist()
    names = [f"{i // effects.shape[1]}.{i % effects.shape[1]}" for i in order]
    share = 1 / effects.numel()
    return {
        "most_for": names[:FOR],
        "most_against": names[: -AGAINST - 1 : -1],
        "most_for_by_chance": FOR * len(HEADS["name mover"]) * share,
        "most_against_by_chance": AGAINST * len(HEADS["negative name mover"]) * share,
    }


def has_circuit(model: Model) -> bool:
    """Whether this model has the heads that the paper names."""
    return (model.shape.n_layers, model.shape.n_heads) == (LAYERS, HEADS_A_LAYER)


def circuit_alone(model: LanguageModel, groups: Sequence[Group], words: Words, draw: Generator) -> dict[str, Any]:
    """The 26 heads by themselves; for another model, why there is nothing to measure.

    `2 + RANDOM` runs of each prompt, and one over each group's reference.
    """
    if not has_circuit(model):
        n, h = model.shape.n_layers, model.shape.n_heads
        return {"note": f"The published circuit names heads of 12 layers of 12; this model has {n} layers of {h}."}
    sums, n_prompts, outside = torch.zeros(2 + RANDOM, dtype=torch.float64), 0, ""
    for each in groups:
        reference = group(model, each.template, each.order, REFERENCE, words, draw).abc.corrupt
        parts = parts_of(model, mlps=False, n_pos=ids_of(each.abc.clean).shape[1])
        ablation = Ablation("mean", reference)
        score = nodes_alone(model, each.abc, metric_of("logit-diff", each.abc, model), parts, ablation=ablation)
        circuits = [frozenset(parts), published(each), *(by_chance(each, draw) for _ in range(RANDOM))]
        sums += score(circuits).double().sum(1).cpu()
        n_prompts, outside = n_prompts + len(each.abc), f"{ablation}, of the same template and order"
    means = sums / n_prompts
    whole, circuit, random = float(means[0]), float(means[1]), float(means[2:].mean())
    return {
        "heads": len(published(groups[0])),
        "faithfulness": circuit / whole,
        "random_faithfulness": random / whole,
        "circuit_logit_difference": circuit,
        "outside": outside,
    }


def published(each: Group) -> frozenset[Part]:
    """The 26 heads at the positions of their roles in these prompts."""
    return frozenset(_part(each, WHERE[role], *head) for role, heads in HEADS.items() for head in heads)


def by_chance(each: Group, draw: Generator) -> frozenset[Part]:
    """As many heads at the same positions, drawn evenly."""
    found: set[Part] = set()
    for place in dict.fromkeys(WHERE.values()):
        n = sum(len(heads) for role, heads in HEADS.items() if WHERE[role] == place)
        drawn = torch.randperm(LAYERS * HEADS_A_LAYER, generator=draw)[:n].tolist()
        found |= {_part(each, place, *divmod(i, HEADS_A_LAYER)) for i in drawn}
    return frozenset(found)


def _part(each: Group, place: str, layer: int, head: int) -> Part:
    return Part(Node(Site("z", layer), head), each.roles[place])


def doubt(name: str, model: Model) -> dict[str, str]:
    """A note where the heads of that circuit are there, but nothing shows that they are those."""
    return {"note": NOT_KNOWN} if has_circuit(model) and not is_gpt2(name) else {}


def patched_case(model: LanguageModel, n: int, words: Words, draw: Generator) -> Case:
    """One template in both orders, S2 swapped. Nothing is chosen on these pairs, so there are no others to judge on."""
    rows = [row for order in ORDERS for row in filled(PATCHED, order, -(-n // 2), words, draw)]
    pairs = lined_up(model, [row.pair("swap") for row in rows])
    return Case("ioi", pairs, pairs, tuple(position_names(pairs, model.tokenizer)))


def denoising(found: BehaviourAnalysis, n_heads: int) -> list[dict[str, Any]]:
    """The heads and positions that bring most of the answer back, and what they take away."""
    back, away = found.maps["z"]["denoise"], found.maps["z"]["noise"]
    order = abs(back).ravel().argsort()[::-1][:STRONGEST]
    return [
        {
            "head": f"{row // n_heads}.{row % n_heads}",
            "position": found.positions[pos],
            "brings_back": float(back[row, pos]),
            "takes_away": float(away[row, pos]),
        }
        for row, pos in (divmod(flat, back.shape[1]) for flat in order.tolist())
    ]
