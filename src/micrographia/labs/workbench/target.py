"""From a Target to a Model: a Run of ours, a folder, or the hub."""

from contextlib import suppress
from pathlib import Path

from micrographia.core.errors import BadConfig, MissingExtra, RunNotFound
from micrographia.core.events import Progress, Watch
from micrographia.core.model import Model
from micrographia.core.runtime import pick_device, torch_dtype
from micrographia.core.small.trained import load_trained
from micrographia.core.store import find_run
from micrographia.labs.workbench.config import Target


def load_target(target: Target, watch: Watch) -> Model:
    """The model, on its device and in its precision.

    A folder that is there comes first, then a Run of that name, then the hub. Raises UnknownModel, BadConfig for a
    device that is not there or a revision of what is not on the hub, MissingExtra without transformers.
    """
    watch(Progress("load the model", 0, 1, "model"))
    device, dtype = pick_device(target.device), torch_dtype(target.dtype)
    run = None if Path(target.model).is_dir() else _run_of(target.model)
    if run is None and (Path(target.model) / "run.json").is_file():
        run = Path(target.model)
    if target.revision is not None and (run is not None or Path(target.model).is_dir()):
        raise BadConfig(
            f"Asked for revision {target.revision!r} of {target.model}, which lies on this machine. Revisions are of "
            "models on the hub: leave it out, or give the hub's name."
        )
    if run is not None:
        model: Model = load_trained(run, dtype=dtype, device=str(device))
    else:
        model = _foreign(target, str(device), watch)
    watch(Progress("load the model", 1, 1, "model"))
    return model


def _run_of(name: str) -> Path | None:
    with suppress(RunNotFound):
        return find_run(name)
    return None


def _foreign(target: Target, device: str, watch: Watch) -> Model:
    from micrographia.core.pretrained.load import load  # transformers, which a Run of ours does without

    try:
        return load(target.model, dtype=torch_dtype(target.dtype), device=device, revision=target.revision, watch=watch)
    except ModuleNotFoundError as error:
        if error.name not in ("transformers", "huggingface_hub"):
            raise
        raise MissingExtra(
            f"The model {target.model!r} needs transformers, which is not installed. Install micrographia[hf]."
        ) from error
