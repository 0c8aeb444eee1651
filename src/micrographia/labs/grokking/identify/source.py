"""The network that `analyse` is given: one of our Runs, a snapshot or checkpoint in one, or a foreign file.

Of our own Runs the config is known and nothing needs guessing. A foreign state dict may be read in several ways; all
that fit are candidates.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from micrographia.core.claims import Run
from micrographia.core.config import flat, with_fields
from micrographia.core.errors import BadConfig, UnreadableWeights
from micrographia.core.small.architecture import Architecture
from micrographia.core.small.trained import read_inside, run_around, weights_file
from micrographia.core.state_dicts.foreign import Candidate, candidates, variants
from micrographia.core.state_dicts.read import read_state_dict
from micrographia.labs.grokking.config import Config, paper
from micrographia.labs.grokking.identify.split import SplitChoice
from micrographia.labs.grokking.task import architecture

OURS = "a Run of ours"


class Source(NamedTuple):
    """A file of weights with its readings; of one of our Runs `config`, `recorded` and `epoch` too.

    `recorded` is the split of that Run; `extra` all that the file holds, as it is named there.
    """

    path: Path
    sha256: str
    candidates: list[Candidate]
    notes: tuple[str, ...] = ()
    config: Config | None = None
    recorded: SplitChoice | None = None
    epoch: int | None = None
    extra: Mapping[str, Any] = {}


def open_source(path: Path, *, act: str | None = None, allow_pickle: bool = False) -> Source:
    """Read the network at `path`; `act` limits the candidates to those with this activation.

    Raises UserError, Corrupt, PickleRefused, BadConfig, and UnreadableWeights naming what was found and expected.
    """
    file = weights_file(path)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    run = run_around(file)
    if run and run.lab == "grokking" and run.config.keys() == flat(paper()).keys():  # a Run of one network
        return _own(file, sha256, run, act)
    content = read_state_dict(file, allow_pickle=allow_pickle)
    found = candidates(content.tensors)
    notes = (*content.notes, *dict.fromkeys(note for each in found for note in each.notes))
    every = [variant for each in found for variant in variants(each, act=act)]
    return Source(file, sha256, every, notes, extra={**content.aside, **content.tensors})


def _own(file: Path, sha256: str, run: Run, act: str | None) -> Source:
    config = with_fields(paper(), **run.config)
    arch = architecture(config)
    weights, epoch = read_inside(file, run, arch)
    arch = arch if act is None else _with_act(arch, act)
    candidate = Candidate(arch, weights, {"layout": OURS, "norm": arch.norm, "act": arch.act})
    notes = (f"Reads epoch {epoch:,} of the Run {run.path.name} ({run.status}).",)
    recorded = SplitChoice(config.split, config.train_fraction, config.effective_split_seed)
    return Source(file, sha256, [candidate], notes, config, recorded, epoch)


def _with_act(arch: Architecture, act: str) -> Architecture:
    if (act == "swiglu") != (arch.act == "swiglu"):
        raise BadConfig(
            f"Asked for the activation {act!r}. The weights are of a network with {arch.act}. Leave it out."
        )
    return replace(arch, act=act)


class RowFormat(NamedTuple):
    """The modulus p, and the tokens that follow a and b in a row: "=", or none."""

    modulus: int
    last: tuple[int, ...]

    @property
    def row(self) -> str:
        return "a b =" if self.last else "a b"


def tasks_of(arch: Architecture, given: int | None = None) -> list[RowFormat]:
    """The moduli and rows that the widths of embedding and unembedding allow, the usual one first.

    Rows of a, b and "=" have p + 1 tokens, rows of a and b p of them, or p + 1 of which one is not used; of either p or
    p + 1 are answers. An MLP over the concatenated operands does not read the last token, which need not exist.
    Raises UnreadableWeights where the widths contradict each other or the modulus given.
    """
    tokens, answers = arch.d_vocab, arch.d_vocab_out
    threes = [p for p in (_moduli(given, tokens - 1) if arch.n_ctx >= 3 and arch.attention else []) if p < tokens]
    short = arch.n_ctx == 2 or arch.positions == "rotary" if arch.attention else arch.n_ctx == 3
    twos = [p for p in (_moduli(given, tokens, tokens - 1) if short else []) if p <= tokens]
    found = [RowFormat(p, (p,)) for p in threes]
    found += [RowFormat(p, () if arch.attention else (min(p, tokens - 1),)) for p in twos]
    enough = [x for x in found if x.modulus >= 3 and 0 <= answers - x.modulus <= (1 if given is None else answers)]
    if enough:
        return enough
    asked = "the modulus, from the widths" if given is None else f"modulus {given}"
    raise UnreadableWeights(
        f"Asked for {asked}. It needs rows of three tokens (a, b and '=') and p + 1 tokens, or rows of two and p "
        f"tokens, and p or p + 1 answers. Found: a row has {arch.n_ctx} tokens, the embedding reads {tokens} "
        f"tokens, the unembedding has {answers} answers. "
        f"{'Give it with --modulus' if given is None else 'Leave --modulus out'}."
    )


def _moduli(given: int | None, *possible: int) -> list[int]:
    return list(possible) if given is None else [given]
