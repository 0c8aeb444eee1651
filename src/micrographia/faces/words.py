"""Numbers, names and verdicts as words, alike in terminal, report and notebook.

Numbers keep three or four figures: what is shown is for reading, the exact value stands in the Run's files.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = "–"


def value(thing: Any) -> str:
    """Any value of a table cell: numbers shortened, lists joined, None and NaN as a dash."""
    if thing is None:
        return NOTHING
    if isinstance(thing, bool):
        return "yes" if thing else "no"
    if isinstance(thing, str):
        return thing
    if isinstance(thing, Mapping) and is_interval(thing):
        return interval(thing)
    if isinstance(thing, Mapping):
        return ", ".join(f"{name(key)} {value(inner)}" for key, inner in thing.items()) or NOTHING
    if isinstance(thing, Sequence):
        return ", ".join(value(inner) for inner in thing) or "none"
    return number(thing)


MIDDLES = ("median", "mean", "estimate", "value")


def is_interval(thing: Mapping[str, Any]) -> bool:
    """A figure with its uncertainty: `low`, `high`, and a middle or a count."""
    return {"low", "high"} <= thing.keys() and ("count" in thing or any(key in thing for key in MIDDLES))


def interval(thing: Mapping[str, Any]) -> str:
    """ "550 (500 to 625)", "3 of 4"; what never happened is said."""
    if "count" in thing:
        return f"{number(thing['count'])} of {value(thing.get('of'))}"
    middle = value(next(thing[key] for key in MIDDLES if key in thing))
    never = f", {number(thing['never'])} never" if thing.get("never") else ""
    if middle == NOTHING:
        return f"{middle}{never}"
    return f"{middle} ({value(thing['low'])} to {value(thing['high'])}){never}"


def number(x: float) -> str:
    """1,200; 0.9712; 1.3e-06 becomes 1.3e-6; a dash for NaN.

    >>> [number(x) for x in (1200, 0.97123, 1.3e-6, 24.31)]
    ['1,200', '0.9712', '1.3e-6', '24.31']
    """
    if math.isnan(x):
        return NOTHING
    if math.isinf(x):
        return "∞" if x > 0 else "-∞"
    if x == int(x) and abs(x) < 1e9:
        return f"{int(x):,}"
    if 1e-3 <= abs(x) < 1e5:
        return f"{x:.4g}"
    mantissa, exponent = f"{x:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def name(key: Any) -> str:
    """A field's name as words: `test_loss` is "test loss"; names of tensors stay.

    >>> name("test_loss"), name("gini_W_E"), name("p_value"), name("blocks.0.attn.W_K")
    ('test loss', 'gini W_E', 'p value', 'blocks.0.attn.W_K')
    """
    if "." in str(key):  # a tensor's address
        return str(key)
    words = str(key).split("_")
    joined = words[:1]
    for word in words[1:]:
        tensor = len(word) == 1 and word.isupper() and joined[-1] in ("W", "b")
        joined.append(f"{joined.pop()}_{word}" if tensor else word)
    return " ".join(joined)


def published(claim: Mapping[str, Any]) -> str:
    """What a claim (as `Judged.as_json` gives it) says, with its tolerance: "0.95 or more", "a, then b"."""
    kind, stated = claim["kind"], claim["published"]
    if kind == "ordering" and isinstance(stated, Sequence) and not isinstance(stated, str):
        return ", then ".join(value(each) for each in stated)
    text, slack = value(stated), claim.get("tolerance") or 0
    around = f"{number(100 * slack)} %" if claim.get("relative") else number(slack)
    if kind == "within" and isinstance(stated, Sequence) and not isinstance(stated, str):
        return f"{text} (all but {around})" if slack else text
    if kind == "within":
        return f"{text} ± {around}"
    if kind in ("above", "below"):
        return f"{kind} {text}" + (f" (give or take {around})" if slack else "")
    return text


def measured(claim: Mapping[str, Any]) -> str:
    """What was found, in the same manner of writing as `published`."""
    found = claim["measured"]
    if claim["kind"] == "ordering" and isinstance(found, Sequence) and not isinstance(found, str):
        return ", then ".join(value(each) for each in found)
    return value(found)


def null(claim: Mapping[str, Any]) -> str:
    """The control of a claim and its figure, or nothing when it has none."""
    if not claim.get("null"):
        return ""
    figure = claim.get("null_measured")
    missing = figure is None or (isinstance(figure, float) and math.isnan(figure))
    return claim["null"] + ("" if missing else f": {value(figure)}")


def tally(verdicts: Sequence[str]) -> str:
    """ "3 hold, 1 fails, 2 not run": only what occurs."""
    plural = {"holds": "hold", "fails": "fail", "not run": "not run"}
    counts = {verdict: list(verdicts).count(verdict) for verdict in plural}
    parts = [f"{n} {verdict if n == 1 else plural[verdict]}" for verdict, n in counts.items() if n]
    return ", ".join(parts) or "no claims"
