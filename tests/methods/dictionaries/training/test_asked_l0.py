"""Who asks for an L0 gets it, on rows that training has not seen, whatever the scale of the activations."""

import pytest
from worlds import fresh, fvu, mean_l0, world

from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.train import Course, train_dictionaries

WORLDS = {
    "small numbers": ({"scale": 1e-3}, 64, 4.0),
    "large numbers": ({"scale": 200.0, "d": 24, "n": 60}, 96, 10.0),
    "wide": ({"d": 12, "n": 40, "active": 2.0}, 256, 2.5),
    "a large offset": ({"offset": 3.0}, 64, 6.0),
}


@pytest.mark.parametrize("name", WORLDS)
def test_jumprelu_has_the_l0_that_was_asked_for(name):
    fields, width, l0 = WORLDS[name]
    batches = world(**fields)
    shown = []
    recipe = Recipe(kind="jumprelu", n_latents=width, steps=150, l0=l0, lr=3e-3)
    d = batches(0).x.shape[-1]
    (found,) = train_dictionaries(batches, [recipe], d_in=d, watch=lambda event: shown.append(event.values))
    assert mean_l0(found, fresh(batches)[0]) == pytest.approx(l0, rel=0.05)
    assert (found.weights.threshold > 0).all()
    # Not only by the last touch: training itself kept it.
    late = sum(each["l0"] for each in shown[-30:]) / 30
    assert late == pytest.approx(l0, rel=0.15)
    assert found.about.training["threshold_factor"] == pytest.approx(1, abs=0.15)


def test_jumprelu_explains_about_as_much_as_batchtopk_at_the_same_l0():
    batches, shape = world(d=24, n=60, scale=200.0), {"n_latents": 96, "steps": 200, "lr": 3e-3}
    recipes = [Recipe(kind="jumprelu", l0=8.0, **shape), Recipe(kind="batchtopk", k=8, **shape)]
    jump, top = train_dictionaries(batches, recipes, d_in=24)
    x, target = fresh(batches)
    assert fvu(jump, x, target) < 1.1 * fvu(top, x, target) < 0.4


@pytest.mark.parametrize("steps", [30, 200])
@pytest.mark.parametrize("prefixes", [(), (8, 20)])
def test_batchtopk_has_its_k_by_its_threshold_after_few_steps_and_many(steps, prefixes):
    batches = world()
    recipe = Recipe(kind="batchtopk", n_latents=64, steps=steps, k=4, lr=3e-3, prefixes=prefixes)
    (found,) = train_dictionaries(batches, [recipe], d_in=16)
    assert found.form.activation == "jumprelu"
    assert mean_l0(found, fresh(batches)[0]) == pytest.approx(4, rel=0.05)


def test_the_running_threshold_of_batchtopk_is_right_from_its_first_steps():
    """Without batches to count on, as at a look during training: an average corrected for its start."""
    batches, seen = world(), {}
    recipe = Recipe(kind="batchtopk", n_latents=64, steps=60, k=4, lr=1e-4)

    def look(step, dictionaries):
        seen[step] = mean_l0(dictionaries[0], fresh(batches)[0])

    train_dictionaries(batches, [recipe], d_in=16, course=Course(looks=(1, 30), look=look))
    assert seen[1] == pytest.approx(4, rel=0.1)
    assert seen[30] == pytest.approx(4, rel=0.1)


def test_thresholds_may_be_set_on_batches_held_out():
    batches, other = world(), world(active=6.0)
    recipe = Recipe(kind="batchtopk", n_latents=64, steps=60, k=4)
    (found,) = train_dictionaries(batches, [recipe], d_in=16, course=Course(held_out=other))
    assert "held-out" in found.about.training["calibration"]
    assert mean_l0(found, fresh(other)[0]) == pytest.approx(4, rel=0.05)
    assert mean_l0(found, fresh(batches)[0]) < 3.5
