// The guided tour: see, guess, test, steer, play, doubt. What is predicted is tested, and the score is kept.

import { bars } from "./charts.js";
import { calmly, fill, h } from "./dom.js";
import { isLive, source } from "./data.js";
import { anyAlive, examples } from "./feature.js";
import { go, to } from "./place.js";
import { steeringIn } from "./steer.js";
import { firstToken, needsModel, reader } from "./text.js";
import { passage } from "./tokens.js";
import { alone, percent } from "./words.js";

const STEPS = ["microscope", "guess", "verify", "steer", "play", "doubt"];
const score = { right: 0, asked: 0 };
const guesses = new Map();
const AROUND = 14;

export async function tour(context) {
  const [place, chosen] = (context.what ?? "1").split("-");
  const step = Math.min(Math.max(1, Number(place) || 1), STEPS.length), { bundle, index } = context;
  const alive = index.latent.filter((latent) => !index.dead[latent]);
  const latent = alive.includes(Number(chosen)) && chosen !== undefined ? Number(chosen) : drawn(index);
  const tally = h("p", { class: "score", "aria-live": "polite" });
  const tell = () => { tally.textContent = score.asked ? `${score.right} of ${score.asked} right` : ""; };
  const answer = (right) => { score.asked += 1; score.right += right ? 1 : 0; tell(); };
  const page = h("div", { class: "tour" },
    h("ol", { class: "steps-of" }, STEPS.map((name, i) => h("li", { "aria-current": i + 1 === step ? "step" : null }, h("a", { href: to(bundle, "tour", `${i + 1}-${latent}`) }, name)))),
    tally, await STAGES[step - 1]({ ...context, latent, alive, answer }),
    h("p", { class: "onward" }, step > 1 ? h("a", { href: to(bundle, "tour", `${step - 1}-${latent}`) }, `← ${STEPS[step - 2]}`) : h("span"),
      step < STEPS.length ? h("a", { href: to(bundle, "tour", `${step + 1}-${latent}`) }, `${STEPS[step]} →`) : h("a", { href: to(bundle, "tour", `2-${drawn(index)}`) }, "another latent →")));
  tell();
  return { page, title: `tour · ${STEPS[step - 1]}` };
}

// One that is neither everywhere nor nearly nowhere, where there is one.
const drawn = (index) => anyAlive(index, (latent) => index.density[latent] > 1e-5 && index.density[latent] < 0.05);

async function microscope({ bundle, about, index }) {
  const head = [h("h1", {}, "Look"), h("p", { class: "lead" }, "A text is a sum of latents: at each token a few fire. Choose one.")];
  const chosen = (latent) => go(bundle, "tour", `2-${latent}`);
  if (isLive(about, bundle)) return h("div", {}, head, reader(about, bundle, index, undefined, chosen));
  const found = h("div", { class: "by-token" });
  const look = calmly(async (text) => fill(found, (text.trim() ? await source.byToken(bundle, text.trim()) : []).slice(0, 6).map((hit) => h("div", {}, h("h3", {}, "on ", h("code", {}, alone(hit.token))),
    bars(hit.latents.slice(0, 6).map(([latent, value]) => [String(latent), value, to(bundle, "tour", `2-${latent}`)]))))));
  look("the");
  return h("div", {}, head, h("input", { type: "search", value: "the", "aria-label": "a word", oninput: (event) => look(event.target.value) }), found);
}

async function guess({ bundle, latent }) {
  const content = await source.page(bundle, latent);
  const told = h("div", { class: "told-label", "aria-live": "polite" });
  const box = h("input", { type: "text", value: guesses.get(latent) ?? "", placeholder: "it fires on …", "aria-label": "Your guess",
    oninput: (event) => guesses.set(latent, event.target.value) });
  const reveal = () => fill(told, h("p", { class: "first" }, content.label ? `The label says: ${content.label}` : "It has no label. Yours may be the first."),
    content.label ? h("p", { class: "lead" }, `It is right ${percent(content.precision)} of the time, and finds ${percent(content.recall)}. Neither it nor your guess is proved: test it.`) : null,
    h("p", { class: "lead" }, "Where it fires weakly says as much:"), examples(content, { first: content.groups.length - 1 }));
  return h("div", {}, h("h1", {}, `What is latent ${latent}?`),
    h("div", { class: "passages" }, (content.groups[0]?.passages ?? []).slice(0, 6).map((each) => passage(each.tokens, each.values, { largest: content.max, at: each.at }))),
    h("form", { class: "guess", onsubmit: (event) => { event.preventDefault(); reveal(); } }, box, h("button", { type: "submit", class: "do" }, "reveal")), told);
}

async function verify({ bundle, about, index, latent, alive, answer }) {
  const live = isLive(about, bundle), content = await source.page(bundle, latent);
  const own = shuffled((content.groups.length > 1 ? content.groups.slice(1) : content.groups).flatMap((group) => group.passages)).slice(0, 3).map((each) => ({ ...each, fires: true }));
  const others = shuffled(alive.filter((each) => each !== latent)).slice(0, own.length);
  const strange = (await Promise.all(others.map((each) => source.page(bundle, each)))).map((each) => ({ ...each.groups[0].passages[0], fires: false }));
  const quiz = shuffled([...own, ...strange]).map(cut);
  return h("div", {}, h("h1", {}, `Does latent ${latent} fire here?`),
    h("p", { class: "lead" }, guesses.get(latent) ? `Your guess: ${guesses.get(latent)}. ` : "",
      quiz.length ? "Half of them are its own. Guessing gets half right." : "It has too few examples for a test."),
    h("ol", { class: "quiz" }, await Promise.all(quiz.map(async (each) => question(await truth(each), index.max[latent], answer)))),
    live ? h("section", {}, h("h2", {}, "Texts of your own"), ownText(about, bundle, latent, index, answer)) : needsModel("test it on texts of your own"));

  // What other latents fire on may be its own too: the model says, where there is one.
  async function truth(each) {
    if (each.fires || !live) return { ...each, sure: each.fires };
    const text = each.tokens.join(""), found = await source.read(bundle, text, latent).catch(() => null);
    if (!found) return { ...each, sure: false };
    const own = text.startsWith(found.tokens[0]) ? 0 : 1; // a token before the text would tell whose it is
    const tokens = found.tokens.slice(own), values = found.latents[0][1].slice(own);
    return { tokens, values, fires: values.some((value) => value !== 0), sure: true };
  }
}

function cut(each) {
  const first = Math.max(0, each.at - AROUND), last = each.at + AROUND;
  return { ...each, tokens: each.tokens.slice(first, last), values: each.values.slice(first, last) };
}

function question(each, largest, answer) {
  const blank = each.tokens.map(() => 0), text = h("div", {}, passage(each.tokens, blank, { quiet: true }));
  const told = h("span", { class: "told" });
  const said = (fires) => {
    const right = fires === each.fires;
    answer(right);
    ask.querySelectorAll("button").forEach((button) => { button.disabled = true; });
    told.className = `told badge ${right ? "holds" : "fails"}`;
    told.textContent = `${right ? "right" : "wrong"}: ${each.fires ? "it fires" : each.sure ? "silent" : "another latent's text"}`;
    if (each.fires || each.sure) fill(text, passage(each.tokens, each.values, { largest }));
  };
  const ask = prediction(said);
  return h("li", {}, text, h("div", { class: "field" }, ask, told));
}

const prediction = (said) => h("span", { class: "predict" }, h("button", { type: "button", onclick: () => said(true) }, "fires"), h("button", { type: "button", onclick: () => said(false) }, "silent"));

function ownText(about, bundle, latent, index, answer) {
  const shown = h("div", { "aria-live": "polite" });
  const box = h("textarea", { rows: 2, placeholder: "a text on which it should fire, or should not", "aria-label": "A text to test it on", maxlength: 4000 });
  const said = async (fires) => {
    if (!box.value.trim()) return;
    try {
      const found = await source.read(bundle, box.value, latent), values = found.latents[0][1], does = values.some((value) => value > 0);
      answer(fires === does);
      shown.prepend(h("div", { class: "tested" }, passage(found.tokens, values, { largest: index.max[latent] }),
        h("span", { class: `badge ${fires === does ? "holds" : "fails"}` }, `${fires === does ? "right" : "wrong"}: ${does ? "it fires" : "silent"}`)));
      box.value = "";
    } catch (error) { shown.prepend(h("p", { class: "failed" }, error.message)); }
  };
  return h("div", {}, box, h("div", { class: "field" }, h("span", { class: "name" }, "you predict"), prediction(said), h("span", {}, firstToken(about.bundles[bundle]))), shown);
}

const shuffled = (rows) => rows.map((row) => [Math.random(), row]).sort((a, b) => a[0] - b[0]).map(([, row]) => row);

async function steerIt({ bundle, about, index, latent }) {
  return h("div", {}, h("h1", {}, "Turn it up"), h("p", { class: "lead" }, `If latent ${latent} is what you think, adding it should change what the model says, and a random direction as long should not.`),
    steeringIn(about, bundle, index, latent));
}

async function play({ bundle, latent }) {
  const ways = [["latents", undefined, "find latents by token, label and density"], ["latent", latent, "look at this one whole"],
    ["text", undefined, "read a text of your own"], ["steer", latent, "steer with it"], ["compare", undefined, "compare dictionaries"]];
  return h("div", {}, h("h1", {}, "Play"), h("ul", { class: "ways-on" }, ways.map(([page, what, text]) => h("li", {}, h("a", { href: to(bundle, page, what) }, text)))));
}

const DOUBTS = [
  ["The top examples flatter.", "A latent may be clean at the top and mean many things below. Look at the low quantiles."],
  ["A label is a guess about tokens.", "Its precision and recall are measured on held-out text; what it misses is not shown by examples."],
  ["Latents absorb one another.", "One that fires on words with s may be silent where another takes a special case of it."],
  ["Not all is in the latents.", "What they leave out, the error, carries a part of what the model knows."],
  ["Steering is crude.", "Too little does nothing, too much breaks the text, and other latents move too. A random direction is the least comparison."],
  ["Another seed finds others.", "Of two dictionaries of one layer many latents have no match. Compare them."],
];

async function doubt() {
  return h("div", {}, h("h1", {}, "What does not work yet"), h("dl", { class: "doubts" }, DOUBTS.map(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])));
}

const STAGES = [microscope, guess, verify, steerIt, play, doubt];
