"""Harvest: the activations of a model at any Sites over rows of tokens, each row in one forward pass for all Sites.

A run ends at the last Site asked for, so that neither the layers behind it nor logits are computed. Tokens that do not
count (special ones, and a row's first position) are dropped. Heads are flattened: `z` is (tokens, head * d_head).
A pass that runs out of memory is repeated with half as many rows, and said.
Axes: row pos d. Source of the masking: Gemma Scope, arXiv 2408.05147, section 3.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.errors import BadConfig, NonFiniteActivations, UnknownSite, UserError
from micrographia.core.events import Note, Progress, Watch, silent
from micrographia.core.model import Model
from micrographia.core.sites import Site, SiteLike, select
from micrographia.core.spoken import number_of
from micrographia.core.stream.rows import TokenRows, as_rows

TOKENS_A_PASS = 4096
BAD = ("stop", "skip")
Bad = Literal["stop", "skip"]
"""What is done about NaN and infinite activations: an error that names them, or their tokens are dropped and said."""


class Harvested(NamedTuple):
    """The activations of one pass, of tokens that count, row by row."""

    values: dict[Site, Float[Tensor, "token d"]]
    row: Int[Tensor, "token"]
    """The row of each token."""
    bad: Bool[Tensor, "token"] | None
    """Tokens with NaN or infinite activations at any Site; None where there are none."""


class Kept(NamedTuple):
    """The activations of a Site as they are kept: their length, dtype and device."""

    width: int
    dtype: torch.dtype
    device: torch.device

    @property
    def n_bytes(self) -> int:
        """Of one token."""
        return self.width * self.dtype.itemsize


@dataclass(slots=True)
class Harvester:
    """Reads activations of rows at Sites; a `Supply` for batches. `rows_a_pass` may fall while it works.

    One forward pass per `rows_a_pass` rows, up to the last Site. In memory: the pass, and one copy of what it keeps.
    """

    model: Model
    sites: tuple[Site, ...]
    rows: TokenRows
    rows_a_pass: int
    sink: bool = True
    bad: Bad = "stop"
    watch: Watch = silent

    def passes(self, which: Int[Tensor, "row"], sites: Collection[Site] | None = None) -> Iterator[Harvested]:
        """The activations of these rows in this order, at `sites` of its own. Raises NonFiniteActivations, UserError.

        A pass is the same whichever are asked for.
        """
        assert sites is None or set(sites) <= set(self.sites)
        at = 0
        while at < len(which):
            here = which[at : at + self.rows_a_pass]
            found = self._one(here)
            if found is not None:
                at += len(here)
                yield found

    def count(self) -> Int[Tensor, "row"]:
        """How many tokens of each row count. Reads every row once."""
        return self.rows.counts(sink=self.sink)

    def kinds(self) -> dict[Site, Kept]:
        """How the model gives each Site's activations. One pass over one row."""
        return {site: Kept(x.shape[-1], x.dtype, x.device) for site, x in self.first().items()}

    def first(self) -> dict[Site, Float[Tensor, "one pos d"]]:
        """The activations of the first row, of every token. One pass over one row."""
        return self._run(self.rows[:1])

    def _one(self, which: Tensor) -> Harvested | None:
        """One pass; None where memory ran out and the next try is of fewer rows."""
        ids = self.rows[which]
        try:
            values = self._run(ids)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._halve(len(which), error)
            return None
        kept = self.rows.kept(ids, sink=self.sink)
        at = kept.flatten().nonzero()[:, 0]
        flat = {site: value.flatten(0, 1).index_select(0, at.to(value.device)) for site, value in values.items()}
        row = which[at // ids.shape[1]]
        return Harvested(flat, row, self._bad(flat, row, at % ids.shape[1]))

    def _run(self, ids: Tensor) -> dict[Site, Tensor]:
        """(row, pos, d) of each Site."""
        last = max(self.sites, key=self.model.sites.index)
        cache = self.model.run(ids, keep=self.sites, stop=last).cache
        return {site: cache[site].flatten(2) for site in self.sites}

    def _halve(self, n_rows: int, error: BaseException) -> None:
        if n_rows == 1:
            raise UserError(
                f"Asked for activations at {len(self.sites)} sites, of one row of {self.rows.n_ctx} tokens at a time; "
                f"memory ran out ({str(error).splitlines()[0]:.120}). Use shorter rows or fewer sites, or less buffer."
            ) from error
        self.rows_a_pass = n_rows // 2
        self.watch(
            Note(
                f"Memory ran out in a pass of {n_rows} rows; from here on a pass has {self.rows_a_pass}. A run that "
                "begins with fewer rows a pass may differ from this one by rounding.",
                "warning",
            )
        )

    def _bad(self, flat: dict[Site, Tensor], row: Tensor, pos: Tensor) -> Tensor | None:
        bad = {site: found for site, value in flat.items() if (found := not_finite(value)) is not None}
        if not bad:
            return None
        every = torch.stack([found.cpu() for found in bad.values()]).any(0)
        first = int(every.nonzero()[0, 0])
        said = (
            f"NaN or infinite activations at {', '.join(map(str, bad))} in {int(every.sum()):,} of {len(every):,} "
            f"tokens of rows {int(row.min())} to {int(row.max())}, the first in row {int(row[first])} at position "
            f"{int(pos[first])}"
        )
        if self.bad == "stop":
            raise NonFiniteActivations(
                f"Asked for activations; found {said}. Run the model in a wider dtype (bfloat16 or float32 instead of "
                'float16), look at the tokens of that row, or drop such tokens with bad="skip".'
            )
        self.watch(Note(f"Left out: {said}.", "warning"))
        return every


def harvester(
    model: Model,
    sites: SiteLike | Iterable[SiteLike],
    rows: TokenRows | Int[Tensor, "row pos"],
    *,
    rows_a_pass: int | None = None,
    sink: bool = True,
    bad: Bad = "stop",
    watch: Watch = silent,
) -> Harvester:
    """A Harvester for these Sites (patterns such as `L*.resid_post` too), by default of 4,096 tokens a pass.

    Raises UnknownSite for Sites that the model does not have or that hold no vector for each token (patterns);
    UserError for rows that the model cannot read.
    """
    rows = as_rows(rows)
    found = readable(model, sites)
    if bad not in BAD:
        raise BadConfig(f"Asked for bad={bad!r}. NaN activations stop a harvest or are skipped: {', '.join(BAD)}.")
    if rows_a_pass is not None and rows_a_pass < 1:
        raise BadConfig(f"Asked for {rows_a_pass} rows a pass. Give 1 or more.")
    if not len(rows):
        raise UserError("Asked for activations of no rows. Give one at least.")
    if rows.n_ctx > model.shape.n_ctx:
        raise UserError(f"The rows have {rows.n_ctx} tokens; this model reads {model.shape.n_ctx}. Pack shorter rows.")
    each = rows_a_pass or max(1, TOKENS_A_PASS // rows.n_ctx)
    return Harvester(model, found, rows, each, sink, bad, watch)


def harvest(
    model: Model,
    sites: SiteLike | Iterable[SiteLike],
    rows: TokenRows | Int[Tensor, "row pos"],
    *,
    order: Int[Tensor, "row"] | None = None,
    rows_a_pass: int | None = None,
    sink: bool = True,
    bad: Bad = "stop",
    watch: Watch = silent,
) -> Iterator[dict[Site, Float[Tensor, "token d"]]]:
    """Site -> (tokens, d), pass by pass, of the tokens that count; the rows in their order or that of `order`.

    See `harvester` for the choices and errors. Memory: one pass.
    """
    reading = harvester(model, sites, rows, rows_a_pass=rows_a_pass, sink=sink, bad=bad, watch=watch)
    which = torch.arange(len(reading.rows)) if order is None else order
    watch(Note(left_out(reading.rows, sink=sink)))
    done = 0
    for found in reading.passes(which):
        good = None if found.bad is None else ~found.bad
        yield {site: x if good is None else x[good.to(x.device)] for site, x in found.values.items()}
        done = min(done + reading.rows_a_pass, len(which))
        watch(Progress("harvest", done, len(which), "row"))


def readable(model: Model, sites: SiteLike | Iterable[SiteLike]) -> tuple[Site, ...]:
    """The Sites meant, each of which holds a vector for each token. Raises UnknownSite."""
    found = select(model.sites, sites)
    if not found:
        raise UnknownSite("Asked for activations at no site. Name one, such as 'L0.resid_post'.")
    vectors_of_tokens(found)
    return found


def vectors_of_tokens(sites: Sequence[Site]) -> None:
    """Raise UnknownSite where one of these holds no vector for each token, or is part of a dictionary."""
    if pairs := [str(site) for site in sites if "query" in site.axes]:
        raise UnknownSite(
            f"Asked for the activations of tokens at {', '.join(pairs)}, which hold one number for a pair of tokens. "
            "Choose sites with a vector for each token, such as z or resid_post."
        )
    if parts := [str(site) for site in sites if site.part]:
        raise UnknownSite(f"Asked for {', '.join(parts)}, parts of a dictionary. Read its site and encode what it has.")


MOST_NAMED = 5
"""Special tokens that are named."""


def left_out(rows: TokenRows, *, sink: bool) -> str:
    """A sentence that says which tokens do not count."""
    shown = ", ".join(map(str, rows.special[:MOST_NAMED])) + (", ..." if len(rows.special) > MOST_NAMED else "")
    special = f"{number_of(len(rows.special), 'special token')} ({shown})" if rows.special else ""
    first = "the first position of each row (the attention sink)" if sink else ""
    what = " and ".join(filter(None, (special, first)))
    return f"Left out: {what}." if what else "Every token counts: none is special, and the first position is kept."


def not_finite(x: Float[Tensor, "token d"]) -> Bool[Tensor, "token"] | None:
    """Which rows hold NaN or infinite numbers; None where none does. One pass over x where all is well."""
    if bool(torch.isfinite(x.sum(dtype=torch.float64 if x.dtype == torch.float64 else torch.float32))):
        return None
    bad = ~torch.isfinite(x).all(-1)
    return bad if bool(bad.any()) else None


NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "failed to allocate")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this error says that memory ran out, on any device."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in text for words in NO_MEMORY)
