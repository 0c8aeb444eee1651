"""What the lab's figures share: the paper's name, the names of frequencies, components and frames."""

from collections.abc import Sequence

from torch import Tensor

PAPER = "Nanda et al. 2023"


def components_of(n: int) -> list[str]:
    """Names of the rows of the Fourier basis: 1, cos 1, sin 1, ..."""
    waves = [f"{wave} {k}" for k in range(1, n) for wave in ("cos", "sin")]
    return ["1", *waves[: n - 1]]


def centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(-1, keepdim=True)


def ks_of(count: int) -> list[str]:
    return [str(k) for k in range(1, count + 1)]


def frame_names(epochs: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"epoch {epoch}" for epoch in epochs)
