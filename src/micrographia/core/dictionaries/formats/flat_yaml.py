"""The flat YAML of other tools' config.yaml: `key: value` lines and lists of values, and nothing else of the language.

A reader of all of YAML is no library of this floor; what is not understood here is refused, not guessed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from micrographia.core.errors import UnreadableWeights

WORDS: Mapping[str, Any] = {"": None, "null": None, "~": None, "true": True, "false": False}


def flat_yaml(path: Path) -> dict[str, Any]:
    """The entries of a file. Raises UnreadableWeights for what is nested or has tags, anchors or block texts."""
    found: dict[str, Any] = {}
    key = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.split(" #")[0].rstrip()
        if not text or text.startswith("#") or text == "---":
            continue
        item = text.lstrip()
        if item.startswith("- ") and key:
            found[key] = [*(found[key] or []), _value(item[2:].strip(), path, number)]
        elif text == item and ":" in text:
            key, _, value = text.partition(":")
            found[key] = _value(value.strip(), path, number)
        else:
            raise _strange(path, number)
    return found


def yaml_bytes(config: Mapping[str, Any]) -> bytes:
    """Texts, numbers and lists of them. JSON's scalars are YAML's."""
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in config.items()).encode()


def _value(text: str, path: Path, number: int) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if text[0] in '"[{' or text.lstrip("-").replace(".", "", 1).isdigit():
        try:
            return json.loads(text)
        except ValueError as error:
            raise _strange(path, number) from error
    if text[0] == "'":
        return text.strip("'").replace("''", "'")
    if text[0] in "&*!|>%@`":
        raise _strange(path, number)
    return text


def _strange(path: Path, number: int) -> UnreadableWeights:
    return UnreadableWeights(
        f"Cannot read line {number} of {path}: only `key: value` and lists are read here. Write it plainly, as "
        "circuit-tracer's own files are."
    )
