"""The formulas count what a model does: held against torch's own counter, and against sums written out."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def formulas(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import formulas  # a script, no package

    return formulas


@pytest.fixture
def shapes(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import shapes

    return shapes


@pytest.mark.parametrize("name", ["gpt2", "7b"])
def test_passes_cost_what_torch_counts(name, formulas, shapes):
    job = formulas.job(name, smoke=True)
    module = shapes.model(name, smoke=True).requires_grad_(False)
    module.config._attn_implementation = "eager"  # the counter sees its products, all of them
    begun = torch.randn(job.n_prompts, job.n_pos, job.shape.d_model, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        logits = module(inputs_embeds=begun, use_cache=False).logits
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    assert forward.get_total_flops() == formulas.forward(job, formulas.all_logits(job))
    assert backward.get_total_flops() == formulas.backward(job, formulas.all_logits(job))


def test_a_restarted_sweep_costs_the_sum_over_its_patches(formulas):
    job = formulas.job("gpt2", smoke=True)
    cost = 0
    for each in range(job.shape.n_layers):
        for t in range(job.n_pos):
            left = (job.shape.n_layers - each) * formulas.layer(job, job.n_prompts * (job.n_pos - t))
            cost += left + 2 * job.shape.d_model * 2 * job.n_prompts
    assert formulas.resid_sweep(job) == cost
    assert formulas.attribution(job) < formulas.resid_sweep(job) < formulas.neuron_sweep(job)


def test_gpt3_has_the_size_its_paper_gives(formulas):
    job = formulas.job("gpt3")
    assert job.n_neurons == 96 * 4 * 12288
    assert job.parameters == pytest.approx(175e9, rel=0.005)
    told = formulas.costs({"gpt3": job})
    assert "4.72 M" in told
    assert told.count("\n") == len(formulas.ROWS) + 1


def test_the_latest_real_result_is_told_and_no_smoke_test(formulas, tmp_path):
    job = formulas.job("gpt2", smoke=True)
    assert "Nothing is stored" in formulas.measured(job, tmp_path)
    one = {"ours": "micrographia", "theirs": "two plain forwards and a backward"}
    one |= {"ours_seconds": [2.0, 2.0, 7.0], "theirs_seconds": [4.0]}
    for day, smoke, seconds in (("2026-01-01", False, 9.0), ("2026-01-02", False, 2.0), ("2026-01-03", True, 5.0)):
        result = {
            "date": day,
            "smoke": smoke,
            "machine": {"device": "cpu"},
            "memory": {},
            "comparisons": [{**one, "ours_seconds": [seconds]}],
        }
        (tmp_path / f"attribution-{day}.json").write_text(formulas.json.dumps(result))
    told = formulas.measured(job, tmp_path).splitlines()
    rate = formulas.number(formulas.attribution(job) / 2, "FLOP/s")
    assert next(line for line in told if line.startswith("| micrographia | 2 |")).endswith(f"| {rate} |")


def test_the_table_that_is_kept_is_what_the_script_prints(formulas):
    kept = (BENCHMARKS / "results" / "formulas.md").read_text()
    told = formulas.costs({name: formulas.job(name) for name in formulas.TITLES})
    assert told in kept, "make it anew: python benchmarks/formulas.py > benchmarks/results/formulas.md"
