"""Identify a foreign network: read its weights, guess its task, find its split, then the lab's analysis.

Each guess is run on all pairs and reported; where none is credible the analysis goes on, with a warning. Without a
credible split what needs it is left empty. The weights are kept in the Run, so that it stands on its own.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from micrographia.core.claims import Measured, Measures, Run
from micrographia.core.config import flat
from micrographia.core.events import Note, Watch, silent
from micrographia.core.figures import Figure, table
from micrographia.core.lab import Findings, run_in_folder
from micrographia.core.runtime import allowed_cores, generator, provenance, settings
from micrographia.core.small.transformer import Transformer
from micrographia.core.store import RunFolder
from micrographia.labs.grokking.config import paper
from micrographia.labs.grokking.figures.network import of_network, tables
from micrographia.labs.grokking.figures.training import explorer
from micrographia.labs.grokking.identify.activation import choose_activation
from micrographia.labs.grokking.identify.guess import Guess, Guesses, guess
from micrographia.labs.grokking.identify.source import Source, open_source
from micrographia.labs.grokking.identify.split import Split, SplitChoice, find_split
from micrographia.labs.grokking.identify.verdict import judge
from micrographia.labs.grokking.measure import CLAIMS, measure
from micrographia.labs.grokking.network import tensors_of
from micrographia.labs.grokking.quantities import present_frequencies, used_frequencies
from micrographia.labs.grokking.run import LAB, opening, title
from micrographia.labs.grokking.task import all_pairs
from micrographia.labs.grokking.training_curves import training_curves
from micrographia.methods.fourier.criterion import GENERALISES
from micrographia.methods.phases import NAMES

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
    """Analyse a Run, a snapshot or checkpoint of one, or a state dict; the rest is what the weights do not show.

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
        modulus = modulus or (known.modulus if known else None)
        operation = operation or (known.operation if known else None)
        draws = generator(SEED)
        guesses = guess(source.candidates, modulus=modulus, operation=operation, generator=draws, watch=watch)
        given, same = SplitChoice(split, train_fraction, seed), known and known.modulus == guesses.best.modulus
        found, tried = find_split(
            given, guesses.best.losses, extra=source.extra, recorded=source.recorded if same else None,
            allow_pickle=allow_pickle, watch=watch,
        )  # fmt: skip
        guesses = choose_activation(guesses, found.train if found else None, watch)
        verdict = judge(guesses, found.train if found else None)
        watch(Note(verdict.says, "warning" if verdict.doubted else "info"))
        config = _config(source, guesses.best, found.choice if found else SplitChoice(), doubted=verdict.doubted)
        about = provenance(SEED, "cpu", config["dtype"], threads) | {"source": str(source.path.absolute())}
        work = partial(_work, source, guesses, verdict.says, found, tried)
        place: dict[str, Any] = {"out": out, "resume": resume, "watch": watch}
        return run_in_folder(config, work, lab=LAB, preset="analysis", about=about, claims=CLAIMS, **place)


def _config(source: Source, best: Guess, split: SplitChoice, *, doubted: bool) -> dict[str, Any]:
    """What was found: no absolute path, and None for what is not known."""
    return {
        "source": source.path.name,
        "sha256": source.sha256,
        "epoch": source.epoch,
        "layout": best.candidate.choices["layout"],
        "modulus": best.modulus,
        "operation": best.operation,
        "row": best.task.row,
        "credible": best.credible,
        "doubted": doubted,
        **split._asdict(),
        **flat(best.candidate.arch),
        "norm_weights": best.candidate.choices["norm"],
        "dtype": str(best.candidate.weights["embed.W_E"].dtype).removeprefix("torch."),
        "device": "cpu",
        "threads": None,
    }


def _work(
    source: Source,
    guesses: Guesses,
    verdict: str,
    split: Split | None,
    tried: Sequence[Split],
    folder: RunFolder,
    watch: Watch,
) -> Findings:
    best, epoch = guesses.best, source.epoch or 0
    weights = best.candidate.weights
    folder.save_snapshot(epoch, weights)
    with settings(folder.config["threads"]):
        pairs = all_pairs(best.modulus, best.operation, split.train if split else None, best.last)
        network = tensors_of(Transformer(best.candidate.arch, weights), pairs)
        frequencies = present_frequencies(network)
        ks = used_frequencies(network, frequencies)
        curves = training_curves(lambda epoch: network, [epoch], ks, watch)
        phases: dict[str, Any] = dict.fromkeys(NAMES)  # one network has no training curve
        found, measures = measure(network, frequencies, phases=phases, generator=generator(SEED))
    results: dict[str, Any] = {
        "guesses": [{**each.as_json(), "chosen": each is best} for each in guesses.all],
        "splits": [each.as_json() for each in tried],
        **found,
        "title": title(best.operation, best.modulus),
    }
    figures = [*_identified(results), *tables(results), *of_network(network, ks, frequencies)]
    if best.operation != "polynomial":
        figures.append(explorer(curves, ks, {epoch: network}))
    columns = ("train_loss", "test_loss", "test_accuracy")
    squared = sum(weight.double().pow(2).sum().item() for weight in weights.values())
    row = {"epoch": [epoch], **{name: [found["measures"][name]] for name in columns}, "squared_weights": [squared]}
    measures = judgeable(measures, folder.config, found["measures"]["accuracy"])
    return Findings(results, figures, measures, row, opening=[verdict, *opening(found)])


def judgeable(measures: Measures, config: Mapping[str, Any], accuracy: float) -> dict[str, Measured]:
    """The figures with what the paper's claims cannot be judged by marked as not taken.

    Claims are about networks of the paper's problem and sizes that have learned it; and what the weights alone do not
    show, or the split that was not found, fails no claim.
    """
    known = flat(paper())
    names = ("modulus", "operation", *(name for name in flat(paper().network) if name in config))
    able = accuracy >= GENERALISES and all(config[name] == known[name] for name in names)
    return {name: each._replace(taken=able and _found(each.value)) for name, each in measures.items()}


def _found(value: Any) -> bool:
    return value is not None and value == value


def _identified(results: dict[str, Any]) -> list[Figure]:
    """The guesses and the splits that were tried."""
    chosen = [i for i, each in enumerate(results["guesses"]) if each["chosen"]]
    title = "What the network was trained on"
    figures = [
        table(
            "guesses", "Guesses of its task", results["guesses"], columns=GUESS_COLUMNS, highlight=chosen, group=title,
            caption="Accuracy of each reading of the weights and each operation, beside that of the best wrong guess.",
        )
    ]  # fmt: skip
    if results["splits"]:
        caption = f"Rank sum of the losses on the training pairs. {NULL}"
        figures.append(table("splits", "Splits that were tried", results["splits"], group=title, caption=caption))
    return figures


NULL = "A split that has nothing to do with the network gives z near 0; -4 or less is credible."
GUESS_COLUMNS = ("layout", "norm", "act", "operation", "accuracy", "baseline", "balance", "credible")
