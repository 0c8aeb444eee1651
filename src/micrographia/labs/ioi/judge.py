"""Each claim beside what was measured: which number of the results answers which claim, and its null.

The published values are in `claims.toml`; here stands only where the measurement is found. A figure that could not be
taken is None, and its claim then fails at its preset: what was not measured was not reproduced.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from micrographia.core.claims import Judged, judge, load_claims

CLAIMS = Path(__file__).with_name("claims.toml")
Results = Mapping[str, Any]
Figure = Callable[[Results], Any]


def judge_all(results: Results, *, preset: str, config: Mapping[str, Any]) -> list[Judged]:
    """Every claim of the lab."""
    judged = []
    for claim in load_claims(CLAIMS):
        measured, null = MEASURED[claim.id]
        judged.append(judge(claim, measured(results), preset=preset, config=config, null_measured=null(results)))
    return judged


def _rows(results: Results, table: str, **where: Any) -> list[Mapping[str, Any]]:
    rows: Sequence[Mapping[str, Any]] = results.get(table) or ()
    return [row for row in rows if all(row.get(key) == value for key, value in where.items())]


def _middle(rows: Sequence[Mapping[str, Any]], column: str) -> float | None:
    """The mean over rows of the median over networks."""
    known = [row[column]["median"] for row in rows if row.get(column)]
    return sum(known) / len(known) if known else None


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _pearson(site: str, method: str) -> Figure:
    return lambda results: _middle(
        _rows(results, "estimates_beside_exact_effects", site=site, method=method), "pearson"
    )


def _apart(one: str, other: str, method: str = "atp") -> Figure:
    """How much better the estimates of one kind of Site are than those of another."""
    return lambda results: _less(_pearson(one, method)(results), _pearson(other, method)(results))


def _gain(site: str, method: str) -> Figure:
    """How much better a method is than attribution patching."""
    return lambda results: _less(_pearson(site, method)(results), _pearson(site, "atp")(results))


def _learned(results: Results) -> float | None:
    rows = _rows(results, "behaviours")
    return sum(row["learned"] for row in rows) / sum(row["networks"] for row in rows) if rows else None


def _learned_by_chance(results: Results) -> float | None:
    least = results["config"]["least"]
    rows = _rows(results, "behaviours")
    return sum(row["by_chance"]["median"] >= least for row in rows) / len(rows) if rows else None


def _mirror(column: str) -> Figure:
    return lambda results: _middle(_rows(results, "denoising_beside_noising"), column)


def _as_theory_says(results: Results) -> float | None:
    rows = _rows(results, "planted_circuits")
    return sum(row["misses"] == row["theory_says"] for row in rows) / len(rows) if rows else None


def _nothing_missed(results: Results) -> float | None:
    rows = _rows(results, "planted_circuits")
    return sum(row["misses"] == "nothing" for row in rows) / len(rows) if rows else None


def _missed(results: Results, circuit: str, method: str) -> set[str]:
    """What is missed in either mode."""
    rows = _rows(results, "planted_circuits", circuit=circuit, method=method)
    return {role for row in rows for role in row["misses"].split(", ")} - {"nothing"}


def _false_negatives(results: Results) -> list[str]:
    """The statements of the claim that are so, in its order."""
    attention = {"query", "keys"}
    said = {
        "atp misses saturated attention": attention <= _missed(results, "saturated", "atp"),
        "the QK-fix finds its queries and keys": not attention & _missed(results, "saturated", "atp-qk"),
        "atp misses a cancelling head": "head" in _missed(results, "cancelling", "atp"),
        "GradDrop finds it": "head" not in _missed(results, "cancelling", "atp-star"),
    }
    return [text for text, so in said.items() if so] if _rows(results, "planted_circuits") else []


def _both_ways(column: str) -> Figure:
    def share(results: Results) -> float | None:
        rows = _rows(results, "head_kinds")
        count = sum(row["of"] for row in rows)
        return sum(row[column] for row in rows) / count if count else None

    return share


def _small(results: Results) -> float | None:
    shares = sorted(row["parts"] / row["of"] for row in _rows(results, "smallest_circuits", behaviour="ioi"))
    return shares[len(shares) // 2] if shares else None


def _by_chance(column: str) -> Figure:
    return lambda results: _middle(
        _rows(results, "circuits", behaviour="ioi", members="nodes", method="random"), column
    )


def _cmd(members: str, method: str) -> Figure:
    return lambda results: _middle(_rows(results, "circuits", members=members, method=method), "cmd")


def _less_chance(members: str, *methods: str) -> Figure:
    """CMD of the worst of these methods less that of circuits drawn at random."""

    def gap(results: Results) -> float | None:
        found = [value for method in methods if (value := _cmd(members, method)(results)) is not None]
        return _less(max(found), _cmd(members, "random")(results)) if found else None

    return gap


def _published(name: str) -> Figure:
    return lambda results: (results.get("published_circuit") or {}).get(name)


def _nothing(results: Results) -> None:
    return None


ATTRIBUTION = ("atp", "atp-qk", "atp-star", "ig", "relp")
MEASURED: dict[str, tuple[Figure, Figure]] = {
    "behaviours-learned": (_learned, _learned_by_chance),
    "heads-before-stream": (_apart("z", "resid_pre"), _apart("z", "resid_pre", "change")),
    "neurons-before-mlp-outputs": (_apart("neurons", "mlp_out"), _apart("neurons", "mlp_out", "change")),
    "values-before-queries": (_apart("v", "q"), _apart("v", "q", "change")),
    "qk-fix-helps-queries": (_gain("q", "atp-qk"), _gain("v", "atp-qk")),
    "qk-fix-helps-keys": (_gain("k", "atp-qk"), _gain("v", "atp-qk")),
    "relp-helps-mlp-outputs": (_gain("mlp_out", "relp"), _gain("attn_out", "relp")),
    "relp-helps-stream": (_gain("resid_pre", "relp"), _gain("attn_out", "relp")),
    "denoising-is-not-noising": (_mirror("differ_by"), _mirror("halves_of_the_prompts")),
    "planted-circuits-as-theory-says": (_as_theory_says, _nothing_missed),
    "two-false-negatives": (_false_negatives, lambda results: len(_missed(results, "chain", "atp"))),
    "heads-found-twice": (_both_ways("found_both_ways"), _both_ways("by_chance")),
    "small-circuit": (_small, _by_chance("needed")),
    "attribution-beats-chance": (_less_chance("nodes", *ATTRIBUTION), _less_chance("nodes", "exact")),
    "eap-ig-before-eap": (
        lambda results: _less(_cmd("edges", "eap")(results), _cmd("edges", "eap-ig")(results)),
        lambda results: _less(_cmd("edges", "random")(results), _cmd("edges", "eap")(results)),
    ),
    "gpt2-logit-difference": (_published("logit_difference"), _published("abc_logit_difference")),
    "gpt2-prefers-io": (_published("preferred"), _published("abc_preferred")),
    "gpt2-eight-prompts": (_published("eight_prompts"), _nothing),
    "gpt2-eight-prompts-swapped": (_published("eight_prompts_swapped"), _nothing),
    "gpt2-circuit": (_published("faithfulness"), _published("random_faithfulness")),
    "gpt2-name-movers": (_published("most_for"), _published("most_for_by_chance")),
    "gpt2-negative-name-movers": (_published("most_against"), _published("most_against_by_chance")),
    **{
        f"gpt2-{method}-{name}": (_pearson(site, method), _pearson(site, "change"))
        for method in ("atp", "relp")
        for name, site in {"stream": "resid_pre", "attention-outputs": "attn_out", "mlp-outputs": "mlp_out"}.items()
    },
}
