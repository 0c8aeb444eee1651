"""The dictionaries of a Run: the published recipe at several seeds, and what is changed in it to see what follows.

The published recipe is that of Nanda's code (1L-Sparse-Autoencoder, `utils.py` and `train.py`), its times in proportion
to the length of training; resampling is Anthropic's (Bricken et al. 2023, "Neuron resampling"). Where it must differ:
the coefficient of L1 and the rate are the config's, for inputs scaled to a mean squared norm of 1; the first token of a
row is not trained on.
"""

import dataclasses

from jaxtyping import Float
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.sites import Site
from micrographia.core.stream.batches import Activations, Batches
from micrographia.labs.dictionary.config import Config
from micrographia.methods.dictionaries.evaluation.reading import ReadWrite
from micrographia.methods.dictionaries.training.recipe import Recipe

SITE = Site("neurons", 0)
PLACE = ReadWrite(SITE, SITE)
RESAMPLED, PROJECTED, JUMPRELU = "resampled", "projected", "jumprelu"
LENGTH, AGAIN = 488_281, 30_000  # steps of the published training, and between two re-initialisations
RARE_THERE = 10**-5.5  # firings a token below which a latent is re-initialised
RESAMPLING = (1 / 8, 1 / 4, 3 / 8, 1 / 2)  # 25,000 ... 100,000 of 200,000 steps
SILENT = 1 / 16  # ... of those that were silent for 12,500
DESCRIBED = {
    "published": "ReLU and L1, dead latents drawn anew",
    RESAMPLED: "the same, with Anthropic's resampling of dead latents",
    PROJECTED: "the same, the rare direction of the first taken out of what the encoder reads",
    JUMPRELU: "JumpReLU at the L0 of the first",
}


def published_names(config: Config) -> list[str]:
    """The names of the dictionaries of the published recipe: by their seeds."""
    return [f"seed {config.seed + i}" for i in range(config.dictionaries.seeds)]


def kind_of(name: str) -> str:
    """What was done to a dictionary of this name, in words."""
    return DESCRIBED.get(name, DESCRIBED["published"])


def first_recipes(config: Config, width: int) -> dict[str, Recipe]:
    """Those that need nothing but the config: the published ones, and that with resampling."""
    found = {
        name: dataclasses.replace(_published(config, width), seed=config.seed + i)
        for i, name in enumerate(published_names(config))
    }
    steps, batch = config.dictionaries.dictionary_steps, config.dictionaries.activations
    return found | {
        RESAMPLED: dataclasses.replace(
            _published(config, width),
            revival="resample",
            revive_at=tuple(sorted({max(1, round(share * steps)) for share in RESAMPLING})),
            dead_after=max(1, round(SILENT * steps)) * batch,
            revival_inputs=16 * batch,
        )
    }


def later_recipes(config: Config, width: int, l0: float) -> dict[str, Recipe]:
    """JumpReLU with as many active latents as the first dictionary has."""
    d = config.dictionaries
    recipe = Recipe(
        kind="jumprelu",
        n_latents=width,
        steps=d.dictionary_steps,
        batch=d.activations,
        l0=l0,
        lr=d.dictionary_lr,
        seed=config.seed,
    )
    return {JUMPRELU: recipe}


def projected_recipe(config: Config, width: int) -> Recipe:
    """The published recipe for inputs that are not what should come out, so that b_dec is not subtracted."""
    return dataclasses.replace(_published(config, width), subtract_b_dec=False)


def _published(config: Config, width: int) -> Recipe:
    d = config.dictionaries
    every = max(1, round(d.dictionary_steps * AGAIN / LENGTH))
    return Recipe(
        kind="relu",
        n_latents=width,
        steps=d.dictionary_steps,
        batch=d.activations,
        sparsity=d.l1,
        sparsity_warmup=0,
        lr=d.dictionary_lr,
        betas=(0.9, 0.99),
        lr_warmup=0,
        lr_decay=0,
        rows="projected",  # their code forgot to set the norms again
        encoder_start="kaiming",
        b_dec_start="zero",
        revival="reinitialise",
        revive_at=tuple(range(every, d.dictionary_steps, every)),
        rare=RARE_THERE,
        seed=config.seed,
    )


def blind_batches(batches: Batches, direction: Float[Tensor, "d"]) -> Batches:
    """The same batches with a direction taken out of what is read, not of what should come out."""

    def batch(step: int) -> Activations:
        x = batches(step).x
        return Activations(project_out(x, direction), x)

    return batch


def project_out(x: Float[Tensor, "*at d"], direction: Float[Tensor, "d"]) -> Float[Tensor, "*at d"]:
    """x less its part along a direction of length 1."""
    unit = direction.to(x)
    return x - (x @ unit)[..., None] * unit


def blind_to(dictionary: Dictionary, direction: Float[Tensor, "d"]) -> Dictionary:
    """The same dictionary of whole inputs: (x - (x . r) r) W = x (W - r (r W)), so that it reads nothing along r.

    It is exact where b_dec is not subtracted from the input, as in a dictionary of `projected_recipe`.
    """
    assert not dictionary.form.subtract_b_dec
    w = dictionary.weights
    blind = dataclasses.replace(w, W_enc=project_out(w.W_enc.T, direction).T.contiguous())
    return dataclasses.replace(dictionary, weights=blind)


def at_neurons(dictionary: Dictionary) -> Dictionary:
    """The same dictionary, told where it reads and writes."""
    return dataclasses.replace(dictionary, about=dataclasses.replace(dictionary.about, site=SITE, target=None))
