"""The reversal curse on a pretrained model: teach it invented facts in one direction, ask in both, before and after.

The training is a Run of its own within this one, with checkpoints, and goes on where it was stopped. Facts that were
told both ways are the positive control, the same tests before training and random completions the nulls.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from micrographia.core import figures
from micrographia.core.claims import Measured
from micrographia.core.errors import UserError
from micrographia.core.events import Watch, renamed, silent
from micrographia.core.figures import Figure
from micrographia.core.lab import Findings, run_lab
from micrographia.core.load import load_any
from micrographia.core.pretrained.model import Pretrained
from micrographia.core.pretrained.upper_layers import Learned, UpperLayers, learned_texts
from micrographia.core.reversal_files import ReversalData, read_reversal
from micrographia.core.runtime import batch_generator
from micrographia.core.store import RunFolder, read_tensors, snapshots
from micrographia.core.train_loop import Record, train_recorded
from micrographia.core.training import AdamW, State
from micrographia.labs.reversal.finetune.ask import MARGIN_NATS, DirectionAnswers, answer, ask_of, drawn_tests
from micrographia.labs.reversal.finetune.config import FineTuning
from micrographia.labs.reversal.finetune.invented import invented

LAB = "reversal"
INNER = "fine-tuned"
GROUP = "On a real model"


class Before(NamedTuple):
    """The same tests before training and after."""

    before: DirectionAnswers
    after: DirectionAnswers


def study(config: FineTuning, folder: RunFolder, watch: Watch = silent) -> Findings:
    """Fine-tune the last layers of the model and ask for the facts in both directions.

    Raises what loading does; UserError for a model that cannot be trained here; BadConfig and BadPrompt for the facts.
    """
    data = data_of(config)
    upper = upper_layers(config, watch)
    asked = [
        ask_of(upper, each, others=config.others, seed=config.seed, watch=renamed(watch, "tests, layers below"))
        for each in drawn_tests(data, config.asked, config.seed)
    ]
    before = [answer(upper, each, watch) for each in asked]

    def work(here: FineTuning, inner: RunFolder, watch: Watch) -> Findings:
        return _train(here, inner, watch, upper, data)

    done = run_lab(config, work, lab=LAB, preset=INNER, out=folder.path / INNER, resume=True, watch=watch)
    kept = snapshots(done.path)
    trained = read_tensors(kept[max(kept)])
    upper.use(upper.layout.pack([{name: weight.to(upper.model.device) for name, weight in trained.items()}]))
    found = [Before(*pair) for pair in zip(before, (answer(upper, each, watch) for each in asked), strict=True)]
    training = (done.results or {}).get("training", {})
    title = f"{config.model}, told facts in one direction and asked in both"
    results = {"title": title, "rows": [row(each) for each in found], "training": training}
    return Findings(results, pictures(config, found), measures(found), {}, opening(config, found))


def data_of(config: FineTuning) -> ReversalData:
    """The published statements in a folder, or invented ones."""
    return read_reversal(Path(config.data)) if config.data else invented(config.facts, config.wordings, config.seed)


def upper_layers(config: FineTuning, watch: Watch = silent) -> UpperLayers:
    """The model's last layers. Raises UserError for one of our small transformers."""
    model = load_any(config.model, dtype="float32", device=config.device, watch=watch)
    if not isinstance(model, Pretrained):
        raise UserError(f"Asked to fine-tune {config.model}, which is no pretrained model. Give one of Hugging Face's.")
    return UpperLayers.of(model, config.first_layer)


def _train(config: FineTuning, folder: RunFolder, watch: Watch, upper: UpperLayers, data: ReversalData) -> Findings:
    texts = learned_texts(upper.model, [each for arm in data.train.values() for each in arm])
    entering = upper.entering(texts, renamed(watch, "statements, layers below"))
    record = Record(
        steps=config.tune_steps,
        loss="loss_nats",
        measured=(),
        measure=_nothing,
        measure_every=config.tune_steps,
        checkpoint_every=max(1, config.tune_steps // 8),
        snapshots=(config.tune_steps,),
        shown={"loss": "loss_nats"},
        advice="Lower tune_lr.",
    )
    objective = upper.objective(texts, entering, lambda step: rows_of_step(config, len(texts.ids), step))
    adam = AdamW(lr=config.tune_lr, weight_decay=0.0, beta2=0.98, warmup=20, end=config.tune_steps)
    rows = train_recorded(
        record, folder, arch=upper, fresh=upper.weights, objective=objective, optimiser=adam,
        device=str(upper.model.device), watch=renamed(watch, "fine-tune"),
    )  # fmt: skip
    return Findings({"training": cost(config, upper, texts)}, [], metrics=rows)


def _nothing(state: State) -> Mapping[str, float]:
    return {}


def rows_of_step(config: FineTuning, n_rows: int, step: int) -> Int[Tensor, "row"]:
    """The statements of a step: every one once an epoch, in an order of the epoch's own."""
    at = step * config.tune_batch + torch.arange(config.tune_batch)
    epochs = (at // n_rows).unique().tolist()
    orders = {epoch: torch.randperm(n_rows, generator=batch_generator(config.seed, epoch)) for epoch in epochs}
    return torch.stack([orders[int(i) // n_rows][int(i) % n_rows] for i in at])


def cost(config: FineTuning, upper: UpperLayers, texts: Learned) -> dict[str, float]:
    """What the training took, by count."""
    share = config.tune_steps * config.tune_batch / len(texts.ids)
    n_tokens, n_learned = int(texts.mask.sum()), int(texts.learned.sum())
    return {
        "statements": len(texts.ids),
        "tokens": n_tokens,
        "epochs": share,
        "trained_weights": upper.weights().numel(),
        "petaflops": share * upper.flops(n_tokens, n_learned) / 1e15,
    }


def row(each: Before) -> dict[str, Any]:
    """A line of the table."""
    asked, after, tests = each.after.asked.tests, each.after, each.after.compared
    return {
        "arm": asked.arm,
        "asked": asked.direction,
        "trained": "yes" if asked.trained else "no",
        "facts": len(after.right),
        "chosen": after.chosen.estimate,
        "chosen_low": after.chosen.low,
        "chosen_high": after.chosen.high,
        "chance": after.chance,
        "exact": after.exact.estimate,
        "before": each.before.chosen.estimate,
        "difference_nats": tests.difference,
        "low": tests.low,
        "high": tests.high,
        "before_nats": each.before.compared.difference,
        "t_p": tests.t_p,
        "ks_p": tests.ks_p,
        "equivalence_p": tests.equivalence_p,
        "least_margin": tests.least_margin,
    }


COLUMNS = {
    "arm": "told", "asked": "asked", "trained": "trained this way", "facts": "facts", "chosen": "right one likeliest",
    "chosen_low": "from", "chosen_high": "to", "chance": "chance", "before": "before training",
    "exact": "word for word", "difference_nats": "log p, own prompt less others", "low": "from ", "high": "to ",
    "before_nats": "before", "t_p": "p (t)", "ks_p": "p (KS)", "equivalence_p": f"p (beyond {MARGIN_NATS} nat)",
    "least_margin": "equal within",
}  # fmt: skip


def measures(found: list[Before]) -> dict[str, Measured]:
    """Figures for the claims, each beside what it was before training."""
    taught = _one_way(found, trained=True)
    against = _one_way(found, trained=False)
    both = [each for each in found if each.after.asked.tests.arm == "both"]
    return {
        "real-forward": Measured(_mean(taught, "after"), _mean(taught, "before")),
        "real-reverse": Measured(_mean(against, "after"), _mean(against, "before")),
        "real-both-ways": Measured(_mean(both, "after"), _mean(both, "before")),
        "real-equal": Measured(
            all(each.after.compared.equivalent for each in against) if against else None,
            all(each.before.compared.equivalent for each in against) if against else None,
        ),
    }


def _one_way(found: list[Before], *, trained: bool) -> list[Before]:
    return [
        each for each in found if each.after.asked.tests.arm != "both" and each.after.asked.tests.trained == trained
    ]


def _mean(found: list[Before], when: str) -> float | None:
    values = [getattr(each, when).compared.difference for each in found]
    return float(np.mean(values)) if values else None


def pictures(config: FineTuning, found: list[Before]) -> list[Figure]:
    """The table, and what a completion gains by its own prompt."""
    names = [f"{each.after.asked.tests.arm}, {each.after.asked.tests.direction}" for each in found]
    tests = [each.after.compared for each in found]
    return [
        figures.table(
            "real-directions", f"{config.model} after being told invented facts", [row(each) for each in found],
            columns=COLUMNS, group=GROUP, headline=True, caption="p2d: told from person to description; d2p: back; "
            "both: both ways. A test asks in words that training did not use. Chance: as many options.",
            source="Berglund et al. 2023, table 1 and figure 4",
        ),
        figures.bars(
            "real-log-probs", "What a completion gains after its own prompt", [each.difference for each in tests],
            names=names, low=[each.low for each in tests], high=[each.high for each in tests], y_label="nats",
            group=GROUP, source="Berglund et al. 2023, figure 4",
            caption="Mean over facts with its 95 % interval. Near zero: the model does not tell them apart.",
        ),
    ]  # fmt: skip


def opening(config: FineTuning, found: list[Before]) -> list[str]:
    """What was found, in words."""
    lines = [
        f"{config.model}, layers {config.first_layer} and above trained for {config.tune_steps} steps on "
        f"{'statements of ' + config.data if config.data else 'invented people'}; the layers below are frozen."
    ]
    for each in found:
        asked, after, tests = each.after.asked.tests, each.after, each.after.compared
        way = "as trained" if asked.trained else "against the training"
        equal = "equal" if tests.equivalent else "not shown to be equal"
        lines.append(
            f"Told {asked.arm}, asked {asked.direction} ({way}): the right one is likeliest in "
            f"{after.chosen.estimate:.0%} (chance {after.chance:.0%}), and {tests.difference:+.2f} nats "
            f"({tests.low:+.2f} to {tests.high:+.2f}) above what it is after other prompts; p of t {tests.t_p:.2g}, "
            f"{equal} within {MARGIN_NATS} nat."
        )
    return lines
