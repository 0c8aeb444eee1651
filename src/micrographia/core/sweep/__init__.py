"""The exact patching engine: patched runs that restart where they differ, in batches, with only the logits needed.

`places` defines what is written where, `donors` the values, `plan` which patches run together, and `engine` runs them.
This module exports the names that other packages use.
"""

from micrographia.core.sweep.donors import Reference, Replacement, replacement
from micrographia.core.sweep.engine import Plan, runs, sweep
from micrographia.core.sweep.metric_set import MetricSet
from micrographia.core.sweep.patched import Patched
from micrographia.core.sweep.places import Donor, Patch, PatchGrid, Place, count_latents, grids, places

__all__ = [
    "Donor",
    "MetricSet",
    "Patch",
    "PatchGrid",
    "Patched",
    "Place",
    "Plan",
    "Reference",
    "Replacement",
    "count_latents",
    "grids",
    "places",
    "replacement",
    "runs",
    "sweep",
]
