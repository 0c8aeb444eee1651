"""Circuits that hide: a backup head, saturated attention, effects that cancel.

m = logit(yes) - logit(no); G is `GAIN`. Clean prompts start with a letter that is on, corrupt ones do not.
"""

import torch
from torch import Tensor

from micrographia.labs.planted.draft import ANSWERS, LETTERS, N_CTX, NO, ON, YES, Draft
from micrographia.labs.planted.gates import yes_pairs
from micrographia.labs.planted.planted import GAIN, YES_TO_ON, Planted, add_distractors, edges, heads, neurons

SOURCE, LEFT, RIGHT, END = 1, 2, 3, 4
AWAKE = 8.0
"""Score with which the backup looks at the source; -AWAKE while the primary does its work."""
SATURATED = 20.0


def backup() -> Planted:
    """A head that takes over when another is ablated, and gives the same answer: "<bos> A x y ?" -> "yes", else 0.

    The primary (L0, head 0) carries `on` from the source to the logit (G on) and to `done` (on). The backup (L1,
    head 0) carries it too, attending to the source with score 8 (1 - 2 done), to four others with 0. Its attention is
        w = 1 / (1 + 4 e^-8) = 0.9987 awake (done = 0);  r = 1 / (1 + 4 e^8) = 0.00008 at rest (done = 1)
        clean                  m = G (1 + r), corrupt 0
        noising the primary    the backup wakes: exact -G (1 + r - w) = -0.003: missed. AtP, whose gradient through the
                               resting softmax is -16 r (1 - r): -G (1 - 16 r (1 - r)) = -1.997: found. It
                               is 700 times the exact effect of this patch, and nearly that of both heads together
        noising the backup     -G r: missed by all; noising both  -G (1 + r)
        denoising the primary  +G, both exact and estimated: the source is off, so a sleeping backup costs nothing
        denoising the backup   +G r: in the clean run it slept, so its output is zero: missed by all
        the primary's value    at the source: as the primary
        the backup's value     at the source: denoised +G w (it is awake), found by all; noised -G r, missed by all but
                               integrated gradients, for which it is awake half of the way
    """
    draft = Draft({"done": 1})
    draft.look(0, 0, {END: SOURCE})
    for layer in (0, 1):
        draft.read(layer, 0, "on")
        draft.write(layer, 0, "answer", GAIN * _to({0: YES}, 1))
    draft.weights["blocks.0.attn.W_O"][0, 0, draft.at("done")] = 1.0
    draft.query(1, 0, draft.at("place", END), 0, AWAKE)
    draft.query(1, 0, draft.at("done"), 0, -2 * AWAKE)
    draft.key(1, 0, draft.at("place", SOURCE), 0)
    add_distractors(draft, [SOURCE], END, YES_TO_ON)
    roles = {
        "primary": heads("z", 0, 0, END),
        "primary's value": heads("v", 0, 0, SOURCE),
        "backup": heads("z", 1, 0, END),
        "backup's value": heads("v", 1, 0, SOURCE),
    }
    known = edges(
        "input -> L0.v[0]", "L0.z[0] -> logits", "L0.z[0] -> L1.q[0]", "input -> L1.v[0]", "L1.z[0] -> logits"
    )
    return Planted("backup", draft.model(), yes_pairs(_one_letter()), roles, known)


def saturated() -> Planted:
    """Attention that is switched from one position to another, with scores of 20: its gradient is gone on either side.

    "<bos> A B D ?" -> "yes" against "<bos> D E A ?". Two heads of layer 1 each say yes for what they see at 2 and no
    for 3, in halves of G. The chooser (head 0) is switched by its query, which the pointer (L0, head 0) fills from the
    letter at 1; the seeker (head 1) by its keys: it looks for a letter that is on. Scores at 2 and 3 are (20, 0) clean,
    (0, 20) corrupt; others have 0 (three for the chooser, two for the seeker). Clean m = G, corrupt -G.
        the chooser's query    exact G, by the QK-fix too; AtP 70 e^-20 = 1.4e-7 of it: missed
        the pointer            exact G; missed by AtP and by AtP*, whose fix stands at queries and keys only; integrated
                               gradients find it, since the path crosses the switch
        the seeker's keys      exact G / 2 each: at 2 both keys are on, at 3 neither, and m of the head is 0. Missed by
                               AtP, found by the QK-fix; along the path of the inputs both switch together: found
        both heads' outputs    exact G each, and estimated so by all
        RelP                   holds patterns still: heads' outputs alone
    Two faint heads (2 and 3) do the same with scores of 1/2 and a twentieth of the worth: weak distractors at q and k.
    By the first the pointer has G / 20 (e^0.5 - 1) / (e^0.5 + 4) more.
    """
    draft = Draft({"asked": 1})
    draft.look(0, 0, {END: SOURCE})
    draft.read(0, 0, "on")
    draft.write(0, 0, "asked")
    for head, score, worth in ((0, SATURATED, 0.5), (2, 0.5, 0.025)):
        draft.query(1, head, draft.at("place", END), RIGHT, score)
        draft.query(1, head, draft.at("asked"), RIGHT, -score)
        draft.query(1, head, draft.at("asked"), LEFT, score)
        for place in (LEFT, RIGHT):
            draft.key(1, head, draft.at("place", place), place)
        _left_yes_right_no(draft, head, worth)
    for head, score, worth in ((1, SATURATED, 0.5), (3, 0.5, 0.025)):
        draft.query(1, head, draft.at("place", END), 0, score)
        draft.key(1, head, draft.at("on"), 0)
        draft.key(1, head, draft.at("place", SOURCE), 0, -2.0)  # the letter there is no candidate
        _left_yes_right_no(draft, head, worth)
    add_distractors(draft, [SOURCE], END, YES_TO_ON)
    on, off = LETTERS[:ON], LETTERS[ON:]
    words = [(f"{on[i]} {on[j]} {off[i]}", f"{off[i]} {off[j]} {on[i]}") for i in range(ON) for j in range(ON)]
    roles = {
        "pointer": heads("z", 0, 0, END),
        "query": heads("q", 1, 0, END),
        "keys": heads("k", 1, 1, LEFT, RIGHT),
        "outputs": (*heads("z", 1, 0, END), *heads("z", 1, 1, END)),
    }
    known = edges(
        "input -> L0.v[0]", "L0.z[0] -> L1.q[0]", "input -> L1.k[1]", "L1.z[0] -> logits", "L1.z[1] -> logits"
    )
    return Planted("saturated", draft.model(), yes_pairs(words), roles, known)


def cancelling() -> Planted:
    """A head whose direct effect is undone by what it does through a layer, to first order, at either end.

    The head (L0, head 0) writes c = on to the logit, G c, and to the brakes of layer 1, which write
        G (-relu(c + 1/2) + relu(c - 1/5) - relu(c - 4/5)):  slope -G up to 1/5, 0 up to 4/5, then -G again
        m = G (-1/2 + clamp(c, 1/5, 4/5) - 1/5):  clean G / 10, corrupt -G / 2
        the head               exact 0.6 G; AtP 0 in either mode, since direct and indirect effect cancel: missed.
                               GradDrop, without layer 1: G, averaged over the three other layers G / 3: found.
                               Integrated gradients: 0.6 G, found. RelP 0: ReLU is its own linearisation.
                               Edges out of it part what the node adds up: G to the logits, -G to the MLP of layer 1,
                               both found; the edge into it adds them up again: missed
        the brakes             each is linear in m: -G, 0.8 G and -0.2 G when denoised, found by all
    """
    draft = Draft({"doubt": 1})
    draft.look(0, 0, {END: SOURCE})
    draft.read(0, 0, "on")
    draft.write(0, 0, "answer", GAIN * _to({0: YES}, 1))
    draft.write(0, 0, "doubt")
    yes = draft.at("answer", ANSWERS.index(YES))
    for unit, (bias, sign) in enumerate([(0.5, -1), (-0.2, 1), (-0.8, -1)]):
        draft.neuron(1, unit, {draft.at("doubt"): 1.0}, {yes: sign * GAIN}, bias)
    add_distractors(draft, [SOURCE], END, YES_TO_ON)
    roles = {"head": heads("z", 0, 0, END), "brakes": neurons(1, END, range(3))}
    known = edges("input -> L0.v[0]", "L0.z[0] -> logits", "L0.z[0] -> L1.mlp_pre", "L1.mlp_out -> logits")
    return Planted("cancelling", draft.model(), yes_pairs(_one_letter()), roles, known)


def _to(answers: dict[int, str], width: int) -> Tensor:
    """A matrix (carried, answer) that writes 1 from each carried feature to the answer that it stands for."""
    table = torch.zeros(width, len(ANSWERS), dtype=torch.float64)
    for feature, answer in answers.items():
        table[feature, ANSWERS.index(answer)] = 1.0
    return table


def _left_yes_right_no(draft: Draft, head: int, worth: float) -> None:
    draft.read(1, head, "place")
    draft.write(1, head, "answer", worth * GAIN * _to({LEFT: YES, RIGHT: NO}, N_CTX))


def _one_letter() -> list[tuple[str, str]]:
    on, off = LETTERS[:ON], LETTERS[ON:]
    return [(f"{on[i]} {f} x", f"{off[(i + j) % ON]} {f} x") for i in range(ON) for j, f in enumerate("xyz")]
