"""`micrographia attribute`: estimate the effect of patching everything at once, and check the estimate."""

from collections.abc import Sequence

from micrographia.faces.cli.ask import ask


def main(words: Sequence[str]) -> int:
    return ask("attribute", words)
