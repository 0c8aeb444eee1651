"""A few steps of each `tiny()` give the losses that they gave when they were recorded (see record.py)."""

from itertools import pairwise

import pytest
from record import LABS, STEPS, golden_losses

TOLERANCE = 1e-6  # relative; float32 rounding alone moves these losses by 1e-8 (against float64, and plan against plan)


@pytest.mark.parametrize("lab", LABS)
def test_the_first_steps_are_those_recorded(lab):
    assert LABS[lab]() == pytest.approx(golden_losses(lab), rel=TOLERANCE)


@pytest.mark.parametrize("lab", LABS)
def test_the_recorded_steps_could_tell_a_change(lab):
    """They move by far more than the tolerance at each step, and no two are alike."""
    losses = golden_losses(lab)
    assert len(losses) == STEPS
    assert all(abs(after / before - 1) > 10 * TOLERANCE for before, after in pairwise(losses[1:]))
