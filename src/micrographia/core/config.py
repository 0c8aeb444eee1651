"""Validate configs, read them from JSON files, and find the nearest preset. Imports no torch.

A check is a sentence that should be true, beside whether it is; a Config puts its own beside those that are shared here
and hands all to `validate`, so that a user is told of everything at once. Configs are flat: their fields hold texts,
numbers, truth values or nothing. `python -m micrographia.labs.<name> config.json [out]` prints the Run's folder and
nothing else: each lab's `__main__` says which Config it reads and what runs it, and `run_words` does the rest.
"""

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_args, get_origin, get_type_hints, runtime_checkable

from micrographia.core.claims import Run
from micrographia.core.errors import BadConfig, MicrographiaError

C = TypeVar("C")
Checks = Mapping[str, bool]
CUSTOM = "custom"


@runtime_checkable
class Trains(Protocol):
    """A Config that trains by AdamW with linear warm-up, on a number of CPU threads that it may leave open."""

    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def beta1(self) -> float: ...
    @property
    def beta2(self) -> float: ...
    @property
    def eps(self) -> float: ...
    @property
    def warmup(self) -> int: ...
    @property
    def threads(self) -> int | None: ...


def positive(config: object, names: Sequence[str]) -> Checks:
    """Each of these counts is at least 1."""
    return {f"{name} must be positive": getattr(config, name) >= 1 for name in names}


def training(config: Trains) -> Checks:
    """What AdamW and a number of threads must be."""
    return {
        "lr must be positive": config.lr > 0,
        "weight_decay must not be negative": config.weight_decay >= 0,
        "beta1 and beta2 must lie in [0, 1)": 0 <= config.beta1 < 1 and 0 <= config.beta2 < 1,
        "eps must be positive": config.eps > 0,
        "warmup must not be negative": config.warmup >= 0,
        "threads must be positive": config.threads is None or config.threads >= 1,
    }


def validate(config: object, checks: Checks) -> None:
    """Raise BadConfig naming every check that fails."""
    if broken := [text for text, good in checks.items() if not good]:
        raise BadConfig(f"This config cannot be run: {'; '.join(broken)}. Got {config}.")


def nearest_preset(config: Any, presets: Mapping[str, Callable[[], Any]], free: Collection[str]) -> str:
    """The preset, of one dataclass with `config`, that has the same value in every field not `free`; else "custom"."""
    fixed = [field.name for field in dataclasses.fields(config) if field.name not in free]
    for name, make in presets.items():
        preset = make()
        if all(getattr(preset, field) == getattr(config, field) for field in fixed):
            return name
    return CUSTOM


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises BadConfig for a file that cannot be read, or that holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadConfig(f"Asked to run {path}, which cannot be read: {error}. Give a JSON file.") from error
    if not isinstance(found, dict):
        raise BadConfig(f"Asked to run {path}, which holds a {type(found).__name__}. Write a JSON object of choices.")
    return found


def read_fields(path: Path, kind: type[C]) -> C:
    """The dataclass whose fields the file gives; those left out have their defaults.

    Raises BadConfig for a file that is no JSON object, for fields that `kind` does not have, and for values that are
    not of a field's kind; whatever `kind` itself refuses is raised as it is.
    """
    fields = read_object(path)
    known = [field.name for field in dataclasses.fields(kind)]  # pyright: ignore[reportArgumentType] (a dataclass)
    if unknown := sorted(fields.keys() - set(known)):
        raise BadConfig(f"{path} holds {unknown}. A Config is a JSON object of these fields: {', '.join(known)}.")
    refuse_misfits(kind, fields)
    return kind(**fields)


def refuse_misfits(kind: type, fields: Mapping[str, Any]) -> None:
    """Raise BadConfig for values that are not of the kind that the fields of a dataclass hold, naming each."""
    hints = get_type_hints(kind)
    odd = {name: value for name, value in fields.items() if not _fits(value, hints[name])}
    if odd:
        raise BadConfig(f"Asked for {odd}. {'; '.join(f'{name} takes {_told(hints[name])}' for name in odd)}.")


def run_words(words: Sequence[str], read: Callable[[Path], C], run: Callable[..., Run]) -> Path:
    """The folder of the Run that a command line asks for: a file that `read` turns into a Config, and where to put it.

    With a folder, a Run that was interrupted there goes on. An error that a user can meet ends the program with its
    sentence (SystemExit).
    """
    try:
        if not 1 <= len(words) <= 2:
            raise BadConfig(
                f"Asked for {list(words) or 'nothing'}. Give a config.json and, if you like, the folder of the Run."
            )
        out = Path(words[1]) if len(words) > 1 else None
        return run(read(Path(words[0])), out=out, resume=out is not None).path
    except MicrographiaError as error:
        raise SystemExit(f"micrographia: {error}") from None


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is what a field of this annotation holds; a whole number is a number too."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if options := get_args(hint):
        return any(_fits(value, option) for option in options)
    return type(value) in ((int, float) if hint is float else (hint,))


def _told(hint: Any) -> str:
    """An annotation in JSON's words."""
    if get_origin(hint) is Literal:
        return " or ".join(map(json.dumps, get_args(hint)))
    if options := get_args(hint):
        return " or ".join(map(_told, options))
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(hint, "null")
