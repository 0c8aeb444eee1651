"""The exact engine: patched runs that restart where they differ, many at once, read only where a metric looks.

`places` says what is written where, `donors` which values, `plan` which patches go together, and `engine` runs them.
Here are the names that other rooms use.
"""

from micrographia.core.sweep.donors import Reference, Replacement, replacement
from micrographia.core.sweep.engine import Plan, runs, sweep
from micrographia.core.sweep.metric_set import MetricSet
from micrographia.core.sweep.places import Donor, Patch, PatchGrid, Place, grids, places

__all__ = [
    "Donor",
    "MetricSet",
    "Patch",
    "PatchGrid",
    "Place",
    "Plan",
    "Reference",
    "Replacement",
    "grids",
    "places",
    "replacement",
    "runs",
    "sweep",
]
