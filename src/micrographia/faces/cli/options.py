"""From words to a Config: tyro over the chosen command's dataclasses, none other.

`read_run_arguments` gives the Config with the preset's values as defaults and flags over them. With `--resume` and no
`--preset`, the defaults are those of the Run that is there, so that `--resume --out DIR` is enough to go on.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from micrographia.core.errors import BadConfig

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """Where a Run goes, and what is printed."""

    out: Path | None = None
    """The Run's folder; by default a new one below ./runs or $MICROGRAPHIA_RUNS. A Run that is there is refused."""
    resume: bool = False
    """Go on with the Run in --out, begin it if there is none, or print it again if it is finished."""
    json: bool = False
    """Print one JSON object on standard output and nothing else."""
    report: bool = True
    """Write report.html into the Run."""

    def __post_init__(self) -> None:
        if self.resume and self.out is None:
            raise BadConfig("--resume was given without --out, so that no Run is named to go on with. Give its folder.")


PLAIN = (tyro.conf.HelptextFromCommentsOff, tyro.conf.DisallowNone)
"""Help from docstrings alone; what may be left out is left out, not given as None."""


def asks_for_help(words: Sequence[str]) -> bool:
    return not {"-h", "--help"}.isdisjoint(words)


def parse(
    kind: type[T],
    words: Sequence[str],
    *,
    prog: str,
    description: str,
    default: T | None = None,
    flat: bool = False,
) -> T:
    """The words as a dataclass. A value that the dataclass refuses is wrong usage: exit code 2, as for a wrong flag.

    `flat`: the fields of inner dataclasses are flags of their own, without the name of the inner one before them.
    """
    extra: dict[str, Any] = {} if default is None else {"default": default}
    said = description.partition("`: ")[2] or description  # a module's docstring begins with the command itself
    said = said[:1].upper() + said[1:]
    try:
        return tyro.cli(
            kind,
            args=list(words),
            prog=prog,
            description=said,
            config=(*PLAIN, *((tyro.conf.OmitArgPrefixes,) if flat else ())),
            **extra,
        )
    except ValueError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def read_run_arguments(
    config: type[T],
    words: Sequence[str],
    *,
    presets: Mapping[str, Any],
    preset: str,
    prog: str,
    description: str,
) -> tuple[T, Output]:
    """The Config and Output that the words ask for. `preset` is the one used when the words name none."""
    chosen = flag_value(words, "--preset")
    place = flag_value(words, "--out")
    stored = stored_config(Path(place)) if place and chosen is None and "--resume" in words else {}
    name = chosen if chosen in presets else preset
    fits = stored.keys() == {each.name for each in dataclasses.fields(config)}
    defaults = config(**stored) if fits else presets[name]()
    arguments = dataclasses.make_dataclass(
        "Arguments",
        [
            ("preset", Annotated[Literal[tuple(presets)], tyro.conf.arg(help="Which defaults; flags change them.")]),
            ("config", Annotated[config, tyro.conf.arg(name="")]),
            ("output", tyro.conf.OmitArgPrefixes[Output]),
        ],
        frozen=True,
    )
    default = arguments(preset=name, output=Output(), config=defaults)
    found: Any = parse(arguments, words, prog=prog, description=description, default=default)
    return found.config, found.output


def flag_value(words: Sequence[str], flag: str) -> str | None:
    """The value given to a flag, as `--flag value` or `--flag=value`; None when it is not there."""
    for word, following in zip(words, [*words[1:], None]):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def without_flag(words: Sequence[str], flag: str, *, takes_value: bool) -> list[str]:
    """The words without this flag and its value."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word == flag:
            skip = takes_value
        elif not word.startswith(f"{flag}="):
            kept.append(word)
    return kept


def stored_config(path: Path) -> dict[str, Any]:
    """The Config of the Run in this folder; empty when there is no Run."""
    if not path.is_dir():
        return {}
    from micrographia.core.errors import RunNotFound  # the store imports torch: only where a folder is to be read
    from micrographia.core.store import load_run

    try:
        return dict(load_run(path).config)
    except RunNotFound:
        return {}
