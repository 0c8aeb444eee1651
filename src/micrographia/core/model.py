"""Model: the protocol that every studied model satisfies; Output, Cache, and the Tap that observes a forward pass.

`model.run(inputs, keep=sites, edits=edits)` gives logits and a Cache of the kept activations. At each Site the forward
pass calls the Tap with the value and continues with the value it returns. No hooks remain after a run.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.edits import Edit, coders, may_attend
from micrographia.core.errors import BadEdit, BadShape, UnknownSite, UserError
from micrographia.core.sites import Site, SiteLike, as_site, select
from micrographia.core.tokens import Inputs, Tokenizer


class Readout(NamedTuple):
    """A selection of logits: those of `tokens` (batch, answer) at one position, as (batch, 1, answer).

    A metric that reads two answers then costs two columns of the unembedding instead of the whole vocabulary.
    """

    tokens: Tensor
    pos: int = -1


LogitsAt = Literal["all", "last"] | Sequence[int] | Readout
"""Which logits a run computes. A run that keeps or edits the logits Site computes it whole."""


class Cache(Mapping[Site, Tensor]):
    """The activations that a run kept, after edits, by Site or its text.

    No two share memory: one that is changed in place changes no other. With `grad=True` they may, as in the run.
    """

    def __init__(self, values: Mapping[Site, Tensor]) -> None:
        self._values = dict(values)

    def __getitem__(self, site: SiteLike) -> Tensor:
        found = self._values.get(as_site(site))
        if found is None:
            kept = ", ".join(map(str, self._values)) or "nothing"
            raise UnknownSite(f"The run did not keep {str(site)!r}. It kept {kept}. Ask for it in `keep`.")
        return found

    def __contains__(self, site: object) -> bool:
        return isinstance(site, Site | str) and as_site(site) in self._values

    def get(self, site: SiteLike, default: Any = None) -> Any:
        return self._values.get(as_site(site), default)

    def __iter__(self) -> Iterator[Site]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        inside = ", ".join(f"{site}: {'x'.join(map(str, value.shape))}" for site, value in self._values.items())
        return f"Cache({inside})"


class Output(NamedTuple):
    """The result of a run: logits (batch, selected positions, vocab) and the Cache. `logits, cache = model.run(...)`.

    A run that stopped early has no logits: `maybe_logits` is None, and `logits` raises.
    """

    maybe_logits: Tensor | None
    cache: Cache

    def __repr__(self) -> str:
        shape = "none" if self.maybe_logits is None else "x".join(map(str, self.maybe_logits.shape))
        return f"Output(logits {shape}, {self.cache!r})"

    @property
    def logits(self) -> Tensor:
        """The logits. Raises UserError where the run stopped before them."""
        if self.maybe_logits is None:
            raise UserError(
                f"Logits were asked for of a run that stopped before it had any; it kept {self.cache!r}. "
                "Run without `stop` to have logits; a model without a head for words has none."
            )
        return self.maybe_logits


class KeysValues(NamedTuple):
    """Keys as attention compares them (after rotary) and values, each (rows, offset, kv head, d_head).

    With fewer rows than the batch (a divisor of its size), each block of that many rows shares them.
    """

    keys: Tensor
    values: Tensor


class Start(NamedTuple):
    """A start of the run other than the tokens: the residual stream entering `layer`.

    With `offset`, the run computes only the positions from `offset` on: `residual` is (batch, pos - offset, d_model),
    the activations have as many positions, and `past` gives keys and values of the positions before, for every layer
    from `layer` on. Position arguments (of edits, of `logits`) then count from `offset`. The inputs stay whole.
    """

    layer: int
    residual: Tensor
    offset: int = 0
    past: Mapping[int, KeysValues] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """The sizes of a model."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    d_vocab_out: int
    n_ctx: int
    causal: bool = True
    """Attention is causal, so the keys and values of earlier positions can be reused."""

    @property
    def group(self) -> int:
        """How many heads share a key and a value; 1 without attention."""
        return self.n_heads // (self.n_kv_heads or 1) or 1


def described(kind: str, shape: ModelShape, n_sites: int) -> str:
    """One line that describes a Model."""
    return (
        f"{kind}({shape.n_layers} layers of {shape.n_heads} heads, d_model {shape.d_model}, "
        f"{shape.d_mlp} neurons a layer, {shape.d_vocab} tokens, {n_sites} sites)"
    )


@runtime_checkable
class Model(Protocol):
    """A model that can be run, observed and edited."""

    @property
    def shape(self) -> ModelShape: ...

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every Site of this model, in the order in which a run reaches them."""
        ...

    @property
    def weights(self) -> Any:
        """Views of the weights under the names that all families share, as `x @ W`."""
        ...

    @property
    def tokenizer(self) -> Tokenizer | None: ...

    @property
    def fused(self) -> "Model":
        """This model with faster kernels where there are any: equal to rounding alone. Shares all weights."""
        ...

    def run(
        self,
        inputs: Inputs,
        *,
        keep: SiteLike | Iterable[SiteLike] = (),
        edits: Sequence[Edit] = (),
        logits: LogitsAt = "all",
        grad: bool = False,
        start: Start | None = None,
        stop: int | Site | None = None,
    ) -> Output:
        """`stop`: stop before this layer, or at this Site once it was kept and edited; None runs to the logits."""
        ...

    def unembed(self, residual: Float[Tensor, "*at d_model"]) -> Float[Tensor, "*at vocab"]:
        """The logits of this residual stream: the final norm and the unembedding (the logit lens)."""
        ...


class PerLayer:
    """One kind of weight over layers: `W_Q[layer]`, `W_Q[layer, head]`; None where the model has none."""

    def __init__(self, read: Callable[[int], Any], n_layers: int) -> None:
        self._read = read
        self._n_layers = n_layers

    def __len__(self) -> int:
        return self._n_layers

    def __getitem__(self, at: int | tuple[int, ...]) -> Any:
        layer, *rest = at if isinstance(at, tuple) else (at,)
        weight = self._read(layer)
        return weight[tuple(rest)] if rest and weight is not None else weight


class Stopped(Exception):
    """Ends a run early; `value` is the activation at its end."""

    def __init__(self, value: Tensor | None = None) -> None:
        super().__init__()
        self.value = value


class Tap:
    """Observes a forward pass at its Sites: applies edits, keeps the selected activations, stops where the run ends.

    `tap(kind, layer, value)` returns the value to continue with. `changes` is True where a value that is usually
    computed off the path (a head's `result`) must be computed on it.
    """

    def __init__(
        self, keep: Iterable[Site] = (), edits: Sequence[Edit] = (), *, detach: bool = True, end: Site | None = None
    ) -> None:
        self._keep = frozenset(keep)
        self._end = end
        self._edits: dict[Site, list[Edit]] = {}
        for edit in edits:
            self._edits.setdefault(edit.site, []).append(edit)
        self._detach = detach
        self.kept: dict[Site, Tensor] = {}
        self.reached: set[Site] = set()

    def __call__(self, kind: str, layer: int | None, value: Tensor) -> Tensor:
        if not (self._keep or self._edits or self._end):
            return value
        site = Site(kind, layer)
        value = self._at(site, value)
        if site == self._end:
            raise Stopped
        return value

    def keeps(self, kind: str, layer: int | None) -> bool:
        return Site(kind, layer) in self._keep if self._keep else False

    def changes(self, kind: str, layer: int | None) -> bool:
        return Site(kind, layer) in self._edits if self._edits else False

    def _at(self, site: Site, value: Tensor) -> Tensor:
        self.reached.add(site)
        given = value
        for edit in self._edits.get(site, ()):
            value = self._splice(edit, value) if edit.dictionary is not None else edit(value)
        if site.kind == "scores" and value is not given:  # no edit lifts the mask
            value = torch.where(may_attend(given), value, given)
        if site in self._keep:
            self.kept[site] = value.detach() if self._detach else value
        return value

    def _splice(self, edit: Edit, value: Tensor) -> Tensor:
        encode, decode = coders(edit, value)
        latents = encode(value)
        error = value - decode(latents)
        # An alias: the error was computed from these latents too, and a gradient at the Site must not include that.
        latents = self._at(edit.site.within(edit.name, "latents"), latents.view_as(latents))
        error = self._at(edit.site.within(edit.name, "error"), error)
        return decode(latents) + error

    def finish(self) -> Cache:
        """The Cache, once the pass is over. Raises UnknownSite for a Site that it should have reached and did not."""
        missing = (self._keep | set(self._edits) | ({self._end} if self._end else set())) - self.reached
        if missing:
            names = ", ".join(sorted(map(str, missing)))
            raise UnknownSite(f"The run never reached {names}. Check `start`, `stop` and the spliced dictionaries.")
        return Cache(_apart(self.kept) if self._detach else self.kept)


def _apart(kept: Mapping[Site, Tensor]) -> dict[Site, Tensor]:
    """The same values, none of which is another's tensor (as L1.resid_pre is L0.resid_post's): the later is copied."""
    found, seen = dict(kept), set[int]()
    for site, value in kept.items() if len(kept) > 1 else ():
        if value.data_ptr() in seen:
            found[site] = value.clone()
        seen.add(value.data_ptr())
    return found


SILENT = Tap()


def run_tapped(
    sites: Sequence[Site],
    forward: Callable[[Tap], Tensor | None],
    keep: SiteLike | Iterable[SiteLike],
    edits: Sequence[Edit],
    *,
    grad: bool,
    end: Site | None = None,
) -> Output:
    """Run `forward` with a Tap for these Sites and edits: the part of `Model.run` that all models share.

    `end` is the Site where the run stops, if it does.
    """
    for edit in edits:
        if not isinstance(edit, Edit):
            raise BadEdit(f"Edits were asked for, but {edit!r} is not an Edit. Make one, such as zero({str(edit)!r}).")
        select(sites, edit.site)
    tap = Tap(select(sites, keep), edits, detach=not grad, end=end)
    try:
        logits = forward(tap)
    except Stopped as stopped:
        logits = stopped.value
    return Output(logits, tap.finish())


def check_ids(ids: Tensor, shape: ModelShape) -> None:
    """Raises BadShape for ids of no token, UserError for too many, and for such as are not in the vocabulary."""
    if ids.ndim != 2 or not ids.shape[1]:
        raise BadShape(f"Tokens should have shape (batch, pos), a token at least. Found {tuple(ids.shape)}.")
    if ids.shape[1] > shape.n_ctx:
        raise UserError(f"This model reads {shape.n_ctx} tokens at most. Found {ids.shape[1]}. Shorten the prompts.")
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < shape.d_vocab:
        raise UserError(f"Tokens must lie in 0..{shape.d_vocab - 1}. Found {int(ids.min())}..{int(ids.max())}.")


def span(model: Model, start: Start | None, stop: int | Site | None) -> range:
    """The layers of a run. Raises UserError for layers that do not exist, UnknownSite for an unknown end."""
    n_layers = model.shape.n_layers
    first = start.layer if start else 0
    last = n_layers if stop is None else stop
    if isinstance(last, Site):
        select(model.sites, last)
        last = n_layers if last.layer is None else max(first, last.layer + 1)
    if not 0 <= first <= last <= n_layers:
        raise UserError(f"Layers {first} to {last} were asked for. There are {n_layers}: 0 <= start <= stop <= that.")
    return range(first, last)


def positions_read(logits: LogitsAt) -> list[int]:
    """The positions of a selection of logits; the last one where nothing is named."""
    if isinstance(logits, Readout):
        return [logits.pos]
    return [-1] if isinstance(logits, str) else list(logits)


def selected(logits: Tensor, wanted: LogitsAt) -> Tensor:
    """The requested part of logits at all positions."""
    if isinstance(wanted, Readout):
        return logits[:, wanted.pos].gather(-1, wanted.tokens.to(logits.device))[:, None]
    return logits if wanted == "all" else logits[:, positions_read(wanted)]


def check_readout(logits: LogitsAt, length: int) -> None:
    """Raises UserError for logits at positions that a run of this length does not have."""
    if outside := [pos for pos in positions_read(logits) if not -length <= pos < length]:
        raise UserError(f"Logits at positions {outside} were asked for; this run computes {length}. Choose of these.")
