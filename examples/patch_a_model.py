"""From two prompts to a heat map: where does a model hold the name that it will say?

`python examples/patch_a_model.py` takes GPT-2; give another name on the Hugging Face hub, a folder with a model, or a
network of one of your Runs (in whose words the prompts must then be). The clean value of each position and layer is
written into the corrupt run; then the same is estimated from one gradient, and checked.
"""

import sys

import micrographia as mg

model = mg.load(sys.argv[1] if len(sys.argv) > 1 else "gpt2")
pairs = mg.Pairs(
    model,
    clean="When Mary and John went to the store then John gave a drink to",
    corrupt="When Mary and John went to the store then Mary gave a drink to",
    answer=" Mary",
    wrong=" John",
)
exact = mg.patch(model, pairs, "L*.resid_pre")
print(exact)
estimate = mg.attribute(model, pairs, "L*.resid_pre L*.z")
print(mg.check(model, pairs, estimate, budget=32))
for figure in exact.figures():  # in a notebook `exact` alone shows them
    print(figure.title, figure.data["value_label"])
