"""New starts for dead latents, at chosen steps: Anthropic's resampling, and re-initialisation as Nanda did it.

Both act between two steps, on weights, Adam's moments and counters of a StackState, and draw from a generator of
(seed, step). `REVIVALS` is the table. The losses that revive are `auxiliary`.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from micrographia.core.runtime import batch_generator
from micrographia.methods.dictionaries.training.plans import latents_of
from micrographia.methods.dictionaries.training.prefixes import forward
from micrographia.methods.dictionaries.training.stack import Now, ScaledBatch, Stack, StackState
from micrographia.methods.dictionaries.training.start import kaiming

Read = Callable[[int], ScaledBatch]
"""The whole batch of a step, over all ranks, in training units."""
ALIVE_SHARE = 0.2
"""A new encoder row has this share of the mean norm of those alive."""


def resample(stack: Stack, state: StackState, now: Now, read: Read) -> None:
    """Anthropic's resampling (Bricken et al. 2023, "Towards Monosemanticity", appendix "Neuron Resampling").

    One past input for each latent that is dead, drawn with probability ~ loss^2 among the last `revival_inputs`: its
    direction, less b_dec where that is subtracted, becomes the decoder's row at unit norm and the encoder's at 0.2
    times the mean norm of those alive; its bias becomes 0, and Adam's moments of all that was touched. A transcoder's
    decoder takes the target's direction. Costs one forward pass over those inputs, none of which is kept.
    """
    dead = state.silent >= stack.recipe.dead_after
    if state.step and bool(dead.any()):
        steps, losses = row_losses(stack, state, now, read)
        for member, recipe in enumerate(stack.recipes):
            at = dead[member].nonzero()[:, 0]
            if len(at):
                random = batch_generator(recipe.seed or 0, state.step)
                chosen = drawn(losses[member].double().square(), len(at), random)
                x, target = _rows(read, steps, chosen, member)
                _restart(stack, state, member, at, ~dead[member], x, target)
    state.fired.zero_()
    state.counted.zero_()


def reinitialise(stack: Stack, state: StackState, now: Now, read: Read) -> None:
    """Rare latents drawn anew, Kaiming-uniform with bias 0, Adam's moments kept (Nanda 2023, 1L-Sparse-Autoencoder).

    Rare: fired in a smaller share of the rows since the last time than `rare`.
    """
    weights = stack.layout.views(state.weights)
    share = state.fired / state.counted[:, None].clamp_min(1)
    for member, recipe in enumerate(stack.recipes):
        at = (share[member] < recipe.rare).nonzero()[:, 0]
        random = batch_generator(recipe.seed or 0, state.step)
        for name, fan in (("encoder", recipe.n_latents), ("decoder", stack.d_out)):
            weight = weights[name][member]
            weight[at] = kaiming((len(at), weight.shape[1]), fan, random).to(weight)
        for name in weights.keys() & {"b_enc", "b_gate", "b_mag", "r_mag"}:
            weights[name][member, at] = 0
    state.fired.zero_()
    state.counted.zero_()


def row_losses(stack: Stack, state: StackState, now: Now, read: Read) -> tuple[list[int], Tensor]:
    """The squared error of each of the last inputs, (member, row), and the steps of the batches that they are from."""
    weights = stack.layout.views(state.weights)
    rows = read(state.step - 1).rows
    steps = list(range(max(0, state.step - math.ceil(stack.recipe.revival_inputs / rows)), state.step))
    losses = []
    for step in steps:
        batch = read(step)
        decoded = forward(stack, weights, latents_of(stack, weights, batch, now).f, batch, whole=True)
        losses.append(decoded.residual.square().sum(-1))
    return steps, torch.cat(losses, 1)


def drawn(weights: Tensor, count: int, random: torch.Generator) -> Tensor:
    """Indices drawn in proportion to `weights`, each once as long as there are enough that are not 0."""
    weights = weights.cpu()
    weights = weights / weights.max().clamp_min(torch.finfo(weights.dtype).tiny)
    enough = int((weights > 0).sum()) >= count
    if not bool(weights.any()):
        weights = torch.ones_like(weights)
    return torch.multinomial(weights, count, replacement=not enough, generator=random)


def _rows(read: Read, steps: list[int], chosen: Tensor, member: int) -> tuple[Tensor, Tensor]:
    """The chosen rows of the batches of these steps, read again: input and target in training units, (row, d)."""
    found: dict[int, tuple[Tensor, Tensor]] = {}
    start = 0
    for step in steps:
        batch = read(step)
        x, target = (each[member % len(each)] for each in (batch.x, batch.target))
        for place in ((chosen >= start) & (chosen < start + batch.rows)).nonzero()[:, 0].tolist():
            row = int(chosen[place]) - start
            found[place] = x[row], target[row]
        start += batch.rows
    xs, targets = zip(*(found[place] for place in range(len(chosen))))
    return torch.stack(xs), torch.stack(targets)


def _restart(
    stack: Stack, state: StackState, member: int, at: Tensor, alive: Tensor, x: Tensor, target: Tensor
) -> None:
    weights, *moments = (stack.layout.views(each) for each in (state.weights, state.mean, state.square))
    centre, encoder = weights["b_dec"][member], weights["encoder"][member]
    norms = encoder[alive].norm(dim=1) if bool(alive.any()) else encoder.norm(dim=1)
    new = {
        "encoder": _unit(x - centre if stack.subtracts else x) * (ALIVE_SHARE * norms.mean()),
        "decoder": _unit(target - centre),
        "threshold": stack.recipe.first_threshold,
        **dict.fromkeys(("b_enc", "b_gate", "b_mag", "r_mag"), 0.0),
    }
    for name in weights.keys() & new.keys():
        weights[name][member, at] = new[name]
        for moment in moments:
            moment[name][member, at] = 0.0
    state.silent[member, at] = 0


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)


REVIVALS: Mapping[str, Callable[[Stack, StackState, Now, Read], None]] = {
    "resample": resample,
    "reinitialise": reinitialise,
}
