"""Heat maps over pairs of operands, in the basis of tokens and in the Fourier basis."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from micrographia.core.figures import Figure, heatmap
from micrographia.methods.fourier.spectra import two_d_spectrum


def pair_map(name: str, title: str, x: Float[Tensor, "n n panel"], panels: Sequence[str], **about: Any) -> Figure:
    """Values over all pairs (a, b), a panel each."""
    z = x.permute(2, 0, 1).float().numpy()
    return heatmap(name, title, z, panels=list(panels), x_label="b", y_label="a", **about)


def fourier_map(name: str, title: str, x: Float[Tensor, "n n *rest"], **about: Any) -> Figure:
    """The norm of each 2-D Fourier component, but of the constant, which would hide all else."""
    norms = two_d_spectrum(x).clone()
    norms[0, 0] = torch.nan
    axes = component_names(len(norms))
    labels = {"x_label": "component of b", "y_label": "component of a"}
    return heatmap(name, title, norms.float().numpy(), x=axes, y=axes, **labels, **about)


def centred(logits: Float[Tensor, "*pairs n"]) -> Float[Tensor, "*pairs n"]:
    """Without the mean over answers, which softmax ignores."""
    return logits - logits.mean(-1, keepdim=True)


def component_names(n: int) -> list[str]:
    """Names of the rows of the Fourier basis: 1, cos 1, sin 1, ..."""
    return ["1", *(f"{wave} {k}" for k in range(1, n) for wave in ("cos", "sin"))][:n]


def frequency_names(count: int) -> list[str]:
    """1 .. count."""
    return [str(k) for k in range(1, count + 1)]
