"""The catalogue of small models: those that come with this package, and those that come as packages of their own.

A model that comes with this package is the folder `shipped` of a lab, and has the lab's name: `model.json` holds
architecture, vocabulary, what it is good for and the command of its recorded run, `model.safetensors` the weights.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from micrographia.core.errors import UnknownModel

CATALOGUE = "model_packages.toml"
ABOUT = "model.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPackage:
    """A model in a wheel. `sha256` and `bytes` are the wheel's; `needs` the extras with which it can be loaded."""

    name: str
    package: str
    version: str
    sha256: str
    bytes: int
    parameters: int
    model: str
    architecture: str
    licence: str
    good_for: str
    needs: tuple[str, ...] = ()

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"

    @property
    def folder(self) -> Path:
        """Where its files lie once it has been fetched."""
        from micrographia.core.store.models import models_root

        return models_root() / self.sha256

    @property
    def is_here(self) -> bool:
        from micrographia.core.store.models import whole

        return whole(self.folder)


@cache
def packages() -> Mapping[str, ModelPackage]:
    """The catalogue, by short name."""
    rows = tomllib.loads((resources.files("micrographia.core") / CATALOGUE).read_text(encoding="utf-8"))
    return {name: ModelPackage(name=name, **{**row, "needs": tuple(row["needs"])}) for name, row in rows.items()}


def listed(name: str) -> ModelPackage:
    """The package of this short name, which must have been fetched. Raises UnknownModel, with the command."""
    found = packages()[name]
    if not found.is_here:
        raise UnknownModel(
            f"The model {name!r} ({found.model}, the package {found.requirement}) has not been fetched. Run "
            f"`micrographia models get {name}` once ({found.bytes / 1e6:.0f} MB); then it loads offline."
        )
    return found


@cache
def shipped_models() -> Mapping[str, Path]:
    """The folders of the models that come with this package, by name."""
    labs = Path(str(resources.files("micrographia"))) / "labs"
    return {about.parents[1].name: about.parent for about in sorted(labs.glob(f"*/shipped/{ABOUT}"))}


def about_shipped(name: str) -> Mapping[str, Any]:
    """What `model.json` says of one of them."""
    return json.loads((shipped_models()[name] / ABOUT).read_text(encoding="utf-8"))
