"""Each claim beside what was measured: which number of the results answers which claim, and its null.

The published values are in `claims.toml`; here stands only where the measurement is found. A figure that could not be
taken is None, and its claim then fails at its preset: what was not measured was not reproduced.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from micrographia.core.claims import Judged, judge, load_claims
from micrographia.labs.ioi.by_network import TAKINGS

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


def _pearson(site: str, method: str) -> Figure:
    return lambda results: _middle(
        _rows(results, "estimates_beside_exact_effects", site=site, method=method), "pearson"
    )


def _over_networks(claim: str, column: str) -> Figure:
    """The median over networks with its ends, of what was taken within each; see `by_network`."""
    return lambda results: next((row[column] for row in _rows(results, "judged_by_network", claim=claim)), None)


def _learned(results: Results) -> float | None:
    rows = _rows(results, "behaviours")
    return sum(row["learned"] for row in rows) / sum(row["networks"] for row in rows) if rows else None


def _form_alone(results: Results) -> float | None:
    """The best that any behaviour is answered by what form alone tells."""
    return max((row["by_chance"]["median"] for row in _rows(results, "behaviours") if row["by_chance"]), default=None)


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


def _published(name: str) -> Figure:
    return lambda results: (results.get("published_circuit") or {}).get(name)


def _nothing(results: Results) -> None:
    return None


MEASURED: dict[str, tuple[Figure, Figure]] = {
    "behaviours-learned": (_learned, _form_alone),
    **{claim: (_over_networks(claim, "judged"), _over_networks(claim, "null")) for claim in TAKINGS},
    "planted-circuits-as-theory-says": (_as_theory_says, _nothing_missed),
    "two-false-negatives": (_false_negatives, lambda results: len(_missed(results, "chain", "atp"))),
    "gpt2-logit-difference": (_published("logit_difference"), _published("abc_logit_difference")),
    "gpt2-prefers-io": (_published("preferred"), _published("abc_preferred")),
    "gpt2-eight-prompts": (_published("eight_prompts"), _nothing),
    "gpt2-circuit": (_published("faithfulness"), _published("random_faithfulness")),
    "gpt2-name-movers": (_published("most_for"), _published("most_for_by_chance")),
    "gpt2-negative-name-movers": (_published("most_against"), _published("most_against_by_chance")),
    **{
        f"gpt2-{method}-{name}": (_pearson(site, method), _pearson(site, "change"))
        for method in ("atp", "relp")
        for name, site in {"stream": "resid_pre", "attention-outputs": "attn_out", "mlp-outputs": "mlp_out"}.items()
    },
}
