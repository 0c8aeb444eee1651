"""What can be asked of dictionaries: to train some, and to evaluate one. Imports no tensor library."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from micrographia.core import questions
from micrographia.core.config import Target
from micrographia.core.questions import at_least, check, listed, numbers, unused

Kind = Literal["relu", "gated", "topk", "batchtopk", "matryoshka", "jumprelu", "abstopk", "groupmax"]
Layout = Literal["saelens", "sparsify", "gemma_scope", "gemma_scope_2"]
KIND: Kind = "batchtopk"
L0 = "50"
"""What is trained if nothing is said."""
KINDS: tuple[str, ...] = get_args(Kind)
PENALISED = ("relu", "gated")
"""Kinds whose sparsity is the coefficient of a penalty, not a number of latents."""


def check_sparsity(kind: str, *, l0: bool, sparsity: bool, recipe: bool) -> None:
    """Raise BadConfig unless what was given says how sparse a dictionary of this kind is, once."""
    check(kind in KINDS, f"There is no kind {kind!r} of dictionaries. There are {', '.join(KINDS)}.")
    if recipe:
        check(not l0, "l0 was set, but a recipe says so itself. Leave it out.")
        check(not sparsity, "sparsity was set, but a recipe says so itself. Leave it out.")
    elif kind in PENALISED:
        check(sparsity, f"The kind {kind} needs sparsity, the coefficient of its L1 penalty.")
        check(not l0, f"l0 was set, but the kind {kind} has as many active latents as sparsity leaves. Leave it out.")
    else:
        check(not sparsity, f"sparsity was set, but the kind {kind} is told its active latents by l0. Leave it out.")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextSource:
    """The text, and how it is read."""

    text: str | None = None
    """FILE, FOLDER, FILE.jsonl or hf:NAME; by default the Python standard library's own sources."""
    field: str = "text"
    """The field of a JSONL file or data set that holds the text."""
    context: int = 128
    """Tokens in a row."""
    bos: bool | None = None
    """Begin each row with the beginning-of-sequence token, or without; by default as the tokenizer does."""
    keep_first: bool = False
    """Keep the first position of each row, attention's sink. It is left out otherwise, as special tokens always are."""

    def __post_init__(self) -> None:
        at_least(self, context=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    """Train sparse dictionaries on a model's activations, evaluate them on held-out text, and save them."""

    target: Target
    reading: TextSource = dataclasses.field(default_factory=TextSource)
    site: str
    """Where: a Site such as L15.resid_post, or several of one width with commas between, trained side by side."""
    writes: str | None = None
    """A transcoder's target: the Site whose activation is predicted. By default the dictionary's own."""
    kind: Kind = KIND
    """relu and gated take --sparsity, the others --l0."""
    width: int | None = None
    """Latents; by default eight times the width of the activations."""
    l0: str = L0
    """How many latents are active at a token, on average; several with commas between are trained side by side."""
    sparsity: str | None = None
    """The coefficient of the L1 penalty, of relu and gated; several with commas between."""
    tokens: int = 1_000_000
    """Tokens to train on; a text with fewer is read again, in another order."""
    batch: int = 4096
    """Tokens in a batch."""
    lr: float | None = None
    """Adam's rate; by default 2e-4 / sqrt(width / 16,384)."""
    seeds: int = 1
    """How many dictionaries of each sort, with different random starts."""
    revival: Literal["auxk", "resample", "ghost", "none"] = "auxk"
    """What is done for latents that no longer fire."""
    recipe: str | None = None
    """A published recipe by name (gemma_scope, april_2024, anthropic_2023 ...), or a FILE of one in JSON, in place of
    kind, L0, sparsity and revival; its warm-ups are shortened to --tokens."""
    held_out: int = 50_000
    """Tokens of the text's beginning that are kept for the evaluation."""
    latents: int = 5
    """Latents of the first dictionary that are shown in context, those best told by a few tokens; 0 looks at none."""
    pages: bool = True
    """Build the pages of all latents on the held-out text, which `micrographia browse RUN` shows."""
    buffer: int = 512
    """Megabytes of activations that are held and mixed."""
    layout: Layout = "saelens"
    """The format in which the dictionaries are saved."""
    checkpoint_every: int = 200
    """Steps between checkpoints to resume from."""

    def __post_init__(self) -> None:
        listed(self, "site", None)
        at_least(self, width=2, tokens=1, batch=1, seeds=1, held_out=1, latents=0, buffer=1, checkpoint_every=1)
        numbers(self, "l0")
        if self.recipe is not None:
            unused(self, "a recipe says so itself", "kind", "revival")
        given = {"l0": self.l0 != L0, "sparsity": self.sparsity is not None, "recipe": self.recipe is not None}
        check_sparsity(self.kind, **given)
        if self.sparsity is not None:
            numbers(self, "sparsity")
        check(self.lr is None or self.lr > 0, f"lr must be positive, not {self.lr}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluate:
    """Evaluate a dictionary in its model on a text: fidelity, sparsity, loss when spliced in, and its latents."""

    target: Target
    reading: TextSource = dataclasses.field(default_factory=TextSource)
    dictionary: str
    """PATH: a folder or file of any format, one of your Runs, or a name on the hub. As the first word it needs no flag:
    `sae eval PATH`."""
    layer: int | None = None
    """Which, of several."""
    width: str | None = None
    """Which width of a published suite, such as 16k."""
    l0: str | None = None
    """Which L0 of a published suite: a number, or canonical, the nearest to 100."""
    site: str | None = None
    """Which site of a suite, such as L1.z or z; of one dictionary, where it reads, if the files do not say."""
    writes: str | None = None
    """Where a transcoder writes, if the files do not say."""
    tokens: int = 50_000
    """Tokens to evaluate on."""
    loss_tokens: int = 10_000
    """Of these, tokens whose loss is measured with the dictionary spliced in; 0 measures none."""
    beside: str | None = None
    """Further texts, with commas between: the loss on as many tokens of each stands beside that on --text."""
    latents: int = 5
    """Latents that are shown in context, those best told by a few tokens; 0 looks at none."""
    allow_pickle: bool = False
    """Read a pickled file (.pt), of tensors alone."""

    def __post_init__(self) -> None:
        at_least(self, tokens=1, loss_tokens=0, latents=0)
        if not self.loss_tokens:
            unused(self, "no loss is measured without --loss-tokens", "beside")


Asked = Train | Evaluate
ASKED: Mapping[str, type[Asked]] = {"train": Train, "eval": Evaluate}


def read_asked(config: Mapping[str, Any]) -> Asked:
    """What `stored` gave, or a user wrote. Raises BadConfig for unknown or missing choices."""
    return questions.read_question(config, ASKED)


def stored(asked: Asked) -> dict[str, Any]:
    """As JSON's own types, one level deep, with its kind."""
    return questions.stored(asked, ASKED)
