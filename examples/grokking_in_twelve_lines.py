"""Train a network until it groks, and hold each claim of the paper beside what it does.

About a minute on two cores. `python examples/grokking_in_twelve_lines.py tiny` takes seconds, and need not grok.
"""

import sys

import micrographia as mg

run = mg.run("grokking", preset=sys.argv[1] if len(sys.argv) > 1 else "quick")
print(*run.summary, sep="\n")
print(*run.claims, sep="\n")
print("everything that was measured is in", run.report())
