// One latent: where it fires, how often and how strongly, what it writes, which others are like it, and the user's note.

import { bars, histogram, tokenBars } from "./charts.js";
import { calmly, choice, fill, h } from "./dom.js";
import { fromFiles, source } from "./data.js";
import { go, to } from "./place.js";
import { passage } from "./tokens.js";
import { count, number, percent, share } from "./words.js";

export async function feature({ bundle, about, index, notes, what }) {
  const latent = Number(what), n = about.bundles[bundle].n_latents;
  const content = Number.isInteger(latent) && latent >= 0 && latent < n ? await source.page(bundle, latent) : null;
  if (!content) throw new Error(`There is no latent ${what}. There are 0 to ${n - 1}.`);
  content.label ??= "";
  const beside = (step) => neighbour(index, latent, step), random = () => go(bundle, "latent", anyAlive(index));
  const page = h("article", { class: "feature" },
    h("p", { class: "steps" }, h("a", { href: to(bundle, "latent", beside(-1)), "aria-label": "the latent before" }, "←"),
      h("span", {}, `latent ${latent}`), h("a", { href: to(bundle, "latent", beside(1)), "aria-label": "the next latent" }, "→")),
    h("h1", { class: content.label.length > 40 ? "long" : null }, content.label || (content.dead ? "A dead latent" : "No label")),
    byline(content, about.bundles[bundle]),
    h("p", { class: "ways" }, h("a", { href: to(bundle, "text", latent) }, "try it on a text"), content.dead ? null : [h("a", { href: to(bundle, "steer", latent) }, "steer with it"),
      h("a", { href: to(bundle, "tour", `2-${latent}`) }, "guess its meaning")]),
    h("div", { class: "two" },
      h("section", { class: "examples", "aria-label": "Examples" }, examples(content), note(bundle, latent, notes)),
      h("aside", {}, sides(content, about.bundles[bundle], bundle, index))));
  [1, -1].forEach((step) => source.page(bundle, beside(step)).catch(() => null)); // the next is there at once
  return { page, title: `${latent} ${content.label}`, keys: { n: () => go(bundle, "latent", beside(1)), p: () => go(bundle, "latent", beside(-1)), r: random } };
}

// The next latent that fires, up or down; where all are dead the next.
function neighbour(index, latent, step) {
  const n = index.dead.length;
  for (let i = 1; i < n; i++) {
    const other = (latent + i * step + i * n) % n;
    if (!index.dead[other]) return other;
  }
  return (latent + step + n) % n;
}

export function anyAlive(index, fits = () => true) {
  const alive = index.latent.filter((latent) => !index.dead[latent]), from = alive.filter(fits);
  const of = from.length ? from : alive.length ? alive : index.latent;
  return of[Math.floor(Math.random() * of.length)];
}

function byline(content, about) {
  if (content.dead) return h("p", { class: "byline" }, h("span", { class: "badge" }, "dead"), ` It fired on none of ${count(about.n_tokens)} tokens.`);
  const told = [`fires on ${share(content.density)} of tokens, ${count(content.n_fires)} times`, `up to ${number(content.max)}`];
  if (content.precision !== null && content.precision !== undefined)
    told.push(`its label${content.label_kind ? ` (${content.label_kind})` : ""} is right ${percent(content.precision)} of the time and finds ${percent(content.recall)} on held-out text`);
  return h("p", { class: "byline" }, told.join(" · "));
}

export function examples(content, { first = 0 } = {}) {
  if (!content.groups.length) return h("p", { class: "lead" }, "No examples.");
  const texts = h("div", { class: "passages" });
  const show = (i) => fill(texts, content.groups[i].passages.map((each) =>
    passage(each.tokens, each.values, { largest: content.max, at: each.at, label: `row ${each.row}` })));
  show(first);
  return [choice("Examples", content.groups.map((group, i) => [i, short(group.name)]), first, show), texts];
}

const short = (name) => name.replace(/^quantile (\d+) of (\d+)$/, "$1/$2");

function sides(content, about, bundle, index) {
  const others = (rows) => bars(rows.map(([latent, value]) => [`${latent}  ${index.label[latent] || ""}`, value, to(bundle, "latent", latent)]));
  const { positive, negative } = content.logits;
  const largest = Math.max(1e-9, ...[...positive, ...negative].map((row) => Math.abs(row[1])));
  const parts = [
    [about.signed ? "Sizes of activations, of both signs" : "Activations", content.n_fires ? histogram(content.histogram.edges, content.histogram.counts, "how often it fires how strongly") : null],
    ["Raises and lowers the logits of", h("div", { class: "pair" }, tokenBars(positive, largest), tokenBars(negative, largest))],
    ["Nearest decoder rows", content.neighbours.length ? others(content.neighbours) : null],
    ["Fires together with", content.correlated.length ? others(content.correlated) : null],
    ["Largest coordinates of its decoder row", content.neurons.length ? bars(content.neurons.map(([i, value]) => [String(i), value])) : null],
  ];
  return parts.filter(([, part]) => part).map(([name, part]) => h("section", {}, h("h2", {}, name), part));
}

function note(bundle, latent, notes) {
  const own = notes[bundle]?.[latent] ?? "";
  if (fromFiles) return own ? h("section", {}, h("h2", {}, "Note"), h("p", {}, own)) : null;
  const told = h("span", { class: "told", "aria-live": "polite" });
  const keep = calmly(async (text) => {
    try {
      await source.saveNote(bundle, latent, text);
      told.textContent = "kept";
    } catch (error) { told.textContent = error.message; }
  }, 500);
  const box = h("textarea", { rows: 2, value: own, placeholder: "your note", "aria-label": "Your note on this latent",
    oninput: (event) => { told.textContent = "…"; keep(event.target.value); } });
  return h("section", { class: "note" }, h("h2", {}, "Note ", told), box);
}
