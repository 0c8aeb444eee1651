"""The terms of a recipe's loss in words, each with its reduction: what the saved config says of them."""

from micrographia.methods.dictionaries.training.recipe import Recipe
from micrographia.methods.dictionaries.training.schedule import MULTIPLIER_RATE, THRESHOLD_GAIN

MEAN = "mean over the batch"


def loss_terms(recipe: Recipe) -> dict[str, str]:
    """Name -> what a term is, in the units of training."""
    found = {"reconstruction": f"sum over dims of (x - x_hat)^2, {MEAN}", **_sparsity(recipe), **_others(recipe)}
    return {name: text for name, text in found.items() if text}


def _sparsity(r: Recipe) -> dict[str, str]:
    norm = "" if not r.norm_weighted else " ||d_i||" if r.layers == 1 else " (sum over layers of ||d_i||)"
    active = "ReLU(gate_i)" if r.kind == "gated" else "f_i"
    texts = {
        "none": "",
        "l1": f"{r.sparsity} * sum over latents of {active}{norm}, {MEAN}",
        "lp": f"{r.sparsity} * sum over latents of (f_i{norm})^p, {MEAN}; p falls from 1 to {r.p_end} and the "
        "coefficient is changed with it so that the term stays what it was",
        "l0": f"{r.sparsity} * number of active latents, {MEAN}",
        "l0-target": f"{r.coefficient} * (m r + r^2 / 2), r = L0 / {r.l0} - 1 (r^2 / 2 goes on as a line from "
        f"|r| = 1), L0 the number of active latents, {MEAN}; the multiplier m grows by {MULTIPLIER_RATE} r a step, "
        f"and thresholds are multiplied by exp({THRESHOLD_GAIN} r)",
        "l0-quadratic": f"{r.sparsity} * (2 / {r.l0}) * (L0 - {r.l0})^2, L0 the number of active latents, {MEAN}",
        "tanh": f"{r.sparsity} * sum over latents of tanh({r.tanh_slope} f_i{norm}), {MEAN}",
    }
    return {"sparsity": texts[r.chosen_penalty]}


def _others(r: Recipe) -> dict[str, str]:
    means = "mean" if r.prefix_mean else "sum"
    return {
        "prefixes": f"{means} over prefixes {list(r.prefixes)} and all latents of the reconstruction term"
        if r.prefixes
        else "",
        "gate": f"sum over dims of (x - x_hat(ReLU(gate)))^2 with the decoder held constant, {MEAN}"
        if r.kind == "gated"
        else "",
        "multi_topk": f"{r.multi_topk} * the reconstruction term with 4 k latents" if r.multi_topk else "",
        "pre_activation": f"{r.pre_activation} * sum over latents of ReLU(threshold_i - p_i) ||d_i||, {MEAN}"
        if r.pre_activation
        else "",
        "revival": {
            "auxk": f"{r.revival_weight} * sum over dims of (e - e_hat)^2 / Var(e), {MEAN}; e_hat by the "
            f"{r.auxk or 'd_in / 2'} largest dead latents without b_dec, less where fewer are dead",
            "ghost": f"{r.revival_weight} * sum over dims of (e - e_hat)^2 with e_hat by exp(p) of dead latents at "
            f"half the norm of e, {MEAN}, rescaled to the reconstruction term",
        }.get(r.revival, ""),
    }
