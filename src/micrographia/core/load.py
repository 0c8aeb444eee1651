"""`load_any`: a Model from a Run of ours, a folder, a GGUF file, a package, the Hub, or a module in hand.

It imports `core.pretrained.load`, which needs transformers, only where it is needed.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from micrographia.core.errors import BadConfig, MissingExtra, RunNotFound, UnknownModel
from micrographia.core.events import Progress, Watch, silent
from micrographia.core.model import Model
from micrographia.core.model_packages import packages, shipped_models
from micrographia.core.runtime import dtype_named
from micrographia.core.small.trained import holds_model, load_shipped, load_trained
from micrographia.core.sources import located
from micrographia.core.store import find_run

EXTRA = ("transformers", "huggingface_hub")


def load_any(
    name: str | Path | nn.Module,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    revision: str | None = None,
    watch: Watch = silent,
    **choices: Any,
) -> Model:
    """The model of this name, with `dtype` and on `device`; None keeps the stored ones.

    A path comes first (a Run, a folder, a `.gguf` file, a wheel), then a Run with that name or unique prefix, then what
    `micrographia models` lists (the models that come with this package first), then an installed package that holds a
    model, then the Hub (`core.sources`). `choices` are those of `core.pretrained.load.load`, which apply neither to a
    Run nor to a model that comes with this package.
    Raises UnknownModel; BadConfig for a revision of a local model; MissingExtra without transformers, or what reads a
    GGUF file.
    """
    if not isinstance(name, nn.Module):
        _check_name(name)
    watch(Progress("load the model", 0, 1, "model"))
    run = None if isinstance(name, nn.Module) else _run_of(Path(name))
    own = isinstance(name, str) and run is None and name in shipped_models() and not Path(name).exists()
    here = None if own or isinstance(name, nn.Module) or run is not None else located(name)
    if revision is not None and (own or (run or here) is not None):
        raise BadConfig(
            f"Asked for revision {revision!r} of {name}, which lies on this machine. Revisions are of models on the "
            "hub: leave it out, or give the hub's name."
        )
    where = None if device is None else str(device)
    if own:
        model: Model = load_shipped(str(name), dtype=dtype_named(dtype), device=where)
    elif run is not None and not choices:
        model = load_trained(run, dtype=dtype_named(dtype), device=where)
    else:
        model = _pretrained(run or here or name, dtype=dtype, device=device, revision=revision, watch=watch, **choices)
    watch(Progress("load the model", 1, 1, "model"))
    return model


def _check_name(name: str | Path) -> None:
    """Raise UnknownModel for what cannot be a name: "" would be the current folder; paths may be too long."""
    try:
        good = bool(str(name).strip())
        Path(name).exists()
    except (OSError, ValueError):
        good = False
    if not good:
        raise UnknownModel(
            f"Asked for the model {str(name)[:40]!r}, which is no name. Give a folder, a .gguf file, a name of "
            "`micrographia models`, or a name on the hub."
        )


def _run_of(name: Path) -> Path | None:
    """The Run of this name, if any; a folder counts only if it is itself a Run.

    A Run found by the beginning of its name hides no name of the catalogue, and hides nothing if it holds no model.
    """
    if name.is_dir():
        run = name if (name / "run.json").is_file() else None
        return None if run and str(name) in packages() and not holds_model(run) else run
    with suppress(RunNotFound):
        run = find_run(str(name))
        if run.name == name.name or (str(name) not in packages() and holds_model(run)):
            return run
    return None


def _pretrained(name: str | Path | nn.Module, **choices: Any) -> Model:
    from micrographia.core.pretrained.load import load  # a Run of ours does without it

    try:
        return load(name, **choices)
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise MissingExtra(
            f"The model {name!r} needs transformers, which is not installed. Install micrographia[hf]."
        ) from error
