// All latents: found by number, label, token and density; sorted; walked with the keyboard.

import { bars } from "./charts.js";
import { calmly, choice, fill, h } from "./dom.js";
import { source } from "./data.js";
import { go, to } from "./place.js";
import { alone, count, number, percent, share } from "./words.js";

const STEP = 80;
const LOWEST = -7;
const CHANCE = { accuracy: 0.6, precision: 0.5 }; // a label is taken for a guess up to here, and below here
const SORTS = { latent: "number", density: "density", max: "largest activation", accuracy: "label's accuracy", label: "label" };
const states = new Map(); // what was searched stays as it was, by bundle

// Why a label should not be believed; nothing where it may be.
function doubted(index, i) {
  const accuracy = index.accuracy[i], precision = index.precision?.[i] ?? null; // early bundles lack it
  if (!index.label[i]) return null;
  if (accuracy !== null && accuracy <= CHANCE.accuracy) return `hardly better than chance: accuracy ${percent(accuracy)}, where guessing has 50 %`;
  return precision !== null && precision < CHANCE.precision ? `wrong more often than right: precision ${percent(precision)}` : null;
}

export async function list({ bundle, about, index, notes }) {
  const own = about.bundles[bundle];
  if (!states.has(bundle)) states.set(bundle, { text: "", sort: "latent", falling: false, from: LOWEST, upto: 0, dead: true, chosen: 0 });
  const state = states.get(bundle);
  let rows = [], shown = 0;
  const body = h("tbody"), found = h("p", { class: "found", "aria-live": "polite" }), tokens = h("div", { class: "by-token" });
  const end = h("button", { type: "button", class: "further", onclick: () => extend() }, "more");

  const search = h("input", { id: "find", type: "search", value: state.text, placeholder: "a label, a token, a number",
    "aria-label": "Find latents by label, token or number", autocomplete: "off", spellcheck: "false",
    oninput: (event) => { state.text = event.target.value; state.chosen = 0; calm(); } });

  function fits(i) {
    const text = state.text.trim().toLowerCase(), dead = index.dead[i];
    if (dead ? !state.dead || state.from > LOWEST : Math.log10(index.density[i]) < state.from || Math.log10(index.density[i]) > state.upto) return false;
    return !text || String(index.latent[i]) === text.replace(/^#/, "") || index.label[i].toLowerCase().includes(text);
  }

  function refresh() {
    rows = index.latent.map((_, i) => i).filter(fits);
    const column = index[state.sort], sign = state.falling ? -1 : 1;
    const low = (x) => x === null || x === "" || x === undefined;
    rows.sort((a, b) => index.dead[a] - index.dead[b] || low(column[a]) - low(column[b]) || sign * (column[a] > column[b] ? 1 : column[a] < column[b] ? -1 : 0) || a - b);
    shown = 0;
    fill(body);
    found.textContent = rows.length === index.latent.length ? "" : `${count(rows.length)} of ${count(index.latent.length)}`;
    state.chosen = Math.min(state.chosen, Math.max(0, rows.length - 1));
    extend(state.chosen + 1);
    mark(false);
  }

  function extend(least = 0) {
    const upto = Math.min(rows.length, Math.max(shown + STEP, least));
    body.append(...rows.slice(shown, upto).map(row));
    shown = upto;
    end.hidden = shown >= rows.length;
  }

  function row(i) {
    const latent = index.latent[i], note = notes[bundle]?.[latent], doubt = doubted(index, i);
    return h("tr", { class: index.dead[i] ? "dead" : null },
      h("td", { class: "n" }, h("a", { href: to(bundle, "latent", latent) }, String(latent))),
      h("td", { class: "label" }, h("a", { href: to(bundle, "latent", latent), tabindex: "-1", class: doubt ? "doubted" : null, title: doubt, "aria-label": doubt && `${index.label[i]}, ${doubt}` },
        index.dead[i] ? h("span", { class: "badge" }, "dead") : index.label[i] || h("span", { class: "none" }, "no label")),
      note ? h("span", { class: "noted", title: note }, "note") : null),
      h("td", { class: "density", "--strength": `${index.dead[i] ? 0 : Math.max(2, 100 + (100 * Math.log10(index.density[i])) / -LOWEST)}%` },
        h("span", {}, index.dead[i] ? "–" : share(index.density[i]))),
      h("td", { class: "number wide" }, number(index.max[i])),
      h("td", { class: "number wide" }, percent(index.accuracy[i])));
  }

  function mark(scroll = true) {
    body.querySelector(".chosen")?.classList.remove("chosen");
    const node = body.children[state.chosen];
    node?.classList.add("chosen");
    if (scroll) node?.scrollIntoView({ block: "nearest" });
  }

  async function byToken() {
    const text = state.text.trim();
    if (!text || /^#?\d+$/.test(text)) return fill(tokens);
    const hits = await source.byToken(bundle, text).catch(() => []);
    if (text !== state.text.trim()) return null;
    return fill(tokens, hits.slice(0, 6).map(({ token, latents }) => h("div", {},
      h("h3", {}, "on ", h("code", {}, alone(token))),
      bars(latents.slice(0, 6).map(([latent, value]) => [`${latent}  ${index.label[latent] || ""}`, value, to(bundle, "latent", latent)])))));
  }

  const calm = calmly(() => { refresh(); byToken(); });
  const slider = (key, label) => h("label", {}, h("span", {}, label), h("input", { type: "range", min: LOWEST, max: 0, step: 0.25, value: state[key],
    "aria-label": `density ${label}`, oninput: (event) => { state[key] = Number(event.target.value); tell(); refresh(); } }));
  const range = h("output"), order = h("button", { type: "button", "aria-label": "turn the order", onclick: () => { state.falling = !state.falling; tell(); refresh(); } });
  function tell() {
    order.textContent = state.falling ? "falling" : "rising";
    range.textContent = state.from === LOWEST && state.upto === 0 ? "any" : `${state.from === LOWEST ? "0" : share(10 ** state.from)} to ${share(10 ** state.upto)}`;
  }

  const page = h("div", { class: "list" },
    h("h1", {}, `${count(own.n_latents)} latents`),
    h("p", { class: "byline" }, [own.model, own.site, `${count(own.n_tokens)} tokens`, own.dead ? `${count(own.dead)} dead` : null].filter(Boolean).join(" · ")),
    h("div", { class: "finder" }, search, h("button", { type: "button", onclick: random }, "random")),
    h("details", { class: "controls" }, h("summary", {}, "Sort and filter"),
      h("div", { class: "field" }, h("span", { class: "name" }, "sorted by"), choice("sorted by", Object.entries(SORTS), state.sort, (value) => {
        state.sort = value; state.falling = value !== "latent" && value !== "label"; tell(); refresh(); }), order),
      h("div", { class: "field" }, h("span", { class: "name" }, "density"), slider("from", "from"), slider("upto", "to"), range),
      h("label", { class: "field" }, h("input", { type: "checkbox", checked: state.dead, onchange: (event) => { state.dead = event.target.checked; refresh(); } }), "with dead ones")),
    tokens, found,
    h("table", { class: "latents" }, h("thead", {}, h("tr", {}, ["", "label", "density"].map((name) => h("th", {}, name)),
      h("th", { class: "number wide" }, "largest"), h("th", { class: "number wide" }, "accuracy"))), body), end);

  function random() {
    if (rows.length) go(bundle, "latent", index.latent[rows[Math.floor(Math.random() * rows.length)]]);
  }
  const move = (step) => { state.chosen = Math.min(Math.max(0, state.chosen + step), rows.length - 1); extend0(); mark(); };
  const extend0 = () => { if (state.chosen >= shown) extend(); };
  tell();
  refresh();
  byToken();
  new IntersectionObserver((seen) => { if (seen.some((each) => each.isIntersecting) && !end.hidden) extend(); }, { rootMargin: "400px" }).observe(end);
  return { page, title: `${own.site} · latents`, keys: { j: () => move(1), k: () => move(-1), r: random,
    Enter: () => rows.length && go(bundle, "latent", index.latent[rows[state.chosen]]) } };
}
