"""The questions that can be put to a model, each with all its choices. Imports no tensor library.

A question is one of the classes in `QUESTIONS`; `Target` and `Prompts` are the parts that they share. Lists of names
are texts with commas between, as they are typed on a command line.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from micrographia.core import questions
from micrographia.core.config import Target
from micrographia.core.questions import at_least, check, listed, names, unused
from micrographia.core.titles import MODES, Mode

Modes = Literal["denoise", "noise", "both"]
Formats = Literal["auto", "own", "auto-circuit", "eap-ig", "feature-circuits"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Around:
    """What stands around each prompt, the clean and the corrupt one alike."""

    bos: bool | None = None
    """Begin with the beginning-of-sequence token, or without; by default as the tokenizer does."""
    chat: bool = False
    """Make each prompt the user's turn of a chat, by the model's own template; the answer is the assistant's."""
    chat_start: str | None = None
    """How the assistant's answer begins, up to the token that is read: "The answer is"."""
    shots: str | None = None
    """A FILE of examples that stand before each prompt: one a line, or JSON."""

    def __post_init__(self) -> None:
        check(
            self.chat or self.chat_start is None, "--chat-start was given without --chat. Add --chat, or leave it out."
        )
        both = "A chat begins as its template does: leave --no-bos out, or --chat."
        check(not (self.chat and self.bos is False), both)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompts:
    """Pairs of prompts that differ in what is studied, and the answers that distinguish them."""

    clean: str | None = None
    """A prompt at which the model gives the answer."""
    corrupt: str | None = None
    """The same with what matters changed; it must have as many tokens."""
    answer: str | None = None
    """What the clean prompt calls for, as one token, or several with | between ("5|6|7"). A leading space matters."""
    wrong: str | None = None
    """What the corrupt prompt calls for, one or several; the logit difference needs it."""
    prompts: str | None = None
    """A FILE of pairs instead: JSON, JSONL or CSV with the columns clean, corrupt, answer, wrong."""
    prompt_format: Formats = "auto"
    """Whose layout the file has, where its columns do not tell."""
    columns: str | None = None
    """Which columns of the file to read: "clean=prompt, corrupt=counterfactual, answer=target"."""
    limit: int | None = None
    """Take only so many pairs of the file, the first."""
    skip_misfits: bool = False
    """Leave out pairs that do not line up or whose answers are several tokens; how many these are is said."""
    first_token: bool = False
    """Score the first token of an answer that is several."""
    around: Around = dataclasses.field(default_factory=Around)

    def __post_init__(self) -> None:
        missing = [f"--{name}" for name in ("clean", "corrupt", "answer") if getattr(self, name) is None]
        needed = "Prompts are needed: give --clean, --corrupt and --answer, or a file with --prompts. Missing:"
        check(self.prompts is not None or not missing, f"{needed} {', '.join(missing)}.")
        once = self.prompts is None or (len(missing) == 3 and self.wrong is None)
        check(once, f"Prompts were given twice: in the file {self.prompts} and as texts. Leave one out.")
        if self.prompts is None:
            unused(self, "no file of prompts is given", "prompt_format", "columns", "limit", "skip_misfits")
        at_least(self, limit=1)
        columns_of(self.columns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Patch:
    """Put activations of one run into another, place by place, and see what that does to the answer."""

    target: Target
    prompts: Prompts
    sites: str = "L*.resid_pre"
    """Which activations: Sites or patterns, with commas between: "L*.z, L5.mlp_out"."""
    by: str = "pos"
    """What a place is: layer, pos, head, unit, query, key, with commas between. Each layer is its own, named or not."""
    together: bool = False
    """Patch the same place in all chosen layers at once."""
    metrics: str = "logit-diff"
    """Which figures, by commas: logit-diff, logit, log-prob, prob, prob-diff, kl, rank. The first is shown."""
    mode: Modes = "both"
    """denoise: the clean value into the corrupt run; noise: the corrupt value into the clean run."""
    replace: Literal["other", "zero", "noise", "mean", "resample"] = "other"
    """What is put there: the other run's value, zero, or the mean of, a resample of or noise like the reference."""
    reference: str | None = None
    """A FILE of texts for mean, resample and noise: one a line, or JSON. By default the prompts themselves."""
    plan: Literal["fast", "strict"] = "fast"
    """fast: many patches a batch; strict: bit-equal to one run after another."""

    def __post_init__(self) -> None:
        listed(self, "sites", None)
        listed(self, "by", AXES)
        listed(self, "metrics", METRICS)
        if self.replace in ("other", "zero"):
            unused(self, f"replace {self.replace} reads none; mean, resample and noise do", "reference")


@dataclass(frozen=True, kw_only=True, slots=True)
class Attribute:
    """Estimate the effect of patching every place at once, from gradients, and check the estimate exactly."""

    target: Target
    prompts: Prompts
    sites: str = "L*.z, L*.neurons, L*.mlp_out, L*.resid_pre"
    """Which activations: Sites or patterns, with commas between. Not for edges."""
    metric: Literal["logit-diff", "logit", "log-prob", "prob", "prob-diff", "kl"] = "logit-diff"
    """What the effect is measured in."""
    method: Literal["atp", "atp-qk", "atp-star", "ig", "ig-activation", "relp", "edges", "edges-ig"] = "atp"
    """Attribution patching; with the QK-fix; AtP*; integrated gradients along the input or each Site; RelP; edges."""
    mode: Modes = "both"
    """denoise: what the clean value would do to the corrupt run; noise: the corrupt value to the clean run."""
    steps: int = 5
    """Points on the path of integrated gradients."""
    positions: Literal["each", "sum"] = "each"
    """A score for each position, or their sum, which spares the memory of long texts."""
    verify: int | None = None
    """Places that are patched exactly to check the estimate: kinds of Site with few whole, of others half the largest
    and half at random. By default as many as take about twice the time of the estimates. 0 checks nothing."""
    top: int = 20
    """Places in the table."""
    strongest: int = 0
    """Hold only so many scores, the largest: for a model with too many places for a table. 0 holds all of them."""

    def __post_init__(self) -> None:
        listed(self, "sites", None)
        at_least(self, steps=1, verify=0, top=1, strongest=0)
        if "ig" not in self.method.split("-"):
            unused(self, f"method {self.method} walks no path; ig, ig-activation and edges-ig do", "steps")
        if self.method.startswith("edges"):
            unused(self, f"method {self.method} scores all edges between components", "sites", "positions")
        check(
            not self.strongest or self.method in ONCE,
            f"Only the {self.strongest} strongest places were requested of {self.method}, which comes to its scores in "
            f"several passes and must hold all. Take {', '.join(ONCE)}, or leave `strongest` out.",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Causal tracing: blur the subject of a prompt, restore single states, and see where the fact comes back."""

    target: Target
    prompt: str
    """A prompt that the model completes with the answer."""
    around: Around = dataclasses.field(default_factory=Around)
    subject: str
    """The words in it that are corrupted with noise: the subject of the fact."""
    answer: str | None = None
    """The completion to follow, as one token or several with | between; by default the model's own first choice."""
    first_token: bool = False
    """Follow the first token of an answer that is several."""
    samples: int = 10
    """Draws of the noise."""
    noise: float = 3.0
    """Standard deviations, of the subjects' embeddings, that the noise has."""
    window: int | None = None
    """Layers restored together in the pictures of MLP and attention outputs; by default a fifth of the depth."""
    severed: bool = True
    """Also sever MLPs, and attention, at their corrupted values while restoring states."""
    reference: str | None = None
    """A FILE of subjects that says how far embeddings spread; by default the subject's own tokens."""

    def __post_init__(self) -> None:
        at_least(self, samples=1, window=1)
        if self.answer is None:
            unused(self, NO_ANSWER, "first_token")
        check(0 < self.noise < float("inf"), f"--noise must be positive and finite, not {self.noise}.")
        found = bool(self.subject.strip()) and self.subject.strip() in self.prompt
        check(found, f"The words {self.subject!r} are not in the prompt {self.prompt!r}. Copy them from it.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Circuit:
    """Choose the parts that carry a behaviour, and measure how much of it they carry alone."""

    target: Target
    prompts: Prompts
    metric: Literal["logit-diff", "logit", "log-prob", "prob", "prob-diff"] = "logit-diff"
    """The behaviour."""
    units: Literal["nodes", "edges"] = "nodes"
    """Heads and MLPs, or the edges between them."""
    method: Literal["eap", "eap-ig"] = "eap"
    """How edges are scored; nodes are scored by the edges out of them."""
    ablation: Literal["other", "zero", "mean"] = "other"
    """What stands for what is left out: its value in the corrupt run, zero, or its mean over the corrupt prompts."""
    select: Literal["top", "greedy"] = "top"
    """The members of largest score; or, for edges, grown from the logits backward so that all hang together."""
    n: int | None = None
    """How many to keep; by default as many as carry `faithful` of the behaviour."""
    threshold: float | None = None
    """Keep the members whose score is at least this share of the gap instead."""
    faithful: float = 0.9
    """How near to all of the behaviour the circuit must come: 0.9 is 90 to 110 %. Not with `n` or `threshold`."""
    minimal: bool = True
    """Leave out each member of the circuit in turn, which takes a run for each."""
    null: int = 50
    """Circuits of the same size drawn at random, to compare with."""

    def __post_init__(self) -> None:
        at_least(self, null=1, n=1)
        sizes = [name for name in ("n", "threshold") if getattr(self, name) is not None]
        check(len(sizes) < 2, "The size of the circuit was given twice, as --n and as --threshold. Leave one out.")
        check(0 < self.faithful <= 1, f"--faithful must lie in (0, 1], not {self.faithful}.")
        if sizes:
            unused(self, f"the size of the circuit is given by {sizes[0]}", "faithful")
        able = self.units == "edges" and self.threshold is None
        edges = "Greedy selection grows edges from the logits: take units edges, and n or faithful."
        check(self.select == "top" or able, edges)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lens:
    """Read the answer off the residual stream: direct effects of components, and the prediction of each layer."""

    target: Target
    prompt: str
    """The prompt that is read, at its last position."""
    around: Around = dataclasses.field(default_factory=Around)
    corrupt: str | None = None
    """A second one to read beside it, with what matters changed; it must have as many tokens."""
    answer: str | None = None
    """The token to read for, or several with | between; by default the model's own first choice."""
    wrong: str | None = None
    """A token to read against, or several: parts are then parts of the difference of the two (mean) logits."""
    first_token: bool = False
    """Read for the first token of an answer that is several."""
    heads: int = 12
    """How many heads, those of the largest parts, are split by the token that they carried it from."""
    best: int = 5
    """How many tokens of each layer are reported, the likeliest first."""

    def __post_init__(self) -> None:
        at_least(self, heads=1, best=1)
        texts = (self.prompt, self.prompt if self.corrupt is None else self.corrupt)
        check(all(text.strip() for text in texts), "A lens on an empty prompt was requested. Give it a text.")
        if self.answer is None and self.wrong is None:
            unused(self, NO_ANSWER, "first_token")


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablate:
    """Remove every head and layer in turn, and measure by how much the loss on texts rises."""

    target: Target
    texts: str
    """A text, or a FILE of texts: one a line, or JSON."""
    around: Around = dataclasses.field(default_factory=Around)
    answer: str | None = None
    """What comes after each text, as one token or several with | between: its logit is measured beside the loss."""
    wrong: str | None = None
    """What does not, likewise: the logit difference is measured."""
    first_token: bool = False
    """Score the first token of an answer that is several."""
    sites: str = "L*.z, L*.mlp_out"
    """What is removed: Sites or patterns, with commas between."""
    by: str = "head"
    """What is removed at once: head, unit, pos, with commas between. A Site that has none of these is removed whole."""
    replace: Literal["zero", "mean", "resample"] = "mean"
    """What stands there instead: zero, the mean over all tokens of the texts, or the value at one drawn from them."""
    reference: str | None = None
    """A FILE of other texts to take means or tokens from."""
    top: int = 20
    """Places in the table."""

    def __post_init__(self) -> None:
        listed(self, "sites", None)
        listed(self, "by", AXES)
        at_least(self, top=1)
        check(self.wrong is None or self.answer is not None, "--wrong was given without --answer. Give both.")
        if self.answer is None:
            unused(self, NO_ANSWER, "first_token")
        if self.replace == "zero":
            unused(self, "replace zero reads none; mean and resample do", "reference")


@dataclass(frozen=True, kw_only=True, slots=True)
class Probing:
    """Read a label of each text off the model's activations with probes, beside the same with shuffled labels."""

    target: Target
    text_labels: str
    """A FILE of labelled texts: JSONL, JSON or CSV with `text`, `label`, and `group` for texts that stay together."""
    columns: str | None = None
    """Which columns of the file to read: "text=sentence, label=sentiment, group=author"."""
    limit: int | None = None
    """Take only so many texts of the file, the first."""
    around: Around = dataclasses.field(default_factory=Around)
    sites: str = "L*.resid_post"
    """Which activations: Sites or patterns, with commas between. Each Site has a probe of its own."""
    at: str = "last"
    """Which tokens are read: last, all, or positions with commas between, those from the end negative: "1, -1"."""
    hidden: int | None = None
    """Neurons of a hidden layer; by default there is none, and probes are linear."""
    test_share: float = 0.25
    """Share of the texts (or groups) that judge the probes, to which they are not fitted."""
    steps: int = 500
    """Steps of fitting, of up to 256 labels each."""
    weight_decay: float = 0.01
    """Of AdamW."""
    untrained: bool = False
    """Also probe the same model with weights drawn at random."""
    memory: float = 4.0
    """GiB of activations held at once; with less than they take, the texts are read several times."""

    def __post_init__(self) -> None:
        listed(self, "sites", None)
        at_least(self, limit=1, hidden=1, steps=1)
        check(0 < self.test_share < 1, f"--test-share must lie between 0 and 1, not {self.test_share}.")
        check(self.weight_decay >= 0, f"--weight-decay must be 0 at least, not {self.weight_decay}.")
        check(self.memory > 0, f"--memory must be positive, not {self.memory}.")
        positions_of(self.at)
        columns_of(self.columns, TEXT_COLUMNS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Heads:
    """Score every head on random repeated tokens: induction, previous-token and duplicate-token heads."""

    target: Target
    rows: int = 8
    """How many rows of random tokens."""
    span: int = 50
    """How many tokens a row has before they are repeated."""
    bos: bool = True
    """Begin each row with the beginning-of-sequence token, where the tokenizer has one."""
    top: int = 10
    """Heads of each kind in the table."""

    def __post_init__(self) -> None:
        at_least(self, rows=1, span=2, top=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Steer:
    """Add a direction from contrasting prompts, and see what the model then says, beside random directions."""

    target: Target
    positive: str
    """What to steer towards: a text, or a FILE of texts, one a line, or JSON."""
    negative: str
    """What to steer away from, likewise."""
    prompt: str
    """The prompt that the model goes on with."""
    around: Around = dataclasses.field(default_factory=Around)
    site: str = "L*.resid_pre"
    """Where the direction is read and added: one Site such as L15.resid_pre; by default the middle layer's."""
    at: Literal["last", "mean"] = "last"
    """Read it at the last token of each text, or as the mean over its tokens but the first."""
    strength: str = "1, 2, 4"
    """How many times it is added, with commas between: "-2, 2"."""
    words: str | None = None
    """Words whose probability as the next token is measured, with | between: " love| hate"."""
    null: int = 20
    """Random directions of the same norm, to compare with."""
    tokens: int = 40
    """How many tokens are generated."""

    def __post_init__(self) -> None:
        at_least(self, null=1, tokens=1)
        strengths_of(self.strength)
        if self.words is None:
            unused(self, "no words are named whose probability to compare", "null")


@dataclass(frozen=True, kw_only=True, slots=True)
class Generate:
    """Let a model go on with a prompt, as it is and under edits of its activations."""

    target: Target
    prompt: str
    """The prompt that the model goes on with."""
    around: Around = dataclasses.field(default_factory=Around)
    edits: str = ""
    """Edits with ; between: "zero L9.z[6]; scale 2 L15.resid_pre; add 4 vector.safetensors L15.resid_pre"."""
    tokens: int = 40
    """How many tokens are generated, the most likely each."""

    def __post_init__(self) -> None:
        at_least(self, tokens=1)


Question = Patch | Attribute | Trace | Circuit | Lens | Ablate | Probing | Heads | Steer | Generate
QUESTIONS: Mapping[str, type[Question]] = {
    "patch": Patch,
    "attribute": Attribute,
    "trace": Trace,
    "circuit": Circuit,
    "lens": Lens,
    "ablate": Ablate,
    "probe": Probing,
    "heads": Heads,
    "steer": Steer,
    "generate": Generate,
}
AXES = ("layer", "pos", "head", "unit", "query", "key")
ONCE = ("atp", "atp-qk", "relp")
"""Methods of attribution that make each score once, so that it need not be held."""
METRICS = ("logit-diff", "logit", "log-prob", "prob", "prob-diff", "kl", "rank")
NO_ANSWER = "no answer is named, of which to take the first token"


def modes_of(question: Patch | Attribute) -> tuple[Mode, ...]:
    """The directions that a question takes."""
    return tuple(mode for mode in MODES if question.mode in (mode, "both"))


def kind_of(question: Question) -> str:
    """The name of a question in `QUESTIONS`."""
    return questions.kind_of(question, QUESTIONS)


def stored(question: Question) -> dict[str, Any]:
    """The question as JSON's own types, one level deep, with its kind."""
    return questions.stored(question, QUESTIONS)


def read_question(config: Mapping[str, Any]) -> Question:
    """The question that `stored` gave, or that a user wrote. Raises BadConfig for unknown or missing choices."""
    return questions.read_question(config, QUESTIONS)


def strengths_of(text: str) -> tuple[float, ...]:
    """The numbers in a text with commas between."""
    try:
        found = tuple(float(part) for part in names(text))
    except ValueError:
        found = ()
    check(bool(found), f"--strength holds {text!r}. Write numbers with commas between, such as 1, 2, 4.")
    return found


def positions_of(text: str) -> str | list[int]:
    """Where texts are read: "last", "all", or the positions in a text with commas between."""
    if text in ("last", "all"):
        return text
    try:
        found = [int(part) for part in names(text)]
    except ValueError:
        found = []
    check(bool(found), f"--at holds {text!r}. Write last, all, or positions with commas between, such as 1, -1.")
    return found


PAIR_COLUMNS, TEXT_COLUMNS = ("clean", "corrupt", "answer", "wrong"), ("text", "label", "group")


def columns_of(text: str | None, ours: tuple[str, ...] = PAIR_COLUMNS) -> dict[str, str]:
    """The columns of a file in a text like "clean=prompt, answer=target", by the names that we give them."""
    found = dict[str, str]()
    for part in names(text or ""):
        own, equals, theirs = (side.strip() for side in part.partition("="))
        good = bool(equals and theirs) and own in ours
        known = f"{', '.join(f'{each}=' for each in ours[:-1])} or {ours[-1]}="
        check(good, f"--columns holds {part!r}. Write {known} and the name of a column.")
        found[own] = theirs
    return found
