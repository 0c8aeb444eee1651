"""Which dictionaries a suite has, by what recipe each is trained, which of them share a program, and what that takes.

Programs: dictionaries of one input width train on the same batches, those of equal shape as one stack. Where there are
several, for want of memory, for other widths or for several workers, they read one harvest on disk, if it fits there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from micrographia.core.config import flat
from micrographia.core.errors import UnknownSite
from micrographia.core.model import Model
from micrographia.core.questions import names, numbers
from micrographia.core.sites import Site
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.transformer import Transformer
from micrographia.labs.gemma_scope.config import READ, WRITTEN, Config
from micrographia.methods.dictionaries.evaluation.reading import ReadWrite
from micrographia.methods.dictionaries.training.recipe import Recipe, seed_at

FLOAT = 4  # bytes
TENSORS = 4
"""Weights, two moments and a gradient."""
PASSES = 3
"""Tensors (batch, latent) that a step holds for each dictionary, about."""


class WantedDictionary(NamedTuple):
    """One dictionary of the suite."""

    site: Site
    width: int
    l0: float
    target: Site | None = None
    """Of a transcoder: where it writes."""

    @property
    def place(self) -> ReadWrite:
        """Where it reads and writes."""
        return ReadWrite(self.site, self.target or self.site)

    @property
    def name(self) -> str:
        return f"{self.place}, {self.width} latents, L0 {round(self.l0, 1):g}"


class Program(NamedTuple):
    """Dictionaries that train together on the same batches: a stack for each width."""

    name: str
    d_in: int
    members: tuple[WantedDictionary, ...]


@dataclass(frozen=True, slots=True)
class SuitePlan:
    """What will be trained, and what it takes; `str(plan)` says it."""

    programs: tuple[Program, ...]
    batch: int
    steps: int
    tokens: int
    """Of the text, that count."""
    disk: int
    """Bytes of activations that may be stored."""
    workers: int

    @property
    def members(self) -> list[WantedDictionary]:
        return [member for program in self.programs for member in program.members]

    @property
    def memory_bytes(self) -> int:
        """Of the largest programs at a time: weights, moments and gradients, and the latents of a batch."""
        each = [sum(bytes_of(member, one.d_in, self.batch) for member in one.members) for one in self.programs]
        return sum(sorted(each)[-self.workers :])

    @property
    def stored_bytes(self) -> int:
        """Of the activations of the text at all sites, in float32; 0 where storing saves no pass, or does not fit."""
        widths = {site: one.d_in for one in self.programs for member in one.members for site in member.place}
        n, size = len(self.programs), FLOAT * self.tokens * sum(widths.values())
        saves = n > 1 and n * self.batch * self.steps > self.tokens
        return size if saves and size <= self.disk else 0

    @property
    def disk_bytes(self) -> int:
        """Of the checkpoints that a Run keeps: weights and moments of all."""
        return sum(3 * FLOAT * weights_of(each, program.d_in) for program in self.programs for each in program.members)

    @property
    def flops(self) -> float:
        """Of the training: 10 d latents for each token and dictionary (`train_dictionaries`)."""
        widths = sum(each.d_in * member.width for each in self.programs for member in each.members)
        return 10.0 * self.batch * self.steps * widths

    def __str__(self) -> str:
        n, sites = len(self.members), len({each.place for each in self.members})
        stacks = sum(len({(each.width, each.target is None) for each in one.members}) for one in self.programs)
        harvests = "one harvest" if len(self.programs) == 1 else f"{len(self.programs)} harvests"
        stored = f"one harvest, stored in {self.stored_bytes / 2**20:,.0f} MB, and batches"
        beside = f" In {self.workers} processes side by side." if self.workers > 1 else ""
        return (
            f"Suite: {n} dictionaries at {sites} sites, in {stacks} programs of equal shape on "
            f"{stored if self.stored_bytes else harvests} of "
            f"{self.batch * self.steps:,} tokens; {self.memory_bytes / 2**20:,.0f} MB of memory at once, "
            f"{self.disk_bytes / 2**20:,.0f} MB of checkpoints, {self.flops:.1e} FLOPs.{beside}"
        )


def plan_suite(
    config: Config, model: Model, widths: Mapping[Site, int], tokens: int, *, narrow: bool = False
) -> SuitePlan:
    """Every site with every width and L0. `widths`: of the activations; `tokens`: of the text, those that count.

    `narrow`: of the least width alone, without transcoders. Several workers share the sites.

    Raises UnknownSite for a kind that this model does not have, BadConfig for a layer.
    """
    chosen = config.suite
    latents = sorted(int(each) for each in numbers(chosen, "widths"))
    sizes = [
        WantedDictionary(place.read, width, l0, None if place.read == place.write else place.write)
        for place in places_of(config, model)
        if not narrow or place.read == place.write
        for width in latents[: 1 if narrow else None]
        for l0 in numbers(chosen, "l0s")
    ]
    by_width: dict[int, list[WantedDictionary]] = {}
    for each in sizes:
        by_width.setdefault(widths[each.site], []).append(each)
    room, programs = chosen.memory_mb * 2**20 // chosen.workers, list[Program]()
    for d_in, members in by_width.items():
        for share in shared(members, chosen.workers):
            for part in parted(share, d_in, chosen.activations, room):
                programs.append(Program(f"program-{len(programs)}", d_in, tuple(part)))
    return SuitePlan(
        tuple(programs), chosen.activations, chosen.dictionary_steps, tokens, chosen.disk_mb * 2**20, chosen.workers
    )


def places_of(config: Config, model: Model) -> list[ReadWrite]:
    """Where the suite's dictionaries read and write, layer by layer: its Sites, and its transcoders' behind them."""
    found = [ReadWrite(site, site) for site in sites_of(config, model)]
    if not config.suite.transcoders:
        return found
    pairs = [ReadWrite(Site(READ, each.read.layer), each.read) for each in found if each.read.kind == WRITTEN]
    if missing := [str(each.read) for each in pairs if each.read not in model.sites]:
        raise UnknownSite(
            f"Asked for transcoders, which read {', '.join(missing)}, the input of an MLP behind its norm. This model "
            "has no such site. Leave transcoders out."
        )
    return sorted([*found, *pairs], key=lambda each: each.read.layer or 0)


def sites_of(config: Config, model: Model) -> list[Site]:
    """The Sites of the suite's autoencoders, layer by layer."""
    layers = config.suite.chosen_layers(model.shape.n_layers)
    found = [Site(kind, layer) for layer in layers for kind in names(config.suite.sites)]  # pyright: ignore[reportArgumentType] (checked below)
    if missing := [str(site) for site in found if site not in model.sites]:
        kinds = ", ".join(dict.fromkeys(site.kind for site in model.sites if site.layer is not None))
        raise UnknownSite(f"Asked for dictionaries at {', '.join(missing)}. The sites of this model are {kinds}.")
    return found


def without_weights(config: Config) -> Model:
    """The language model that the config would train, to ask for its sites: it has no numbers and does not run."""
    arch = Architecture(d_vocab=config.n_vocab, d_vocab_out=config.n_vocab, n_ctx=config.n_ctx, **flat(config.network))
    shapes = arch.weight_shapes().items()
    return Transformer(arch, {name: torch.empty(shape, device="meta") for name, shape in shapes})


def shared(members: Sequence[WantedDictionary], workers: int) -> list[list[WantedDictionary]]:
    """Shares of whole sites, in order and of about equal size: one for each worker, as far as there are sites."""
    sites = list(dict.fromkeys(each.place for each in members))
    n = min(workers, len(sites))
    return [[each for each in members if sites.index(each.place) * n // len(sites) == share] for share in range(n)]


def parted(members: Sequence[WantedDictionary], d_in: int, batch: int, room: int) -> list[list[WantedDictionary]]:
    """Parts that fit the memory, in order; at least one dictionary in each."""
    parts, left = [list[WantedDictionary]()], room
    for each in members:
        size = bytes_of(each, d_in, batch)
        if size > left and parts[-1]:
            parts.append([])
            left = room
        parts[-1].append(each)
        left -= size
    return parts


def bytes_of(member: WantedDictionary, d_in: int, batch: int) -> int:
    """Memory of one dictionary in training."""
    return FLOAT * (TENSORS * weights_of(member, d_in) + PASSES * batch * member.width + batch * d_in)


def weights_of(member: WantedDictionary, d_in: int) -> int:
    """Numbers in W_enc, W_dec, b_enc, threshold and b_dec."""
    return 2 * d_in * member.width + 2 * member.width + d_in


def recipe_of(member: WantedDictionary, config: Config) -> Recipe:
    """JumpReLU at a mean squared norm of 1, as Gemma Scope (arXiv 2408.05147, section 3.2), to an L0 that is asked for.

    The report sweeps the penalty's coefficient instead; its successor asks for an L0 too. Rate and length are ours.
    """
    chosen = config.suite
    return Recipe(
        kind="jumprelu",
        n_latents=member.width,
        l0=member.l0,
        steps=chosen.dictionary_steps,
        batch=chosen.activations,
        lr=chosen.dictionary_lr,
        seed=seed_at(config.seed, str(member.site)),
    )
