"""Pretrained: an unmodified Hugging Face model under the microscope.

A run calls the model itself, with hooks for its length only. With no edit its logits are those of the bare module, bit
for bit, whatever is kept (same inputs, batch and attention implementation; "all" logits). What a module computes inside
is kept beside its path; an edit there adds the difference that it makes, so that an edit which changes nothing changes
no bit.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from micrographia.core.edits import Edit
from micrographia.core.errors import BadShape, UserError
from micrographia.core.events import Note, Watch, silent
from micrographia.core.model import LogitsAt, ModelShape, Output, Readout, Start, Tap, run_tapped
from micrographia.core.pretrained.attending import Implementation, attending, needs_eager
from micrographia.core.pretrained.body import Body
from micrographia.core.pretrained.families import family_of
from micrographia.core.pretrained.listener import Listener, hooks_for, listening
from micrographia.core.pretrained.readout import capped, logits_to_keep, readout_hooks, selected
from micrographia.core.pretrained.spans import Stopped, check_start, past_cache, span_hooks, started
from micrographia.core.pretrained.weights import PretrainedWeights
from micrographia.core.pretrained.words import HubTokenizer
from micrographia.core.sites import Site, SiteLike, select
from micrographia.core.tokens import Inputs, Tokenizer, ids_of, mask_of, single_token, to_str_tokens, to_tokens


class Pretrained:
    """A Hugging Face language model as a Model. `module` stays as it is: dtype, device, attention, train or eval."""

    def __init__(self, module: nn.Module, tokenizer: Tokenizer | None = None, *, watch: Watch = silent) -> None:
        config: Any = module.config
        self.module = module
        self.tokenizer = tokenizer
        self.watch = watch
        self.body = Body(module, family_of(config), config)
        self._implementation = Implementation(self.body)
        self._told: set[str] = set()

    @property
    def shape(self) -> ModelShape:
        return self.body.shape

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.body.sites

    @property
    def weights(self) -> PretrainedWeights:
        return PretrainedWeights(self.body)

    def run(
        self,
        inputs: Inputs,
        *,
        keep: SiteLike | Iterable[SiteLike] = (),
        edits: Sequence[Edit] = (),
        logits: LogitsAt = "all",
        grad: bool = False,
        start: Start | None = None,
        stop: int | None = None,
    ) -> Output:
        """Run tokens, keep Sites, apply edits; see `Model`. One pass of the model, or of the layers asked for.

        With `grad` the parameters are frozen for the run: gradients begin at edits with trainable tensors or at
        `leaf`. Sites inside attention that are edited or differentiated switch the run to eager attention, and `watch`
        is told once.
        Errors: UserError for tokens outside the vocabulary or too many, layers that are not there, a model that draws
        dropout; UnknownSite; BadEdit.
        """
        ids, mask = ids_of(inputs).to(self.device), mask_of(inputs)
        self._check(ids, start, stop, logits)
        kept = select(self.sites, keep)
        with torch.set_grad_enabled(grad), _frozen(self.module, grad):
            return run_tapped(
                self.sites,
                lambda tap: self._forward(tap, ids, mask, kept, edits, logits, grad, start, stop),
                kept,
                edits,
                grad=grad,
            )

    def _forward(
        self,
        tap: Tap,
        ids: Tensor,
        mask: Tensor | None,
        kept: Sequence[Site],
        edits: Sequence[Edit],
        logits: LogitsAt,
        grad: bool,
        start: Start | None,
        stop: int | None,
    ) -> Tensor | None:
        body = self.body
        first, last = start.layer if start else 0, body.shape.n_layers if stop is None else stop
        listener = Listener(body, tap, kept, [edit.site for edit in edits], grad=grad, batch=len(ids))
        whole = listener.wants("logits", layer=None)
        at: LogitsAt = "all" if whole or stop is not None else logits
        entry, exit = span_hooks(body, start, stop)
        sites = hooks_for(body, listener, first, last, from_tokens=start is None, to_logits=stop is None)
        eager = needs_eager(listener, body.shape.n_layers, self._implementation.own)
        if eager:
            self._tell_of_eager()
        with ExitStack() as scopes:
            scopes.enter_context(started(body, start))
            scopes.enter_context(attending(body, self._implementation, listener, eager=eager))
            scopes.enter_context(listening(listener, [*entry, *sites, *exit, *readout_hooks(body, at)]))
            try:
                found = self._call(ids, mask, start, at)
            except Stopped as stopped:
                return stopped.value
        if whole:
            return selected(listener("logits", None, found), logits)
        return selected(found, logits._replace(pos=0)) if isinstance(logits, Readout) else found

    def _call(self, ids: Tensor, mask: Tensor | None, start: Start | None, logits: LogitsAt) -> Tensor:
        offset = start.offset if start else 0
        arguments: dict[str, Any] = logits_to_keep(self.body, logits, ids.shape[1] - offset)
        if not self.body.family.encoder:
            arguments["use_cache"] = bool(offset)
        if start is not None and offset:
            arguments["past_key_values"] = past_cache(self.body, start, len(ids))
        if mask is not None:
            arguments["attention_mask"] = mask.long().to(ids.device)
        if mask is not None or offset:
            places = torch.ones_like(ids) if mask is None else mask.long().to(ids.device)
            arguments["position_ids"] = (places.cumsum(-1) - 1).clamp(min=0)[:, offset:]
        return self.module(input_ids=ids[:, offset:], return_dict=True, **arguments).logits

    def unembed(self, residual: Float[Tensor, "*at d_model"]) -> Float[Tensor, "*at vocab"]:
        """The logits that this residual stream would give: what follows the last layer, run on it (the logit lens)."""
        body, family = self.body, self.body.family
        with torch.set_grad_enabled(torch.is_grad_enabled() and residual.requires_grad):
            if family.encoder:
                return body.part(family.head.rpartition(".")[0])(residual)
            for path in (family.final_norm, family.head_projection, family.head):
                module = body.find(path)
                residual = residual if module is None else module(residual)
            return capped(body, residual)

    def to_tokens(self, texts: str | Sequence[str], *, prepend_bos: bool | None = None) -> Inputs:
        """Ids (batch, pos), padded on the left where lengths differ.

        `prepend_bos` None puts the special tokens that the tokenizer puts by itself (GPT-2 none, Llama a first one,
        BERT one at either end); True or False puts a first one or none. Never twice.
        """
        if prepend_bos is None and isinstance(self.tokenizer, HubTokenizer):
            return to_tokens(self.tokenizer.as_usual, texts, prepend_bos=False)
        return to_tokens(self.tokenizer, texts, prepend_bos=prepend_bos)

    def to_str_tokens(self, ids: Sequence[int] | Int[Tensor, "pos"]) -> list[str]:
        """See `core.tokens.to_str_tokens`."""
        return to_str_tokens(self.tokenizer, ids)

    def single_token(self, text: str, *, first: bool = False) -> int:
        """See `core.tokens.single_token`."""
        return single_token(self.tokenizer, text, first=first)

    @property
    def device(self) -> torch.device:
        """Where the tokens go: the embedding's device."""
        return next(self.body.part(self.body.family.embed).parameters()).device

    def _check(self, ids: Tensor, start: Start | None, stop: int | None, logits: LogitsAt) -> None:
        shape = self.shape
        if ids.ndim != 2:
            raise BadShape(f"Tokens should have shape (batch, pos). Found {tuple(ids.shape)}.")
        if ids.shape[1] > shape.n_ctx:
            raise UserError(
                f"This model reads {shape.n_ctx} tokens at most. Found {ids.shape[1]}. Shorten the prompts."
            )
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < shape.d_vocab:
            raise UserError(f"Tokens must lie in 0..{shape.d_vocab - 1}. Found {int(ids.min())}..{int(ids.max())}.")
        first, last = start.layer if start else 0, shape.n_layers if stop is None else stop
        if not 0 <= first <= last <= shape.n_layers:
            raise UserError(
                f"Layers {first} to {last} were asked for. There are {shape.n_layers}: 0 <= start <= stop <= that."
            )
        if start is not None:
            check_start(self.body, start, *ids.shape)
        _check_readout(logits, ids.shape[1] - (start.offset if start else 0))
        _check_dropout(self.module)

    def _tell_of_eager(self) -> None:
        if "eager" not in self._told:
            self._told.add("eager")
            self.watch(
                Note(
                    f"Scores and patterns can be edited or differentiated in eager attention only: such runs leave "
                    f"{self._implementation.own!r} for it, and their logits differ from the others' by rounding."
                )
            )


@contextmanager
def _frozen(module: nn.Module, grad: bool) -> Iterator[None]:
    """No parameter takes part in the graph: a backward pass then computes gradients of activations alone."""
    trainable = [p for p in module.parameters() if p.requires_grad] if grad else []
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _check_dropout(module: nn.Module) -> None:
    if not module.training:
        return
    if any(isinstance(part, nn.Dropout) and part.p > 0 and part.training for part in module.modules()):
        raise UserError(
            "The model is in training mode and draws dropout, so that no two runs are alike. Call its `.eval()` first."
        )


def _check_readout(logits: LogitsAt, length: int) -> None:
    wanted = [logits.pos] if isinstance(logits, Readout) else [] if isinstance(logits, str) else list(logits)
    if outside := [pos for pos in wanted if not -length <= pos < length]:
        raise UserError(f"Logits at positions {outside} were asked for; this run computes {length}. Choose of these.")
