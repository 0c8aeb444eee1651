"""All choices of one run of the lab, and its presets.

`quick()` trains a language model of a few layers on text that every user has, the Python standard library's own, and a
suite of dictionaries at every layer and sublayer; `given()` is the one for `--model NAME`, at one depth. `paper()` is
Gemma Scope's own (Lieberum et al. 2024, arXiv 2408.05147, section 3) on Gemma 2 2B: days of many accelerators. `tiny()`
is the quick machinery in about a minute. No tensor library is imported here.
"""

from dataclasses import dataclass, field
from functools import partial

from micrographia.core.config import (
    Blocks,
    Machine,
    Optimiser,
    Schedule,
    flat,
    nearest_preset,
    positive,
    validate,
    with_fields,
)
from micrographia.core.questions import names, numbers

NETWORK = partial(
    Blocks, n_layers=3, d_model=64, n_heads=4, d_head=16, d_mlp=256, act="gelu_new", norm="layernorm", attn_bias=True
)
OPTIM = partial(Optimiser, lr=3e-3, weight_decay=0.1, warmup=100)
SCHEDULE = partial(Schedule, eval_every=200, snapshots=1, checkpoint_every=200)
ALL = "all"
READ, WRITTEN = "mlp_norm", "mlp_out"
"""What transcoders read and write: the MLP's input behind its norm, and its output (arXiv 2408.05147, appendix)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteChoices:
    """The dictionaries of the suite: one for each site, layer, width and L0; and how they are trained."""

    sites: str = "resid_post, z, mlp_out"
    """Kinds of Sites, those of Gemma Scope: residual stream, heads' outputs before W_O, MLP output."""
    layers: str = ALL
    """all; or layers with commas between; numbers with a point are shares of the depth (0.25, 0.5)."""
    widths: str = "256, 1024"
    """Latents, with commas between."""
    l0s: str = "4, 8, 16"
    """Active latents a token that are asked for, with commas between."""
    dictionary_lr: float = 1e-3
    """Rate of Adam."""
    dictionary_steps: int = 1_500
    """Batches to train each dictionary on."""
    activations: int = 1_024
    """Tokens in a batch."""
    buffer_mb: int = 256
    """Memory of the buffer that mixes the activations of all sites."""
    memory_mb: int = 4_096
    """Memory for dictionaries that train at the same time; more of them train in programs one after the other."""
    disk_mb: int = 4_096
    """Disk for activations that several programs read, until the Run is finished; where they take more, each program
    runs the model."""
    workers: int = 1
    """Processes that train programs side by side, each with its part of threads, memory and buffer."""
    transcoders: bool = False
    """Whether a transcoder stands beside each autoencoder of mlp_out, from the same harvest: a third more work."""
    untrained: bool = True
    """Whether the narrowest part of the suite is trained on the model without its training too: the null."""

    def __post_init__(self) -> None:
        chosen = names(self.sites), numbers(self, "widths"), numbers(self, "l0s")
        own = {
            "dictionary_lr must be positive": self.dictionary_lr > 0,
            "disk_mb must not be negative": self.disk_mb >= 0,
            "sites must name at least one": bool(names(self.sites)),
            f"transcoders stand beside autoencoders of {WRITTEN}: sites must name it": not self.transcoders
            or WRITTEN in names(self.sites),
            f"transcoders read {READ}: sites must leave it out": not self.transcoders or READ not in names(self.sites),
            "sites, widths and l0s must be named once each": all(len(set(each)) == len(each) for each in chosen),
            "widths must be whole numbers": all(each == int(each) for each in numbers(self, "widths")),
            "an l0 must be less than the least width": max(numbers(self, "l0s")) < min(numbers(self, "widths")),
            "layers must be all, or numbers with commas between": self.layers == ALL or _depths(self.layers),
        }
        counts = positive(self, ("dictionary_steps", "activations", "buffer_mb", "memory_mb", "workers"))
        validate(self, {**counts, **own})

    def chosen_layers(self, n_layers: int) -> list[int]:
        """The layers of a model that has so many, in order; those beyond it are refused. Raises BadConfig."""
        if self.layers == ALL:
            return list(range(n_layers))
        found = {int(float(each) * n_layers) if "." in each else int(each) for each in names(self.layers)}
        beyond = sorted(each for each in found if not 0 <= each < n_layers)
        validate(self, {f"layers must lie in a model of {n_layers}; it has none called {beyond}": not beyond})
        return sorted(found)


def _depths(text: str) -> bool:
    return bool(names(text)) and all(each.replace(".", "", 1).isdigit() for each in names(text))


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Train a suite of JumpReLU dictionaries at every layer and sublayer, and put the report's questions to it."""

    text: str = ""
    """What to read: a file, a folder, a JSONL file, or hf:NAME. Empty: the Python standard library's own sources."""
    tokens: int | None = None
    """Tokens of the text to read, from its beginning; null: all of it."""
    model: str = ""
    """A pretrained model instead of training one: a name, a folder, or a Run."""
    published: str = ""
    """A suite of that model instead of training one: its folder, a Run of this lab, or a repository of the Hub."""
    transfer: str = ""
    """A second model of the same tokens, such as an instruction-tuned one, that the suite is evaluated on too."""
    seed: int = 0
    """Seed of tokens, weights and batches."""

    n_vocab: int = 2_048
    """Tokens of the byte-pair tokenizer that is trained on the text."""
    n_ctx: int = 128
    """Tokens in a context, the beginning-of-text token among them."""
    network: Blocks = field(default_factory=NETWORK)
    """The language model."""
    optim: Optimiser = field(default_factory=OPTIM)
    """AdamW with linear warm-up."""
    rows: int = 32
    """Contexts in a batch of the language model."""
    steps: int = 2_000
    """Batches to train the language model on."""

    suite: SuiteChoices = field(default_factory=SuiteChoices)
    """The dictionaries."""
    held_out: int = 65_536
    """Tokens that nothing is trained on: sparsity, variance and frequencies are of these."""
    loss_tokens: int = 16_384
    """So many of them for each loss with a dictionary spliced in."""
    schedule: Schedule = field(default_factory=SCHEDULE)
    """How the training of the language model is followed."""
    machine: Machine = field(default_factory=Machine)
    """Where to train and measure."""

    def __post_init__(self) -> None:
        idle = _idle(self)
        own = {
            f"what is given is not trained: leave out {', '.join(idle)}": not idle,
            "attention and mlp must stay": self.network.attention and self.network.mlp,
            "tokens must exceed held_out": self.tokens is None or self.tokens > self.held_out,
            "n_vocab must exceed 256, the bytes": self.n_vocab > 256,
            "n_ctx must be at least 4": self.n_ctx >= 4,
            "loss_tokens must not exceed held_out": self.loss_tokens <= self.held_out,
            "a published suite, or a transfer, needs its model": bool(self.model)
            or not (self.published or self.transfer),
        }
        validate(self, {**positive(self, ("rows", "steps", "held_out", "loss_tokens")), **own})
        if not self.model:
            self.suite.chosen_layers(self.network.n_layers)


CHOOSING = ("sites", "layers", "widths", "l0s")
"""What of a published suite is taken."""


def _idle(config: Config) -> list[str]:
    """The choices about training what is given that no preset without a model has: of no use."""
    made = {*flat(config.network), *flat(config.optim), "rows", "steps", "n_vocab"} if config.model else set()
    made |= set(flat(config.suite)) - {*CHOOSING} if config.published else set()
    usual = [flat(Config()), flat(given())] if made else []
    return [name for name, value in flat(config).items() if name in made and value not in [of[name] for of in usual]]


# Fields that say how a run is carried out, which sample it is, or what stands beside what the preset studies.
FREE = (
    "seed",
    "device",
    "threads",
    "eval_every",
    "snapshots",
    "checkpoint_every",
    "memory_mb",
    "disk_mb",
    "workers",
    "transcoders",
    "model",
    "published",
    "transfer",
)


def paper() -> Config:
    """Gemma 2 2B at the widths that the report trained at every layer and site, 4 billion tokens. Not run here."""
    sizes = {
        "transcoders": True,
        "widths": "16384, 65536",
        "l0s": "20, 40, 80, 160, 320",
        "dictionary_lr": 7e-5,
        "activations": 4_096,
    }
    much = {"dictionary_steps": 976_563, "buffer_mb": 2**20, "memory_mb": 2**19, "n_ctx": 1_024}
    return with_fields(quick(), model="google/gemma-2-2b", held_out=2_097_152, loss_tokens=2_097_152, **sizes, **much)


def quick() -> Config:
    """From scratch. NOTES say how the sizes were chosen and what they cost."""
    return Config()


def given() -> Config:
    """A pretrained model at the middle of its depth; `--model` names it."""
    some = {"layers": "0.5", "widths": "512, 2048", "l0s": "20, 60", "dictionary_steps": 300, "activations": 512}
    return with_fields(quick(), **some, tokens=300_000, held_out=32_768, loss_tokens=4_096)


def tiny() -> Config:
    """Same machinery in about a minute; too short for its claims, which are *not run*."""
    network = {"n_layers": 2, "d_model": 32, "n_heads": 2, "d_head": 16, "d_mlp": 128, "n_vocab": 512, "rows": 16}
    short = {"steps": 150, "eval_every": 50, "widths": "64, 256", "l0s": "3, 9", "dictionary_steps": 150}
    return with_fields(quick(), **network, **short, tokens=400_000, held_out=16_384, loss_tokens=4_096)


PRESETS = {"paper": paper, "quick": quick, "given": given, "tiny": tiny}


def preset_of(config: Config) -> str:
    """The preset whose choices these are, but for the FREE fields; else "custom"."""
    return nearest_preset(config, PRESETS, FREE)
