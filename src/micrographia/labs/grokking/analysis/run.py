"""Take apart a network that someone else trained: read it, guess its task, find its split, then the lab's analysis.

Each guess is run on all pairs and told; where none is credible the analysis goes on and says so. Without a credible
split what needs it is left empty. The weights are kept in the Run, so that it stands on its own.
"""

import dataclasses
from pathlib import Path
from typing import Any

from torch import Tensor

from micrographia.core.claims import Run, judge_all
from micrographia.core.events import Note, Watch, silent
from micrographia.core.runtime import allowed_cores, generator, provenance, settings
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import RunFolder, load_run, new_run_path
from micrographia.labs.grokking.analysis.guess import Guess, Guesses, guess, sentence
from micrographia.labs.grokking.analysis.rest import settle
from micrographia.labs.grokking.analysis.source import Source, open_source
from micrographia.labs.grokking.analysis.split import Split, Wanted, find_split
from micrographia.labs.grokking.figures.network import of_network, tables
from micrographia.labs.grokking.figures.training import explorer
from micrographia.labs.grokking.measure import CLAIMS, measure
from micrographia.labs.grokking.network import Problem, tensors_of
from micrographia.labs.grokking.quantities import present_frequencies, used_frequencies
from micrographia.labs.grokking.run import opening, title
from micrographia.labs.grokking.task import SPLITS, make_pairs
from micrographia.labs.grokking.training_curves import training_curves
from micrographia.methods.phases import NAMES

LAB, PRESET = "grokking", "analysis"
SEED = 0  # of the random subspaces, null frequencies and samples of the analysis itself


def analyse(
    file: Path,
    *,
    out: Path | None = None,
    resume: bool = False,
    modulus: int | None = None,
    act: str | None = None,
    operation: str | None = None,
    split: str | None = None,
    train_fraction: float | None = None,
    seed: int | None = None,
    allow_pickle: bool = False,
    watch: Watch = silent,
) -> Run:
    """Analyse a Run, a snapshot or checkpoint of one, or a state dict; the rest is what the weights cannot say.

    `split`: "shuffle", "randperm", "none" or the path of a file; without it, `train_fraction` and `seed` together try
    the two known ways. Cost: guessing takes a few forwards over all pairs, the analysis as long as that of a run.
    Raises UserError, UnreadableWeights, PickleRefused, BadConfig, Corrupt, RunExists, RunLocked, CannotWrite.
    """
    threads = allowed_cores()
    with settings(threads):
        source = open_source(Path(file), act=act, allow_pickle=allow_pickle)
        for note in source.notes:
            watch(Note(note))
        known = source.config
        guesses = guess(
            source.ways,
            modulus=modulus or (known.modulus if known else None),
            operation=operation or (known.operation if known else None),
            generator=generator(SEED),
            watch=watch,
        )
        wanted = _wanted(Wanted(split, train_fraction, seed), source)
        found, tried = _split(guesses.best, wanted, source, allow_pickle, watch)
        guesses = settle(guesses, found.train if found else None, watch)
        watch(Note(sentence(guesses.best), "info" if guesses.best.credible else "warning"))
        config = _config(source, guesses.best, found, wanted)
        about = provenance(SEED, "cpu", config["dtype"], threads) | {"source": str(source.path.absolute())}
        place = out or new_run_path(LAB, config)
        with RunFolder.open(place, lab=LAB, preset=PRESET, config=config, provenance=about, resume=resume) as folder:
            if folder.status != "finished":
                with settings(folder.config["threads"]):
                    _take_apart(folder, source, guesses, found, tried, watch)
    return load_run(folder.path)


def _wanted(asked: Wanted, source: Source) -> Wanted:
    """What was asked of the split; where only a part was, the Run that the network is from says the rest."""
    known = source.config
    if known is None or asked == Wanted() or asked.split not in (None, *SPLITS):
        return asked
    return Wanted(
        asked.split or known.split,
        known.train_fraction if asked.train_fraction is None else asked.train_fraction,
        known.effective_split_seed if asked.seed is None else asked.seed,
    )


def _split(
    best: Guess, wanted: Wanted, source: Source, allow_pickle: bool, watch: Watch
) -> tuple[Split | None, list[Split]]:
    recorded = source.config
    same = recorded is not None and recorded.modulus == best.modulus
    known = make_pairs(recorded).train if recorded is not None and same else None
    return find_split(wanted, best.losses, aside=source.aside, known=known, allow_pickle=allow_pickle, watch=watch)


def _config(source: Source, best: Guess, split: Split | None, wanted: Wanted) -> dict[str, Any]:
    """What was found: no absolute path, and None for what is not known."""
    named = split is not None and split.name in SPLITS
    recorded = source.config if split is not None and split.known else None
    dtype = str(best.way.weights["embed.W_E"].dtype).removeprefix("torch.")
    return {
        "source": source.path.name,
        "sha256": source.sha256,
        "epoch": source.epoch,
        "layout": best.way.choices["layout"],
        "modulus": best.modulus,
        "operation": best.operation,
        "credible": best.credible,
        "split": recorded.split if recorded else split.name if split else None,
        "train_fraction": _fraction(
            split, recorded.train_fraction if recorded else wanted.train_fraction if named else None
        ),
        "seed": recorded.effective_split_seed if recorded else wanted.seed if named else None,
        **dataclasses.asdict(best.way.arch),
        "norm_weights": best.way.choices["norm"],
        "dtype": dtype,
        "device": "cpu",
        "threads": None,
    }


def _fraction(split: Split | None, said: float | None) -> float | None:
    return None if split is None else said or split.train.double().mean().item()


def _take_apart(
    folder: RunFolder, source: Source, guesses: Guesses, split: Split | None, tried: list[Split], watch: Watch
) -> None:
    best, epoch = guesses.best, source.epoch or 0
    arch, weights = best.way.arch, best.way.weights
    folder.save_snapshot(epoch, weights)
    problem = Problem(best.modulus, best.operation, split.train if split else None)
    network = tensors_of(Transformer(arch, weights), problem)
    frequencies = present_frequencies(network)
    ks = used_frequencies(network, frequencies)
    curves = training_curves(lambda epoch: network, [epoch], ks, watch)
    phases = dict.fromkeys(NAMES)  # one network has no training curve
    found, measures = measure(network, frequencies, phases=phases, generator=generator(SEED))
    results: dict[str, Any] = {
        "config": folder.config,
        "guesses": [{**each.as_json(), "chosen": each is best} for each in guesses.all],
        "splits": [each.as_json() for each in tried],
        **found,
        "title": title(best.operation, best.modulus),
        "summary": [sentence(best), *opening(found)],
    }
    claims = judge_all(CLAIMS, measures, preset=PRESET, config=folder.config)
    results["claims"] = [judged.as_json() for judged in claims]
    figures = [*tables(results), *of_network(network, ks, frequencies)]
    if best.operation != "polynomial":
        figures.append(explorer(curves, ks, {epoch: network}))
    folder.finish(results, claims, figures, _row(epoch, found["measures"], weights))


def _row(epoch: int, measures: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, list[float]]:
    """The one row of metrics that a finished network has."""
    squared = sum(weight.double().pow(2).sum().item() for weight in weights.values())
    columns = ("train_loss", "test_loss", "test_accuracy")
    return {"epoch": [epoch], **{name: [measures[name]] for name in columns}, "squared_weights": [squared]}
