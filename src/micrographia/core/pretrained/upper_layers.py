"""Fine-tune the last layers of a pretrained model: the layers below run once, and only what is above is computed again.

The residual stream that enters the first trained layer does not change while the layers below are frozen, so it is kept
for every text and training starts there (`Start`). Embeddings, final norm and unembedding stay frozen too. The loss is
the cross-entropy of chosen tokens, and only these are unembedded, which is the dearest product of a small model with a
large vocabulary. Weights are one flat row, as `core.training` steps them. Axes: row pos d_model.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.errors import BadPrompt, UserError
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.model import Start, Stopped, Tap
from micrographia.core.pretrained.model import Pass, Pretrained
from micrographia.core.sites import Site
from micrographia.core.training import Flat, Layout, LossAndGradient

ROWS = 16
"""Texts of a run of the lower layers."""


class Learned(NamedTuple):
    """Texts as tokens, padded on the left, and which of their tokens are learned: those of the completions."""

    ids: Int[Tensor, "row pos"]
    mask: Bool[Tensor, "row pos"]
    learned: Bool[Tensor, "row pos"]

    def rows(self, rows: Int[Tensor, "chosen"]) -> "Learned":
        """Some rows in this order, without columns that are padding in all of them."""
        cut = int((~self.mask[rows]).sum(1).min())
        return Learned(*(part[rows, cut:] for part in self))


def learned_texts(model: Pretrained, texts: Sequence[tuple[str, str]]) -> Learned:
    """Prompts and completions as tokens, each tokenized apart. Raises BadPrompt for a completion of no token, and
    for a text longer than the model reads."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise UserError("Asked to fine-tune on texts, but this model has no tokenizer. Load it with one.")
    rows = list[tuple[list[int], int]]()
    for prompt, completion in texts:
        before = model.to_tokens(prompt)
        head = (before if isinstance(before, Tensor) else before.ids)[0].tolist()
        tail = tokenizer.encode(completion)
        if not tail:
            raise BadPrompt(f"The completion {completion!r} after {prompt!r:.60} has no token. Write a text.")
        rows.append((head + tail, len(tail)))
    longest = max(len(ids) for ids, _ in rows)
    if longest > model.shape.n_ctx:
        text = next("".join(each) for each, (ids, _) in zip(texts, rows) if len(ids) > model.shape.n_ctx)
        raise BadPrompt(f"{text!r:.80} has more tokens than the {model.shape.n_ctx} that this model reads. Shorten it.")
    ids = torch.tensor([[tokenizer.pad or 0] * (longest - len(row)) + row for row, _ in rows])
    back = longest - torch.arange(longest)  # how many positions from the end, the last being 1
    mask = torch.stack([back <= len(row) for row, _ in rows])
    return Learned(ids, mask, torch.stack([back <= n for _, n in rows]))


@dataclass(frozen=True, eq=False, slots=True)
class UpperLayers:
    """A copy of a model whose layers from `first` on can be trained. Memory: the model once more."""

    model: Pretrained
    first: int

    @classmethod
    def of(cls, model: Pretrained, first: int) -> "UpperLayers":
        """Raises UserError for a layer that the model does not have, for weights that are no plain floats, and for a
        model that reads in both directions, which would see what it is asked for."""
        if not model.shape.causal:
            raise UserError("Training on completions was asked for. This model reads in both directions; give another.")
        n_layers = model.shape.n_layers
        if not 0 < first < n_layers:
            raise UserError(f"Training from layer {first} on was asked for. The model has 1 to {n_layers - 1}.")
        module = copy.deepcopy(model.module)
        own = cls(Pretrained(module, model.tokenizer), first)
        if not all(weight.is_floating_point() for weight in own._parameters().values()):
            raise UserError("Training was asked for, but the model's weights are quantised. Load it unquantised.")
        for weight in module.parameters():
            weight.requires_grad_(False)
        return own

    def _parameters(self) -> dict[str, Tensor]:
        above = {id(weight) for layer in self.model.body.layers[self.first :] for weight in layer.parameters()}
        return {name: weight for name, weight in self.model.module.named_parameters() if id(weight) in above}

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(weight.shape) for name, weight in self._parameters().items()}

    @property
    def layout(self) -> Layout:
        return Layout(self.weight_shapes())

    def weights(self) -> Flat:
        """A copy of the trained weights as they stand."""
        return self.layout.pack([{name: weight.detach() for name, weight in self._parameters().items()}])

    def use(self, weights: Flat) -> None:
        """Let the model read these weights; they are not copied, so a later step changes the model."""
        for (name, view), weight in zip(self.layout.views(weights).items(), self._parameters().values(), strict=True):
            assert view.shape[1:] == weight.shape, name
            weight.data = view[0]

    @torch.no_grad()
    def entering(self, texts: Learned, watch: Watch = silent) -> Float[Tensor, "row pos d_model"]:
        """The residual stream that enters the first trained layer. One pass of the layers below."""
        site, found = Site("resid_pre", self.first), list[Tensor]()
        for done, rows in enumerate(parts := torch.arange(len(texts.ids)).split(ROWS), start=1):
            own = texts.rows(rows)
            kept = self._run(own, None, site).cpu()
            found.append(F.pad(kept, (0, 0, texts.ids.shape[1] - kept.shape[1], 0)))
            watch(Progress("layers below", done, len(parts), "batch"))
        return torch.cat(found)

    def log_probs(
        self, texts: Learned, entering: Float[Tensor, "row pos d_model"]
    ) -> tuple[Float[Tensor, "token"], Bool[Tensor, "token"], Int[Tensor, "token"]]:
        """Of every learned token its log-probability, whether it is the likeliest, and the row that it is in."""
        residual = entering[:, entering.shape[1] - texts.ids.shape[1] :].to(self.model.device)
        last = self._run(texts, Start(self.first, residual), Site("resid_post", self.model.shape.n_layers - 1))
        row, pos = texts.learned.nonzero().unbind(1)
        logits = self.model.unembed(last[row, pos - 1])
        target = texts.ids[row, pos].to(logits.device)
        found = logits.float().log_softmax(-1).gather(-1, target[:, None])[:, 0]
        return found, logits.argmax(-1) == target, row

    def objective(
        self, texts: Learned, entering: Float[Tensor, "row pos d_model"], batch: Callable[[int], Int[Tensor, "row"]]
    ) -> Callable[[Flat, int], LossAndGradient]:
        """The mean cross-entropy of the learned tokens in the rows that `batch` gives for a step, and its gradient."""
        parameters = self._parameters()

        def at(weights: Flat, step: int) -> LossAndGradient:
            self.use(weights)
            rows = batch(step)
            with torch.enable_grad():
                for weight in parameters.values():
                    weight.requires_grad_(True)
                loss = -self.log_probs(texts.rows(rows), entering[rows])[0].mean()
                gradients = torch.autograd.grad(loss, list(parameters.values()))
            for weight in parameters.values():
                weight.requires_grad_(False)
            return LossAndGradient(loss.detach()[None], torch.cat([each.reshape(-1) for each in gradients])[None])

        return at

    def flops(self, n_tokens: int, n_learned: int) -> float:
        """Of a step on so many tokens, of which so many are learned: twice a weight and token forward, as much for each
        of the two gradients backward; the frozen unembedding has one. Attention's own products are left out."""
        trained = sum(map(torch.Size.numel, map(torch.Size, self.weight_shapes().values())))
        return 6.0 * trained * n_tokens + 4.0 * self.model.shape.d_model * self.model.shape.d_vocab_out * n_learned

    def _run(self, texts: Learned, start: Start | None, site: Site) -> Tensor:
        """The activation at a Site, with its graph where the weights have gradients."""
        ids = texts.ids.to(self.model.device)
        tap = Tap([site], detach=False, end=site)
        what = Pass(ids, None if bool(texts.mask.all()) else texts.mask, "last", start=start, stop=site)
        with suppress(Stopped):  # `run` would freeze all weights while gradients are on
            self.model._forward(tap, what, (site,), ())
        return tap.kept[site]
