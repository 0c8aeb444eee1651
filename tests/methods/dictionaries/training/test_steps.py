"""The parts of a step: start, rates, the decoder's constraint, p-annealing; and the published recipes."""

import json
import math
from dataclasses import replace

import pytest
import torch
from worlds import world

from micrographia.core.errors import BadConfig
from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.training.adam import adam_step, rate_share
from micrographia.methods.dictionaries.training.presets import PRESETS, shortened
from micrographia.methods.dictionaries.training.recipe import Recipe, recipe_fields, recipe_from
from micrographia.methods.dictionaries.training.schedule import power_after
from micrographia.methods.dictionaries.training.stack import stacks
from micrographia.methods.dictionaries.training.start import geometric_median, measured_scale
from micrographia.methods.dictionaries.training.train import train_dictionaries
from micrographia.methods.dictionaries.training.trainer import Trainer, first_batches, fresh_state


def trainer_of(recipe, batches=None, d=16):
    batches = batches or world(scale=5.0)
    (stack,) = stacks([recipe], d, d, transcodes=False)
    first = first_batches(batches, recipe.steps)
    return Trainer(stack, fresh_state(stack, first, torch.zeros((), dtype=torch.float64)), batches)


def test_the_geometric_median_is_where_unit_vectors_to_all_rows_cancel():
    rows = torch.randn(400, 5, generator=generator(0), dtype=torch.float64)
    rows[:40] += 100.0  # outliers, which move the mean by 10
    at = geometric_median(rows)
    away = (rows - at) / (rows - at).norm(dim=1, keepdim=True)
    assert away.mean(0).norm() < 1e-4
    assert at.norm() < 1 < rows.mean(0).norm()


@pytest.mark.parametrize("layers", [1, 2])
def test_scaled_inputs_have_the_norm_of_their_convention(layers):
    rows = 3 * torch.randn(1, 500, 12, generator=generator(0)) + 1
    parts = rows.unflatten(-1, (layers, -1))
    unit = Recipe(kind="topk", k=2, layers=layers)
    scaled = parts * measured_scale(unit, rows)[..., None]
    torch.testing.assert_close(scaled.square().sum(-1).mean(-2), torch.ones(1, layers))
    scaled = parts * measured_scale(replace(unit, scale="root-d"), rows)[..., None]
    torch.testing.assert_close(scaled.norm(dim=-1).mean(-2), torch.full((1, layers), (12 / layers) ** 0.5))
    assert measured_scale(unit, torch.zeros(1, 3, 12)).eq(1).all()


def test_training_starts_as_the_recipe_says():
    start = trainer_of(Recipe(kind="topk", k=3, n_latents=24, steps=9, row_norm=0.1, encoder_scale=2.0)).weights
    torch.testing.assert_close(start["decoder"].norm(dim=-1), torch.full((1, 24), 0.1, dtype=torch.float64))
    torch.testing.assert_close(start["encoder"], 2 * start["decoder"])
    assert not start["b_enc"].any()
    assert start["b_dec"].any()
    zero = trainer_of(
        Recipe(kind="topk", k=3, n_latents=24, steps=9, decoder_zero=True, rows="free", b_dec_start="zero")
    )
    assert not zero.weights["decoder"].any()
    assert zero.weights["encoder"].norm(dim=-1).allclose(torch.ones(1, 24, dtype=torch.float64))
    assert not zero.weights["b_dec"].any()


def test_rates_rise_hold_and_fall():
    recipe = Recipe(kind="topk", k=1, steps=100, lr_warmup=10, lr_decay=20)
    shares = [rate_share(recipe, step) for step in range(100)]
    assert shares[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert set(shares[10:79]) == {1.0}
    assert shares[80:] == pytest.approx([(100 - step) / 21 for step in range(80, 100)])
    gemma = [rate_share(replace(PRESETS["gemma_scope"](), lr_warmup=1000), step) for step in (0, 499, 999, 5000)]
    assert gemma == pytest.approx([0.1, 0.55, 1.0, 1.0], abs=1e-4)


def test_decoder_rows_keep_their_norm_and_feel_no_gradient_along_them():
    trainer = trainer_of(Recipe(kind="topk", k=3, n_latents=24, steps=9, lr=1e-2))
    decoder = trainer.weights["decoder"].clone()
    trainer.gradient.copy_(torch.randn(trainer.gradient.shape, generator=generator(1), dtype=torch.float64))
    adam_step(trainer.stack, trainer.state, trainer.weights, trainer.gradient, trainer.slopes)
    mean = trainer.layout.views(trainer.state.mean)["decoder"]
    assert (mean * decoder).sum(-1).abs().max() < 1e-15  # what Adam saw
    assert mean.any()
    torch.testing.assert_close(trainer.weights["decoder"].norm(dim=-1), torch.ones(1, 24, dtype=torch.float64))
    assert not torch.equal(trainer.weights["decoder"], decoder)


def test_a_step_is_adam_s():
    recipe = Recipe(
        kind="topk", k=3, n_latents=24, steps=40, lr=1e-2, rows="free", betas=(0.8, 0.95), eps=1e-6, clip=0.5
    )
    trainer = trainer_of(recipe)
    weights, mean, square = (trainer.state.weights.clone() * keep for keep in (1, 0, 0))
    for step in range(5):
        slope = torch.randn(weights.shape, generator=generator(step), dtype=torch.float64)
        trainer.gradient.copy_(slope)
        adam_step(trainer.stack, trainer.state, trainer.weights, trainer.gradient, trainer.slopes)
        trainer.state = trainer.state._replace(step=step + 1)
        slope = slope * 0.5 / slope.norm()
        mean, square = 0.8 * mean + 0.2 * slope, 0.95 * square + 0.05 * slope**2
        move = mean / (1 - 0.8 ** (step + 1)) / ((square / (1 - 0.95 ** (step + 1))) ** 0.5 + 1e-6)
        weights = weights - 1e-2 * rate_share(recipe, step) * move
    torch.testing.assert_close(trainer.state.weights, weights, atol=1e-12, rtol=1e-10)


def test_p_annealing_changes_its_coefficient_so_that_the_penalty_stays():
    recipe = Recipe(
        kind="relu", penalty="lp", sparsity=0.05, p_end=0.4, p_changes=3, p_start_at=0.0, n_latents=24, steps=80,
        sparsity_warmup=0, lr=1e-3,
    )  # fmt: skip
    batches = world()
    trainer = trainer_of(recipe, batches)
    penalties, coefficients = [], []
    for step in range(80):
        coefficients.append(trainer.state.coefficient.item())
        penalties.append(trainer.step(batches(step))["sparsity"].item())
    changes = [step for step in range(1, 80) if coefficients[step] != coefficients[step - 1]]
    assert changes == [20, 40, 60]
    assert [power_after(recipe, i) for i in range(4)] == pytest.approx([1.0, 0.8, 0.6, 0.4])
    for step in changes:
        assert abs(coefficients[step] / coefficients[step - 1] - 1) > 0.02
        assert penalties[step] == pytest.approx(penalties[step - 1], rel=0.1)


@pytest.mark.parametrize("name", PRESETS)
def test_a_published_recipe_goes_to_json_and_back_and_trains_for_less(name):
    recipe = PRESETS[name]()
    assert recipe_from(json.loads(json.dumps(recipe_fields(recipe)))) == recipe
    assert shortened(recipe, recipe.steps) == recipe
    small = shortened(
        replace(recipe, n_latents=128, k=recipe.k and 4, prefixes=tuple(p // 256 for p in recipe.prefixes)),
        12,
        batch=256,
    )
    assert small.steps == 12
    (found,) = train_dictionaries(world(), [small], d_in=16)
    assert all(bool(value.isfinite().all()) for value in found.weights.named().values())


def test_published_numbers_that_peers_get_wrong():
    assert PRESETS["neel_2023"]().sparsity == pytest.approx(1.2288)  # 3e-4 summed over a batch of 4,096
    gemma = PRESETS["gemma_scope"]()
    assert (gemma.betas, gemma.bandwidth, gemma.threshold, gemma.lr, gemma.scale) == (
        (0.0, 0.999),
        1e-3,
        1e-3,
        7e-5,
        "unit",
    )
    assert math.isclose(Recipe(kind="topk", k=1, n_latents=2**14).chosen_lr, 2e-4)


def test_a_recipe_with_unknown_or_odd_fields_is_refused():
    with pytest.raises(BadConfig, match="no lambda"):
        recipe_from({"lambda": 3})
    with pytest.raises(BadConfig, match="n_latents takes a whole number"):
        recipe_from({"n_latents": "many", "k": 3})
