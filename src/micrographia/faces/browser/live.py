"""A model at hand, for texts of one's own: which latents fire where, and what it says when one is added.

One question at a time, since they share the model and the cores.
"""

from collections.abc import Mapping
from threading import Lock
from typing import Any

from micrographia.core.edits import Edit
from micrographia.core.runtime import generator
from micrographia.methods.dictionaries.on_text import adding, adding_random, fitting_site, latents_on
from micrographia.methods.steering import continued, goes_on

LONGEST_TEXT = 4_000
"""Letters of a text or prompt."""
MOST_TOKENS = 100
"""New tokens of a continuation."""
DIGITS = 4


class LiveModel:
    """`dictionaries`: by the name of their bundle. Raises what `fitting_site` does for one that the model lacks."""

    def __init__(self, name: str, model: Any, dictionaries: Mapping[str, Any]) -> None:
        self.name, self.model, self._dictionaries = name, model, dict(dictionaries)
        self._sites = {each: fitting_site(model, own) for each, own in self._dictionaries.items()}
        self._lock = Lock()

    @property
    def names(self) -> frozenset[str]:
        """The bundles whose latents can be computed."""
        return frozenset(self._dictionaries)

    @property
    def steers(self) -> bool:
        """Whether the model generates text."""
        return goes_on(self.model)

    def about(self) -> dict[str, Any]:
        return {"model": self.name, "bundles": sorted(self.names), "steers": self.steers}

    def read(self, name: str, text: str, latent: int | None = None) -> dict[str, Any]:
        """The tokens of a text, and the values on them of the latents that fire, or of one."""
        chosen = None if latent is None else [latent]
        with self._lock:
            found = latents_on(self.model, self._dictionaries[name], self._sites[name], text, latents=chosen)
        values = [[round(value, DIGITS) for value in row] for row in found.values.tolist()]
        return {"tokens": found.tokens, "latents": [*zip(found.latents, values)]}

    def steer(self, name: str, latent: int, strength: float, prompt: str, tokens: int) -> dict[str, Any]:
        """The model's continuation as it is, with the latent added, and with a random direction as long."""
        own, site = self._dictionaries[name], self._sites[name]
        edits: dict[str, list[Edit]] = {
            "plain": [],
            "steered": [adding(own, site, latent, strength)],
            "random": [adding_random(own, site, latent, strength, generator(latent))],
        }
        with self._lock:
            return {kind: continued(self.model, prompt, each, tokens=tokens) for kind, each in edits.items()}
