"""Pretrained: any unmodified Hugging Face model as a Model (run, keep, edit, generate).

Hooks are installed for one forward pass and always removed. Without edits the logits equal those of the bare module,
bit for bit, whatever is kept (same inputs, batch and attention implementation; "all" logits). A module's internal
values are computed off its path; an edit there adds its difference, so an edit that changes nothing is bit-exact too.
One exception: of a padded row in float64, transformers' eager attention makes NaN, and a run the logits of the row.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from micrographia.core.edits import Edit
from micrographia.core.errors import UserError
from micrographia.core.events import Note, Watch, silent
from micrographia.core.model import (
    LogitsAt,
    ModelShape,
    Output,
    Readout,
    Start,
    Stopped,
    Tap,
    check_ids,
    check_readout,
    described,
    run_tapped,
    selected,
    span,
)
from micrographia.core.pretrained.attention import Implementation, attending, needs_eager
from micrographia.core.pretrained.checks import Probe, check, check_dropout, device_of, examined, has_hooks, needed_for
from micrographia.core.pretrained.experts import check_experts, routing
from micrographia.core.pretrained.families import family_of
from micrographia.core.pretrained.fused import fused_activations
from micrographia.core.pretrained.generation import (
    check_generation,
    check_one_stretch,
    ends_of,
    fresh_cache,
    in_prompt,
    names_positions,
    next_tokens,
)
from micrographia.core.pretrained.hooks import HookContext, hooks_for, installed_hooks
from micrographia.core.pretrained.modules import Body
from micrographia.core.pretrained.partial_run import check_start, past_cache, placeholder, span_hooks, started
from micrographia.core.pretrained.readout import capped, logits_to_keep, readout_hooks
from micrographia.core.pretrained.save import save
from micrographia.core.pretrained.stream import stream_of
from micrographia.core.pretrained.tokenizer import AsUsual, HubTokenizer
from micrographia.core.pretrained.weights import PretrainedWeights
from micrographia.core.sites import Site, SiteLike, select
from micrographia.core.tokens import (
    Inputs,
    Tokenizer,
    ids_of,
    lengths_of,
    mask_of,
    read_inputs,
    single_token,
    to_str_tokens,
    to_tokens,
)


class Pass(NamedTuple):
    """One call of the model: its inputs, its first and last layer, and the cached positions before it."""

    ids: Tensor
    mask: Tensor | None = None
    logits: LogitsAt = "all"
    grad: bool = False
    start: Start | None = None
    stop: int | Site | None = None
    offset: int = 0
    cache: Any = None

    @property
    def end(self) -> Site | None:
        return self.stop if isinstance(self.stop, Site) else None

    @property
    def is_padded(self) -> bool:
        return self.mask is not None and not bool(self.mask.all())


class Pretrained:
    """A Hugging Face language model as a Model. `module` stays as it is: dtype, device, attention, train or eval."""

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Tokenizer | None = None,
        *,
        residual_only: bool = False,
        watch: Watch = silent,
        stored: str = "",
    ) -> None:
        """`stored`: how the weights lie in their file, where that is not how they are run."""
        self.module = examined(module, watch)
        self.tokenizer = tokenizer
        self.watch, self.stored = watch, stored
        config: Any = getattr(self.module, "config", None)
        family = stream_of(self.module) if residual_only else family_of(config, type(self.module).__name__)
        self.body = Body(self.module, family, config.get_text_config())
        self._implementation = Implementation(self.body)
        self._fused = False
        self._probed: set[str] = set()
        self._noted: set[str] = set()

    def __repr__(self) -> str:
        line = described(self.body.family.name, self.shape, len(self.sites))
        return f"{line[:-1]}; {self.stored})" if self.stored else line

    @property
    def shape(self) -> ModelShape:
        return self.body.shape

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.body.sites

    @property
    def weights(self) -> PretrainedWeights:
        return PretrainedWeights(self.body)

    @property
    def fused(self) -> "Pretrained":
        """See `Model`. The same module; its activation functions run as one kernel."""
        model = copy(self)
        model._fused = True
        return model

    def run(
        self,
        inputs: Inputs | str | Sequence[str],
        *,
        keep: SiteLike | Iterable[SiteLike] = (),
        edits: Sequence[Edit] = (),
        logits: LogitsAt = "all",
        grad: bool = False,
        start: Start | None = None,
        stop: int | Site | None = None,
    ) -> Output:
        """Run tokens (or texts: `to_tokens`), keep Sites, apply edits; see `Model`. One pass of the model, or of the
        layers asked for.

        With `grad` the parameters are frozen for the run: gradients begin at edits with trainable tensors or at
        `leaf`. Sites inside attention that are edited or differentiated switch the run to eager attention, with one
        Note to `watch`. The first use of a kind of Site is preceded by a probe run of one token (`checks`).
        Errors: UserError for tokens outside the vocabulary or too many, layers that do not exist, a model that draws
        dropout; UnknownSite; BadEdit; UnknownModel where the family's row does not fit.
        """
        inputs = read_inputs(inputs, self.to_tokens)
        ids, mask = ids_of(inputs).to(self.device), mask_of(inputs)
        self._check(ids, mask, start, stop, logits)
        offset = start.offset if start else 0
        cache = past_cache(self.body, start, len(ids)) if start is not None and offset else None
        return self._run(Pass(ids, mask, logits, grad, start, stop, offset, cache), keep, edits)

    def _run(self, what: Pass, keep: SiteLike | Iterable[SiteLike], edits: Sequence[Edit]) -> Output:
        kept = select(self.sites, keep)
        edited = tuple(dict.fromkeys(edit.site for edit in edits))
        ends = () if what.end is None else select(self.sites, what.end)
        self._probe(what.ids, {site.kind for site in (*kept, *edited, *ends)})
        with torch.set_grad_enabled(what.grad), _frozen(self.module, what.grad):
            return run_tapped(
                self.sites,
                lambda tap: self._forward(tap, what, kept, edited),
                kept,
                edits,
                grad=what.grad,
                end=what.end,
            )

    def _probe(self, ids: Tensor, kinds: set[str]) -> None:
        """Check the family's row against the model, once for each kind of Site."""
        if new := kinds - self._probed:
            sites = needed_for(self.body, new)
            probe = Probe()
            with torch.no_grad():
                with suppress(Stopped):  # at the last layer of a model without a head
                    self._forward(probe, Pass(ids[:1, :1]), sites, ())
                check(self.body, sites, probe.found, sums=not has_hooks(self.module))
            self._probed |= new

    def _forward(self, tap: Tap, what: Pass, kept: Sequence[Site], edited: Sequence[Site]) -> Tensor:
        body, start, stop = self.body, what.start, what.stop
        if not body.family.head and stop is None:  # it ends with its last layer
            stop = len(body.layers)
        layers = span(self, start, stop)
        met = kept if what.end is None else (*kept, what.end)
        context = HookContext(body, tap, met, edited, grad=what.grad, batch=len(what.ids))
        whole = context.wants("logits", layer=None)
        at: LogitsAt = "all" if whole or stop is not None else what.logits
        entry, exit = span_hooks(body, start, stop)
        to_logits = stop is None or (what.end is not None and what.end.layer is None)
        sites = hooks_for(body, context, layers, from_tokens=start is None, to_logits=to_logits)
        eager = needs_eager(context, self._implementation.own)
        if eager and not self._fused:  # fused runs are equal to rounding alone, whichever attention
            self._note_eager()
        with ExitStack() as scopes:
            scopes.enter_context(started(body, start))
            scopes.enter_context(fused_activations(body, context, active=self._fused))
            scopes.enter_context(attending(body, self._implementation, context, eager=eager, padded=what.is_padded))
            scopes.enter_context(routing(body, context))
            scopes.enter_context(installed_hooks(context, [*entry, *sites, *exit, *readout_hooks(body, at)]))
            found = self._call(what, at)
        if whole:
            return selected(context("logits", None, found), what.logits)
        return selected(found, at._replace(pos=0)) if isinstance(at, Readout) else found

    def _call(self, what: Pass, at: LogitsAt) -> Tensor:
        offset, mask = what.offset, what.mask
        arguments: dict[str, Any] = logits_to_keep(self.body, at, what.ids.shape[1] - offset)
        if not (self.body.family.encoder or self.body.family.stream_only):
            arguments |= {"use_cache": what.cache is not None, "past_key_values": what.cache}
        if mask is not None and self.body.family.stream_only and not bool(mask.all()):
            raise UserError(
                f"Padded prompts were given to {self.body.family.name}; whether its layers leave padding out is not "
                "known. Give prompts of one length, or one at a time."
            )
        if mask is not None:
            arguments["attention_mask"] = mask.long().to(what.ids.device)
        if (mask is not None or offset) and not self.body.family.stream_only:
            places = torch.ones_like(what.ids[:1]) if mask is None else mask.long().to(what.ids.device)
            known = (places.cumsum(-1) - 1).clamp(min=0)[:, offset:]
            arguments["position_ids"] = known + self.body.family.first_position
        embedded = placeholder(self.body, what.start)
        if embedded is None:
            return self.module(input_ids=what.ids[:, offset:], return_dict=True, **arguments).logits
        return self.module(inputs_embeds=embedded.to(what.ids.device), return_dict=True, **arguments).logits

    def generate(
        self,
        inputs: Inputs | str | Sequence[str],
        *,
        max_new_tokens: int,
        edits: Sequence[Edit] = (),
        temperature: float = 0.0,
        generator: Generator | None = None,
        stop_at: Sequence[int] | None = None,
    ) -> Int[Tensor, "batch pos"]:
        """The prompts (ids or texts) with the model's continuation, as ids, one token at a time, under edits.

        An edit with positions (`pos`, `query`, `key`) acts on the prompt; one without acts on every position, generated
        ones too. Temperature 0 takes the most likely token; otherwise tokens are drawn with `generator`.
        A row ends with a token of `stop_at` (None: the model's own end of text), which is then repeated to its end.
        Cost: one pass over the prompt, then one of a single position per token; keys and values are kept. A text that
        grows beyond LongRoPE's short context is read once more, since every key is another from there on.
        Errors: as `run`; UserError for an encoder, a draw without generator, and edits of rotated keys, which would not
        reach the cached keys (edit `k`).
        """
        inputs = read_inputs(inputs, self.to_tokens)
        ids, mask = ids_of(inputs).to(self.device), mask_of(inputs)
        self._check(ids, mask, None, None, "last")
        check_generation(self.body, edits, ids.shape[1] + max_new_tokens, temperature, generator)
        length = lengths_of(ids, mask)
        check_one_stretch(self.body, length, max(max_new_tokens - 1, 0))
        n_prompt, beyond = ids.shape[1], (self.body.short_context or 0) + 1  # from there on every key is another
        cache, offset = fresh_cache(self.module), 0
        ends = ends_of(self.module) if stop_at is None else list(stop_at)
        done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
        for n_new in range(max_new_tokens):
            if n_new and int(length[0]) + n_new == beyond:
                cache, offset = fresh_cache(self.module), 0
                edits = [in_prompt(edit, n_prompt) for edit in edits]
            acting = edits if not offset else [edit for edit in edits if not names_positions(edit)]
            logits = self._run(Pass(ids, mask, "last", offset=offset, cache=cache), (), acting).logits
            offset = ids.shape[1]
            chosen = next_tokens(logits[:, -1], temperature, generator).to(ids.device)
            chosen = torch.where(done, ids[:, -1], chosen)
            ids = torch.cat([ids, chosen[:, None]], 1)
            mask = None if mask is None else torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            done = done | torch.isin(chosen, torch.tensor(ends, device=ids.device, dtype=chosen.dtype))
            if bool(done.all()):
                break
        return ids

    def save(self, folder: Path | str) -> Path:
        """Write the model into a new folder, which `load` and transformers read: config, weights, tokenizer.

        Whole or not at all. A model from a GGUF file is written with its dequantised weights. Raises CannotWrite for a
        folder that holds files already and for a full disk; UserError for packed weights.
        """
        return save(self.module, self.tokenizer, Path(folder).expanduser())

    def unembed(self, residual: Float[Tensor, "*at d_model"]) -> Float[Tensor, "*at vocab"]:
        """The logits of this residual stream: the modules after the last layer, run on it (the logit lens)."""
        body, family = self.body, self.body.family
        if family.stream_only and not family.final_norm:
            raise UserError(f"{family.name}: how the last residual stream becomes logits was not found. Run the model.")
        if not family.stream_only:
            body.part(family.head)
        with torch.set_grad_enabled(torch.is_grad_enabled() and residual.requires_grad):
            for path in family.after_layers:
                module = body.find(path)
                residual = residual if module is None else module(residual)
            return capped(body, residual)

    def to_tokens(self, texts: str | Sequence[str], *, prepend_bos: bool | None = None) -> Inputs:
        """Ids (batch, pos), padded on the left where lengths differ.

        `prepend_bos` None adds the tokenizer's usual special tokens (GPT-2 none, Llama one at the start, BERT one at
        each end); True or False adds one at the start or none. Never twice. A model that goes on with a text gets none
        at its end, whatever the tokenizer's habit: its last position is the text's last token.
        """
        if prepend_bos is None and isinstance(self.tokenizer, HubTokenizer):
            return to_tokens(AsUsual(self.tokenizer.inner, ends=not self.shape.causal), texts, prepend_bos=False)
        return to_tokens(self.tokenizer, texts, prepend_bos=prepend_bos)

    def to_str_tokens(self, ids: Sequence[int] | Int[Tensor, "pos"]) -> list[str]:
        """See `core.tokens.to_str_tokens`."""
        return to_str_tokens(self.tokenizer, ids)

    def single_token(self, text: str, *, first: bool = False) -> int:
        """See `core.tokens.single_token`."""
        return single_token(self.tokenizer, text, first=first)

    @property
    def device(self) -> torch.device:
        """The device of the embedding, where tokens go."""
        return device_of(self.body.part(self.body.family.embed))

    def _check(
        self, ids: Tensor, mask: Tensor | None, start: Start | None, stop: int | Site | None, logits: LogitsAt
    ) -> None:
        check_ids(ids, self.shape)
        check_one_stretch(self.body, lengths_of(ids, mask))
        span(self, start, stop)
        if logits != "all":
            self.body.part(self.body.family.head)
        if start is not None:
            check_start(self.body, start, *ids.shape)
        check_readout(logits, ids.shape[1] - (start.offset if start else 0))
        check_dropout(self.module)
        check_experts(self.body)

    def _note_eager(self) -> None:
        if "eager" not in self._noted:
            self._noted.add("eager")
            self.watch(
                Note(
                    "Scores and patterns can be edited or differentiated in eager attention only, and kept under "
                    f"eager or sdpa: such runs switch from {self._implementation.own!r} to eager; their logits differ "
                    "by rounding from those of other runs."
                )
            )


@contextmanager
def _frozen(module: nn.Module, grad: bool) -> Iterator[None]:
    """Exclude all parameters from the graph, so that a backward pass computes gradients of activations only."""
    trainable = [p for p in module.parameters() if p.requires_grad] if grad else []
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
