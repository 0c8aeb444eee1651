"""Recipe: all choices in training one dictionary, as a value that goes to JSON and back. Published ones: `presets`.

All coefficients are for inputs in the units of `scale`; every loss term is a sum over dims or latents and a mean over
the batch. Steps count optimiser steps; ages of latents count rows of the batch (tokens).
"""

import dataclasses
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from micrographia.core.config import refuse_misfits, validate
from micrographia.core.errors import BadConfig

Kind = Literal["relu", "gated", "topk", "batchtopk", "jumprelu", "abstopk", "groupmax"]
Penalty = Literal["auto", "none", "l1", "lp", "l0", "l0-target", "l0-quadratic", "tanh"]
Scaling = Literal["unit", "root-d", "none"]
Rows = Literal["unit", "projected", "free"]
Revival = Literal["none", "auxk", "ghost", "resample", "reinitialise"]

COUNTED = ("topk", "batchtopk", "abstopk", "groupmax")
AUTO: Mapping[Kind, Penalty] = {"relu": "l1", "gated": "l1", "jumprelu": "l0-target"}
"""The penalty of a kind; those that count their latents need none."""
OF_JUMPRELU = ("l0", "l0-target", "l0-quadratic", "tanh")
TARGETED = ("l0-target", "l0-quadratic")
"""The penalties of an L0 that is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How to train one dictionary."""

    kind: Kind = "batchtopk"
    """The activation: relu, gated, topk, batchtopk (the k * batch largest of a batch), jumprelu, abstopk, groupmax."""
    n_latents: int = 4096
    """How many latents."""
    steps: int = 10_000
    """Optimiser steps."""
    batch: int | None = None
    """Rows of a batch over all ranks, where the recipe is for that number; None: any."""
    k: int | None = None
    """Active latents a row, of the kinds that count them."""
    l0: float | None = None
    """The mean number of active latents asked for, by the penalties l0-target and l0-quadratic."""
    penalty: Penalty = "auto"
    """What keeps the latents sparse; auto: l1 of relu and gated, l0-target of jumprelu, none of the others."""
    sparsity: float | None = None
    """The penalty's coefficient; None: 1.0 for l0-target, whose multiplier is found; else give it."""
    norm_weighted: bool = False
    """Whether a latent counts in the penalty by the norm of its decoder row (summed over layers, of a crosscoder)."""
    sparsity_warmup: int | None = None
    """Steps in which the coefficient rises linearly from 0; None: a tenth of all, but none for l0-target."""
    lr: float | None = None
    """Adam's rate; None: 2e-4 / sqrt(n_latents / 2^14) (Gao et al. 2024, arXiv 2406.04093, as peers scale it)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decays of mean and square."""
    eps: float = 1e-8
    """Adam's epsilon."""
    lr_warmup: int | None = None
    """Steps of warm-up; None: a twentieth of all, at most 1,000."""
    lr_warmup_from: float = 0.0
    """The share of the rate at the first step."""
    lr_warmup_shape: Literal["linear", "cosine"] = "linear"
    """How it rises."""
    lr_decay: int | None = None
    """Steps at the end in which the rate falls linearly to zero; None: a fifth of all."""
    clip: float | None = None
    """The largest norm of a whole gradient; None: any."""
    scale: Scaling = "unit"
    """Inputs are multiplied by one constant: unit, E||x||^2 = 1; root-d, E||x|| = sqrt(d). Folded away on saving."""
    rows: Rows = "unit"
    """Decoder rows: of norm 1 after each step, with the gradient along them removed; only that; or free."""
    row_norm: float = 1.0
    """The norm of decoder rows at the start."""
    encoder_start: Literal["tied", "unit", "kaiming"] = "tied"
    """The encoder at the start: the decoder's transpose (unit, of a transcoder), rows of norm 1, or Kaiming-uniform."""
    encoder_scale: float = 1.0
    """And times this."""
    decoder_zero: bool = False
    """Whether the decoder starts at zero, as some transcoders' do; then its rows are free."""
    subtract_b_dec: bool | None = None
    """Whether b_dec is subtracted from the input; None: yes, but for a transcoder."""
    b_dec_start: Literal["zero", "mean", "median"] = "median"
    """b_dec at the start: zero, or the mean or the geometric median of the first batches' targets."""
    skip: bool = False
    """Whether the output has x @ W_skip added, which starts at zero."""
    layers: int = 1
    """Layers that a crosscoder reads and writes: inputs are (layers, d_model), as one axis or two."""
    prefixes: tuple[int, ...] = ()
    """Matryoshka: the numbers of latents whose reconstructions are judged beside that of all."""
    prefix_mean: bool = False
    """Whether the prefixes' losses are averaged; else they are summed."""
    multi_topk: float = 0.0
    """Weight of the loss with 4 k latents (Multi-TopK; 1/8 at OpenAI)."""
    threshold: float | None = None
    """JumpReLU's thresholds at the start; None: where the first batches have the L0 asked for, or the bandwidth."""
    bandwidth: float = 1e-3
    """The width of the rectangle kernel of its estimators, in units of the pre-activations."""
    estimator_to_input: bool = False
    """Whether the estimators' gradient reaches the pre-activations too (Anthropic, January 2025)."""
    pre_activation: float = 0.0
    """Weight of sum ReLU(threshold - p) ||d||, which reaches latents that do not fire (Anthropic, January 2025)."""
    tanh_slope: float = 4.0
    """c of the penalty sum tanh(c f ||d||)."""
    p_end: float = 1.0
    """The power at the end of p-annealing, from 1 (penalty lp)."""
    p_start_at: float = 0.1
    """The share of all steps after which the power falls."""
    p_changes: int = 20
    """In how many equal steps it falls."""
    revival: Revival = "none"
    """What is done for dead latents: auxk, ghost (each a loss), resample, reinitialise (each at times)."""
    dead_after: int = 10_000_000
    """Rows without a firing after which a latent is dead."""
    auxk: int | None = None
    """Dead latents that explain a row's residual; None: half of d_in."""
    revival_weight: float = 1 / 32
    """The coefficient of the auxiliary loss."""
    revive_at: tuple[int, ...] = ()
    """The steps of resample and reinitialise."""
    revival_inputs: int = 819_200
    """Inputs among which resample draws."""
    rare: float = 0.0
    """Reinitialise: latents that fire less often than this are dead, since the step before."""
    seed: int | None = None
    """Of the weights' start and of resampling; None: that of the training."""

    def __post_init__(self) -> None:
        validate(self, _checks(self))

    @property
    def chosen_penalty(self) -> Penalty:
        return AUTO.get(self.kind, "none") if self.penalty == "auto" else self.penalty

    @property
    def chosen_lr(self) -> float:
        return 2e-4 / (self.n_latents / 2**14) ** 0.5 if self.lr is None else self.lr

    @property
    def chosen_lr_warmup(self) -> int:
        return min(1000, self.steps // 20) if self.lr_warmup is None else self.lr_warmup

    @property
    def chosen_lr_decay(self) -> int:
        return self.steps // 5 if self.lr_decay is None else self.lr_decay

    @property
    def chosen_sparsity_warmup(self) -> int:
        rise = 0 if self.chosen_penalty == "l0-target" else self.steps // 10
        return rise if self.sparsity_warmup is None else self.sparsity_warmup

    @property
    def first_threshold(self) -> float:
        """Thresholds at the start, and of a latent that is started anew, before they follow an L0."""
        return self.bandwidth if self.threshold is None else self.threshold

    @property
    def coefficient(self) -> float:
        """The penalty's coefficient after its warm-up."""
        return 1.0 if self.sparsity is None else self.sparsity


def _checks(r: Recipe) -> dict[str, bool]:
    counts = r.kind in COUNTED
    penalty = r.chosen_penalty
    return {
        "n_latents, steps and layers must be positive": min(r.n_latents, r.steps, r.layers) >= 1,
        "batch must be positive": r.batch is None or r.batch >= 1,
        f"{r.kind} needs a k of at least 1": not counts or (r.k is not None and r.k >= 1),
        f"{r.kind} has no k": counts or r.k is None,
        "k must be at most n_latents": r.k is None or r.k <= r.n_latents,
        f"the penalty {penalty} needs an l0": penalty not in TARGETED or r.l0 is not None,
        "l0 belongs to jumprelu with the penalty l0-target or l0-quadratic": penalty in TARGETED or r.l0 is None,
        "l0 must be positive and below n_latents": r.l0 is None or 0 < r.l0 < r.n_latents,
        f"the penalty {penalty} needs a sparsity": penalty in ("none", "l0-target") or r.sparsity is not None,
        "sparsity must not be negative": r.sparsity is None or r.sparsity >= 0,
        "lr must be positive": r.lr is None or r.lr > 0,
        "betas must lie in [0, 1)": all(0 <= beta < 1 for beta in r.betas),
        "prefixes must rise and be below n_latents": list(r.prefixes) == sorted({p for p in r.prefixes if p > 0})
        and (not r.prefixes or r.prefixes[-1] < r.n_latents),
        "groupmax needs an n_latents that k divides": r.kind != "groupmax" or r.n_latents % (r.k or 1) == 0,
        "multi_topk belongs to the kind topk": r.multi_topk == 0 or r.kind == "topk",
        f"the penalty {penalty} belongs to the kind jumprelu": r.kind == "jumprelu" or penalty not in OF_JUMPRELU,
        "gated takes the penalty l1": r.kind != "gated" or penalty == "l1",
        "a decoder_zero needs rows 'free'": not r.decoder_zero or r.rows == "free",
        "a skip needs subtract_b_dec None or false": not (r.skip and r.subtract_b_dec),
        "the warm-up of lr and its decay must fit into steps": r.chosen_lr_warmup + r.chosen_lr_decay <= r.steps,
        "sparsity_warmup must end within steps": r.chosen_sparsity_warmup <= r.steps,
        "threshold and bandwidth must be positive": min(r.threshold or 1, r.bandwidth) > 0,
        "p_end must lie in (0, 1]": 0 < r.p_end <= 1,
    }


def recipe_from(found: Mapping[str, Any]) -> Recipe:
    """The Recipe of a JSON object; fields left out are as by default. Raises BadConfig."""
    names = {field.name for field in dataclasses.fields(Recipe)}
    if unknown := sorted(found.keys() - names):
        raise BadConfig(f"A recipe has no {', '.join(unknown)}. It has {', '.join(sorted(names))}.")
    refuse_misfits(Recipe, found)
    fields: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in found.items()}
    return Recipe(**fields)


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """The JSON object of a Recipe, which `recipe_from` reads."""
    return {name: list(x) if isinstance(x, tuple) else x for name, x in dataclasses.asdict(recipe).items()}


def seed_at(seed: int, place: str) -> int:
    """A seed of this place's own: dictionaries that start alike still look alike after a short training."""
    return zlib.crc32(f"{seed} {place}".encode())
