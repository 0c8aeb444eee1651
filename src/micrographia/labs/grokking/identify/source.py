"""The network that `analyse` is given: one of our Runs, a snapshot or checkpoint in one, or a foreign file.

Of our own Runs the config is known and nothing needs guessing. A foreign state dict may be read in several ways; all
that fit are candidates.
"""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from micrographia.core.claims import Run
from micrographia.core.config import flat, with_fields
from micrographia.core.errors import BadConfig, Corrupt, RunNotFound, UnreadableWeights, UserError
from micrographia.core.small.architecture import Architecture
from micrographia.core.state_dicts.foreign import Candidate, candidates, variants
from micrographia.core.state_dicts.read import read_state_dict
from micrographia.core.store import find_run, load_run, read_tensors, verify
from micrographia.core.store.checkpoints import snapshots
from micrographia.core.training import Layout
from micrographia.labs.grokking.config import Config, paper
from micrographia.labs.grokking.identify.split import SplitChoice
from micrographia.labs.grokking.task import architecture

OURS = "a Run of ours"
STATE = "state.safetensors"


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
    file = _weights_file(path)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    run = _run_around(file)
    if run and run.lab == "grokking" and run.config.keys() == flat(paper()).keys():  # a Run of one network
        return _own(file, sha256, run, act)
    content = read_state_dict(file, allow_pickle=allow_pickle)
    found = candidates(content.tensors)
    notes = (*content.notes, *dict.fromkeys(note for each in found for note in each.notes))
    every = [variant for each in found for variant in variants(each, act=act)]
    return Source(file, sha256, every, notes, extra={**content.aside, **content.tensors})


def _weights_file(path: Path) -> Path:
    """The file of weights: of a Run (folder or name) the newest snapshot, of a checkpoint its state."""
    if path.is_file():
        return path
    if (path / STATE).is_file():
        return path / STATE
    kept = snapshots(path)
    if kept:
        return kept[max(kept)]
    if not path.exists():
        with suppress(RunNotFound):
            return _weights_file(find_run(path))
    found = "a folder without snapshots" if path.is_dir() else "nothing there"
    raise UserError(
        f"Asked to analyse {path}. Found {found}. Give a file of weights, a Run of one network, or a snapshot in one."
    )


def _run_around(file: Path) -> Run | None:
    """The Run of ours that a snapshot or a checkpoint's state lies in."""
    place = file.absolute().parent
    root = place.parent if place.name == "snapshots" else place.parents[1] if file.name == STATE else None
    return load_run(root) if root is not None and (root / "run.json").is_file() else None


def _own(file: Path, sha256: str, run: Run, act: str | None) -> Source:
    inside = file.absolute().relative_to(run.path).as_posix()
    damage = [problem for problem in verify(run.path) if problem.file == inside]
    if damage:
        raise Corrupt(f"Asked to analyse {inside} of {run.path}. It is {damage[0].what}. Choose another snapshot.")
    config = with_fields(paper(), **run.config)
    arch, weights, epoch = architecture(config), read_tensors(file), file.stem
    if file.name == STATE:
        weights, epoch = Layout(arch.weight_shapes()).member(weights["weights"], 0), file.absolute().parent.name
    arch = arch if act is None else _with_act(arch, act)
    candidate = Candidate(arch, weights, {"layout": OURS, "norm": arch.norm, "act": arch.act})
    notes = (f"Reads epoch {int(epoch):,} of the Run {run.path.name} ({run.status}).",)
    recorded = SplitChoice(config.split, config.train_fraction, config.effective_split_seed)
    return Source(file, sha256, [candidate], notes, config, recorded, int(epoch))


def _with_act(arch: Architecture, act: str) -> Architecture:
    if (act == "swiglu") != (arch.act == "swiglu"):
        raise BadConfig(
            f"Asked for the activation {act!r}. The weights are of a network with {arch.act}. Leave it out."
        )
    return replace(arch, act=act)


def modulus_of(arch: Architecture, given: int | None = None) -> int:
    """p, from the widths of embedding and unembedding together: p + 1 tokens in, p or p + 1 answers out.

    Raises UnreadableWeights where the widths contradict each other or the modulus given, and for a network that does
    not read rows of three tokens.
    """
    p = arch.d_vocab - 1 if given is None else given
    answers = arch.d_vocab_out in (p, p + 1) if given is None else arch.d_vocab_out >= p and arch.d_vocab > p
    rows = arch.n_ctx == 3 or (arch.n_ctx > 3 and arch.attention)
    if p >= 3 and answers and rows:
        return p
    asked = "the modulus, from the widths" if given is None else f"modulus {given}"
    raise UnreadableWeights(
        f"Asked for {asked}. It needs rows of three tokens (a, b and '='), p + 1 tokens and p or p + 1 answers. Found: "
        f"a row has {arch.n_ctx} tokens, the embedding reads {arch.d_vocab} tokens, the unembedding has "
        f"{arch.d_vocab_out} answers. {'Give it with --modulus' if given is None else 'Leave --modulus out'}."
    )
