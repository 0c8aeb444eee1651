"""The published analysis of indirect-object identification on a model of Hugging Face.

Behaviour on the fifteen templates and on eight known prompts; one template patched and estimated as our own networks
are; which heads speak to the logits; and the circuit of 26 heads by itself, where the model is GPT-2 small.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from micrographia.core.errors import BadConfig, BadPrompt, MissingExtra
from micrographia.core.events import Progress, Watch
from micrographia.core.figures import Figure
from micrographia.core.model import Model
from micrographia.core.prompts import LanguageModel, Pairs, metric_of
from micrographia.core.runtime import generator
from micrographia.core.tokens import ids_of
from micrographia.labs.ioi import measure
from micrographia.labs.ioi.cases import Case
from micrographia.labs.ioi.config import Config, is_gpt2
from micrographia.labs.ioi.figures import places, trust
from micrographia.labs.ioi.findings import estimate_tables
from micrographia.labs.ioi.network import Studied, study
from micrographia.labs.ioi.published import circuit
from micrographia.labs.ioi.published.prompts import ORDERS, TEMPLATES, Group, Words, eight_prompts, group, usable

FOR, AGAINST = 5, 2
PATCHED = 0
"""The template that is patched and estimated, in both orders."""
STRONGEST = 12


def study_published(config: Config, watch: Watch) -> tuple[dict[str, Any], list[Figure]]:
    """Results and pictures. On GPT-2 small some twenty minutes on two cores, most of it exact patching.

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
    spoken = to_logits(model, groups, watch)
    numbers |= names_of_heads(spoken) | alone(model, groups, words, draw) | doubt(config.model, model)
    watch(Progress("patch", 0, 1, "template"))
    case = patched_case(model, config.pairs, words, draw)
    found = study(model, case, config, draw, cut=False)
    watch(Progress("patch", 1, 1, "template"))
    results = {
        "published_circuit": numbers,
        "heads_that_denoise": denoising(found, model.shape.n_heads),
        **estimate_tables([{"ioi": found}]),
    }
    rows = results["estimates_beside_exact_effects"]
    pictures = [
        *places.maps("ioi", config.model, found, model.shape.n_heads),
        trust.scatter("ioi", config.model, found),
    ]
    return results, [*pictures, trust.correlations(rows)]


def loaded(config: Config, watch: Watch) -> LanguageModel:
    """The model, in single precision. Raises BadConfig for one without a tokenizer."""
    watch(Progress("load the model", 0, 1, "model"))
    try:
        from micrographia.core.pretrained.load import load  # transformers, which networks of our own do without

        model = load(config.model, dtype=torch.float32, device=config.device, watch=watch)
    except ModuleNotFoundError as error:
        if error.name not in ("transformers", "huggingface_hub"):
            raise
        raise MissingExtra(
            f"The model {config.model!r} needs transformers, which is not installed. Install micrographia[hf]."
        ) from error
    if model.tokenizer is None:
        raise BadConfig(f"The lab asks {config.model!r} in words, but found no tokenizer. Give a model that has one.")
    watch(Progress("load the model", 1, 1, "model"))
    return model


def behaviour(model: Model, groups: Sequence[Group]) -> dict[str, float]:
    """Mean logit difference and share of prompts that prefer IO; after ABC prompts, and after swapped ones."""
    found = {
        name: torch.cat([differences(model, getattr(each, name), each.pairs("abc")) for each in groups])
        for name in SIDES
    }
    numbers: dict[str, float] = {"prompts": len(found["clean"])}
    for name, prefix in SIDES.items():
        numbers[f"{prefix}logit_difference"] = float(found[name].mean())
        numbers[f"{prefix}preferred"] = float((found[name] > 0).double().mean())
    return numbers


NOT_KNOWN = (
    "The model has as many heads as GPT-2 small, but its name does not say that it is GPT-2 small; in another model "
    "heads of the same numbers need not do the same."
)
SIDES = {"clean": "", "abc": "abc_", "swap": "swapped_"}


def differences(model: Model, prompts: Tensor, pairs: Pairs) -> Tensor:
    """The logit of IO less that of S after these prompts. One forward pass."""
    m = metric_of("logit-diff", pairs, model)
    rows = torch.arange(len(prompts), device=prompts.device)
    logits = model.run(prompts, logits=m.readout(rows)).logits
    return m(logits, rows).double().cpu()


def eight(model: LanguageModel) -> dict[str, float | None]:
    """The demo's prompts; None where the tokenizer does not make one token of each name, or not one length of all.

    With the other subject in each it is the negative, whatever the model: they hold both subjects of each sentence.
    """
    try:
        pairs = eight_prompts(model)
    except BadPrompt:  # the other prompts are made of words that this tokenizer knows; these eight are as they are
        return {"eight_prompts": None}
    return {"eight_prompts": float(differences(model, ids_of(pairs.clean), pairs).mean())}


def to_logits(model: Model, groups: Sequence[Group], watch: Watch) -> Tensor:
    """What is lost, in the mean over prompts, when each head says to the logits what it says after the ABC prompt."""
    total = torch.zeros(model.shape.n_layers, model.shape.n_heads, dtype=torch.float64)
    for i, each in enumerate(groups):
        watch(Progress("path patching", i, len(groups), "template"))
        pairs = each.pairs("abc")
        total += measure.spoken(model, pairs, metric_of("logit-diff", pairs, model), measure.TO_LOGITS).double().cpu()
    watch(Progress("path patching", len(groups), len(groups), "template"))
    return total / len(groups)


def names_of_heads(spoken: Tensor) -> dict[str, Any]:
    """The heads that speak most for the answer, and most against it; and how many published ones chance would give."""
    order = spoken.flatten().argsort(descending=True).tolist()
    names = [f"{i // spoken.shape[1]}.{i % spoken.shape[1]}" for i in order]
    share = 1 / spoken.numel()
    return {
        "most_for": names[:FOR],
        "most_against": names[: -AGAINST - 1 : -1],
        "most_for_by_chance": FOR * len(circuit.HEADS["name mover"]) * share,
        "most_against_by_chance": AGAINST * len(circuit.HEADS["negative name mover"]) * share,
    }


def alone(model: LanguageModel, groups: Sequence[Group], words: Words, draw: Generator) -> dict[str, Any]:
    """The 26 heads by themselves; for another model, why there is nothing to say."""
    if not circuit.has_it(model):
        n, h = model.shape.n_layers, model.shape.n_heads
        return {"note": f"The published circuit names heads of 12 layers of 12; this model has {n} layers of {h}."}
    found = circuit.alone(model, groups, words, draw)
    return {
        "heads": len(circuit.published(groups[0])),
        "faithfulness": found.circuit / found.model,
        "random_faithfulness": found.random / found.model,
        "circuit_logit_difference": found.circuit,
        "outside": found.ablation,
    }


def doubt(name: str, model: Model) -> dict[str, str]:
    """A note where the heads of that circuit are there, but nothing says that they are those."""
    return {"note": NOT_KNOWN} if circuit.has_it(model) and not is_gpt2(name) else {}


def patched_case(model: LanguageModel, n: int, words: Words, draw: Generator) -> Case:
    """One template in both orders, S2 swapped. Nothing is chosen on these pairs, so there are no others to judge on."""
    halves = [group(model, PATCHED, order, -(-n // 2), words, draw) for order in ORDERS]
    clean, swap, right, wrong = (
        torch.cat([getattr(h, name) for h in halves]) for name in ("clean", "swap", "answer", "wrong")
    )
    pairs = Pairs(clean, swap, right, wrong)
    assert model.tokenizer is not None
    texts = [model.tokenizer.decode([i]) for i in clean[0].tolist()]
    same = (clean == clean[0]).all(0).tolist()
    positions = tuple(f"{i} {text.strip() if fixed else '…'}" for i, (text, fixed) in enumerate(zip(texts, same)))
    return Case("ioi", pairs, pairs, positions)


def denoising(found: Studied, n_heads: int) -> list[dict[str, Any]]:
    """The heads and positions that bring most of the answer back, and what they take away."""
    shares = found.maps["z"]
    order = abs(shares["denoise"]).ravel().argsort()[::-1][:STRONGEST]
    rows = []
    for flat in order.tolist():
        row, pos = divmod(flat, shares["denoise"].shape[1])
        rows.append(
            {
                "head": f"{row // n_heads}.{row % n_heads}",
                "position": found.positions[pos],
                "brings_back": float(shares["denoise"][row, pos]),
                "takes_away": float(shares["noise"][row, pos]),
            }
        )
    return rows
