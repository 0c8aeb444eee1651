"""Patch, attribute and steer the latents of a dictionary: once it is spliced in, they are places like any other.

`python examples/latents.py` takes GPT-2; give another model's name or folder. The dictionary here is the simplest that
there is, so that nothing need be trained: both directions of each principal axis of the activations. Any class with
`encode` and `decode` will do in its place.
"""

import sys

import micrographia as mg


class Axes:
    """Latents are how far an activation goes along each principal axis, one latent for each way."""

    def __init__(self, activations, n_axes):
        rows = activations.flatten(0, 1)
        self.mean = rows.mean(0)
        self.axes = (rows - self.mean).svd().V[:, :n_axes]

    def encode(self, activation):
        along = (activation - self.mean) @ self.axes
        return along.new_tensor([[1.0], [-1.0]]).mul(along[..., None, :]).relu().flatten(-2)

    def decode(self, latents):
        n = self.axes.shape[1]
        return (latents[..., :n] - latents[..., n:]) @ self.axes.T + self.mean


model = mg.load(sys.argv[1] if len(sys.argv) > 1 else "gpt2")
layer = model.shape.n_layers // 2
site = f"L{layer}.resid_pre"
latents, error = f"{site}[sae].latents", f"{site}[sae].error"
clean = "When Mary and John went to the store then John gave a drink to"
corrupt = "When Mary and John went to the store then Mary gave a drink to"
pairs = mg.Pairs(model, clean=clean, corrupt=corrupt, answer=" Mary", wrong=" John")
dictionary = Axes(model.run([clean, corrupt], keep=site).cache[site], n_axes=8)
spliced = mg.splice(site, dictionary)

# Nothing changes until a latent or the error is edited; both together are the whole activation.
kept = model.run(clean, keep=[latents, error], edits=[spliced])
restored = [spliced, mg.put(latents, kept.cache[latents]), mg.put(error, kept.cache[error])]
gap = (model.run(corrupt, edits=restored).logits - model.run(clean).logits).abs().max()
print(f"all latents and the error of the clean run, patched into the corrupt one: logits differ by {gap:.1e}")

# The effect of every latent and of the error, exact and from one gradient.
exact = mg.patch(model, pairs, latents, by="pos,unit", edits=[spliced])
print(exact)
print(mg.patch(model, pairs, error, by="pos", edits=[spliced]))
estimate = mg.attribute(model, pairs, [latents, error], edits=[spliced])
print(estimate)

# Steering: the latent with the largest effects, turned up at every position by its largest value on the clean prompt.
(scores,) = exact.scores.values()  # prompt pos latent
best = int(scores.mean(0).abs().sum(0).argmax())
more = float(kept.cache[latents][..., best].max())
steered = [spliced, mg.add(latents, more, unit=best)]
names = [(name, model.single_token(name)) for name in (" Mary", " John")]
for title, edits in (("as it is", []), (f"latent {best} + {more:.3g}", steered)):
    logits = model.run(clean, edits=edits, logits="last").logits[0, -1]
    print(f"{title}: " + ", ".join(f"logit of{name} {float(logits[token]):.2f}" for name, token in names))
