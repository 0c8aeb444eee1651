"""From two prompts to a heat map: where does a model hold the name that it will say?

`python examples/patch_a_model.py` asks GPT-2; give another name on the Hugging Face hub, a folder with a model, or a
network of one of your Runs (in whose words the prompts must then be). The clean value of each position and layer goes
into the corrupt run, and the other way round.
"""

import sys

from rich.console import Console

import micrographia as mg
from micrographia.faces.cli.carry_out import write_report
from micrographia.faces.terminal import print_figures

prompts = mg.Prompts(
    clean="When Mary and John went to the store then John gave a drink to",
    corrupt="When Mary and John went to the store then Mary gave a drink to",
    answer=" Mary",
    wrong=" John",
)
target = mg.Target(model=sys.argv[1] if len(sys.argv) > 1 else "gpt2")
run = mg.ask(mg.Patch(target=target, prompts=prompts, sites="L*.resid_pre", by="pos"))
print(*run.results["summary"], sep="\n")
print_figures(Console(), run.figures)
print("the heat map is in", write_report(run))
