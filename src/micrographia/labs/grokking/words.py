"""What a network turned out to do, in plain sentences. Nothing is claimed that the numbers beside it do not show."""

import math
from collections.abc import Mapping
from typing import Any

GENERALISES = 0.99  # share of unseen (or of all) pairs that must be right to say so
MEMORISES = 0.99


TOO_SHORT = "The preset tiny checks the installation and is too short to grok; take quick to see it."


def summary(results: Mapping[str, Any], *, preset: str = "") -> list[str]:
    """A sentence each on performance, frequencies, algorithm and phases. `preset`: what the run was made with."""
    test = results["measures"]["test_accuracy"]
    short = preset == "tiny" and (_unknown(test) or test < GENERALISES)
    sentences = [_performance(results["measures"]), *_frequencies(results), *_algorithm(results)]
    return [*([TOO_SHORT] if short else []), *sentences, *_phases(results.get("phases") or {})]


def _performance(m: Mapping[str, Any]) -> str:
    train, test, everywhere = m["train_accuracy"], m["test_accuracy"], m["accuracy"]
    if _unknown(test):
        return f"It answers {everywhere:.1%} of all pairs; which pairs it was trained on is not known."
    if test >= GENERALISES:
        return f"It generalises: {test:.2%} of the pairs it never saw are right (test loss {m['test_loss']:.2g} nats)."
    if train >= MEMORISES:
        return f"It only memorised: {train:.1%} of the training pairs are right, but {test:.1%} of the others."
    return f"It has not learned the task: {train:.1%} of the training pairs are right, {test:.1%} of the others."


def _frequencies(results: Mapping[str, Any]) -> list[str]:
    keys, overtones = results["key_frequencies"], results["overtones"]
    n = results["measures"]["n"]
    if results["config"].get("operation") == "polynomial":
        return ["For this operation no characters are known, so no Fourier circuit was looked for."]
    if not results["present"]:
        return [f"No frequency of {n // 2} stands out of the null: no Fourier circuit was found."]
    found = []
    if keys:
        found.append(f"Its key frequenc{'ies are' if len(keys) > 1 else 'y is'} {_list(keys)} of {n // 2}.")
    elif results["measures"].get("neurons_clustered") is None:
        found.append(
            f"The frequencies {_list(results['present'])} are present; without neurons none can be called key."
        )
    else:
        found.append(
            f"The frequencies {_list(results['present'])} are present, but no neurons of their own carry them."
        )
    if overtones:
        are = f"ies {_list(overtones)} are overtones" if len(overtones) > 1 else f"y {overtones[0]} is an overtone"
        found.append(f"The frequenc{are}, carried by neurons of others.")
    return found


def _algorithm(results: Mapping[str, Any]) -> list[str]:
    m = results["measures"]
    if m.get("trig_loss") is None or math.isnan(m["trig_loss"]):
        return []  # no set of frequencies that could be run
    share, trig, loss, uniform = m["logit_variance_explained"], m["trig_loss"], m["loss"], math.log(m["n"])
    said = [f"The cosines cos(w_k(a+b-c)) of these frequencies are {share:.1%} of the variance of its logits."]
    if trig < loss:
        said.append(f"Alone they do the task better than the network: loss {trig:.2g} against {loss:.2g} nats.")
    elif trig < uniform / 10:
        said.append(f"Alone they do the task, worse than the network: loss {trig:.2g} against {loss:.2g} nats.")
    else:
        said.append(f"Alone they do not do the task: loss {trig:.2g} nats (a uniform guess has {uniform:.2f}).")
    return said


def _phases(phases: Mapping[str, Any]) -> list[str]:
    if not phases:
        return []
    names = {
        "memorised": "memorisation ended",
        "circuit": "the circuit began to show (restricted loss fell)",
        "cleanup": "test loss fell",
        "settled": "the weights settled",
    }
    known = [f"{text} at epoch {phases[name]:,.0f}" for name, text in names.items() if phases.get(name) is not None]
    missing = [text for name, text in names.items() if phases.get(name) is None]
    said = [_sentence("; ".join(known))] if known else []
    return said + ([_sentence("Not seen within this run: " + "; ".join(missing))] if missing else [])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _list(ks: list[int]) -> str:
    return ", ".join(map(str, ks[:-1])) + f" and {ks[-1]}" if len(ks) > 1 else str(ks[0])


def _unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)
