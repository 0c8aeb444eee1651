"""`micrographia patch`: put activations of one run into another, place by place, and see what that does."""

from collections.abc import Sequence

from micrographia.faces.cli.ask import ask


def main(words: Sequence[str]) -> int:
    return ask("patch", words)
