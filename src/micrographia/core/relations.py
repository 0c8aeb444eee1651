"""Relations: what is said of many subjects in one form, such as the capital of a country; their files, and our own.

A file holds one relation, or a list of them, in the layout of Hernandez et al., "Linearity of relation decoding in
transformer language models" (2023; github.com/evandez/relations): `name`, `prompt_templates` with {} for the subject,
`samples` of `subject` and `object`, and as it pleases `prompt_templates_zs`, `properties`, `domain`, `range`. Ours has
one field more, `inverse_templates`, with {} for the object. `shipped()` is a small table of public knowledge.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from micrographia.core.errors import BadPrompt

SHIPPED = "known_relations.json"
SLOT = "{}"


class Fact(NamedTuple):
    """What is true of a subject."""

    subject: str
    answer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenRelation:
    """Facts of one form. A subject may have several answers, and an answer several subjects."""

    name: str
    templates: tuple[str, ...]
    """Sentences up to the answer, with {} for the subject."""
    facts: tuple[Fact, ...]
    inverse: tuple[str, ...] = ()
    """Sentences up to the subject, with {} for the answer; none where a file gives none."""
    bare: tuple[str, ...] = ()
    """Templates to ask without examples (`prompt_templates_zs`), where a file has such."""

    def __repr__(self) -> str:
        return f"WrittenRelation({self.name!r}: {len(self.facts)} facts, {len(self.answers)} answers)"

    @property
    def answers(self) -> tuple[str, ...]:
        """Each answer once, in the order in which they come."""
        return tuple(dict.fromkeys(fact.answer for fact in self.facts))

    @property
    def commonest(self) -> float:
        """Accuracy of always giving the commonest answer."""
        listed = [fact.answer for fact in self.facts]
        return max(map(listed.count, listed)) / len(listed)

    def turned(self) -> "WrittenRelation":
        """The relation asked the other way round: of the answer for the subject. Raises BadPrompt without a form."""
        if not self.inverse:
            raise BadPrompt(
                f"The inverse of {self.name!r} was asked for, and it has no inverse template. Add `inverse_templates` "
                "to its file, with {} for the object."
            )
        facts = tuple(Fact(fact.answer, fact.subject) for fact in self.facts)
        return replace(self, name=f"{self.name}, inverse", templates=self.inverse, inverse=self.templates, facts=facts)


def shipped(names: Iterable[str] = ()) -> tuple[WrittenRelation, ...]:
    """The relations of public knowledge that come with the package, or those of these names."""
    text = (resources.files("micrographia.core") / SHIPPED).read_text(encoding="utf-8")
    return chosen(_relations(text, SHIPPED), names)


def chosen(found: tuple[WrittenRelation, ...], names: Iterable[str]) -> tuple[WrittenRelation, ...]:
    """Those of these names, all where none are given. Raises BadPrompt for a name that is not there."""
    wanted, known = list(names), {relation.name: relation for relation in found}
    if unknown := [name for name in wanted if name not in known]:
        near = ", ".join(get_close_matches(unknown[0], known)) or ", ".join(known)
        raise BadPrompt(f"Asked for the relation {unknown[0]!r}, which is not there. Nearest: {near}.")
    return tuple(known[name] for name in wanted) if wanted else found


def read_relations(path: Path | str) -> tuple[WrittenRelation, ...]:
    """The relations of a file, or of all .json files in a folder and below it, by their paths.

    Raises BadPrompt, naming file, row and field, for what is not in the layout, and for a folder without any.
    """
    place = Path(path)
    files = sorted(place.rglob("*.json")) if place.is_dir() else [place]
    if not files:
        raise BadPrompt(f"Asked for the relations in {path}, which holds no .json file. Give a file or another folder.")
    return tuple(relation for file in files for relation in _relations(_read(file), str(file)))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadPrompt(
            f"Asked for the relations in {file}, which cannot be read: {error}. Is the name right?"
        ) from error


def _relations(text: str, where: str) -> tuple[WrittenRelation, ...]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadPrompt(f"Asked for the relations in {where}, which is no JSON: {error}. Mend it.") from error
    listed = found if isinstance(found, list) else [found]
    return tuple(_relation(each, where) for each in listed)


def _relation(found: Any, where: str) -> WrittenRelation:
    if not isinstance(found, Mapping) or not {"name", "prompt_templates", "samples"} <= found.keys():
        held = ", ".join(found) if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise BadPrompt(
            f"{where} should hold name, prompt_templates and samples. Found {held}. Give a relation's file."
        )
    name, samples = found["name"], found["samples"]
    if not isinstance(name, str) or not name:
        raise BadPrompt(f"The name in {where} is {name!r:.40}. Write a text.")
    if not isinstance(samples, list) or not samples:
        raise BadPrompt(f"The samples of {name!r} in {where} are {samples!r:.40}. Write a list of subject and object.")
    templates = _templates(found, "prompt_templates", where)
    if not templates:
        raise BadPrompt(f"{name!r} in {where} has no prompt_templates. Write one at least, with {{}} for the subject.")
    return WrittenRelation(
        name=name,
        templates=templates,
        facts=tuple(dict.fromkeys(_fact(each, f"sample {i} of {where}") for i, each in enumerate(samples, 1))),
        inverse=_templates(found, "inverse_templates", where),
        bare=_templates(found, "prompt_templates_zs", where),
    )


def _templates(found: Mapping[str, Any], field: str, where: str) -> tuple[str, ...]:
    listed = found.get(field) or []
    odd = (
        [each for each in listed if not isinstance(each, str) or each.count(SLOT) != 1]
        if isinstance(listed, list)
        else [listed]
    )
    if odd:
        raise BadPrompt(f"{field} of {where} holds {odd[0]!r:.60}. Write a list of texts, each with {{}} once.")
    return tuple(each.rstrip() for each in listed)


def _fact(found: Any, where: str) -> Fact:
    if not isinstance(found, Mapping):
        raise BadPrompt(f"{where} is {found!r:.40}. Write an object with subject and object.")
    for field in ("subject", "object"):
        if not isinstance(found.get(field), str) or not found[field].strip():
            raise BadPrompt(f"{where} has {found.get(field)!r:.40} as its {field}. Write a text.")
    return Fact(found["subject"].strip(), found["object"].strip())
