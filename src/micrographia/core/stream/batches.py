"""Batches of activations that a training step reads: a pure function of the step, the seed inside.

`ActivationStream` harvests them from a model as they are needed, or reads them from shards (`stored.read_stored`), and
mixes them in a buffer of stated bytes. A stream that is asked for step s first gives, bit for bit, what one gives that
came there from step 0; so a run that was killed goes on exactly, without any state of the stream being saved.
There is no thread that reads ahead: model and training share the cores, or the device, and a second buffer would be
needed.
Axes: member batch d_in.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.errors import BadConfig, BadShape, UserError
from micrographia.core.events import Note, Watch, silent
from micrographia.core.model import Model
from micrographia.core.sites import Site, SiteLike, as_site, select
from micrographia.core.spoken import number_of
from micrographia.core.stream.harvest import Bad, Kept, harvester, left_out
from micrographia.core.stream.held import HeldSupply
from micrographia.core.stream.mixing import Mixer, Supply
from micrographia.core.stream.rows import TokenRows
from micrographia.core.stream.schedule import WindowSchedule, blocks_for, capacity, drawn, most_blocks


class Activations(NamedTuple):
    """What a training step reads; with a leading member axis where each member has sites of its own."""

    x: Float[Tensor, "... batch d_in"]
    target: Float[Tensor, "... batch d_out"] | None = None
    """Of a transcoder."""


Batches = Callable[[int], Activations]
"""The batch of a step: a pure function of it."""


class Reading(NamedTuple):
    """What one member reads and is to give: Sites, several of which are joined to one long vector (a crosscoder's).

    `target` is empty where a dictionary gives its own input.
    """

    source: tuple[Site, ...]
    target: tuple[Site, ...] = ()


ReadingLike = SiteLike | tuple[SiteLike, SiteLike] | Reading
"""A Site; (input, target) of a transcoder; or a Reading."""


def as_reading(given: object) -> Reading:
    """Raises UserError for what is neither a Site, a pair of them nor a Reading."""
    if isinstance(given, Reading):
        return given
    if isinstance(given, Site | str):
        return Reading((as_site(given),))
    if isinstance(given, tuple) and len(given) == 2:
        return Reading((as_site(given[0]),), (as_site(given[1]),))
    raise UserError(f"Asked to read {given!r}. Give a site, a pair (input, target) of sites, or a Reading.")


class BufferPlan(NamedTuple):
    """What a stream holds and reads."""

    memory_bytes: int
    disk_bytes: int
    n_tokens: int
    """In memory at most."""
    n_rows: int
    tokens_an_epoch: int
    """That count."""
    blocks_an_epoch: int
    batch: int
    held: bool = False
    """Whether all of it is read once and kept."""

    def passes(self, n_steps: int) -> float:
        """Over the text, in so many steps."""
        return n_steps * self.batch / self.tokens_an_epoch

    def __str__(self) -> str:
        return (
            f"Buffer of activations: {_size(self.memory_bytes)} of memory for {self.n_tokens:,} tokens; "
            f"{_size(self.disk_bytes)} on disk. A pass over the text, of {number_of(self.n_rows, 'row')}, is "
            f"{self.tokens_an_epoch:,} tokens, {self._read()}; "
            f"{number_of(self.tokens_an_epoch // self.batch, 'batch')} of {self.batch:,} a pass."
        )

    def _read(self) -> str:
        if self.held:
            return "read once and kept"
        return "read whole in each" if self.blocks_an_epoch == 1 else f"read in {self.blocks_an_epoch:,} blocks"


class ActivationStream:
    """Batches of activations at Sites of a model: `stream(step)` is a pure function of the step.

    One Site: x is (batch, d_in). Several members of one width: (member, batch, d_in), all of the same tokens. Members
    of different widths: `by_member(step)`, or `only(member)`, which share what is in memory.
    """

    def __init__(
        self,
        model: Model,
        sites: ReadingLike | Sequence[ReadingLike],
        rows: TokenRows | Int[Tensor, "row pos"],
        *,
        batch: int = 4096,
        buffer_bytes: int = 2**29,
        seed: int = 0,
        sink: bool = True,
        bad: Bad = "stop",
        rows_a_pass: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        steps: int | None = None,
        watch: Watch = silent,
    ) -> None:
        """`sites`: what each member reads: Sites or patterns of them, pairs (input, target), or Readings.

        `dtype` and `device` of the buffer, by default those of the activations; batches are float32 at least. `steps`,
        if known, is told with the plan. Cost: one forward pass to the last Site for each token, each pass over the
        text; a step outside the next window reads two blocks. What is held and left out is said before anything is
        read. Errors: see `harvester`; UserError for too little text; BadConfig for a buffer that is too small.
        """
        members = members_of(model, sites)
        reading = harvester(model, sites_of(members), rows, rows_a_pass=rows_a_pass, sink=sink, bad=bad, watch=watch)
        kept = {site: _placed(each, dtype, device) for site, each in reading.kinds().items()}
        self._begin(reading, kept, members, batch, buffer_bytes, seed, reading.rows.n_bytes, watch, hold=True)
        self._say(steps, left_out(reading.rows, sink=sink), watch)

    @classmethod
    def of(
        cls,
        supply: Supply,
        sites: ReadingLike | Sequence[ReadingLike] | None = None,
        *,
        batch: int = 4096,
        buffer_bytes: int = 2**29,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        steps: int | None = None,
        watch: Watch = silent,
    ) -> "ActivationStream":
        """The same from another supply, such as the shards that `stored.open_activations` reads; all its Sites."""
        stream = cls.__new__(cls)
        named = list(supply.kinds()) if sites is None else sites
        members = tuple(map(as_reading, [named] if _is_one(named) else named))  # type: ignore[arg-type]  # checked there
        if missing := [str(site) for site in sites_of(members) if site not in supply.kinds()]:
            there = ", ".join(map(str, supply.kinds()))
            raise UserError(f"Asked for activations at {', '.join(missing)}. There are those at {there}.")
        kept = {site: _placed(supply.kinds()[site], dtype, device) for site in sites_of(members)}
        disk = getattr(supply, "n_bytes", 0)
        stream._begin(supply, kept, members, batch, buffer_bytes, seed, disk, watch)
        stream._say(steps, "", watch)
        return stream

    def _begin(
        self,
        supply: Supply,
        kept: Mapping[Site, Kept],
        members: tuple[Reading, ...],
        batch: int,
        buffer_bytes: int,
        seed: int,
        disk: int,
        watch: Watch,
        hold: bool = False,
    ) -> None:
        counts = supply.count()
        total, longest = int(counts.sum()), int(counts.max())
        each = sum(one.n_bytes for one in kept.values()) + PLACES
        n_blocks = _blocks(buffer_bytes, each, total, batch, longest)
        schedule = WindowSchedule(counts, batch, n_blocks, seed)
        slots = capacity(total, batch, longest, n_blocks)
        values = {site: torch.empty(slots, one.width, dtype=one.dtype, device=one.device) for site, one in kept.items()}
        self.members = members
        held = hold and n_blocks == 1 and (slots + total) * each <= buffer_bytes
        memory = (slots + total * held) * each
        self.plan = BufferPlan(memory, disk, slots, len(counts), total, n_blocks, batch, held)
        if held:
            supply = HeldSupply(supply, kept, watch)
        self._mixer = Mixer(supply, schedule, values, torch.zeros(slots, dtype=torch.long), silent if held else watch)

    def _say(self, steps: int | None, left: str, watch: Watch) -> None:
        told = ""
        if steps is not None:
            passes = f"{self.plan.passes(steps):.2g}"
            passes = f"{passes} pass" if passes == "1" else f"{passes} passes"
            told = f" {number_of(steps, 'step')} {'is' if steps == 1 else 'are'} {passes}."
        watch(Note(f"{self.plan}{told}"))
        if left:
            watch(Note(left))

    def __call__(self, step: int) -> Activations:
        """The batch of this step; where some members have a target, the others' is their own input.

        Raises BadShape for members of different widths.
        """
        found = self.by_member(step)
        if len(found) == 1:
            return found[0]
        given = [x if target is None else target for x, target in found]
        shapes = {(x.shape, target.shape) for (x, _), target in zip(found, given)}
        if len(shapes) > 1:
            widths = ", ".join(f"{_named(each)}: {x.shape[-1]}" for each, (x, _) in zip(self.members, found))
            raise BadShape(
                f"Asked for one tensor of all members, whose widths differ: {widths}. Take `by_member(step)`, or "
                "`only(...)` those of one width."
            )
        device = found[0].x.device
        transcodes = any(target is not None for _, target in found)
        return Activations(
            torch.stack([x.to(device) for x, _ in found]),
            torch.stack([target.to(device) for target in given]) if transcodes else None,
        )

    def by_member(self, step: int) -> list[Activations]:
        """The batch of each member, all of the same tokens."""
        slots = self._mixer.slots(step)
        drawn_once = {site: _wide(x.index_select(0, slots.to(x.device))) for site, x in self._mixer.values.items()}
        return [
            Activations(_joined(drawn_once, each.source), _joined(drawn_once, each.target) if each.target else None)
            for each in self.members
        ]

    def widths(self, member: int = 0) -> tuple[int, int]:
        """(d_in, d_out) of a member; nothing is read for it."""
        reading = self.members[member]
        source, target = (
            sum(self._mixer.values[site].shape[-1] for site in sites)
            for sites in (reading.source, reading.target or reading.source)
        )
        return source, target

    def only(self, *members: int) -> Batches:
        """The batches of some members, by their places: one harvest for dictionaries of different widths."""
        part = ActivationStream.__new__(ActivationStream)
        part.members, part.plan, part._mixer = tuple(self.members[i] for i in members), self.plan, self._mixer
        return part

    def rows(self, step: int) -> Int[Tensor, "batch"]:
        """The row of text of each token in the batch of this step."""
        return self._mixer.row[self._mixer.slots(step)]


PLACES = 32
"""Bytes a token for its row and its places in the orders."""


def members_of(model: Model, sites: ReadingLike | Sequence[ReadingLike]) -> tuple[Reading, ...]:
    """What is read, with patterns such as `L*.resid_post` written out."""
    found: list[Reading] = []
    for each in [sites] if _is_one(sites) else sites:  # type: ignore[union-attr]  # checked there
        plain = isinstance(each, Site | str)
        found += [Reading((site,)) for site in select(model.sites, each)] if plain else [as_reading(each)]  # type: ignore[arg-type]
    if not found:
        raise UserError("Asked for activations at no site. Name one, such as 'L0.resid_post'.")
    return tuple(found)


def sites_of(members: Iterable[Reading]) -> tuple[Site, ...]:
    """Every Site that is read, once."""
    return tuple(dict.fromkeys(site for each in members for site in (*each.source, *each.target)))


def batches_of(
    x: Float[Tensor, "token d_in"], *, batch: int, seed: int = 0, target: Float[Tensor, "token d_out"] | None = None
) -> Batches:
    """Batches from activations at hand: each epoch in an order of its own, drawn from (seed, epoch).

    A batch may go over from one epoch to the next, so that each token comes once an epoch. Raises UserError where there
    are fewer tokens than a batch.
    """
    if not 0 < batch <= len(x):
        raise UserError(f"Asked for batches of {batch:,} of {len(x):,} tokens. Give a smaller batch, or more tokens.")
    orders: dict[int, Tensor] = {}

    def order(epoch: int) -> Tensor:
        if epoch not in orders:
            while len(orders) > 1:
                orders.pop(next(iter(orders)))
            orders[epoch] = torch.randperm(len(x), generator=drawn(seed, "tokens", epoch))
        return orders[epoch]

    def at(step: int) -> Activations:
        epoch, first = divmod(step * batch, len(x))
        chosen = order(epoch)[first : first + batch]
        if len(chosen) < batch:
            chosen = torch.cat([chosen, order(epoch + 1)[: batch - len(chosen)]])
        where = chosen.to(x.device)
        return Activations(x[where], None if target is None else target[where])

    return at


def _blocks(buffer_bytes: int, each: int, total: int, batch: int, longest: int) -> int:
    room = buffer_bytes // each
    n_blocks = blocks_for(room, total, batch, longest) if total >= batch else 1
    if n_blocks is None:
        most = most_blocks(total, batch, longest)
        needed = capacity(total, batch, longest, most) * each
        raise BadConfig(
            f"Asked for a buffer of {_size(buffer_bytes)}, which holds {room:,} tokens of {each:,} bytes; batches of "
            f"{batch:,} need {_size(needed)}. Give that, a smaller batch, or fewer sites."
        )
    return n_blocks


def _is_one(sites: object) -> bool:
    """Whether this names one thing to read: a Site, a Reading, or a pair; a list or another tuple names several."""
    return isinstance(sites, Site | str | Reading)


def _placed(kept: Kept, dtype: torch.dtype | None, device: torch.device | str | None) -> Kept:
    return Kept(
        kept.width, dtype or kept.dtype, kept.device if device is None else torch.empty(0, device=device).device
    )


def _joined(values: Mapping[Site, Tensor], sites: Sequence[Site]) -> Tensor:
    found = [values[site] for site in sites]
    return found[0] if len(found) == 1 else torch.cat([x.to(found[0].device) for x in found], -1)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _named(reading: Reading) -> str:
    source, target = ("+".join(map(str, sites)) for sites in reading)
    return f"{source} -> {target}" if target else source


def _size(n_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.4g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.4g} GB"
