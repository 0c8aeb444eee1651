"""`micrographia circuit`: choose the heads and MLPs that carry a behaviour, and measure how much they carry alone."""

from collections.abc import Sequence

from micrographia.faces.cli.ask import ask


def main(words: Sequence[str]) -> int:
    return ask("circuit", words)
