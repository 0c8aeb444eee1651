"""Dictionaries from Python: trained on a model in hand and a text, tokens or rows, evaluated and shown on them."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from micrographia.core.dictionaries.dictionary import Dictionary
from micrographia.core.errors import BadConfig
from micrographia.core.events import Watch, silent
from micrographia.core.model import Model
from micrographia.core.questions import check
from micrographia.core.runtime import generator
from micrographia.core.sites import SiteLike, one_site
from micrographia.core.stream.batches import ActivationStream
from micrographia.core.stream.packing import layout_for
from micrographia.core.stream.rows import TokenRows, as_rows, special_tokens
from micrographia.core.stream.texts import open_texts, texts_of
from micrographia.core.stream.tokenise import token_rows
from micrographia.labs.sae.config import KIND, L0, check_sparsity
from micrographia.labs.sae.train import BEGUN, sparsity_of
from micrographia.methods.dictionaries.evaluation.evaluate import Evaluation, evaluate
from micrographia.methods.dictionaries.features import build
from micrographia.methods.dictionaries.features.bundle import Bundle
from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.train import train_dictionaries

Words = str | Path | Iterable[str] | Tensor | TokenRows
"""A file, folder, .jsonl or hf:NAME; texts; token ids (row, pos); or rows."""


def train_dictionary(
    model: Model,
    site: SiteLike,
    tokens: Words,
    *,
    width: int | None = None,
    kind: str | None = None,
    l0: float | None = None,
    sparsity: float | None = None,
    steps: int | None = None,
    writes: SiteLike | None = None,
    context: int = 128,
    batch: int = 4096,
    buffer_bytes: int = 2**29,
    seed: int = 0,
    recipe: Recipe | None = None,
    watch: Watch = silent,
    **fields: Any,
) -> Dictionary:
    """A dictionary of the activations at `site`, its scale folded into the weights.

    `width`: latents, by default eight times the activation's. `kind`: batchtopk by default, or relu, gated, topk,
    matryoshka, jumprelu, abstopk, groupmax. `l0`: active latents a token, by default 50 (relu and gated take `sparsity`
    instead, the coefficient of their L1 penalty); a `recipe` says kind and sparsity itself. `steps`: by default one
    pass over the tokens. `writes` makes it a transcoder. `fields` are those of a Recipe (lr, revival, ...), over
    `recipe` or the default one. Special tokens and the first position of each row are left out. Cost: a run of the
    model to the Site for every token, and 10 * d * width FLOPs a token. Raises UnknownSite, BadConfig, UserError (too
    little text), NonFiniteLoss.
    """
    given = {"l0": l0 is not None, "sparsity": sparsity is not None, "recipe": recipe is not None}
    check_sparsity(kind or KIND, **given)
    check(recipe is None or kind is None, "kind was set, but a recipe says so itself. Leave it out.")
    place = one_site(model.sites, site)
    target = None if writes is None else one_site(model.sites, writes)
    stream = ActivationStream(
        model, (place, target) if target else place, rows_of(model, tokens, context), batch=batch,
        buffer_bytes=buffer_bytes, seed=seed, watch=watch,
    )  # fmt: skip
    d_in, d_out = stream.widths()
    n = width or 8 * d_in
    own = {"n_latents": n, "batch": batch, "steps": steps or max(1, stream.plan.tokens_an_epoch // batch)}
    if recipe is None:
        amount = float(L0) if l0 is None else l0
        own |= sparsity_of(kind or KIND, amount if sparsity is None else sparsity, n)
    chosen = replace(recipe or BEGUN, **{**own, **fields})
    (found,) = train_dictionaries(stream, [chosen], d_in=d_in, d_out=d_out, seed=seed, watch=watch)
    return replace(found, about=replace(found.about, site=place, target=target))


def evaluate_dictionary(
    dictionary: Dictionary,
    model: Model,
    tokens: Words,
    site: SiteLike | None = None,
    *,
    context: int = 128,
    seed: int = 0,
    **choices: Any,
) -> Evaluation:
    """Fidelity, sparsity and spliced loss of a dictionary on a text, beside baselines; prints as one table.

    `choices` are those of `methods.dictionaries.evaluation.evaluate.evaluate` (target, loss_rows, counted ...).
    """
    rows = rows_of(model, tokens, context)
    return evaluate(dictionary, model, site, rows, generator=generator(seed), **choices)


def build_bundle(
    dictionary: Dictionary,
    model: Model,
    tokens: Words,
    folder: str | Path,
    site: SiteLike | None = None,
    *,
    context: int = 128,
    seed: int = 0,
    **choices: Any,
) -> Bundle:
    """Everything a browser shows of this dictionary's latents on a text, in a new folder; gives the bundle.

    `choices` are those of `methods.dictionaries.features.build.build_bundle` (labels, choice, counted, name, watch),
    which tells the cost and goes on where it was stopped.
    """
    rows = rows_of(model, tokens, context)
    return build.build_bundle(dictionary, model, rows, site, folder, generator=generator(seed), **choices)


def rows_of(model: Model, tokens: Words, context: int) -> TokenRows:
    """The rows that these words are for a model; ids and rows as they are."""
    if isinstance(tokens, TokenRows):
        return tokens
    if isinstance(tokens, Tensor):
        return as_rows(tokens, special=() if model.tokenizer is None else special_tokens(model.tokenizer))
    if model.tokenizer is None:
        raise BadConfig("Text was given for a model without a tokenizer. Give token ids (row, pos).")
    texts = open_texts(tokens) if isinstance(tokens, str | Path) else texts_of(tokens)
    return token_rows(texts, model.tokenizer, layout_for(model.tokenizer, min(context, model.shape.n_ctx)))
