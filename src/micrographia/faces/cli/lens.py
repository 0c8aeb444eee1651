"""`micrographia lens`: read the answer off the residual stream: who writes it, and what each layer would say."""

from collections.abc import Sequence

from micrographia.faces.cli.ask import ask


def main(words: Sequence[str]) -> int:
    return ask("lens", words)
