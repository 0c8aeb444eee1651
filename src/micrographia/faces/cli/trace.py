"""`micrographia trace`: causal tracing: blur a subject, restore single states, and see where the fact comes back."""

from collections.abc import Sequence

from micrographia.faces.cli.ask import ask


def main(words: Sequence[str]) -> int:
    return ask("trace", words)
