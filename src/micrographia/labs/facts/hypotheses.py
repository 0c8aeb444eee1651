"""The naive hypotheses of the study, a row each: what it says, what follows, what was measured, and the verdict.

A hypothesis is falsified where what follows from it is not so, whether or not the study could falsify it; the study's
own verdict stands beside.
"""

from collections.abc import Mapping
from typing import Any

from micrographia.core.claims import Measured


def hypotheses(measures: Mapping[str, Measured]) -> list[dict[str, Any]]:
    return []
