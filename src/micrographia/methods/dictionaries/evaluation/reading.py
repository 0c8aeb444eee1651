"""Reading a model's activations for an evaluation: block by block, with the tokens that count.

Special tokens, padding and the first position of a row (an attention sink in many models) do not count, and every
result says so. Rows are anything with a length and slices that are token ids (n, pos): a tensor, a Batch, a store.
Axes: row pos d_in d_out; `token` are those of a block that count, row by row.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import BadShape, UnknownSite, UserError
from micrographia.core.events import Note, Progress, Watch, silent
from micrographia.core.model import Cache, Model
from micrographia.core.sites import Site, SiteLike, as_site, select
from micrographia.core.tokens import Batch, Inputs, ids_of, mask_of, rows_of

TOKENS_AT_ONCE = 4096
LATENT_BYTES = 2**27
"""What the dense latents of one block may take; a block of activations is encoded in pieces of that size."""
OnNaN = Literal["stop", "skip"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """Which tokens count."""

    skip_first: int = 1
    """Positions left out at the start of each row."""
    special: tuple[int, ...] = ()
    """Ids of tokens that are left out."""

    def mask(self, inputs: Inputs) -> Bool[Tensor, "row pos"]:
        """True at tokens that count."""
        real = self.real(inputs)
        return real & (padding_mask(inputs).cumsum(1) > self.skip_first)

    def real(self, inputs: Inputs) -> Bool[Tensor, "row pos"]:
        """True at tokens that are neither padding nor special."""
        found = padding_mask(inputs).clone()
        ids = ids_of(inputs)
        for token in self.special:
            found &= ids != token
        return found

    def __str__(self) -> str:
        first = (
            f"the first {self.skip_first} positions of each row" if self.skip_first > 1 else "position 0 of each row"
        )
        ids = f"tokens {', '.join(map(str, self.special))}" if self.special else ""
        named = " and ".join(each for each in (first if self.skip_first else "", ids) if each)
        return f"left out: {named}, padding" if named else "left out: padding"


@runtime_checkable
class KnowsSpecial(Protocol):
    """Rows that know which of their tokens are special."""

    @property
    def special(self) -> tuple[int, ...]: ...


def counted_by(model: Model, rows: Any = None, skip_first: int = 1) -> Counted:
    """All tokens but the first positions, and those that the rows or the model's tokenizer call special."""
    tokenizer = model.tokenizer
    inner: Any = getattr(tokenizer, "inner", None)
    told = (*getattr(inner, "all_special_ids", ()), *(rows.special if isinstance(rows, KnowsSpecial) else ()))
    own = () if tokenizer is None else (tokenizer.bos, tokenizer.pad)
    return Counted(skip_first=skip_first, special=tuple(sorted({each for each in (*own, *told) if each is not None})))


def padding_mask(inputs: Inputs) -> Bool[Tensor, "row pos"]:
    """False at padding."""
    mask, ids = mask_of(inputs), ids_of(inputs)
    return torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.to(ids.device)


class ReadWrite(NamedTuple):
    """Where a dictionary reads and writes; one Site of an autoencoder."""

    read: Site
    write: Site

    def __str__(self) -> str:
        return str(self.read) if self.read == self.write else f"{self.read} -> {self.write}"


def place_for(
    dictionary: Dictionary, model: Model, site: SiteLike | None = None, target: SiteLike | None = None
) -> ReadWrite:
    """Where it reads and writes: as given, else as the dictionary knows. Raises UnknownSite, UserError."""
    about = dictionary.about
    read = about.site if site is None else as_site(site)
    if read is None:
        raise UnknownSite("No Site was given, and this dictionary does not know its own. Name one: 'L3.resid_post'.")
    known = about.target if site is None or read == about.site else None
    write = as_site(target) if target is not None else known or read
    sites = list(model.sites)
    select(sites, [read, write])
    if write == read and dictionary.d_in != dictionary.d_out:
        raise UserError(
            f"A transcoder of {dictionary.d_in} inputs and {dictionary.d_out} outputs was asked for at {read} alone. "
            "Name the Site that it writes as target, such as 'L3.mlp_out'."
        )
    if sites.index(write) < sites.index(read):
        raise UserError(
            f"{write} comes before {read}; a transcoder writes where the model has not yet been. Swap them."
        )
    return ReadWrite(read, write)


class Block(NamedTuple):
    """Some rows: their tokens, those that count, what was kept of their run, and the number of the first row."""

    inputs: Inputs
    counted: Bool[Tensor, "row pos"]
    cache: Cache
    first: int

    def at(self, site: Site) -> Tensor:
        """The activations of the tokens that count, (token, *axes)."""
        value = values_at(self.cache, site, self.counted)
        return value[self.counted.to(value.device)]


def values_at(cache: Cache, site: Site, tokens: Bool[Tensor, "row pos"]) -> Tensor:
    """The activations of a Site (row, pos, *axes). Raises UserError where it has not a value for each token."""
    value = cache[site]
    if "pos" not in site.axes or tuple(value.shape[:2]) != tuple(tokens.shape):
        raise UserError(
            f"A dictionary reads an activation at each token. {site} has axes {', '.join(site.axes)} of "
            f"{tuple(value.shape)} for tokens of {tuple(tokens.shape)}. Take a Site such as L0.resid_post."
        )
    return value


def n_rows(rows: Any) -> int:
    return len(rows.ids) if isinstance(rows, Batch) else len(rows)


def rows_between(rows: Any, start: int, stop: int) -> Inputs:
    """Rows as Inputs, from any store of rows."""
    return rows_of(rows, slice(start, stop)) if isinstance(rows, Batch | Tensor) else rows[start:stop]


def read_blocks(
    model: Model,
    sites: Sequence[Site],
    rows: Any,
    counted: Counted,
    *,
    stage: str = "activations",
    tokens_at_once: int = TOKENS_AT_ONCE,
    watch: Watch = silent,
) -> Iterator[Block]:
    """The activations of rows of tokens, a block at a time; nothing behind the last Site is computed.

    Memory: one block of the Sites. Raises UserError for no rows and for tokens of which none counts.
    """
    total = n_rows(rows)
    order = list(model.sites)
    last = max(sites, key=order.index)
    n_tokens = 0
    for start, inputs in blocks_of(rows, tokens_at_once):
        mask = counted.mask(inputs)
        n_tokens += int(mask.sum())
        yield Block(inputs, mask, model.run(on_device(model, inputs), keep=list(sites), stop=last).cache, start)
        watch(Progress(stage, min(start + len(mask), total), total, "row"))
    if not n_tokens:
        raise UserError(f"Of {total} rows of tokens none counts ({counted}). Give longer rows, or skip_first=0.")


def blocks_of(rows: Any, tokens_at_once: int = TOKENS_AT_ONCE) -> Iterator[tuple[int, Inputs]]:
    """The number of the first row, and the rows, of each block. Raises UserError for no rows."""
    total = n_rows(rows)
    if not total:
        raise UserError("Asked to read rows of tokens, and there are none. Give token ids (row, pos).")
    width = ids_of(rows_between(rows, 0, 1)).shape[1]
    step = max(1, tokens_at_once // max(1, width))
    for start in range(0, total, step):
        yield start, rows_between(rows, start, min(total, start + step))


def on_device(model: Model, inputs: Inputs) -> Inputs:
    """The inputs where the model's embedding lies."""
    device = model.weights.W_E.device
    if isinstance(inputs, Batch):
        return Batch(inputs.ids.to(device), None if inputs.mask is None else inputs.mask.to(device))
    return inputs.to(device)


class Activity(NamedTuple):
    """Activations to evaluate on: what is read (token, *d_in), what should come out, and the row of each token."""

    x: Tensor
    y: Tensor
    row: Int[Tensor, "token"] | None = None


def activity_of_rows(
    model: Model, place: ReadWrite, rows: Any, counted: Counted, *, watch: Watch = silent, stage: str = "activations"
) -> Iterator[Activity]:
    """The activations of this place, block by block."""
    sites = list(dict.fromkeys(place))
    for block in read_blocks(model, sites, rows, counted, watch=watch, stage=stage):
        row = block.counted.nonzero()[:, 0] + block.first
        if len(row):
            yield Activity(block.at(place.read), block.at(place.write), row)


def activity_of(chunks: Iterable[Any]) -> Iterator[Activity]:
    """Chunks of activations as Activity: tensors (token, *d_in), or pairs of input and target (None: the input)."""
    for chunk in chunks:
        if isinstance(chunk, Activity):
            yield chunk
        elif isinstance(chunk, Tensor):
            yield Activity(chunk, chunk)
        else:
            x, y = chunk[0], chunk[1]
            yield Activity(x, x if y is None else y)


def fitting(
    dictionary: Dictionary, activity: Iterable[Activity], on_nan: OnNaN = "stop", watch: Watch = silent
) -> Iterator[Activity]:
    """Activity that this dictionary can read, rows with NaN or infinity stopped at or skipped.

    Raises BadShape for a width that does not fit, UserError for numbers that are not finite.
    """
    for number, each in enumerate(activity):
        check_width(dictionary, each)
        good = each.x.flatten(1).isfinite().all(1) & each.y.flatten(1).isfinite().all(1).to(each.x.device)
        n_bad = int((~good).sum())
        if n_bad and on_nan == "stop":
            raise UserError(
                f"Batch {number} holds {n_bad} of {len(good)} activations that are NaN or infinite. Look at the model "
                "and its dtype, or leave them out with on_nan='skip'."
            )
        if n_bad:
            watch(
                Note(
                    f"Batch {number}: {n_bad} of {len(good)} activations are NaN or infinite, and left out.", "warning"
                )
            )
            row = None if each.row is None else each.row[good.to(each.row.device)]
            x = each.x[good]
            each = Activity(x, x if each.y is each.x else each.y[good.to(each.y.device)], row)
        if len(each.x):
            yield each


def check_width(dictionary: Dictionary, each: Activity) -> None:
    for what, value, width in (("reads", each.x, dictionary.d_in), ("writes", each.y, dictionary.d_out)):
        found = value.flatten(1).shape[1]
        if found != width:
            raise BadShape(
                f"This dictionary {what} {width} numbers a token. Found activations of {tuple(value.shape[1:])}, "
                f"{found} numbers. Give those of its own Site."
            )


class Coded(NamedTuple):
    """A piece of a block: latents (token, latent) and the output (token, d_out), and its place in the block."""

    latents: Float[Tensor, "token latent"]
    output: Float[Tensor, "token d_out"]
    piece: slice


def coded(dictionary: Dictionary, x: Tensor) -> Iterator[Coded]:
    """Latents and outputs of a block in pieces, so that dense latents stay within `LATENT_BYTES`."""
    device = dictionary.weights.W_dec.device
    own = dictionary.reading(x)
    step = max(1, LATENT_BYTES // (4 * dictionary.n_latents))
    with torch.no_grad():
        for start in range(0, len(x), step):
            piece = slice(start, min(len(x), start + step))
            given = x[piece].to(device)
            latents = own.encode(given)
            yield Coded(latents, own.decode(latents, given).flatten(1), piece)


def outputs_of(dictionary: Dictionary, x: Tensor) -> Float[Tensor, "token d_out"]:
    """What the dictionary makes of a block, flat, where the block lies and in its dtype."""
    return torch.cat([each.output for each in coded(dictionary, x)]).to(x)
