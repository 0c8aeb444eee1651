"""HTML by hand: text is escaped unless it is marked as `Html`, so that no value of a Run can become markup."""

import html
import re
from typing import Any

VOID = ("meta", "input", "br", "hr")


class Html(str):
    """Markup that is safe as it stands."""

    __slots__ = ()


def escape(text: Any) -> Html:
    """Text as markup; markup stays as it is."""
    return text if isinstance(text, Html) else Html(html.escape(str(text), quote=True))


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element. `class_` is written class; underscores become hyphens; None and False leave an attribute out.

    >>> tag("p", "a < b", class_="lead")
    '<p class="lead">a &lt; b</p>'
    """
    written = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if name in VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{''.join(escape(child) for child in children)}</{name}>")


def _attribute(key: str, value: Any) -> str:
    label = key.rstrip("_").replace("_", "-")
    return f" {label}" if value is True else f' {label}="{escape(value)}"'


def join(*parts: Any, by: str = "\n") -> Html:
    """Parts one after another."""
    return Html(by.join(escape(part) for part in parts if part))


def typeset(text: str) -> Html:
    """Numbers like 1.3e-6 as 1.3 × 10⁻⁶, and the k of w_k below the line."""
    powers = re.sub(r"(?<![\w.])(-?\d+(?:\.\d+)?)e([-+]?\d+)(?!\w)", _power, escape(text))
    return Html(re.sub(r"\bw_k\b", "w<sub>k</sub>", powers))


def prose(text: str) -> Html:
    """A sentence typeset, with what stands in backticks as code; in names and cells a backtick is a token's own."""
    return Html(re.sub(r"`([^`]+)`", r"<code>\1</code>", typeset(text)))


def _power(found: re.Match[str]) -> str:
    exponent = str(int(found[2])).replace("-", "−")
    return f"{found[1]}&#8239;×&#8239;10<sup>{exponent}</sup>"
