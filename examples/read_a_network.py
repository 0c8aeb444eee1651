"""Open a network up: keep activations by their address, change them, and see what each part is worth.

Trains a small network, which takes seconds; `python examples/read_a_network.py quick` takes the paper's own problem and
about a minute. The metric is the logit of the answer, over all pairs.
"""

import sys

import micrographia as mg

run = mg.run("grokking", preset=sys.argv[1] if len(sys.argv) > 1 else "tiny")
network, p = mg.load(run.path), run.config["modulus"]
prompts = [f"{a} {b} =" for a in range(p) for b in range(p)]
answers = [(a + b) % p for a in range(p) for b in range(p)]
tokens = network.to_tokens(prompts)


def accuracy(*edits: mg.Edit) -> float:
    """The share of all pairs that the network answers with these edits; the answers are the residues, without "="."""
    logits = network.run(tokens, edits=edits, logits="last").logits
    return sum(a == b for a, b in zip(logits[:, -1, :p].argmax(-1).tolist(), answers)) / len(answers)


kept = network.run(tokens, keep=["L0.z", "L0.pattern"], logits="last").cache
print(f"accuracy: {accuracy():.1%}")

# Mean ablation: each head replaced by its mean over all pairs.
for head in range(network.shape.n_heads):
    to_a, to_b, to_equals = kept["L0.pattern"][:, head, -1].mean(0).tolist()
    print(
        f"head {head} ablated: {accuracy(mg.mean('L0.z', kept['L0.z'], head=head)):.1%} "
        f"(it attends {to_a:.0%} to a, {to_b:.0%} to b, {to_equals:.0%} to =)"
    )

# Zero ablation: the neurons a tenth at a time.
tenth = network.shape.d_mlp // 10
for first in range(0, 10 * tenth, tenth):
    without = mg.zero("L0.neurons", unit=range(first, first + tenth))
    print(f"neurons {first} to {first + tenth - 1} ablated: {accuracy(without):.1%}")
