"""Numbers, names and verdicts as words, alike in terminal, report and notebook.

Numbers keep three or four figures: what is shown is for reading, the exact value stands in the Run's files.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

NOTHING_TO_SHOW = "There is nothing to show."
NOTHING = "–"
DIGITS, MOST_DECIMALS, LARGE = 3, 6, 1e6
LONG = 40  # letters of a list, which is not written twice


def format_value(thing: Any, number: Callable[[float], str] | None = None) -> str:
    """Any value of a cell: numbers shortened, or as `number` writes them; lists joined, None and NaN as a dash."""
    if thing is None:
        return NOTHING
    if isinstance(thing, bool):
        return "yes" if thing else "no"
    if isinstance(thing, str):
        return thing
    if isinstance(thing, Mapping) and is_interval(thing):
        return format_interval(thing, number)
    if isinstance(thing, Mapping):
        return ", ".join(f"{name(key)} {format_value(inner, number)}" for key, inner in thing.items()) or NOTHING
    if isinstance(thing, Iterable):
        return ", ".join(format_value(inner, number) for inner in thing) or "none"
    return (number or format_number)(thing)


MIDDLES = ("median", "mean", "estimate", "value")


def is_interval(thing: Mapping[str, Any]) -> bool:
    """A figure with its uncertainty: `low`, `high`, and a middle or a count."""
    return {"low", "high"} <= thing.keys() and ("count" in thing or any(key in thing for key in MIDDLES))


def format_interval(thing: Mapping[str, Any], number: Callable[[float], str] | None = None) -> str:
    """ "550 (500 to 625)", "3 of 4"; what never happened is named; of one network alone there are no limits."""
    if "count" in thing:
        return f"{format_number(thing['count'])} of {format_value(thing.get('of'))}"
    middle, low, high = (format_value(each, number) for each in (middle_of(thing), thing["low"], thing["high"]))
    never = f", {format_number(thing['never'])} never" if thing.get("never") else ""
    alone = middle == NOTHING or low == high == NOTHING or middle_of(thing) == thing["low"] == thing["high"]
    return f"{middle}{never}" if alone else f"{middle} ({low} to {high}){never}"


def middle_of(interval: Mapping[str, Any]) -> float | None:
    """The figure itself."""
    return next((interval[key] for key in MIDDLES if key in interval), None)


def format_number(x: float) -> str:
    """1,200; 0.9712; 1.3e-06 becomes 1.3e-6; a dash for NaN.

    >>> [format_number(x) for x in (1200, 0.97123, 1.3e-6, 24.31)]
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


def numbers_of(cell: Any) -> Iterator[Any]:
    """The figures that a cell shows: itself, or the middle and the limits of an interval."""
    if isinstance(cell, Mapping):
        figures = (middle_of(cell), cell.get("low"), cell.get("high")) if is_interval(cell) else ()
    else:
        figures = (cell,)
    for each in figures:
        if isinstance(each, Real) and not isinstance(each, bool) and math.isfinite(each):
            yield each


def common_format(figures: Sequence[float], *, intervals: bool = False) -> Callable[[float], str]:
    """How the numbers of one column are written: alike, or each for itself where they have no measure in common.

    They have the decimals that give the largest three digits, so that small ones beside it become 0.00; but what only
    counts sizes (losses, p-values: nothing below 0) keeps its small figures, as 1.3e-6.

    Whole numbers have none with fractions: a column that holds both is one of several quantities. `intervals`, three
    figures each, make do with two decimals.
    """
    if any(isinstance(x, Integral) and x for x in figures) or not any(figures):  # counts, or figures of several kinds
        return format_number
    places = decimals(figures)
    if places > MOST_DECIMALS or max(map(abs, figures)) >= LARGE:
        return format_number
    places = min(places, 2) if intervals and max(map(abs, figures)) >= 0.1 else places
    sizes = min(figures) >= 0

    def write(x: float) -> str:
        lost = sizes and math.isfinite(x) and 0 < x < 0.5 * 10.0**-places
        return format_number(float(f"{x:.2g}")) if lost else fixed(x, places)

    return write


def decimals(figures: Sequence[float]) -> int:
    """How many decimals give the largest figure of a column three digits."""
    largest = max(map(abs, figures), default=0.0)
    return max(DIGITS - 1 - math.floor(math.log10(largest)), 0) if largest else 0


def fixed(x: float, places: int) -> str:
    """A figure with so many decimals; a dash for NaN, and no minus before a zero."""
    if not math.isfinite(x):
        return format_number(x)
    text = f"{x:,.{places}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text


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
    """The published figure of a claim, a `Judged.as_json`, with its tolerance: "0.95 ± 0.02", "a, then b"."""
    kind, stated = claim["kind"], claim["published"]
    if kind == "ordering" and isinstance(stated, Sequence) and not isinstance(stated, str):
        return ", then ".join(format_value(each) for each in stated)
    text, slack = format_value(stated), claim.get("tolerance") or 0
    around = f"{format_number(100 * slack)} %" if claim.get("relative") else format_number(slack)
    if kind == "within" and isinstance(stated, Sequence) and not isinstance(stated, str):
        return f"{text} (all but {around})" if slack else text
    if kind == "within":
        return f"{text} ± {around}"
    if kind in ("above", "below"):
        return f"{kind} {text}" + (f" (give or take {around})" if slack else "")
    return text


def measured(claim: Mapping[str, Any]) -> str:
    """What was found, in the same manner of writing as `published`."""
    found, stated = claim["measured"], claim["published"]
    if isinstance(found, list) and found == stated and len(format_value(found)) > LONG:
        return "as published"
    if claim["kind"] == "ordering" and isinstance(found, Sequence) and not isinstance(found, str):
        return ", then ".join(format_value(each) for each in found)
    return format_value(found)


def null(claim: Mapping[str, Any]) -> str:
    """The control of a claim and its figure, or nothing when it has none."""
    if not claim.get("null"):
        return ""
    figure = claim.get("null_measured")
    missing = figure is None or (isinstance(figure, float) and math.isnan(figure))
    return claim["null"] + ("" if missing else f": {format_value(figure)}")


def tally(verdicts: Sequence[str]) -> str:
    """ "3 hold, 1 fails, 2 not run": only what occurs."""
    plural = {"holds": "hold", "fails": "fail", "not run": "not run"}
    counts = {verdict: list(verdicts).count(verdict) for verdict in plural}
    parts = [f"{n} {verdict if n == 1 else plural[verdict]}" for verdict, n in counts.items() if n]
    return ", ".join(parts) or "no claims"
