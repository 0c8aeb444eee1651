"""Exact patched runs: `sweep` gives the metrics of many patches, `runs` their outputs.

The base run is run once. A patch restarts at the first layer it touches, from the base run's residual stream, and at
the first position it changes, on the base run's keys and values; many patches go through the layers as one batch, each
joining at its own layer. At positions where no logit is read, the last layer is computed only up to the heads' output;
only the logits that are read are computed.

Two plans. "strict" runs one patch at a time at full length from its layer on: bit-equal to `model.run` with the same
edits and the same batch of prompts. "fast" batches patches and positions: the order of sums differs, so results agree
with "strict" to about 1e-4 of their scale in float32 and 1e-10 in float64 (tested), not bit for bit. In bfloat16, over
66 patches on a CPU: up to 0.015 logits apart on a network of GPT-2's shape with random weights (0.006 on average,
effects spread by 0.2), all of it by the fused GELU; not at all on SmolLM2-135M, whose activation is one kernel anyway.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from micrographia.core.edits import Edit, observe
from micrographia.core.errors import UserError
from micrographia.core.events import Note, Progress, Watch, silent
from micrographia.core.metrics import Metric, prompts
from micrographia.core.model import Cache, LogitsAt, Model, Output, Readout, Start, positions_read
from micrographia.core.sites import Site, SiteLike, select
from micrographia.core.sweep.base import Base, run_base
from micrographia.core.sweep.last_layer import earlier_keys, feeds_keys, is_separable
from micrographia.core.sweep.metric_set import MetricSet
from micrographia.core.sweep.places import Donor, Patch
from micrographia.core.sweep.plan import PatchTask, chunks, patch_task
from micrographia.core.sweep.writing import BEFORE_LAYERS, Frame, Write, as_edits, check_donors, layer_of, write_into
from micrographia.core.tokens import Inputs, ids_of, rows_of

Plan = Literal["fast", "strict"]
AT_ONCE = {"cpu": 768, "cuda": 65_536}
"""Tokens (rows x positions) of a batch. On two cores more are not faster, only larger; the CUDA number is a guess for
GPT-2 XL, not measured."""
AT_LEAST = 256  # below that a batch costs about the same for fewer tokens


def sweep(
    model: Model,
    inputs: Inputs,
    patches: Sequence[Patch],
    donors: Donor | Sequence[Donor],
    metrics: Sequence[Metric],
    *,
    plan: Plan = "fast",
    edits: Sequence[Edit] = (),
    tokens_at_once: int | None = None,
    watch: Watch = silent,
) -> Float[Tensor, "patch prompt metric"]:
    """Each metric of each prompt under each patch of the run of `inputs`, in the metrics' own units.

    `edits` apply to every run, the base run too (for instance a spliced dictionary, whose latents are then patched);
    except for splices, zeros and projections they prevent the reuse of earlier positions.
    Cost: one base run, then for a patch at layer l and position p about (L - l) (T - p) / (L T) of a forward pass.
    Memory: the base run's residual streams, keys and values; one batch of `tokens_at_once` tokens.
    Errors: UserError for empty selections and missing donors, BadEdit for places or shapes that do not fit. Where CUDA
    runs out of memory, batches are halved and a Note says so.
    """
    reading = MetricSet(metrics, ids_of(inputs).shape[1])
    everything = plan == "strict"
    read = reading.of_vocabulary if everything else reading
    wanted: Callable[[Tensor], LogitsAt] = (lambda prompt: "all") if everything else reading.logits
    done = runs(
        model,
        inputs,
        patches,
        donors,
        logits=wanted,
        plan=plan,
        edits=edits,
        tokens_at_once=tokens_at_once,
        watch=watch,
    )
    rows = prompts(len(ids_of(inputs)), ids_of(inputs).device)
    found: list[Tensor | None] = [None] * len(patches)
    for indices, output in done:
        values = read(output.logits, rows.repeat(len(indices)))
        for index, value in zip(indices, values.unflatten(0, (len(indices), -1))):
            found[index] = value
    return torch.stack([value for value in found if value is not None])


def runs(
    model: Model,
    inputs: Inputs,
    patches: Sequence[Patch],
    donors: Donor | Sequence[Donor],
    *,
    keep: SiteLike | Sequence[SiteLike] = (),
    logits: Callable[[Int[Tensor, "row"]], LogitsAt] = lambda prompt: "last",
    plan: Plan = "fast",
    edits: Sequence[Edit] = (),
    tokens_at_once: int | None = None,
    watch: Watch = silent,
) -> Iterator[tuple[list[int], Output]]:
    """The patched runs, a batch at a time: which patches, and their Output, whose rows are patch-major (patch, prompt).

    `logits` gives the logits to compute for rows of these prompts, with positions counted in the whole prompt. Kept
    Sites hold every position, but keeping any makes "fast" compute every position too.
    """
    n_prompts, n_pos = ids_of(inputs).shape
    donors = [donors] if isinstance(donors, Mapping) else list(donors)
    check_donors(patches, donors)
    _check_edits(edits, plan)
    if not patches:
        raise UserError("Asked to patch nothing. Give at least one patch.")
    chosen = model if plan == "strict" else model.fused
    sweeper = _Sweeper(chosen, inputs, donors, select(model.sites, keep), list(edits), logits)
    tasks = sweeper.tasks(patches, plan)
    edits_attention = [task.edits_attention for task in tasks] if plan == "strict" else [False]
    bases = {eager: sweeper.base(tasks, eager) for eager in set(edits_attention)}
    at_once = tokens_at_once or AT_ONCE.get(ids_of(inputs).device.type, AT_ONCE["cuda"])
    batches = _batches(tasks, n_prompts, n_pos, at_once, plan)
    done = 0
    while batches:
        batch = batches.pop(0)
        try:
            output = sweeper.run(bases[batch[0].edits_attention and plan == "strict"], batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise UserError(
                    f"A single patch of {n_prompts} prompts with {n_pos} tokens does not fit into memory. "
                    "Give fewer prompts at a time."
                ) from error
            torch.cuda.empty_cache()
            at_once = len(batch) // 2 * n_prompts * (n_pos - min(task.first for task in batch))
            watch(Note(f"Out of memory with {len(batch)} patches at once; going on with {at_once} tokens.", "warning"))
            batches = _batches(
                [*batch, *(task for later in batches for task in later)], n_prompts, n_pos, at_once, plan
            )
            continue
        done += len(batch)
        watch(Progress("patching", done, len(patches), "patch"))
        yield [task.number for task in batch], output


def _batches(tasks: Sequence[PatchTask], n_prompts: int, n_pos: int, at_once: int, plan: Plan) -> list[list[PatchTask]]:
    if plan == "strict":
        return [[task] for task in tasks]
    return list(chunks(tasks, n_prompts, n_pos, at_once=at_once, at_least=min(AT_LEAST, at_once)))


class _Sweeper(NamedTuple):
    """The shared state of all batches of one sweep."""

    model: Model
    inputs: Inputs
    donors: Sequence[Donor]
    keep: tuple[Site, ...]
    edits: list[Edit]
    logits: Callable[[Tensor], LogitsAt]

    @property
    def n_prompts(self) -> int:
        return len(ids_of(self.inputs))

    @property
    def n_pos(self) -> int:
        return ids_of(self.inputs).shape[1]

    def prompt(self, n_patches: int) -> Int[Tensor, "row"]:
        return prompts(self.n_prompts, ids_of(self.inputs).device).repeat(n_patches)

    def tasks(self, patches: Sequence[Patch], plan: Plan) -> list[PatchTask]:
        n_layers = self.model.shape.n_layers
        limit = 0 if plan == "strict" else self._last_start()
        edited = frozenset(edit.site for edit in self.edits)
        held = edited | {Site("resid_post", i) for i in range(n_layers)} if self.keep or plan == "strict" else edited
        return [patch_task(i, patch, n_layers, limit, self.n_pos, held) for i, patch in enumerate(patches)]

    def _last_start(self) -> int:
        """The latest position at which a run may begin, so that all read positions are computed; 0 without reuse."""
        met = [edit for edit in self.edits if edit.site.kind not in BEFORE_LAYERS]
        local = all(edit.dictionary is not None or edit.name in LOCAL for edit in met)
        placed = any(axis in edit.region for edit in met for axis in ("pos", "query")) or not local
        reusable = self.model.shape.causal and Site("k", 0) in self.model.sites
        wanted = self.logits(self.prompt(1))
        if self.keep or placed or not reusable or wanted == "all":
            return 0
        return min(pos % self.n_pos for pos in positions_read(wanted))

    def base(self, tasks: Sequence[PatchTask], eager: bool) -> Base:
        """The unpatched run. `eager`: with eager attention, as in runs that edit attention patterns."""
        start_layers = sorted({task.start_layer for task in tasks})
        reuse = any(task.first for task in tasks)
        edits = [*self.edits, observe(Site("pattern", 0), lambda pattern: None)] if eager else self.edits
        return run_base(self.model, self.inputs, start_layers, reuse=reuse, keep=self.keep, edits=edits)

    def run(self, base: Base, batch: list[PatchTask]) -> Output:
        """Run the patches of a batch, sorted by their first layer, through the layers."""
        offset = min(task.first for task in batch)
        frame = Frame(self.donors, self.n_prompts, offset)
        start_layers = sorted({task.start_layer for task in batch})
        last, read = self.model.shape.n_layers - 1, self._last_start()
        split_last_layer = (
            offset < read
            and start_layers[-1] <= last
            and is_separable([p for task in batch for p in task.later], self.edits, last, read)
        )
        if split_last_layer:
            start_layers = sorted({*start_layers, last})
        residual: Tensor | None = None
        kept: dict[Site, Tensor] = {}
        output = Output(None, Cache({}))
        for layer, stop in zip(start_layers, [*start_layers[1:], None]):
            active = [task for task in batch if task.start_layer <= layer]
            arriving = [
                _start_residual(base, task, offset, frame)
                for task in active
                if task.start_layer == layer and layer >= 0
            ]
            residual = torch.cat([*([] if residual is None else [residual]), *arriving]) if arriving else residual
            if split_last_layer and layer == last:
                assert residual is not None
                output = self._last_layer(base, active, residual, frame, read)
                break
            output = self._segment(base, active, layer, stop, residual, frame)
            kept |= {
                site: self._all_rows(base, site, output.cache[site], len(batch)) for site in self._kept(layer, stop)
            }
            residual = output.cache.get(Site("resid_post", stop - 1)) if stop is not None else None
        missed = {site: base.cache[site].repeat(len(batch), *[1] * (base.cache[site].ndim - 1)) for site in self.keep}
        return Output(output.maybe_logits, Cache({site: kept.get(site, missed[site]) for site in self.keep}))

    def _segment(
        self, base: Base, active: list[PatchTask], layer: int, stop: int | None, residual: Tensor | None, frame: Frame
    ) -> Output:
        """Run from one start layer to the next, or to the logits."""
        prompt = self.prompt(len(active))
        writes = [Write(row, place) for row, task in enumerate(active) for place in task.later]
        writes = [write for write in writes if self._within(write.place.site, layer, stop)]
        held = [edit for edit in self.edits if self._within(edit.site, layer, stop)]
        return self.model.run(
            rows_of(self.inputs, prompt),
            keep=[*self._kept(layer, stop), *([] if stop is None else [Site("resid_post", stop - 1)])],
            edits=[*held, *as_edits(writes, frame)],
            logits=_from_end(self.logits(prompt), self.n_pos) if stop is None else "last",
            start=None if residual is None else base.start(layer, residual, frame.offset),
            stop=stop,
        )

    def _last_layer(self, base: Base, active: list[PatchTask], residual: Tensor, frame: Frame, read: int) -> Output:
        """Run the last layer: keys and values at every position, the rest from the first position that is read on."""
        layer, prompt = self.model.shape.n_layers - 1, self.prompt(len(active))
        rows, start = rows_of(self.inputs, prompt), base.start(layer, residual, frame.offset)
        writes = [Write(row, place) for row, task in enumerate(active) for place in task.later]
        writes = [write for write in writes if feeds_keys(write.place.site, layer)]
        past = earlier_keys(self.model, rows, start, as_edits(writes, frame), read)
        start = Start(layer, residual[:, read - frame.offset :], read, {layer: past})
        return self.model.run(rows, logits=_from_end(self.logits(prompt), self.n_pos), start=start)

    def _within(self, site: Site, layer: int, stop: int | None) -> bool:
        here = layer_of(site, self.model.shape.n_layers)
        return layer <= here and (stop is None or here < stop)

    def _kept(self, layer: int, stop: int | None) -> list[Site]:
        return [site for site in self.keep if self._within(site, layer, stop)]

    def _all_rows(self, base: Base, site: Site, value: Tensor, n_patches: int) -> Tensor:
        """The value, with that of the base run for the patches that have not started yet."""
        missing = n_patches - len(value) // self.n_prompts
        return torch.cat([value, *[base.cache[site]] * missing]) if missing else value


LOCAL = frozenset({"zero", "project_out"})
"""Edits that act on each position separately, as a splice does; of functions and tensors this is unknown."""


def _check_edits(edits: Sequence[Edit], plan: Plan) -> None:
    """Raise UserError for edits that would not be the same in every run."""
    for edit in edits:
        if edit.name == "noise":
            raise UserError(
                f"Noise at {edit.site} was asked for in every run of a sweep, but it is drawn anew in each. Draw it "
                "once, and add it."
            )
        if plan == "fast" and "batch" in edit.region:
            raise UserError(
                f"{edit.name} at {edit.site} names rows, but rows of a fast sweep are patches times prompts. Take the "
                "plan 'strict', or give those prompts by themselves."
            )


def _start_residual(base: Base, task: PatchTask, offset: int, frame: Frame) -> Tensor:
    fresh = base.residual[task.start_layer][:, offset:].clone()
    for place in task.entry:
        fresh = write_into(fresh, place.site, [Write(0, place)], frame)
    return fresh


def _from_end(wanted: LogitsAt, n_pos: int) -> LogitsAt:
    """The same logits with positions counted from the end, so that the start of a run does not matter."""
    if isinstance(wanted, str):
        return wanted
    places = [pos - n_pos if pos >= 0 else pos for pos in positions_read(wanted)]
    return Readout(wanted.tokens, places[0]) if isinstance(wanted, Readout) else places
