"""From words to a Config: tyro over the chosen command's dataclasses, none other.

A dataclass within another gives its fields as flags of their own, without its name before them: `--lr`, not
`--config.optimiser.lr`. Only the `base` of many networks keeps its name (`--base.lr`), as its fields are not theirs.
`read_run_arguments` gives the Config with the preset's values as defaults and flags over them. With `--resume` and no
`--preset`, the defaults are those of the Run that is there, so that `--resume --out DIR` is enough to go on.
"""

import ast
import dataclasses
import inspect
import math
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import tyro
from tyro.constructors import (
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from micrographia.core.config import flat, with_fields
from micrographia.core.errors import BadConfig

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Printed:
    """What is printed."""

    json: bool = False
    """Print one JSON object on standard output and nothing else."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """Where a Run goes, and what is printed."""

    out: Path | None = None
    """The Run's folder; by default a new one below ./runs or $MICROGRAPHIA_RUNS. A Run that is there is refused."""
    resume: bool = False
    """Go on with the Run in --out, begin it if there is none, or print it again if it is finished."""
    json: bool = False
    """Print one JSON object on standard output and nothing else."""
    verbose: bool = False
    """Print every table and claim, not only the sentences and the first table."""
    report: bool = True
    """Write report.html into the Run."""

    def __post_init__(self) -> None:
        if self.resume and self.out is None:
            raise BadConfig("--resume was given without --out, so that no Run is named to go on with. Give its folder.")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """Where a Run goes on."""

    out: Path | None = None
    resume: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Deciding(Folder):
    """The flags that decide the defaults of all others."""

    preset: str | None = None
    plan: Path | None = None
    model: str | None = None


def only(kind: type[T], words: Sequence[str]) -> tuple[T, list[str]]:
    """These flags alone, and the words that are left without them."""
    return tyro.cli(kind, args=list(words), return_unknown_args=True, add_help=False)


PLAIN = (tyro.conf.HelptextFromCommentsOff, tyro.conf.DisallowNone)
"""Help from docstrings alone; what may be left out is left out, not given as None."""
PREFIXED = "base"
"""The field that keeps its name before its own fields; --help leaves these to the command of one network."""


def parse(kind: type[T], words: Sequence[str], *, prog: str, description: str, default: T | None = None) -> T:
    """The words as a dataclass. A value that the dataclass refuses is wrong usage: exit code 2, as for a wrong flag."""
    extra: dict[str, Any] = {} if default is None else {"default": default}
    text = description.partition("`: ")[2] or description  # a module's docstring begins with the command itself
    text = text[:1].upper() + text[1:]
    registry = tyro.constructors.ConstructorRegistry()
    registry.struct_rule(partial(_flattened, helping=not {"-h", "--help"}.isdisjoint(words)))
    registry.primitive_rule(_number)
    try:
        found = tyro.cli(kind, args=list(words), prog=prog, description=text, config=PLAIN, registry=registry, **extra)
        _check_numbers(found)
        return found
    except ValueError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


NUMBERS = {int: ("INT", "a whole number such as 1000"), float: ("FLOAT", "a number such as 0.1 or 1e-3")}


def _number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """tyro's rule for numbers, which says what was expected instead of what Python calls it."""
    if info.type not in NUMBERS:
        return None
    kind: Any = info.type
    metavar, expected = NUMBERS[kind]

    def read(words: list[str]) -> Any:
        try:
            return kind(words[0])
        except ValueError as error:
            raise ValueError(f"{words[0]!r} is not {expected}") from error

    return PrimitiveConstructorSpec(1, metavar, read, lambda x: isinstance(x, kind), lambda x: [str(x)])


def _check_numbers(found: Any) -> None:
    """Raise BadConfig for a number that no computation takes: infinite, none at all, or of more than 64 bits."""
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        if dataclasses.is_dataclass(value):
            _check_numbers(value)
        endless = isinstance(value, float) and not math.isfinite(value)
        if endless or (isinstance(value, int) and abs(value) >= 2**63):
            flag = field.name.replace("_", "-")
            raise BadConfig(f"--{flag} is {value}, which nothing can be computed with. Give a finite, smaller number.")


def _flattened(info: StructTypeInfo, *, helping: bool) -> StructConstructorSpec | None:
    """tyro's rule for a dataclass, with inner ones as parts of it that add no name to the flags."""
    if not dataclasses.is_dataclass(info.type):
        return None
    hints, docs = get_type_hints(info.type, include_extras=True), field_docs(info.type)
    fields = []
    for field in dataclasses.fields(info.type):
        kind: Any = hints[field.name]
        inner = dataclasses.is_dataclass(kind)
        if inner and field.name != PREFIXED:
            kind = Annotated[kind, tyro.conf.arg(name="")]
        elif inner and helping:
            kind = Annotated[kind, tyro.conf.Suppress]
        default, doc = _default(field, info.default), docs.get(field.name)
        kind, doc = _helped(kind, default, doc) if helping else (kind, doc)
        fields.append(StructFieldSpec(field.name, kind, default, doc))
    return StructConstructorSpec(info.type, tuple(fields))


def _helped(kind: Any, default: Any, doc: str | None) -> tuple[Any, str | None]:
    """A field's type and text as --help shows them: of a switch and its opposite, which both are understood, the one
    that changes something; no default where there is none to tell.
    """
    if kind is bool and isinstance(default, bool):
        kind = Annotated[kind, tyro.conf.FlagCreatePairsOff]
        doc = _opposite(doc) if doc and default else doc
    if default is None or isinstance(default, bool):
        kind = Annotated[kind, tyro.conf.arg(help_behavior_hint="")]
    return kind, doc


def _opposite(doc: str) -> str:
    """What a field's text says of the flag that turns it off: a text may begin with that itself, as "False: ..."."""
    _, told, off = doc.partition("False: ")
    return off[:1].upper() + off[1:] if told else f"Turn off: {doc[:1].lower()}{doc[1:]}"


def _default(field: dataclasses.Field[Any], whole: Any) -> Any:
    """The field's value in the default of the whole, else its own; tyro's sign for a flag that must be given."""
    if dataclasses.is_dataclass(whole):
        return getattr(whole, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    return (
        tyro.constructors.MISSING_NONPROP if field.default_factory is dataclasses.MISSING else field.default_factory()
    )


def field_docs(kind: type) -> dict[str, str]:
    """The docstring below each field of a dataclass, its bases' fields among them, as one line."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        try:
            (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        except (OSError, TypeError):  # made while running, or written in C
            continue
        for field, doc in pairwise(tree.body if isinstance(tree, ast.ClassDef) else ()):
            if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(doc.value.value).split())
    return found


def read_run_arguments(
    config: type[T],
    words: Sequence[str],
    *,
    presets: Mapping[str, Callable[[], T]],
    preset: str,
    prog: str,
    description: str,
) -> tuple[T, Destination]:
    """The Config and Destination that the words ask for. `preset` is the one used when the words name none."""
    first, _ = only(Deciding, words)
    name = first.preset if first.preset in presets else preset
    defaults = presets[name]()
    if first.resume and first.out is not None and first.preset is None:
        stored = stored_config(first.out)
        defaults = with_fields(defaults, **stored) if stored.keys() <= flat(defaults).keys() else defaults
    arguments = dataclasses.make_dataclass(
        "Arguments",
        [
            ("preset", Annotated[Literal[tuple(presets)], tyro.conf.arg(help="Which defaults; flags change them.")]),
            ("config", config),
            ("output", Destination),
        ],
        frozen=True,
    )
    default = arguments(preset=name, config=defaults, output=Destination())
    found: Any = parse(arguments, words, prog=prog, description=description, default=default)
    return found.config, found.output


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
