"""Open a network up: keep activations by their address, change them, and see what each part is worth.

Trains a small network, which takes seconds; `python examples/read_a_network.py quick` takes the paper's own problem and
about a minute. Losses are over all pairs, in nats; a uniform guess has ln p.
"""

import sys

import micrographia as mg
from micrographia.core.losses import cross_entropy
from micrographia.core.store import read_tensors
from micrographia.labs.grokking.config import PRESETS
from micrographia.labs.grokking.task import architecture, make_pairs
from micrographia.methods.fourier.neurons import neuron_clusters

preset = sys.argv[1] if len(sys.argv) > 1 else "tiny"
if preset not in PRESETS:
    raise SystemExit(f"Asked for the preset {preset!r}, which is not known. Choose one of {', '.join(PRESETS)}.")
config = PRESETS[preset]()
run = mg.grok(config)
last_snapshot = max((run.path / "snapshots").glob("*.safetensors"))
network = mg.Transformer(architecture(config), read_tensors(last_snapshot))
pairs = make_pairs(config)


def loss(*edits: mg.Edit) -> float:
    """The network's loss with these edits; the answers are the residues, without "="."""
    logits = network.run(pairs.tokens, edits=edits, logits="last").logits
    return cross_entropy(logits[:, -1, : config.modulus], pairs.labels).mean().item()


kept = network.run(pairs.tokens, keep=["L0.z", "L0.neurons", "L0.pattern"], logits="last").cache
print(f"as it is: {loss():.3g}")

# A head at its mean over all pairs: what it says no longer depends on the operands.
for head in range(config.network.n_heads):
    to_a, to_b, to_equals = kept["L0.pattern"][:, head, -1].mean(0).tolist()
    print(
        f"head {head} at its mean: {loss(mg.mean('L0.z', kept['L0.z'], head=head)):.3g} "
        f"(it attends {to_a:.0%} to a, {to_b:.0%} to b, {to_equals:.0%} to =)"
    )

# Each neuron of a grokked network speaks one frequency. Which frequencies can the network do without?
at_last = kept["L0.neurons"][:, -1].unflatten(0, (config.modulus, config.modulus))
frequency = neuron_clusters(at_last).frequency
for k in frequency.unique().tolist():
    own = (frequency == k).nonzero()[:, 0]
    name = f"frequency {k}" if k else "no frequency (never active)"
    print(f"the {len(own)} neurons of {name} at zero: {loss(mg.zero('L0.neurons', unit=own)):.3g}")
