"""Results of methods as pictures, on their own and in a notebook."""

import numpy as np
import pytest
import torch

import micrographia as mg
from micrographia.core.errors import UserError
from micrographia.core.small.trained import load_trained
from micrographia.labs.workbench.prompts import position_names
from micrographia.labs.workbench.shown import figures_of
from micrographia.methods.attribution.edges import edge_attribution
from miniature import CLEAN, CORRUPT


@pytest.fixture(scope="module")
def model(trained):
    return load_trained(trained)


@pytest.fixture(scope="module")
def pairs(model):
    return mg.from_texts(model, [mg.PairText(CLEAN, CORRUPT, "Mary", "John")])


@pytest.fixture(scope="module")
def metrics(model, pairs):
    return mg.metrics_of(["logit-diff"], pairs, model)


def test_patches_come_back_as_the_grid_they_were_made_from(model, pairs, metrics):
    (cells,) = mg.grids(model, "L*.z", ["layer", "pos", "head"], 15)
    mixed = list(reversed(cells.patches))
    both = mg.patch_both(model, pairs, metrics, mixed)
    (figure,) = figures_of(both, position_names(pairs, model))
    z = np.asarray(figure.data["z"])
    assert z.shape == (2, 4, 15)
    effect = both.denoise.effects()[mixed.index(cells.patches[cells.patches.index(mixed[0])]), 0, 0]
    gap = both.denoise.clean.mean() - both.denoise.corrupt.mean()
    assert z[0, 3, 14] == pytest.approx(float(effect / gap), rel=1e-4)
    assert figure.data["x_names"][10] == "10 John / Mary"


def test_results_show_themselves_in_a_notebook(model, pairs, metrics):
    done = mg.patch(model, pairs, metrics, mg.places(model, "L*.mlp_out", ["layer", "pos"], 15))
    assert done._repr_html_().startswith("<iframe srcdoc=")
    scored = mg.attribute(model, pairs, metrics[0], ["L*.z", "L*.neurons"])
    assert "carried-data" in mg.show(scored).html
    traced = mg.trace(model, pairs.clean, [2], torch.Generator().manual_seed(0), n_samples=2)
    assert traced._repr_html_().startswith("<iframe srcdoc=")
    edges = edge_attribution(model, pairs, metrics[0])
    assert figures_of(edges)[0].kind == "graph"


def test_what_makes_no_grid_is_refused(model, pairs, metrics):
    some = mg.places(model, "L*.resid_pre", ["layer", "pos"], 15)[:20]
    with pytest.raises(UserError, match="no full grid"):
        figures_of(mg.patch(model, pairs, metrics, some))
    with pytest.raises(UserError, match="What can be shown"):
        mg.show(3)
