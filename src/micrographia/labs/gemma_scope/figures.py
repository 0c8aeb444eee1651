"""The lab's pictures and tables, as Figures. Where a picture has frames, they are the kinds of Sites, the last first,
since a slider opens at its last frame.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micrographia.core import figures
from micrographia.core.figures import Figure
from micrographia.core.small.language_model import loss_curve
from micrographia.core.train_loop import Rows as Columns
from micrographia.labs.gemma_scope.evaluate import Fidelity, Measurement
from micrographia.labs.gemma_scope.measure import beside, matching

SUITE, FIDELITY, FIRING = "The suite", "Sparsity and fidelity", "How often latents fire"
NULL, TRAINING, TRANSCODERS = "Without training", "Training", "Transcoders"
REPORT = "Lieberum et al., Gemma Scope (2024)"
SUMMARY = {
    "site": "site", "width": "latents", "l0": "L0", "fvu": "FVU", "fvu_linear": "of linear map",
    "fvu_random": "of random ones", "delta_loss": "delta loss", "delta_loss_mean": "of the mean",
}  # fmt: skip
EVERY = {
    "site": "site", "layer": "layer", "width": "latents", "l0_asked": "L0 asked", "l0": "L0", "fvu": "FVU",
    "delta_loss": "delta loss", "error": "its error", "recovered": "loss recovered (mean)",
    "fvu_linear": "FVU, linear map", "delta_loss_linear": "delta loss, linear map", "fvu_random": "FVU, random ones",
    "delta_loss_random": "delta loss, random ones", "delta_loss_mean": "delta loss, mean", "dead": "never fired",
    "frequent": "fire at > 10 %", "median_frequency": "median frequency",
}  # fmt: skip
DELTA_LOSS, LEAST = "delta-loss", 1e-3
"""Less costs nothing that a logarithmic axis should make room for. In nats."""
QUALITIES: dict[str, tuple[str, Callable[[Fidelity], float], tuple[str, ...]]] = {
    DELTA_LOSS: ("Delta loss, nats a token", lambda of: of.delta_loss, ("denser-is-truer", "residual-costs-most")),
    "fvu": ("FVU", lambda of: of.fvu, ("fvu-alike", "wider-is-truer", "beats-linear", "beats-random")),
}
BINS = np.linspace(-5, 0, 26)
"""log10 of the share of tokens."""


def of_run(trained: Sequence[Measurement], untrained: Sequence[Measurement], columns: Columns | None) -> list[Figure]:
    """All figures of a Run. `columns`: the training of the language model, if it was trained."""
    return [
        *of_suite(trained),
        *of_fidelity(trained),
        of_firing(trained),
        of_scale(trained),
        *of_untrained(trained, untrained),
        *([] if columns is None else [loss_curve(columns, TRAINING)]),
    ]


def of_suite(trained: Sequence[Measurement]) -> list[Figure]:
    """The suite by site, width and L0, and every dictionary."""
    rows = [each.row() for each in trained]
    return [
        figures.table(
            "summary", "The suite by site", summary(rows), columns=SUMMARY, group=SUITE, headline=True,
            caption="Medians over layers, on held-out text, beside baselines at the same L0.",
        ),
        figures.table("dictionaries", "Every dictionary", rows, columns=EVERY, group=SUITE, essential=False),
    ]  # fmt: skip


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each site, width and L0 that was asked for, the median over layers."""
    groups: dict[tuple[str, int, float], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["site"], row["width"], row["l0_asked"]), []).append(row)
    numbers = [name for name in SUMMARY if name not in ("site", "width")]
    return [
        {"site": site, "width": width, **{name: _median(row[name] for row in group) for name in numbers}}
        for (site, width, _), group in groups.items()
    ]


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def of_fidelity(trained: Sequence[Measurement]) -> list[Figure]:
    """Figures 2 and 13 of the report: each dictionary by L0, and by layer."""
    kinds = _kinds(trained)
    found = []
    for key, (label, value, claims) in QUALITIES.items():
        framed = kinds[::-1]
        curves = [_curves([each for each in trained if each.member.site.kind == kind], value) for kind in framed]
        names = sorted({name for each in curves for name in each})
        n = max(len(points) for each in curves for points in each.values())
        grid = np.full((len(kinds), len(names), n, 2), np.nan)
        for i, each in enumerate(curves):
            for name, points in each.items():
                grid[i, names.index(name), : len(points)] = points
        floor = LEAST if key == DELTA_LOSS else 0.0
        found.append(
            figures.lines(
                f"by-l0-{key}", f"{label.partition(',')[0]} by L0", grid[..., 0],
                np.maximum(grid[..., 1], floor), names=names,
                x_label="L0", y_label=label, log_x=True, log_y=True, frames=framed, framed=("x", "y"), group=FIDELITY,
                source=f"{REPORT}, figures 2 and 13", claims=claims,
                caption="Each layer and width, an L0 a point; beside them the best linear map of as many components. "
                f"Better is lower and further left.{f' What is below {floor:g} is drawn there.' if floor else ''}",
            )
        )  # fmt: skip
        found.append(_by_layer(trained, kinds, f"by-layer-{key}", label, value, claims))
    return found


def _kinds(of: Sequence[Measurement]) -> list[str]:
    """The kinds of Sites, in the order in which they come."""
    return list(dict.fromkeys(each.member.site.kind for each in of))


def _curves(of: Sequence[Measurement], value: Callable[[Fidelity], float]) -> dict[str, list[tuple[float, float]]]:
    """Points (L0, value) of each layer and width; and of each layer's linear map."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for each in sorted(of, key=lambda a: a.l0):
        layer = each.member.site.layer
        curves.setdefault(f"layer {layer}, {each.member.width} latents", []).append((each.l0, value(each.fidelity)))
        if each.linear is not None:
            curves.setdefault(f"layer {layer}, linear map", []).append((each.l0, value(each.linear)))
    return curves


def _by_layer(
    trained: Sequence[Measurement],
    kinds: Sequence[str],
    name: str,
    label: str,
    value: Callable[[Fidelity], float],
    claims: Sequence[str],
) -> Figure:
    """The widest dictionaries of each site, along the layers."""
    widest = max(each.member.width for each in trained)
    layers = sorted({each.member.site.layer or 0 for each in trained})
    l0s = sorted({each.member.l0 for each in trained if each.member.width == widest})
    y = np.full((len(kinds) * len(l0s), len(layers)), np.nan)
    for each in trained:
        if each.member.width == widest:
            row = kinds.index(each.member.site.kind) * len(l0s) + l0s.index(each.member.l0)
            y[row, layers.index(each.member.site.layer or 0)] = value(each.fidelity)
    return figures.lines(
        name, f"{label.partition(',')[0]} by layer", np.array(layers), y,
        names=[f"{kind}, L0 {l0:g} asked" for kind in kinds for l0 in l0s], x_label="layer", y_label=label,
        group=FIDELITY, claims=claims, caption=f"Dictionaries of {widest:,} latents.",
    )  # fmt: skip


def of_firing(trained: Sequence[Measurement]) -> Figure:
    """Figure 5 of the report: a histogram of frequencies for each width."""
    kinds = _kinds(trained)[::-1]
    widths = sorted({each.member.width for each in trained})
    y = np.array([[_histogram([a for a in trained if (a.member.site.kind, a.member.width) == (kind, width)])
                   for width in widths] for kind in kinds])  # fmt: skip
    return figures.lines(
        "frequencies", "How often latents fire", (BINS[:-1] + BINS[1:]) / 2, y,
        names=[f"{width} latents" for width in widths], x_label="log10 of the share of tokens",
        y_label="share of latents", frames=kinds, framed=("y",), group=FIRING, source=f"{REPORT}, figure 5",
        claims=("wider-fires-less", "ultra-frequent"),
        caption="Mean over layers and L0s. Latents that never fired are left out.",
    )  # fmt: skip


def _histogram(of: Sequence[Measurement]) -> NDArray[Any]:
    counts = [np.histogram(each.live.log10().numpy(), BINS)[0] / len(each.frequencies) for each in of]
    return np.mean(counts, axis=0) if counts else np.full(len(BINS) - 1, np.nan)


def of_scale(trained: Sequence[Measurement]) -> Figure:
    """How large activations are at each site, along the layers."""
    kinds = _kinds(trained)
    layers = sorted({each.member.site.layer or 0 for each in trained})
    y = np.full((2 * len(kinds), len(layers)), np.nan)
    for each in trained:
        column, row = layers.index(each.member.site.layer or 0), 2 * kinds.index(each.member.site.kind)
        y[row : row + 2, column] = each.rms, each.spread
    return figures.lines(
        "scale", "The scale of activations", np.array(layers), y, x_label="layer", y_label="norm", log_y=True,
        names=[f"{kind}, {what}" for kind in kinds for what in ("root mean square", "about the mean")], group=SUITE,
        caption="Of whole vectors. Dictionaries are trained at a mean squared norm of 1, and the scale folded away.",
    )  # fmt: skip


def of_untrained(trained: Sequence[Measurement], untrained: Sequence[Measurement]) -> list[Figure]:
    """Each dictionary beside that of the same recipe on the model without its training."""
    both = matching(trained, untrained)
    if not both:
        return []
    rows = [
        {"name": each.member.name, "fvu": each.fidelity.fvu, "fvu_untrained": other.fidelity.fvu,
         "worse": other.fidelity.fvu > each.fidelity.fvu, "linear": each.linear and each.linear.fvu,
         "linear_untrained": other.linear and other.linear.fvu, "dead": each.dead, "dead_untrained": other.dead}
        for each, other in both
    ]  # fmt: skip
    columns = {
        "name": "dictionary", "fvu": "FVU", "fvu_untrained": "without training", "worse": "looks worse",
        "linear": "linear map", "linear_untrained": "without training, linear map", "dead": "never fired",
        "dead_untrained": "without training, never fired",
    }  # fmt: skip
    about = {"group": NULL, "claims": ("untrained-is-worse",)}
    return [
        figures.scatter(
            "untrained-fvu", "FVU with and without training", np.array([row["fvu"] for row in rows]),
            np.array([row["fvu_untrained"] for row in rows]), x_label="FVU", y_label="FVU without training",
            names=[row["name"] for row in rows], diagonal=True, categorical=True,
            colour=[each.member.site.kind for each, _ in both], **about,
            caption="Above the line, the dictionary of the untrained model looks worse.",
        ),
        figures.table("untrained", "With and without training", rows, columns=columns, **about),
    ]  # fmt: skip


def of_transcoders(trained: Sequence[Measurement], transcoders: Sequence[Measurement]) -> list[Figure]:
    """Each transcoder beside the autoencoder of what it writes, and the mean and the best linear map in their place."""
    both = beside(trained, transcoders)
    if not both:
        return []
    rows = [
        {"layer": own.member.site.layer, "width": own.member.width, "l0": own.l0, "l0_there": other.l0,
         **{name: own.row()[name] for name in ("fvu", "fvu_linear", "delta_loss", "delta_loss_linear")},
         **{f"{name}_there": other.row()[name] for name in ("fvu", "fvu_linear", "delta_loss", "delta_loss_linear")},
         "error_there": other.fidelity.error, "delta_loss_mean": other.mean.delta_loss}
        for own, other in both
    ]  # fmt: skip
    columns = {
        "layer": "layer", "width": "latents", "l0": "L0, autoencoder", "l0_there": "L0, transcoder",
        "fvu": "FVU, autoencoder", "fvu_there": "FVU, transcoder", "delta_loss": "delta loss, autoencoder",
        "delta_loss_there": "delta loss, transcoder", "error_there": "its error",
        "fvu_linear": "FVU, PCA", "fvu_linear_there": "FVU, linear map of the input",
        "delta_loss_linear": "delta loss, PCA", "delta_loss_linear_there": "delta loss, linear map of the input",
        "delta_loss_mean": "delta loss, mean",
    }  # fmt: skip
    about = {"group": TRANSCODERS, "claims": ("transcoders-cost-more",), "source": f"{REPORT}, appendix"}
    costs = [np.maximum([each.fidelity.delta_loss for each in side], LEAST) for side in zip(*both)]
    return [
        figures.scatter(
            "transcoders-loss", "Delta loss of transcoders and autoencoders", costs[0], costs[1],
            x_label="autoencoder of the output, nats", y_label="transcoder, nats", diagonal=True, categorical=True,
            names=[other.member.name for _, other in both], log_x=True, log_y=True,
            colour=[f"layer {own.member.site.layer}" for own, _ in both], **about,
            caption="Above the line, the transcoder costs the model more. Equal widths, and the L0 that was asked for.",
        ),
        figures.table(
            "transcoders", "Transcoders beside autoencoders", rows, columns=columns, **about,
            caption="FVU is of the MLP's output for both. Linear maps have as many dimensions as there are active "
            "latents: of the output PCA, from the input reduced-rank regression.",
        ),
    ]  # fmt: skip


def of_transfer(trained: Sequence[Measurement], abroad: Sequence[Measurement]) -> list[Figure]:
    """Each dictionary on a second model's activations: the report's comparison with an instruction-tuned one."""
    rows = [
        {"name": own.member.name, "fvu": own.fidelity.fvu, "fvu_there": there.fidelity.fvu, "l0": own.l0,
         "l0_there": there.l0, "recovered": own.fidelity.recovered, "recovered_there": there.fidelity.recovered}
        for own, there in matching(trained, abroad)
    ]  # fmt: skip
    columns = {
        "name": "dictionary", "fvu": "FVU", "fvu_there": "there", "l0": "L0", "l0_there": "there",
        "recovered": "loss recovered (mean)", "recovered_there": "there",
    }  # fmt: skip
    about = {"group": "On the second model", "caption": "There: on the second model's activations of the same tokens."}
    return [figures.table("transfer", "The suite on the second model", rows, columns=columns, **about)] if rows else []
