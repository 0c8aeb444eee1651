"""The lab's pictures and tables, as Figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from micrographia.core.figures import Figure
from micrographia.labs.facts.config import Config
from micrographia.labs.facts.measure import SeedFound


def figures_of(config: Config, found: Sequence[SeedFound], rows: Sequence[Mapping[str, Any]]) -> list[Figure]:
    return []
