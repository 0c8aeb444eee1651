"""Attribution: what an attribution gives back, and how it stands to the exact patch.

`mode` says which run is explained. "denoise" puts the clean run's values into the corrupt one, "noise" the corrupt
run's into the clean one; a score estimates by how much the metric would change if that place alone were patched so.
Source of the two modes: Heimersheim and Nanda, "How to use and interpret activation patching" (2024), section 2.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from micrographia.core.errors import UserError
from micrographia.core.model import Model
from micrographia.core.prompts import Pairs
from micrographia.core.sites import Site, SiteLike, select
from micrographia.methods.attribution.passes import Ends, Passes, Sides

Mode = Literal["denoise", "noise"]


class Attribution(NamedTuple):
    """A score for every place of every Site, per prompt, in the metric's unit.

    Scores by Site: residual kinds (prompt, pos); q, k, v, z, result (prompt, pos, head); neurons and latents (prompt,
    pos, unit); scores and pattern (prompt, head, query, key). With positions summed, those axes are gone. `clean` and
    `corrupt` are the metric of the two runs.
    """

    mode: Mode
    method: str
    scores: dict[Site, Tensor]
    clean: Float[Tensor, "prompt"]
    corrupt: Float[Tensor, "prompt"]
    n_passes: Passes
    notes: tuple[str, ...] = ()
    gives: Literal["effect", "size"] = "effect"
    """Whether scores estimate the effect of the exact patch, or only rank places by size (AtP*)."""

    @property
    def base(self) -> Float[Tensor, "prompt"]:
        """The metric of the run that is explained: a score is a change of this."""
        return self.corrupt if self.mode == "denoise" else self.clean


def sides_of(pairs: Pairs, mode: Mode) -> Sides:
    return Sides(pairs.clean, pairs.corrupt) if mode == "denoise" else Sides(pairs.corrupt, pairs.clean)


def ends_in_order(ends: Ends, mode: Mode) -> tuple[Tensor, Tensor]:
    """The metric of the clean run, and of the corrupt one."""
    return (ends.donor, ends.base) if mode == "denoise" else (ends.base, ends.donor)


def chosen_sites(model: Model, wanted: SiteLike | Iterable[SiteLike]) -> tuple[Site, ...]:
    """The Sites to score. Raises UserError for none, UnknownSite."""
    sites = select(model.sites, wanted)
    if not sites:
        raise UserError("An attribution of no Site was asked for. Name some, such as 'L*.z'.")
    return sites
