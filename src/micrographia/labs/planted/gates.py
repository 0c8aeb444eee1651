"""AND and OR: what one patch at a time cannot see.

Two heads bring the feature `on` of the letters at 1 and 2 to the end, as a and b; neurons of layer 1 combine them.
Clean prompts have both on, corrupt ones neither: "<bos> A B x ?" -> "yes" against "<bos> D E x ?".
m = logit(yes) - logit(no); G is `GAIN`. Denoising shows what suffices, noising what is needed: so one patch at a time
finds the inputs of an AND by noising only, those of an OR by denoising only.
Source: Heimersheim and Nanda, "How to use and interpret activation patching" (2024).
"""

from collections.abc import Sequence

from micrographia.core.prompts import Pairs
from micrographia.labs.planted.draft import ANSWERS, LETTERS, ON, YES, Draft
from micrographia.labs.planted.planted import GAIN, YES_TO_ON, Planted, add_distractors, edges, heads, neurons, pairs_of

LEFT, RIGHT, END = 1, 2, 4
THRESHOLD = 1.2
"""Of the AND: on the straight path from corrupt to clean it opens at 0.6, which no midpoint rule hits."""


def and_gate() -> Planted:
    """m = G relu(a + b - 1.2) / 0.8: clean G, corrupt 0.

    denoising one input    a + b = 1 stays under the threshold: 0, and so is the gradient at the corrupt run: AtP,
                           AtP* and RelP miss both inputs, as the exact patch does
    noising one input      G falls to 0: exact -G. AtP's gradient at the clean run is G / 0.8: -1.25 G, found
    integrated gradients   along the straight path of the inputs the gate is open for the last 0.4: 0.4 G / 0.8 =
                           G / 2 for each input, found in either mode (by m steps: the share of steps beyond 0.6)
    the gate               G in either mode
    """
    draft = _inputs()
    inputs = {draft.at("a"): 1.0, draft.at("b"): 1.0}
    draft.neuron(1, 0, inputs, {_yes(draft): GAIN / (2 - THRESHOLD)}, -THRESHOLD)
    return _planted("and", draft, gate=range(1))


def or_gate() -> Planted:
    """m = G (relu(a + b + 1/2) - relu(a + b - 1)) = G (1/2 + min(a + b, 1)): clean 3/2 G, corrupt G / 2.

    denoising one input    exact +G; AtP's gradient at the corrupt run is G: found, and right
    noising one input      0; the gradients of the two neurons cancel at the clean run: AtP, AtP* and RelP miss both
                           inputs, as the exact patch does (both neurons stand in one layer, so GradDrop cannot part
                           them)
    integrated gradients   G / 2 for each input, in either mode (by an odd number of midpoints a little more: one of
                               them stands on the kink, where ReLU's gradient is taken as 0)
    the gate               the neurons change by 2 and by 1: 2 G and -G when denoised
    """
    draft = _inputs()
    inputs = {draft.at("a"): 1.0, draft.at("b"): 1.0}
    draft.neuron(1, 0, inputs, {_yes(draft): GAIN}, 0.5)
    draft.neuron(1, 1, inputs, {_yes(draft): -GAIN}, -1.0)
    return _planted("or", draft, gate=range(2))


def yes_pairs(words: Sequence[tuple[str, str]]) -> Pairs:
    """Pairs from what stands between <bos> and "?"; the clean prompt's answer is yes."""
    return pairs_of([(f"<bos> {clean} ?", f"<bos> {corrupt} ?", "yes", "no") for clean, corrupt in words])


def _inputs() -> Draft:
    draft = Draft({"a": 1, "b": 1})
    for head, (place, stream) in enumerate([(LEFT, "a"), (RIGHT, "b")]):
        draft.look(0, head, {END: place})
        draft.read(0, head, "on")
        draft.write(0, head, stream)
    return draft


def _yes(draft: Draft) -> int:
    return draft.at("answer", ANSWERS.index(YES))


def _planted(name: str, draft: Draft, gate: range) -> Planted:
    add_distractors(draft, [LEFT, RIGHT], END, YES_TO_ON)
    on, off = LETTERS[:ON], LETTERS[ON:]
    words = [(f"{on[i]} {on[j]} {f}", f"{off[j]} {off[i]} {f}") for i in range(ON) for j, f in enumerate("xyz")]
    roles = {
        "inputs": (*heads("z", 0, 0, END), *heads("z", 0, 1, END)),
        "gate": neurons(1, END, gate),
    }
    known = edges(
        "input -> L0.v[0]", "input -> L0.v[1]", "L0.z[0] -> L1.mlp_pre", "L0.z[1] -> L1.mlp_pre", "L1.mlp_out -> logits"
    )
    return Planted(name, draft.model(), yes_pairs(words), roles, known)
