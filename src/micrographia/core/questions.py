"""Questions: Configs that ask something of a model, one class a question, in a table by name. Imports no torch.

A question is stored as one flat object with its name; `read_question` makes it of that again. Lists of names are texts
with commas between, as they are typed on a command line. Checks are sentences that say what to do.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from micrographia.core.config import flat, hints_of, refuse_misfits
from micrographia.core.errors import BadConfig

Q = TypeVar("Q")
Table = Mapping[str, type[Q]]


def names(text: str) -> tuple[str, ...]:
    """The names in a text with commas between.

    >>> names("L*.z, L5.mlp_out")
    ('L*.z', 'L5.mlp_out')
    """
    return tuple(part.strip() for part in text.split(",") if part.strip())


def kind_of(question: object, table: Mapping[str, type]) -> str:
    """The name of a question in its table."""
    return next(name for name, kind in table.items() if type(question) is kind)


def stored(question: object, table: Mapping[str, type]) -> dict[str, Any]:
    """The question as JSON's own types, one level deep, with its kind."""
    return {"question": kind_of(question, table), **flat(question)}


def read_question(config: Mapping[str, Any], table: Table[Q]) -> Q:
    """The question that `stored` gave, or that a user wrote. Raises BadConfig for unknown or missing choices."""
    chosen = dict(config)
    name = chosen.pop("question", None)
    if name not in table:
        raise BadConfig(f"There is no question {name!r}; known are {', '.join(table)}. Choose one of these.")
    choices = hints_of(table[name])
    if unknown := chosen.keys() - choices.keys():
        raise BadConfig(f"{name} has no choice {sorted(unknown)}. It has {', '.join(sorted(choices))}.")
    return _made(table[name], chosen)


def _made(kind: type, choices: Mapping[str, Any]) -> Any:
    """A dataclass from the choices that are its own, and those of its inner dataclasses."""
    hints, own = get_type_hints(kind), dict[str, Any]()
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            own[field.name] = _made(hints[field.name], choices)
        elif field.name in choices:
            own[field.name] = choices[field.name]
        elif field.default is dataclasses.MISSING:
            raise BadConfig(f"{kind.__name__.lower()} lacks {field.name}. Give it a value.")
    refuse_misfits(kind, {name: value for name, value in own.items() if name in choices})
    return kind(**own)


def check(holds: bool, sentence: str) -> None:
    """Raise BadConfig with a sentence that says what does not hold, and what to do."""
    if not holds:
        raise BadConfig(sentence)


def listed(question: Any, field: str, known: tuple[str, ...] | None) -> None:
    """A list of names must hold one at least, and only those that are known."""
    found = names(getattr(question, field))
    check(bool(found), f"--{field} is empty. Name at least one.")
    unknown = ", ".join(repr(name) for name in found if known and name not in known)
    check(not unknown, f"--{field} holds {unknown}; known are {', '.join(known or ())}.")


def at_least(question: Any, **bounds: int) -> None:
    """Counts, of which those that are None were not chosen."""
    for field, bound in bounds.items():
        value = getattr(question, field)
        check(value is None or value >= bound, f"--{field.replace('_', '-')} must be at least {bound}, not {value}.")


def numbers(question: Any, field: str) -> tuple[float, ...]:
    """The positive numbers in a text with commas between. Raises BadConfig."""
    text = getattr(question, field)
    try:
        found = tuple(float(part) for part in names(text))
    except ValueError:
        found = ()
    check(
        bool(found) and min(found, default=0) > 0, f"{field} holds {text!r}. Write positive numbers, such as 50, 100."
    )
    return found


def unused(question: Any, why: str, *fields: str) -> None:
    """A choice that would have no effect is an error, not passed over."""
    for field in dataclasses.fields(question):
        value = getattr(question, field.name)
        same = field.name not in fields or value == field.default
        flag = field.name.replace("_", "-")
        check(same, f"--{flag} was set to {value!r}, but {why}. Leave it out, or choose otherwise.")
