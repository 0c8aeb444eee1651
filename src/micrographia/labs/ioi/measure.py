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
Analysed = Mapping[str, BehaviourAnalysis]
"""The behaviours of one model."""


def measures(analysed: Analysed, kinds: Mapping[str, HeadKind]) -> Measures:
    """One network that has learned something: each claim about trained networks."""

    def by_size(one: str, other: str) -> Measured:
        """How much better attribution correlates at one kind of Site; null: the same for the activation norm."""
        raw, null = _means(analysed, lambda each: [each.r(one, way) - each.r(other, way) for way in (BY_SIZE, NORM)])
        return Measured(above_null(raw, null), null, raw)

    def relp_gain(kind: str) -> Measured:
        """How much better RelP correlates than attribution patching; null: its gain at attention outputs."""
        raw, null = _means(analysed, lambda each: [each.r(at, "relp") - each.r(at, "atp") for at in (kind, "attn_out")])
        return Measured(above_null(raw, null), null, raw)

    def fix_gain(kind: str) -> Measured:
        """How much better the QK-fix correlates than attribution patching without it, which stands beside it."""
        fixed, plain = _means(analysed, lambda each: [each.r(kind, way) for way in ("atp-qk", "atp")])
        return Measured(fixed - plain, plain, fixed - plain)

    return {
        "heads-before-stream": by_size("z", "resid_pre"),
        "neurons-before-mlp-outputs": by_size("neurons", "mlp_out"),
        "values-before-queries": by_size("v", "q"),
        "qk-fix-helps-queries": fix_gain("q"),
        "qk-fix-helps-keys": fix_gain("k"),
        "relp-helps-mlp-outputs": relp_gain("mlp_out"),
        "relp-helps-stream": relp_gain("resid_pre"),
        "denoising-is-not-noising": _medians([(each.asymmetry, each.split_half) for each in analysed.values()]),
        "heads-found-twice": _medians(
            [(kind.agreement, kind.agreement_by_chance) for kind in kinds.values() if kind.either]
        ),
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
    return known_means([figures(each) for each in analysed.values()], n)


def known_means(rows: Sequence[Sequence[float]], n: int = 1) -> list[float]:
    """Each of n figures: the mean over the behaviours, one a row, of which all are known."""
    every = np.array(rows).reshape(-1, n)
    known = every[~np.isnan(every).any(1)]
    return (known.mean(0) if len(known) else np.full(n, math.nan)).tolist()


def _medians(pairs: Iterable[tuple[float, float]]) -> Measured:
    """The medians of (figure, null), and of their difference."""
    rows = np.array([(raw - null, null, raw) for raw, null in pairs])
    return Measured(*np.median(rows, axis=0).tolist()) if len(rows) else UNKNOWN


UNKNOWN = Measured(math.nan, math.nan, math.nan)
