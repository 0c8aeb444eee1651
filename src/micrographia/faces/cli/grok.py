"""`micrographia grok`: the main job, the grokking lab at its quick preset."""

from collections.abc import Sequence

from micrographia.faces.cli.lab import run_lab
from micrographia.labs.catalogue import lab


def main(words: Sequence[str]) -> int:
    grokking = lab("grokking")
    assert grokking is not None
    return run_lab(grokking, words, command="grok", preset="quick")
