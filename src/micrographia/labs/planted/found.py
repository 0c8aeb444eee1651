"""Circuits that can be found: nothing redundant, nothing saturated.

Clean and corrupt answers are compared by m = logit(right) - logit(wrong). G is `GAIN`. Weak distractors add their
own small terms to m, and change nothing of what is derived here.
"""

from micrographia.labs.planted.draft import LETTERS, Draft, N
from micrographia.labs.planted.planted import GAIN, Planted, add_distractors, edges, heads, neurons, pairs_of, votes_for

SOURCE, MIDDLE, END = 1, 2, 4
CUE, AFTER, OTHER, AFTER_OTHER, ASKED = 1, 2, 3, 4, 5
MATCH = 3.0
"""Score of a match in the induction head: far from saturation."""


def chain() -> Planted:
    """A letter is carried in two steps to the end, where a neuron writes its logit: "<bos> B x y ?" -> "B".

    The carrier (L0.z, head 0) takes the letter from 1 to 2, the mover (L1.z, head 0) from 2 to 4. Writer i of the
    L2.neurons, relu(found_i + 1/2), is on in both runs and writes G to the logit of letter i. So m is linear in every
    part: clean +G, corrupt -G. By hand, for every method of either mode, up to the sign of the mode:
        carrier and mover   2 G
        writer              G for the right letter (off -> on) and G for the wrong one (on -> off), else 0
    But GradDrop gives a path through k layers beyond its own (L - 1 - k) / (L - 1) of its effect, since only the layers
    that the path does not use let the gradient by: of L = 4, carrier 2 G / 3, mover 4 G / 3. Without an idle layer it
    would give the carrier 0.
    """
    draft = Draft({"moved": N, "found": N})
    draft.look(0, 0, {MIDDLE: SOURCE})
    draft.read(0, 0, "token")
    draft.write(0, 0, "moved")
    draft.look(1, 0, {END: MIDDLE})
    draft.read(1, 0, "moved")
    draft.write(1, 0, "found")
    _logit_writers(draft)
    add_distractors(draft, [SOURCE], END, votes_for())
    rows = [(a, LETTERS[(i + 1) % N]) for i, a in enumerate(LETTERS)]
    pairs = pairs_of(
        [(f"<bos> {a} {f} {g} ?", f"<bos> {b} {f} {g} ?", a, b) for (a, b), f, g in zip(rows, "xyzxyz", "yzxxzy")]
    )
    roles = {
        "carrier": heads("z", 0, 0, MIDDLE),
        "mover": heads("z", 1, 0, END),
        "writers": neurons(2, END, range(N)),
    }
    known = edges("input -> L0.v[0]", "L0.z[0] -> L1.v[0]", "L1.z[0] -> L2.mlp_pre", "L2.mlp_out -> logits")
    return Planted("chain", draft.model(), pairs, roles, known)


def induction() -> Planted:
    """A previous-token head and an induction head: "<bos> A B D E A" -> "B"; corrupt "<bos> D B A E A" -> "E".

    The previous-token head (L0.z, head 0) writes to each position the letter before it. The induction head (L1, head 0)
    queries at the end for the letter that stands there, and moves the one that followed it. Writers as in `chain`.
    With p the attention at 5, one key matching with score s = 3 and five others: m = G (p_2 - p_4), and
        P = e^s / (e^s + 5)    the match's share; q = 1 / (e^s + 5) the others'
        clean and corrupt      m = +-M, M = G (P - q) = G (e^s - 1) / (e^s + 5)
        previous-token head    exact: at 2 both keys match, at 4 neither, so m = 0 and the effect is M, at each of them
                               AtP, denoising: G s q (1 + M/G) at 2 and G s P (1 - M/G) at 4: too small, but far from 0
                               RelP: 0, since it holds patterns still. It misses this head, as it misses whatever acts
                               through queries and keys
        induction head         2 M; writers G (P - q) each
    """
    draft = Draft({"before": N, "found": N})
    draft.look(0, 0, {here: here - 1 for here in range(1, ASKED + 1)})
    draft.read(0, 0, "token")
    draft.write(0, 0, "before")
    for letter in range(N):
        draft.query(1, 0, draft.at("token", letter), letter, MATCH)
        draft.key(1, 0, draft.at("before", letter), letter)
    draft.read(1, 0, "token")
    draft.write(1, 0, "found")
    _logit_writers(draft)
    add_distractors(draft, [CUE, OTHER], ASKED, votes_for(step=1))
    rows = [(i, (i + step) % N) for i in range(N) for step in (2, 3)]
    pairs = pairs_of([_repeated(LETTERS[i], LETTERS[(i + 1) % N], LETTERS[j], LETTERS[(j + 1) % N]) for i, j in rows])
    roles = {
        "previous token": heads("z", 0, 0, AFTER, AFTER_OTHER),
        "induction": heads("z", 1, 0, ASKED),
        "writers": neurons(2, ASKED, range(N)),
    }
    known = edges("input -> L0.v[0]", "L0.z[0] -> L1.k[0]", "L1.z[0] -> L2.mlp_pre", "L2.mlp_out -> logits")
    return Planted("induction", draft.model(), pairs, roles, known)


def _repeated(a: str, b: str, c: str, d: str) -> tuple[str, str, str, str]:
    return f"<bos> {a} {b} {c} {d} {a}", f"<bos> {c} {b} {a} {d} {a}", b, d


def _logit_writers(draft: Draft) -> None:
    for letter in range(N):
        draft.neuron(2, letter, {draft.at("found", letter): 1.0}, {draft.at("answer", letter): GAIN}, 0.5)
