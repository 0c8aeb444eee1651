"""Facts: subjects of several tokens, the prompts that ask for their attributes, and where a subject ends in them.

The methods of this room take one `Facts`. A model without attention answers all its relations from one prompt; a
language model has a prompt for each. Activations are read at the subject's last token, before the relation is visible,
so that those of the first relation's prompts stand for all; `at_subjects` refuses prompts of which that is not true.
Axes: subject relation part option.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from micrographia.core.edits import Edit, apply
from micrographia.core.errors import BadPrompt, BadShape, UserError
from micrographia.core.model import Model
from micrographia.core.sites import Site, SiteLike, select
from micrographia.core.tokens import Inputs, ids_of, mask_of, rows_of


class Relation(NamedTuple):
    """One question to every subject.

    `inputs` (subject, pos): the prompts; `at` (subject,): where the subject's last token stands in the residual stream
    (0 where there is one position); `options` (option,): the columns of the logits, read at the last position, that
    may be the answer; `answer` (subject,): the index of the right one.
    """

    name: str
    inputs: Inputs
    at: Int[Tensor, "subject"]
    options: Int[Tensor, "option"]
    answer: Int[Tensor, "subject"]

    def among(self, logits: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows option"]:
        """The options' columns. Raises UserError for options beyond the vocabulary."""
        if int(self.options.max()) >= logits.shape[-1]:
            raise UserError(
                f"{self.name!r} has an option {int(self.options.max())}, and this model's vocabulary ends at "
                f"{logits.shape[-1] - 1}. Give options that are columns of its logits."
            )
        return logits[..., self.options]

    def nats(self, logits: Float[Tensor, "*rows subject option"]) -> Float[Tensor, "*rows subject"]:
        """Log-probability of the right answer among the options, from their logits.

        As -log(1 + the others' sum over it), which keeps its digits where the answer is nearly sure.
        """
        answer = self.answer.to(logits.device).expand(logits.shape[:-1])[..., None]
        others = logits.scatter(-1, answer, -torch.inf).logsumexp(-1)
        return -F.softplus(others - logits.gather(-1, answer)[..., 0], threshold=1000)

    def rows(self, rows: Int[Tensor, "row"]) -> "Relation":
        """Some of the subjects, in this order."""
        return self._replace(inputs=rows_of(self.inputs, rows), at=self.at[rows], answer=self.answer[rows])


class Facts(NamedTuple):
    """`parts` (subject, part): the number of each subject's first name, last name ... among the names of its kind."""

    parts: Int[Tensor, "subject part"]
    relations: tuple[Relation, ...]

    @property
    def n(self) -> int:
        return len(self.parts)

    @property
    def first(self) -> Relation:
        """The relation whose prompts are read at the subject."""
        return self.relations[0]

    def rows(self, rows: Int[Tensor, "row"]) -> "Facts":
        """Some of the subjects, in this order."""
        return Facts(self.parts[rows], tuple(relation.rows(rows) for relation in self.relations))


def facts_of(parts: Int[Tensor, "subject part"], relations: Sequence[Relation]) -> Facts:
    """The same, once it was looked through. Raises UserError for nothing to ask, and BadShape for what does not fit."""
    if not len(parts) or not relations:
        raise UserError(f"Facts need subjects and relations. Found {len(parts)} and {len(relations)}. Give some.")
    for each in relations:
        sizes = (len(ids_of(each.inputs)), len(each.at), len(each.answer))
        if set(sizes) != {len(parts)}:
            raise BadShape(
                f"{each.name!r} needs a prompt, a position and an answer for each of {len(parts)} subjects. Found "
                f"{sizes[0]}, {sizes[1]} and {sizes[2]}."
            )
        _check_answers(each)
    return Facts(parts, tuple(relations))


def _check_answers(relation: Relation) -> None:
    if bool((relation.options < 0).any()):
        raise UserError(
            f"The options of {relation.name!r} are columns of the logits, from 0. Found {int(relation.options.min())}. "
            "Give ids of the vocabulary."
        )
    if len(relation.options.unique()) < len(relation.options):
        raise UserError(
            f"Two answers of {relation.name!r} share a token, so that they cannot be told apart. Leave one out, or ask "
            "in a form in which their first tokens differ."
        )
    if not 0 <= int(relation.answer.min()) <= int(relation.answer.max()) < len(relation.options):
        raise BadShape(
            f"The answers of {relation.name!r} count among {len(relation.options)} options. Found "
            f"{int(relation.answer.min())} to {int(relation.answer.max())}."
        )


def grid_of(facts: Facts) -> Int[Tensor, "first last"]:
    """The subject in each cell of first x last part. Raises UserError unless each cell has exactly one."""
    sizes = facts.parts.amax(0) + 1
    if facts.parts.shape[1] != 2 or facts.n != int(sizes.prod()):
        raise UserError(
            f"A grid of first and last names needs every pair once. Found {facts.n} subjects of {facts.parts.shape[1]} "
            f"parts, where {' x '.join(map(str, sizes.tolist()))} names have {int(sizes.prod())}. Give the full grid."
        )
    cell = facts.parts[:, 0] * sizes[1] + facts.parts[:, 1]
    order = cell.argsort()
    if not torch.equal(cell[order], torch.arange(facts.n, device=cell.device)):
        raise UserError("A grid of first and last names needs every pair once. Found some twice. Give the full grid.")
    return order.view(*sizes.tolist())


def at_subjects(
    model: Model, facts: Facts, sites: SiteLike | Sequence[SiteLike], *, at_once: int = 4096
) -> dict[Site, Float[Tensor, "subject d"]]:
    """Each Site at the subject's last token, heads laid side by side. A pass up to the last Site, `at_once` prompts.

    Raises BadPrompt where what the model has read there differs between relations.
    """
    _check_read_alike(model, facts)
    chosen = select(model.sites, sites)
    last = max((site.layer + 1 for site in chosen if site.layer is not None), default=None)
    late = any(site.layer is None and site.kind not in ("embed", "pos_embed") for site in chosen)
    found: dict[Site, list[Tensor]] = {site: [] for site in chosen}
    for rows in torch.arange(facts.n).split(at_once):
        inputs, at = rows_of(facts.first.inputs, rows), facts.first.at[rows]
        cache = model.run(inputs, keep=chosen, logits="last", stop=None if late else last).cache
        for site in chosen:
            value = cache[site]
            found[site].append(value[torch.arange(len(rows)), at.to(value.device)].flatten(1))
    return {site: torch.cat(parts) for site, parts in found.items()}


def _check_read_alike(model: Model, facts: Facts) -> None:
    """Whether the first relation's prompts stand for all: up to the subject, or whole where all of them is read."""
    ahead = model.shape.causal and any(site.kind == "attn_out" for site in model.sites)
    for each in facts.relations[1:]:
        if _alike(facts.first, each) or (ahead and torch.equal(*_up_to_subjects(facts.first, each))):
            continue
        found = "other tokens up to them" if ahead else "other prompts, all of which this model reads there"
        raise BadPrompt(
            f"Asked for activations at the subjects, of {facts.first.name!r} to stand for {each.name!r}. Found "
            f"{found}. Give prompts in which the relation comes after the subject, or facts of one relation at a time."
        )


def _up_to_subjects(*relations: Relation) -> list[Int[Tensor, "subject pos"]]:
    """The tokens from each subject's last one backwards; -1 where none is."""
    longest = max(ids_of(each.inputs).shape[1] for each in relations)
    found = []
    for each in relations:
        ids, mask = ids_of(each.inputs), mask_of(each.inputs)
        ids = ids if mask is None else ids.masked_fill(~mask, -1)
        places = (each.at.to(ids.device) % ids.shape[1])[:, None] - torch.arange(longest, device=ids.device)
        found.append(ids.gather(1, places.clamp(min=0)).masked_fill(places < 0, -1))
    return found


class Answered(NamedTuple):
    """How all relations are answered: logits (subject, option) of each, and what follows."""

    relations: tuple[Relation, ...]
    logits: list[Float[Tensor, "subject option"]]

    @property
    def nats(self) -> Float[Tensor, "relation subject"]:
        """Log-probability of the right answer among the options."""
        return torch.stack([each.nats(x.double()) for each, x in zip(self.relations, self.logits)])

    @property
    def right(self) -> Bool[Tensor, "relation subject"]:
        """The right answer has the largest logit."""
        return torch.stack([x.argmax(-1) == each.answer.to(x.device) for each, x in zip(self.relations, self.logits)])

    @property
    def loss(self) -> Float[Tensor, "relation"]:
        """In nats a fact."""
        return -self.nats.mean(1)

    @property
    def accuracy(self) -> Float[Tensor, "relation"]:
        return self.right.double().mean(1)

    def divergence(self, clean: "Answered") -> Float[Tensor, "relation"]:
        """KL(clean || this) of the answers among the options, in nats, the mean over subjects."""
        found = []
        for before, after in zip(clean.logits, self.logits):
            p, q = before.double().log_softmax(-1), after.double().log_softmax(-1)
            found.append((p.exp() * (p - q)).sum(-1).mean())
        return torch.stack(found)


def outcome(model: Model, facts: Facts, edits: Callable[[Relation], Sequence[Edit]] = lambda relation: ()) -> Answered:
    """How the model answers under edits, which may depend on a relation by its prompts and positions alone.

    One pass for every set of prompts (`sharing`), all subjects at once.
    """
    found: dict[int, Tensor] = {}
    for members in sharing(facts.relations):
        first = facts.relations[members[0]]
        logits = model.run(first.inputs, edits=edits(first), logits="last").logits[:, -1]
        found |= {i: facts.relations[i].among(logits) for i in members}
    return Answered(facts.relations, [found[i] for i in range(len(found))])


def sharing(relations: Sequence[Relation]) -> Iterator[list[int]]:
    """Numbers of the relations, together where they share their prompts, and so can be answered by one run."""
    left = list(range(len(relations)))
    while left:
        same = [i for i in left if _alike(relations[left[0]], relations[i])]
        yield same
        left = [i for i in left if i not in same]


def _alike(a: Relation, b: Relation) -> bool:
    return torch.equal(ids_of(a.inputs), ids_of(b.inputs)) and torch.equal(a.at, b.at)


def written(site: SiteLike, at: Int[Tensor, "subject"], values: Float[Tensor, "subject d"]) -> Edit:
    """Write a value for each subject at its last token."""

    def write(old: Tensor) -> Tensor:
        old[torch.arange(len(old)), at.to(old.device)] = values.to(old)
        return old

    return apply(site, write)
