// A text of one's own: which latents fire where. With a latent in the address, that one alone.

import { calmly, fill, h } from "./dom.js";
import { isLive, NO_MODEL, source } from "./data.js";
import { to } from "./place.js";
import { passage } from "./tokens.js";
import { alone, number } from "./words.js";

const LEFT_OUT = { "left out": "The first token is left out, as in training.", kept: "" };

// What is said of a text's first token, by what was done with it in training.
export const firstToken = (own) => LEFT_OUT[own.first_token] ?? "The first token is left out.";

const FIRST = "Mary walked down to the old harbour, counted nineteen boats, and went home.";
const texts = { now: FIRST };

export async function text({ bundle, about, index, what }) {
  const latent = what === undefined ? undefined : Number(what);
  const page = h("div", {},
    h("h1", {}, latent === undefined ? "What fires on a text" : `Latent ${latent} on a text`),
    latent === undefined ? null : h("p", { class: "byline" }, h("a", { href: to(bundle, "latent", latent) }, index.label[latent] || "its page"),
      " · ", h("a", { href: to(bundle, "text") }, "all latents")));
  page.append(isLive(about, bundle) ? reader(about, bundle, index, latent) : needsModel("compute latents on a text of your own"));
  return { page, title: "text" };
}

export const needsModel = (what) => h("p", { class: "needs" }, `To ${what}, start the browser with the model: `, h("code", {}, NO_MODEL));

// A box to type in, and below it the latents that fire; `pick(latent)` makes their numbers buttons.
export function reader(about, bundle, index, latent, pick) {
  const shown = h("div", { class: "read", "aria-live": "polite" });
  let asked = 0;
  async function look(value) {
    texts.now = value;
    if (!value.trim()) return fill(shown);
    const own = ++asked;
    shown.classList.add("waiting");
    try {
      const found = await source.read(bundle, value, latent);
      if (own === asked) fill(shown, latent === undefined ? several(found) : one(found));
    } catch (error) {
      if (own === asked) fill(shown, h("p", { class: "failed" }, error.message));
    }
    if (own === asked) shown.classList.remove("waiting");
    return null;
  }

  function one({ tokens, latents: [[, values]] }) {
    const silent = values.every((value) => value === 0);
    return [silent ? h("p", { class: "lead" }, "It is silent on this text.") : null, passage(tokens, values, { largest: index.max[latent] })];
  }

  function several(found, at = null) {
    const many = found.tokens.map((_, i) => found.latents.filter(([, values]) => values[i] !== 0).length);
    const rows = at === null ? found.latents : found.latents.filter(([, values]) => values[at] !== 0).sort((a, b) => b[1][at] - a[1][at]);
    return [
      h("p", { class: "lead" }, at === null ? "The colour says how many latents fire at a token. Choose a token to see which." : h("span", {}, "On ", h("code", {}, alone(found.tokens[at])), ". ",
        h("button", { type: "button", onclick: () => fill(shown, several(found)) }, "all tokens"))),
      passage(found.tokens, many, { onpick: (i) => fill(shown, several(found, i)), at: at ?? 0, label: "latents that fire at each token" }),
      h("ol", { class: "firing" }, rows.slice(0, 25).map(([each, values]) => h("li", {},
        h("div", { class: "who" }, pick ? h("button", { type: "button", onclick: () => pick(each) }, String(each)) : h("a", { href: to(bundle, "latent", each) }, String(each)),
          h("span", {}, index.label[each] || ""), h("span", { class: "value" }, number(Math.max(...values)))),
        passage(found.tokens, values, { largest: Math.max(index.max[each], ...values), at: at ?? values.indexOf(Math.max(...values)) })))),
      rows.length ? null : h("p", { class: "lead" }, "None of those that are shown."),
    ];
  }

  const box = h("textarea", { rows: 3, value: texts.now, "aria-label": "Your text", spellcheck: "false", maxlength: 4000, oninput: calmly((event) => look(event.target.value), 350) });
  look(texts.now);
  return h("div", { class: "reader" }, box, h("p", { class: "byline" }, firstToken(about.bundles[bundle])), shown);
}
