"""attribute: any of the estimates by its name, in one call. `METHODS` is the table of what there is."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch

from micrographia.core.errors import UserError
from micrographia.core.events import Note, Watch, silent
from micrographia.core.metrics import Metric
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs, check_aligned
from micrographia.core.sites import SiteLike
from micrographia.core.tokens import ids_of
from micrographia.methods.attribution.atp import attribution_patching
from micrographia.methods.attribution.estimate import Attribution, Mode
from micrographia.methods.attribution.grad_drop import atp_star
from micrographia.methods.attribution.groups import at_once, in_groups
from micrographia.methods.attribution.ig import activation_gradients, integrated_gradients
from micrographia.methods.attribution.qk import attribution_patching_with_qk_fix
from micrographia.methods.attribution.relp import relevance_patching


class Method(NamedTuple):
    """An estimate: what it is called, what it costs in passes over the model, and what it does."""

    title: str
    passes: str
    run: Callable[..., Attribution]


METHODS: Mapping[str, Method] = {
    "atp": Method("attribution patching", "2 forward, 1 backward", attribution_patching),
    "atp-qk": Method("attribution patching with the QK-fix", "2 forward, 1 backward", attribution_patching_with_qk_fix),
    "atp-star": Method("AtP*: QK-fix and GradDrop", "2 forward, n_layers + 1 backward", atp_star),
    "ig": Method("integrated gradients, input path", "steps + 2 forward, steps backward", integrated_gradients),
    "ig-activation": Method(
        "integrated gradients, a path per Site",
        "steps x sites + 3 forward, steps x sites backward",
        activation_gradients,
    ),
    "relp": Method("relevance patching", "2 forward, 1 backward", relevance_patching),
}


def attribute(
    model: Model,
    pairs: Pairs,
    metric: Metric,
    sites: SiteLike | Iterable[SiteLike],
    *,
    mode: Mode = "denoise",
    method: str = "atp",
    prompts_at_once: int | None = None,
    watch: Watch = silent,
    **choices: Any,
) -> Attribution:
    """Estimates, for every place of these Sites, the change of the metric if that place alone were patched.

    In the metric's unit, per prompt. `choices` go to the method, whose docstring tells cost, memory and source. The
    model runs by its fused kernels, where it has any. Pairs go through `prompts_at_once` at a time, by default as many
    as keep the graph small (`groups`); all of them where `edits` are made, which may name rows, or where `give` takes
    scores as they come. Raises UserError for an unknown method, or groups together with `give` or `edits`; BadPrompt
    for pairs that do not line up. Where CUDA runs out of memory, groups are halved and a Note says so.
    """
    if method not in METHODS:
        raise UserError(f"Attribution by {method!r} was asked for; there are {', '.join(METHODS)}. Choose one.")
    check_aligned(pairs, model.tokenizer)
    whole = [name for name in ("edits", "give") if choices.get(name)]
    if whole and prompts_at_once is not None:
        raise UserError(
            f"Groups of {prompts_at_once} pairs were asked for with {whole[0]!r}, which meets all pairs at once. Leave "
            "one out."
        )
    n_at_once = len(pairs) if whole else prompts_at_once or at_once(model.shape, pairs.clean)

    def explain(some: Pairs, metric: Metric) -> Attribution:
        return METHODS[method].run(model.fused, some, metric, sites, mode=mode, **choices)

    while True:
        try:
            return in_groups(explain, pairs, metric, n_at_once)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            if whole or n_at_once == 1:
                raise UserError(
                    f"Attribution of {n_at_once} pairs of {ids_of(pairs.clean).shape[1]} tokens at once does not fit "
                    "into memory. Give fewer or shorter prompts, or checkpoints=True where the method has it."
                ) from error
            n_at_once = -(-min(n_at_once, len(pairs)) // 2)
            watch(Note(f"Out of memory; going on with {n_at_once} pairs at once.", "warning"))
