// A prompt gone on with as it is, with a latent added, and with a random direction as long: side by side.

import { calmly, fill, h } from "./dom.js";
import { isLive, source } from "./data.js";
import { to } from "./place.js";
import { needsModel } from "./text.js";
import { number } from "./words.js";

const kept = { prompt: "Once upon a time", times: 2, tokens: 30 };
const COLUMNS = [["plain", "without"], ["steered", "with"], ["random", "a random direction as long"]];
const GREEDY = "Continuations are greedy: always the most likely token.";

export async function steer({ bundle, about, index, what }) {
  const n = about.bundles[bundle].n_latents, latent = Number(what ?? index.dead.indexOf(false));
  if (!(Number.isInteger(latent) && latent >= 0 && latent < n)) throw new Error(`There is no latent ${what}. There are 0 to ${n - 1}.`);
  const choose = h("input", { type: "number", min: 0, max: n - 1, value: latent, "aria-label": "latent", onchange: (event) => { location.hash = to(bundle, "steer", event.target.value); } });
  const page = h("div", {}, h("h1", {}, "Steer"),
    h("p", { class: "byline" }, h("label", {}, "latent ", choose), " ", h("a", { href: to(bundle, "latent", latent) }, index.label[latent] || "its page")),
    steeringIn(about, bundle, index, latent));
  return { page, title: `steer ${latent}` };
}

export function steeringIn(about, bundle, index, latent) {
  if (!isLive(about, bundle)) return needsModel("steer");
  if (index.dead[latent]) return h("p", { class: "needs" }, `Latent ${latent} is dead: it fired nowhere, so that there is no strength to add it with.`);
  if (!about.live.steers) return h("p", { class: "needs" }, "This model generates no text: there is nothing to steer.");
  return steering(bundle, index, latent);
}

function steering(bundle, index, latent) {
  const shown = h("div", { class: "sides", "aria-live": "polite" }), told = h("output");
  const say = h("button", { type: "submit", class: "do" }, "generate"), now = h("span", { role: "status" }, GREEDY);
  const times = () => { told.textContent = `${number(kept.times)} × its largest activation, ${number(index.max[latent])}`; };
  async function generate() {
    say.disabled = true;
    now.textContent = "computing three continuations …";
    shown.classList.add("waiting");
    try {
      const asking = { latent, strength: kept.times * index.max[latent], prompt: kept.prompt, tokens: kept.tokens };
      const found = await source.steer(bundle, asking);
      fill(shown, COLUMNS.map(([key, name]) => h("figure", { class: key }, h("figcaption", {}, name),
        h("p", { class: "said" }, h("span", { class: "prompt" }, kept.prompt), found[key]))));
    } catch (error) { fill(shown, h("p", { class: "failed" }, error.message)); }
    say.disabled = false;
    now.textContent = GREEDY;
    shown.classList.remove("waiting");
  }
  times();
  return h("form", { class: "steering", onsubmit: (event) => { event.preventDefault(); generate(); } },
    h("textarea", { rows: 2, value: kept.prompt, "aria-label": "The prompt", maxlength: 4000, oninput: (event) => { kept.prompt = event.target.value; } }),
    h("div", { class: "field" }, h("span", { class: "name" }, "strength"),
      h("input", { type: "range", min: -8, max: 8, step: 0.5, value: kept.times, "aria-label": "strength", oninput: calmly((event) => { kept.times = Number(event.target.value); times(); }, 0) }), told),
    h("div", { class: "field" }, say, now), shown);
}
