"""The formulas of a suite's cost, held against what torch counts on a toy suite."""

import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from micrographia.core.runtime import generator
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.core.small.weights import init_weights
from micrographia.core.stream.batches import Activations
from micrographia.methods.dictionaries.training.dense import dense
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.train import Course, train_dictionaries

D, WIDTH, BATCH, TOKENS = 64, 512, 128, 64


@pytest.fixture
def formulas(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    monkeypatch.delitem(sys.modules, "suite_formulas", raising=False)
    import suite_formulas  # a script, no package

    return suite_formulas


def test_a_harvest_costs_two_parameters_a_token(formulas):
    arch = Architecture(d_vocab=9, d_vocab_out=9, n_ctx=8, n_layers=2, d_model=D, n_heads=4, d_head=16, d_mlp=4 * D)
    weights = init_weights(arch, generator(0))
    model = Transformer(arch, weights)
    parameters = 2 * (4 * D * D + 8 * D * D)
    rows = torch.zeros(TOKENS // 8, 8, dtype=torch.long)
    with FlopCounterMode(display=False) as counted:
        model.run(rows, keep=["L1.resid_post"], stop=2)
    job = formulas.SuiteJob(2, (D,), parameters, {WIDTH: TOKENS})
    assert counted.get_total_flops() == pytest.approx(formulas.harvest(job), rel=0.05)


def test_training_costs_ten_products_of_width_a_token(formulas):
    def batches(step):
        return Activations(torch.randn(BATCH, D, generator=generator(step)))

    def flops(steps: int) -> int:
        recipes = [Recipe(kind="relu", sparsity=0.1, n_latents=WIDTH, steps=steps, seed=i) for i in range(3)]
        with FlopCounterMode(display=False) as counted:
            train_dictionaries(batches, recipes, d_in=D, course=Course(plans={"relu": dense}, held_out=batches))
        return counted.get_total_flops()

    job = formulas.SuiteJob(1, (D,), 0, {WIDTH: 4 * BATCH}, 3)
    assert flops(7) - flops(3) == pytest.approx(formulas.training(job), rel=0.05)


def test_the_published_sizes_follow(formulas):
    assert sum(map(formulas.stored, formulas.SUITES.values())) / 2**50 == pytest.approx(17, rel=0.1)
    assert "18.4 PiB" in formulas.page()


def test_the_page_of_the_lab_has_this_table(formulas):
    root = Path(__file__).parents[2]
    assert formulas.page() in (root / "docs" / "labs" / "gemma_scope.md").read_text(encoding="utf-8")
    assert (
        formulas.page() == (root / "benchmarks" / "results" / "suite_formulas.md").read_text(encoding="utf-8").strip()
    )
