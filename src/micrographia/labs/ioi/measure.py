"""What each claim is judged by, beside its null: first within one network, then over networks.

Both sides of a difference are of the same behaviours of the same network. Where the null is the same figure for a
control, it is subtracted as far as it is above zero (`above_null`): what a control shows as well is no evidence, and a
control that does badly lends none. What could not be measured is NaN, and its claim fails at its preset.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from micrographia.core.claims import Measured, Measures, above_null, over_networks
from micrographia.labs.ioi.analysis import BehaviourAnalysis, NetworkAnalysis
from micrographia.labs.ioi.circuits import RANDOM
from micrographia.labs.ioi.estimates import BY_SIZE, METHODS, NORM
from micrographia.labs.ioi.heads import HeadKind

CLAIMS = Path(__file__).with_name("claims.toml")
Analysed = Mapping[Any, BehaviourAnalysis]
"""The behaviours of one model."""


def measures(analysed: Analysed, kinds: Mapping[str, HeadKind]) -> Measures:
    """One network that has learned something: each claim about trained networks."""
    attn = (("attn_out", "relp"), ("attn_out", "atp"))

    def by_size(one: str, other: str) -> Measured:
        """How much better attribution correlates at one kind of Site; null: the same for the activation norm."""
        return _above(analysed, *([(one, name), (other, name)] for name in (BY_SIZE, NORM)))

    def relp_gain(site: str) -> Measured:
        """How much better RelP correlates than attribution patching; null: its gain at attention outputs."""
        return _above(analysed, [(site, "relp"), (site, "atp")], attn)

    return {
        "heads-before-stream": by_size("z", "resid_pre"),
        "neurons-before-mlp-outputs": by_size("neurons", "mlp_out"),
        "values-before-queries": by_size("v", "q"),
        "qk-fix-helps-queries": _gain(analysed, "q", "atp-qk"),
        "qk-fix-helps-keys": _gain(analysed, "k", "atp-qk"),
        "relp-helps-mlp-outputs": relp_gain("mlp_out"),
        "relp-helps-stream": relp_gain("resid_pre"),
        "denoising-is-not-noising": _asymmetry(analysed),
        "heads-found-twice": _agreement(kinds),
        "small-circuit": _smallest(analysed),
        "attribution-beats-chance": _worst_method(analysed),
        "eap-ig-before-eap": _integrated_edges(analysed),
    }


def measures_of(networks: Sequence[NetworkAnalysis], results: Mapping[str, Any]) -> dict[str, Measured]:
    """Every claim about trained networks, over those that learned something; from the tables where those hold it."""
    each = over_networks([measures(one.analysed, one.kinds) for one in networks if one.analysed])
    rows = results["behaviours"]
    learned = sum(row["learned"] for row in rows) / sum(row["networks"] for row in rows)
    null = max((row["by_chance"]["median"] for row in rows if row["by_chance"]), default=None)
    return {"behaviours-learned": Measured(learned, null), **each, **of_estimates(results)}


def of_estimates(results: Mapping[str, Any]) -> dict[str, Measured]:
    """The correlations that were published for GPT-2 small; null: that of the activation norm."""
    rows = results["estimates_beside_exact_effects"]
    medians = {(row["site"], row["method"]): row["pearson"]["median"] for row in rows if row["pearson"]}
    return {
        f"gpt2-{method}-{name}": Measured(medians.get((site, method)), medians.get((site, NORM)))
        for method in ("atp", "relp")
        for name, site in {"stream": "resid_pre", "attention-outputs": "attn_out", "mlp-outputs": "mlp_out"}.items()
    }


def of_gpt2(found: Mapping[str, Any]) -> dict[str, Measured]:
    """The published analysis on GPT-2 small: a figure beside the same for ABC prompts or random heads."""
    names = {
        "gpt2-logit-difference": ("logit_difference", "abc_logit_difference"),
        "gpt2-prefers-io": ("preferred", "abc_preferred"),
        "gpt2-eight-prompts": ("eight_prompts", ""),
        "gpt2-circuit": ("faithfulness", "random_faithfulness"),
        "gpt2-name-movers": ("most_for", "most_for_by_chance"),
        "gpt2-negative-name-movers": ("most_against", "most_against_by_chance"),
    }
    return {claim: Measured(found.get(name), found.get(null)) for claim, (name, null) in names.items()}


Cell = tuple[str, str]  # a kind of Site, and what estimates its effects


def _above(analysed: Analysed, pair: Sequence[Cell], control: Sequence[Cell]) -> Measured:
    """Pearson's r of one cell less that of another, above the same difference of a control."""
    raw, null = _means(analysed, lambda each: [each.r(*one) - each.r(*other) for one, other in (pair, control)])
    return Measured(above_null(raw, null), null, raw)


def _gain(analysed: Analysed, site: str, method: str) -> Measured:
    """Pearson's r of a method less that of attribution patching, which is the baseline beside it."""
    fixed, own = _means(analysed, lambda each: [each.r(site, name) for name in (method, "atp")])
    return Measured(fixed - own, own, fixed - own)


def _asymmetry(analysed: Analysed) -> Measured:
    """How far denoising and noising differ, less how far halves of the prompts do: the median over behaviours."""
    return _medians([(each.asymmetry, each.split_half) for each in analysed.values()])


def _agreement(kinds: Mapping[str, HeadKind]) -> Measured:
    """Jaccard's of the two criteria, less its expectation: the median over the kinds that either finds."""
    return _medians([(kind.agreement, kind.agreement_by_chance) for kind in kinds.values() if kind.either])


def _smallest(analysed: Analysed) -> Measured:
    """The share of candidate parts in the smallest faithful circuit of ioi; null: the same in random orders."""
    if "ioi" not in analysed or (found := analysed["ioi"].circuits) is None:
        return UNKNOWN
    smallest = found.smallest
    return Measured(smallest.share, smallest.random_size / smallest.of, smallest.share)


def _worst_method(analysed: Analysed) -> Measured:
    """CMD of the worst kind of attribution less that of random orders; beside it exact patching's."""
    chance, exact, *estimated = _cmds(analysed, "nodes", RANDOM, "exact", *METHODS)
    return Measured(max(estimated) - chance, exact - chance, max(estimated) - chance)


def _integrated_edges(analysed: Analysed) -> Measured:
    """CMD of EAP less that of EAP-IG; beside it how far EAP is from random orders."""
    plain, integrated, chance = _cmds(analysed, "edges", "eap", "eap-ig", RANDOM)
    return Measured(plain - integrated, chance - plain, plain - integrated)


def _cmds(analysed: Analysed, members: str, *methods: str) -> list[float]:
    known = {name: each for name, each in analysed.items() if each.circuits is not None}
    return _means(known, lambda each: [getattr(each.circuits, members)[name].cmd for name in methods], len(methods))


def _means(analysed: Analysed, figures: Callable[[BehaviourAnalysis], Sequence[float]], n: int = 2) -> list[float]:
    """Each of the n figures: the mean over the behaviours of which all are known."""
    every = np.array([figures(each) for each in analysed.values()]).reshape(-1, n)
    known = every[~np.isnan(every).any(1)]
    return (known.mean(0) if len(known) else np.full(n, math.nan)).tolist()


def _medians(pairs: Iterable[tuple[float, float]]) -> Measured:
    """The medians of (figure, null), and of their difference."""
    rows = np.array([(raw - null, null, raw) for raw, null in pairs])
    return Measured(*np.median(rows, axis=0).tolist()) if len(rows) else UNKNOWN


UNKNOWN = Measured(math.nan, math.nan, math.nan)
