"""What comes out of training computes what training computed, in the units of the activations as they come."""

from dataclasses import replace

import pytest
import torch
from worlds import world

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.methods.dictionaries.training.finished import dictionaries
from micrographia.methods.dictionaries.training.plans import latents_of
from micrographia.methods.dictionaries.training.prefixes import forward
from micrographia.methods.dictionaries.training.recipe import Recipe, recipe_from
from micrographia.methods.dictionaries.training.schedule import now
from micrographia.methods.dictionaries.training.stack import stacks
from micrographia.methods.dictionaries.training.train import train_dictionaries
from micrographia.methods.dictionaries.training.trainer import Trainer, first_batches, fresh_state

KINDS = {
    "relu": {"kind": "relu", "sparsity": 0.05},
    "april": {"kind": "relu", "sparsity": 0.5, "norm_weighted": True, "rows": "free", "scale": "root-d"},
    "gated": {"kind": "gated", "sparsity": 0.05},
    "topk": {"kind": "topk", "k": 4},
    "abstopk": {"kind": "abstopk", "k": 4},
    "groupmax": {"kind": "groupmax", "k": 4},
    "jumprelu": {"kind": "jumprelu", "l0": 4.0},
    "crosscoder": {"kind": "relu", "sparsity": 0.05, "layers": 2, "norm_weighted": True, "rows": "free"},
    "transcoder": {"kind": "relu", "sparsity": 0.05, "d_out": 10},
    "skip transcoder": {"kind": "topk", "k": 4, "skip": True, "d_out": 10},
}


def trained(fields, steps=12):
    fields = dict(fields)
    d_out = fields.pop("d_out", None)
    batches = world(scale=7.0, d_out=d_out)
    recipe = Recipe(n_latents=32, steps=steps, lr=1e-2, **fields)
    (stack,) = stacks([recipe], 16, d_out or 16, transcodes=d_out is not None)
    trainer = Trainer(
        stack, fresh_state(stack, first_batches(batches, steps), torch.zeros((), dtype=torch.float64)), batches
    )
    for step in range(steps):
        trainer.step(batches(step))
    return trainer, batches


@pytest.mark.parametrize("name", KINDS)
def test_the_scale_is_folded_away(name):
    """The same latents times the scale, and the same reconstruction."""
    trainer, batches = trained(KINDS[name])
    (found,) = dictionaries([trainer])
    batch = trainer.read(99)
    moment = now(trainer.stack, trainer.state, trainer.group)
    f = latents_of(trainer.stack, trainer.weights, batch, moment).f
    out = batch.target[0] + -forward(trainer.stack, trainer.weights, f, batch, whole=True).residual[0]
    scale = trainer.state.scale_out[0]
    assert not torch.isclose(scale, torch.ones_like(scale), atol=0.05).any()
    x = batches(99).x.double()
    x = x.unflatten(-1, found.form.axes) if found.form.axes else x
    torch.testing.assert_close(found.encode(x), f[0] / scale.mean(), atol=1e-10, rtol=1e-10)
    wide = scale.repeat_interleave(out.shape[-1] // len(scale))
    reconstruction = found.reconstruct(x)
    flat = reconstruction.flatten(-2) if found.form.axes else reconstruction
    torch.testing.assert_close(flat, out / wide, atol=1e-9, rtol=1e-9)
    assert f.any()


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_learns(name):
    trainer, batches = trained(KINDS[name], steps=1)
    trainer, batches = trained(KINDS[name], steps=60)
    losses = [trainer.step(batches(step))["reconstruction"].item() for step in (0, 1)]
    first, _ = trained(KINDS[name], steps=1)
    assert losses[0] < 0.8 * first.step(batches(0))["reconstruction"].item()


def test_the_saved_config_has_the_recipe_and_every_loss_term_with_its_reduction():
    recipe = Recipe(kind="batchtopk", n_latents=32, steps=5, k=3, prefixes=(4, 8), revival="auxk", dead_after=300)
    (found,) = train_dictionaries(world(), [recipe], d_in=16)
    training = found.about.training
    assert recipe_from(training["recipe"]) == replace(recipe, seed=0)
    assert training["loss_terms"].keys() == {"reconstruction", "prefixes", "revival"}
    for text in training["loss_terms"].values():
        assert "mean over the batch" in text or "of the reconstruction term" in text
    assert training["steps"] == 5
    assert isinstance(found, Dictionary)
