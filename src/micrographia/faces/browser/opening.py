"""Opening what the user named: the bundles of a Run or folder, and the model that is to compute beside them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from micrographia.core.errors import BadBundle, RunLocked, RunNotFound, UserError
from micrographia.core.events import Note, Watch
from micrographia.core.fingerprint import weights_of
from micrographia.core.load import load_any
from micrographia.core.runtime import pick_device
from micrographia.core.store import find_run, load_run
from micrographia.core.store.verify import RUN
from micrographia.faces.browser.live import LiveModel
from micrographia.methods.dictionaries.features.bundle import Bundle, find_bundles
from micrographia.methods.dictionaries.on_text import dictionaries_of


def place_of(text: str) -> Path:
    """The folder at this path, or the Run whose name begins so. Raises BadBundle, RunLocked for one being written."""
    place = Path(text).expanduser()
    if not place.exists() and "/" not in text:
        try:
            place = find_run(text)
        except RunNotFound as error:
            raise BadBundle(f"Asked to browse {text!r}, which is no folder and no Run. {error}") from error
    if not place.is_dir():
        raise BadBundle(f"Asked to browse {place}, which is no folder. Give a Run, or a folder with bundles below it.")
    if (place / RUN).is_file() and load_run(place).status == "running":
        raise RunLocked(f"Asked to browse {place}, a Run that another process still writes. Wait until it is finished.")
    return place.absolute()


def open_bundles(place: Path) -> dict[str, Bundle]:
    """All bundles in and below a folder, by names that can stand in an address: its own where no other has it.

    Raises BadBundle.
    """
    found = find_bundles(place)
    if not found:
        raise BadBundle(
            f"Asked to browse {place}, in and below which there is no feature bundle. Build one with `mg.build_bundle`."
        )
    opened = {inner: Bundle.open(folder) for inner, folder in found.items()}
    own = [str(each.about.get("name") or "") for each in opened.values()]
    bundles: dict[str, Bundle] = {}
    for (inner, each), name in zip(opened.items(), own):
        told = name if name and own.count(name) == 1 else place.name if inner == "." else inner
        bundles[_free(re.sub(r"[^\w.-]+", "-", told, flags=re.ASCII).strip("-.") or "bundle", bundles)] = each
    return bundles


def _free(name: str, taken: Mapping[str, Any]) -> str:
    names = [name, *(f"{name}-{i}" for i in range(2, len(taken) + 3))]
    return next(each for each in names if each not in taken)


def load_live(name: str, place: Path, bundles: dict[str, Bundle], watch: Watch) -> LiveModel:
    """The model of this name with the dictionaries that the bundles are of, which are looked for below the folder.

    Warns where a Run knows that its bundles are of other weights. Raises UserError where none is there, and
    for a model of another vocabulary; and what the model's loading and `LiveModel` raises.
    """
    hashes = {each: own.about["weights"] for each, own in bundles.items() if own.about.get("weights")}
    device = pick_device("auto")
    found = dictionaries_of(place, hashes, device)
    if not found:
        raise UserError(
            f"Asked to compute with {name!r}, but in and below {place} lie no weights that these bundles were built "
            "from. Put the folder that was saved beside them, or leave --model out."
        )
    _warn_of_other_weights(name, {each: bundles[each].folder for each in found}, watch)
    live = LiveModel(name, load_any(name, dtype="float32", device=device, watch=watch), found)
    known = live.model.shape.d_vocab
    for each in found:
        if (built := bundles[each].n_vocab) != known:
            raise UserError(
                f"Asked to compute with {name!r}, which knows {known:,} tokens. The bundle {each} was built with a "
                f"model of {built:,}. Give that one, {bundles[each].about['model']!r}."
            )
    return live


def _warn_of_other_weights(name: str, folders: Mapping[str, Path], watch: Watch) -> None:
    """The Run that a bundle lies in may know the weights of the model that it was made of."""
    own = weights_of(name)
    for each, folder in folders.items():
        run = next((above for above in folder.parents if (above / RUN).is_file()), None)
        known = None if run is None else load_run(run).provenance.get("weights")
        if own and known and own != known:
            said = (
                f"The weights of {name!r} are not those that the bundle {each} was built with: its latents may differ."
            )
            watch(Note(said, "warning"))
