"""Where effects are: heads, MLPs and the residual stream by position, denoised and noised side by side."""

from collections.abc import Sequence

import numpy as np

from micrographia.core.figures import Figure
from micrographia.labs.ioi.network import Array, Studied

GROUP = "Where the answer is carried"
TITLES = {"z": "Heads", "mlp_out": "MLPs", "resid_pre": "The residual stream before each layer"}
PANELS = {"denoise": "denoise: clean into corrupt", "noise": "noise: corrupt into clean"}
CAPTION = (
    "Left, the clean value at one place is put into the corrupt run: 1 brings the whole answer back. Right, the "
    "corrupt value is put into the clean run: 1 takes all of it away. The two need not be mirror images: a part "
    "that is enough alone may not be needed, and the other way round. Below 0 a place works against the answer."
)


def maps(
    behaviour: str, network: str, found: Studied, n_heads: int, kinds: Sequence[str] = ("z", "resid_pre")
) -> list[Figure]:
    """A picture for each of these kinds of Site."""
    return [_map(behaviour, network, kind, found.maps[kind], found.positions, n_heads) for kind in kinds]


def _map(
    behaviour: str, network: str, kind: str, shares: dict[str, Array], positions: tuple[str, ...], n_heads: int
) -> Figure:
    z = np.stack([shares[mode] for mode in PANELS])
    n_rows = z.shape[1]
    rows = [f"{i // n_heads}.{i % n_heads}" if kind == "z" else str(i) for i in range(n_rows)]
    return Figure(
        name=f"{behaviour}-{kind}",
        kind="heatmap",
        group=GROUP,
        title=f"{TITLES[kind]} by position: {behaviour}, {network}",
        caption=CAPTION,
        source="Wang et al. (2022), section 3; Heimersheim and Nanda (2024)",
        claims=("denoising-is-not-noising",) if kind == "z" else (),
        data={
            "z": z,
            "panels": list(PANELS.values()),
            "x_label": "position",
            "y_label": "layer.head" if kind == "z" else "layer",
            "x_names": list(positions),
            "y_names": rows,
            "colour": "diverging",
            "midpoint": 0.0,
            "value_label": "share of the gap in logit difference",
        },
    )
