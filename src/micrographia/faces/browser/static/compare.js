// Two dictionaries: for each latent its best match in the other, by decoder rows or by activations.

import { histogram } from "./charts.js";
import { choice, fill, h } from "./dom.js";
import { source } from "./data.js";
import { go, to } from "./place.js";
import { count, number, percent } from "./words.js";

const KINDS = { cosine: "decoder rows", correlation: "activations" };
const MATCHED = 0.7; // Bricken et al. 2023 and SAEBench count a match from about here
const BINS = 40, SHOWN = 200;

export async function compare({ bundle, about, index, what }) {
  const names = Object.keys(about.bundles).filter((name) => name !== bundle);
  const page = h("div", {}, h("h1", {}, "Compare"));
  if (!names.length) {
    page.append(h("p", { class: "lead" }, "There is only one here. Open a folder with several bundles below it."));
    return { page, title: "compare" };
  }
  const other = names.includes(what) ? what : names[0];
  const select = h("select", { "aria-label": "the other", onchange: (event) => go(bundle, "compare", event.target.value) },
    names.map((name) => h("option", { value: name, selected: name === other }, name)));
  page.append(h("p", { class: "byline" }, `Each latent of ${bundle}, and the one most like it in `, select));
  const pairs = await source.compare(bundle, other), labels = (await source.index(other)).label;
  const kinds = Object.entries(KINDS).filter(([kind]) => pairs[kind]);
  const shown = h("div");
  if (!kinds.length) page.append(h("p", { class: "needs" }, "They cannot be compared: they were not measured on the same tokens, and their decoder rows are of other widths or not at hand."));
  else page.append(kinds.length > 1 ? choice("matched by", kinds, kinds[0][0], (kind) => show(kind)) : h("p", { class: "lead" }, `Matched by ${kinds[0][1]}.`), shown);

  function show(kind, lonely = false) {
    const rows = pairs[kind].map(([latent, value], i) => [i, latent, value]).filter((row) => row[2] !== null && !index.dead[row[0]]);
    const matched = rows.filter((row) => row[2] >= MATCHED).length;
    rows.sort((a, b) => (lonely ? a[2] - b[2] : b[2] - a[2]));
    const low = Math.min(0, ...rows.map((row) => row[2])), width = (1 - low) / BINS, counts = Array(BINS).fill(0);
    rows.forEach((row) => { counts[Math.max(0, Math.min(BINS - 1, Math.floor((row[2] - low) / width)))] += 1; });
    fill(shown,
      h("p", { class: "first" }, `${percent(matched / Math.max(1, rows.length))} have a match of ${MATCHED} or more.`),
      histogram(Array.from({ length: BINS + 1 }, (_, i) => low + i * width), counts, "how good the best matches are"),
      choice("which first", [[false, "the best first"], [true, "those without a match first"]], lonely, (value) => {
        show(kind, value);
        shown.querySelector("[aria-pressed=true]").focus();
      }),
      h("table", { class: "matches" }, h("thead", {}, h("tr", {}, h("th", {}, bundle), h("th", {}, other), h("th", { class: "number" }, kind))),
        h("tbody", {}, rows.slice(0, SHOWN).map(([i, latent, value]) => h("tr", {},
          h("td", {}, h("a", { href: to(bundle, "latent", i) }, String(i)), ` ${index.label[i]}`),
          h("td", {}, h("a", { href: to(other, "latent", latent) }, String(latent)), ` ${labels[latent] ?? ""}`),
          h("td", { class: "number" }, number(value)))))),
      rows.length > SHOWN ? h("p", { class: "lead" }, `The first ${SHOWN} of ${count(rows.length)}.`) : null);
  }

  if (kinds.length) show(kinds[0][0]);
  return { page, title: `${bundle} beside ${other}` };
}
