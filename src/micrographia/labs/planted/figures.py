"""What each method misses of each planted circuit, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from micrographia.core import figures
from micrographia.core.figures import Figure
from micrographia.core.titles import METHODS


def of_findings(rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """A row for each circuit and direction, a column for each method."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    named: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        star = "" if row["misses"] == row["theory_says"] else " *"
        found = named.setdefault((row["circuit"], row["mode"]), {"circuit": row["circuit"], "mode": row["mode"]})
        found[row["method"]] = f"{row['misses']}{star}"
    return [
        figures.table(
            "planted",
            "Planted circuits: what each method misses",
            list(named.values()),
            columns={"circuit": "circuit", "mode": "direction"} | {name: METHODS[name] for name in methods},
            caption="Seven circuits built by hand, whose every part is known. A star marks what theory does not "
            "predict.",
            claims=("planted-circuits-as-theory-says", "two-false-negatives"),
            group="Planted circuits",
        )
    ]
