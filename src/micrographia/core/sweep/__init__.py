"""The exact engine: patched runs that restart where they differ, many at once, read only where a metric looks.

`places` says what is written where, `donors` which values, `plan` which patches go together, and `engine` runs them.
Here are the names that other rooms use.
"""

from micrographia.core.sweep.donors import Reference, Replacement, replacement
from micrographia.core.sweep.engine import Plan, runs, sweep
from micrographia.core.sweep.places import Donor, Grid, Patch, Place, grids, places
from micrographia.core.sweep.reading import Reading

__all__ = [
    "Donor",
    "Grid",
    "Patch",
    "Place",
    "Plan",
    "Reading",
    "Reference",
    "Replacement",
    "grids",
    "places",
    "replacement",
    "runs",
    "sweep",
]
