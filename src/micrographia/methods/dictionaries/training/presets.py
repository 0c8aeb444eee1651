"""Published recipes, by name: `PRESETS[name]()` is the recipe at its published length, `shortened` that for less.

Where a source does not say, or we know a figure from others' accounts only, the docstring says so. Sizes are one choice
of those that were trained; give others with `dataclasses.replace`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from micrographia.methods.dictionaries.training.recipe import Recipe


def gemma_scope() -> Recipe:
    """Gemma Scope (Lieberum et al. 2024, arXiv 2408.05147, section 3.2, appendix A): JumpReLU with the L0 penalty.

    4 billion tokens at a width of 2^14. The report sweeps lambda and prints no value; 1e-3 is ours.
    """
    return Recipe(
        kind="jumprelu",
        penalty="l0",
        sparsity=1e-3,
        n_latents=2**14,
        steps=976_563,
        batch=4096,
        lr=7e-5,
        betas=(0.0, 0.999),
        eps=1e-8,
        lr_warmup=1000,
        lr_warmup_from=0.1,
        lr_warmup_shape="cosine",
        lr_decay=0,
        sparsity_warmup=10_000,
        threshold=1e-3,
        bandwidth=1e-3,
        scale="unit",
        rows="unit",
        encoder_start="tied",
        subtract_b_dec=True,
        b_dec_start="zero",
    )


def april_2024() -> Recipe:
    """Anthropic's recipe of April 2024 (Circuits Updates), SAEBench's "ReLU": L1 weighted by free decoder norms.

    The rate 5e-5 and the length are from others' accounts.
    """
    return Recipe(
        kind="relu",
        penalty="l1",
        norm_weighted=True,
        sparsity=5.0,
        n_latents=2**14,
        steps=200_000,
        sparsity_warmup=10_000,
        lr=5e-5,
        lr_warmup=0,
        lr_decay=40_000,
        clip=1.0,
        scale="root-d",
        rows="free",
        row_norm=0.1,
        encoder_start="tied",
        subtract_b_dec=False,
        b_dec_start="zero",
    )


def anthropic_2023() -> Recipe:
    """Bricken et al. 2023, "Towards Monosemanticity": ReLU and L1 with resampling of dead latents.

    8 billion activations. Rate, batch and start are from others' accounts; the L1 coefficient is ours, for inputs with
    E||x||^2 = 1.
    """
    return Recipe(
        kind="relu",
        sparsity=0.05,
        n_latents=4096,
        steps=976_563,
        batch=8192,
        lr=1e-3,
        lr_warmup=0,
        lr_decay=0,
        sparsity_warmup=0,
        rows="unit",
        b_dec_start="median",
        revival="resample",
        revive_at=(25_000, 50_000, 75_000, 100_000),
        dead_after=12_500 * 8192,
        revival_inputs=819_200,
    )


def neel_2023() -> Recipe:
    """Nanda's replication (1L-Sparse-Autoencoder, `utils.py` and `train.py`): ReLU and L1, rare latents drawn anew.

    Its code sums the L1 term over the batch of 4,096 with 3e-4, beside an error that is averaged: as a mean over the
    batch its weight is 1.2288. Decoder rows had their gradient projected, but their norms were not set again. It counts
    firings on fresh text before each re-initialisation; here they are those since the last.
    """
    batch = 4096
    return Recipe(
        kind="relu",
        sparsity=3e-4 * batch,
        n_latents=16_384,
        steps=488_281,
        batch=batch,
        lr=1e-4,
        betas=(0.9, 0.99),
        lr_warmup=0,
        lr_decay=0,
        sparsity_warmup=0,
        scale="none",
        rows="projected",
        encoder_start="kaiming",
        b_dec_start="zero",
        revival="reinitialise",
        revive_at=tuple(range(30_000, 488_281, 30_000)),
        rare=10**-5.5,
        seed=49,
    )


def topk_openai() -> Recipe:
    """Gao et al. 2024 (arXiv 2406.04093): TopK with AuxK; batches of 131,072 there, any here.

    Its losses are divided by the variance of the input; here inputs have E||x||^2 = 1.
    """
    return Recipe(
        kind="topk",
        k=32,
        n_latents=2**15,
        steps=50_000,
        eps=6.25e-10,
        lr_warmup=0,
        lr_decay=0,
        rows="unit",
        encoder_start="tied",
        b_dec_start="median",
        revival="auxk",
        revival_weight=1 / 32,
        dead_after=10_000_000,
    )


def batchtopk() -> Recipe:
    """BatchTopK (Bussmann et al. 2024, arXiv 2412.06410) as SAEBench trained it: 500 million tokens at lr 3e-4."""
    return Recipe(
        kind="batchtopk",
        k=40,
        n_latents=2**14,
        steps=244_141,
        batch=2048,
        lr=3e-4,
        lr_warmup=1000,
        lr_decay=48_828,
        rows="unit",
        b_dec_start="median",
        revival="auxk",
        revival_weight=1 / 32,
        dead_after=10_000_000,
    )


def matryoshka() -> Recipe:
    """Matryoshka BatchTopK (Bussmann et al. 2025, arXiv 2503.17547) as dictionary_learning and SAEBench train it.

    Groups of 1/32, 1/16, 1/8, 1/4 and the rest of all latents; their losses are averaged.
    """
    whole = batchtopk()
    ends = tuple(whole.n_latents * part // 32 for part in (1, 3, 7, 15))
    return replace(whole, prefixes=ends, prefix_mean=True)


PRESETS: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        "gemma_scope": gemma_scope,
        "april_2024": april_2024,
        "anthropic_2023": anthropic_2023,
        "neel_2023": neel_2023,
        "topk_openai": topk_openai,
        "batchtopk": batchtopk,
        "matryoshka": matryoshka,
    }
)


def shortened(recipe: Recipe, steps: int, *, batch: int | None = None) -> Recipe:
    """The recipe for fewer steps: warm-ups, decay, revivals and the age of dead latents in proportion, not the rate.

    `batch`: rows of another batch; None: the recipe's. A recipe that is no longer than `steps` keeps its times.
    """
    share = min(1.0, steps / recipe.steps)

    def times(count: int | None) -> int | None:
        return None if count is None else int(count * share)

    return replace(
        recipe,
        steps=steps,
        batch=recipe.batch if batch is None else batch,
        lr_warmup=times(recipe.lr_warmup),
        lr_decay=times(recipe.lr_decay),
        sparsity_warmup=times(recipe.sparsity_warmup),
        revive_at=tuple(sorted({max(1, int(step * share)) for step in recipe.revive_at})),
        dead_after=max(1, int(recipe.dead_after * share)),
    )
