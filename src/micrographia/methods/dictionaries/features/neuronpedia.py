"""A bundle as Neuronpedia's files for one layer, and back: batch-N.json, skipped_indexes.json, run_settings.json.

The field names are those that sae-dashboard 0.8.0 writes (`NeuronpediaRunner`); numbers have five digits, there three
decimals. What goes by another name than it says: `correlated_features_l1` holds cosines, `bin_contains` a share, and
`frac_nonzero` counts tokens that are left out, too; how many were not is in run_settings.json, which it does not read.
Its intervals are of equal width, ours hold equally many rows.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from micrographia.core.errors import BadBundle
from micrographia.core.store.atomic import new_folder, write_chunks
from micrographia.core.store.formats import plain
from micrographia.methods.dictionaries.features.bundle import BINS, Bundle
from micrographia.methods.dictionaries.features.head import FORMAT
from micrographia.methods.dictionaries.features.writing import refuse_existing, write_bundle

BATCH, SKIPPED, SETTINGS = "batch-{}.json", "skipped_indexes.json", "run_settings.json"
COUNTED = "n_tokens_counted"
LEFT_EMPTY = (
    "correlated_neurons_*", "correlated_features_l1", "logits_hist_data_*",
    "decoder_weights_dist", "vector",
)  # fmt: skip
"""What a bundle does not hold."""
DIGITS = 5
TOP = -1
"""What `bin_min` and `bin_contains` are of the passages of largest activation."""
HISTOGRAM = ("heights", "values")
MOST_LATENTS, MOST_TOKENS, MOST_PASSAGES = 2**24, 2**13, 2**10
"""Beyond these a file is taken for damaged: of a layer, of a passage, of a latent's group."""
UNKNOWN = "not in these files"
"""The label of a latent that the files neither describe nor skip."""


def export_neuronpedia(
    bundle: Bundle,
    folder: Path | str,
    *,
    model_id: str,
    layer: int,
    sae_set: str,
    sae_id_suffix: str | None = None,
    dataset: str = "",
    batch: int = 128,
) -> tuple[str, ...]:
    """Write the bundle's files for Neuronpedia into a new folder; gives the fields that stay empty.

    Dead latents are listed in skipped_indexes.json. Raises RunExists, CannotWrite, BadBundle.
    """
    folder = Path(folder).absolute()
    refuse_existing(folder)
    about, dead = bundle.about, bundle.index()["dead"]
    live = [latent for latent, is_dead in enumerate(dead) if not is_dead]
    here = {"model_id": model_id, "layer": layer, "sae_set": sae_set, "sae_id_suffix": sae_id_suffix}
    sizes = {"n_prompts_total": about["n_rows"], "n_tokens_in_prompt": bundle.n_ctx}
    skipped = {
        "model_id": model_id, "layer": str(layer), "sae_set": sae_set, "log_sparsity": -6,
        "skipped_indexes": [latent for latent, is_dead in enumerate(dead) if is_dead],
    }  # fmt: skip
    with new_folder(folder) as draft:
        for number, start in enumerate(range(0, len(live), batch)):
            pages = bundle.pages(live[start : start + batch])
            features = [_feature(page, {**sizes, "dataset": dataset}) for page in pages]
            write_chunks(draft / BATCH.format(number), [_json({**here, "features": features})])
        write_chunks(draft / SKIPPED, [_json(skipped)])
        write_chunks(
            draft / SETTINGS,
            [_json({**here, **sizes, "huggingface_dataset_path": dataset, COUNTED: about["n_tokens"]})],
        )
    return LEFT_EMPTY


def import_neuronpedia(source: Path | str, folder: Path | str, *, name: str = "") -> Bundle:
    """A bundle from a folder of such files, its own or sae-dashboard's; labels, rows and tokens' latents are not known.

    Reads the files twice, one at a time. Raises BadBundle for a folder without them, and for one that is not as it
    should be; RunExists, CannotWrite.
    """
    source, folder = Path(source), Path(folder).absolute()
    refuse_existing(folder)
    found = _surveyed(source)
    return write_bundle(folder, _pages(found), found.tokens, lambda: found.head(name or folder.name))


def _json(obj: Mapping[str, Any]) -> bytes:
    return json.dumps(plain(obj), allow_nan=False).encode()


def _feature(page: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    tokens = sizes["n_prompts_total"] * sizes["n_tokens_in_prompt"]
    logits, edges = page["logits"], page["histogram"]["edges"]
    middles = [(a + b) / 2 for a, b in pairwise(edges)]
    units, near = page["neurons"], page["correlated"]
    return {
        "feature_index": page["latent"],
        "neuron_alignment_indices": [unit for unit, _ in units],
        "neuron_alignment_values": _rounded(weight for _, weight in units),
        "neuron_alignment_l1": _rounded(abs(weight) / (page["decoder_l1"] or 1.0) for _, weight in units),
        "correlated_neurons_indices": [],
        "correlated_neurons_l1": [],
        "correlated_neurons_pearson": [],
        "correlated_features_indices": [latent for latent, _ in near],
        "correlated_features_l1": [],
        "correlated_features_pearson": _rounded(r for _, r in near),
        "neg_str": [text for text, _ in logits["negative"]],
        "neg_values": _rounded(value for _, value in logits["negative"]),
        "pos_str": [text for text, _ in logits["positive"]],
        "pos_values": _rounded(value for _, value in logits["positive"]),
        "frac_nonzero": page["n_fires"] / tokens,
        "freq_hist_data_bar_values": _rounded(middles),
        "freq_hist_data_bar_heights": page["histogram"]["counts"],
        "logits_hist_data_bar_heights": [],
        "logits_hist_data_bar_values": [],
        **sizes,
        "decoder_weights_dist": [],
        "activations": [each for group in page["groups"] for each in _activations(group, len(page["groups"]) - 1)],
        "vector": [],
    }


def _activations(group: Mapping[str, Any], n_quantiles: int) -> Iterator[dict[str, Any]]:
    peaks = [abs(each["values"][each["at"]]) for each in group["passages"]]
    is_top = group["name"] == "top"
    for each in group["passages"]:
        yield {
            "bin_min": TOP if is_top else _round(min(peaks)),
            "bin_max": _round(max(peaks)),
            "bin_contains": TOP if is_top else 1 / n_quantiles,
            "tokens": each["tokens"],
            "values": _rounded(each["values"]),
            "qualifying_token_index": each["at"],
        }


def _rounded(values: Any) -> list[float]:
    return [_round(each) for each in values]


def _round(value: Any) -> float:
    return float(f"{value:.{DIGITS}g}")


@dataclass(slots=True)
class _Survey:
    """What a first reading of all files tells: sizes and every token's text."""

    files: list[Path]
    skipped: frozenset[int]
    here: dict[str, Any]
    last: int = -1
    live: int = 0
    n_top: int = 1
    n_intervals: int = 0
    n_in_interval: int = 0
    before: int = 0
    after: int = 0
    prompts: int = 1
    n_ctx: int = 1
    counted: int | None = None
    n_latents: int = 0
    texts: dict[str, int] = field(default_factory=dict)

    @property
    def groups(self) -> list[tuple[str, int]]:
        n = self.n_intervals
        return [("top", self.n_top), *((f"interval {i} of {n}", self.n_in_interval) for i in range(1, n + 1))]

    @property
    def window(self) -> int:
        return self.before + 1 + self.after

    def add(self, feature: Mapping[str, Any]) -> None:
        index = feature["feature_index"]
        if not isinstance(index, int) or not self.last < index < MOST_LATENTS:
            raise ValueError(f"its latents should ascend, up to {MOST_LATENTS:,}; {index!r} follows {self.last}")
        self.last, self.live = index, self.live + 1
        for each in feature["activations"]:
            at, n = _at(each), len(each["tokens"])
            if not 0 <= at < n == len(each["values"]) <= MOST_TOKENS:
                raise ValueError(f"latent {index} has a passage of {n} tokens, {len(each['values'])} values, at {at}")
            self.before, self.after = max(self.before, at), max(self.after, n - at - 1)
        top, *intervals = _grouped(feature["activations"])
        self.n_top, self.n_intervals = max(self.n_top, len(top)), max(self.n_intervals, len(intervals))
        self.n_in_interval = max([self.n_in_interval, *map(len, intervals)])
        words = [*feature["pos_str"], *feature["neg_str"]]
        for text in (*words, *(text for each in feature["activations"] for text in each["tokens"])):
            self.texts.setdefault(_text(text), len(self.texts))
        self.prompts, self.n_ctx = feature["n_prompts_total"], max(int(feature["n_tokens_in_prompt"]), 1)
        if not isinstance(self.prompts, int) or self.prompts < 0:
            raise ValueError(f"latent {index} tells of {self.prompts!r} prompts")
        if not 0 <= float(feature["frac_nonzero"]) <= 1:
            raise ValueError(f"latent {index} fires on a share of {feature['frac_nonzero']} of tokens")
        if max(self.n_top, self.n_intervals, self.n_in_interval) > MOST_PASSAGES:
            raise ValueError(f"latent {index} has over {MOST_PASSAGES} passages of a group")

    def tokens(self) -> dict[str, Any]:
        n = len(self.texts)
        none = np.full((n, 1), -1, dtype=np.int32)
        return {
            "text": list(self.texts),
            "seen": np.zeros(n, np.int64),
            "latents": none,
            "means": np.zeros((n, 1), np.float32),
        }

    def head(self, name: str) -> dict[str, Any]:
        about = {
            "name": name,
            "model": str(self.here["model_id"]),
            "site": f"layer {self.here['layer']}, {self.here['sae_set']}",
            "n_latents": self.n_latents,
            "d_in": None,
            "n_tokens": self.counted or max(1, self.prompts * self.n_ctx),
            "n_rows": self.prompts,
            "dead": len(self.skipped),
            "format": FORMAT,
            "weights": None,
        }
        shape = {"n_ctx": self.n_ctx, "before": self.before, "window": self.window}
        return {"about": about, "groups": [list(each) for each in self.groups], **shape}


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(f"a token should be a text, not {text!r:.40}")
    return text.encode("utf-8", "replace").decode()


def _surveyed(source: Path) -> _Survey:
    numbered = {each: each.stem.removeprefix("batch-") for each in source.glob(BATCH.format("*"))}
    files = sorted((each for each, n in numbered.items() if n.isdecimal()), key=lambda each: int(numbered[each]))
    if not files:
        raise BadBundle(
            f"Asked for Neuronpedia's files in {source}, which holds no {BATCH.format(0)}. Give their folder."
        )
    skipped = _skipped(source / SKIPPED) if (source / SKIPPED).is_file() else frozenset()
    found = _Survey(files, skipped, {})
    for file in files:
        with _explained(file):
            for feature in _features(file, found):
                found.add(feature)
    found.n_latents = max(found.last, *skipped, 0) + 1
    if (source / SETTINGS).is_file():
        with _explained(source / SETTINGS):
            found.counted = _counted(_read(source / SETTINGS), found.prompts * found.n_ctx)
    return found


def _counted(settings: Mapping[str, Any], most: int) -> int | None:
    """How many tokens count, where the settings are of our own."""
    n = settings.get(COUNTED)
    if n is not None and (not isinstance(n, int) or not 0 < n <= most):
        raise ValueError(f"of {most:,} tokens it counts {n!r}")
    return n


def _skipped(file: Path) -> frozenset[int]:
    with _explained(file):
        listed = _read(file)["skipped_indexes"]
        if odd := [each for each in listed if not isinstance(each, int) or not 0 <= each < MOST_LATENTS]:
            raise ValueError(f"it skips latent {odd[0]!r}")
        return frozenset(listed)


def _features(file: Path, found: _Survey) -> Iterator[Mapping[str, Any]]:
    batch = _read(file)
    if not isinstance(batch.get("features"), list) or not {"model_id", "layer", "sae_set"} <= batch.keys():
        raise ValueError("it lacks model_id, layer, sae_set or features")
    found.here = {name: batch[name] for name in ("model_id", "layer", "sae_set")}
    yield from batch["features"]


def _read(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_bytes())
    if not isinstance(found, dict):
        raise TypeError(f"it holds a {type(found).__name__}")
    return found


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Turn what is wrong with a file into BadBundle."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadBundle(
            f"Cannot read {file} as a file of Neuronpedia: {type(error).__name__}: {error}. It was altered, cut short, "
            "or is of another version than sae-dashboard 0.8 writes. Get it again."
        ) from error


def _at(activation: Mapping[str, Any]) -> int:
    """The token that a passage is for. sae-dashboard, which leaves out the first token of each, calls that one -1."""
    return max(activation["qualifying_token_index"], 0)


def _grouped(activations: list[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Passages of the largest activations, then those of each interval, the highest first.

    Those in which the latent does not fire, with which sae-dashboard fills its groups, are left out.
    """
    found: dict[tuple[float, float, float], list[Mapping[str, Any]]] = {}
    for each in (one for one in activations if one["values"][_at(one)] != 0):
        key = tuple(float(each[name]) for name in ("bin_max", "bin_min", "bin_contains"))
        found.setdefault(key, []).append(each)  # pyright: ignore[reportArgumentType] (three of them)
    tops = [each for key, listed in found.items() if key[2] == TOP for each in listed]
    return [tops, *(found[key] for key in sorted(found, reverse=True) if key[2] != TOP)]


def _pages(found: _Survey) -> Iterator[dict[str, Any]]:
    """A part for each file; latents that no file describes are rows of zeros."""
    at, number = 0, 0
    for i, file in enumerate(found.files):
        with _explained(file):
            features = list(_features(file, found))
            end = (
                found.n_latents if i == len(found.files) - 1 else features[-1]["feature_index"] + 1 if features else at
            )
            part = _empty(found, range(at, end))
            for feature in features:
                number = _fill(part, feature["feature_index"] - at, feature, found, number)
        if end > at:
            yield part
        at = end


def _empty(found: _Survey, latents: range) -> dict[str, Any]:
    n, n_passages = len(latents), sum(size for _, size in found.groups)
    places = lambda width: np.full((n, width), -1, dtype=np.int32)  # noqa: E731
    zeros = lambda width: np.zeros((n, width), dtype=np.float32)  # noqa: E731
    unknown = np.full(n, np.nan, dtype=np.float32)
    told = ("raised", "raised_by"), ("lowered", "lowered_by"), ("correlated", "correlations"), ("neurons", "weights")
    return {
        "n_fires": np.zeros(n, np.int64),
        "max": np.zeros(n, np.float32),
        "histogram": np.zeros((n, BINS), np.int32),
        **{name: places(10) for name, _ in told},
        **{name: zeros(10) for _, name in told},
        **{"neighbours": places(1), "cosines": zeros(1), "decoder_l1": np.zeros(n, np.float32)},
        "places": np.full((n, n_passages), -1, dtype=np.int64),
        **{"ids": places(n_passages * found.window), "values": zeros(n_passages * found.window)},
        **{"label": ["" if i in found.skipped else UNKNOWN for i in latents], "label_kind": [""] * n},
        **dict.fromkeys(("precision", "recall", "accuracy"), unknown),
    }


def _fill(part: dict[str, Any], i: int, feature: Mapping[str, Any], found: _Survey, number: int) -> int:
    """One latent's row; passages are numbered from `number` on in place of their rows, which are not known."""
    part["label"][i] = ""
    for name, by, words, values in (
        ("raised", "raised_by", "pos_str", "pos_values"),
        ("lowered", "lowered_by", "neg_str", "neg_values"),
    ):
        _put(part, i, name, by, [found.texts[_text(each)] for each in feature[words]], feature[values])
    pearson = feature["correlated_features_indices"], feature["correlated_features_pearson"]
    if beyond := [other for other in pearson[0] if not 0 <= other < found.n_latents]:
        raise ValueError(
            f"latent {feature['feature_index']} has the neighbour {beyond[0]} of {found.n_latents} latents"
        )
    _put(part, i, "correlated", "correlations", *pearson)
    _put(part, i, "neurons", "weights", feature["neuron_alignment_indices"], feature["neuron_alignment_values"])
    passage = 0
    for (_, size), listed in zip(found.groups, [*_grouped(feature["activations"]), *[[]] * len(found.groups)]):
        for j, each in enumerate(listed):
            at, n = _at(each), len(each["tokens"])
            start = (passage + j) * found.window + found.before - at
            part["ids"][i, start : start + n] = [found.texts[_text(text)] for text in each["tokens"]]
            part["values"][i, start : start + n] = np.nan_to_num(np.asarray(each["values"], dtype=np.float32))
            part["places"][i, passage + j] = number * found.n_ctx + min(at, found.n_ctx - 1)
            number += 1
        passage += size
    values = part["values"][i]
    part["max"][i] = np.abs(values).max(initial=0.0)
    part["n_fires"][i] = max(round(float(feature["frac_nonzero"]) * found.prompts * found.n_ctx), int(values.any()))
    heights, middles = (np.asarray(feature[f"freq_hist_data_bar_{name}"], dtype=np.float64) for name in HISTOGRAM)
    if not (np.isfinite(middles).all() and (heights >= 0).all() and heights.sum() < 2**31):
        raise ValueError(f"latent {feature['feature_index']} has a histogram that counts no activations")
    if part["max"][i] > 0 and len(heights):  # bars of theirs go where their middles fall
        bins = (middles / part["max"][i] * BINS).clip(0, BINS - 1).astype(int)
        np.add.at(part["histogram"][i], bins, heights.astype(np.int32))
    return number


def _put(part: dict[str, Any], i: int, name: str, by: str, places: list[int], values: list[float | None]) -> None:
    """Places with a value each; without those of NaN, which is said of what is constant."""
    known = [(at, value) for at, value in zip(places, values) if value is not None and math.isfinite(value)]
    for j, (at, value) in enumerate(known[: part[name].shape[1]]):
        part[name][i, j], part[by][i, j] = at, value
